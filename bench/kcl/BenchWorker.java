// A worker of the Java KCL that does nothing with its records but count them, or say when each came.
//
// BenchWorker KINESIS STORE STREAM APPLICATION WORKER FAILOVER_MS fanout|polling count|trace
//
// KINESIS and STORE are endpoints; DynamoDB and CloudWatch are at STORE. What it prints is what bench/kcl/worker.rs prints.

import java.io.BufferedOutputStream;
import java.io.PrintStream;
import java.net.URI;
import java.nio.ByteBuffer;
import java.time.Instant;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;
import software.amazon.awssdk.auth.credentials.AwsBasicCredentials;
import software.amazon.awssdk.auth.credentials.StaticCredentialsProvider;
import software.amazon.awssdk.regions.Region;
import software.amazon.awssdk.services.cloudwatch.CloudWatchAsyncClient;
import software.amazon.awssdk.services.dynamodb.DynamoDbAsyncClient;
import software.amazon.awssdk.services.kinesis.KinesisAsyncClient;
import software.amazon.kinesis.common.ConfigsBuilder;
import software.amazon.kinesis.common.InitialPositionInStream;
import software.amazon.kinesis.common.InitialPositionInStreamExtended;
import software.amazon.kinesis.common.KinesisClientUtil;
import software.amazon.kinesis.coordinator.Scheduler;
import software.amazon.kinesis.lifecycle.events.InitializationInput;
import software.amazon.kinesis.lifecycle.events.LeaseLostInput;
import software.amazon.kinesis.lifecycle.events.ProcessRecordsInput;
import software.amazon.kinesis.lifecycle.events.ShardEndedInput;
import software.amazon.kinesis.lifecycle.events.ShutdownRequestedInput;
import software.amazon.kinesis.metrics.MetricsLevel;
import software.amazon.kinesis.processor.ShardRecordProcessor;
import software.amazon.kinesis.processor.SingleStreamTracker;
import software.amazon.kinesis.retrieval.KinesisClientRecord;
import software.amazon.kinesis.retrieval.polling.PollingConfig;

public class BenchWorker {
    static final PrintStream OUT = new PrintStream(new BufferedOutputStream(System.out, 1 << 16), false);
    static final AtomicLong RECORDS = new AtomicLong();
    static final AtomicLong BYTES = new AtomicLong();
    static boolean trace;

    static long nowUs() {
        Instant now = Instant.now();
        return now.getEpochSecond() * 1_000_000 + now.getNano() / 1000;
    }

    static synchronized void say(String line) {
        OUT.println(line);
        OUT.flush();
    }

    static class Processor implements ShardRecordProcessor {
        private String shard;

        public void initialize(InitializationInput input) {
            shard = input.shardId();
            say("shard " + shard + " " + nowUs());
        }

        public void processRecords(ProcessRecordsInput input) {
            if (input.records().isEmpty()) {
                return;
            }
            if (trace) {
                trace(input);
            } else {
                long bytes = 0;
                for (KinesisClientRecord record : input.records()) {
                    bytes += record.data().remaining();
                }
                RECORDS.addAndGet(input.records().size());
                BYTES.addAndGet(bytes);
            }
            checkpoint(() -> input.checkpointer().checkpoint());
        }

        private void trace(ProcessRecordsInput input) {
            StringBuilder lines = new StringBuilder();
            long now = nowUs();
            byte[] put = new byte[16];
            for (KinesisClientRecord record : input.records()) {
                ByteBuffer data = record.data().duplicate();
                data.get(put);
                if (lines.length() > 0) {
                    lines.append('\n');
                }
                lines.append("record ").append(shard).append(' ').append(record.sequenceNumber());
                lines.append(' ').append(new String(put)).append(' ').append(now);
            }
            say(lines.toString());
        }

        public void leaseLost(LeaseLostInput input) {
            say("lost " + shard + " " + nowUs());
        }

        public void shardEnded(ShardEndedInput input) {
            checkpoint(() -> input.checkpointer().checkpoint());
        }

        public void shutdownRequested(ShutdownRequestedInput input) {
            checkpoint(() -> input.checkpointer().checkpoint());
        }
    }

    interface Step {
        void run() throws Exception;
    }

    static void checkpoint(Step step) {
        try {
            step.run();
        } catch (Exception error) {
            System.err.println("checkpoint: " + error);
        }
    }

    public static void main(String[] arguments) throws Exception {
        String stream = arguments[2], application = arguments[3], worker = arguments[4];
        long failoverMs = Long.parseLong(arguments[5]);
        trace = arguments[7].equals("trace");
        var credentials = StaticCredentialsProvider.create(AwsBasicCredentials.create("AKIDEXAMPLE", "secret"));
        URI kinesisAt = URI.create(arguments[0]), storeAt = URI.create(arguments[1]);
        KinesisAsyncClient kinesis = KinesisClientUtil.createKinesisAsyncClient(KinesisAsyncClient.builder()
                .endpointOverride(kinesisAt).region(Region.US_EAST_1).credentialsProvider(credentials));
        DynamoDbAsyncClient tables = DynamoDbAsyncClient.builder()
                .endpointOverride(storeAt).region(Region.US_EAST_1).credentialsProvider(credentials).build();
        CloudWatchAsyncClient metrics = CloudWatchAsyncClient.builder()
                .endpointOverride(storeAt).region(Region.US_EAST_1).credentialsProvider(credentials).build();
        var start = InitialPositionInStreamExtended.newInitialPosition(InitialPositionInStream.TRIM_HORIZON);
        ConfigsBuilder configs = new ConfigsBuilder(
                new SingleStreamTracker(stream, start), application, kinesis, tables, metrics, worker, Processor::new);
        var retrieval = configs.retrievalConfig();
        if (arguments[6].equals("polling")) {
            retrieval.retrievalSpecificConfig(new PollingConfig(stream, kinesis));
        }
        Scheduler scheduler = new Scheduler(
                configs.checkpointConfig(),
                configs.coordinatorConfig(),
                configs.leaseManagementConfig().failoverTimeMillis(failoverMs),
                configs.lifecycleConfig(),
                configs.metricsConfig().metricsLevel(MetricsLevel.NONE),
                configs.processorConfig(),
                retrieval);
        Thread counting = new Thread(() -> {
            long before = 0;
            while (true) {
                long records = RECORDS.get();
                if (records != before) {
                    before = records;
                    say("total " + records + " " + BYTES.get() + " " + nowUs());
                }
                try {
                    Thread.sleep(20);
                } catch (InterruptedException end) {
                    return;
                }
            }
        });
        counting.setDaemon(true);
        counting.start();
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            try {
                scheduler.startGracefulShutdown().get(30, TimeUnit.SECONDS);
            } catch (Exception error) {
                System.err.println("shutdown: " + error);
            }
        }));
        scheduler.run();
    }
}
