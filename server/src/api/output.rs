//! What operations answer with, and how it is encoded. The only writer of answers.
//!
//! An answer is encoded once it is known where it will go: encoded it is larger than the records it is made
//! of, and those are counted already.

use crate::error::ApiError;
use millstream_wire::Encoding;
use millstream_wire::shapes::{self, Empty};
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

    /// The body.
    ///
    /// # Errors
    /// An internal failure; no answer has one.
    pub fn encode(self) -> Result<Vec<u8>, ApiError> {
        self.output.encode(self.encoding)
    }
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
    fn encode(&self, encoding: Encoding) -> Result<Vec<u8>, ApiError>;

    /// Bytes that the body will have at most, about.
    fn max_bytes(&self) -> usize;
}

/// An output that is still to be encoded.
pub(super) fn answer<T: Output + 'static>(
    result: Result<T, ApiError>,
) -> Result<Box<dyn Output>, ApiError> {
    Ok(Box::new(result?))
}

pub(super) fn encode<T: Serialize>(output: &T, encoding: Encoding) -> Result<Vec<u8>, ApiError> {
    encoding.encode(output).map_err(|error| {
        tracing::error!(%error, "an answer could not be encoded");
        ApiError::internal()
    })
}

impl Output for Empty {
    fn encode(&self, _: Encoding) -> Result<Vec<u8>, ApiError> {
        Ok(Vec::new())
    }

    fn max_bytes(&self) -> usize {
        0
    }
}

impl Output for Vec<u8> {
    fn encode(&self, _: Encoding) -> Result<Vec<u8>, ApiError> {
        Ok(self.clone())
    }

    fn max_bytes(&self) -> usize {
        self.len()
    }
}

/// What surrounds the items of an answer, and an item without its own texts.
const HEAD_MAX_BYTES: usize = 4_096;
const ITEM_MAX_BYTES: usize = 512;

fn of_items(count: usize) -> usize {
    HEAD_MAX_BYTES + count * ITEM_MAX_BYTES
}

/// Base64 of the data, a key whose characters may all be escaped, and the rest of a record.
fn of_records(response: &shapes::GetRecordsResponse) -> usize {
    let records = response.records.iter();
    let texts =
        records.map(|record| record.data.len().div_ceil(3) * 4 + 6 * record.partition_key.len());
    let children = response.child_shards.as_ref().map_or(0, Vec::len);
    of_items(response.records.len() + children) + texts.sum::<usize>()
}

macro_rules! outputs {
    ($($output:ident: $max_bytes:expr,)+) => {
        $(impl Output for shapes::$output {
            fn encode(&self, encoding: Encoding) -> Result<Vec<u8>, ApiError> {
                encode(self, encoding)
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
    GetRecordsResponse: of_records,
    GetResourcePolicyResponse: |response| HEAD_MAX_BYTES + 6 * response.policy.len(),
    GetShardIteratorResponse: |_| HEAD_MAX_BYTES,
    ListShardsResponse: |response| of_items(response.shards.len()),
    ListStreamConsumersResponse: |response| of_items(response.consumers.len()),
    ListStreamsResponse: |response| of_items(2 * response.stream_names.len()),
    ListTagsForResourceResponse: |response| of_items(5 * response.tags.len()),
    ListTagsForStreamResponse: |response| of_items(5 * response.tags.len()),
    PutRecordResponse: |_| HEAD_MAX_BYTES,
    PutRecordsResponse: |response| of_items(response.records.len()),
    RegisterStreamConsumerResponse: |_| HEAD_MAX_BYTES,
    UpdateShardCountResponse: |_| HEAD_MAX_BYTES,
    UpdateStreamWarmThroughputResponse: |_| HEAD_MAX_BYTES,
}
