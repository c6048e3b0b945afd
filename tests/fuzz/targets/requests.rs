//! Requests as they come after the HTTP: the operation by the first byte of the input, its body behind it, against a service in memory with a stream that has
//! records and a consumer. What is served may change the service; after a while it is made anew.

use crate::engine::{Target, outcome, shape};
use millstream_server::api::{Answer, Api, Call, Caller, Dispatch, Latency, RequestId};
use millstream_server::clock::ManualClock;
use millstream_server::engine::catalog::Catalog;
use millstream_server::engine::{Engine, Settings};
use millstream_server::log::{Log, LogConfig, MemoryDisk};
use millstream_server::patience::Patience;
use millstream_server::{Durability, Limits};
use millstream_wire::{Encoding, Operation};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::runtime::{Builder, Runtime};

/// A service is used for so many requests.
const REQUESTS_EACH: u32 = 5000;
const NOW_MS: u64 = 1_700_000_000_000;
const ARN: &str = "arn:aws:kinesis:us-east-1:000000000000:stream/orders";
const SHARD: &str = "shardId-000000000000";

/// The service, and a runtime to ask it in.
pub(crate) struct Service {
    pub(crate) runtime: Runtime,
    pub(crate) api: Api,
    engine: Engine,
    /// What iterators are signed with.
    pub(crate) log_id: [u8; 16],
}

impl Service {
    pub(crate) fn new() -> Self {
        let config = LogConfig {
            segment_bytes: 1 << 20,
            durability: Durability::None,
            ..LogConfig::default()
        };
        Service::on(MemoryDisk::new(), config)
    }

    /// On this disk, which is empty.
    pub(crate) fn on(disk: MemoryDisk, config: LogConfig) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let clock = ManualClock::at(NOW_MS);
        let log = Log::open(Arc::new(disk), config, clock.clone(), Catalog::default()).unwrap();
        let log_id = log.id();
        let settings = Settings {
            limits: Limits::Off,
            ..Settings::default()
        };
        let engine = Engine::new(log, clock, settings);
        let api = Api::new(engine.clone(), Latency::default());
        let service = Service {
            runtime,
            api,
            engine,
            log_id,
        };
        let must = |operation, body: Value| {
            let body = body.to_string().into_bytes();
            let answer = service.ask(operation, Encoding::Json, body);
            answer.unwrap_or_else(|error| panic!("{operation}: {error:?}"));
        };
        let create = json!({ "StreamName": "orders", "ShardCount": 2 });
        must(Operation::CreateStream, create);
        let put = json!({ "StreamName": "orders", "PartitionKey": "k", "Data": "aGVsbG8=" });
        must(Operation::PutRecord, put);
        let consumer = json!({ "StreamARN": ARN, "ConsumerName": "reader" });
        must(Operation::RegisterStreamConsumer, consumer);
        service
    }

    /// Asks; the bytes that the answer takes.
    pub(crate) fn ask(
        &self,
        operation: Operation,
        encoding: Encoding,
        body: Vec<u8>,
    ) -> Result<usize, millstream_server::error::ApiError> {
        let call = Call {
            operation,
            encoding,
            body: body.into(),
            caller: Caller {
                account: "000000000000".parse().unwrap(),
                region: "us-east-1".parse().unwrap(),
            },
            request_id: RequestId::random(),
            patience: Patience::default(),
        };
        let answer = self.runtime.block_on(self.api.dispatch(call))?;
        Ok(match answer {
            Answer::Body(body) => body.encode().map_or(0, |body| body.len()),
            Answer::Events(events) => events.initial().len(),
        })
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.runtime.block_on(self.engine.close());
    }
}

pub(crate) struct Requests {
    encoding: Encoding,
    service: Service,
    asked: u32,
}

impl Requests {
    pub(crate) fn new(encoding: Encoding) -> Self {
        Requests {
            encoding,
            service: Service::new(),
            asked: 0,
        }
    }
}

impl Target for Requests {
    fn seeds(&self) -> Vec<Vec<u8>> {
        let mut seeds = Vec::new();
        for (index, operation) in (0..).zip(Operation::ALL) {
            for body in bodies(*operation) {
                let mut seed = vec![index];
                match self.encoding {
                    Encoding::Json => seed.extend(body.to_string().into_bytes()),
                    Encoding::Cbor => write_cbor(&mut seed, "", &body),
                }
                seeds.push(seed);
            }
        }
        seeds
    }

