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
    check_added(&tags, named(arn))?;
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
    check_texts(keys.iter(), TagChange::Remove, named(arn))?;
    engine.change_tags(arn, BTreeMap::new(), keys).await?;
    Ok(Empty {})
}

/// Whether a stream may be given these tags.
pub(super) fn check_added(
    tags: &BTreeMap<String, String>,
    named: Named<'_>,
) -> Result<(), ApiError> {
    check_texts(tags.keys().chain(tags.values()), TagChange::Add, named)?;
    if tags.keys().any(|key| key.starts_with("aws:")) {
        return Err(ApiError::tag_reserved(named));
    }
    Ok(())
}

/// Whether keys and values hold nothing but what a tag may hold.
pub(super) fn check_texts<'t>(
    mut texts: impl Iterator<Item = &'t String> + Clone,
    change: TagChange,
    named: Named<'_>,
) -> Result<(), ApiError> {
    // The ranges are kinesalite's, whose author tried them on AWS.
    let is_allowed = |c: char| {
        c.is_ascii_alphanumeric()
            || "_./-=+ @%:".contains(c)
            || matches!(c, '\u{c0}'..='\u{1fff}' | '\u{2c00}'..='\u{d7ff}')
    };
    if !texts.clone().all(|text| text.chars().all(is_allowed)) {
        return Err(ApiError::tag_characters());
    }
    // Allowed by the first message, refused by the second: so does AWS.
    if texts.any(|text| text.contains('%')) {
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
