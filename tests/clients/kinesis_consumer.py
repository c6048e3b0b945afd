"""aws-kinesis-consumer, unmodified: the command-line program shows every record of a stream.

    kinesis_consumer.py ENDPOINT STREAM PROGRAM     PROGRAM is the path of `aws-kinesis-consumer`

It runs from the trim horizon and from the tip, through a split, and on a stream that is not there. The
program lists the shards once, when it starts: children are shown by those started after the split, and what
it says of the closed parent is checked. Prints one line of JSON; exit code 1 and the reason if a line is
missing, doubled, altered or out of its shard's order.
"""

import collections
import json
import os
import signal
import subprocess
import sys
import threading
import time

import boto3
from botocore.config import Config

DEADLINE_SECONDS = 170
KEYS = 30


class Wrong(Exception):
    """What a comparison found."""


def connect(endpoint):
    return boto3.client(
        "kinesis", endpoint_url=endpoint, config=Config(retries={"total_max_attempts": 1}, read_timeout=20)
    )


class Shown:
    """The program while it runs, the lines it has printed, and those it should have."""

    def __init__(self, command, deadline):
        self.command, self.deadline = command, deadline
        self.expected = collections.defaultdict(list)
        self.lines, self.notices = [], []
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # A shell's jobs in the background ignore this signal, and so would all that they start.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        pairs = ((self.process.stdout, self.lines), (self.process.stderr, self.notices))
        self.threads = [threading.Thread(target=self.collect, args=pair, daemon=True) for pair in pairs]
        for thread in self.threads:
            thread.start()

    @staticmethod
    def collect(pipe, lines):
        for line in pipe:
            lines.append(line.decode().rstrip("\n").split("\r")[-1])

    def wait(self, what, condition):
        while not condition():
            if self.process.poll() is not None or time.monotonic() > self.deadline:
                shown = f"showed {len(self.lines)} lines, said {self.notices[-3:]}"
                raise Wrong(f"{what}: {self.command} {shown}")
            time.sleep(0.02)

    def prepared(self, shards):
        """Until it has an iterator for each."""
        self.wait(f"{shards} shards", lambda: f"> preparing shards {shards}/{shards}" in self.notices)

    def expect(self, placed, shards):
        """From now on the lines of these shards are expected too."""
        for shard in shards:
            self.expected[shard] += placed[shard]

    def check(self):
        """Exactly the expected lines, in the order of their shards."""
        total = sum(map(len, self.expected.values()))
        self.wait(f"{total} lines", lambda: len(self.lines) >= total)
        # Anything doubled would come with the next rounds over the shards.
        said = len(self.notices)
        self.wait("two more rounds", lambda: len(self.notices) >= said + 2 * len(self.expected))
        shown = list(self.lines)
        if len(shown) != total:
            raise Wrong(f"{len(shown)} lines of {total}")
        for shard, numbers in self.expected.items():
            mine = {line(number) for number in numbers}
            found = [one for one in shown if one in mine]
            for one, number in zip(found, numbers):
                if one != line(number):
                    raise Wrong(f"{shard}: {one!r} where {line(number)!r} was expected")
            if len(found) != len(numbers):
                raise Wrong(f"{shard}: {len(found)} lines of {len(numbers)}")

    def interrupted(self):
        self.process.send_signal(signal.SIGINT)
        self.ended(0)

    def ended(self, code):
        """Waits for its end and all it printed."""
        try:
            found = self.process.wait(max(1, self.deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise Wrong(f"{self.command} does not end") from None
        for thread in self.threads:
            thread.join()
        if found != code:
            raise Wrong(f"{self.command} ended with {found}, said {self.notices[-3:]}")

    def kill(self):
        self.process.kill()
        self.process.wait()


def line(number):
    return json.dumps({"number": number, "text": "žluťoučký kůň" * (number % 5)}, ensure_ascii=False)


def put(client, stream, numbers):
    """Puts a line for each number; the numbers by the shard that took them."""
    answer = client.put_records(
        StreamName=stream,
        Records=[{"PartitionKey": f"key-{n % KEYS}", "Data": line(n).encode()} for n in numbers],
    )
    if answer["FailedRecordCount"]:
        raise Wrong(f"{answer['FailedRecordCount']} records were refused")
    placed = collections.defaultdict(list)
    for number, record in zip(numbers, answer["Records"], strict=True):
        placed[record["ShardId"]].append(number)
    return placed


def through_a_split(client, stream, start):
    """Starts programs with `start`, puts and splits, and checks what each of them shows."""
    first, second, *children = (f"shardId-{number:012d}" for number in range(4))
    old = put(client, stream, range(150))
    horizon = start(stream, "--iterator-type", "trim-horizon", "--max-records-per-request", "100")
    tip = start(stream)
    horizon.prepared(2)
    tip.prepared(2)
    new = put(client, stream, range(150, 190))
    horizon.expect(old, (first, second))
    for shown in (horizon, tip):
        shown.expect(new, (first, second))
    for shown in (horizon, tip):
        shown.check()

    client.split_shard(StreamName=stream, ShardToSplit=first, NewStartingHashKey=str(2**126))
    closed = f"> shard iterator is null, the shard seems to be closed, shard_id={first}"
    horizon.wait("end of the shard", lambda: closed in horizon.notices)
    from_children = start(stream, "--max-records-per-request", "100")
    from_children.prepared(3)
    # The shards that were open at the horizon: the children were not.
    again = start(stream, "--iterator-type", "trim-horizon", "--max-records-per-request", "1000")
    again.prepared(2)
    late = put(client, stream, range(190, 250))
    if sorted(late) != [second, *children]:
        raise Wrong(f"after the split records came to {sorted(late)}")
    from_children.expect(late, (second, *children))
    for placed in (old, new):
        again.expect(placed, (first, second))
    for shown in (horizon, tip, again):
        shown.expect(late, (second,))
    running = (horizon, tip, from_children, again)
    for shown in running:
        shown.check()
    for shown in running:
        shown.interrupted()
    return sum(len(shown.lines) for shown in running)


def main(endpoint, stream, program):
    began = time.monotonic()
    client = connect(endpoint)
    client.create_stream(StreamName=stream, ShardCount=2)
    started = []

    def start(name, *arguments):
        command = [program, "--stream-name", name, "--endpoint", endpoint, *arguments]
        started.append(Shown(command, began + DEADLINE_SECONDS))
        return started[-1]

    try:
        lines = through_a_split(client, stream, start)
        missing = start(f"{stream}-none")
        missing.ended(1)
        said = f"! Stream {stream}-none under account 000000000000 not found."
        if said not in missing.notices:
            raise Wrong(f"of a stream that is not there: {missing.notices}")
    finally:
        for shown in started:
            shown.kill()
    seconds = round(time.monotonic() - began, 1)
    print(json.dumps({"records": 250, "programs": len(started), "lines": lines, "seconds": seconds}))


if __name__ == "__main__":
    os.environ.update(
        AWS_ACCESS_KEY_ID="AKIDEXAMPLE", AWS_SECRET_ACCESS_KEY="secret", AWS_DEFAULT_REGION="us-east-1"
    )
    try:
        main(*sys.argv[1:])
    except Wrong as found:
        sys.exit(f"wrong: {found}")
