"""Bad input through an unmodified boto3: each case must fail with AWS's code, and the server must go on.

    errors.py ENDPOINT

Prints one line for each case; exit code 1 with all cases that were answered otherwise.
"""

import base64
import sys

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

MAX_HASH_KEY = str(2**128 - 1)
MIB = 1024 * 1024


def connect(endpoint):
    return boto3.client(
        "kinesis",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="AKIDEXAMPLE",
        aws_secret_access_key="secret",
        # The server's own validation is asked, not the client's.
        config=Config(retries={"total_max_attempts": 1}, parameter_validation=False),
    )


def create(client, stream, shards):
    client.create_stream(StreamName=stream, ShardCount=shards)
    client.get_waiter("stream_exists").wait(
        StreamName=stream, WaiterConfig={"Delay": 1, "MaxAttempts": 30}
    )


def iterator(client, stream, shard="shardId-000000000000", **more):
    kind = more.pop("kind", "TRIM_HORIZON")
    return client.get_shard_iterator(
        StreamName=stream, ShardId=shard, ShardIteratorType=kind, **more
    )["ShardIterator"]


def altered(token):
    """The same token with one bit of its content turned over."""
    raw = bytearray(base64.b64decode(token))
    raw[-1] ^= 1
    return base64.b64encode(bytes(raw)).decode()


def of_deleted_stream(client):
    create(client, "short-lived", 1)
    token = iterator(client, "short-lived")
    client.delete_stream(StreamName="short-lived")
    client.get_waiter("stream_not_exists").wait(
        StreamName="short-lived", WaiterConfig={"Delay": 1, "MaxAttempts": 30}
    )
    return token


