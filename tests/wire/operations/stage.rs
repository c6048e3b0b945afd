//! Where scenarios run: a server and a client, and what was seen there.

use crate::SERVER;
use crate::exchange::{Encoding, Exchange};
use millstream_server::clock::ManualClock;
use millstream_server::{Config, DataLocation, Limits, Server};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use support::ServerProcess;
use support::client::CallError;

/// In a pattern: any value.
pub(crate) const ANY: &str = "*";
/// What an operation that succeeded is noted with.
pub(crate) const SUCCESS: &str = "success";
/// The end of most errors' names, which is left out where they are listed.
const EXCEPTION: &str = "Exception";
/// Attempts at what should happen soon: at a call whose rate is limited, or until a limit is met.
const ATTEMPTS: usize = 200;
/// The first time of a driven clock, with milliseconds that show.
const NOW_MS: u64 = 1_750_000_000_123;

/// What operations were seen to do.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// By operation: [`SUCCESS`], and the errors, without [`EXCEPTION`].
    pub(crate) outcomes: BTreeMap<String, BTreeSet<String>>,
    /// Operations and their answers, events of subscriptions included.
    pub(crate) answers: Vec<(String, Value)>,
}

impl Seen {
    pub(crate) fn merge(&mut self, other: Seen) {
        for (operation, outcomes) in other.outcomes {
            self.outcomes.entry(operation).or_default().extend(outcomes);
        }
        self.answers.extend(other.answers);
    }

    pub(crate) fn note(&mut self, operation: &str, outcome: &str) {
        let outcomes = self.outcomes.entry(operation.to_owned()).or_default();
        outcomes.insert(outcome.to_owned());
    }
}

enum Host {
    Process(Box<ServerProcess>),
    /// In this process, where time can be made to pass.
    Driven {
        clock: Arc<ManualClock>,
        _server: Box<Server>,
    },
}

/// A server, and a client that notes what it sees.
pub(crate) struct Stage {
    pub(crate) exchange: Exchange,
    pub(crate) seen: Seen,
    host: Host,
}

impl Stage {
    /// The real binary, with these flags.
    pub(crate) async fn process(encoding: Encoding, flags: &[&str]) -> Stage {
        let server = ServerProcess::start_with(SERVER, flags).await;
        Stage {
            exchange: Exchange::with(&server.url(), encoding).await,
            seen: Seen::default(),
            host: Host::Process(Box::new(server)),
        }
    }

    /// A server under a clock that is driven.
    pub(crate) async fn driven(encoding: Encoding, limits: Limits) -> Stage {
        let clock = ManualClock::at(NOW_MS);
        let config = Config {
            port: 0,
            data: DataLocation::Ephemeral,
            limits,
            ..Config::default()
        };
        let server = Server::start_with_clock(config, clock.clone()).await;
        let server = server.expect("the server starts");
        Stage {
            exchange: Exchange::with(&server.url(), encoding).await,
            seen: Seen::default(),
            host: Host::Driven {
                clock,
                _server: Box::new(server),
            },
        }
    }

    /// Goes on with the same data and other flags.
    pub(crate) async fn restart_with(&mut self, flags: &[&str]) {
        match &mut self.host {
            Host::Process(server) => server.restart_with(flags).await,
            Host::Driven { .. } => panic!("a driven server has no flags"),
        }
    }

    /// Lets time pass for a driven server.
    pub(crate) fn advance(&self, by: Duration) {
        match &self.host {
            Host::Process(_) => panic!("time passes by itself for a process"),
            Host::Driven { clock, .. } => clock.advance_ms(u64::try_from(by.as_millis()).unwrap()),
        }
    }

    /// Calls an operation, as often as its rate is limited.
    async fn call(&self, operation: &str, input: &Value) -> Result<Value, CallError> {
        for _ in 0..ATTEMPTS {
            match self.exchange.call(operation, input).await {
                Err(CallError::Refused { code, message, .. })
                    if code == "LimitExceededException" && message.starts_with("Rate exceeded") =>
                {
                    let pause = Duration::from_millis(200);
                    match self.host {
                        Host::Process(_) => tokio::time::sleep(pause).await,
                        Host::Driven { .. } => self.advance(pause),
                    }
                }
                other => return other,
            }
        }
        panic!("{operation} {input} is never called too seldom");
    }

    /// A call that must succeed with an answer that fits `pattern`: the members given there and no others,
    /// with these values or, for [`ANY`], with any.
    pub(crate) async fn answers(&mut self, operation: &str, input: Value, pattern: Value) -> Value {
        let answer = match self.call(operation, &input).await {
            Ok(answer) => answer,
            Err(error) => panic!("{operation} {input}: {error}"),
        };
        self.fits(operation, &answer, &pattern);
        answer
    }

    /// A call that must succeed, to look at a part of its answer.
    pub(crate) async fn looks(&mut self, operation: &str, input: Value) -> Value {
        let answer = self.call(operation, &input).await;
        let answer = answer.unwrap_or_else(|error| panic!("{operation} {input}: {error}"));
        let noted = (operation.to_owned(), answer.clone());
        self.seen.answers.push(noted);
        answer
    }

