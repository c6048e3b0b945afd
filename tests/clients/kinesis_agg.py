"""aws-kinesis-agg, unmodified: aggregate, put, get, deaggregate, compare.

    kinesis_agg.py ENDPOINT STREAM

User records are packed by RecordAggregator, with partition keys alone and with explicit hash keys, up to the
largest record a stream takes, and put by PutRecord and PutRecords between records that are not aggregated.
What GetRecords returns must be the bytes that were put, and must unpack into the user records that went in,
from boto3's form of a record and from the one a Lambda function is given. Prints one line of JSON; exit
code 1 and the reason if anything differs.
"""

import base64
import hashlib
import json
import sys
import time

import botocore.session
from aws_kinesis_agg import MAGIC
from aws_kinesis_agg.aggregator import RecordAggregator
from aws_kinesis_agg.deaggregator import deaggregate_records, iter_deaggregate_records
from botocore.config import Config

DEADLINE_SECONDS = 170
SHARDS = 3
USER_RECORDS = 3_000
PACKED_SIZE = 20_000
# A partition key counts towards the size of a record, and the library does not know.
LARGEST = 1024 * 1024 - len("key-0")


class Wrong(Exception):
    """What a comparison found."""


def expect(what, found, expected):
    if found != expected:
        raise Wrong(f"{what}: {str(found)[:300]} where {str(expected)[:300]} was expected")


def connect(endpoint):
    return botocore.session.get_session().create_client(
        "kinesis",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="AKIDEXAMPLE",
        aws_secret_access_key="secret",
        config=Config(retries={"total_max_attempts": 1}, read_timeout=20),
    )


class Packer:
    """An aggregator, and what went into each of the records it gave out."""

    def __init__(self, max_size):
        self.aggregator = RecordAggregator(max_size)
        self.aggregator.on_record_complete(self.complete, execute_on_new_thread=False)
        self.inside, self.packed = [], []

    def add(self, key, data, explicit=None):
        self.aggregator.add_user_record(key, data, explicit)
        self.inside.append((key, explicit, data))

    def complete(self, record):
        count = record.get_num_user_records()
        key, explicit, data = record.get_contents()
        self.packed.append(({"PartitionKey": key, "Data": data}, explicit, self.inside[:count]))
        del self.inside[:count]

    def all(self):
        """(entry of PutRecords, the user records in it), in order."""
        last = self.aggregator.clear_and_get()
        if last:
            self.complete(last)
        entries = []
        for entry, explicit, inside in self.packed:
            entries.append(({**entry, "ExplicitHashKey": explicit} if explicit else entry, inside))
        return entries


def plain(key, data):
    """A record that was not aggregated unpacks into itself."""
    return {"PartitionKey": key, "Data": data}, [(key, None, data)]


def payload(number):
    return f"{number},".encode() + bytes((number + n) % 256 for n in range(number % 700))


def by_partition_key():
    packer = Packer(PACKED_SIZE)
    for number in range(USER_RECORDS):
        packer.add(f"clé-{number % 37}", payload(number))
    return packer.all()


