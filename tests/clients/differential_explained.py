"""The differences differential.py accepts: whose each is, why, and from which source.

An entry has a function that is given a case and both answers and takes away one difference, as narrowly as
it can: what it changes must be what the entry says, and what is left over must be the same. Sources: *model*
is the service model of botocore 1.44.5; *tests* are kinesalite's, which ran against AWS in 2015 to 2020.
"""

import base64
import re

from differential_requests import ARN, KINDS

BOTH = ("kinesalite", "ferrokinesis")
KINESALITE = ("kinesalite",)
FERROKINESIS = ("ferrokinesis",)
# Whose a difference is.
THEIRS, OURS = "theirs", "ours on purpose"


class Entry:
    """One accepted difference."""

    def __init__(self, fix, peers, whose, why, source, sure):
        self.name = fix.__name__
        self.fix, self.peers, self.whose, self.why, self.source = fix, peers, whose, why, source
        # Whether every run of the full size needs it; others need luck with the clock.
        self.sure = sure


ENTRIES = []


def entry(peers, whose, why, source, sure=True):
    def added(fix):
        ENTRIES.append(Entry(fix, peers, whose, why, source, sure))
        return fix

    return added


def entries_for(peer):
    return [one for one in ENTRIES if peer in one.peers]


def refused(answer, kind):
    return answer.kind() == kind


def accept(ours, theirs):
    """Their whole answer is set aside."""
    theirs.status, theirs.headers, theirs.body = ours.status, ours.headers, ours.body


def set_violations(answer, found):
    answer.body = {"__type": "ValidationException", "violations": found}


def without(body, names):
    """The same with members left out, at whatever depth."""
    if isinstance(body, list):
        return [without(item, names) for item in body]
    if isinstance(body, dict):
        return {name: without(item, names) for name, item in body.items() if name not in names}
    return body


@entry(
    FERROKINESIS,
    THEIRS,
    "a negative fraction is cut towards zero",
    "validations/index.js of kinesalite takes the floor",
)
def cut_or_floor(case, ours, theirs, model):
    found = [text.replace("Value '0' at", "Value '-1' at") for text in theirs.violations()]
    if (
        -0.5 in [value for value in (case.body or {}).values() if isinstance(value, float)]
        and found != theirs.violations()
    ):
        set_violations(theirs, found)


# --- constraints of the newer model


@entry(
    BOTH,
    OURS,
    "the model writes the patterns of hash keys and sequence numbers with ^( and )$ now",
    "model: HashKey, SequenceNumber",
)
def pattern_text(case, ours, theirs, model):
    old = re.compile(r"pattern: (0\|\(\[1-9\]\\d\{0,(?:38|128)\}\))$")
    found = [old.sub(r"pattern: ^(\1)$", text) for text in theirs.violations()]
    if found != theirs.violations():
        set_violations(theirs, found)


NO_STREAM = "Either StreamName or StreamARN should be provided."
NAME_IS_NULL = "Value null at 'streamName' failed to satisfy constraint: Member must not be null"


@entry(
    BOTH,
    OURS,
    "a stream may be named by its ARN now, so StreamName is not required by itself",
    "model: no operation but CreateStream requires StreamName",
)
def name_not_required(case, ours, theirs, model):
    if case.operation == "CreateStream" or NAME_IS_NULL not in theirs.violations():
        return
    rest = [text for text in theirs.violations() if text != NAME_IS_NULL]
    if rest:
        set_violations(theirs, rest)
    elif ours.message() == NO_STREAM:
        accept(ours, theirs)


@entry(
    BOTH,
    OURS,
    "a partition key is required only where the stream needs one, and then by itself",
    "model: PutRecord and PutRecords require Data only",
)
def key_not_required(case, ours, theirs, model):
    null = re.compile(r"Value null at '(records\.\d+\.member\.)?partitionKey' .* not be null")
    rest = [text for text in theirs.violations() if not null.fullmatch(text)]
    if rest == theirs.violations():
        return
    if rest:
        set_violations(theirs, rest)
    elif ours.message() == NO_STREAM or refused(ours, "ResourceNotFoundException"):
        accept(ours, theirs)


@entry(
    BOTH,
    OURS,
    "a stream without a count of shards is an on-demand one",
    "model: CreateStream requires StreamName only",
)
def count_not_required(case, ours, theirs, model):
    null = "Value null at 'shardCount' failed to satisfy constraint: Member must not be null"
    rest = [text for text in theirs.violations() if text != null]
    if rest and rest != theirs.violations():
        set_violations(theirs, rest)
    elif theirs.violations() == [null] and (ours.good() or refused(ours, "ResourceInUseException")):
        accept(ours, theirs)


