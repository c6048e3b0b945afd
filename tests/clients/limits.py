"""AWS's limits through an unmodified boto3: what is refused, how, for how long, and that nothing is lost.

    limits.py ENDPOINT STREAM     of a server with AWS's limits (`--limits aws`, the default)

Each shard of the stream is for one limit: records per second in, bytes per second in, PutRecord, calls per
second out, bytes per second out. A second stream takes the largest requests. What was refused is sent again
as users of an SDK do, then every shard is read back and compared. Prints one line of JSON; exit code 1 and
the reason if a limit does not hold, holds too long, is answered wrongly, or if a record is lost or doubled.

Times are taken from before a call to after it, so a slow machine allows more, never less, than was measured.
"""

import collections
import concurrent.futures
import json
import sys
import threading
import time

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

DEADLINE_SECONDS = 120
MIB = 1024 * 1024
EXCEEDED = "ProvisionedThroughputExceededException"
RECORDS_PER_SECOND, BYTES_PER_SECOND = 1_000, MIB
CALLS_PER_SECOND, BYTES_READ_PER_SECOND = 5, 2 * MIB
CALLS, CALLERS = 40, 12
# How much longer than it must a shard may go on refusing, on a busy machine.
PATIENCE_SECONDS = 10


class Wrong(Exception):
    """What a check found."""


def expect(what, found, expected):
    if found != expected:
        raise Wrong(f"{what}: {found!r} where {expected!r} was expected")


def connect(endpoint, **retries):
    return boto3.client(
        "kinesis",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="AKIDEXAMPLE",
        aws_secret_access_key="secret",
        config=Config(retries=retries, max_pool_connections=CALLERS, read_timeout=20),
    )


class Shard:
    """One shard, what was put into it, and how fast it takes and gives."""

    def __init__(self, client, stream, described):
        self.client, self.stream, self.id = client, stream, described["ShardId"]
        self.hash_key = described["HashKeyRange"]["StartingHashKey"]
        # Sequence number -> data of everything that was acknowledged.
        self.stored = {}
        self.began, self.records, self.bytes = None, 0, 0
        self.lock = threading.Lock()

    def entry(self, data, key="k"):
        return {"PartitionKey": key, "ExplicitHashKey": self.hash_key, "Data": data}

    def begin(self):
        """Before each put: the allowance counts from the first."""
        self.began = self.began or time.monotonic()

    def acknowledged(self, answer, entry):
        """Notes a record that is in; a shard takes a second's worth at once and then as much a second."""
        expect("shard of a record", answer["ShardId"], self.id)
        with self.lock:
            if answer["SequenceNumber"] in self.stored:
                raise Wrong(f"sequence number {answer['SequenceNumber']} was given twice")
            self.stored[answer["SequenceNumber"]] = entry["Data"]
            self.records += 1
            self.bytes += len(entry["Data"]) + len(entry["PartitionKey"])
            seconds = 1 + time.monotonic() - self.began
            if self.records > RECORDS_PER_SECOND * seconds or self.bytes > BYTES_PER_SECOND * seconds:
                took = f"{self.records} records, {self.bytes} bytes in {seconds - 1:.2f} s"
                raise Wrong(f"{self.id} took {took}")

    def refused(self, error):
        """Checks an exception, or the part of an answer about one record."""
        code, message = error.get("Code"), error.get("Message", "")
        account = "000000000000"
        if code != EXCEEDED or not all(part in message for part in (self.id, self.stream, account)):
            raise Wrong(f"{self.id} of {self.stream} refuses with {error}")

    def iterator(self, kind="TRIM_HORIZON"):
        while True:
            try:
                return self.client.get_shard_iterator(
                    StreamName=self.stream, ShardId=self.id, ShardIteratorType=kind
                )["ShardIterator"]
            except self.client.exceptions.ProvisionedThroughputExceededException as error:
                self.refused(error.response["Error"])
                time.sleep(0.2)

    def get(self, iterator, limit=10_000):
        """An answer, or None if the call was refused as it should be."""
        try:
            return self.client.get_records(ShardIterator=iterator, Limit=limit)
        except self.client.exceptions.ProvisionedThroughputExceededException as error:
            expect("status", error.response["ResponseMetadata"]["HTTPStatusCode"], 400)
            self.refused(error.response["Error"])
            return None

    def read(self, deadline):
        """Everything in the shard, by calls that are refused now and then."""
        iterator, found = self.iterator(), []
        while time.monotonic() < deadline:
            page = self.get(iterator)
            if page is None:
                time.sleep(0.25)
                continue
            iterator = page["NextShardIterator"]
            found += page["Records"]
            if not page["Records"] and page["MillisBehindLatest"] == 0:
                return found
        raise Wrong(f"{self.id} could not be read in time")

    def compare(self, records):
        """What was acknowledged, once each, in order, and nothing else."""
        found = [(record["SequenceNumber"], record["Data"]) for record in records]
        in_order = sorted(self.stored.items(), key=lambda pair: int(pair[0]))
        expect(f"number of records in {self.id}", len(found), len(in_order))
        for one, other in zip(found, in_order):
            if one != other:
                raise Wrong(f"{self.id}: {one[0]} {one[1][:20]!r}, put: {other[0]} {other[1][:20]!r}")


