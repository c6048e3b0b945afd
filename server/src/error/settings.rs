//! Texts about settings of streams, resources and accounts, and about calls that come too fast. Sources: moto
//! and a fork of kinesalite for those on UpdateShardCount; public issues on AWS for the rate of calls on a
//! stream (amazon-kinesis-client 185); the others are ours, because AWS's are not recorded.

use super::{ApiError, Named};
use crate::engine::{RateError, SettingError, ShardBound};
use millstream_wire::limits::{POLICY_MAX_BYTES, WARM_THROUGHPUT_MAX_MIBPS};
use millstream_wire::{AccountId, ErrorCode, Operation};

impl ApiError {
    /// A member that is required in this state of the stream is not given.
    pub fn member_missing(path: &str) -> ApiError {
        ApiError::new(
            ErrorCode::Validation,
            format!(
                "1 validation error detected: Value null at '{path}' failed to satisfy constraint: \
                 Member must not be null"
            ),
        )
    }

    /// The key is none that AWS would take.
    pub fn bad_key_id(key_id: &str) -> ApiError {
        let key_id: String = key_id.chars().take(256).collect();
        ApiError::invalid(format!(
            "KeyId {key_id} is invalid: give the id or ARN of a key, or the name or ARN of an alias."
        ))
    }

    /// Encryption starts and stops with KMS only.
    pub fn encryption_type_not_kms() -> ApiError {
        ApiError::invalid("EncryptionType must be KMS.")
    }

    /// The policy is no JSON object with statements.
    pub fn bad_policy() -> ApiError {
        ApiError::invalid("Policy is invalid: it must be a JSON object with a Statement.")
    }

    /// The policy is longer than it may be.
    pub fn policy_too_long(bytes: usize) -> ApiError {
        ApiError::invalid(format!(
            "Policy is invalid: it has {bytes} bytes, and {POLICY_MAX_BYTES} is the most."
        ))
    }

    /// The ARN names something that does not exist.
    pub fn resource_not_found(arn: &str) -> ApiError {
        let arn: String = arn.chars().take(2_048).collect();
        ApiError::not_found(format!("Resource {arn} not found."))
    }

    /// The ARN is none of a stream, consumer, channel or queue.
    pub fn bad_resource_arn(arn: &str) -> ApiError {
        let arn: String = arn.chars().take(2_048).collect();
        ApiError::invalid(format!("ResourceARN {arn} is invalid."))
    }

    /// The operation is known and not offered.
    pub fn not_supported(operation: Operation) -> ApiError {
        ApiError::invalid(format!("{operation} is not supported by this server."))
    }

    /// The account has too many streams that are being created or deleted. Source: an error of AWS in a
    /// public issue (terraform-provider-aws 1339), its two spaces included.
    pub fn too_many_coming_and_going(account: &AccountId, limit: usize) -> ApiError {
        limit_exceeded(format!(
            "This request would have exceed the limit on the number  of streams that can \
             simultaneously be in CREATING or DELETING for the account {account}. Limit: {limit}."
        ))
    }

    pub(super) fn of_setting(refused: &SettingError, named: Named<'_>) -> ApiError {
        match refused {
            SettingError::OnDemand => ApiError::new(
                ErrorCode::Validation,
                format!(
                    "Request is invalid. Stream {} under account {} is in On-Demand mode.",
                    named.stream, named.account
                ),
            ),
            SettingError::NotOnDemand(what) => ApiError::invalid(format!(
                "{what} can be set for streams in ON_DEMAND mode only; {named} is in PROVISIONED mode."
            )),
            SettingError::NoCommitment => ApiError::invalid(format!(
                "Warm throughput needs MinimumThroughputBillingCommitment to be enabled for account \
                 {}. Use UpdateAccountSettings.",
                named.account
            )),
            SettingError::TooWarm(mibps) => limit_exceeded(format!(
                "WarmThroughputMiBps {mibps} for {named} exceeds the limit of \
                 {WARM_THROUGHPUT_MAX_MIBPS}."
            )),
            // Source: an error of AWS in a public issue (terraform-provider-aws 38094).
            SettingError::OnDemandStreams {
                region,
                current,
                limit,
            } => limit_exceeded(format!(
                "This request would exceed the limit on the number of On-Demand streams for the account \
                 {} in {region}. Current On-Demand streams count: {current}. Limit: {limit}.",
                named.account
            )),
            SettingError::ShardTarget {
                current,
                target,
                bound,
            } => shard_target(*current, *target, *bound),
            SettingError::TooOften { what, times } => limit_exceeded(format!(
                "{what} cannot be called more than {times} times in a rolling 24-hour period for {named}."
            )),
        }
    }
}

impl From<RateError> for ApiError {
    fn from(error: RateError) -> Self {
        limit_exceeded(match error {
            RateError::Account { operation, account } => {
                format!("Rate exceeded for {operation} under account {account}.")
            }
            RateError::Stream(arn) => format!("Rate exceeded for {}.", Named::from(&arn)),
        })
    }
}

pub(super) fn limit_exceeded(message: String) -> ApiError {
    ApiError::new(ErrorCode::LimitExceeded, message)
}

fn shard_target(current: usize, target: usize, bound: ShardBound) -> ApiError {
    let rule = match bound {
        ShardBound::AtMost(limit) => {
            format!("Target shard count or number of open shards cannot be greater than {limit}.")
        }
        ShardBound::Double => {
            "UpdateShardCount cannot scale up over double your current open shard count.".to_owned()
        }
        ShardBound::Half => {
            "UpdateShardCount cannot scale down below half your current open shard count."
                .to_owned()
        }
    };
    limit_exceeded(format!(
        "{rule} Current open shard count: {current}, Target shard count: {target}"
    ))
}