BOUNDS = {
    "shardCount": (1, None),
    "retentionPeriodHours": (None, None),
    "limit": (1, 50),
    "tags": (1, 200),
    "tagKeys": (1, 50),
    "data": (0, 10_485_760),
}
BOUND = re.compile(
    r"(Value .* at '(?:records\.\d+\.member\.)?(\w+)' .*: Member must have (?:value|length) "
    r"(less|greater) than or equal to )\d+",
    re.DOTALL,
)


@entry(
    BOTH,
    OURS,
    "the model has wider bounds now; what is outside of them is refused by the operation itself",
    "model: RetentionPeriodHours, PositiveIntegerObject, TagMap, TagKeyList, ListTagsForStreamInputLimit",
)
def wider_bounds(case, ours, theirs, model):
    kept = []
    for text in theirs.violations():
        found = BOUND.fullmatch(text)
        if not found or found[2] not in BOUNDS or text in ours.violations():
            kept.append(text)
            continue
        least, most = BOUNDS[found[2]]
        wider = found[1] + str(most if found[3] == "less" else least)
        if wider in ours.violations():
            kept.append(wider)
    if kept == theirs.violations():
        return
    if kept:
        set_violations(theirs, kept)
    elif not ours.violations():
        accept(ours, theirs)


# --- members the other one does not know


NEWER = (
    "StreamSummaries",
    "StreamModeDetails",
    "StreamId",
    "MaxRecordSizeInKiB",
    "ChannelCount",
    "QueueCount",
    "RecordDistributionStrategy",
    "WarmThroughput",
)


@entry(
    BOTH,
    OURS,
    "answers have the members that the model has gained",
    "model: StreamDescription, StreamDescriptionSummary, ListStreamsOutput",
)
def newer_members(case, ours, theirs, model):
    if not (ours.good() and theirs.good() and isinstance(ours.body, dict)):
        return
    if not any(
        name in ours.body for name in ("StreamDescription", "StreamDescriptionSummary", "StreamNames")
    ):
        return
    summaries = ours.body.get("StreamSummaries", [])
    if [one["StreamName"] for one in summaries] != ours.body.get("StreamNames", []):
        return
    ours.body, theirs.body = without(ours.body, NEWER), without(theirs.body, NEWER)


# --- what the other one does not look at


def shards_of(body):
    return body.get("StreamDescription", body).get("Shards", [])


def set_shards(body, shards):
    body.get("StreamDescription", body)["Shards"] = shards


def rests_on(case, member):
    """The member where it is of the right type."""
    value = case.get(member)
    return value if isinstance(value, (str, int, float)) and not isinstance(value, bool) else None


@entry(
    BOTH,
    THEIRS,
    "DescribeStream does not look at Limit and ExclusiveStartShardId, and has no page of 100 shards",
    "model: DescribeStreamInput",
)
def describe_pages(case, ours, theirs, model):
    if case.operation != "DescribeStream" or not (ours.good() and theirs.good()):
        return
    after, limit = rests_on(case, "ExclusiveStartShardId"), rests_on(case, "Limit")
    number = int(re.search(r"\d+$", after)[0]) if after else -1
    shards = [one for one in shards_of(theirs.body) if int(one["ShardId"].split("-")[1]) > number]
    most = min(int(limit) if limit else 100, 100)
    if after or len(shards) > most:
        set_shards(theirs.body, shards[:most])
        theirs.body["StreamDescription"]["HasMoreShards"] = len(shards) > most


@entry(
    BOTH,
    THEIRS,
    "ListShards has no ShardFilter",
    "model: ShardFilter, ShardFilterType",
)
def shard_filter(case, ours, theirs, model):
    if case.operation != "ListShards" or "ShardFilter" not in case.body:
        return
    given = case.body["ShardFilter"]
    if not isinstance(given, dict):
        wrong = "Start of list found where not expected" if isinstance(given, list) else "Expected null"
        if (
            given is not None
            and refused(ours, "SerializationException")
            and ours.body.get("Message") == wrong
        ):
            accept(ours, theirs)
        return
    null = "Value null at 'shardFilter.type' failed to satisfy constraint: Member must not be null"
    if "Type" not in given:
        if ours.violations() and null in ours.violations():
            rest = [text for text in ours.violations() if text != null]
            if rest:
                set_violations(ours, rest)
            else:
                accept(ours, theirs)
        return
    if not (ours.good() and theirs.good()):
        return
    kind, shards = given["Type"], theirs.body["Shards"]
    if kind == "AFTER_SHARD_ID":
        shards = [one for one in shards if one["ShardId"] > given["ShardId"]]
    elif kind == "AT_LATEST":
        shards = [one for one in shards if "EndingSequenceNumber" not in one["SequenceNumberRange"]]
    elif kind in ("AT_TRIM_HORIZON", "AT_TIMESTAMP"):
        # The time is one before the stream; nothing has left the retention.
        shards = [one for one in shards if "ParentShardId" not in one]
    theirs.body["Shards"] = shards