def put_once(client, stream, entries):
    """One PutRecords of (shard, entry) pairs; the pairs that were refused."""
    for shard in {shard for shard, _ in entries}:
        shard.begin()
    answer = client.put_records(StreamName=stream, Records=[entry for _, entry in entries])
    left, before = [], collections.defaultdict(int)
    for (shard, entry), one in zip(entries, answer["Records"], strict=True):
        if "ErrorCode" not in one:
            expect("a record that is in", sorted(one), ["SequenceNumber", "ShardId"])
            shard.acknowledged(one, entry)
            sequence = int(one["SequenceNumber"])
            if sequence <= before[shard.id]:
                raise Wrong(f"{shard.id} has the records of one request in another order")
            before[shard.id] = sequence
            continue
        expect("a refused record", sorted(one), ["ErrorCode", "ErrorMessage"])
        shard.refused({"Code": one["ErrorCode"], "Message": one["ErrorMessage"]})
        left.append((shard, entry))
    expect("FailedRecordCount", answer["FailedRecordCount"], len(left))
    return left


def put_all(client, stream, entries, batch, deadline):
    """Everything at once, then what was refused again and again; how many were refused the first time."""
    waiting, refused = entries, None
    while waiting:
        if time.monotonic() > deadline:
            raise Wrong(f"{len(waiting)} of {len(entries)} records are still refused")
        parts = [waiting[begin : begin + batch] for begin in range(0, len(waiting), batch)]
        waiting = [pair for part in parts for pair in put_once(client, stream, part)]
        refused = len(waiting) if refused is None else refused
        time.sleep(0.1 if waiting else 0)
    return refused


def records_in(client, stream, metered, other):
    """1,000 records per second; those for another shard in the same requests are never refused."""
    entries = [(metered, metered.entry(b"%d" % number)) for number in range(3_000)]
    for place in range(len(entries), 0, -50):
        entries.insert(place, (other, other.entry(b"other %d" % place)))
    for begin in (0, 480):
        expect("refused of the first records", put_once(client, stream, entries[begin : begin + 480]), [])
    began = time.monotonic()
    refused = put_all(client, stream, entries[960:], 500, began + 2 + PATIENCE_SECONDS)
    expect("records of the other shard", other.records, 60)
    if refused == 0:
        raise Wrong("3,000 records at once and none was refused")
    return refused