def by_explicit_hash_key(shards):
    """An aggregator for each shard, so that every user record has its hash key in the shard it comes to."""
    entries = []
    for shard in shards:
        start, end = (int(shard["HashKeyRange"][name]) for name in ("StartingHashKey", "EndingHashKey"))
        packer = Packer(PACKED_SIZE)
        for number in range(USER_RECORDS // SHARDS):
            explicit = start + (end - start) * (number % 11) // 10
            packer.add(f"key-{number % 5}", payload(number), str(explicit))
        entries += packer.all()
    return entries


def largest():
    """A record of 1 MiB with its key."""
    packer = Packer(LARGEST)
    packer.add("key-0", b"x" * (LARGEST - 100))
    while len(packer.inside) < 10 and not packer.packed:
        packer.add("key-0", b"y")
    (entry, inside), *_ = packer.all()
    return entry, inside


def not_aggregated():
    body = by_partition_key()[0][0]["Data"]
    return [
        plain("text", b"as it is"),
        plain("magic", MAGIC),
        plain("cut", body[:-1]),
        plain("digest", body[:-1] + bytes([body[-1] ^ 1])),
    ]


def put(client, stream, entries):
    """Puts in order, in turns by PutRecords and PutRecord; each shard's (sequence number, entry, inside)."""
    placed = {}

    def note(answer, entry, inside):
        placed.setdefault(answer["ShardId"], []).append((answer["SequenceNumber"], entry, inside))

    for begin in range(0, len(entries), 8):
        *batch, single = entries[begin : begin + 8]
        if batch:
            answer = client.put_records(StreamName=stream, Records=[entry for entry, _ in batch])
            expect("refused", answer["FailedRecordCount"], 0)
            for one, (entry, inside) in zip(answer["Records"], batch, strict=True):
                note(one, entry, inside)
        entry, inside = single
        note(client.put_record(StreamName=stream, **entry), entry, inside)
    return placed


def read_shard(client, stream, shard):
    iterator = client.get_shard_iterator(
        StreamName=stream, ShardId=shard, ShardIteratorType="TRIM_HORIZON"
    )["ShardIterator"]
    records = []
    while True:
        page = client.get_records(ShardIterator=iterator)
        records += page["Records"]
        iterator = page["NextShardIterator"]
        if not page["Records"] and page["MillisBehindLatest"] == 0:
            return records


def in_lambda(record):
    """The record as a Lambda function is given it."""
    return {
        "eventSource": "aws:kinesis",
        "kinesis": {
            "kinesisSchemaVersion": "1.0",
            "partitionKey": record["PartitionKey"],
            "sequenceNumber": record["SequenceNumber"],
            "data": base64.b64encode(record["Data"]).decode(),
            "approximateArrivalTimestamp": record["ApproximateArrivalTimestamp"].timestamp(),
        },
    }


def compare(shard, placed, records):
    """The bytes, the order, and the user records of one shard; how many user records."""
    start, end = (int(shard["HashKeyRange"][name]) for name in ("StartingHashKey", "EndingHashKey"))
    raw = [(one["SequenceNumber"], one["PartitionKey"], one["Data"]) for one in records]
    expected = [(number, entry["PartitionKey"], entry["Data"]) for number, entry, _ in placed]
    expect(f"number of records of {shard['ShardId']}", len(raw), len(expected))
    expected_users = []
    for found, put_one, (number, entry, inside) in zip(raw, expected, placed, strict=True):
        expect("record", found, put_one)
        digest = hashlib.md5(entry["PartitionKey"].encode()).digest()
        hash_key = int(entry.get("ExplicitHashKey") or int.from_bytes(digest, "big"))
        if not start <= hash_key <= end:
            raise Wrong(f"hash key {hash_key} came to {shard}")
        expected_users += [(number, *one) for one in inside]
    forms = [iter_deaggregate_records(records, "Boto3"), deaggregate_records(list(map(in_lambda, records)))]
    for encoded, users in enumerate(forms):
        found = []
        for one in (user["kinesis"] for user in users):
            data = one["data"]
            if encoded or "aggregated" in one:
                data = base64.b64decode(data)
            explicit = one.get("explicitHashKey")
            found.append((one["sequenceNumber"], one["partitionKey"], explicit, data))
        expect(f"number of user records of {shard['ShardId']}", len(found), len(expected_users))
        for one, other in zip(found, expected_users):
            expect("user record", one, other)
    return len(expected_users)


def main(endpoint, stream):
    started = time.monotonic()
    client = connect(endpoint)
    client.create_stream(StreamName=stream, ShardCount=SHARDS)
    shards = client.list_shards(StreamName=stream)["Shards"]
    big = largest()
    size = len(big[0]["Data"]) + len(big[0]["PartitionKey"])
    if not 1024 * 1024 - 64 <= size <= 1024 * 1024:
        raise Wrong(f"the largest record has {size} bytes")
    entries = [*by_partition_key(), *not_aggregated(), *by_explicit_hash_key(shards), big]
    placed = put(client, stream, entries)
    expect("shards with records", sorted(placed), [shard["ShardId"] for shard in shards])
    users = 0
    for shard in shards:
        records = read_shard(client, stream, shard["ShardId"])
        users += compare(shard, placed[shard["ShardId"]], records)
        if time.monotonic() > started + DEADLINE_SECONDS:
            raise Wrong(f"not done within {DEADLINE_SECONDS} s")
    done = {"user_records": users, "records": len(entries), "largest": size}
    print(json.dumps({**done, "seconds": round(time.monotonic() - started, 1)}))


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except Wrong as found:
        sys.exit(f"wrong: {found}")
