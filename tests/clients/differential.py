"""The same random requests to this server and to another stand-in; every difference must be explained.

    differential.py ENDPOINT PEER PEER_ENDPOINT SEED COUNT      PEER is kinesalite or ferrokinesis

Both servers are fresh, without limits per shard, and keep streams CREATING, UPDATING and DELETING for
200 ms (`--state-delay 200` here; `--createStreamMs 200 --deleteStreamMs 200 --updateStreamMs 200`, or the
same with dashes, there); the other one takes 10,000 shards (`--shardLimit 10000`). SEED decides on every
request. Each server is given its own iterators, sequence numbers and ARNs for the same thing. Prints one
line of JSON; exit code 1, with both answers, for every difference that differential_explained.py does not
account for, and for every entry of it that a run of the full size never needed.
"""

import base64
import collections
import copy
import http.client
import json
import random
import re
import sys
import time
import urllib.parse
import uuid

sys.dont_write_bytecode = True
from differential_explained import entries_for  # noqa: E402
from differential_requests import ARN, JSON, SIGNED, Case, Model, Ref, Requests, probes  # noqa: E402

FULL_SIZE = 3_000
SECONDS_AT_MOST = 30
SECONDS_EACH = 0.02
# A request that took longer may have met another state on one server than on the other.
IN_TIME_SECONDS = 0.15
SETTLED_SECONDS = 5
SHOWN = 40
CBOR = "application/x-amz-cbor-1.1"
COMPARED_HEADERS = (
    "content-type",
    "access-control-allow-origin",
    "access-control-expose-headers",
    "access-control-allow-headers",
    "access-control-allow-methods",
    "access-control-max-age",
)
CHANGES_STATE = ("CreateStream", "DeleteStream", "SplitShard", "MergeShards")
# Changes after which this server is UPDATING for a while.
SETTLES = ("StreamRetentionPeriod", "EnhancedMonitoring")
READS = ("Describe", "List", "Get", "connection")


class Broken(Exception):
    """The run itself cannot go on."""


class Server:
    """One of the two, with what it has handed out."""

    def __init__(self, name, endpoint):
        parts = urllib.parse.urlsplit(endpoint)
        if parts.scheme != "http" or not parts.port:
            raise Broken(f"{endpoint} is no http://ADDRESS:PORT")
        self.name, self.address = name, (parts.hostname, parts.port)
        self.connection, self.used = None, 0.0
        self.values, self.symbols = {}, {}

    def resolve(self, value):
        if isinstance(value, Ref):
            return self.values[value.key]
        if isinstance(value, dict):
            return {name: self.resolve(item) for name, item in value.items()}
        if isinstance(value, list):
            return [self.resolve(item) for item in value]
        return value

    def learn(self, scope, key, value):
        """Binds a value: within a stream no two things have the same one, and it never changes."""
        symbol = repr(Ref(*key))
        if self.values.setdefault(key, value) != value:
            symbol += " changed"
        known = self.symbols.setdefault(scope, {}).setdefault(value, [])
        if symbol not in known:
            known.append(symbol)

    def call(self, case):
        headers = case.headers
        if headers is None:
            headers = {
                "Content-Type": JSON,
                "X-Amz-Target": f"Kinesis_20131202.{case.operation}",
                "X-Amz-Date": "20260101T000000Z",
                "Authorization": SIGNED,
            }
        body = case.raw
        if body is None and case.body is not None:
            body = json.dumps(self.resolve(case.body)).encode()
        return self.exchange(case.method, case.path, body, headers)

    def exchange(self, method, path, body, headers):
        now = time.monotonic()
        if self.connection is None or now - self.used > 2:
            if self.connection:
                self.connection.close()
            self.connection = http.client.HTTPConnection(*self.address, timeout=2)
        try:
            self.connection.request(method, path, body, headers)
            response = self.connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as failure:
            self.connection.close()
            self.connection = None
            return Answer(0, {}, f"no answer: {type(failure).__name__}".encode())
        self.used = time.monotonic()
        given = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, given, content)


class Answer:
    """What came back, its body decoded; `comparable` makes of it what can be compared."""

    def __init__(self, status, headers, content):
        self.status = status
        self.headers = {name: headers[name] for name in COMPARED_HEADERS if name in headers}
        self.headers["ids"] = ids_of(headers)
        kind = self.headers.get("content-type", "")
        try:
            if content and kind == CBOR:
                self.body = cbor(content)
            elif content and kind in (JSON, "application/json"):
                self.body = json.loads(content)
            else:
                self.body = content.decode(errors="replace")
        except ValueError as failure:
            self.body = f"no {kind}: {failure}"

    def kind(self):
        return self.body.get("__type") if isinstance(self.body, dict) else None

    def message(self):
        return self.body.get("message", "") if isinstance(self.body, dict) else ""

    def violations(self):
        return self.body.get("violations", []) if isinstance(self.body, dict) else []

    def good(self):
        return self.status == 200 and self.kind() is None

    def __eq__(self, other):
        mine = (self.status, self.headers, self.body)
        return mine == (other.status, other.headers, other.body)

    def __repr__(self):
        text = json.dumps(self.body, ensure_ascii=False)
        return f"{self.status} {self.headers} {text if len(text) < 1500 else text[:1500] + '...'}"


