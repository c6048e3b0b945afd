"""CBOR by an encoder that is not the server's, and boto3 over TLS.

    encodings.py ENDPOINT CERTIFICATE

The first speaks CBOR as the Java SDKs do: byte strings, and times as tag 1 around milliseconds. The second
is an unmodified boto3 that trusts the server's own certificate and no other. Exit code 1 and what differed.
"""

import datetime
import sys
import time
import urllib.error
import urllib.request

import boto3
import cbor2
from botocore.config import Config
from botocore.exceptions import ClientError, SSLError

CBOR = "application/x-amz-cbor-1.1"
BLOBS = [b"", b"\x00\xff\xfe", b"x" * 70_000]


def check(what, found, expected):
    if found != expected:
        sys.exit(f"{what}: {found!r} where {expected!r} was expected")


class Cbor:
    """A client of a few lines."""

    def __init__(self, endpoint):
        self.endpoint = endpoint

    def call(self, operation, request):
        headers = {
            "Content-Type": CBOR,
            "X-Amz-Target": f"Kinesis_20131202.{operation}",
            "X-Amz-Date": "20260101T000000Z",
            "Authorization": "AWS4-HMAC-SHA256 Credential=A/20260101/us-east-1/kinesis/aws4_request, "
            "SignedHeaders=host, Signature=s",
        }
        body = request if isinstance(request, bytes) else cbor2.dumps(request)
        asked = urllib.request.Request(self.endpoint, body, headers)
        try:
            answered = urllib.request.urlopen(asked, timeout=30)
        except urllib.error.HTTPError as error:
            answered = error
        with answered:
            check("content type", answered.headers["Content-Type"], CBOR)
            content = answered.read()
        # As it stands, cbor2 takes the tag for seconds.
        millis = {1: lambda value, _immutable: ("millis", value)}
        answer = cbor2.loads(content, semantic_decoders=millis) if content else None
        return answered.status, answer


def records(client):
    check("create", client.call("CreateStream", {"StreamName": "cbor", "ShardCount": 1}), (200, None))
    before = int(time.time() * 1000)
    entries = [{"Data": blob, "PartitionKey": f"kéy-{n}"} for n, blob in enumerate(BLOBS)]
    status, put = client.call("PutRecords", {"StreamName": "cbor", "Records": entries})
    check("put", (status, put["FailedRecordCount"], len(put["Records"])), (200, 0, len(BLOBS)))
    start = {"StreamName": "cbor", "ShardId": "shardId-000000000000"}
    times = [
        {"ShardIteratorType": "TRIM_HORIZON"},
        {"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": cbor2.CBORTag(1, before)},
    ]
    for kind in times:
        status, given = client.call("GetShardIterator", {**start, **kind})
        check("iterator", (status, list(given)), (200, ["ShardIterator"]))
        status, got = client.call("GetRecords", given)
        check("blobs", [one["Data"] for one in got["Records"]], BLOBS)
        keys = [entry["PartitionKey"] for entry in entries]
        check("keys", [one["PartitionKey"] for one in got["Records"]], keys)
        numbers = [one["SequenceNumber"] for one in put["Records"]]
        check("numbers", [one["SequenceNumber"] for one in got["Records"]], numbers)
        for one in got["Records"]:
            tag, millis = one["ApproximateArrivalTimestamp"]
            check("time", (tag, before <= millis <= before + 60_000), ("millis", True))
    status, summary = client.call("DescribeStreamSummary", {"StreamName": "cbor"})
    tag, millis = summary["StreamDescriptionSummary"]["StreamCreationTimestamp"]
    check("created", (status, tag, abs(millis - before) < 60_000), (200, "millis", True))


def failures(client):
    none = client.call("DescribeStream", {"StreamName": "none"})
    message = "Stream none under account 000000000000 not found."
    check("not found", none, (400, {"__type": "ResourceNotFoundException", "message": message}))
    wrong = client.call("DescribeStream", {"StreamName": 5})
    check("wrong type", (wrong[0], wrong[1]["__type"]), (400, "SerializationException"))
    tagged = {"StreamName": "cbor", "StreamCreationTimestamp": cbor2.CBORTag(2, b"\x01")}
    check("wrong tag", client.call("ListShards", tagged), (400, {"__type": "SerializationException"}))
    cut = cbor2.dumps({"StreamName": "cbor"})[:-1]
    check("cut", client.call("ListShards", cut), (400, {"__type": "SerializationException"}))
    long = client.call("DescribeStream", {"StreamName": "x" * 129})
    check("too long", (long[0], long[1]["__type"]), (400, "ValidationException"))


def over_tls(endpoint, certificate):
    def connect(verify):
        return boto3.client(
            "kinesis",
            endpoint_url=endpoint,
            region_name="us-east-1",
            aws_access_key_id="AKIDEXAMPLE",
            aws_secret_access_key="secret",
            verify=verify,
            config=Config(retries={"total_max_attempts": 1}),
        )

    client = connect(certificate)
    client.create_stream(StreamName="tls", ShardCount=1)
    put = client.put_record(StreamName="tls", PartitionKey="k", Data=b"secret")
    given = client.get_shard_iterator(
        StreamName="tls", ShardId=put["ShardId"], ShardIteratorType="TRIM_HORIZON"
    )
    (record,) = client.get_records(ShardIterator=given["ShardIterator"])["Records"]
    check("record", (record["Data"], record["SequenceNumber"]), (b"secret", put["SequenceNumber"]))
    age = datetime.datetime.now(datetime.timezone.utc) - record["ApproximateArrivalTimestamp"]
    check("age", abs(age.total_seconds()) < 60, True)
    try:
        client.describe_stream(StreamName="none")
        sys.exit("a stream that is not there was described")
    except ClientError as error:
        check("error", error.response["Error"]["Code"], "ResourceNotFoundException")
    try:
        connect(True).list_streams()
        sys.exit("a certificate that nobody vouches for was trusted")
    except SSLError:
        pass


def main():
    endpoint, certificate = sys.argv[1:]
    client = Cbor(endpoint)
    records(client)
    failures(client)
    over_tls(endpoint.replace("http://", "https://"), certificate)
    print("ok")


main()
