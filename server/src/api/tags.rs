//! AddTagsToStream, RemoveTagsFromStream and ListTagsForStream.

use crate::api::{Caller, stream_arn};
use crate::engine::Engine;
use crate::error::ApiError;
use millstream_wire::limits::TAGS_PER_STREAM;
use millstream_wire::shapes::{
    AddTagsToStreamRequest, Empty, ListTagsForStreamRequest, ListTagsForStreamResponse,
    RemoveTagsFromStreamRequest, Tag,
};
use std::collections::BTreeMap;

pub(super) async fn add_tags(
    engine: &Engine,
    caller: &Caller,
    request: AddTagsToStreamRequest,
) -> Result<Empty, ApiError> {
    let arn = stream_arn(
        caller,
        request.stream_name.as_deref(),
        request.stream_arn.as_deref(),
    )?;
    engine
        .change_tags(&arn, request.tags.unwrap_or_default(), Vec::new())
        .await?;
    Ok(Empty {})
}

pub(super) async fn remove_tags(
    engine: &Engine,
    caller: &Caller,
    request: RemoveTagsFromStreamRequest,
) -> Result<Empty, ApiError> {
    let arn = stream_arn(
        caller,
        request.stream_name.as_deref(),
        request.stream_arn.as_deref(),
    )?;
    engine
        .change_tags(&arn, BTreeMap::new(), request.tag_keys.unwrap_or_default())
        .await?;
    Ok(Empty {})
}

pub(super) fn list_tags(
    engine: &Engine,
    caller: &Caller,
    request: &ListTagsForStreamRequest,
) -> Result<ListTagsForStreamResponse, ApiError> {
    let arn = stream_arn(
        caller,
        request.stream_name.as_deref(),
        request.stream_arn.as_deref(),
    )?;
    let stream = engine.stream(&arn)?;
    let limit = request.limit.and_then(|limit| usize::try_from(limit).ok());
    let start = request.exclusive_start_tag_key.as_deref();
    let mut after = stream
        .tags
        .iter()
        .filter(|(key, _)| start.is_none_or(|s| key.as_str() > s));
    let page = after.by_ref().take(limit.unwrap_or(TAGS_PER_STREAM));
    let tags = page.map(|(key, value)| Tag {
        key: key.clone(),
        value: Some(value.clone()),
    });
    let tags = tags.collect();
    Ok(ListTagsForStreamResponse {
        tags,
        has_more_tags: after.next().is_some(),
    })
}
