"""The requests of differential.py: what both servers are believed to hold, and random calls about it.

`Requests.next` gives the next case, right or deliberately wrong; `PROBES` are the cases every run begins
with, at least one for each explained difference. Nothing here talks to a server.
"""

import base64
import copy

JSON = "application/x-amz-json-1.1"
SIGNED = (
    "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260101/us-east-1/kinesis/aws4_request, "
    "SignedHeaders=host;x-amz-date;x-amz-target, Signature=0123456789abcdef"
)
ALL_KEYS = 2**128
ARN = "arn:aws:kinesis:us-east-1:000000000000:stream/"
SHARDS_IN_USE = 120
# Both of the others list no more than ten unless they are asked to.
STREAMS_AT_MOST = 7


class Ref:
    """A value each server has its own of: a sequence number, an iterator, an ARN."""

    def __init__(self, *key):
        self.key = key

    def __repr__(self):
        return "<" + " ".join(str(part) for part in self.key) + ">"


class Case:
    """One request, as both servers are sent it."""

    def __init__(self, operation, body, **more):
        self.operation, self.body = operation, body
        self.headers = more.get("headers")
        self.method, self.path = more.get("method", "POST"), more.get("path", "/")
        self.raw = more.get("raw")
        # The stream it is about, by name and generation, where there is one.
        self.scope = more.get("scope")
        self.number = 0
        self.plain = self.headers is None and self.raw is None and self.method == "POST"

    def refs(self):
        found = []

        def walk(value):
            if isinstance(value, Ref):
                found.append(value)
            elif isinstance(value, dict):
                for item in value.values():
                    walk(item)
            elif isinstance(value, list):
                for item in value:
                    walk(item)

        walk(self.body)
        return found

    def get(self, *names):
        value = self.body
        for name in names:
            value = value.get(name) if isinstance(value, dict) else None
        return value

    def __repr__(self):
        if not self.plain:
            raw = self.raw if self.raw is None or len(self.raw) < 200 else self.raw[:200]
            return f"{self.method} {self.path} {self.headers} {raw!r} {self.body!r}"
        text = repr(self.body)
        return f"{self.operation} {text if len(text) < 700 else text[:700] + '...'}"


class Stream:
    """A stream as both servers are believed to hold it."""

    def __init__(self, name, generation):
        self.name, self.generation = name, generation
        self.scope = (name, generation)
        self.shards, self.tags, self.consumers = [], {}, {}
        # The shards that a split or merge under way takes the place of.
        self.closing, self.deleting = [], False
        # By shard id: references to the sequence numbers of its records.
        self.records = {}

    def open_shards(self):
        return [shard for shard in self.shards if shard["open"]]


class Model:
    """What both servers are believed to hold."""

    def __init__(self):
        self.streams, self.generations, self.iterators, self.gone = {}, 0, [], []

    def stream_of(self, case):
        stream = self.streams.get(case.scope[0]) if case.scope else None
        return stream if stream and stream.scope == case.scope else None

    def created(self, name):
        self.generations += 1
        self.streams[name] = Stream(name, self.generations)
        return self.streams[name]

    def dropped(self, name):
        stream = self.streams.pop(name, None)
        if stream:
            self.gone = [*self.gone[-3:], stream]

    def shards_in_use(self):
        return sum(len(stream.open_shards()) for stream in self.streams.values())


# --- members by kind, and what is wrong in them

KINDS = {
    "StreamName": "name",
    "ShardId": "name",
    "ShardToSplit": "name",
    "ShardToMerge": "name",
    "AdjacentShardToMerge": "name",
    "ExclusiveStartShardId": "name",
    "ExclusiveStartStreamName": "name",
    "ConsumerName": "name",
    "StreamARN": "arn",
    "ConsumerARN": "arn",
    "ResourceARN": "arn",
    "PartitionKey": "key",
    "ExclusiveStartTagKey": "tag key",
    "ExplicitHashKey": "hash key",
    "NewStartingHashKey": "hash key",
    "StartingSequenceNumber": "sequence",
    "SequenceNumberForOrdering": "sequence",
    "Data": "blob",
    "Limit": "limit",
    "MaxResults": "limit",
    "ShardCount": "count",
    "TargetShardCount": "count",
    "RetentionPeriodHours": "hours",
    "Timestamp": "time",
    "StreamCreationTimestamp": "time",
    "ShardIteratorType": "enum",
    "ScalingType": "enum",
    "EncryptionType": "enum",
    "ShardIterator": "iterator",
    "NextToken": "token",
    "Tags": "map",
    "TagKeys": "list",
    "ShardLevelMetrics": "list",
    "Records": "list",
    "ShardFilter": "structure",
    "StreamModeDetails": "structure",
    "EnforceConsumerDeletion": "boolean",
    "Policy": "text",
    "KeyId": "key",
}
WRONG_TYPES = [True, False, 23, 34.56, "abc", [], [1], {}, {"a": 1}, None]


