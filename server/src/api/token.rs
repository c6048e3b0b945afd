//! Page tokens: what the next page needs, as Base64 of JSON. They only choose what to list, so they are
//! not secret; a changed one lists something else or is refused.

use crate::api::shard::Filter;
use crate::error::ApiError;
use millstream_wire::Encoding;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The next page of ListShards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListShardsToken {
    /// The stream.
    pub(super) arn: String,
    /// The last shard of the page before.
    pub(super) after: Option<u32>,
    /// Which shards.
    pub(super) filter: Filter,
    /// When the token was made, milliseconds since 1970.
    pub(super) minted_ms: u64,
}

/// The next page of ListStreamConsumers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListConsumersToken {
    /// The stream.
    pub(super) arn: String,
    /// The last consumer of the page before.
    pub(super) after_consumer: String,
    /// When the token was made, milliseconds since 1970.
    pub(super) minted_ms: u64,
}

/// The next page of ListStreams.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListStreamsToken {
    /// The last stream of the page before.
    pub(super) after_stream: String,
    /// When the token was made, milliseconds since 1970.
    pub(super) minted_ms: u64,
}

/// Refuses a token that is older than its time to live.
pub(super) fn check_age(minted_ms: u64, ttl_seconds: u64, now_ms: u64) -> Result<(), ApiError> {
    let expires_ms = minted_ms.saturating_add(ttl_seconds.saturating_mul(1_000));
    if now_ms > expires_ms {
        return Err(ApiError::expired_next_token());
    }
    Ok(())
}

pub(super) fn encode<T: Serialize>(token: &T) -> Result<String, ApiError> {
    let json = crate::api::encode(token, Encoding::Json)?;
    Ok(base64_simd::STANDARD.encode_to_string(&json))
}

pub(super) fn decode<T: DeserializeOwned>(text: &str) -> Option<T> {
    let json = base64_simd::STANDARD.decode_to_vec(text).ok()?;
    serde_json::from_slice(&json).ok()
}
