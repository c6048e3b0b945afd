"""async-kinesis, unmodified: its producer, consumer, processors, checkpointer and command line.

    async_kinesis_client.py ENDPOINT STREAM PROGRAM     PROGRAM is the path of `async-kinesis`

Records are put and consumed while a shard is split; a consumer stops and another goes on from its
checkpoints; every processor packs and unpacks; consumers start at the tip and at a time; the command line
puts, tails, lists and describes. Prints one line of JSON; exit code 1 and the reason if a record is missing,
doubled, altered or out of its shard's order.
"""

import asyncio
import datetime
import hashlib
import json
import os
import sys
import time

import botocore.session
from botocore.config import Config
from kinesis import Consumer, MemoryCheckPointer, Producer, exceptions
from kinesis.processors import (
    JsonLineProcessor,
    JsonListProcessor,
    JsonProcessor,
    KPLJsonProcessor,
    KPLStringProcessor,
    MsgpackProcessor,
    StringProcessor,
)

DEADLINE_SECONDS = 170
PATIENCE_SECONDS = 15
RECORDS = 3_000
KEYS = 60
# More keys in one flush than PutRecords takes records: the producer sends 501, is refused, sends fewer.
LINES = 1_200
PACKED = 700


class Wrong(Exception):
    """What a comparison found."""


def expect(what, found, expected):
    if found == expected:
        return
    if isinstance(found, list) and isinstance(expected, list):
        pairs = enumerate(zip(found, expected))
        same = next((n for n, (one, other) in pairs if one != other), min(len(found), len(expected)))
        what = f"{what}, {len(found)} for {len(expected)}, from the {same}th on"
        found, expected = found[same : same + 5], expected[same : same + 5]
    raise Wrong(f"{what}: {found!r} where {expected!r} was expected")


def connect(endpoint):
    return botocore.session.get_session().create_client(
        "kinesis", endpoint_url=endpoint, config=Config(retries={"total_max_attempts": 1})
    )


def list_shards(client, stream):
    return client.list_shards(StreamName=stream)["Shards"]


def hash_of(key):
    return int.from_bytes(hashlib.md5(key.encode()).digest(), "big")


def holder(shards, key):
    """The id of the one shard of these whose range has the key."""
    (found,) = [
        shard["ShardId"]
        for shard in shards
        if int(shard["HashKeyRange"]["StartingHashKey"])
        <= hash_of(key)
        <= int(shard["HashKeyRange"]["EndingHashKey"])
    ]
    return found


def read_shard(client, stream, shard):
    """What the shard holds by GetRecords, without the library: (sequence number, data)."""
    iterator = client.get_shard_iterator(
        StreamName=stream, ShardId=shard, ShardIteratorType="TRIM_HORIZON"
    )["ShardIterator"]
    records = []
    while iterator:
        page = client.get_records(ShardIterator=iterator)
        records += [(record["SequenceNumber"], record["Data"]) for record in page["Records"]]
        iterator = page.get("NextShardIterator")
        if not page["Records"] and page["MillisBehindLatest"] == 0:
            break
    return records


class Endpoint:
    """Producers and consumers of one server."""

    def __init__(self, url):
        self.url = url

    def producer(self, stream, processor, shards, **more):
        return Producer(
            stream,
            endpoint_url=self.url,
            processor=processor,
            create_stream=True,
            create_stream_shards=shards,
            **more,
        )

    def consumer(self, stream, processor, **more):
        settings = {"sleep_time_no_records": 0.05, "shard_fetch_rate": 5, "idle_timeout": 1.0, **more}
        return Consumer(stream, endpoint_url=self.url, processor=processor, **settings)


async def take(consumer, count):
    """Items until there are `count` of them and nothing more comes within the idle time."""
    items, last = [], time.monotonic()
    while len(items) < count:
        if time.monotonic() > last + PATIENCE_SECONDS:
            raise Wrong(f"{len(items)} items of {count} came from {consumer.stream_name}")
        async for item in consumer:
            items.append(item)
            last = time.monotonic()
    return items


