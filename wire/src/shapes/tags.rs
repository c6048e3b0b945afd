//! Tags of a stream.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use super::constraint::{
    LIST_TAGS_LIMIT, STREAM_ARN, STREAM_ID, STREAM_NAME, TAG_KEY, TAG_KEYS, TAG_MAP,
};
use super::lenient;
use crate::limits::{TAG_KEYS_MAX_COUNT, TAG_MAP_MAX_COUNT};

/// Keeps one tag more than is allowed: enough to refuse the request.
pub(super) const KEEP_TAGS: usize = TAG_MAP_MAX_COUNT + 1;
/// Keeps one key more than is allowed.
pub(super) const KEEP_KEYS: usize = TAG_KEYS_MAX_COUNT + 1;

shape! {
    /// Adds tags, or gives existing ones another value.
    AddTagsToStreamRequest {
        /// The tags.
        #[serde(deserialize_with = "lenient::map::<_, KEEP_TAGS>")]
        tags: BTreeMap<String, String> = "Tags", required TAG_MAP;
        /// The stream, by name.
        stream_name: String = "StreamName", optional STREAM_NAME;
        /// The stream, by ARN.
        stream_arn: String = "StreamARN", optional STREAM_ARN;
        /// Reserved by AWS.
        stream_id: String = "StreamId", optional STREAM_ID;
    }
}

shape! {
    /// Removes tags.
    RemoveTagsFromStreamRequest {
        /// Their keys.
        #[serde(deserialize_with = "lenient::list::<_, _, KEEP_KEYS>")]
        tag_keys: Vec<String> = "TagKeys", required TAG_KEYS;
        /// The stream, by name.
        stream_name: String = "StreamName", optional STREAM_NAME;
        /// The stream, by ARN.
        stream_arn: String = "StreamARN", optional STREAM_ARN;
        /// Reserved by AWS.
        stream_id: String = "StreamId", optional STREAM_ID;
    }
}

shape! {
    /// Lists tags by key, page by page.
    ListTagsForStreamRequest {
        /// How many at most.
        #[serde(deserialize_with = "lenient::integer")]
        limit: i64 = "Limit", optional LIST_TAGS_LIMIT;
        /// The key after which to begin.
        exclusive_start_tag_key: String = "ExclusiveStartTagKey", optional TAG_KEY;
        /// The stream, by name.
        stream_name: String = "StreamName", optional STREAM_NAME;
        /// The stream, by ARN.
        stream_arn: String = "StreamARN", optional STREAM_ARN;
        /// Reserved by AWS.
        stream_id: String = "StreamId", optional STREAM_ID;
    }
}

/// A page of tags.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListTagsForStreamResponse {
    /// The tags, by key.
    pub tags: Vec<Tag>,
    /// Whether there are more.
    pub has_more_tags: bool,
}

/// A tag.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Tag {
    /// Its key.
    pub key: String,
    /// Its value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}