def bytes_in(client, stream, shard):
    """1 MiB per second, in records of 100,000 bytes."""
    entries = [(shard, shard.entry(b"%d," % number + b"x" * 100_000)) for number in range(40)]
    refused = put_all(client, stream, entries, 20, time.monotonic() + 3 + PATIENCE_SECONDS)
    if not 0 < refused <= 30:
        raise Wrong(f"{refused} of 40 records of 100,000 bytes were refused at first")
    return refused


def single_puts(endpoint, client, stream, shard):
    """PutRecord is refused with an exception of its own class; boto3's retries get through."""

    def put(through, number):
        entry = shard.entry(b"%d," % number + b"y" * 500_000)
        answer = through.put_record(StreamName=stream, **entry)
        expect("answer of PutRecord", sorted(answer), ["ResponseMetadata", "SequenceNumber", "ShardId"])
        shard.acknowledged(answer, entry)
        return answer["ResponseMetadata"]["RetryAttempts"]

    def passes(number):
        try:
            put(client, number)
            return True
        except client.exceptions.ProvisionedThroughputExceededException as error:
            expect("status", error.response["ResponseMetadata"]["HTTPStatusCode"], 400)
            shard.refused(error.response["Error"])
            return False

    shard.begin()
    with concurrent.futures.ThreadPoolExecutor(CALLERS) as pool:
        passed = sum(pool.map(passes, range(20)))
    if not 2 <= passed < 20:
        raise Wrong(f"{passed} of 20 records of 500,000 bytes passed at once")
    retrying = connect(endpoint, mode="standard", total_max_attempts=12)
    return sum(put(retrying, number) for number in range(100, 104))


def calls_out(shard, other):
    """5 calls per second of GetRecords and of GetShardIterator, for this shard alone."""
    put_once(shard.client, shard.stream, [(shard, shard.entry(b"here"))])
    iterator, elsewhere = shard.iterator(), other.iterator()

    def ask_for_iterator(_):
        try:
            return shard.client.get_shard_iterator(
                StreamName=shard.stream, ShardId=shard.id, ShardIteratorType="LATEST"
            )
        except shard.client.exceptions.ProvisionedThroughputExceededException as error:
            shard.refused(error.response["Error"])
            return None

    answered = {}
    with concurrent.futures.ThreadPoolExecutor(CALLERS) as pool:
        calls = {"GetRecords": lambda _: shard.get(iterator), "GetShardIterator": ask_for_iterator}
        # The iterator above was the first of its second.
        time.sleep(1)
        for name, call in calls.items():
            began = time.monotonic()
            answers = [answer for answer in pool.map(call, range(CALLS)) if answer]
            took = time.monotonic() - began
            answered[name] = len(answers)
            if not CALLS_PER_SECOND <= len(answers) <= CALLS_PER_SECOND * (1 + took):
                raise Wrong(f"{len(answers)} calls of {CALLS} {name} were answered in {took:.2f} s")
            if len(answers) == CALLS:
                raise Wrong(f"{CALLS} calls of {name} took {took:.2f} s, too long to tell anything")
    if other.get(elsewhere) is None:
        raise Wrong(f"{other.id} refuses because {shard.id} was read")
    time.sleep(1)
    page = shard.get(iterator)
    expect("records after the refusals", [record["Data"] for record in page["Records"]], [b"here"])
    return answered


def fill(shard, deadline):
    """Ten records of 1 MiB with their keys, which take ten seconds to put."""
    for number in range(10):
        data = b"%d," % number
        entry = shard.entry(data + b"z" * (MIB - len(data) - 1))
        time.sleep(1 if number else 0)
        put_all(shard.client, shard.stream, [(shard, entry)], 1, deadline)


