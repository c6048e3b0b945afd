"""What java_kcl.py compares, from plain data: records, shards, checkpoints, calls.

    java_kcl_compare.py --check-the-checker    what would be wrong must be noticed, each kind by itself

`put` has for each number its (key, data, shard, sequence number, time sent, time answered); `events` is what
the processors noted, in order.
"""

import collections
import re
import sys

# What the KCL calls in one mode and not in the other.
OF_MODE = {
    "POLLING": {"GetShardIterator", "GetRecords"},
    "FANOUT": {"DescribeStreamConsumer", "RegisterStreamConsumer", "SubscribeToShard"},
}


class Wrong(Exception):
    """What the comparison found."""


def parents_of(shard):
    return {shard[name] for name in ("ParentShardId", "AdjacentParentShardId") if name in shard}


def compare_records(put, events):
    """Every record put was processed, unaltered, by its shard's processor, in order; the number of repeats.

    A shard's next processor may repeat what comes after the checkpoint it begins with, and nothing else.
    """
    seen, last_of_key, repeats = set(), {}, 0
    position = {}
    for event in events:
        if event["event"] == "initialize":
            sequence = event["sequence"]
            position[event["shard"]] = -1 if sequence == "TRIM_HORIZON" else int(sequence)
        if event["event"] != "processRecords":
            continue
        for record in event["records"]:
            number, sequence = record["number"], int(record["sequenceNumber"])
            if number not in put:
                raise Wrong(f"record {number} was never put")
            key, data, shard, put_sequence, sent, answered = put[number]
            if (record["partitionKey"], record["data"]) != (key, data):
                raise Wrong(f"record {number} came as {record['partitionKey']!r} {record['data'][:40]!r}...")
            if (event["shard"], sequence) != (shard, put_sequence):
                raise Wrong(f"record {number} of {shard} {put_sequence} came as {event['shard']} {sequence}")
            if sequence <= position[shard]:
                raise Wrong(f"record {number} of {shard} came after a later one or again")
            arrival = record["approximateArrivalTimestamp"]
            if not int(sent * 1000) - 1 <= arrival <= int(answered * 1000) + 1:
                raise Wrong(f"record {number}, put at {sent}, arrived at {arrival}")
            position[shard] = sequence
            if number in seen:
                repeats += 1
                continue
            if number <= last_of_key.get(key, -1):
                raise Wrong(f"record {number} of key {key} came after {last_of_key[key]}")
            seen.add(number)
            last_of_key[key] = number
    missing = sorted(set(put) - seen)
    if missing:
        raise Wrong(f"{len(missing)} of {len(put)} records were not processed, first {missing[:5]}")
    return repeats


def compare_shards(shards, events):
    """Children after their parents' ends; each closed shard ended once and for all, an open one never."""
    ended = set()
    for event in events:
        shard = event["shard"]
        if event["event"] == "initialize" and not parents_of(shards[shard]) <= ended:
            raise Wrong(f"{shard} was begun before the end of {parents_of(shards[shard]) - ended}")
        if event["event"] in ("initialize", "processRecords", "shardEnded") and shard in ended:
            raise Wrong(f"{event['event']} of {shard} after its end")
        if event["event"] == "shardEnded":
            ended.add(shard)
        if event["event"] == "checkpoint" and event["error"] is not None:
            raise Wrong(f"a checkpoint of {shard} failed: {event['error']}")
    closed = {id for id, s in shards.items() if "EndingSequenceNumber" in s["SequenceNumberRange"]}
    if ended != closed:
        raise Wrong(f"the ends of {sorted(ended)} were seen, {sorted(closed)} are closed")


def compare_leases(leases, shards, put):
    """The checkpoint of a closed shard is its end, that of an open one its last record."""
    expected = {}
    for _, _, shard, sequence, _, _ in put.values():
        expected[shard] = max(sequence, expected.get(shard, 0))
    expected = {shard: str(sequence) for shard, sequence in expected.items()}
    for shard, description in shards.items():
        if "EndingSequenceNumber" in description["SequenceNumberRange"]:
            expected[shard] = "SHARD_END"
    if leases != expected:
        raise Wrong(f"the checkpoints are {leases}, {expected} were expected")


def compare_restart(events, leases):
    """The second daemon's processors begin where the first one's leases say."""
    begun = {}
    for event in events:
        if event["event"] == "initialize":
            begun.setdefault(event["shard"], event["sequence"])
    begun = {shard: begun.get(shard) for shard in leases}
    if begun != leases:
        raise Wrong(f"after the restart {begun} were begun, the checkpoints were {leases}")


