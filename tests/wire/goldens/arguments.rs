//! What is said of arguments that are well formed and do not fit: shards, sequence numbers, hash keys, times,
//! retentions, tags, tokens.

use super::{FIRST_END, Goldens, STREAM, UNDER, UNKNOWN, server};
use serde_json::{Value, json};

/// A number of hexadecimal digits in decimal ones.
fn decimal(hex: &str) -> String {
    let mut digits = vec![0_u32];
    for digit in hex.chars() {
        let mut carry = digit.to_digit(16).unwrap();
        for place in &mut digits {
            carry += *place * 16;
            *place = carry % 10;
            carry /= 10;
        }
        while carry > 0 {
            digits.push(carry % 10);
            carry /= 10;
        }
    }
    digits.iter().rev().map(u32::to_string).collect()
}

/// What is no id is refused before the stream is looked for, and named as it was given.
const NO_IDS: [&str; 8] = [
    "2147483648",
    "shardId-002147483648",
    "ABKLFD8",
    "2.14E4",
    "shardId--1",
    "shardId-",
    "0x1",
    "1e1",
];
/// All of these are ids of shards that are not there.
const IDS: [(&str, &str); 6] = [
    ("2147483647", "shardId-002147483647"),
    ("a-00002147483647", "shardId-002147483647"),
    ("-00002147483647", "shardId-002147483647"),
    ("whatever-2147483647", "shardId-002147483647"),
    ("shardId-5", "shardId-000000000005"),
    ("5", "shardId-000000000005"),
];

