//! What is attached to a resource that is named by its ARN: tags and policies.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use super::constraint::{POLICY, RESOURCE_ARN, STREAM_ID, TAG_KEYS, TAG_MAP};
use super::lenient;
use super::tags::{KEEP_KEYS, KEEP_TAGS, Tag};

shape! {
    /// Adds tags, or gives existing ones another value.
    TagResourceRequest {
        /// The tags.
        #[serde(deserialize_with = "lenient::map::<_, KEEP_TAGS>")]
        tags: BTreeMap<String, String> = "Tags", required TAG_MAP;
        /// The resource.
        resource_arn: String = "ResourceARN", required RESOURCE_ARN;
        /// Reserved by AWS.
        stream_id: String = "StreamId", optional STREAM_ID;
    }
}

shape! {
    /// Removes tags.
    UntagResourceRequest {
        /// Their keys.
        #[serde(deserialize_with = "lenient::list::<_, _, KEEP_KEYS>")]
        tag_keys: Vec<String> = "TagKeys", required TAG_KEYS;
        /// The resource.
        resource_arn: String = "ResourceARN", required RESOURCE_ARN;
        /// Reserved by AWS.
        stream_id: String = "StreamId", optional STREAM_ID;
    }
}

shape! {
    /// Lists all tags of a resource.
    ListTagsForResourceRequest {
        /// The resource.
        resource_arn: String = "ResourceARN", required RESOURCE_ARN;
        /// Reserved by AWS.
        stream_id: String = "StreamId", optional STREAM_ID;
    }
}

/// All tags of a resource.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListTagsForResourceResponse {
    /// The tags, by key.
    #[serde(default)]
    pub tags: Vec<Tag>,
}

shape! {
    /// Attaches a policy to a resource.
    PutResourcePolicyRequest {
        /// The resource.
        resource_arn: String = "ResourceARN", required RESOURCE_ARN;
        /// Reserved by AWS.
        stream_id: String = "StreamId", optional STREAM_ID;
        /// The policy, as JSON.
        policy: String = "Policy", required POLICY;
    }
}

shape! {
    /// Asks for a resource's policy.
    GetResourcePolicyRequest {
        /// The resource.
        resource_arn: String = "ResourceARN", required RESOURCE_ARN;
        /// Reserved by AWS.
        stream_id: String = "StreamId", optional STREAM_ID;
    }
}

/// A resource's policy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct GetResourcePolicyResponse {
    /// The policy, as JSON; an empty object where there is none.
    pub policy: String,
}

shape! {
    /// Removes a resource's policy.
    DeleteResourcePolicyRequest {
        /// The resource.
        resource_arn: String = "ResourceARN", required RESOURCE_ARN;
        /// Reserved by AWS.
        stream_id: String = "StreamId", optional STREAM_ID;
    }
}