@entry(
    KINESALITE,
    THEIRS,
    "ListShards has no pages",
    "model: ListShardsInput.MaxResults",
)
def list_shards_pages(case, ours, theirs, model):
    most = rests_on(case, "MaxResults")
    if case.operation != "ListShards" or not most or not (ours.good() and theirs.good()):
        return
    if len(theirs.body["Shards"]) > most:
        theirs.body = {"Shards": theirs.body["Shards"][: int(most)], "NextToken": "<token>"}


@entry(
    BOTH,
    THEIRS,
    "a list of streams says where to go on only by the last name",
    "model: ListStreamsOutput.NextToken",
)
def list_streams_token(case, ours, theirs, model):
    if not (ours.good() and theirs.good() and isinstance(theirs.body, dict)):
        return
    if theirs.body.get("HasMoreStreams") and ours.body.get("NextToken") == "<token>":
        theirs.body["NextToken"] = "<token>"


# --- types and texts


def is_base64(text):
    try:
        return base64.b64encode(base64.b64decode(text, validate=True)).decode() == text
    except ValueError:
        return False


def wrong_types(body):
    """Which members are not of the type they have to be."""
    found = []
    for name, value in body.items():
        kind = KINDS.get(name)
        if kind is None or value is None:
            continue
        right = {
            "limit": (int, float),
            "count": (int, float),
            "hours": (int, float),
            "time": (int, float),
            "boolean": (bool,),
            "map": (dict,),
            "structure": (dict,),
            "list": (list,),
        }.get(kind, (str,))
        simple = not isinstance(value, dict) or kind in ("map", "structure")
        if not isinstance(value, right) and simple or isinstance(value, bool) and bool not in right:
            found.append(name)
        elif isinstance(value, dict) and kind not in ("map", "structure"):
            found.append(name)
        elif name == "Records":
            found += [
                one
                for entry in value
                for one in ([""] if not isinstance(entry, dict) else wrong_types(entry))
            ]
        elif kind in ("list", "map"):
            items = value if isinstance(value, list) else value.values()
            found += [name for item in items if item is not None and not isinstance(item, str)]
        elif kind == "blob" and not is_base64(value):
            found.append(name)
    return found


@entry(
    BOTH,
    OURS,
    "of several members of a wrong type the first in the body is named, as a parser finds them",
    "not recorded: tests have one at a time",
)
def which_type_first(case, ours, theirs, model):
    both = refused(ours, "SerializationException") and refused(theirs, "SerializationException")
    if both and case.plain and len(wrong_types(case.body)) > 1:
        accept(ours, theirs)


@entry(
    BOTH,
    THEIRS,
    "the two branches of a pattern are not tied together: a number that ends well is taken",
    "model: HashKey, SequenceNumber; validations/index.js joins '^' + pattern + '$'",
)
def loose_pattern(case, ours, theirs, model):
    loose = re.compile(
        r"Value '(.*)' at '[\w.]+' failed .* pattern: \^\(0\|\(\[1-9\]\\d\{0,(38|128)\}\)\)\$"
    )
    kept = []
    for text in ours.violations():
        found = loose.fullmatch(text)
        if found and text not in theirs.violations():
            if re.match(rf"0|.*([1-9]\d{{0,{found[2]}}})$", found[1]):
                continue
        kept.append(text)
    if kept == ours.violations():
        return
    if kept:
        set_violations(ours, kept)
    else:
        accept(ours, theirs)


# --- states


