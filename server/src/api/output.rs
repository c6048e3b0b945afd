//! What operations answer with, and how it is encoded. The only writer of answers.
//!
//! An answer is encoded once it is known where it will go: encoded it is larger than the records it is made
//! of, and those are counted already.

use crate::api::read::shown;
use crate::engine::ReadRecord;
use crate::error::ApiError;
use bytes::Bytes;
use millstream_wire::Encoding;
use millstream_wire::shapes::{self, Empty, RecordWriter};
use serde::Serialize;
use std::fmt;

/// An answer that is still to be encoded.
pub struct Unencoded {
    output: Box<dyn Output>,
    encoding: Encoding,
}

impl Unencoded {
    pub(super) fn new(output: Box<dyn Output>, encoding: Encoding) -> Unencoded {
        Unencoded { output, encoding }
    }

    /// These bytes, as they are.
    pub fn raw(bytes: Vec<u8>) -> Unencoded {
        Unencoded::new(Box::new(bytes), Encoding::Json)
    }

    /// Bytes that it will have at most, about.
    pub fn max_bytes(&self) -> usize {
        self.output.max_bytes()
    }

    /// Whether [`Unencoded::encode`] makes the whole body; one with records is made as it is sent.
    pub fn is_encoded_at_once(&self) -> bool {
        !self.output.is_piecewise()
    }

    /// The body.
    ///
    /// # Errors
    /// An internal failure; no answer has one.
    pub fn encode(self) -> Result<Encoded, ApiError> {
        self.output.encode(self.encoding)
    }
}

/// A body that is given out piece by piece, and may be made no sooner.
#[derive(Debug)]
pub struct Encoded {
    len: usize,
    /// What comes first: all there is, or what was made of the records but is not given out yet.
    head: Bytes,
    records: Option<Box<RecordPieces>>,
}

/// Bytes that are handed to a connection at a time: it asks for more when it has room again. So many are written with one
/// call, and each wakes the client. An answer with records that is no larger is encoded at once; what larger ones are made
/// of takes about what they do, however little of it lies together.
pub const PIECE_BYTES: usize = 1024 * 1024;

/// Records that become bytes when they are asked for.
#[derive(Debug)]
struct RecordPieces {
    records: Vec<ReadRecord>,
    writer: RecordWriter,
    written: usize,
    /// What comes behind them.
    rest: Vec<u8>,
}

impl Encoded {
    /// A body that is there.
    pub fn whole(bytes: impl Into<Bytes>) -> Encoded {
        let head = bytes.into();
        Encoded {
            len: head.len(),
            head,
            records: None,
        }
    }

    /// `answer` with these records in its list, which comes first and is empty.
    pub(super) fn with_records<T: Serialize>(
        answer: &T,
        records: Vec<ReadRecord>,
        encoding: Encoding,
    ) -> Result<Encoded, ApiError> {
        let (head, rest) = encoding.around_records(answer).map_err(unencodable)?;
        let lens = records
            .iter()
            .enumerate()
            .map(|(before, record)| shown(record).encoded_len(encoding, before));
        let len = head.len() + lens.sum::<usize>() + rest.len();
        let encoded = Encoded {
            len,
            head: Bytes::from_static(head),
            records: Some(Box::new(RecordPieces {
                records,
                writer: RecordWriter::new(encoding),
                written: 0,
                rest,
            })),
        };
        // A few records may lie in much that was read with them, and would keep it.
        Ok(match len {
            ..=PIECE_BYTES => Encoded::whole(encoded.into_bytes()),
            _ => encoded,
        })
    }

    /// All that is left, in one piece.
    pub fn into_bytes(mut self) -> Bytes {
        self.next_piece(usize::MAX).unwrap_or_default()
    }

    /// Bytes not given out yet.
    #[expect(clippy::len_without_is_empty, reason = "nobody asks")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Bytes it takes until all of it is given out: what becomes a piece is there beside what that is made of.
    pub fn held_bytes(&self) -> usize {
        self.len + self.records.as_ref().map_or(0, |_| PIECE_BYTES)
    }

    /// The next piece, of so many bytes at most, if there is one more.
    pub fn next_piece(&mut self, about_bytes: usize) -> Option<Bytes> {
        if let Some(records) = &mut self.records
            && self.head.len() < about_bytes
            && !records.is_written()
        {
            let head = std::mem::take(&mut self.head);
            let room = self.len.min(about_bytes.saturating_add(PIECE_MARGIN_BYTES));
            self.head = records.next_piece(&head, about_bytes, room);
        }
        // A record may be longer than a piece.
        let len = self.head.len().min(about_bytes);
        let piece = self.head.split_to(len);
        debug_assert!(piece.len() <= self.len, "its length was known before");
        self.len = self.len.saturating_sub(piece.len());
        (!piece.is_empty()).then_some(piece)
    }
}

impl RecordPieces {
    fn is_written(&self) -> bool {
        self.written == self.records.len() && self.rest.is_empty()
    }

    fn next_piece(&mut self, head: &[u8], about_bytes: usize, room_bytes: usize) -> Bytes {
        let mut piece = Vec::with_capacity(room_bytes);
        piece.extend_from_slice(head);
        while let Some(record) = self.records.get(self.written) {
            let len = about_len(record);
            if !piece.is_empty() && piece.len() + len > about_bytes {
                return Bytes::from(piece);
            }
            self.writer.append(&shown(record), &mut piece);
            self.written += 1;
        }
        piece.append(&mut self.rest);
        Bytes::from(piece)
    }
}