def compare_calls(signed, mode, shards):
    """How often each operation was called, by the SDK's own account; in CBOR all but the event streams."""
    request = r"^content-type:(.+)\n(?:[a-z].*\n)*?x-amz-target:Kinesis_20131202\.(\w+)$"
    calls = collections.Counter()
    for content_type, operation in re.findall(request, signed, re.MULTILINE):
        calls[operation] += 1
        encoding = "json" if operation == "SubscribeToShard" else "cbor"
        if content_type != f"application/x-amz-{encoding}-1.1":
            raise Wrong(f"{operation} was sent as {content_type}")
    not_made = OF_MODE[mode] - set(calls)
    other = set().union(*OF_MODE.values()) - OF_MODE[mode]
    if not_made or other & set(calls):
        raise Wrong(f"in mode {mode} the calls were {dict(calls)}")
    if mode == "FANOUT" and calls["SubscribeToShard"] < shards:
        raise Wrong(f"{calls['SubscribeToShard']} subscriptions for {shards} shards")
    return dict(sorted(calls.items()))


def check_the_checker():
    """A shard of six records that is split after the fourth, all as it should be, and then tampered with."""
    shards = {"0": {"SequenceNumberRange": {"EndingSequenceNumber": "50"}}}
    shards |= {name: {"ParentShardId": "0", "SequenceNumberRange": {}} for name in "12"}
    placed = [("a", "0"), ("b", "0"), ("a", "0"), ("b", "0"), ("a", "1"), ("b", "2")]
    put, seen = {}, []
    for number, (key, shard) in enumerate(placed):
        data = f"{number},payload".encode()
        put[number] = (key, data, shard, number * 10, 1.0, 2.0)
        record = {"number": number, "partitionKey": key, "data": data, "sequenceNumber": str(number * 10)}
        seen.append({**record, "approximateArrivalTimestamp": 1500})

    def event(name, shard, **details):
        return {"event": name, "shard": shard, **details}

    def begun(shard, sequence="TRIM_HORIZON"):
        return event("initialize", shard, sequence=sequence)

    def given(shard, *records):
        return event("processRecords", shard, records=[seen[n] if isinstance(n, int) else n for n in records])

    end, done = event("shardEnded", "0"), event("checkpoint", "0", error=None)
    children = [begun("1"), given("1", 4), begun("2"), given("2", 5)]
    good = [begun("0"), given("0", 0, 1, 2, 3), end, done, *children]
    repeated = [begun("0"), given("0", 0, 1, 2), begun("0", "10"), given("0", 2, 3), end, done, *children]

    def compare(events):
        repeats = compare_records(put, events)
        compare_shards(shards, events)
        return repeats

    if (compare(good), compare(repeated)) != (0, 1):
        sys.exit("what is right was not counted")
    first, failed = begun("0"), {**done, "error": "ThrottlingException"}
    tampered = {
        "a lost record": [first, given("0", 0, 1, 3), end, *children],
        "a doubled record": [first, given("0", 0, 1, 1, 2, 3), end, *children],
        "a record doubled later": [first, given("0", 0, 1, 2, 3), given("0", 0), end, *children],
        "a repeat of what was checkpointed": [first, given("0", 0, 1, 2), begun("0", "20"), given("0", 2, 3)]
        + [end, *children],
        "two records swapped": [first, given("0", 1, 0, 2, 3), end, *children],
        "an altered payload": [first, given("0", {**seen[0], "data": b"0,other"}, 1, 2, 3), end, *children],
        "another key": [first, given("0", {**seen[0], "partitionKey": "b"}, 1, 2, 3), end, *children],
        "another number": [first, given("0", {**seen[0], "sequenceNumber": "1"}, 1, 2, 3), end, *children],
        "another time": [first, given("0", {**seen[0], "approximateArrivalTimestamp": 9}, 1, 2, 3), end]
        + children,
        "another shard": [first, given("0", 0, 1, 2, 3), end, begun("1"), given("1", 4, 5), begun("2")],
        "a record nobody put": [first, given("0", 0, 1, 2, 3, {**seen[0], "number": 6}), end, *children],
        "a child before its parent's end": [first, given("0", 0, 1, 2, 3), *children, end],
        "an end that is not the last": [first, end, given("0", 0, 1, 2, 3), *children],
        "an end of an open shard": [*good, event("shardEnded", "1")],
        "a failed checkpoint": [first, given("0", 0, 1, 2, 3), end, failed, *children],
    }
    for what, events in tampered.items():
        try:
            compare(events)
        except Wrong as noticed:
            print(f"{what}: {noticed}")
        else:
            sys.exit(f"{what} went unnoticed")


if __name__ == "__main__":
    if sys.argv[1:] != ["--check-the-checker"]:
        sys.exit(__doc__)
    check_the_checker()