@entry(
    BOTH,
    OURS,
    "a split or merge is done at once; UPDATING is only how long it shows",
    "tests: on AWS the old shard takes records while UPDATING (splitShard.js)",
)
def reshard_at_once(case, ours, theirs, model):
    stream = model.stream_of(case)
    if not stream or not stream.closing:
        return
    if (
        case.operation == "GetShardIterator"
        and (ours.good() or refused(ours, "InvalidArgumentException"))
        and theirs.message().endswith("does not exist")
    ):
        # A child is there already, and the rest of the request is looked at.
        if int(re.search(r"\d+$", case.body["ShardId"])[0]) >= len(stream.shards):
            accept(ours, theirs)
    if not (ours.good() and theirs.good()):
        return
    if "StreamDescriptionSummary" in ours.body:
        # One for two, or two for one.
        change = 1 if len(stream.closing) == 1 else -1
        for answer in (ours, theirs):
            summary = answer.body["StreamDescriptionSummary"]
            summary["OpenShardCount"] -= change if answer is ours else 0
        return
    if case.operation not in ("ListShards", "DescribeStream"):
        return
    shown = []
    for shard in shards_of(ours.body):
        if shard["ShardId"] in stream.closing:
            shard["SequenceNumberRange"].pop("EndingSequenceNumber", None)
        if shard.get("ParentShardId") not in stream.closing:
            shown.append(shard)
    set_shards(ours.body, shown)


NEED_ACTIVE = (
    "AddTagsToStream",
    "DecreaseStreamRetentionPeriod",
    "IncreaseStreamRetentionPeriod",
    "ListShards",
    "RemoveTagsFromStream",
)


@entry(
    BOTH,
    OURS,
    "shards are listed, retention and tags changed, in the states that AWS documents",
    "model: these operations can fail with ResourceInUseException",
)
def needs_active(case, ours, theirs, model):
    if case.operation in NEED_ACTIVE and refused(ours, "ResourceInUseException"):
        if "not ACTIVE, instead in state" in ours.message():
            accept(ours, theirs)


# --- reading


@entry(
    BOTH,
    THEIRS,
    "MillisBehindLatest is 0 wherever records are left",
    "model: MillisBehindLatest",
)
def millis_behind(case, ours, theirs, model):
    if case.operation == "GetRecords" and ours.good() and theirs.good():
        if ours.body.get("MillisBehindLatest") == "behind" and ours.body.get("NextShardIterator"):
            theirs.body["MillisBehindLatest"] = "behind"


@entry(
    BOTH,
    THEIRS,
    "at the end of a closed shard one more iterator is given, and never the children",
    "model: GetRecordsOutput.ChildShards, NextShardIterator",
)
def end_of_shard(case, ours, theirs, model):
    stream = model.stream_of(case)
    if case.operation != "GetRecords" or not (ours.good() and theirs.good()) or not stream:
        return
    if "NextShardIterator" in ours.body or "ChildShards" not in ours.body:
        return
    parents = ours.body["ChildShards"][0]["ParentShards"]
    children = [one for one in stream.shards if sorted(one["parents"]) == sorted(parents)]
    shown = [
        {
            "ShardId": one["id"],
            "ParentShards": one["parents"],
            "HashKeyRange": {"StartingHashKey": str(one["start"]), "EndingHashKey": str(one["end"])},
        }
        for one in children
    ]
    under_way = bool(stream.closing) and set(parents) <= set(stream.closing)
    if under_way or ours.body["ChildShards"] == shown:
        del ours.body["ChildShards"]
        theirs.body.pop("NextShardIterator", None)
        theirs.body["MillisBehindLatest"] = ours.body["MillisBehindLatest"]


# --- tags

OLD_CHARACTERS = "white space, _ . / = + - % @."
OLD_ALLOWED = "'_',',','/','=','+','-','@'."


def tag_texts(case):
    tags = case.get("Tags")
    if isinstance(tags, dict):
        return [text for pair in tags.items() for text in pair if isinstance(text, str)]
    return [text for text in case.get("TagKeys") or [] if isinstance(text, str)]


@entry(
    BOTH,
    OURS,
    "tags may have colons, and the texts say so",
    "tests: addTagsToStream.js and removeTagsFromStream.js after the last release",
)
def colons_in_tags(case, ours, theirs, model):
    message = theirs.message()
    if not refused(theirs, "InvalidArgumentException") or "Tag" not in case.operation:
        return
    if ours.message() == message.replace(OLD_CHARACTERS, "white space, _ . / = + - % @ :."):
        theirs.body["message"] = ours.message()
    elif ours.message() == message.replace(OLD_ALLOWED, OLD_ALLOWED[:-1] + ",':'."):
        theirs.body["message"] = ours.message()
    elif message.endswith(OLD_CHARACTERS) and any(":" in text for text in tag_texts(case)):
        accept(ours, theirs)