def sequence_of(hexadecimal):
    return str(int(hexadecimal, 16))


UNKNOWN = "nothing-of-this-name"
WRONG = {
    "name": ["", "a" * 129, "a b", "ü", "a" * 128 + "/", UNKNOWN],
    "arn": [
        "",
        "arn:aws:kinesis",
        ARN,
        ARN + "nothing",
        "arn:aws:kinesis:us-east-1:1:stream/a",
        "a" * 2_049,
    ],
    "key": ["", "k" * 256, "k" * 257, "ключ" * 64, "ключ" * 65],
    "tag key": ["", "t" * 128, "t" * 129],
    "hash key": [
        "",
        "00",
        "01",
        "-1",
        "1e5",
        str(ALL_KEYS - 1),
        str(ALL_KEYS),
        "9" * 39,
        "9" * 40,
        " 5",
    ],
    "sequence": [
        "",
        "01",
        "-5",
        "x",
        "0",
        "1",
        "5",
        "9" * 129,
        "9" * 130,
        sequence_of("20000000000000000000000000000000000000000000000"),
        sequence_of("20000000000000000000000000000000000000000000001"),
        sequence_of("20000000000000000000000000000000000000000000002"),
        sequence_of("20000000000000000000000000000000000000000000003"),
        sequence_of("20000000000000000000000000000000000000000000004"),
        sequence_of("20000000000800000000000000000000000000000000002"),
        sequence_of("20000000000000000000000000000000000000800000002"),
        sequence_of("2ffffffffff7fffffffffffffff000000000007fffffff2"),
        sequence_of("1ffffffffff7fffffffffffffff000000000007fffffff2"),
        sequence_of("30000000000000000000000000000000000000000000001"),
        sequence_of("200000000000000000000000000000fffffffff00000002"),
        "425352958651173072921826052383309826",
        sequence_of("13bb2cc3d80000000000000000000000"),
    ],
    "blob": [
        "A",
        "AA",
        "A===",
        "AB==",
        "AAB=",
        "AA=A",
        "Y Q=",
        "YQ==",
        "====",
        "=AAA",
        "AAA*",
        "ééA=",
        "_-__",
    ],
    "limit": [
        0,
        -1,
        1,
        2,
        10,
        11,
        50,
        51,
        100,
        10_000,
        10_001,
        2**31 - 1,
        2**31,
        2**40,
        1.7,
        0.5,
        -0.5,
        1e30,
    ],
    "count": [0, -1, 501, 100_000, 100_001, 2**31, 1.5, 0.5],
    "hours": [0, -1, 23, 24, 25, 48, 168, 169, 8_760, 8_761, 2**31, 24.9],
    "time": [0, -1, 1, 32_503_680_000, 1.5],
    "enum": ["", "NOTHING", "at_timestamp", "AT_TIMESTAMP"],
    "iterator": [
        "",
        "a",
        "a" * 512,
        "a" * 513,
        base64.b64encode(bytes(152)).decode(),
        "AAAAAAAAAAE=" * 20,
    ],
    "token": ["", "nothing", "a" * 100],
    "map": [
        {},
        {"": "v"},
        {"t" * 129: "v"},
        {"k": "v" * 257},
        {"k": None},
        {"k": 5},
        {"a": "b", "": "c" * 257},
    ],
    "list": [[], [""], ["t" * 129], [5], [None], ["a", {}], ["a", ["b"]]],
    "structure": [{}],
    "boolean": ["true", "FALSE", "yes", "maybe", 1],
    "text": ["", "{}"],
}