    fn tokens(&self) -> &'static [&'static [u8]] {
        match self.encoding {
            Encoding::Json => &[
                b"{",
                b"}",
                b"[",
                b"]",
                b",",
                b":",
                b"\"",
                b"null",
                b"true",
                b"-1",
                b"1e400",
                b"1.5",
                b"\\u0000",
                b"\\ud800",
                b"StreamName",
                b"StreamARN",
                b"Records",
                b"Data",
                b"NextToken",
                b"\"orders\"",
                b"SHARD",
                b"AT_TIMESTAMP",
                b"LATEST",
                b"340282366920938463463374607431768211456",
                b"99999999999999999999",
                b"\xff",
                b"\xc3\xa9",
            ],
            Encoding::Cbor => &[
                b"\xbf",
                b"\xff",
                b"\x9f",
                b"\x80",
                b"\xa0",
                b"\xf6",
                b"\xf5",
                b"\xc1\x1b",
                b"\xc0",
                b"\x5f",
                b"\x7f",
                b"\x7b\xff\xff\xff\xff\xff\xff\xff\xff",
                b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff",
                b"\xfb\x7f\xf0\x00\x00\x00\x00\x00\x00",
                b"\xf9\x7c\x00",
                b"\x3b\xff\xff\xff\xff\xff\xff\xff\xff",
                b"\x6aStreamName",
                b"\x69StreamARN",
                b"\x67Records",
                b"\x64Data",
                b"\x69NextToken",
                b"\x66orders",
                b"\x18",
                b"\x1b",
            ],
        }
    }

    fn run(&mut self, input: &[u8]) -> u64 {
        self.asked += 1;
        if self.asked == REQUESTS_EACH {
            self.asked = 0;
            self.service = Service::new();
        }
        let Some((index, body)) = input.split_first() else {
            return 0;
        };
        let operation = Operation::ALL[usize::from(*index) % Operation::ALL.len()];
        let answer = self.service.ask(operation, self.encoding, body.to_vec());
        if let Err(error) = &answer {
            assert_ne!(error.code.name(), "InternalFailure", "{}", error.message);
        }
        let answer = answer.map_err(|error| format!("{}: {}", error.code, error.message));
        outcome(&answer, |_| shape(operation))
    }
}

/// Bodies that are served, or refused late; and one that has a member of every kind.
fn bodies(operation: Operation) -> Vec<Value> {
    let stream = json!({ "StreamName": "orders" });
    let resource = json!({ "ResourceARN": ARN, "Tags": { "team": "a" }, "TagKeys": ["team"] });
    let all = json!({
        "StreamName": "orders", "StreamARN": ARN, "ShardId": SHARD, "ShardCount": 3, "Limit": 10, "TargetShardCount": 2,
        "ScalingType": "UNIFORM_SCALING", "RetentionPeriodHours": 48, "ConsumerName": "reader", "NextToken": "AAAA",
        "Tags": { "team": "a" }, "TagKeys": ["team"], "ShardToMerge": SHARD, "AdjacentShardToMerge": "shardId-000000000001",
        "ShardToSplit": SHARD, "NewStartingHashKey": "100", "PartitionKey": "k", "Data": "aGVsbG8=", "ExplicitHashKey": "7",
        "ShardIteratorType": "AT_TIMESTAMP", "Timestamp": 1_700_000_000.5, "StartingSequenceNumber": "0",
        "StreamModeDetails": { "StreamMode": "PROVISIONED" }, "ShardLevelMetrics": ["ALL"], "EncryptionType": "KMS", "KeyId": "k",
        "Policy": "{}", "ResourceARN": ARN, "ShardFilter": { "Type": "AT_TIMESTAMP", "Timestamp": 1.0 }, "MaxRecordSizeInKiB": 2048,
        "WarmThroughputMiBps": 5, "ShardIterator": "AAAA", "ExclusiveStartShardId": SHARD,
    });
    let own = match operation {
        Operation::GetRecords => json!({ "ShardIterator": "AAAAAAAAAAE=", "Limit": 10 }),
        Operation::GetShardIterator => json!({
            "StreamName": "orders", "ShardId": SHARD, "ShardIteratorType": "AT_SEQUENCE_NUMBER", "StartingSequenceNumber": "0",
        }),
        Operation::PutRecords => json!({ "StreamName": "orders", "Records": [
            { "Data": "aGVsbG8=", "PartitionKey": "k" }, { "Data": "", "PartitionKey": "é", "ExplicitHashKey": "1" },
        ] }),
        Operation::SubscribeToShard => json!({
            "ConsumerARN": format!("{ARN}/consumer/reader:1700000000"), "ShardId": SHARD,
            "StartingPosition": { "Type": "AT_TIMESTAMP", "Timestamp": 1.5, "SequenceNumber": "0" },
        }),
        Operation::UpdateStreamMode => {
            json!({ "StreamARN": ARN, "StreamModeDetails": { "StreamMode": "ON_DEMAND" } })
        }
        Operation::TagResource | Operation::UntagResource => resource,
        _ => stream,
    };
    vec![own, all]
}

/// The same as CBOR: data as bytes, times with their tag.
fn write_cbor(out: &mut Vec<u8>, member: &str, value: &Value) {
    match value {
        Value::Null => out.push(0xf6),
        Value::Bool(value) => out.push(0xf4 + u8::from(*value)),
        Value::Number(_) if member == "Timestamp" => {
            out.extend([0xc1, 0x1b]);
            out.extend(NOW_MS.to_be_bytes());
        }
        Value::Number(number) => {
            out.push(0x1b);
            out.extend(number.as_u64().unwrap_or_default().to_be_bytes());
        }
        Value::String(text) => {
            let bytes = match member {
                "Data" => support::client::decode_base64(text),
                _ => text.clone().into_bytes(),
            };
            let major = if member == "Data" { 0x59 } else { 0x79 };
            out.push(major);
            let length = u16::try_from(bytes.len()).unwrap();
            out.extend(length.to_be_bytes());
            out.extend(bytes);
        }
        Value::Array(items) => {
            out.push(0x9f);
            for item in items {
                write_cbor(out, "", item);
            }
            out.push(0xff);
        }
        Value::Object(members) => {
            out.push(0xbf);
            for (name, value) in members {
                write_cbor(out, "", &Value::from(name.as_str()));
                write_cbor(out, name, value);
            }
            out.push(0xff);
        }
    }
}