# --- kinesalite's own


@entry(
    BOTH,
    THEIRS,
    "an iterator outlives its stream and reads from a later one of the same name",
    "actions/getRecords.js finds the stream by its name only",
)
def iterator_outlives(case, ours, theirs, model):
    if case.operation == "GetRecords" and not model.stream_of(case) and theirs.good():
        if refused(ours, "ResourceNotFoundException") and ours.message().endswith("does not exist"):
            accept(ours, theirs)


TWICE = re.compile(r"(<start .*>), given again as (<record .*>)")


@entry(
    KINESALITE,
    THEIRS,
    "the first record of a shard may have the number the shard itself starts with",
    "actions/putRecord.js compares milliseconds, the number has seconds",
    sure=False,
)
def number_given_twice(case, ours, theirs, model):
    def undo(body, of_shard):
        if isinstance(body, list):
            return [undo(item, of_shard) for item in body]
        if isinstance(body, dict):
            return {key: undo(item, key.startswith("Starting")) for key, item in body.items()}
        found = TWICE.fullmatch(body) if isinstance(body, str) else None
        return found[1 if of_shard else 2] if found else body

    if theirs.good() and "given again" in repr(theirs.body):
        theirs.body = undo(theirs.body, False)


@entry(
    BOTH,
    THEIRS,
    "a closed shard is split or merged again",
    "actions/splitShard.js and mergeShards.js do not look whether the shard is open",
)
def reshard_of_closed(case, ours, theirs, model):
    message, looked_at = ours.message(), theirs.good() or theirs.message().startswith(
        "NewStartingHashKey "
    )
    if case.operation == "SplitShard" and looked_at and "is closed and cannot be split" in message:
        accept(ours, theirs)
    if case.operation == "MergeShards" and theirs.good() and "are not an adjacent pair" in message:
        closed = {shard["id"] for shard in model.stream_of(case).shards if not shard["open"]}
        if any(shard in message for shard in closed):
            accept(ours, theirs)


@entry(
    KINESALITE,
    THEIRS,
    "of a target with more than one dot only the second part is read",
    "index.js",
)
def target_with_dots(case, ours, theirs, model):
    dots = (case.headers or {}).get("X-Amz-Target", "").count(".")
    if dots > 1 and refused(ours, "UnknownOperationException"):
        accept(ours, theirs)


@entry(
    FERROKINESIS,
    THEIRS,
    "of a shard id with more than one dash all that follows the first is read",
    "kinesalite reads the second part only, as it is done here",
)
def shard_id_with_dashes(case, ours, theirs, model):
    ids = [
        case.get(name) for name in ("ShardId", "ShardToSplit", "ShardToMerge", "AdjacentShardToMerge")
    ]
    missing = refused(ours, "ResourceNotFoundException") or refused(theirs, "ResourceNotFoundException")
    if missing and any(isinstance(text, str) and text.count("-") > 1 for text in ids):
        accept(ours, theirs)


@entry(
    KINESALITE,
    OURS,
    "a map is shown in the order of its keys",
    "not recorded: tests have one tag, Java shows its own order",
)
def order_of_a_map(case, ours, theirs, model):
    shown = re.compile(r"(Value '\{)(.*)(\}' at 'tags' .*)")

    def ordered(text):
        found = shown.fullmatch(text)
        return found[1] + ", ".join(sorted(found[2].split(", "))) + found[3] if found else text

    if theirs.violations():
        set_violations(theirs, [ordered(text) for text in theirs.violations()])


@entry(
    BOTH,
    THEIRS,
    "for a second after a split or merge a record's own number is of the future to it",
    "tests: only a number of the future is refused",
    sure=False,
)
def number_of_the_future(case, ours, theirs, model):
    number = case.get("SequenceNumberForOrdering")
    if (
        ours.good()
        and number.__class__.__name__ == "Ref"
        and "ExclusiveMinimumSequenceNumber <" in theirs.message()
    ):
        accept(ours, theirs)


@entry(
    BOTH,
    OURS,
    "streams whose shards were created within the same second are not told apart by their numbers",
    "a number has the second in which its shard was created; for the other server those were two, or one",
    sure=False,
)
def same_second(case, ours, theirs, model):
    number, stream = case.get("StartingSequenceNumber"), model.stream_of(case)
    if case.operation != "GetShardIterator" or number.__class__.__name__ != "Ref" or stream is None:
        return
    # One of the stream's own is never excused.
    own = [key for found in stream.records.values() for key in found]
    if number.key in own or number.key[1:3] == stream.scope:
        return
    foreign = "is invalid because it did not come from this stream."
    for one, other in ((ours, theirs), (theirs, ours)):
        if one.good() and other.message().endswith(foreign):
            accept(ours, theirs)


