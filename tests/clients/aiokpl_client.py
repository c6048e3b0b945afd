"""aiokpl, unmodified: user records packed into aggregated records while a shard is split.

    aiokpl_client.py ENDPOINT STREAM

One producer puts user records before and after a split, another starts after it. Everything is read back
with botocore, unpacked by aws-kinesis-agg and compared, and so are the shards aiokpl predicts with those
that took the records. Prints one line of JSON; exit code 1 and the reason if a user record is missing,
altered, or on the stream more often than aiokpl sent it.

What aiokpl 0.2.0 does after a split, whatever the server: it takes a record that a child shard accepted for
one in the wrong shard, sends it again, and never lists the shards anew, because `ShardMap.invalidate` is
given the child's number, which is not in the map, and returns. Such a record is on the stream once for each
attempt and is reported as expired. The comparison counts on exactly that: one copy for each attempt.
"""

import asyncio
import base64
import collections
import json
import sys
import time

import botocore.session
from aiokpl import Config, Producer, ShardMap, md5_hash_key
from aws_kinesis_agg.deaggregator import iter_deaggregate_records
from botocore.config import Config as ClientConfig

DEADLINE_SECONDS = 170
SHARDS = 3
BEFORE = range(3_000)
MEANWHILE = range(3_000, 3_600)
AFTER = range(3_600, 6_600)
KEYS = 50
# Records the first producer takes for misplaced are sent again for this long.
TIME_TO_LIVE_MS = 3_000
CREDENTIALS = {"aws_access_key_id": "AKIDEXAMPLE", "aws_secret_access_key": "secret"}


class Wrong(Exception):
    """What a comparison found."""


def expect(what, found, expected):
    if found != expected:
        raise Wrong(f"{what}: {found!r} where {expected!r} was expected")


def connect(endpoint):
    return botocore.session.get_session().create_client(
        "kinesis",
        endpoint_url=endpoint,
        region_name="us-east-1",
        config=ClientConfig(retries={"total_max_attempts": 1}, read_timeout=20),
        **CREDENTIALS,
    )


def producer(endpoint, **more):
    return Producer(
        Config(region="us-east-1", endpoint_url=endpoint, aggregation_max_size=20_000, **CREDENTIALS, **more)
    )


def user_record(number):
    """Key, data and, for every seventh, an explicit hash key. The data starts with the number."""
    explicit = str((number * 0x9E3779B97F4A7C15F39CC0605CEDC835) % 2**128) if number % 7 == 0 else None
    return f"kéy-{number % KEYS}", f"{number},".encode() + b"\x00\xff" * (number % 90), explicit