/// What a record takes in Base64 with a plain key and the names of its members, about.
fn about_len(record: &ReadRecord) -> usize {
    record.data().len().div_ceil(3) * 4 + record.key_bytes().len() + RECORD_MEMBERS_BYTES
}

impl fmt::Debug for Unencoded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unencoded")
            .field("encoding", &self.encoding)
            .finish_non_exhaustive()
    }
}

/// What an operation answers with.
pub(super) trait Output: Send {
    /// The body.
    fn encode(self: Box<Self>, encoding: Encoding) -> Result<Encoded, ApiError>;

    /// Bytes that the body will have at most, about.
    fn max_bytes(&self) -> usize;

    /// Whether the body is made as it is sent.
    fn is_piecewise(&self) -> bool {
        false
    }
}

/// An output that is still to be encoded.
pub(super) fn answer<T: Output + 'static>(
    result: Result<T, ApiError>,
) -> Result<Box<dyn Output>, ApiError> {
    Ok(Box::new(result?))
}

pub(super) fn encode<T: Serialize>(output: &T, encoding: Encoding) -> Result<Vec<u8>, ApiError> {
    encoding.encode(output).map_err(unencodable)
}

fn unencodable(error: impl fmt::Display) -> ApiError {
    tracing::error!(%error, "an answer could not be encoded");
    ApiError::internal()
}

impl Output for Empty {
    fn encode(self: Box<Self>, _: Encoding) -> Result<Encoded, ApiError> {
        Ok(Encoded::whole(Bytes::new()))
    }

    fn max_bytes(&self) -> usize {
        0
    }
}

impl Output for shapes::PutRecordsResponse {
    fn encode(self: Box<Self>, encoding: Encoding) -> Result<Encoded, ApiError> {
        let bytes = shapes::PutRecordsResponse::encode(&self, encoding);
        bytes.map(Encoded::whole).map_err(unencodable)
    }

    fn max_bytes(&self) -> usize {
        of_items(self.records.len())
    }
}

impl Output for Vec<u8> {
    fn encode(self: Box<Self>, _: Encoding) -> Result<Encoded, ApiError> {
        Ok(Encoded::whole(*self))
    }

    fn max_bytes(&self) -> usize {
        self.len()
    }
}

/// What surrounds the items of an answer, and an item without its own texts.
const HEAD_MAX_BYTES: usize = 4_096;
const ITEM_MAX_BYTES: usize = 512;
/// The names of a record's members, its sequence number and its time.
const RECORD_MEMBERS_BYTES: usize = 200;
/// Room in a piece for what is written behind its last record.
const PIECE_MARGIN_BYTES: usize = 1_024;

pub(super) fn of_items(count: usize) -> usize {
    HEAD_MAX_BYTES + count * ITEM_MAX_BYTES
}

/// Base64 of the data, a key whose characters may all be escaped, and the rest of a record.
pub(super) fn of_records(records: &[ReadRecord]) -> usize {
    let texts = records
        .iter()
        .map(|record| record.data().len().div_ceil(3) * 4 + 6 * record.key_bytes().len());
    of_items(records.len()) + texts.sum::<usize>()
}

macro_rules! outputs {
    ($($output:ident: $max_bytes:expr,)+) => {
        $(impl Output for shapes::$output {
            fn encode(self: Box<Self>, encoding: Encoding) -> Result<Encoded, ApiError> {
                encode(&*self, encoding).map(Encoded::whole)
            }

            fn max_bytes(&self) -> usize {
                let max_bytes: fn(&Self) -> usize = $max_bytes;
                max_bytes(self)
            }
        })+
    };
}

outputs! {
    AccountSettingsResponse: |_| HEAD_MAX_BYTES,
    DescribeLimitsResponse: |_| HEAD_MAX_BYTES,
    DescribeStreamConsumerResponse: |_| HEAD_MAX_BYTES,
    DescribeStreamResponse: |response| of_items(response.stream_description.shards.len()),
    DescribeStreamSummaryResponse: |_| HEAD_MAX_BYTES,
    EnhancedMonitoringResponse: |_| HEAD_MAX_BYTES,
    GetResourcePolicyResponse: |response| HEAD_MAX_BYTES + 6 * response.policy.len(),
    GetShardIteratorResponse: |_| HEAD_MAX_BYTES,
    ListShardsResponse: |response| of_items(response.shards.len()),
    ListStreamConsumersResponse: |response| of_items(response.consumers.len()),
    ListStreamsResponse: |response| of_items(2 * response.stream_names.len()),
    ListTagsForResourceResponse: |response| of_items(5 * response.tags.len()),
    ListTagsForStreamResponse: |response| of_items(5 * response.tags.len()),
    PutRecordResponse: |_| HEAD_MAX_BYTES,
    RegisterStreamConsumerResponse: |_| HEAD_MAX_BYTES,
    UpdateShardCountResponse: |_| HEAD_MAX_BYTES,
    UpdateStreamWarmThroughputResponse: |_| HEAD_MAX_BYTES,
}
