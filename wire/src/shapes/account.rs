//! Limits and settings of an account.

use serde::{Deserialize, Serialize};

use super::constraint::{COMMITMENT_STATUS, Constraint};
use super::lenient;
use super::validate::Declared;
use super::value::Timestamp;

static COMMITMENT: Constraint = Constraint::structure(CommitmentInput::MEMBERS);

shape! {
    /// Asks for an account's limits.
    DescribeLimitsRequest {}
}

/// Limits, and how much of them is used.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DescribeLimitsResponse {
    /// Open shards there may be.
    pub shard_limit: u32,
    /// Open shards.
    pub open_shard_count: u32,
    /// On-demand streams.
    pub on_demand_stream_count: u32,
    /// On-demand streams there may be.
    pub on_demand_stream_count_limit: u32,
    /// Channels.
    pub channel_count: u32,
    /// Channels there may be.
    pub channel_count_limit: u32,
}

shape! {
    /// Asks for an account's settings.
    DescribeAccountSettingsRequest {}
}

shape! {
    /// Changes an account's settings.
    UpdateAccountSettingsRequest {
        /// Whether the account commits itself to a least throughput, which unlocks warm throughput.
        #[serde(deserialize_with = "lenient::structure")]
        minimum_throughput_billing_commitment: CommitmentInput =
            "MinimumThroughputBillingCommitment", required COMMITMENT;
    }
}

shape! {
    /// A commitment as it is asked for.
    CommitmentInput {
        /// `ENABLED` or `DISABLED`.
        status: String = "Status", required COMMITMENT_STATUS;
    }
}

/// An account's settings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct AccountSettingsResponse {
    /// The commitment.
    pub minimum_throughput_billing_commitment: Commitment,
}

/// A commitment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Commitment {
    /// `ENABLED`, `DISABLED`, or `ENABLED_UNTIL_EARLIEST_ALLOWED_END`.
    pub status: String,
    /// When it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// When it may end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub earliest_allowed_end_at: Option<Timestamp>,
}
