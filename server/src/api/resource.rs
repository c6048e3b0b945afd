//! Tags and policies of a resource that is named by its ARN.

use crate::api::tags;
use crate::engine::Engine;
use crate::error::ApiError;
use crate::error::{Named, TagChange};
use millstream_wire::limits::POLICY_MAX_BYTES;
use millstream_wire::shapes::{
    DeleteResourcePolicyRequest, Empty, GetResourcePolicyRequest, GetResourcePolicyResponse,
    ListTagsForResourceRequest, ListTagsForResourceResponse, PutResourcePolicyRequest, Tag,
    TagResourceRequest, UntagResourceRequest,
};
use millstream_wire::{ConsumerArn, StreamArn};
use std::collections::BTreeMap;

/// What an ARN names, of what there is here.
#[derive(Debug)]
enum Resource {
    /// A stream, which may or may not exist.
    Stream(StreamArn),
    /// A registered consumer, likewise.
    Consumer(ConsumerArn),
}

/// The resource of an ARN.
fn resource(arn: Option<&str>) -> Result<Resource, ApiError> {
    let arn = arn.unwrap_or_default();
    if let Ok(stream) = arn.parse() {
        return Ok(Resource::Stream(stream));
    }
    if let Ok(consumer) = arn.parse() {
        return Ok(Resource::Consumer(consumer));
    }
    // A consumer's ARN that is not quite one names nothing either.
    let kinds = [":channel/", ":queue/", "/consumer/"];
    if kinds.iter().any(|kind| arn.contains(kind)) {
        return Err(ApiError::resource_not_found(arn));
    }
    Err(ApiError::bad_resource_arn(arn))
}

pub(super) async fn tag(engine: &Engine, request: TagResourceRequest) -> Result<Empty, ApiError> {
    let added = request.tags.unwrap_or_default();
    match resource(request.resource_arn.as_deref())? {
        Resource::Stream(arn) => tags::set(engine, &arn, added).await,
        Resource::Consumer(arn) => {
            engine.consumer_of(&arn)?;
            tags::check_added(&added, Named::from(&arn.stream))?;
            engine.change_consumer_tags(&arn, added, &[]).await?;
            Ok(Empty {})
        }
    }
}

pub(super) async fn untag(
    engine: &Engine,
    request: UntagResourceRequest,
) -> Result<Empty, ApiError> {
    let keys = request.tag_keys.unwrap_or_default();
    match resource(request.resource_arn.as_deref())? {
        Resource::Stream(arn) => tags::unset(engine, &arn, keys).await,
        Resource::Consumer(arn) => {
            engine.consumer_of(&arn)?;
            tags::check_texts(keys.iter(), TagChange::Remove, Named::from(&arn.stream))?;
            let none = BTreeMap::new();
            engine.change_consumer_tags(&arn, none, &keys).await?;
            Ok(Empty {})
        }
    }
}

pub(super) fn list_tags(
    engine: &Engine,
    request: &ListTagsForResourceRequest,
) -> Result<ListTagsForResourceResponse, ApiError> {
    let tags = match resource(request.resource_arn.as_deref())? {
        Resource::Stream(arn) => engine.stream(&arn)?.tags.clone(),
        Resource::Consumer(arn) => engine.consumer_of(&arn)?.tags,
    };
    let tags = tags.into_iter().map(|(key, value)| Tag {
        key,
        value: Some(value),
    });
    Ok(ListTagsForResourceResponse {
        tags: tags.collect(),
    })
}

pub(super) async fn put_policy(
    engine: &Engine,
    request: PutResourcePolicyRequest,
) -> Result<Empty, ApiError> {
    let resource = resource(request.resource_arn.as_deref())?;
    policy_of(engine, &resource)?;
    let policy = request.policy.unwrap_or_default();
    if policy.len() > POLICY_MAX_BYTES {
        return Err(ApiError::policy_too_long(policy.len()));
    }
    let parsed: Result<serde_json::Value, _> = serde_json::from_str(&policy);
    let statement = parsed.ok().and_then(|mut policy| {
        let statement = policy.get_mut("Statement")?.take();
        (statement.is_array() || statement.is_object()).then_some(())
    });
    statement.ok_or_else(ApiError::bad_policy)?;
    set_policy(engine, &resource, Some(policy)).await
}

pub(super) fn get_policy(
    engine: &Engine,
    request: &GetResourcePolicyRequest,
) -> Result<GetResourcePolicyResponse, ApiError> {
    let policy = policy_of(engine, &resource(request.resource_arn.as_deref())?)?;
    // Recorded on AWS: no policy is an empty one.
    let policy = policy.unwrap_or_else(|| "{}".to_owned());
    Ok(GetResourcePolicyResponse { policy })
}

pub(super) async fn delete_policy(
    engine: &Engine,
    request: DeleteResourcePolicyRequest,
) -> Result<Empty, ApiError> {
    let resource = resource(request.resource_arn.as_deref())?;
    set_policy(engine, &resource, None).await
}

fn policy_of(engine: &Engine, resource: &Resource) -> Result<Option<String>, ApiError> {
    Ok(match resource {
        Resource::Stream(arn) => engine.stream(arn)?.options.policy.clone(),
        Resource::Consumer(arn) => engine.consumer_of(arn)?.policy,
    })
}

async fn set_policy(
    engine: &Engine,
    resource: &Resource,
    policy: Option<String>,
) -> Result<Empty, ApiError> {
    match resource {
        Resource::Stream(arn) => engine.set_policy(arn, policy).await?,
        Resource::Consumer(arn) => engine.set_consumer_policy(arn, policy).await?,
    }
    Ok(Empty {})
}