@entry(
    BOTH,
    OURS,
    "a number in the oldest layout, of another stream, is the caller's error; there it is the server's own",
    "tests: getShardIterator.js had the text that is answered here before it had InternalFailure",
    sure=False,
)
def oldest_layout(case, ours, theirs, model):
    foreign = "is invalid because it did not come from this stream."
    if case.operation == "GetShardIterator" and refused(theirs, "InternalFailure"):
        number = case.get("StartingSequenceNumber")
        if isinstance(number, str) and int(number) < 1 << 125 and ours.message().endswith(foreign):
            accept(ours, theirs)


@entry(
    BOTH,
    THEIRS,
    "a shard's number whose highest bit is set is shown as if that bit were the sign alone",
    "tests: 80000000 is shown as -2147483648 (getShardIterator.js), as Java has it; others are not recorded",
    sure=False,
)
def negative_shard(case, ours, theirs, model):
    encoded = re.compile(r"(Invalid StartingSequenceNumber\. It encodes shardId-)-(\d{11})(, .*)")
    mine, others = encoded.fullmatch(ours.message()), encoded.fullmatch(theirs.message())
    if mine and others and int(mine[2]) + int(others[2]) == 1 << 32:
        theirs.body["message"] = others[1] + "-" + mine[2] + others[3]


@entry(
    KINESALITE,
    OURS,
    "an Authorization header that is empty is one, and lacks every part",
    "not recorded",
)
def empty_authorization(case, ours, theirs, model):
    given = not case.plain and (case.headers or {}).get("Authorization") == ""
    if given and refused(theirs, "MissingAuthenticationTokenException"):
        if refused(ours, "IncompleteSignatureException"):
            accept(ours, theirs)
    if given and refused(ours, "InvalidSignatureException"):
        if theirs.good() or theirs.message().startswith("AWS query-string"):
            accept(ours, theirs)


@entry(
    BOTH,
    OURS,
    "a page of shards cannot begin after what is no shard id",
    "not recorded",
)
def start_is_no_shard(case, ours, theirs, model):
    start = case.get("ExclusiveStartShardId")
    if case.operation in ("ListShards", "DescribeStream") and theirs.good() and isinstance(start, str):
        if ours.message().startswith(f"Could not find shard {start} in stream "):
            accept(ours, theirs)


@entry(
    BOTH,
    OURS,
    "AT_TIMESTAMP takes no sequence number; the other one reads it as AFTER_SEQUENCE_NUMBER",
    "model: GetShardIteratorInput.Timestamp",
)
def time_and_number(case, ours, theirs, model):
    said = "Request specified AT_TIMESTAMP and also a StartingSequenceNumber."
    if ours.message().endswith(said):
        accept(ours, theirs)


# --- ferrokinesis' own


@entry(
    FERROKINESIS,
    THEIRS,
    "answers without a content type get one",
    "tests: connection.js",
)
def plain_text(case, ours, theirs, model):
    if (
        "content-type" not in ours.headers
        and theirs.headers.get("content-type") == "text/plain; charset=utf-8"
    ):
        del theirs.headers["content-type"]


@entry(
    FERROKINESIS,
    OURS,
    "an ARN of a resource may be that of a channel or queue now",
    "model: ResourceARN",
)
def resource_pattern(case, ours, theirs, model):
    old, new = r":\d{12}:.*stream/\S+", r":\d{12}:.*(stream|channel|queue)/\S+"
    found = [text.replace(old, new) for text in theirs.violations()]
    if found != theirs.violations():
        set_violations(theirs, found)


@entry(
    FERROKINESIS,
    OURS,
    "the pattern of a consumer's ARN begins with ^",
    "model: ConsumerARN",
)
def consumer_pattern(case, ours, theirs, model):
    old = r"pattern: (arn):aws.*:kinesis:.*:\d{12}:.*stream/[a-zA-Z0-9_.-]+/consumer/[a-zA-Z0-9_.-]+:[0-9]+"
    new = old.replace("(arn)", "^(arn)").replace("/", r"\/")
    found = [text.replace(old, new) for text in theirs.violations()]
    if found != theirs.violations():
        set_violations(theirs, found)


UNRECORDED = ("Consumer", "Resource", "EnhancedMonitoring")


