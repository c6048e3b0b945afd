//! Dead letters: records that a processor could not handle, and where they are put so that they are not lost.
//!
//! Invariant: a record counts as handled only after its queue has accepted it (K4). A crash between the two
//! puts the letter once more.

use crate::client::{KinesisApi, PutRecord, StreamSummary};
use crate::error::{Error, ErrorKind};
use crate::processor::{ProcessorError, Record};
use async_trait::async_trait;
use bytes::Bytes;
use serde::Serialize;
use std::sync::{Arc, OnceLock};

/// A record that failed, with the circumstances.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DeadLetter {
    /// The application that could not process it.
    pub application: String,
    /// Name of the stream it was read from.
    pub stream: String,
    /// The shard it was read from.
    pub shard_id: String,
    /// The record.
    pub record: Record,
    /// How often it has failed, the batches counted that it was in.
    pub attempts: u32,
    /// The last error with its causes; at most 2,000 characters.
    pub error: String,
}

/// Characters of a letter's error text at most.
pub(crate) const ERROR_MAX_CHARS: usize = 2_000;

/// Takes dead letters. [`DeadLetterStream`] is one; so is every `Fn(DeadLetter)` that gives a future.
///
/// ```no_run
/// # async fn example() -> Result<(), kcl::Error> {
/// # struct Processor;
/// # #[async_trait::async_trait]
/// # impl kcl::RecordProcessor for Processor {
/// #     async fn process_records(&mut self, _: kcl::RecordBatch, _: &kcl::Checkpointer) -> Result<(), kcl::ProcessorError> { Ok(()) }
/// # }
/// use kcl::{DeadLetter, ErrorPolicy, MemoryLeaseStore, ProcessorError, Worker};
///
/// async fn keep(letter: DeadLetter) -> Result<(), ProcessorError> {
///     tokio::fs::write(format!("dead-{}", letter.record.sequence_number()), letter.record.data()).await?;
///     Ok(())
/// }
///
/// let worker = Worker::builder("my-app", "orders")
///     .lease_store(MemoryLeaseStore::new())
///     .on_error(ErrorPolicy::dead_letter())
///     .dead_letters(keep)
///     .build(|_: &kcl::ShardInfo| Processor)
///     .await?;
/// # Ok(())
/// # }
/// ```
#[async_trait]
pub trait DeadLetterQueue: Send + Sync + 'static {
    /// Keeps a letter. Its record counts as handled once this returns `Ok`; until then it is called again, after pauses of up to 10 s, and only
    /// this shard waits. After a crash or a lost reply a letter may come twice.
    ///
    /// # Errors
    /// Any: the letter was not kept, or it is not known whether it was.
    async fn put(&self, letter: &DeadLetter) -> Result<(), ProcessorError>;

    /// Called once by [`WorkerBuilder::build`](crate::WorkerBuilder::build), with the worker's client and stream. The default does nothing.
    ///
    /// # Errors
    /// Any: no letter could be put; `build` fails with it.
    async fn open(
        &self,
        _client: &Arc<dyn KinesisApi>,
        _source: &StreamSummary,
    ) -> Result<(), Error> {
        Ok(())
    }
}

#[async_trait]
impl<F, Answer> DeadLetterQueue for F
where
    F: Fn(DeadLetter) -> Answer + Send + Sync + 'static,
    Answer: Future<Output = Result<(), ProcessorError>> + Send,
{
    async fn put(&self, letter: &DeadLetter) -> Result<(), ProcessorError> {
        self(letter.clone()).await
    }
}