async def through_a_split(endpoint, client, stream):
    """Three shards, one of them split after a third of the records while the consumer runs."""

    async def produce():
        for number in range(RECORDS):
            if number == RECORDS // 3:
                await producer.flush()
                first = list_shards(client, stream)[0]
                middle = int(first["HashKeyRange"]["EndingHashKey"]) // 2
                client.split_shard(
                    StreamName=stream, ShardToSplit=first["ShardId"], NewStartingHashKey=str(middle)
                )
            key = f"key-{number % KEYS}"
            await producer.put({"number": number, "key": key}, partition_key=key)
        await producer.flush()

    checkpoints = MemoryCheckPointer(name="split")
    async with endpoint.producer(stream, JsonProcessor(), 3) as producer:
        consumer = endpoint.consumer(stream, JsonProcessor(), checkpointer=checkpoints)
        # The library's documentation names this setting; as it stands, children are found after a minute.
        consumer._shard_refresh_interval = 1
        async with consumer:
            await consumer.wait_ready()
            _, items = await asyncio.gather(produce(), take(consumer, RECORDS))
            status = consumer.get_shard_status()

    shards = list_shards(client, stream)
    expect("numbers", sorted(item["number"] for item in items), list(range(RECORDS)))
    leaves = [shard for shard in shards if "EndingSequenceNumber" not in shard["SequenceNumberRange"]]
    for leaf in leaves:
        mine = [n["number"] for n in items if holder(leaves, n["key"]) == leaf["ShardId"]]
        expect(f"order in {leaf['ShardId']}", mine, sorted(mine))
        last = read_shard(client, stream, leaf["ShardId"])[-1][0]
        kept = checkpoints.get_checkpoint(leaf["ShardId"])["sequence"]
        expect(f"checkpoint of {leaf['ShardId']}", kept, last)
    children = ["shardId-000000000003", "shardId-000000000004"]
    topology = {parent: sorted(found) for parent, found in status["topology"]["parent_child_map"].items()}
    expect("topology", topology, {"shardId-000000000000": children})
    expect("closed shards", (status["total_shards"], status["closed_shards"]), (5, 1))
    return len(items)


async def resumed(endpoint, client, stream):
    """A consumer stops in the middle; the next one starts right after its checkpoints."""
    numbers = list(range(600))
    async with endpoint.producer(stream, JsonProcessor(), 2) as producer:
        for number in numbers:
            await producer.put(number, partition_key=f"key-{number % KEYS}")
    checkpoints = MemoryCheckPointer(name="resumed")
    settings = {"checkpointer": checkpoints, "record_limit": 40, "use_list_shards": True}
    first = []
    async with endpoint.consumer(stream, JsonProcessor(), **settings) as consumer:
        async for item in consumer:
            first.append(item)
            if len(first) == 250:
                break
    reached = {shard: kept["sequence"] for shard, kept in checkpoints.get_all_checkpoints().items()}
    shards = list_shards(client, stream)

    def of_shard(name, items):
        return [n for n in items if holder(shards, f"key-{n % KEYS}") == name]

    expected, skipped = {}, 0
    for name in (shard["ShardId"] for shard in shards):
        held = read_shard(client, stream, name)
        expect(f"all of {name}", [int(data) for _, data in held], of_shard(name, numbers))
        taken = of_shard(name, first)
        expect(f"what was taken from {name}", taken, of_shard(name, numbers)[: len(taken)])
        after = [int(data) for sequence, data in held if int(sequence) > int(reached[name] or 0)]
        expected[name] = after
        skipped += len(held) - len(after)
    if not 0 < skipped <= len(first):
        raise Wrong(f"{skipped} records are checkpointed, {len(first)} were taken: {reached}")
    left = len(numbers) - skipped
    async with endpoint.consumer(stream, JsonProcessor(), **settings) as consumer:
        second = await take(consumer, left)
    for name, after in expected.items():
        expect(f"what follows the checkpoint of {name}", of_shard(name, second), after)
    expect("both consumers together", sorted(set(first) | set(second)), numbers)
    return {"checkpointed": skipped, "resumed": len(second)}


async def packed(endpoint, client, stream):
    """Each processor's records come back; the packing ones use fewer records than items."""
    objects = [{"number": n, "text": f"Größe {n}", "list": [n, None, True]} for n in range(PACKED)]
    texts = [f"line {n} – ✓" for n in range(PACKED)]
    cases = {
        "string": (StringProcessor, texts),
        "json": (JsonProcessor, objects),
        "jsonline": (JsonLineProcessor, objects),
        "jsonlist": (JsonListProcessor, objects),
        "msgpack": (MsgpackProcessor, objects),
        "kpljson": (KPLJsonProcessor, objects),
        "kplstring": (KPLStringProcessor, texts),
    }

    async def one(name, processor, items):
        own = f"{stream}-{name}"
        async with endpoint.producer(own, processor(), 1) as producer:
            for item in items:
                await producer.put(item)
        async with endpoint.consumer(own, processor()) as consumer:
            taken = await take(consumer, 1 if name == "jsonlist" else PACKED)
        if name == "jsonlist":
            # This one hands out the lists as they were packed.
            taken = [item for batch in taken for item in batch]
        expect(name, taken, items)
        records = len(read_shard(client, own, "shardId-000000000000"))
        if (records == PACKED) != (name in ("string", "json")):
            raise Wrong(f"{PACKED} items of {name} are {records} records")
        return records

    records = await asyncio.gather(*(one(name, *case) for name, case in cases.items()))
    return dict(zip(cases, records))