@entry(
    FERROKINESIS,
    OURS,
    "the order of violations in an operation that no test has recorded",
    "not recorded",
)
def order_of_violations(case, ours, theirs, model):
    if any(name in case.operation for name in UNRECORDED):
        if ours.violations() and sorted(ours.violations()) == sorted(theirs.violations()):
            accept(ours, theirs)


@entry(
    FERROKINESIS,
    OURS,
    "texts about consumers, resources and streams that are not named: each has its own",
    "not recorded",
)
def own_texts(case, ours, theirs, model):
    same = ours.kind() is not None and ours.kind() == theirs.kind() and ours.status == theirs.status
    if not same or refused(ours, "ValidationException") or refused(ours, "SerializationException"):
        return
    if any(name in case.operation for name in UNRECORDED) or ours.message() == NO_STREAM:
        accept(ours, theirs)


@entry(
    FERROKINESIS,
    THEIRS,
    "an incomplete signature is 403",
    "tests: connection.js has 400 in the encoding of the request",
)
def incomplete_is_403(case, ours, theirs, model):
    if refused(theirs, "IncompleteSignatureException") and theirs.status == 403:
        theirs.status = 400


@entry(
    FERROKINESIS,
    THEIRS,
    "a part of a signature may be empty",
    "kinesalite asks for a value",
)
def empty_parts(case, ours, theirs, model):
    given = (case.headers or {}).get("Authorization", "")
    if refused(ours, "IncompleteSignatureException") and re.search(
        r"(Credential|Signature)=(,|$)", given
    ):
        accept(ours, theirs)


@entry(
    FERROKINESIS,
    THEIRS,
    "tags are kept for streams that are not there",
    "model: TagResource, ListTagsForResource and UntagResource can fail with ResourceNotFoundException",
)
def tags_of_nothing(case, ours, theirs, model):
    if case.operation in ("ListTagsForResource", "TagResource", "UntagResource") and theirs.good():
        if refused(ours, "ResourceNotFoundException") or refused(ours, "InvalidArgumentException"):
            accept(ours, theirs)


def has_null_item(value):
    items = value if isinstance(value, list) else value.values() if isinstance(value, dict) else []
    return any(item is None for item in items)


@entry(
    FERROKINESIS,
    THEIRS,
    "a null in a list or a map is taken for an item",
    "kinesalite ends when it meets one; an SDK sends none",
)
def null_items(case, ours, theirs, model):
    if refused(ours, "SerializationException") and "Message" not in ours.body:
        if any(has_null_item(value) for value in (case.body or {}).values()):
            accept(ours, theirs)


@entry(
    FERROKINESIS,
    THEIRS,
    "names of metrics are not checked",
    "model: MetricsName",
)
def any_metric(case, ours, theirs, model):
    if "EnhancedMonitoring" not in case.operation:
        return
    rest = [text for text in ours.violations() if "Member must satisfy enum value set" not in text]
    if rest == ours.violations():
        return
    if rest:
        set_violations(ours, rest)
    else:
        accept(ours, theirs)


@entry(
    FERROKINESIS,
    THEIRS,
    "no policy is an empty text, of no stream too",
    "LocalStack's test of GetResourcePolicy, recorded on AWS",
)
def no_policy(case, ours, theirs, model):
    if case.operation == "GetResourcePolicy" and theirs.body == {"Policy": ""}:
        if ours.body == {"Policy": "{}"} or refused(ours, "ResourceNotFoundException"):
            accept(ours, theirs)


@entry(
    FERROKINESIS,
    THEIRS,
    "a percent sign in a tag is refused with the text for other characters",
    "tests: removeTagsFromStream.js",
)
def percent_in_tags(case, ours, theirs, model):
    if "because some tags contained illegal characters" in ours.message():
        if theirs.message().endswith(OLD_CHARACTERS):
            accept(ours, theirs)


@entry(
    FERROKINESIS,
    THEIRS,
    "a member without a value is null",
    "AWS leaves out what has no value (LocalStack's recordings)",
)
def null_members(case, ours, theirs, model):
    def bare(body):
        if isinstance(body, dict):
            return {name: bare(item) for name, item in body.items() if item is not None}
        return [bare(item) for item in body] if isinstance(body, list) else body

    if theirs.good():
        theirs.body = bare(theirs.body)


