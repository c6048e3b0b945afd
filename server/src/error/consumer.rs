//! What can fail with consumers and subscriptions, as AWS says it.

use crate::engine::ConsumerError;
use crate::error::settings::limit_exceeded;
use crate::error::{ApiError, Named};
use millstream_wire::shapes::ShardIteratorType;
use millstream_wire::{ConsumerArn, ConsumerName, ErrorCode, ShardId};

impl ApiError {
    /// The stream has no such consumer. The text is ours: AWS's is not recorded.
    pub fn consumer_not_found(name: &ConsumerName, named: Named<'_>) -> ApiError {
        ApiError::not_found(format!("Consumer {name} in {named} not found."))
    }

    /// The stream has a consumer of that name. The text is ours: AWS's is not recorded.
    pub fn consumer_exists(name: &ConsumerName, named: Named<'_>) -> ApiError {
        ApiError::new(
            ErrorCode::ResourceInUse,
            format!("Consumer {name} in {named} already exists."),
        )
    }

    /// The consumer must be `ACTIVE` for this. Source: an error of AWS in a public issue
    /// (cloudformation-coverage-roadmap 2442).
    pub fn consumer_not_active(consumer: &ConsumerArn) -> ApiError {
        ApiError::new(
            ErrorCode::ResourceInUse,
            format!(
                "Consumer {} with creation timestamp {} under stream {} and account {} is not in \
                 ACTIVE status.",
                consumer.name,
                consumer.created_seconds,
                consumer.stream.name,
                consumer.stream.account
            ),
        )
    }

    /// The stream's consumers keep it. Source: errors of AWS in public issues
    /// (terraform-provider-aws 8420, aws-nuke 497).
    pub fn stream_has_consumers(named: Named<'_>) -> ApiError {
        let Named { stream, account } = named;
        ApiError::new(
            ErrorCode::ResourceInUse,
            format!(
                "DeleteStream can't delete {account}:{stream} because there are consumers associated \
                 with this data stream. To delete {stream} anyway, set the EnforceConsumerDeletion \
                 parameter to true to force the deletion of all the consumers that are associated \
                 with it."
            ),
        )
    }

    /// The stream would have too many consumers. The text is ours: AWS's is not recorded.
    pub fn too_many_consumers(limit: usize, named: Named<'_>) -> ApiError {
        limit_exceeded(format!(
            "No more than {limit} consumers can be registered with {named}."
        ))
    }

    /// The stream has too many consumers in `CREATING`. The text is ours: AWS's is not recorded.
    pub fn too_many_creating(limit: usize, named: Named<'_>) -> ApiError {
        limit_exceeded(format!(
            "No more than {limit} consumers of {named} can be in status CREATING at the same time."
        ))
    }

    /// The consumer has another subscription to the shard. Source: an error of AWS in a public issue
    /// (amazon-kinesis-client 391).
    pub fn subscription_exists(consumer: &ConsumerArn, shard: ShardId) -> ApiError {
        let ConsumerArn { stream, name, .. } = consumer;
        ApiError::new(
            ErrorCode::ResourceInUse,
            format!(
                "Another active subscription exists for this consumer: {}:{}:{shard}:{name}",
                stream.account, stream.name
            ),
        )
    }

    /// The consumer subscribes to the shard more than once a second. The text is ours.
    pub fn subscribes_too_fast(consumer: &ConsumerArn, shard: ShardId) -> ApiError {
        limit_exceeded(format!(
            "Rate exceeded for SubscribeToShard of consumer {} to shard {shard} in {}.",
            consumer.name,
            Named::from(&consumer.stream)
        ))
    }

    /// Neither the consumer's ARN nor its stream and name were given. The text is ours.
    pub fn consumer_not_named() -> ApiError {
        ApiError::invalid(
            "Either ConsumerARN or both StreamARN and ConsumerName should be provided.",
        )
    }

    /// ARN and name name different consumers. The text is ours: AWS's is not recorded.
    pub fn consumer_named_twice() -> ApiError {
        ApiError::invalid("ConsumerARN, StreamARN and ConsumerName must name the same consumer.")
    }

    /// A subscription's kind of position needs a member and does not have it. The text is ours.
    pub fn position_needs(member: &str, kind: &ShardIteratorType) -> ApiError {
        ApiError::invalid(format!("StartingPosition of type {kind} needs a {member}."))
    }

    /// `ListStreamConsumers` with a creation time and a token. The text is ours.
    pub fn list_consumers_token_and_time() -> ApiError {
        ApiError::invalid("NextToken and StreamCreationTimestamp cannot be provided together.")
    }
}

impl From<ConsumerError> for ApiError {
    fn from(error: ConsumerError) -> Self {
        match error {
            ConsumerError::NotFound { stream, name } => {
                ApiError::consumer_not_found(&name, Named::from(&stream))
            }
            ConsumerError::Exists { stream, name } => {
                ApiError::consumer_exists(&name, Named::from(&stream))
            }
            ConsumerError::NotActive { consumer, .. } => ApiError::consumer_not_active(&consumer),
            ConsumerError::Limit { stream, limit } => {
                ApiError::too_many_consumers(limit, Named::from(&stream))
            }
            ConsumerError::Creating { stream, limit } => {
                ApiError::too_many_creating(limit, Named::from(&stream))
            }
            ConsumerError::KeepStream(arn) => ApiError::stream_has_consumers(Named::from(&arn)),
            ConsumerError::Subscribed { consumer, shard } => {
                ApiError::subscription_exists(&consumer, shard)
            }
            ConsumerError::SubscribesTooFast { consumer, shard } => {
                ApiError::subscribes_too_fast(&consumer, shard)
            }
        }
    }
}