/// Another stream as a dead letter queue.
///
/// A letter is a record of that stream with the partition key, and the explicit hash key if it is known, of the record that failed. Its data is a JSON document of one line:
///
/// | member | |
/// |---|---|
/// | `application`, `stream`, `shard_id` | who failed, and where the record was read |
/// | `sequence_number` | decimal text |
/// | `sub_sequence_number` | index within an aggregated record, else 0 |
/// | `partition_key`, `explicit_hash_key` | of the record; the latter only of a record from an aggregate that had one |
/// | `arrival_ms` | milliseconds since 1970 |
/// | `attempts`, `error` | how often it failed, and the last reason, at most 2,000 characters |
/// | `data` | the record's data in base64; of an aggregate only the user record that failed |
///
/// Base64 takes a third more than the data, so a record near the stream's limit (1 MiB unless it was raised) does not fit into a letter.
/// Such a letter is refused by the stream, the error says so, and the shard waits with it: raise the dead letter stream's record size, which helps at
/// once, or use [`raw`](DeadLetterStream::raw). Nothing is cut.
#[derive(Debug)]
pub struct DeadLetterStream {
    stream: String,
    raw: bool,
    /// Given, or the worker's.
    client: OnceLock<Arc<dyn KinesisApi>>,
}

impl DeadLetterStream {
    /// Letters to `stream`, a name or an ARN, at the worker's endpoint. It must exist and be another than the worker's.
    pub fn new(stream: impl Into<String>) -> Self {
        DeadLetterStream {
            stream: stream.into(),
            raw: false,
            client: OnceLock::new(),
        }
    }

    /// Puts the record as it was, its data and partition key, without the circumstances: every record fits, and the stream can be processed by the same
    /// program. The circumstances are in the log only.
    #[must_use]
    pub fn raw(mut self) -> Self {
        self.raw = true;
        self
    }

    /// Another endpoint or region than the worker's.
    #[must_use]
    pub fn client(mut self, client: Arc<dyn KinesisApi>) -> Self {
        self.client = OnceLock::from(client);
        self
    }

    fn data(&self, letter: &DeadLetter) -> Result<Bytes, Error> {
        let record = &letter.record;
        if self.raw {
            return Ok(record.data().clone());
        }
        let document = Document {
            application: &letter.application,
            stream: &letter.stream,
            shard_id: &letter.shard_id,
            sequence_number: record.sequence_number().to_string(),
            sub_sequence_number: record.sub_sequence_number(),
            partition_key: record.partition_key(),
            explicit_hash_key: record.explicit_hash_key(),
            arrival_ms: record.arrival_ms(),
            attempts: letter.attempts,
            error: &letter.error,
            data: base64_simd::STANDARD.encode_to_string(record.data()),
        };
        let json = serde_json::to_vec(&document).map_err(|error| {
            Error::with_source(
                ErrorKind::Protocol,
                "a dead letter cannot be written as JSON",
                error,
            )
        })?;
        Ok(Bytes::from(json))
    }
}

#[derive(Serialize)]
struct Document<'a> {
    application: &'a str,
    stream: &'a str,
    shard_id: &'a str,
    sequence_number: String,
    sub_sequence_number: u64,
    partition_key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    explicit_hash_key: Option<&'a str>,
    arrival_ms: u64,
    attempts: u32,
    error: &'a str,
    data: String,
}

#[async_trait]
impl DeadLetterQueue for DeadLetterStream {
    async fn put(&self, letter: &DeadLetter) -> Result<(), ProcessorError> {
        let client = self.client.get().ok_or_else(|| {
            let message = "this dead letter stream was never opened: give it to a worker's builder, or call .client(...)";
            Error::new(ErrorKind::Configuration, message)
        })?;
        let data = self.data(letter)?;
        // Streams that spread records by themselves give records without a key.
        let partition_key = match letter.record.partition_key() {
            "" => letter.shard_id.as_str(),
            key => key,
        };
        let explicit_hash_key = letter.record.explicit_hash_key();
        let (size, stream) = (data.len(), &self.stream);
        let put = client.put_record(PutRecord {
            stream,
            partition_key,
            explicit_hash_key: explicit_hash_key.and_then(|key| key.parse().ok()),
            data: &data,
        });
        put.await.map_err(|error| {
            let hint = if self.raw || error.is_retryable() {
                ""
            } else {
                "; if it is too large, raise that stream's record size or use DeadLetterStream::raw"
            };
            let number = letter.record.place();
            let message = format!(
                "a letter of {size} bytes for record {number} could not be put to {stream}{hint}"
            );
            Error::with_source(error.kind(), message, error)
        })?;
        Ok(())
    }

