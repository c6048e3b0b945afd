//! AddTagsToStream, RemoveTagsFromStream and ListTagsForStream.

use crate::api::{Caller, named, stream_arn};
use crate::engine::Engine;
use crate::error::{ApiError, Named, TagChange};
use millstream_wire::StreamArn;
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
    set(engine, &arn, request.tags.unwrap_or_default()).await
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
    unset(engine, &arn, request.tag_keys.unwrap_or_default()).await
}

/// Sets tags of a stream, once it is there and they hold nothing but what a tag may hold.
pub(super) async fn set(
    engine: &Engine,
    arn: &StreamArn,
    tags: BTreeMap<String, String>,
) -> Result<Empty, ApiError> {
    engine.stream(arn)?;
    let texts = tags.iter().flat_map(|(key, value)| [key, value]);
    check_characters(TagChange::Add, texts, named(arn))?;
    engine.change_tags(arn, tags, Vec::new()).await?;
    Ok(Empty {})
}

/// Removes tags of a stream, likewise.
pub(super) async fn unset(
    engine: &Engine,
    arn: &StreamArn,
    keys: Vec<String>,
) -> Result<Empty, ApiError> {
    engine.stream(arn)?;
    check_characters(TagChange::Remove, keys.iter(), named(arn))?;
    engine.change_tags(arn, BTreeMap::new(), keys).await?;
    Ok(Empty {})
}

/// Refuses tags with characters that AWS refuses; `%` it first allows and then refuses in other words.
pub(super) fn check_characters<'t>(
    change: TagChange,
    texts: impl Iterator<Item = &'t String> + Clone,
    named: Named<'_>,
) -> Result<(), ApiError> {
    let known = |c: char| {
        c.is_ascii_alphanumeric()
            || "./-=+_ @%:".contains(c)
            || ('\u{C0}'..='\u{1FFF}').contains(&c)
            || ('\u{2C00}'..='\u{D7FF}').contains(&c)
    };
    if !texts.clone().all(|text| text.chars().all(known)) {
        return Err(ApiError::tag_characters());
    }
    if texts.into_iter().any(|text| text.contains('%')) {
        return Err(ApiError::tag_percent(change, named));
    }
    Ok(())
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
