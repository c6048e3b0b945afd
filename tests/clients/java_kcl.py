"""The unmodified Java KCL 3 (its MultiLangDaemon) across a restart, a split and a merge, record by record.

    java_kcl.py ENDPOINT MODE JARS_DIR JAVA MOTO_SERVER STREAM [CERTIFICATE]

MODE is POLLING or FANOUT. JAVA is the program java of version 17 or later, MOTO_SERVER the program
moto_server, which keeps the KCL's tables. For an https ENDPOINT, CERTIFICATE is the file that vouches for it
(keytool must be beside java or on the path).

Records are put all the time. A first daemon reads two shards and is asked to stop; a second one goes on from
the checkpoints and reads the children of a split and the child of a merge. Prints one line of JSON; exit
code 1, the end of the daemon's log and the reason if a record is missing, altered, doubled or out of order, a
child was begun before its parents' end, an end or a checkpoint is missing, or the mode was not the one asked
for. The comparisons are in java_kcl_compare.py, the processor is java_kcl_processor.py.
"""

import base64
import collections
import contextlib
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

import boto3
from botocore.config import Config

# No compiled copy of the other file is left beside it.
sys.dont_write_bytecode = True

from java_kcl_compare import (  # noqa: E402
    OF_MODE,
    Wrong,
    compare_calls,
    compare_leases,
    compare_records,
    compare_restart,
    compare_shards,
)

DEADLINE_SECONDS = 240
KEYS = 40
BATCH = 20
PAUSE_SECONDS = 0.1
FOLLOWED = 400
# Two daemons live for seconds on a machine that has other work.
QUICK_START = ["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
# Every so many records one is big.
BIG_EVERY, BIG_BYTES = 400, 100_000
APPLICATION = "java-kcl"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "secret"}
PROPERTIES = """
executableName = {python} {processor}
applicationName = {application}
# The second daemon takes its predecessor's place, as a restarted pod does, and need not wait for the
# predecessor's leadership to expire.
workerId = worker
streamName = {stream}
retrievalMode = {mode}
initialPositionInStream = TRIM_HORIZON
AwsCredentialsProvider = DefaultCredentialsProvider
regionName = us-east-1
kinesisEndpoint = {kinesis}
dynamoDBEndpoint = {moto}
cloudWatchEndpoint = {moto}
metricsLevel = NONE
# The leases of ended shards are looked at in the end.
cleanupLeasesUponShardCompletion = false
shutdownGraceMillis = 20000
# All this only to be quick.
failoverTimeMillis = 3000
leaseAssignmentIntervalMillis = 1000
shardSyncIntervalMillis = 1000
parentShardPollIntervalMillis = 500
idleTimeBetweenReadsInMillis = 250
"""

# The SDK tells what it sent when it signs it. The warning left out comes with every batch of a new shard.
LOGGING = """
<configuration>
    <appender name="CONSOLE" class="ch.qos.logback.core.ConsoleAppender">
        <encoder><pattern>%d{{HH:mm:ss.SSS}} %-5level %logger{{30}} %msg%n</pattern></encoder>
    </appender>
    <appender name="SIGNED" class="ch.qos.logback.core.FileAppender">
        <file>{signed}</file>
        <encoder><pattern>%msg%n</pattern></encoder>
    </appender>
    <logger name="software.amazon.awssdk.http.auth.aws" level="TRACE" additivity="false">
        <appender-ref ref="SIGNED" />
    </logger>
    <logger name="software.amazon.kinesis.lifecycle.ProcessTask" level="ERROR" />
    <root level="INFO"><appender-ref ref="CONSOLE" /></root>
</configuration>
"""


class Clock:
    """The time that is left for all of it."""

    def __init__(self):
        self.began = time.monotonic()

    def seconds(self):
        return round(time.monotonic() - self.began, 1)

    def wait_for(self, what, condition):
        while not condition():
            if self.seconds() > DEADLINE_SECONDS:
                raise Wrong(f"{what}: not within {DEADLINE_SECONDS} s of the start")
            time.sleep(0.1)