def ids_of(headers):
    """Which of the two ids are there and of AWS's form."""
    found = []
    try:
        uuid.UUID(headers["x-amzn-requestid"])
        found.append("request id")
        if 64 <= len(base64.b64decode(headers["x-amz-id-2"], validate=True)) <= 80:
            found.append("id 2")
    except (KeyError, ValueError):
        pass
    return found


def cbor(content):
    """As much of CBOR as the answers to requests without a body have: maps and texts."""

    def item(at):
        major, size = content[at] >> 5, content[at] & 31
        at += 1
        if size in (24, 25):
            width = size - 23
            size, at = int.from_bytes(content[at : at + width], "big"), at + width
        if major == 3:
            return content[at : at + size].decode(), at + size
        if major != 5:
            raise ValueError(f"major type {major}")
        found, left = {}, len(content) if size == 31 else size
        while left and content[at] != 0xFF:
            key, at = item(at)
            found[key], at = item(at)
            left -= 1
        return found, at

    return item(0)[0]


# --- making two answers comparable

CURRENT = re.compile(r"currentTimestampInMillis: \d{13}")
VIOLATIONS = re.compile(r"\d+ validation errors? detected: (.*)", re.DOTALL)
TIMES = ("StreamCreationTimestamp", "ApproximateArrivalTimestamp", "ConsumerCreationTimestamp")


def comparable(case, server, answer, began):
    """A copy in which what each server has its own of is named by what it stands for."""
    made = copy.deepcopy(answer)
    if made.kind() is not None and made.message():
        message = made.message()
        for ref in case.refs():
            message = message.replace(server.values[ref.key], repr(ref))
        message = CURRENT.sub("currentTimestampInMillis: <now>", message)
        made.body["message"] = message
        listed = VIOLATIONS.fullmatch(message)
        if listed and made.kind() == "ValidationException":
            found = listed[1].split("; ")
            # Only what reads as it must is taken apart.
            if message == violations_text(found):
                del made.body["message"]
                made.body["violations"] = found
    elif made.good():
        made.body = named(made.body, server.symbols.get(case.scope, {}), began)
    return made


def violations_text(found):
    plural = "s" if len(found) > 1 else ""
    return f"{len(found)} validation error{plural} detected: {'; '.join(found)}"


def named(value, symbols, began):
    if isinstance(value, list):
        return [named(item, symbols, began) for item in value]
    if not isinstance(value, dict):
        return value
    made = {}
    for name, item in value.items():
        if name in TIMES:
            plausible = isinstance(item, (int, float)) and began - 3 <= item <= time.time() + 2
            made[name] = "<time>" if plausible else item
        elif name in ("ShardIterator", "NextShardIterator", "NextToken"):
            made[name] = "<token>" if isinstance(item, str) and item else item
        elif name.endswith("SequenceNumber") or name == "ConsumerARN":
            made[name] = ", given again as ".join(symbols.get(item, [f"{item} of nothing known"]))
        elif name == "MillisBehindLatest":
            made[name] = "behind" if isinstance(item, int) and item > 0 else item
        else:
            made[name] = named(item, symbols, began)
    return made


