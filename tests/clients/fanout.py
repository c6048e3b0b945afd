"""Enhanced fan-out through an unmodified boto3: subscribe, put, split, follow the children, compare.

    fanout.py ENDPOINT STREAM

Two consumers read every shard of the stream by SubscribeToShard while records are put and a shard is split
and two are merged. Prints one line of JSON; exit code 1 and the reason if a record is missing, doubled or
out of its key's order for either of them.
"""

import json
import sys
import threading
import time

RECORDS = 3_000
BATCH = 100
KEYS = 40
DEADLINE_SECONDS = 90


class Wrong(Exception):
    """What the comparison found."""


def connect(endpoint):
    import boto3
    from botocore.config import Config

    return boto3.client(
        "kinesis",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="AKIDEXAMPLE",
        aws_secret_access_key="secret",
        config=Config(retries={"total_max_attempts": 1}, max_pool_connections=40),
    )


class Follower:
    """One consumer: a thread for each shard, children after their parents."""

    def __init__(self, client, consumer_arn, deadline):
        self.client, self.arn, self.deadline = client, consumer_arn, deadline
        self.lock = threading.Lock()
        self.records, self.started, self.ended, self.threads = [], set(), set(), []
        self.events, self.resumed, self.failure = 0, 0, None
        self.done = threading.Event()

    def follow(self, shard, position):
        with self.lock:
            if shard in self.started:
                return
            self.started.add(shard)
            thread = threading.Thread(target=self.guarded, args=(shard, position), daemon=True)
            self.threads.append(thread)
        thread.start()

    def guarded(self, shard, position):
        try:
            children = self.read(shard, position)
            with self.lock:
                self.ended.add(shard)
            for child in children:
                with self.lock:
                    ready = self.ended.issuperset(child["ParentShards"])
                if ready:
                    self.follow(child["ShardId"], {"Type": "TRIM_HORIZON"})
        except BaseException as failure:
            if not self.done.is_set():
                self.failure = failure
                self.done.set()

    def read(self, shard, position):
        while True:
            stream = self.client.subscribe_to_shard(
                ConsumerARN=self.arn, ShardId=shard, StartingPosition=position
            )["EventStream"]
            seen = 0
            for item in stream:
                if self.done.is_set():
                    stream.close()
                    return []
                event = item["SubscribeToShardEvent"]
                seen += 1
                with self.lock:
                    self.events += 1
                    self.records += [
                        (r["PartitionKey"], int(r["Data"]), int(r["SequenceNumber"]))
                        for r in event["Records"]
                    ]
                    complete = len(self.records) >= RECORDS
                if event.get("ChildShards"):
                    if "ContinuationSequenceNumber" in event:
                        raise Wrong(f"a closed shard goes on: {event}")
                    return event["ChildShards"]
                continuation = event["ContinuationSequenceNumber"]
                if complete and self.everything():
                    self.done.set()
                # Every so often the subscription is left and taken up where it was.
                if seen == 7:
                    stream.close()
                    break
            self.resumed += 1
            kind = ("AFTER_SEQUENCE_NUMBER", "AT_SEQUENCE_NUMBER")[self.resumed % 2]
            position = {"Type": kind, "SequenceNumber": continuation}
            # The server needs a moment to see that the connection is gone.
            time.sleep(0.2)

    def everything(self):
        with self.lock:
            return len({number for _, number, _ in self.records}) >= RECORDS

    def wait(self):
        self.done.wait(max(0, self.deadline - time.monotonic()))
        if self.failure:
            raise self.failure
        # Anything doubled comes right behind.
        time.sleep(0.5)
        with self.lock:
            return compare(list(self.records))


def compare(records):
    numbers = sorted(number for _, number, _ in records)
    if numbers != list(range(RECORDS)):
        missing = sorted(set(range(RECORDS)) - set(numbers))
        raise Wrong(f"{len(records)} records of {RECORDS}, missing {missing[:10]}")
    last = {}
    for key, number, _ in records:
        if number <= last.get(key, -1):
            raise Wrong(f"record {number} of key {key} came after {last[key]}")
        last[key] = number


def put(client, stream, numbers):
    for begin in range(0, len(numbers), BATCH):
        batch = [
            {"PartitionKey": f"key-{n % KEYS}", "Data": str(n).encode()}
            for n in numbers[begin : begin + BATCH]
        ]
        answer = client.put_records(StreamName=stream, Records=batch)
        if answer["FailedRecordCount"]:
            raise Wrong(f"{answer['FailedRecordCount']} records were refused")
        time.sleep(0.05)


def register(client, arn, name):
    answer = client.register_stream_consumer(StreamARN=arn, ConsumerName=name)["Consumer"]
    if answer["ConsumerStatus"] != "CREATING":
        raise Wrong(f"a new consumer is {answer['ConsumerStatus']}")
    described = client.describe_stream_consumer(ConsumerARN=answer["ConsumerARN"])
    if described["ConsumerDescription"]["ConsumerStatus"] != "ACTIVE":
        raise Wrong(f"{described}")
    return answer["ConsumerARN"]


def open_shards(client, stream):
    shards = client.list_shards(StreamName=stream)["Shards"]
    return [s for s in shards if "EndingSequenceNumber" not in s["SequenceNumberRange"]]


def main(endpoint, stream):
    began = time.monotonic()
    client = connect(endpoint)
    client.create_stream(StreamName=stream, ShardCount=2)
    arn = client.describe_stream_summary(StreamName=stream)["StreamDescriptionSummary"]["StreamARN"]
    first = open_shards(client, stream)
    followers = []
    for name in ("alpha", "beta"):
        follower = Follower(client, register(client, arn, name), began + DEADLINE_SECONDS)
        for shard in first:
            follower.follow(shard["ShardId"], {"Type": "LATEST"})
        followers.append(follower)
    # LATEST counts from the moment the server has the subscription.
    while any(follower.events < len(first) for follower in followers):
        if time.monotonic() > began + 20:
            raise Wrong("no first event within 20 s")
        time.sleep(0.02)

    third = RECORDS // 3
    put(client, stream, range(third))
    start, end = (int(first[0]["HashKeyRange"][k]) for k in ("StartingHashKey", "EndingHashKey"))
    client.split_shard(
        StreamName=stream,
        ShardToSplit=first[0]["ShardId"],
        NewStartingHashKey=str((start + end) // 2),
    )
    put(client, stream, range(third, 2 * third))
    order = sorted(open_shards(client, stream), key=lambda s: int(s["HashKeyRange"]["StartingHashKey"]))
    client.merge_shards(
        StreamName=stream, ShardToMerge=order[1]["ShardId"], AdjacentShardToMerge=order[2]["ShardId"]
    )
    put(client, stream, range(2 * third, RECORDS))
    for follower in followers:
        follower.wait()
    try:
        client.delete_stream(StreamName=stream)
        raise Wrong("a stream with consumers was deleted")
    except client.exceptions.ResourceInUseException:
        pass
    client.delete_stream(StreamName=stream, EnforceConsumerDeletion=True)
    print(
        json.dumps(
            {
                "records": RECORDS,
                "events": sum(follower.events for follower in followers),
                "resumed": sum(follower.resumed for follower in followers),
                "shards": len(followers[0].started),
                "seconds": round(time.monotonic() - began, 1),
            }
        )
    )


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except Wrong as found:
        sys.exit(f"wrong: {found}")
