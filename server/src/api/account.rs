//! DescribeLimits, DescribeAccountSettings and UpdateAccountSettings.

use crate::api::Caller;
use crate::engine::Engine;
use crate::engine::options::{self, CommitmentStatus};
use crate::error::ApiError;
use millstream_wire::shapes::{
    AccountSettingsResponse, Commitment, DescribeAccountSettingsRequest, DescribeLimitsRequest,
    DescribeLimitsResponse, Timestamp, UpdateAccountSettingsRequest,
};

pub(super) fn describe_limits(
    engine: &Engine,
    caller: &Caller,
    _: &DescribeLimitsRequest,
) -> DescribeLimitsResponse {
    let limits = engine.account_limits(&caller.account, &caller.region);
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    DescribeLimitsResponse {
        shard_limit: count(limits.shard_limit),
        open_shard_count: count(limits.open_shards),
        on_demand_stream_count: count(limits.on_demand_streams),
        on_demand_stream_count_limit: count(limits.on_demand_limit),
        // There are none, and none can be created.
        channel_count: 0,
        channel_count_limit: 0,
    }
}

pub(super) fn describe_settings(
    engine: &Engine,
    caller: &Caller,
    _: &DescribeAccountSettingsRequest,
) -> AccountSettingsResponse {
    let commitment = engine.commitment(&caller.account, &caller.region);
    described(commitment, engine.now_ms())
}

pub(super) async fn update_settings(
    engine: &Engine,
    caller: &Caller,
    request: UpdateAccountSettingsRequest,
) -> Result<AccountSettingsResponse, ApiError> {
    let wanted = request.minimum_throughput_billing_commitment;
    let on = wanted.is_some_and(|wanted| wanted.status.as_deref() == Some("ENABLED"));
    let after = engine
        .switch_commitment(&caller.account, &caller.region, on)
        .await?;
    Ok(described(after, engine.now_ms()))
}

fn described(commitment: options::Commitment, now_ms: u64) -> AccountSettingsResponse {
    let status = commitment.status(now_ms);
    let time = |ms: Option<u64>| ms.map(Timestamp::from_millis);
    let ended = commitment
        .ended_ms
        .filter(|_| status == CommitmentStatus::Disabled);
    let earliest = commitment
        .earliest_end_ms()
        .filter(|_| status != CommitmentStatus::Disabled);
    let status = match status {
        CommitmentStatus::Enabled => "ENABLED",
        CommitmentStatus::Disabled => "DISABLED",
        CommitmentStatus::EnabledUntilEarliestEnd => "ENABLED_UNTIL_EARLIEST_ALLOWED_END",
    };
    AccountSettingsResponse {
        minimum_throughput_billing_commitment: Commitment {
            status: status.to_owned(),
            started_at: time(commitment.started_ms),
            ended_at: time(ended),
            earliest_allowed_end_at: time(earliest),
        },
    }
}
