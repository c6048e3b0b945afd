//! SubscribeToShard: a subscription becomes events that are ready to be sent.

use crate::api::consumer::parse_consumer;
use crate::api::output::Encoded;
use crate::api::{encode, named, read};
use crate::engine::{Engine, Error, Pushed, RECORD_COST_BYTES, Start, Subscription};
use crate::error::{ApiError, SequenceFault};
use bytes::Bytes;
use millstream_wire::limits::SUBSCRIPTION_EVENT_MAX_RECORDS;
use millstream_wire::shapes::{
    ShardIteratorType, StartingPosition, SubscribeToShardEvent, SubscribeToShardRequest,
};
use millstream_wire::{ConsumerArn, Encoding, ErrorCode, SequenceNumber, ShardId};
use serde::Serialize;

const OPERATION: &str = "SubscribeToShard";

/// The events of one subscription, encoded one at a time.
#[derive(Debug)]
pub struct Events {
    subscription: Subscription,
    encoding: Encoding,
}

/// What is sent to a subscriber.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// An event of this name.
    Event(&'static str, Bytes),
    /// A failure of this name; nothing follows it.
    Exception(&'static str, Bytes),
}

#[derive(Debug, Serialize)]
struct Failure {
    message: String,
}

/// What the answer says before any event: nothing.
#[derive(Debug, Serialize)]
struct Initial {}

impl Events {
    /// How payloads are encoded: as the request was.
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// The payload of what comes before the first event.
    pub fn initial(&self) -> Vec<u8> {
        encode(&Initial {}, self.encoding).unwrap_or_default()
    }

    /// Bytes that making an event takes at most, about: Base64, as much again for what surrounds it, and the records that it is
    /// made of.
    pub fn event_max_bytes(&self) -> usize {
        let encoded = self.subscription.event_max_bytes().saturating_mul(2);
        encoded.saturating_add(SUBSCRIPTION_EVENT_MAX_RECORDS * RECORD_COST_BYTES)
    }

    /// Waits until there is something to send.
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn wait(&mut self) {
        self.subscription.wait().await;
    }

    /// The next event, if there is one more.
    pub async fn next(&mut self) -> Option<Event> {
        let outcome = self.subscription.next().await?;
        let encoded = outcome
            .map_err(ApiError::from)
            .and_then(|pushed| event(pushed, self.encoding));
        match encoded {
            Ok(payload) => Some(Event::Event("SubscribeToShardEvent", payload)),
            Err(error) => {
                let message = error.message;
                let payload = encode(&Failure { message }, self.encoding).unwrap_or_default();
                Some(Event::Exception(exception(error.code), payload.into()))
            }
        }
    }
}

/// The name of a failure within the event stream, which has those of the model only.
fn exception(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::ResourceNotFound | ErrorCode::ResourceInUse => code.name(),
        _ => "InternalFailureException",
    }
}

fn event(pushed: Pushed, encoding: Encoding) -> Result<Bytes, ApiError> {
    let answer = SubscribeToShardEvent {
        continuation_sequence_number: pushed.continuation.map(|number| number.to_string()),
        millis_behind_latest: pushed.millis_behind_latest,
        child_shards: read::children(&pushed.children),
        records: Vec::new(),
    };
    let encoded = Encoded::with_records(&answer, pushed.records, encoding)?;
    Ok(encoded.into_bytes())
}

pub(super) async fn subscribe(
    engine: &Engine,
    encoding: Encoding,
    request: SubscribeToShardRequest,
) -> Result<Events, ApiError> {
    let consumer = parse_consumer(&request.consumer_arn.unwrap_or_default())?;
    let shard = request.shard_id.unwrap_or_default();
    let position = request.starting_position.unwrap_or_default();
    let start = start(&position, &shard, &consumer)?;
    let target = engine.subscription_target(&consumer, &shard, start);
    let target = target.await.map_err(|error| match error {
        Error::ForeignSequence {
            arn,
            shard,
            sequence,
        } => {
            let text = sequence.normalized().to_string();
            let fault = SequenceFault::Foreign;
            ApiError::bad_sequence_in(OPERATION, &text, shard, named(&arn), fault)
        }
        error => error.into(),
    })?;
    if request.dry_run == Some(true) {
        return Err(ApiError::dry_run());
    }
    let subscription = engine.subscribe(target)?;
    Ok(Events {
        subscription,
        encoding,
    })
}

/// The kind of start with the member it needs; others are ignored.
fn start(
    position: &StartingPosition,
    shard: &str,
    consumer: &ConsumerArn,
) -> Result<Start, ApiError> {
    let Some(kind) = position.position_type.as_ref() else {
        unreachable!("validation requires a position's type");
    };
    // An id that does not parse is refused with the shard; until then its number does not matter.
    let shard: ShardId = shard.parse().unwrap_or(ShardId(0));
    let numbered = |make: fn(SequenceNumber) -> Start| {
        let text = position.sequence_number.as_deref();
        let text = text.ok_or_else(|| ApiError::position_needs("SequenceNumber", kind))?;
        let malformed = || {
            let fault = SequenceFault::Malformed;
            ApiError::bad_sequence_in(OPERATION, text, shard, named(&consumer.stream), fault)
        };
        read::sequence_number(text).map(make).ok_or_else(malformed)
    };
    match kind {
        ShardIteratorType::AtSequenceNumber => numbered(Start::AtSequence),
        ShardIteratorType::AfterSequenceNumber => numbered(Start::AfterSequence),
        ShardIteratorType::TrimHorizon => Ok(Start::TrimHorizon),
        ShardIteratorType::Latest => Ok(Start::Latest),
        ShardIteratorType::AtTimestamp => match position.timestamp {
            // A time before 1970 is before every record.
            Some(at) => Ok(Start::AtTimestamp(u64::try_from(at.millis).unwrap_or(0))),
            None => Err(ApiError::position_needs("Timestamp", kind)),
        },
        _ => unreachable!("validation allows the known types only"),
    }
}