/// The calls that reshard this shard.
fn reshards(stream: &str, shard: &str) -> [(&'static str, Value); 3] {
    [
        (
            "SplitShard",
            json!({"StreamName": stream, "ShardToSplit": shard, "NewStartingHashKey": "0"}),
        ),
        (
            "MergeShards",
            json!({"StreamName": stream, "ShardToMerge": shard, "AdjacentShardToMerge": "x-0"}),
        ),
        (
            "MergeShards",
            json!({"StreamName": stream, "ShardToMerge": "x-0", "AdjacentShardToMerge": shard}),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shards_are_looked_for_in_the_order_and_the_words_of_aws() {
    let mut goldens = Goldens(Vec::new());
    let iterator = |stream: &str, shard: &str| json!({"StreamName": stream, "ShardId": shard, "ShardIteratorType": "LATEST"});
    for shard in NO_IDS {
        for stream in [STREAM, UNKNOWN] {
            let text = format!("Could not find shard {shard} in stream {stream} {UNDER}.");
            for (operation, body) in reshards(stream, shard) {
                goldens.missing(operation, body, &text);
            }
            goldens.missing("GetShardIterator", iterator(stream, shard), &text);
        }
    }
    for (given, shard) in IDS {
        for (operation, body) in reshards(UNKNOWN, given) {
            goldens.missing(
                operation,
                body,
                format!("Stream {UNKNOWN} {UNDER} not found."),
            );
        }
        for (operation, body) in reshards(STREAM, given) {
            goldens.missing(
                operation,
                body,
                format!("Could not find shard {shard} in stream {STREAM} {UNDER}."),
            );
        }
        for stream in [STREAM, UNKNOWN] {
            let text = format!("Shard {shard} in stream {stream} {UNDER} does not exist");
            goldens.missing("GetShardIterator", iterator(stream, given), text);
        }
    }
    for operation in [
        "DeleteStream",
        "DescribeStream",
        "DescribeStreamSummary",
        "ListShards",
        "ListTagsForStream",
    ] {
        let text = format!("Stream {UNKNOWN} {UNDER} not found.");
        goldens.missing(operation, json!({"StreamName": UNKNOWN}), text);
    }
    goldens.compare(&server().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_a_page_of_shards_begins_is_looked_at_after_the_stream() {
    let mut goldens = Goldens(Vec::new());
    for shard in NO_IDS {
        let no_shard = format!("Could not find shard {shard} in stream {STREAM} {UNDER}.");
        let no_stream = format!("Stream {UNKNOWN} {UNDER} not found.");
        for (stream, text) in [(STREAM, no_shard), (UNKNOWN, no_stream)] {
            let after = json!({"StreamName": stream, "ExclusiveStartShardId": shard});
            goldens.missing("ListShards", after, &text);
            let filter = json!({"Type": "AFTER_SHARD_ID", "ShardId": shard});
            let filtered = json!({"StreamName": stream, "ShardFilter": filter});
            goldens.missing("ListShards", filtered, text);
        }
    }
    goldens.compare(&server().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shards_that_cannot_be_resharded_are_refused_in_the_words_of_aws() {
    let mut goldens = Goldens(Vec::new());
    let last_end = "340282366920938463463374607431768211455";
    for (shard, key, start, end) in [
        (0, "0", "0", FIRST_END),
        (0, "1", "0", FIRST_END),
        (0, FIRST_END, "0", FIRST_END),
        (
            2,
            "999999999999999999999999999999999999999",
            "226854911280625642308916404954512140970",
            last_end,
        ),
    ] {
        let body = json!({"StreamName": STREAM, "ShardToSplit": format!("shard-{shard}"), "NewStartingHashKey": key});
        let text = format!(
            "NewStartingHashKey {key} used in SplitShard() on shard shardId-{shard:012} in stream {STREAM} {UNDER} \
             is not both greater than one plus the shard's StartingHashKey {start} and less than the shard's \
             EndingHashKey {end}."
        );
        goldens.invalid("SplitShard", body, text);
    }
    for (first, second) in [(0, 2), (1, 0), (1, 1)] {
        let body = json!({"StreamName": STREAM, "ShardToMerge": format!("x-{first}"),
            "AdjacentShardToMerge": format!("x-{second}")});
        let text = format!(
            "Shards shardId-{first:012} and shardId-{second:012} in stream {STREAM} {UNDER} are not an adjacent \
             pair of shards eligible for merging"
        );
        goldens.invalid("MergeShards", body, text);
    }
    goldens.add(
        "CreateStream",
        json!({"StreamName": STREAM, "ShardCount": 1}),
        "ResourceInUseException",
        format!("Stream {STREAM} {UNDER} already exists."),
    );
    goldens.compare(&server().await).await;
}

fn iterator(kind: &str, sequence: Option<&str>) -> Value {
    let mut body = json!({"StreamName": STREAM, "ShardId": "shardId-0", "ShardIteratorType": kind});
    if let Some(sequence) = sequence {
        body["StartingSequenceNumber"] = json!(sequence);
    }
    body
}

/// In hexadecimal, as the layouts are read: no numbers that AWS ever handed out.
const NEVER_HANDED_OUT: [&str; 7] = [
    "13bb2cc3d80000000000000000000000",
    "20000000000800000000000000000000000000000000002",
    "20000000000000000000000000000000000000000000000",
    "20000000000000000000000000000000000000000000003",
    "30000000000000000000000000000000000000000000001",
    "1ffffffffff7fffffffffffffff000000000007fffffff2",
    "2ffffffffff7fffffffffffffff000000000007fffffff2",
];
/// Numbers of another stream, as they are printed: the first version leaves its highest bit out.
const FOREIGN: [(&str, Option<&str>); 4] = [
    ("0", Some("21267647932558653966460912964485513216")),
    (
        "f3bb2cc3d7ff7fffffffffffffff0000",
        Some("26227199374821822965252748908982894592"),
    ),
    ("20000000000000000000000000000000000000000000001", None),
    ("20000000000000000000000000000000000000000000002", None),
];
/// Numbers that say another shard's index.
const OF_OTHER_SHARDS: [(&str, &str); 5] = [
    ("5", "000000000005"),
    ("13bb2cc3d7ffffffffffffffffffffff", "000000065535"),
    (
        "20000000000000000000000000000000000000000000012",
        "000000000001",
    ),
    (
        "200000000000000000000000000000000000007fffffff2",
        "002147483647",
    ),
    (
        "20000000000000000000000000000000000000800000002",
        "-02147483648",
    ),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sequence_numbers_to_start_from_are_read_as_aws_reads_them() {
    let used = |number: &str, why: &str| {
        format!(
            "StartingSequenceNumber {number} used in GetShardIterator on shard shardId-000000000000 in stream \
             {STREAM} {UNDER} is invalid{why}"
        )
    };
    let mut goldens = Goldens(Vec::new());
    for kind in ["AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER"] {
        let malformed = NEVER_HANDED_OUT
            .into_iter()
            .map(decimal)
            .chain(["9".repeat(129)]);
        for number in malformed {
            let body = iterator(kind, Some(&number));
            goldens.invalid("GetShardIterator", body, used(&number, "."));
        }
        for (hex, printed) in FOREIGN {
            let number = decimal(hex);
            let foreign = " because it did not come from this stream.";
            let text = used(printed.unwrap_or(&number), foreign);
            goldens.invalid("GetShardIterator", iterator(kind, Some(&number)), text);
        }
        for (hex, shard) in OF_OTHER_SHARDS {
            let text = format!(
                "Invalid StartingSequenceNumber. It encodes shardId-{shard}, while it was used in a call to a \
                 shard with shardId-000000000000"
            );
            let body = iterator(kind, Some(&decimal(hex)));
            goldens.invalid("GetShardIterator", body, text);
        }
    }
    goldens.compare(&server().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn iterators_have_what_their_kind_needs() {
    let choice = "Must either specify (1) AT_SEQUENCE_NUMBER or AFTER_SEQUENCE_NUMBER and StartingSequenceNumber or \
                  (2) TRIM_HORIZON or LATEST and no StartingSequenceNumber. Request specified";
    let mut goldens = Goldens(Vec::new());
    for kind in ["TRIM_HORIZON", "LATEST"] {
        let text = format!("{choice} {kind} and also a StartingSequenceNumber.");
        goldens.invalid("GetShardIterator", iterator(kind, Some("5")), text);
    }
    for kind in ["AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER"] {
        let text = format!("{choice} {kind} and no StartingSequenceNumber.");
        goldens.invalid("GetShardIterator", iterator(kind, None), text);
    }
    let text = "Must specify timestampInMillis parameter for iterator of type AT_TIMESTAMP. Current request has no \
                timestamp parameter.";
    goldens.invalid("GetShardIterator", iterator("AT_TIMESTAMP", None), text);
    for token in ["a", "AAAA", "AAAAAAAAAAEAAAA", "\u{e9}", "\"AAAA\""] {
        let body = json!({"ShardIterator": token});
        goldens.invalid("GetRecords", body, "Invalid ShardIterator.");
    }
    goldens.compare(&server().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sequence_numbers_for_ordering_are_checked_as_aws_checks_them() {
    let put = |stream: &str, number: &str| json!({"StreamName": stream, "PartitionKey": "a", "Data": "", "SequenceNumberForOrdering": number});
    let now = |ahead: i64| {
        let now = i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_secs()).unwrap();
        format!("{:09x}", now + ahead)
    };
    let mut goldens = Goldens(Vec::new());
    let future = format!("20000000000000000000000000000{}000000002", now(600));
    for hex in NEVER_HANDED_OUT.into_iter().chain([future.as_str()]) {
        let number = decimal(hex);
        let text = format!(
            "ExclusiveMinimumSequenceNumber {number} used in PutRecord on stream {STREAM} {UNDER} is invalid."
        );
        goldens.invalid("PutRecord", put(STREAM, &number), text);
    }
    let number = decimal("30000000000000000000000000000000000000000000001");
    let text = format!("Stream {UNKNOWN} {UNDER} not found.");
    goldens.missing("PutRecord", put(UNKNOWN, &number), &text);
    let key = "340282366920938463463374607431768211456";
    let body =
        json!({"StreamName": UNKNOWN, "PartitionKey": "a", "Data": "", "ExplicitHashKey": key});
    goldens.missing("PutRecord", body, &text);
    let body = json!({"StreamName": UNKNOWN, "Records": [{"PartitionKey": "a", "Data": "", "ExplicitHashKey": key}]});
    goldens.missing("PutRecords", body, &text);
    let text = format!(
        "Invalid ExplicitHashKey. ExplicitHashKey must be in the range: [0, 2^128-1]. Specified value was {key}"
    );
    let body =
        json!({"StreamName": STREAM, "PartitionKey": "a", "Data": "", "ExplicitHashKey": key});
    goldens.invalid("PutRecord", body, &text);
    let body = json!({"StreamName": STREAM, "Records": [{"PartitionKey": "a", "Data": "", "ExplicitHashKey": key}]});
    goldens.invalid("PutRecords", body, &text);
    let server = server().await;
    goldens.compare(&server).await;

    let client = server.client();
    for hex in [
        "0".to_owned(),
        "1".to_owned(),
        "13bb2cc3d7ffffffffffffffffffffff".to_owned(),
        "20000000000000000000000000000000000000000000001".to_owned(),
        "20000000000000000000000000000000000000000000002".to_owned(),
        "20000000000000000000000000000000000000800000002".to_owned(),
        format!("20000000000000000000000000000{}000000002", now(-2)),
    ] {
        client.must("PutRecord", put(STREAM, &decimal(&hex))).await;
    }
    // One of its own is never of the future, also just after a split, whose children begin a second later.
    let split = json!({"StreamName": STREAM, "ShardToSplit": "0", "NewStartingHashKey": "5"});
    client.must("SplitShard", split).await;
    let mut number = "0".to_owned();
    for _ in 0..3 {
        let mut body = put(STREAM, &number);
        body["ExplicitHashKey"] = json!("7");
        let answer = client.must("PutRecord", body).await;
        answer["SequenceNumber"]
            .as_str()
            .unwrap()
            .clone_into(&mut number);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retentions_tags_and_tokens_are_refused_in_the_words_of_aws() {
    let mut goldens = Goldens(Vec::new());
    let hours = |hours: u32| json!({"StreamName": STREAM, "RetentionPeriodHours": hours});
    for operation in [
        "IncreaseStreamRetentionPeriod",
        "DecreaseStreamRetentionPeriod",
    ] {
        let text = "Minimum allowed retention period is 24 hours. Requested retention period (23 hours) is too short.";
        goldens.invalid(operation, hours(23), text);
        let body = json!({"StreamName": UNKNOWN, "RetentionPeriodHours": 25});
        goldens.missing(
            operation,
            body,
            format!("Stream {UNKNOWN} {UNDER} not found."),
        );
    }
    let text = format!(
        "Requested retention period (25 hours) for stream {STREAM} can not be longer than existing retention period \
         (24 hours). Use IncreaseRetentionPeriod API."
    );
    goldens.invalid("DecreaseStreamRetentionPeriod", hours(25), text);
    let many: serde_json::Map<_, _> = (0..51).map(|n| (format!("k{n}"), json!("v"))).collect();
    let text = format!(
        "Failed to add tags to stream {STREAM} {UNDER} because a given stream cannot have more than 50 tags \
         associated with it."
    );
    goldens.invalid(
        "AddTagsToStream",
        json!({"StreamName": STREAM, "Tags": many}),
        text,
    );
    let body = json!({"StreamName": UNKNOWN, "Tags": {"a": "b"}});
    goldens.missing(
        "AddTagsToStream",
        body,
        format!("Stream {UNKNOWN} {UNDER} not found."),
    );
    let text = "Either NextToken or StreamName should be provided.";
    goldens.invalid("ListShards", json!({}), text);
    let text = "NextToken and StreamName cannot be provided together.";
    goldens.invalid(
        "ListShards",
        json!({"StreamName": STREAM, "NextToken": "a"}),
        text,
    );
    goldens.compare(&server().await).await;
}