    async fn open(
        &self,
        client: &Arc<dyn KinesisApi>,
        source: &StreamSummary,
    ) -> Result<(), Error> {
        let client = self.client.get_or_init(|| Arc::clone(client));
        let stream = client.describe_stream(&self.stream).await?;
        if stream.identity() == source.identity() {
            let message = format!(
                "dead letters of {} cannot go to {}: it is the stream they come from, and they would be read again",
                source.name, self.stream
            );
            return Err(Error::new(ErrorKind::Configuration, message));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::FakeKinesis;
    use crate::processor::Part;
    use millstream_wire::HashKey;

    fn letter(partition_key: &str) -> DeadLetter {
        DeadLetter {
            application: "app".to_owned(),
            stream: "orders".to_owned(),
            shard_id: "shardId-000000000003".to_owned(),
            record: Record {
                sub_sequence_number: 2,
                explicit_hash_key: Some("77".into()),
                part: Part::Inside,
                ..Record::stored(
                    "49".parse().unwrap(),
                    partition_key,
                    Bytes::from_static(b"hello"),
                    1_700_000_000_123,
                )
            },
            attempts: 4,
            error: "not \"valid\"".to_owned(),
        }
    }

    /// Puts a letter to a stream of the fake.
    async fn put(
        queue: DeadLetterStream,
        kinesis: &FakeKinesis,
        key: &str,
    ) -> Result<(), ProcessorError> {
        let client: Arc<dyn KinesisApi> = Arc::new(kinesis.clone());
        let source = client.describe_stream("orders").await.unwrap();
        queue.open(&client, &source).await.unwrap();
        queue.put(&letter(key)).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_letter_is_a_line_of_json_under_the_same_partition_key() {
        let kinesis = FakeKinesis::new(1);
        put(DeadLetterStream::new("dead"), &kinesis, "k")
            .await
            .unwrap();
        let put = &kinesis.letters()[0];
        assert_eq!((&*put.stream, &*put.partition_key), ("dead", "k"));
        assert_eq!(put.explicit_hash_key, Some(HashKey(77)));
        let expected = r#"{"application":"app","stream":"orders","shard_id":"shardId-000000000003","sequence_number":"49","sub_sequence_number":2,"partition_key":"k","explicit_hash_key":"77","arrival_ms":1700000000123,"attempts":4,"error":"not \"valid\"","data":"aGVsbG8="}"#;
        assert_eq!(String::from_utf8_lossy(&put.data), expected);
    }

    #[tokio::test(start_paused = true)]
    async fn raw_letters_are_the_records_as_they_were() {
        let kinesis = FakeKinesis::new(1);
        put(DeadLetterStream::new("dead").raw(), &kinesis, "")
            .await
            .unwrap();
        let put = &kinesis.letters()[0];
        assert_eq!(&put.data[..], b"hello");
        assert_eq!(put.partition_key, "shardId-000000000003", "it had none");
    }

    /// Goal: a letter that does not fit says so, and what can be done.
    #[tokio::test(start_paused = true)]
    async fn a_letter_that_is_refused_says_what_to_do() {
        let kinesis = FakeKinesis::new(1);
        for (kind, hint) in [(ErrorKind::Protocol, true), (ErrorKind::Throttled, false)] {
            kinesis.fail_puts(Some(kind));
            let error = put(DeadLetterStream::new("dead"), &kinesis, "k").await;
            let error = error.unwrap_err().to_string();
            assert!(
                error.contains("bytes for record 49:2 could not be put to dead"),
                "{error}"
            );
            assert_eq!(
                error.contains("raise that stream's record size"),
                hint,
                "{error}"
            );
        }
    }

    #[tokio::test]
    async fn a_stream_that_was_never_opened_says_so() {
        let error = DeadLetterStream::new("dead")
            .put(&letter("k"))
            .await
            .unwrap_err();
        assert!(error.to_string().contains("never opened"), "{error}");
    }
}
