//! Tags and policies of a resource that is named by its ARN.

use crate::api::tags;
use crate::engine::Engine;
use crate::error::ApiError;
use millstream_wire::StreamArn;
use millstream_wire::limits::POLICY_MAX_BYTES;
use millstream_wire::shapes::{
    DeleteResourcePolicyRequest, Empty, GetResourcePolicyRequest, GetResourcePolicyResponse,
    ListTagsForResourceRequest, ListTagsForResourceResponse, PutResourcePolicyRequest, Tag,
    TagResourceRequest, UntagResourceRequest,
};

/// What an ARN names, of what there is here.
#[derive(Debug)]
enum Resource {
    /// A stream, which may or may not exist.
    Stream(StreamArn),
}

/// The resource of an ARN. Consumers are to become a variant of their own; there are none to be found yet.
fn resource(arn: Option<&str>) -> Result<Resource, ApiError> {
    let arn = arn.unwrap_or_default();
    if let Ok(stream) = arn.parse() {
        return Ok(Resource::Stream(stream));
    }
    let kinds = [":channel/", ":queue/", "/consumer/"];
    if kinds.iter().any(|kind| arn.contains(kind)) {
        return Err(ApiError::resource_not_found(arn));
    }
    Err(ApiError::bad_resource_arn(arn))
}

pub(super) async fn tag(engine: &Engine, request: TagResourceRequest) -> Result<Empty, ApiError> {
    let Resource::Stream(arn) = resource(request.resource_arn.as_deref())?;
    tags::set(engine, &arn, request.tags.unwrap_or_default()).await
}

pub(super) async fn untag(
    engine: &Engine,
    request: UntagResourceRequest,
) -> Result<Empty, ApiError> {
    let Resource::Stream(arn) = resource(request.resource_arn.as_deref())?;
    tags::unset(engine, &arn, request.tag_keys.unwrap_or_default()).await
}

pub(super) fn list_tags(
    engine: &Engine,
    request: &ListTagsForResourceRequest,
) -> Result<ListTagsForResourceResponse, ApiError> {
    let Resource::Stream(arn) = resource(request.resource_arn.as_deref())?;
    let stream = engine.stream(&arn)?;
    let tags = stream.tags.iter().map(|(key, value)| Tag {
        key: key.clone(),
        value: Some(value.clone()),
    });
    Ok(ListTagsForResourceResponse {
        tags: tags.collect(),
    })
}

pub(super) async fn put_policy(
    engine: &Engine,
    request: PutResourcePolicyRequest,
) -> Result<Empty, ApiError> {
    let Resource::Stream(arn) = resource(request.resource_arn.as_deref())?;
    engine.stream(&arn)?;
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
    engine.set_policy(&arn, Some(policy)).await?;
    Ok(Empty {})
}

pub(super) fn get_policy(
    engine: &Engine,
    request: &GetResourcePolicyRequest,
) -> Result<GetResourcePolicyResponse, ApiError> {
    let Resource::Stream(arn) = resource(request.resource_arn.as_deref())?;
    let policy = engine.stream(&arn)?.options.policy.clone();
    // Recorded on AWS: no policy is an empty one.
    let policy = policy.unwrap_or_else(|| "{}".to_owned());
    Ok(GetResourcePolicyResponse { policy })
}

pub(super) async fn delete_policy(
    engine: &Engine,
    request: DeleteResourcePolicyRequest,
) -> Result<Empty, ApiError> {
    let Resource::Stream(arn) = resource(request.resource_arn.as_deref())?;
    engine.set_policy(&arn, None).await?;
    Ok(Empty {})
}