@entry(
    FERROKINESIS,
    THEIRS,
    "the last character of a blob is not checked",
    "tests: assertType for a Blob in helpers.js",
)
def last_of_a_blob(case, ours, theirs, model):
    if "Invalid last non-pad Base64 character" in str(ours.body):
        accept(ours, theirs)


@entry(
    FERROKINESIS,
    OURS,
    "the metrics of a stream are listed in an order of their own",
    "not recorded: a set",
)
def order_of_metrics(case, ours, theirs, model):
    def ordered(body):
        if isinstance(body, list):
            return [ordered(item) for item in body]
        if not isinstance(body, dict):
            return body
        names = ("ShardLevelMetrics", "CurrentShardLevelMetrics", "DesiredShardLevelMetrics")
        return {key: sorted(item) if key in names else ordered(item) for key, item in body.items()}

    if ours.good() and theirs.good():
        ours.body, theirs.body = ordered(ours.body), ordered(theirs.body)


@entry(
    FERROKINESIS,
    THEIRS,
    "a stream is deleted with its consumers, unasked",
    "model: DeleteStreamInput.EnforceConsumerDeletion",
)
def deletes_with_consumers(case, ours, theirs, model):
    if case.operation == "DeleteStream" and "because there are consumers associated" in ours.message():
        if theirs.good():
            accept(ours, theirs)


@entry(
    FERROKINESIS,
    THEIRS,
    "consumers outlive their stream",
    "model: DescribeStreamConsumer and ListStreamConsumers can fail with ResourceNotFoundException",
)
def consumers_outlive(case, ours, theirs, model):
    if "StreamConsumer" in case.operation and theirs.good() and not model.stream_of(case):
        if refused(ours, "ResourceNotFoundException"):
            accept(ours, theirs)


@entry(
    FERROKINESIS,
    THEIRS,
    "consumers are listed, and cut into pages, in no order",
    "model: ListStreamConsumersOutput; a page goes on where the last one ended",
    sure=False,
)
def order_of_consumers(case, ours, theirs, model):
    if case.operation != "ListStreamConsumers" or not (ours.good() and theirs.good()):
        return
    mine, others = ours.body["Consumers"], theirs.body["Consumers"]
    others.sort(key=lambda one: one["ConsumerName"])
    if len(mine) == len(others) and "NextToken" in ours.body and "NextToken" in theirs.body:
        accept(ours, theirs)


@entry(
    FERROKINESIS,
    THEIRS,
    "a description of a consumer does not name its stream",
    "model: ConsumerDescription requires StreamARN",
)
def no_stream_of_consumer(case, ours, theirs, model):
    if case.operation == "DescribeStreamConsumer" and ours.good() and theirs.good():
        if case.scope and ours.body["ConsumerDescription"].get("StreamARN") == ARN + case.scope[0]:
            theirs.body["ConsumerDescription"].setdefault("StreamARN", ARN + case.scope[0])


@entry(
    FERROKINESIS,
    THEIRS,
    "lengths are counted in bytes",
    "model: PartitionKey; the API reference counts Unicode characters",
)
def bytes_for_characters(case, ours, theirs, model):
    said = re.compile(r"Value '(.*)' at '[\w.]+' .* Member must have length less than or equal to (\d+)")
    kept = []
    for text in theirs.violations():
        found = said.fullmatch(text)
        if not found or len(found[1]) > int(found[2]) or len(found[1].encode()) <= int(found[2]):
            kept.append(text)
    if kept == theirs.violations():
        return
    if kept:
        set_violations(theirs, kept)
    else:
        accept(ours, theirs)


@entry(
    FERROKINESIS,
    THEIRS,
    "hash keys, ordering number, retention and tags are looked at before the stream",
    "tests: removeTagsFromStream.js names a stream that is not there and a wrong tag",
)
def arguments_before_stream(case, ours, theirs, model):
    if refused(ours, "ResourceNotFoundException") and refused(theirs, "InvalidArgumentException"):
        said = (
            "Invalid ExplicitHashKey",
            "Minimum allowed retention",
            "ExclusiveMinimumSequenceNumber",
            "Some tags contain invalid",
        )
        if theirs.message().startswith(said):
            accept(ours, theirs)


@entry(
    FERROKINESIS,
    THEIRS,
    "the length of a blob's text is counted in bytes",
    "a Java string has characters",
)
def blob_in_bytes(case, ours, theirs, model):
    both = refused(ours, "SerializationException") and refused(theirs, "SerializationException")
    if both and "multiple of 4 bytes but found" in str(theirs.body):
        if not str(theirs.body.get("Message")).isascii():
            accept(ours, theirs)