def cases(client):
    """(what, AWS's code, the call)."""
    missing = "ResourceNotFoundException"
    argument = "InvalidArgumentException"
    validation = "ValidationException"
    first, third = "shardId-000000000000", "shardId-000000000002"
    records = [{"PartitionKey": "k", "Data": b"x"}]
    gone = of_deleted_stream(client)
    good = iterator(client, "errors")
    ranges = {
        shard["ShardId"]: shard["HashKeyRange"]
        for shard in client.list_shards(StreamName="errors")["Shards"]
    }

    def put(**more):
        return lambda: client.put_record(**{"StreamName": "errors", "PartitionKey": "k", "Data": b"x", **more})

    def put_many(many, stream="errors"):
        return lambda: client.put_records(StreamName=stream, Records=many)

    def get(token, **more):
        return lambda: client.get_records(ShardIterator=token, **more)

    def start(**more):
        return lambda: client.get_shard_iterator(
            **{"StreamName": "errors", "ShardId": first, "ShardIteratorType": "LATEST", **more}
        )

    def split(at, shard=first, stream="errors"):
        return lambda: client.split_shard(
            StreamName=stream, ShardToSplit=shard, NewStartingHashKey=at
        )

    def merge(left, right):
        return lambda: client.merge_shards(
            StreamName="errors", ShardToMerge=left, AdjacentShardToMerge=right
        )

    return [
        ("put into an unknown stream", missing, put(StreamName="nobody")),
        ("put a batch into an unknown stream", missing, put_many(records, "nobody")),
        ("describe an unknown stream", missing, lambda: client.describe_stream_summary(StreamName="nobody")),
        ("list shards of an unknown stream", missing, lambda: client.list_shards(StreamName="nobody")),
        ("delete an unknown stream", missing, lambda: client.delete_stream(StreamName="nobody")),
        ("tags of an unknown stream", missing, lambda: client.list_tags_for_stream(StreamName="nobody")),
        ("split a shard of an unknown stream", missing, split("5", stream="nobody")),
        ("create a stream that exists", "ResourceInUseException", lambda: client.create_stream(StreamName="errors", ShardCount=1)),
        ("create a stream with a bad name", validation, lambda: client.create_stream(StreamName="a b", ShardCount=1)),
        ("create a stream with no shard", validation, lambda: client.create_stream(StreamName="none", ShardCount=0)),
        ("a record of 1 MiB and a byte", validation + "|" + argument, put(Data=b"x" * (MIB + 1))),
        ("a partition key of no character", validation, put(PartitionKey="")),
        ("a partition key of 257 characters", validation, put(PartitionKey="k" * 257)),
        ("an explicit hash key of 2^128", argument, put(ExplicitHashKey=str(2**128))),
        ("an explicit hash key with a leading zero", validation, put(ExplicitHashKey="01")),
        ("a batch of none", validation, put_many([])),
        ("a batch of 501", validation, put_many(records * 501)),
        ("a batch above 10 MiB", argument + "|" + validation, put_many([{"PartitionKey": "k", "Data": b"x" * MIB}] * 11)),
        ("an iterator for a shard that is not there", missing, start(ShardId="shardId-000000000099")),
        ("an iterator of no kind", validation, start(ShardIteratorType="SOMEWHERE")),
        ("an iterator after a number that is none", argument, start(ShardIteratorType="AFTER_SEQUENCE_NUMBER", StartingSequenceNumber="12345")),
        ("an iterator after no number", argument, start(ShardIteratorType="AFTER_SEQUENCE_NUMBER")),
        ("read with an iterator that is none", argument, get("not-an-iterator")),
        ("read with an altered iterator", argument, get(altered(good))),
        # AWS names the stream; here the iterator outlives what would name it.
        ("read with an iterator of a deleted stream", missing + "|" + argument, get(gone)),
        ("read 0 records", validation, get(good, Limit=0)),
        ("read 10,001 records", validation, get(good, Limit=10_001)),
        ("split at the start of the range", argument, split(ranges[first]["StartingHashKey"])),
        ("split above the range", argument, split(MAX_HASH_KEY)),
        ("split at what is no hash key", validation, split("x")),
        ("split a shard that is not there", missing, split("5", shard="shardId-000000000099")),
        ("merge shards that are not adjacent", argument, merge(first, third)),
        ("merge a shard with itself", argument, merge(first, first)),
        ("merge in the wrong order", argument, merge("shardId-000000000001", first)),
        ("list shards from a token that is none", argument, lambda: client.list_shards(NextToken="nothing")),
        ("a retention below a day", argument + "|" + validation, lambda: client.decrease_stream_retention_period(StreamName="errors", RetentionPeriodHours=23)),
        ("a retention above a year", argument + "|" + validation, lambda: client.increase_stream_retention_period(StreamName="errors", RetentionPeriodHours=8761)),
        ("51 tags", argument + "|" + validation, lambda: client.add_tags_to_stream(StreamName="errors", Tags={f"t{n}": "v" for n in range(51)})),
    ]


def code_of(call):
    try:
        call()
    except ClientError as error:
        return error.response["Error"]["Code"]
    return "success"


def main(endpoint):
    client = connect(endpoint)
    create(client, "errors", 3)
    wrong, token = [], iterator(client, "errors", kind="LATEST", shard="shardId-000000000001")
    in_second = client.list_shards(StreamName="errors")["Shards"][1]["HashKeyRange"]["StartingHashKey"]
    for number, (what, expected, call) in enumerate(cases(client)):
        code = code_of(call)
        if code not in expected.split("|"):
            wrong.append(f"{what}: {code}, not {expected}")
        # The next request is served: written, and read back.
        payload = f"after case {number}".encode()
        client.put_record(
            StreamName="errors", PartitionKey="k", Data=payload, ExplicitHashKey=in_second
        )
        page = client.get_records(ShardIterator=token)
        token = page["NextShardIterator"]
        if [record["Data"] for record in page["Records"]] != [payload]:
            wrong.append(f"after {what}: put {payload}, read {page['Records']}")
        print(f"{what}: {code}")
    largest = client.put_record(StreamName="errors", PartitionKey="k", Data=b"x" * (MIB - 1))
    if "SequenceNumber" not in largest:
        wrong.append(f"a record of 1 MiB with its key was not taken: {largest}")
    if wrong:
        sys.exit("\n".join(["", *wrong]))


if __name__ == "__main__":
    main(*sys.argv[1:])