class Child:
    """A program with a log, ended with everything it started; it also ends should this script be killed."""

    def __init__(self, arguments, log, environment=None):
        self.log = log
        with open(log, "ab") as output:
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *arguments],
                env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def text(self):
        return self.log.read_text(errors="replace")

    def check(self):
        if self.process.poll() is not None:
            said = self.text()[-300:]
            raise Wrong(f"{self.log.stem} ended with code {self.process.returncode}: {said}")

    def ask_to_stop(self):
        self.process.send_signal(signal.SIGTERM)

    def kill(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Producer:
    """Puts numbered records, a batch at a time, until told to stop; knows what became of each."""

    def __init__(self, client, stream):
        self.client, self.stream = client, stream
        self.put, self.failure = {}, None
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def run(self):
        try:
            while not self.stopping.is_set():
                self.batch()
                time.sleep(PAUSE_SECONDS)
        except BaseException as failure:
            self.failure = failure

    def batch(self):
        start = len(self.put)
        records = [(f"key-é-{n % KEYS}", payload(n)) for n in range(start, start + BATCH)]
        sent = time.time()
        answer = self.client.put_records(
            StreamName=self.stream, Records=[{"PartitionKey": key, "Data": data} for key, data in records]
        )
        if answer["FailedRecordCount"]:
            raise Wrong(f"{answer['FailedRecordCount']} records were refused")
        for n, ((key, data), done) in enumerate(zip(records, answer["Records"], strict=True), start):
            self.put[n] = (key, data, done["ShardId"], int(done["SequenceNumber"]), sent, time.time())

    def stop(self):
        self.stopping.set()
        self.thread.join()
        if self.failure:
            raise self.failure


def payload(number):
    size = BIG_BYTES if number % BIG_EVERY == 7 else number % 300
    return f"{number},".encode() + random.Random(number).randbytes(size)


class Events:
    """What the processors noted, read as it grows."""

    def __init__(self, path):
        self.path, self.position, self.all = path, 0, []
        path.touch()
        self.records = collections.Counter()
        self.numbers = set()

    def read(self):
        with open(self.path, "rb") as file:
            file.seek(self.position)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self.position += len(line)
                self.add(json.loads(line))

    def add(self, event):
        self.all.append(event)
        if event["event"] != "processRecords":
            return
        self.records[event["shard"]] += len(event["records"])
        for record in event["records"]:
            record["data"] = base64.b64decode(record["data"])
            record["number"] = int(record["data"].split(b",", 1)[0])
            self.numbers.add(record["number"])


def wait_active(client, stream):
    client.get_waiter("stream_exists").wait(StreamName=stream, WaiterConfig={"Delay": 1, "MaxAttempts": 30})


def open_shards(client, stream):
    shards = client.list_shards(StreamName=stream)["Shards"]
    still_open = [s for s in shards if "EndingSequenceNumber" not in s["SequenceNumberRange"]]
    return sorted(still_open, key=lambda shard: int(shard["HashKeyRange"]["StartingHashKey"]))


def split(client, stream, shard):
    start, end = (int(shard["HashKeyRange"][name]) for name in ("StartingHashKey", "EndingHashKey"))
    client.split_shard(
        StreamName=stream, ShardToSplit=shard["ShardId"], NewStartingHashKey=str((start + end) // 2)
    )
    wait_active(client, stream)


def merge(client, stream, left, right):
    client.merge_shards(
        StreamName=stream, ShardToMerge=left["ShardId"], AdjacentShardToMerge=right["ShardId"]
    )
    wait_active(client, stream)


def checkpoints(tables):
    rows = tables.scan(TableName=APPLICATION, ConsistentRead=True)["Items"]
    return {row["leaseKey"]["S"]: row["checkpoint"]["S"] for row in rows}


def compare_consumers(client, stream, mode):
    summary = client.describe_stream_summary(StreamName=stream)["StreamDescriptionSummary"]
    arn = summary["StreamARN"]
    consumers = client.list_stream_consumers(StreamARN=arn)["Consumers"]
    found = [(consumer["ConsumerName"], consumer["ConsumerStatus"]) for consumer in consumers]
    if found != ([(APPLICATION, "ACTIVE")] if mode == "FANOUT" else []):
        raise Wrong(f"the stream's consumers are {found}")
    for consumer in consumers:
        described = client.describe_stream_consumer(ConsumerARN=consumer["ConsumerARN"])
        if described["ConsumerDescription"]["ConsumerStatus"] != "ACTIVE":
            raise Wrong(f"{described}")


def trust_options(java, certificate, directory):
    """A trust store with the server's certificate and no other."""
    beside = pathlib.Path(shutil.which(java) or java).resolve().with_name("keytool")
    store = directory / "trust.p12"
    made = subprocess.run(
        [str(beside if beside.exists() else "keytool"), "-importcert", "-noprompt", "-alias", "server"]
        + ["-file", certificate, "-keystore", str(store), "-storetype", "PKCS12", "-storepass", "trusted"],
        capture_output=True,
        timeout=60,
    )
    if made.returncode:
        raise Wrong(f"keytool: {made.stdout.decode()}{made.stderr.decode()}")
    return [f"-Djavax.net.ssl.trustStore={store}", "-Djavax.net.ssl.trustStorePassword=trusted"]


class Run:
    def __init__(self, endpoint, mode, jars, java, moto_server, stream, certificate=None):
        self.clock = Clock()
        self.endpoint, self.mode, self.jars, self.java = endpoint, mode, jars, java
        self.moto_server, self.stream, self.certificate = moto_server, stream, certificate
        self.client = boto3.client(
            "kinesis",
            endpoint_url=endpoint,
            region_name="us-east-1",
            aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
            verify=certificate,
            config=Config(retries={"total_max_attempts": 1}, connect_timeout=10, read_timeout=20),
        )
        self.children, self.daemon, self.trust = [], None, []
        self.seconds = {}

    def start_moto(self, directory):
        """Starts moto_server; where it listens."""
        moto = Child([self.moto_server, "-H", "127.0.0.1", "-p", "0"], directory / "moto.log")
        self.children.append(moto)

        def told():
            return re.search(r"Running on (http://127\.0\.0\.1:\d+)", moto.text())

        self.wait_for("moto_server is ready", told)
        return told()[1]

    def start_daemon(self, directory):
        self.daemon = Child(
            [self.java, *QUICK_START, *self.trust, "-cp", f"{self.jars}/*"]
            + ["software.amazon.kinesis.multilang.MultiLangDaemon"]
            + ["--properties-file", str(directory / "kcl.properties")]
            + ["--log-configuration", str(directory / "logback.xml")],
            directory / "daemon.log",
            {**CREDENTIALS, "KCL_EVENTS": str(directory / "events"), "LC_ALL": "C.UTF-8"},
        )
        self.children.append(self.daemon)

    def wait_for(self, what, condition):
        """Waits while everything that should run does."""

        def checked():
            for child in self.children:
                child.check()
            if self.producer.failure:
                raise self.producer.failure
            self.events.read()
            return condition()

        self.clock.wait_for(what, checked)
        self.seconds[what] = self.clock.seconds()

    def wait_for_records_of(self, shards, what):
        self.wait_for(what, lambda: all(self.events.records[shard["ShardId"]] for shard in shards))

    def follow_for_a_while(self, what):
        goal = len(self.producer.put) + FOLLOWED
        self.wait_for(what, lambda: len(self.events.numbers) >= goal)

    def has_everything(self):
        """Every record was processed, and whatever was to be followed by a checkpoint was."""
        events = collections.Counter(event["event"] for event in self.events.all)
        followed = events["processRecords"] + events["shardEnded"] + events["shutdownRequested"]
        return len(self.events.numbers) == len(self.producer.put) and events["checkpoint"] == followed

    def stop_daemon(self):
        """Asks the daemon to stop; every shard's processor must be told and may checkpoint."""
        shards = {shard["ShardId"] for shard in open_shards(self.client, self.stream)}
        before = len(self.events.all)
        self.children.remove(self.daemon)
        self.daemon.ask_to_stop()
        self.clock.wait_for("the daemon has stopped", lambda: self.daemon.process.poll() is not None)
        self.daemon.kill()
        self.events.read()
        told = {e["shard"] for e in self.events.all[before:] if e["event"] == "shutdownRequested"}
        if told != shards:
            raise Wrong(f"asked to stop, the daemon told {sorted(told)} of {sorted(shards)}")
        self.seconds["stopped"] = self.clock.seconds()

    def run(self, directory):
        self.client.create_stream(StreamName=self.stream, ShardCount=2)
        wait_active(self.client, self.stream)
        self.events = Events(directory / "events")
        self.producer = Producer(self.client, self.stream)
        self.producer.thread.start()
        tables_url = self.start_moto(directory)
        properties = PROPERTIES.format(
            python=sys.executable,
            processor=pathlib.Path(__file__).with_name("java_kcl_processor.py").resolve(),
            application=APPLICATION,
            stream=self.stream,
            mode=self.mode,
            kinesis=self.endpoint,
            moto=tables_url,
        )
        (directory / "kcl.properties").write_text(properties)
        (directory / "logback.xml").write_text(LOGGING.format(signed=directory / "signed.log"))
        if self.certificate:
            self.trust = trust_options(self.java, self.certificate, directory)
        self.start_daemon(directory)
        tables = boto3.client(
            "dynamodb",
            endpoint_url=tables_url,
            region_name="us-east-1",
            aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        )

        order = open_shards(self.client, self.stream)
        self.wait_for_records_of(order, "first records")
        self.follow_for_a_while("caught up")
        # Not after a split: in POLLING the KCL needs another minute to be done with an ended shard.
        self.stop_daemon()
        leases, before = checkpoints(tables), len(self.events.all)
        self.events.records.clear()
        self.start_daemon(directory)
        self.wait_for_records_of(order, "records after the restart")
        split(self.client, self.stream, order[0])
        order = open_shards(self.client, self.stream)
        self.wait_for_records_of(order, "records after the split")
        merge(self.client, self.stream, order[1], order[2])
        order = open_shards(self.client, self.stream)
        self.wait_for_records_of(order, "records after the merge")
        self.follow_for_a_while("caught up after the merge")
        self.producer.stop()
        try:
            self.wait_for("everything", self.has_everything)
        except Wrong:
            compare_records(self.producer.put, self.events.all)
            raise
        # Anything doubled comes right behind.
        time.sleep(1)
        self.events.read()
        return self.compare(tables, leases, before, (directory / "signed.log").read_text())

    def compare(self, tables, leases, before, signed):
        put, events = self.producer.put, self.events.all
        shards = {s["ShardId"]: s for s in self.client.list_shards(StreamName=self.stream)["Shards"]}
        if len(shards) != 5:
            raise Wrong(f"2 shards, a split and a merge make 5, not {sorted(shards)}")
        repeats = compare_records(put, events)
        compare_shards(shards, events)
        compare_restart(events[before:], leases)
        compare_leases(checkpoints(tables), shards, put)
        compare_consumers(self.client, self.stream, self.mode)
        calls = compare_calls(signed, self.mode, len(shards))
        return {
            "mode": self.mode,
            "records": len(put),
            "shards": sorted(shards),
            "duplicates": repeats,
            "checkpoints": sum(event["event"] == "checkpoint" for event in events),
            "calls": calls,
            "seconds": {**self.seconds, "in all": self.clock.seconds()},
        }


def main(arguments):
    if len(arguments) not in (6, 7) or arguments[1] not in OF_MODE:
        sys.exit(__doc__)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("asked to stop"))
    run = Run(*arguments)
    with tempfile.TemporaryDirectory(prefix="java-kcl-") as directory:
        try:
            done = run.run(pathlib.Path(directory))
        except Exception as failure:
            if run.daemon:
                lines = run.daemon.text().splitlines()[-60:]
                print("the daemon's last lines:", *(line[:400] for line in lines), sep="\n", file=sys.stderr)
            sys.exit(f"wrong: {failure!r}, after {run.seconds}")
        finally:
            for child in [*run.children, run.daemon]:
                if child:
                    child.kill()
    print(json.dumps(done))


if __name__ == "__main__":
    main(sys.argv[1:])