async def put(kpl, stream, numbers, half_way=lambda: None):
    """Puts them and waits for what became of each."""
    outcomes = []
    for number in numbers:
        if number == numbers[len(numbers) // 2]:
            half_way()
        key, data, explicit = user_record(number)
        outcomes.append(
            await kpl.put_record(stream=stream, partition_key=key, data=data, explicit_hash_key=explicit)
        )
    return dict(zip(numbers, [await outcome.wait() for outcome in outcomes]))


async def predicted(client, stream, numbers):
    """The shard aiokpl's map says for each, from a list of shards fetched now."""

    async def list_shards(**request):
        return client.list_shards(**request)

    async with ShardMap(stream, list_shards, max_results_per_page=2) as shard_map:
        await shard_map.start()
        answers = {}
        for number in numbers:
            key, _, explicit = user_record(number)
            wanted = int(explicit) if explicit else md5_hash_key(key)
            answers[number] = f"shardId-{shard_map.predict(wanted):012d}"
        return answers


def all_succeeded(results, predictions):
    """Every one at the first attempt, in the shard of its hash key."""
    for number, result in results.items():
        if not result.success or len(result.attempts) != 1:
            raise Wrong(f"user record {number}: {result}")
        expect(f"shard of user record {number}", result.shard_id, predictions[number])


def read_shard(client, stream, shard):
    iterator = client.get_shard_iterator(
        StreamName=stream, ShardId=shard, ShardIteratorType="TRIM_HORIZON"
    )["ShardIterator"]
    records = []
    while iterator:
        page = client.get_records(ShardIterator=iterator)
        records += page["Records"]
        iterator = page.get("NextShardIterator")
        if not page["Records"] and page["MillisBehindLatest"] == 0:
            break
    sequence = [int(record["SequenceNumber"]) for record in records]
    if any(one >= following for one, following in zip(sequence, sequence[1:])):
        raise Wrong(f"the records of {shard} are not in order")
    return records


def unpacked(records):
    """(number, sequence number) of each user record, checked against what was put."""
    found = []
    for record in iter_deaggregate_records(records, "Boto3"):
        one = record["kinesis"]
        data = base64.b64decode(one["data"]) if "aggregated" in one else one["data"]
        head = data.split(b",", 1)[0]
        if not head.isdigit():
            raise Wrong(f"record {one['sequenceNumber']} is no user record: {data[:60]!r}")
        number = int(head)
        key, expected, explicit = user_record(number)
        expect(f"user record {number}", (one["partitionKey"], data), (key, expected))
        if explicit and "aggregated" in one:
            expect(f"explicit hash key of {number}", one["explicitHashKey"], explicit)
        found.append((number, one["sequenceNumber"]))
    return found


def compare(results, stored):
    """Each user record is on the stream once for each attempt that reached it, where the answer said."""
    places = collections.defaultdict(list)
    for shard, found in stored.items():
        for number, sequence in found:
            places[number].append((shard, sequence))
    missing = sorted(results.keys() - places.keys())
    if missing:
        raise Wrong(f"{len(missing)} user records of {len(results)} are missing, first {missing[:5]}")
    for number, result in results.items():
        reached = [one for one in result.attempts if one.success or one.error_code == "Wrong Shard"]
        expect(f"copies of user record {number}", len(places[number]), len(reached))
        if result.success and (result.shard_id, result.sequence_number) not in places[number]:
            raise Wrong(f"user record {number}: {result}, stored at {places[number]}")


def split_at(client, stream, shard):
    start, end = (int(shard["HashKeyRange"][name]) for name in ("StartingHashKey", "EndingHashKey"))
    client.split_shard(
        StreamName=stream, ShardToSplit=shard["ShardId"], NewStartingHashKey=str((start + end) // 2)
    )


async def through_a_split(client, endpoint, stream):
    """What became of every user record of both producers, and how many aiokpl took for misplaced."""
    split = client.list_shards(StreamName=stream)["Shards"][0]
    async with producer(endpoint, record_ttl_ms=TIME_TO_LIVE_MS) as kpl:
        before = await put(kpl, stream, BEFORE)
        all_succeeded(before, await predicted(client, stream, BEFORE))
        elsewhere = await predicted(client, stream, MEANWHILE)
        elsewhere = {n: shard for n, shard in elsewhere.items() if shard != split["ShardId"]}
        meanwhile = await put(kpl, stream, MEANWHILE, lambda: split_at(client, stream, split))
        all_succeeded({number: meanwhile[number] for number in elsewhere}, elsewhere)
    async with producer(endpoint) as kpl:
        after = await put(kpl, stream, AFTER)
        all_succeeded(after, await predicted(client, stream, AFTER))
    resent = sum(len(result.attempts) > 1 for result in meanwhile.values())
    return {**before, **meanwhile, **after}, resent


async def main(endpoint, stream):
    started = time.monotonic()
    client = connect(endpoint)
    client.create_stream(StreamName=stream, ShardCount=SHARDS)
    async with asyncio.timeout(DEADLINE_SECONDS):
        results, resent = await through_a_split(client, endpoint, stream)
    records, stored = 0, {}
    for shard in client.list_shards(StreamName=stream)["Shards"]:
        raw = read_shard(client, stream, shard["ShardId"])
        records += len(raw)
        stored[shard["ShardId"]] = unpacked(raw)
    expect("shards", len(stored), SHARDS + 2)
    compare(results, stored)
    if records * 2 > len(results):
        raise Wrong(f"{len(results)} user records are {records} records: nothing was packed")
    print(
        json.dumps(
            {
                "user_records": len(results),
                "records": records,
                "resent_by_the_client": resent,
                "shards": len(stored),
                "seconds": round(time.monotonic() - started, 1),
            }
        )
    )


if __name__ == "__main__":
    try:
        asyncio.run(main(*sys.argv[1:]))
    except Wrong as found:
        sys.exit(f"wrong: {found}")
    except TimeoutError:
        sys.exit(f"wrong: not done within {DEADLINE_SECONDS} s")