async def lines_by_key(endpoint, client, stream):
    """A key for each line: PutRecords of 501 are refused with the text the producer looks for."""
    settings = {"buffer_time": 60}
    async with endpoint.producer(stream, JsonLineProcessor(), 2, **settings) as producer:
        for number in range(LINES):
            await producer.put({"number": number}, partition_key=f"key-{number}")
        await producer.flush()
        if producer.batch_size >= 500:
            raise Wrong("no batch was refused for its length")
    async with endpoint.consumer(stream, JsonLineProcessor()) as consumer:
        taken = [item["number"] for item in await take(consumer, LINES)]
    shards = list_shards(client, stream)
    for shard in shards:
        name = shard["ShardId"]
        mine = [n for n in taken if holder(shards, f"key-{n}") == name]
        expect(f"lines of {name}", mine, [n for n in range(LINES) if holder(shards, f"key-{n}") == name])
    return len(taken)


async def from_tip_and_time(endpoint, stream):
    """LATEST sees only what follows; AT_TIMESTAMP what came at that time or later."""
    old, new = list(range(100)), list(range(100, 250))
    async with endpoint.producer(stream, JsonProcessor(), 2) as producer:
        for number in old:
            await producer.put(number, partition_key=str(number))
        await producer.flush()
        await asyncio.sleep(0.1)
        between = datetime.datetime.now(datetime.timezone.utc)
        async with endpoint.consumer(stream, JsonProcessor(), iterator_type="LATEST") as consumer:
            await consumer.wait_ready()
            await asyncio.sleep(0.1)
            for number in new:
                await producer.put(number, partition_key=str(number))
            await producer.flush()
            expect("from the tip", sorted(await take(consumer, len(new))), new)
    at_time = {"iterator_type": "AT_TIMESTAMP", "timestamp": between}
    async with endpoint.consumer(stream, JsonProcessor(), **at_time) as consumer:
        expect("from a time", sorted(await take(consumer, len(new))), new)
    try:
        async with endpoint.consumer(f"{stream}-none", JsonProcessor()):
            raise Wrong("a stream that is not there was opened")
    except exceptions.StreamDoesNotExist:
        return len(old) + len(new)


async def command(program, *arguments, given=b"", code=0):
    """Runs the command line to its end; its standard output and error."""
    process = await asyncio.create_subprocess_exec(
        program,
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, err = await process.communicate(given)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    expect(f"exit code of {arguments}, which said {err.decode()}", process.returncode, code)
    return out.decode(), err.decode()


async def command_line(program, url, client, stream):
    base = [program, "--endpoint-url", url]
    objects = [{"number": n, "text": "é"} for n in range(40)]
    given = "".join(json.dumps(one) + "\n" for one in objects).encode()
    _, said = await command(*base, "put", stream, "--create", "-k", "one key", given=given)
    expect("put", said, "Done.\n")
    await command(*base, "put", stream, '{"number": 40}')
    out, _ = await command(*base, "tail", stream, "-i", "TRIM_HORIZON", "-n", "41", "-f", "json")
    expect("tail", [json.loads(line) for line in out.splitlines()], [*objects, {"number": 40}])
    out, _ = await command(*base, "list", "--limit", "1000")
    # A stream summary has no count of shards, and the program says so with a question mark.
    row = [stream, "ACTIVE", "?", "PROVISIONED"]
    expect("list", row in [line.split() for line in out.splitlines()], True)
    out, _ = await command(*base, "describe", stream)
    described = client.describe_stream(StreamName=stream)["StreamDescription"]
    shard = described["Shards"][0]
    row = [
        shard["ShardId"],
        "OPEN",
        shard["HashKeyRange"]["StartingHashKey"],
        shard["HashKeyRange"]["EndingHashKey"],
        shard["SequenceNumberRange"]["StartingSequenceNumber"],
    ]
    expect("described shard", row in [line.split() for line in out.splitlines()], True)
    expect("described ARN", described["StreamARN"] in out, True)
    _, said = await command(*base, "describe", f"{stream}-none", code=1)
    expect("describe nothing", said, f"Error: Stream '{stream}-none' does not exist\n")
    return len(objects) + 1


async def main(url, stream, program):
    started = time.monotonic()
    endpoint, client = Endpoint(url), connect(url)
    async with asyncio.timeout(DEADLINE_SECONDS):
        done = {
            "split": await through_a_split(endpoint, client, stream),
            "checkpoints": await resumed(endpoint, client, f"{stream}-resumed"),
            "packed": await packed(endpoint, client, stream),
            "lines": await lines_by_key(endpoint, client, f"{stream}-lines"),
            "tip_and_time": await from_tip_and_time(endpoint, f"{stream}-tip"),
            "command_line": await command_line(program, url, client, f"{stream}-cli"),
        }
    print(json.dumps({**done, "seconds": round(time.monotonic() - started, 1)}))


if __name__ == "__main__":
    os.environ.update(
        AWS_ACCESS_KEY_ID="AKIDEXAMPLE", AWS_SECRET_ACCESS_KEY="secret", AWS_DEFAULT_REGION="us-east-1"
    )
    try:
        asyncio.run(main(*sys.argv[1:]))
    except Wrong as found:
        sys.exit(f"wrong: {found}")
    except TimeoutError:
        sys.exit(f"wrong: not done within {DEADLINE_SECONDS} s")