def where(ours, theirs, path="body"):
    """Where two bodies differ, one line each."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        names = sorted(ours.keys() | theirs.keys())
        pairs = [(f"{path}.{name}", ours.get(name, ABSENT), theirs.get(name, ABSENT)) for name in names]
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        pairs = [(f"{path}[{n}]", one, other) for n, (one, other) in enumerate(zip(ours, theirs))]
    else:
        return [f"{path}: {ours!r:.300} / {theirs!r:.300}"]
    return [line for name, one, other in pairs if one != other for line in where(one, other, name)]


# --- the run


ABSENT = "(absent)"


class Run:
    """Both servers in step."""

    def __init__(self, servers, requests, entries):
        self.servers, self.requests, self.model = servers, requests, requests.model
        self.entries, self.began = entries, time.time()
        requests.began = int(self.began)
        self.number, self.late = 0, 0
        self.operations, self.explained = collections.Counter(), collections.Counter()
        self.differences, self.unexplained = 0, []

    def judge(self, case, since=None):
        """Sends one case to both, compares, learns; whether both took it."""
        self.number += 1
        case.number = self.number
        self.operations[case.operation] += 1
        answers = [server.call(case) for server in self.servers]
        for server, answer in zip(self.servers, answers):
            if answer.good():
                learn(server, case, answer)
        if since is not None and time.monotonic() - since > IN_TIME_SECONDS:
            self.late += 1
        else:
            self.compare(case, answers)
        good = [answer.good() for answer in answers]
        self.note(case, answers, good)
        return all(good)

    def compare(self, case, answers):
        ours, theirs = (
            comparable(case, server, answer, self.began) for server, answer in zip(self.servers, answers)
        )
        shown = (copy.deepcopy(ours), copy.deepcopy(theirs))
        if ours == theirs:
            return
        self.differences += 1
        used = []
        for entry in self.entries:
            before = (copy.deepcopy(ours), copy.deepcopy(theirs))
            entry.fix(case, ours, theirs, self.model)
            if before != (ours, theirs):
                used.append(entry.name)
            if ours == theirs:
                self.explained.update(used)
                return
        self.unexplained.append((case, *shown, used, where(ours.body, theirs.body)))

    def note(self, case, answers, good):
        """What the model makes of it. What one server took and the other did not is taken back."""
        if case.operation.startswith(READS):
            if all(good):
                note_read(self.model, case, answers)
            return
        name = case.get("StreamName")
        if any(good) and not all(good):
            self.take_back(case)
        elif not all(good):
            return
        elif case.operation == "CreateStream":
            case.scope = self.model.created(name).scope
        else:
            note_write(self.model, case, answers)

    def take_back(self, case):
        name = case.get("StreamName") or (case.scope and case.scope[0])
        if not isinstance(name, str):
            raise Broken(f"one server took {case}, and it names no stream")
        for server in self.servers:
            body = {"StreamName": name, "EnforceConsumerDeletion": True}
            self.settled(server, name)
            server.call(Case("DeleteStream", body))
            self.settled(server, name, gone=True)
        self.model.dropped(name)

    def settled(self, server, name, gone=False):
        """Waits until the stream is in no state between two others."""
        deadline = time.monotonic() + SETTLED_SECONDS
        while time.monotonic() < deadline:
            answer = server.call(Case("DescribeStreamSummary", {"StreamName": name}))
            if answer.kind() == "ResourceNotFoundException":
                return
            status = answer.body["StreamDescriptionSummary"]["StreamStatus"] if answer.good() else None
            if status == "ACTIVE" and not gone:
                return
            time.sleep(0.01)
        raise Broken(f"{name} did not settle on {server.name}")

    def consumers_settled(self, server, name):
        """Waits until each consumer of the stream is there or gone."""
        deadline = time.monotonic() + SETTLED_SECONDS
        while time.monotonic() < deadline:
            answer = server.call(Case("ListStreamConsumers", {"StreamARN": ARN + name}))
            consumers = answer.body.get("Consumers", [])
            if all(one["ConsumerStatus"] == "ACTIVE" for one in consumers):
                return
            time.sleep(0.02)
        raise Broken(f"the consumers of {name} did not settle on {server.name}")

    def between(self, case, since):
        """Cases while a stream is between two states, then until it is not."""
        name = case.scope[0]
        stream = self.model.streams[name]
        members = ("ShardToSplit", "ShardToMerge", "AdjacentShardToMerge")
        # A name may go on behind its number: both servers read it up to there.
        numbers = [re.search(r"\d+", case.body[one]) for one in members if one in case.body]
        stream.closing = [f"shardId-{int(number[0]):012}" for number in numbers if number]
        changes = {case.operation}
        stream.deleting = case.operation == "DeleteStream"
        for _ in range(self.requests.rng.choice([0, 0, 1, 2, 3, 5])):
            other = self.requests.about(stream)
            if self.judge(other, since) and other.operation in CHANGES_STATE:
                changes.add(other.operation)
            if name not in self.model.streams:
                return
            stream.deleting = "DeleteStream" in changes
        stream.closing = []
        gone = "DeleteStream" in changes
        for server in self.servers:
            self.settled(server, name, gone)
        if gone:
            self.model.dropped(name)
        else:
            self.judge(Case("ListShards", {"StreamName": name}, scope=stream.scope))

    def step(self, case):
        since = time.monotonic()
        if not self.judge(case):
            return
        if case.operation in CHANGES_STATE:
            self.between(case, since)
        elif case.operation.endswith(SETTLES):
            for server in self.servers:
                self.settled(server, case.scope[0])
        elif case.operation in ("RegisterStreamConsumer", "DeregisterStreamConsumer"):
            for server in self.servers:
                self.consumers_settled(server, case.scope[0])


def learn(server, case, answer):
    """What this server calls the things of this answer."""
    scope, body = case.scope, answer.body
    if not isinstance(body, dict):
        return
    description = body.get("StreamDescription", {})
    for shard in body.get("Shards", []) + description.get("Shards", []):
        numbers = shard["SequenceNumberRange"]
        server.learn(scope, ("start", *scope, shard["ShardId"]), numbers["StartingSequenceNumber"])
        if "EndingSequenceNumber" in numbers:
            server.learn(scope, ("end", *scope, shard["ShardId"]), numbers["EndingSequenceNumber"])
    if case.operation == "PutRecord":
        server.learn(scope, ("record", case.number, 0), body["SequenceNumber"])
    if case.operation == "PutRecords":
        for index, record in enumerate(body["Records"]):
            if "SequenceNumber" in record:
                server.learn(scope, ("record", case.number, index), record["SequenceNumber"])
    if case.operation == "RegisterStreamConsumer":
        server.learn(scope, ("consumer", case.number), body["Consumer"]["ConsumerARN"])
    token = body.get("ShardIterator") or body.get("NextShardIterator")
    if token:
        server.values[("iterator", case.number)] = token


def note_read(model, case, answers):
    stream = model.stream_of(case)
    if case.operation in ("GetShardIterator", "GetRecords"):
        tokens = [
            answer.body.get("ShardIterator") or answer.body.get("NextShardIterator")
            for answer in answers
        ]
        if all(tokens):
            model.iterators.append((("iterator", case.number), case.scope))
    # Only a whole list of a stream between no two states says what there is.
    whole = case.operation == "ListShards" and list(case.body) == ["StreamName"]
    if whole and stream and not stream.closing:
        stream.shards = [
            {
                "id": shard["ShardId"],
                "start": int(shard["HashKeyRange"]["StartingHashKey"]),
                "end": int(shard["HashKeyRange"]["EndingHashKey"]),
                "open": "EndingSequenceNumber" not in shard["SequenceNumberRange"],
                "parents": [
                    shard[name] for name in ("ParentShardId", "AdjacentParentShardId") if name in shard
                ],
            }
            for shard in answers[0].body["Shards"]
        ]


def note_write(model, case, answers):
    stream = model.stream_of(case)
    if not stream:
        return
    body = answers[0].body
    if case.operation == "PutRecord":
        stream.records.setdefault(body["ShardId"], []).append(("record", case.number, 0))
    elif case.operation == "PutRecords":
        for index, record in enumerate(body["Records"]):
            if all("SequenceNumber" in answer.body["Records"][index] for answer in answers):
                key = ("record", case.number, index)
                stream.records.setdefault(record["ShardId"], []).append(key)
    elif case.operation in ("AddTagsToStream", "TagResource"):
        stream.tags |= case.body["Tags"]
    elif case.operation == "RegisterStreamConsumer":
        stream.consumers[case.body["ConsumerName"]] = ("consumer", case.number)


def main(endpoint, peer, peer_endpoint, seed, count):
    count = int(count)
    if peer not in ("kinesalite", "ferrokinesis"):
        raise Broken(f"{peer} is no peer: kinesalite or ferrokinesis")
    began = time.monotonic()
    servers = [Server("millstream", endpoint), Server(peer, peer_endpoint)]
    requests = Requests(random.Random(int(seed)), Model(), peer)
    run = Run(servers, requests, entries_for(peer))
    for case in probes(run.model, peer, requests.began):
        run.step(case)
    while run.number < count:
        if time.monotonic() - began > SECONDS_AT_MOST + SECONDS_EACH * count:
            raise Broken(f"{run.number} requests in {time.monotonic() - began:.0f} s: too slow")
        run.step(requests.next())
    for case, ours, theirs, used, left in run.unexplained[:SHOWN]:
        print(f"{case.number}: {case}\n  ours:   {ours}\n  theirs: {theirs}", file=sys.stderr)
        print(f"  explained in part by {used}, left over:", *left, sep="\n    ", file=sys.stderr)
    never = [entry.name for entry in run.entries if entry.sure and entry.name not in run.explained]
    print(
        json.dumps(
            {
                "peer": peer,
                "seed": int(seed),
                "requests": run.number,
                "operations": dict(sorted(run.operations.items())),
                "late": run.late,
                "different": run.differences,
                "explained": dict(run.explained.most_common()),
                "unexplained": len(run.unexplained),
                "never_needed": never,
                "seconds": round(time.monotonic() - began, 1),
            }
        )
    )
    if run.unexplained:
        raise Broken(f"{len(run.unexplained)} differences are not explained")
    if never and count >= FULL_SIZE:
        raise Broken(f"explanations of nothing: {', '.join(never)}")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except Broken as reason:
        sys.exit(f"wrong: {reason}")