    /// Notes an answer, which must fit the pattern.
    pub(crate) fn fits(&mut self, operation: &str, answer: &Value, pattern: &Value) {
        let mut differences = Vec::new();
        compare(pattern, answer, "", &mut differences);
        assert!(
            differences.is_empty(),
            "{operation} answers {answer:#}\n{}",
            differences.join("\n")
        );
        self.seen.note(operation, SUCCESS);
        let noted = (operation.to_owned(), answer.clone());
        self.seen.answers.push(noted);
    }

    /// A call that must succeed and answers nothing.
    pub(crate) async fn done(&mut self, operation: &str, input: Value) {
        self.answers(operation, input, Value::Null).await;
    }

    /// A call that must be refused with this error, named without [`EXCEPTION`].
    pub(crate) async fn refuses(&mut self, operation: &str, error: &str, input: Value) {
        let answer = self.call(operation, &input).await;
        self.refused(operation, error, &input, answer);
    }

    /// Notes a refusal, which must be with this error.
    pub(crate) fn refused<T: std::fmt::Debug>(
        &mut self,
        operation: &str,
        error: &str,
        input: &Value,
        answer: Result<T, CallError>,
    ) {
        match answer {
            Err(CallError::Refused {
                status: 400,
                code,
                message,
            }) if short(&code) == error && !message.is_empty() => {
                self.seen.note(operation, error);
            }
            other => panic!("{operation} {input} should be refused with {error}: {other:?}"),
        }
    }

    /// Calls as fast as it can until it is refused with this error.
    pub(crate) async fn refuses_soon(&mut self, operation: &str, error: &str, input: &Value) {
        for _ in 0..ATTEMPTS {
            let answer = self.exchange.call(operation, input).await;
            if answer.is_err() {
                return self.refused(operation, error, input, answer);
            }
        }
        panic!("{operation} {input} is not refused with {error} however often it is called");
    }

    /// Creates a provisioned stream; its ARN.
    pub(crate) async fn create(&mut self, name: &str, shards: u32) -> String {
        let input = json!({"StreamName": name, "ShardCount": shards});
        self.done("CreateStream", input).await;
        arn(name)
    }

    /// Registers a consumer; its ARN.
    pub(crate) async fn register(&mut self, stream: &str, name: &str) -> String {
        let pattern = json!({"Consumer": consumer(name, "CREATING")});
        let input = json!({"StreamARN": arn(stream), "ConsumerName": name});
        let answer = self.answers("RegisterStreamConsumer", input, pattern).await;
        support::client::text(&answer["Consumer"], "ConsumerARN")
    }

    /// An iterator at the oldest record of a shard.
    pub(crate) async fn trim_horizon(&mut self, stream: &str, shard: u32) -> Value {
        let input = json!({
            "StreamName": stream, "ShardId": shard_id(shard), "ShardIteratorType": "TRIM_HORIZON",
        });
        let pattern = json!({"ShardIterator": ANY});
        let answer = self.answers("GetShardIterator", input, pattern).await;
        answer["ShardIterator"].clone()
    }
}

/// An error's name without [`EXCEPTION`].
pub(crate) fn short(error: &str) -> &str {
    error.strip_suffix(EXCEPTION).unwrap_or(error)
}

/// A consumer as it is listed.
pub(crate) fn consumer(name: &str, status: &str) -> Value {
    json!({
        "ConsumerName": name, "ConsumerARN": ANY, "ConsumerStatus": status,
        "ConsumerCreationTimestamp": ANY,
    })
}

/// The ARN of a stream of this name.
pub(crate) fn arn(stream: &str) -> String {
    format!("arn:aws:kinesis:us-east-1:000000000000:stream/{stream}")
}

/// The id of a shard.
pub(crate) fn shard_id(number: u32) -> String {
    format!("shardId-{number:012}")
}

fn compare(pattern: &Value, value: &Value, path: &str, differences: &mut Vec<String>) {
    match (pattern, value) {
        (Value::String(any), value) if any == ANY && !value.is_null() => {}
        (Value::Object(expected), Value::Object(found)) => {
            for name in expected.keys().chain(found.keys()).collect::<BTreeSet<_>>() {
                let path = format!("{path}.{name}");
                match (expected.get(name), found.get(name)) {
                    (Some(expected), Some(found)) => compare(expected, found, &path, differences),
                    (Some(_), None) => differences.push(format!("{path} is missing")),
                    _ => differences.push(format!("{path} should not be there")),
                }
            }
        }
        (Value::Array(expected), Value::Array(found)) if expected.len() == found.len() => {
            for (n, (expected, found)) in expected.iter().zip(found).enumerate() {
                compare(expected, found, &format!("{path}[{n}]"), differences);
            }
        }
        (expected, found) if expected == found => {}
        (expected, found) => differences.push(format!("{path} is {found}, not {expected}")),
    }
}
