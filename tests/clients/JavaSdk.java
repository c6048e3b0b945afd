// The unmodified AWS SDK for Java 2 on all the ways to the port: CBOR (its default) over HTTP/1.1 and
// HTTP/2, plain and over TLS with the server's own certificate.
//
//     java -cp "JARS/*" JavaSdk.java ENDPOINT CERTIFICATE
//
// Prints one line for each way; exit code 1 and a stack trace at the first difference.

import java.io.FileInputStream;
import java.net.URI;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import java.time.Duration;
import java.time.Instant;
import java.util.Arrays;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import javax.net.ssl.TrustManagerFactory;
import software.amazon.awssdk.auth.credentials.AwsBasicCredentials;
import software.amazon.awssdk.auth.credentials.StaticCredentialsProvider;
import software.amazon.awssdk.core.SdkBytes;
import software.amazon.awssdk.http.Protocol;
import software.amazon.awssdk.http.nio.netty.NettyNioAsyncHttpClient;
import software.amazon.awssdk.regions.Region;
import software.amazon.awssdk.services.kinesis.KinesisAsyncClient;
import software.amazon.awssdk.services.kinesis.model.KinesisException;
import software.amazon.awssdk.services.kinesis.model.ResourceNotFoundException;
import software.amazon.awssdk.services.kinesis.model.ShardIteratorType;

public class JavaSdk {
    private static final byte[] BLOB = {0, -1, 1, 'x'};

    public static void main(String[] arguments) throws Exception {
        try {
            String secure = arguments[0].replace("http://", "https://");
            for (String endpoint : new String[] {arguments[0], secure}) {
                for (Protocol protocol : Protocol.values()) {
                    visit(endpoint, arguments[1], protocol);
                }
            }
        } catch (Throwable wrong) {
            wrong.printStackTrace();
            System.exit(1);
        }
        // The SDK's threads would go on for a while.
        System.exit(0);
    }

    private static void visit(String endpoint, String certificate, Protocol protocol) throws Exception {
        KinesisAsyncClient client = KinesisAsyncClient.builder()
                .endpointOverride(URI.create(endpoint))
                .region(Region.US_EAST_1)
                .credentialsProvider(StaticCredentialsProvider.create(AwsBasicCredentials.create("a", "b")))
                .httpClientBuilder(NettyNioAsyncHttpClient.builder()
                        .protocol(protocol)
                        .tlsTrustManagersProvider(() -> trust(certificate).getTrustManagers()))
                .build();
        String way = URI.create(endpoint).getScheme() + "-" + protocol;
        Instant before = Instant.now().minusSeconds(1);
        done(client.createStream(r -> r.streamName(way).shardCount(2)));
        var put = done(client.putRecord(
                r -> r.streamName(way).partitionKey("kéy").data(SdkBytes.fromByteArray(BLOB))));
        var start = done(client.getShardIterator(r -> r.streamName(way).shardId(put.shardId())
                .shardIteratorType(ShardIteratorType.AT_TIMESTAMP).timestamp(before)));
        var records = done(client.getRecords(r -> r.shardIterator(start.shardIterator()))).records();
        expect(records.size() == 1, records);
        var record = records.get(0);
        expect(Arrays.equals(record.data().asByteArray(), BLOB), record);
        expect(record.partitionKey().equals("kéy"), record);
        expect(record.sequenceNumber().equals(put.sequenceNumber()), record);
        Duration age = Duration.between(before, record.approximateArrivalTimestamp());
        expect(!age.isNegative() && age.compareTo(Duration.ofMinutes(1)) < 0, record);
        var summary = done(client.describeStreamSummary(r -> r.streamName(way))).streamDescriptionSummary();
        expect(summary.openShardCount() == 2, summary);
        expect(!summary.streamCreationTimestamp().isBefore(before), summary);
        expect(done(client.listShards(r -> r.streamName(way))).shards().size() == 2, way);
        done(client.addTagsToStream(r -> r.streamName(way).tags(Map.of("k", "v"))));
        var tags = done(client.listTagsForStream(r -> r.streamName(way))).tags();
        expect(tags.size() == 1 && tags.get(0).value().equals("v"), tags);
        try {
            done(client.describeStream(r -> r.streamName("none")));
            expect(false, "a stream that is not there was described");
        } catch (ExecutionException failed) {
            expect(failed.getCause() instanceof ResourceNotFoundException, failed);
            var error = (KinesisException) failed.getCause();
            String message = "Stream none under account 000000000000 not found.";
            expect(error.awsErrorDetails().errorMessage().equals(message), error);
            expect(error.statusCode() == 400 && error.requestId().length() == 36, error);
        }
        done(client.deleteStream(r -> r.streamName(way)));
        System.out.println(way);
    }

    private static TrustManagerFactory trust(String certificate) {
        try (var file = new FileInputStream(certificate)) {
            KeyStore store = KeyStore.getInstance(KeyStore.getDefaultType());
            store.load(null);
            store.setCertificateEntry("m", CertificateFactory.getInstance("X.509").generateCertificate(file));
            var factory = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
            factory.init(store);
            return factory;
        } catch (Exception error) {
            throw new IllegalStateException(error);
        }
    }

    private static <T> T done(CompletableFuture<T> call) throws Exception {
        return call.get(30, TimeUnit.SECONDS);
    }

    private static void expect(boolean holds, Object found) {
        if (!holds) {
            throw new AssertionError("not as expected: " + found);
        }
    }
}