def bytes_out(shard):
    """An answer of 10 MiB is paid for by the calls of the next seconds, whoever makes them."""
    iterator, tip = shard.iterator(), shard.iterator("LATEST")
    refused, answered, stop = [], [], threading.Event()

    def poll():
        """Reads nothing, less than 5 times per second: only the bytes can be a reason to refuse it."""
        while not (refused and answered[-1:] > refused[-1:]) and not stop.wait(0.3):
            page = shard.get(tip)
            (refused if page is None else answered).append(time.monotonic())

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        began = time.monotonic()
        # On a slow machine it takes seconds to unpack the answer; the other thread asks meanwhile.
        polling = pool.submit(poll)
        page = shard.get(iterator)
        concurrent.futures.wait([polling], timeout=5 + PATIENCE_SECONDS)
        stop.set()
        polling.result()
    size = sum(len(record["Data"]) + len(record["PartitionKey"]) for record in page["Records"])
    expect("bytes of a large answer", size, 10 * MIB)
    shard.compare(page["Records"])
    if not refused:
        raise Wrong("10 MiB were read, and the calls of the next seconds are answered")
    if answered[-1:] < refused[-1:]:
        raise Wrong(f"10 MiB were read, and calls are refused after {refused[-1] - began:.1f} s")
    blocked = answered[-1] - began
    # AWS: 5 s. A second's worth that was not read before may have been saved up.
    if blocked < (size - BYTES_READ_PER_SECOND) / BYTES_READ_PER_SECOND:
        raise Wrong(f"10 MiB were read, and calls are answered after {blocked:.2f} s")
    return round(blocked, 1)


def sizes(client, stream, shards):
    """The largest requests, and those that are a byte or a record too large, which store nothing."""

    def refused(what, codes, entries):
        try:
            client.put_records(StreamName=stream, Records=entries)
        except ClientError as error:
            if error.response["Error"]["Code"] in codes:
                return
            raise Wrong(f"{what}: {error}") from None
        raise Wrong(f"{what} was taken")

    either = ("ValidationException", "InvalidArgumentException")
    largest = [(shard, shard.entry(b"w" * (MIB - 1))) for shard in shards]
    whole = [entry for _, entry in largest]
    small = shards[0].entry(b"")
    refused("10 MiB and a byte", ("InvalidArgumentException",), [*whole, small])
    refused("501 records", ("ValidationException",), [small] * 501)
    for more in (shards[0].entry(b"w" * MIB), shards[0].entry(b"w" * (MIB - 1), "ké")):
        refused("a record of more than 1 MiB among others", either, [small, more, small])
        try:
            client.put_record(StreamName=stream, **more)
            raise Wrong("a record of more than 1 MiB was taken")
        except ClientError as error:
            if error.response["Error"]["Code"] not in either:
                raise Wrong(f"a record of more than 1 MiB: {error}") from None
    expect("refused of 10 MiB", put_once(client, stream, largest), [])
    return len(whole)


def create(client, stream, count):
    client.create_stream(StreamName=stream, ShardCount=count)
    client.get_waiter("stream_exists").wait(
        StreamName=stream, WaiterConfig={"Delay": 1, "MaxAttempts": 20}
    )
    return [Shard(client, stream, shard) for shard in client.list_shards(StreamName=stream)["Shards"]]


def main(endpoint, stream):
    began = time.monotonic()
    deadline = began + DEADLINE_SECONDS
    client = connect(endpoint, total_max_attempts=1)
    records, other, size, single, calls, large = shards = create(client, stream, 6)
    wide = create(client, f"{stream}-wide", 10)
    done = {"records_refused": records_in(client, stream, records, other)}
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        filled = pool.submit(fill, large, deadline)
        done |= {
            "bytes_refused": bytes_in(client, stream, size),
            "retries": single_puts(endpoint, client, stream, single),
            "answered": calls_out(calls, other),
            "largest": sizes(client, f"{stream}-wide", wide),
        }
        filled.result()
    done["seconds_blocked"] = bytes_out(large)
    for shard in (records, other, size, single, calls, *wide):
        shard.compare(shard.read(deadline))
    stored = sum(len(shard.stored) for shard in (*shards, *wide))
    print(json.dumps({**done, "records": stored, "seconds": round(time.monotonic() - began, 1)}))


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except Wrong as found:
        sys.exit(f"wrong: {found}")