class Requests:
    """Random cases about a model; the same for the same seed and the same model."""

    def __init__(self, rng, model, peer):
        self.rng, self.model, self.peer = rng, model, peer
        self.began, self.between = 0, False
        self.weights = dict(WEIGHTS)
        if peer == "ferrokinesis":
            self.weights |= FERROKINESIS_WEIGHTS

    def next(self):
        if self.rng.random() < 0.06:
            return self.connection()
        names, weights = zip(*self.weights.items())
        operation = self.rng.choices(names, weights)[0]
        if operation == "CreateStream" and len(self.model.streams) >= STREAMS_AT_MOST:
            operation = "DeleteStream"
        case = getattr(self, "on_" + operation)()
        if self.rng.random() < 0.4:
            self.spoil(case)
        # A name that was made wrong may be one that is there.
        named = case.body.get("StreamName")
        if isinstance(named, str) and named in self.model.streams:
            case.scope = self.model.streams[named].scope
        return case

    def about(self, stream):
        """A case that is likely about this stream, which is between two states."""
        chosen = self.rng.choice(IN_BETWEEN)
        if chosen == "DeleteStream" and (stream.closing or not stream.shards):
            # kinesalite may put the stream back when the split or merge ends, and never creates shards.
            chosen = "DescribeStreamSummary"
        if not stream.shards and chosen in ("AddTagsToStream", "IncreaseStreamRetentionPeriod"):
            # kinesalite forgets these when the stream is no longer CREATING.
            chosen = "ListTagsForStream"
        if stream.deleting and chosen == "GetRecords":
            # kinesalite deletes the records first.
            chosen = "ListStreams"
        self.between = True
        case = getattr(self, "on_" + chosen)()
        self.between = False
        if "StreamName" in case.body:
            case.body["StreamName"], case.scope = stream.name, stream.scope
        if stream.closing and case.operation in ("ListShards", "DescribeStream"):
            case.body = {"StreamName": stream.name}
        for record in [case.body, *case.body.get("Records", [])]:
            if stream.closing and "PartitionKey" in record:
                self.keep_apart(stream, record)
        return case

    def keep_apart(self, stream, record):
        """Into a shard that no split or merge is under way for, or else into none."""
        others = [shard for shard in stream.open_shards() if shard["id"] not in stream.closing]
        record["ExplicitHashKey"] = str(self.rng.choice(others)["start"]) if others else str(ALL_KEYS)

    # -- choosing

    def stream(self):
        """One that is there, as a rule."""
        if self.model.streams and self.rng.random() < 0.95:
            return self.rng.choice(sorted(self.model.streams.values(), key=lambda s: s.generation))
        if self.model.gone and self.rng.random() < 0.5:
            return self.rng.choice(self.model.gone)
        return Stream("never-there", 0)

    def shard(self, stream, open_only=False):
        shards = stream.open_shards() if open_only else stream.shards
        if not shards:
            return {
                "id": "shardId-000000000000",
                "start": 0,
                "end": ALL_KEYS - 1,
                "open": True,
                "parents": [],
            }
        return self.rng.choice(shards)

    def shard_id(self, shard):
        """An id in one of the forms AWS takes, as a rule of a shard that is there."""
        number = int(shard["id"].split("-")[1])
        forms = [f"shardId-{number}", str(number), f"x-{number:03}", f"-{number}"]
        odd = ["shardId-000000000099", "99", "shardId-", "shardId-2147483648", "2147483647", "ABKLFD8"]
        odd += ["2.14E4", "a-1-x", "a-b-1", "shardId--1", "shardId-000000000000"]
        roll = self.rng.random()
        return shard["id"] if roll < 0.75 else self.rng.choice(forms if roll < 0.85 else odd)

    def hash_key(self, stream):
        if self.rng.random() < 0.5 or not stream.shards:
            return str(self.rng.randrange(ALL_KEYS))
        shard = self.shard(stream)
        return str(self.rng.choice([shard["start"], shard["end"]]))

    def sequence(self, stream, shard):
        known = stream.records.get(shard["id"], [])
        roll = self.rng.random()
        if known and roll < 0.6:
            return Ref(*self.rng.choice(known))
        if stream.shards and roll < 0.8:
            ends = [Ref("start", *stream.scope, shard["id"])]
            if not shard["open"]:
                ends.append(Ref("end", *stream.scope, shard["id"]))
            return self.rng.choice(ends)
        others = [key for found in stream.records.values() for key in found]
        for other in self.model.streams.values():
            others += [key for found in other.records.values() for key in found[:2]]
        return Ref(*self.rng.choice(others)) if others else "5"

    def record(self, stream):
        size = self.rng.choice([0, 1, 2, 3, 10, 100, 1_000])
        made = {
            "PartitionKey": self.rng.choice(
                ["a", "b", "key", "ключ", "k" * 256, str(self.rng.random())]
            ),
            "Data": base64.b64encode(self.rng.randbytes(size)).decode(),
        }
        if self.rng.random() < 0.5:
            made["ExplicitHashKey"] = self.hash_key(stream)
        return made

    def tags(self):
        names = ["a", "b", "Team", "x/y", "ü", "with space", "1", "key=", "t.t", "@", "-", "+"]
        chosen = self.rng.sample(names, self.rng.randint(1, 4))
        made = {name: self.rng.choice(["", "v", "value 2", "é/=+-@", "v" * 256]) for name in chosen}
        if self.rng.random() < 0.12:
            made[self.rng.choice(["k%", "k!", "aws:x", "k:1", "日本", "€"])] = self.rng.choice(
                ["v", "50%", "a:b"]
            )
        return made

    # -- operations

    def on_CreateStream(self):
        name = self.rng.choice(["alpha", "beta", "gamma.1", "delta-2", "e", "f" * 128])
        name = self.never_used(name)
        room = max(1, min(6, SHARDS_IN_USE - self.model.shards_in_use()))
        return Case(
            "CreateStream",
            {"StreamName": name, "ShardCount": self.rng.randint(1, room)},
            scope=(name, 0),
        )

    def never_used(self, name):
        """For ferrokinesis: a stream's consumers outlive it and are those of the next one of that name."""
        if self.peer == "ferrokinesis" and name not in self.model.streams:
            return f"{name[:100]}.{self.model.generations}"
        return name

    def of(self, operation, stream, more=None):
        return Case(operation, {"StreamName": stream.name, **(more or {})}, scope=stream.scope)

    def on_DeleteStream(self):
        return self.of("DeleteStream", self.stream())

    def on_DescribeStream(self):
        stream, more = self.stream(), {}
        if self.rng.random() < 0.3:
            more["Limit"] = self.rng.choice([1, 2, 3, 100, 10_000])
        if self.rng.random() < 0.3:
            more["ExclusiveStartShardId"] = self.shard(stream)["id"]
        return self.of("DescribeStream", stream, more)

    def on_DescribeStreamSummary(self):
        return self.of("DescribeStreamSummary", self.stream())

    def on_ListStreams(self):
        more = {}
        if self.rng.random() < 0.4:
            more["Limit"] = self.rng.choice([1, 2, 3, 10, 10_000])
        if self.rng.random() < 0.4:
            more["ExclusiveStartStreamName"] = self.rng.choice([self.stream().name, "c", "zzz", "0"])
        return Case("ListStreams", more)

    def on_ListShards(self):
        stream, more = self.stream(), {}
        roll = self.rng.random()
        if roll < 0.2:
            more["MaxResults"] = self.rng.choice([1, 2, 3, 1_000, 10_000])
        elif roll < 0.35:
            more["ExclusiveStartShardId"] = self.shard(stream)["id"]
        elif roll < 0.7:
            more["ShardFilter"] = self.filter(stream)
        return self.of("ListShards", stream, more)

    def filter(self, stream):
        kind = self.rng.choice(FILTERS)
        made = {"Type": kind}
        if kind == "AFTER_SHARD_ID":
            made["ShardId"] = self.shard(stream)["id"]
        if kind.endswith("_TIMESTAMP"):
            # Before every stream of the run: its oldest shards.
            made["Timestamp"] = self.began - 3_600
        return made

    def on_SplitShard(self):
        stream = self.stream()
        shard = self.shard(stream, open_only=self.rng.random() < 0.9)
        start, end = shard["start"], shard["end"]
        key = self.rng.choice(
            [(start + end) // 2, (start + end) // 3, start, start + 1, start + 2, end - 1, end, end + 1]
        )
        more = {"ShardToSplit": self.shard_id(shard), "NewStartingHashKey": str(max(0, key))}
        return self.of("SplitShard", stream, more)

    def on_MergeShards(self):
        stream = self.stream()
        shards = sorted(stream.open_shards(), key=lambda shard: shard["start"])
        if len(shards) > 1 and self.rng.random() < 0.7:
            at = self.rng.randrange(len(shards) - 1)
            pair = shards[at : at + 2]
        else:
            pair = [self.shard(stream), self.shard(stream)]
        first, second = (self.shard_id(shard) for shard in pair)
        return self.of("MergeShards", stream, {"ShardToMerge": first, "AdjacentShardToMerge": second})

    def on_PutRecord(self):
        stream = self.stream()
        more = self.record(stream)
        if self.rng.random() < 0.2:
            more["SequenceNumberForOrdering"] = self.sequence(stream, self.shard(stream))
        return self.of("PutRecord", stream, more)

    def on_PutRecords(self):
        stream = self.stream()
        records = [self.record(stream) for _ in range(self.rng.choice([1, 2, 3, 10, 30]))]
        if self.rng.random() < 0.2:
            # One of them is wrong.
            self.spoil(Case("PutRecord", self.rng.choice(records)))
        return self.of("PutRecords", stream, {"Records": records})

    def on_GetShardIterator(self):
        stream = self.stream()
        shard = self.shard(stream)
        more = {"ShardId": self.shard_id(shard), "ShardIteratorType": self.rng.choice(ITERATORS)}
        if more["ShardIteratorType"] == "AT_TIMESTAMP":
            # Before the first record; kinesalite never answers where no record is as new.
            there = self.model.streams.get(stream.name) is stream and not self.between
            if not there or not stream.records.get(shard["id"]):
                more["ShardIteratorType"] = "TRIM_HORIZON"
            else:
                more["ShardId"], more["Timestamp"] = shard["id"], self.began - self.rng.choice(
                    [3_600, 10.5]
                )
        numbered = more["ShardIteratorType"].endswith("SEQUENCE_NUMBER")
        if self.rng.random() < (0.9 if numbered else 0.05) and "Timestamp" not in more:
            more["StartingSequenceNumber"] = self.sequence(stream, shard)
        return self.of("GetShardIterator", stream, more)

    def on_GetRecords(self):
        known = self.model.iterators
        if not known:
            return Case("GetRecords", {"ShardIterator": "none"})
        key, scope = self.rng.choice(known[-20:] if self.rng.random() < 0.8 else known)
        more = {"ShardIterator": Ref(*key)}
        if self.rng.random() < 0.4:
            more["Limit"] = self.rng.choice([1, 2, 5, 10_000])
        return Case("GetRecords", more, scope=scope)

    def on_AddTagsToStream(self):
        return self.of("AddTagsToStream", self.stream(), {"Tags": self.tags()})

    def on_RemoveTagsFromStream(self):
        stream = self.stream()
        keys = [key for key in stream.tags if self.rng.random() < 0.5] + ["b"]
        if self.rng.random() < 0.1:
            keys.append(self.rng.choice(["50%", "a:b", "a!"]))
        return self.of("RemoveTagsFromStream", stream, {"TagKeys": keys[:10]})

    def on_ListTagsForStream(self):
        more = {}
        if self.rng.random() < 0.4:
            more["Limit"] = self.rng.choice([1, 2, 3, 10])
        if self.rng.random() < 0.4:
            more["ExclusiveStartTagKey"] = self.rng.choice(["a", "Team", "b", "zzz", "0"])
        return self.of("ListTagsForStream", self.stream(), more)

    def on_IncreaseStreamRetentionPeriod(self):
        hours = self.rng.choice([23, 24, 25, 47, 48, 100, 168])
        return self.of("IncreaseStreamRetentionPeriod", self.stream(), {"RetentionPeriodHours": hours})

    def on_DecreaseStreamRetentionPeriod(self):
        hours = self.rng.choice([1, 23, 24, 25, 47, 48, 100, 168])
        return self.of("DecreaseStreamRetentionPeriod", self.stream(), {"RetentionPeriodHours": hours})

    # -- of ferrokinesis only

    def by_arn(self, operation, more=None, member="StreamARN"):
        stream = self.stream()
        return Case(operation, {member: ARN + stream.name, **(more or {})}, scope=stream.scope)

    def on_RegisterStreamConsumer(self):
        return self.by_arn("RegisterStreamConsumer", {"ConsumerName": self.rng.choice(CONSUMERS)})

    def consumer(self, operation):
        stream = self.stream()
        name = self.rng.choice(CONSUMERS)
        if name in stream.consumers and self.rng.random() < 0.5:
            body = {"ConsumerARN": Ref(*stream.consumers[name])}
        else:
            body = {"StreamARN": ARN + stream.name, "ConsumerName": name}
        return Case(operation, body, scope=stream.scope)

    def on_DeregisterStreamConsumer(self):
        return self.consumer("DeregisterStreamConsumer")

    def on_DescribeStreamConsumer(self):
        return self.consumer("DescribeStreamConsumer")

    def on_ListStreamConsumers(self):
        more = {"MaxResults": self.rng.choice([1, 2, 100])} if self.rng.random() < 0.4 else {}
        return self.by_arn("ListStreamConsumers", more)

    def on_TagResource(self):
        return self.by_arn("TagResource", {"Tags": self.tags()}, "ResourceARN")

    def on_UntagResource(self):
        return self.by_arn("UntagResource", {"TagKeys": ["a", "b", "none"]}, "ResourceARN")

    def on_ListTagsForResource(self):
        return self.by_arn("ListTagsForResource", None, "ResourceARN")

    def on_GetResourcePolicy(self):
        return self.by_arn("GetResourcePolicy", None, "ResourceARN")

    def on_EnableEnhancedMonitoring(self):
        return self.of("EnableEnhancedMonitoring", self.stream(), {"ShardLevelMetrics": self.metrics()})

    def on_DisableEnhancedMonitoring(self):
        return self.of("DisableEnhancedMonitoring", self.stream(), {"ShardLevelMetrics": self.metrics()})

    def metrics(self):
        return self.rng.sample(METRICS, self.rng.randint(1, 3))

    # -- spoiling

    def spoil(self, case):
        """One or two members are dropped, added or made wrong."""
        for _ in range(self.rng.choice([1, 1, 1, 2, 3])):
            names = sorted(name for name in case.body if name in KINDS)
            roll = self.rng.random()
            if roll < 0.1:
                case.body[self.rng.choice(["Unknown", "streamName", "Streamname"])] = self.rng.choice(
                    WRONG_TYPES
                )
            elif names and roll < 0.25:
                del case.body[self.rng.choice(names)]
            elif names and roll < 0.5:
                case.body[self.rng.choice(names)] = copy.deepcopy(self.rng.choice(WRONG_TYPES))
            elif names:
                name = self.rng.choice(names)
                case.body[name] = copy.deepcopy(self.rng.choice(self.wrong(KINDS[name])))
        if case.operation == "CreateStream" and case.body.get("StreamName") == UNKNOWN:
            case.body["StreamName"] = self.never_used(UNKNOWN)
        if case.body.get("ShardIteratorType") == "AT_TIMESTAMP" and self.peer == "kinesalite":
            self.keep_answerable(case)

    def wrong(self, kind):
        # A null within a list or a map ends kinesalite.
        deadly = self.peer == "kinesalite" and kind in ("list", "map")
        return [value for value in WRONG[kind] if not (deadly and value in ([None], {"k": None}))]

    def keep_answerable(self, case):
        """kinesalite never answers where no record is as new as asked for."""
        time = case.body.get("Timestamp")
        if isinstance(time, (int, float)) and not isinstance(time, bool) and time > self.began - 10:
            return
        if time is not None:
            case.body["Timestamp"] = self.began + 10**6

    # -- connections

    def connection(self):
        """A request that is wrong before its body is looked at, or nearly."""
        headers = {
            "Content-Type": JSON,
            "X-Amz-Target": "Kinesis_20131202."
            + self.rng.choice(["ListStreams", "DescribeStream", "PutRecord"]),
            "X-Amz-Date": "20260101T000000Z",
            "Authorization": SIGNED,
        }
        more = {"method": "POST", "path": "/", "raw": b'{"StreamName":"never-there"}'}
        for _ in range(self.rng.choice([1, 1, 2, 2, 3])):
            self.rng.choice(
                [
                    self.odd_method,
                    self.odd_type,
                    self.odd_target,
                    self.odd_body,
                    self.odd_signature,
                    self.origin,
                ]
            )(headers, more)
        return Case("connection", None, headers=headers, **more)

    def odd_method(self, headers, more):
        more["method"] = self.rng.choice(["GET", "PUT", "DELETE", "OPTIONS", "PATCH", "POST"])
        more["path"] = self.rng.choice(["/", "/path/of/it", "/?a=b"])

    def odd_type(self, headers, more):
        chosen = self.rng.choice(
            [None, "", JSON, JSON + "; charset=utf-8", "application/json", "application/x-amz-json-1.0"]
            + [
                "text/plain",
                "application/json;x",
                " application/x-amz-json-1.1 ",
                "Application/X-Amz-Json-1.1",
            ]
        )
        headers["Content-Type"] = chosen
        if chosen is None:
            del headers["Content-Type"]

    def odd_target(self, headers, more):
        headers["X-Amz-Target"] = self.rng.choice(
            ["", "Kinesis_20131202", "Kinesis_20131202.", ".ListStreams", "Kinesis_20131202.listStreams"]
            + [
                "Kinesis_20131202.Nothing",
                "DynamoDB_20120810.ListTables",
                "Kinesis_20131202.ListStreams.x",
                "a.b",
            ]
        )

    def odd_body(self, headers, more):
        more["raw"] = self.rng.choice(
            [
                b"",
                b"{}",
                b"{",
                b"null",
                b"23",
                b'"text"',
                b"true",
                b"hello",
                b"\xff\xfe{}",
                b' {"Limit":1} ',
            ]
            + [
                b"{}x",
                b'{"Limit":"a"}',
                b'{"StreamName":null}',
                b'{"a":{"b":[1,2,{}]}}',
                b"",
                b"{'a':1}",
            ]
        )

    def odd_signature(self, headers, more):
        choice = self.rng.randrange(4)
        if choice == 0:
            headers.pop("Authorization", None)
            parts = ["Algorithm", "Credential", "Signature", "SignedHeaders", "Date"]
            given = [part for part in parts if self.rng.random() < 0.7]
            more["path"] = "/?" + "&".join(
                f"X-Amz-{part}=" + self.rng.choice(["a", "a%2Fb", ""]) for part in given
            )
        elif choice == 1:
            headers.pop("X-Amz-Date", None)
        else:
            chosen = self.rng.choice(
                [
                    None,
                    "",
                    "X",
                    "AWS4-",
                    "AWS4- Signature=b Credential=a",
                    "AWS4- Signature=b,Credential=a",
                ]
                + [
                    "AWS4- Signature=b, Credential=a, SignedHeaders=c",
                    "AWS4- Signature=, Credential=a,SignedHeaders=c",
                ]
                + [
                    "AWS4-HMAC-SHA256 Credential=a=b, Credential=, Signature=s",
                    SIGNED.replace(", ", ","),
                ]
            )
            headers["Authorization"] = chosen
            if chosen is None:
                del headers["Authorization"]
            if self.rng.random() < 0.2:
                more["path"] = "/?X-Amz-Algorithm=a"

    def origin(self, headers, more):
        headers["Origin"] = self.rng.choice(["http://a.example", "null"])
        if self.rng.random() < 0.5:
            headers["Access-Control-Request-Headers"] = "a, b"
            headers["Access-Control-Request-Method"] = "POST"
        if self.rng.random() < 0.5:
            more["method"] = "OPTIONS"


ITERATORS = [
    "AT_SEQUENCE_NUMBER",
    "AFTER_SEQUENCE_NUMBER",
    "TRIM_HORIZON",
    "TRIM_HORIZON",
    "LATEST",
    "AT_TIMESTAMP",
]
FILTERS = [
    "AFTER_SHARD_ID",
    "AT_TRIM_HORIZON",
    "FROM_TRIM_HORIZON",
    "AT_LATEST",
    "AT_TIMESTAMP",
    "FROM_TIMESTAMP",
]
CONSUMERS = ["one", "two", "three"]
METRICS = ["IncomingBytes", "OutgoingRecords", "IteratorAgeMilliseconds", "ALL"]
IN_BETWEEN = [
    "CreateStream",
    "DeleteStream",
    "DescribeStream",
    "DescribeStreamSummary",
    "ListShards",
    "ListStreams",
    "SplitShard",
    "MergeShards",
    "PutRecord",
    "PutRecord",
    "PutRecords",
    "GetShardIterator",
    "GetRecords",
    "AddTagsToStream",
    "ListTagsForStream",
    "IncreaseStreamRetentionPeriod",
]
WEIGHTS = {
    "CreateStream": 4,
    "DeleteStream": 2,
    "DescribeStream": 6,
    "DescribeStreamSummary": 4,
    "ListStreams": 4,
    "ListShards": 8,
    "SplitShard": 6,
    "MergeShards": 6,
    "PutRecord": 20,
    "PutRecords": 12,
    "GetShardIterator": 16,
    "GetRecords": 24,
    "AddTagsToStream": 6,
    "RemoveTagsFromStream": 4,
    "ListTagsForStream": 5,
    "IncreaseStreamRetentionPeriod": 4,
    "DecreaseStreamRetentionPeriod": 4,
}
FERROKINESIS_WEIGHTS = {
    "RegisterStreamConsumer": 1.5,
    "DeregisterStreamConsumer": 1,
    "DescribeStreamConsumer": 4,
    "ListStreamConsumers": 4,
    "TagResource": 3,
    "UntagResource": 2,
    "ListTagsForResource": 3,
    "GetResourcePolicy": 2,
    "EnableEnhancedMonitoring": 3,
    "DisableEnhancedMonitoring": 2,
}


def probes(model, peer, began):
    """Cases every run begins with: what needs luck to come up at random."""
    yield Case("CreateStream", {"StreamName": "other", "ShardCount": 1}, scope=("other", 0))
    yield Case("CreateStream", {"StreamName": "probe", "ShardCount": 2}, scope=("probe", 0))
    stream = model.streams["probe"]

    def of(operation, **more):
        return Case(operation, {"StreamName": stream.name, **more}, scope=stream.scope)

    def by_arn(operation, member="StreamARN", **more):
        return Case(operation, {member: ARN + stream.name, **more}, scope=stream.scope)

    def raw(body=b"{}", **headers):
        signed = {
            "Content-Type": JSON,
            "X-Amz-Target": "Kinesis_20131202.ListStreams",
            "X-Amz-Date": "20260101T000000Z",
            "Authorization": SIGNED,
        }
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        return Case("connection", None, raw=body, headers=signed | given)

    shard = "shardId-000000000000"
    start = Ref("start", *stream.scope, shard)
    yield Case("ListStreams", {"Limit": 1})
    yield Case("ListStreams", {"Limit": -0.5})
    yield raw(Authorization="")
    yield raw(X_Amz_Target="Kinesis_20131202.ListStreams.x")
    yield raw(Authorization="AWS4- Signature=, Credential=a,SignedHeaders=c")
    yield of("ListShards", ExclusiveStartShardId="nothing")
    yield of("ListShards", MaxResults=1)
    yield of("DescribeStream", Limit=1)
    yield of("GetShardIterator", ShardId="a-b-1", ShardIteratorType="LATEST")
    yield of(
        "GetShardIterator", ShardId=shard, ShardIteratorType="AT_TIMESTAMP", StartingSequenceNumber=start
    )
    yield of("AddTagsToStream", Tags={"b": "v" * 257, "a": ""})
    yield of("AddTagsToStream", Tags={"a:b": "v"})
    stream = yield from again(model, stream)
    yield of("RemoveTagsFromStream", TagKeys=["50%"])
    yield of("DecreaseStreamRetentionPeriod", RetentionPeriodHours=0)
    yield Case("DecreaseStreamRetentionPeriod", {"StreamName": "never-there", "RetentionPeriodHours": 2})
    for number in range(3):
        yield of("PutRecord", PartitionKey="k", Data="AAAA", ExplicitHashKey="5")
    iterator = of("GetShardIterator", ShardId=shard, ShardIteratorType="TRIM_HORIZON")
    yield iterator
    yield Case(
        "GetRecords", {"ShardIterator": Ref("iterator", iterator.number), "Limit": 1}, scope=stream.scope
    )
    yield of("SplitShard", ShardToSplit=shard, NewStartingHashKey="1000")
    yield Case("GetRecords", {"ShardIterator": Ref("iterator", iterator.number)}, scope=stream.scope)
    # A closed shard: one takes it, the stream is taken back on both, and comes again.
    yield of("SplitShard", ShardToSplit=shard, NewStartingHashKey="500")
    old = stream.scope
    yield Case("CreateStream", {"StreamName": "probe", "ShardCount": 2}, scope=("probe", 0))
    stream = model.streams["probe"]
    yield Case("GetRecords", {"ShardIterator": Ref("iterator", iterator.number)}, scope=old)
    yield Case("CreateStream", {"StreamName": "no-count"}, scope=("no-count", 0))
    if peer != "ferrokinesis":
        return
    yield of("PutRecord", PartitionKey="\u043a\u043b\u044e\u0447" * 64)
    yield of("PutRecord", PartitionKey="k", Data="\u00e9\u00e9A=")
    yield of("PutRecord", PartitionKey="k", Data="AB==")
    stream = yield from again(model, stream)
    yield of("PutRecords", Records=[None])
    stream = yield from again(model, stream)
    yield of("EnableEnhancedMonitoring", ShardLevelMetrics=["IncomingBytes", "nothing"])
    stream = yield from again(model, stream)
    yield of("EnableEnhancedMonitoring", ShardLevelMetrics=["ALL"])
    yield Case("DescribeStreamConsumer", {"ConsumerARN": "arn:aws:kinesis"})
    yield by_arn("TagResource", member="ResourceARN", Tags={})
    yield Case("TagResource", {"ResourceARN": "arn:aws:kinesis", "Tags": {}})
    registered = by_arn("RegisterStreamConsumer", ConsumerName="one")
    yield registered
    yield by_arn("DescribeStreamConsumer", ConsumerName="one")
    gone = stream.scope
    yield of("DeleteStream")
    consumer = {"ConsumerARN": Ref("consumer", registered.number)}
    yield Case("DescribeStreamConsumer", consumer, scope=gone)
    # Whatever comes next finds no consumer of an earlier stream of this name.
    yield by_arn("DeregisterStreamConsumer", ConsumerName="one")


def again(model, stream):
    """The stream, created again where a case before had to be taken back."""
    if stream.name not in model.streams:
        yield Case("CreateStream", {"StreamName": stream.name, "ShardCount": 2}, scope=(stream.name, 0))
    return model.streams[stream.name]
