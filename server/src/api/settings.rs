//! Settings of a stream: shard count, mode, encryption, monitoring, record size, throughput.

use crate::api::{Caller, stream_arn};
use crate::engine::catalog::{self, Stream};
use crate::engine::options::{Distribution, Metric};
use crate::engine::{Engine, MetricsChange};
use crate::error::ApiError;
use millstream_wire::shapes::{
    DisableEnhancedMonitoringRequest, Empty, EnableEnhancedMonitoringRequest, EncryptionType,
    EnhancedMonitoringResponse, RecordDistributionStrategy, StartStreamEncryptionRequest,
    StopStreamEncryptionRequest, StreamMode, UpdateMaxRecordSizeRequest, UpdateShardCountRequest,
    UpdateShardCountResponse, UpdateStreamModeRequest,
    UpdateStreamRecordDistributionStrategyRequest, UpdateStreamWarmThroughputRequest,
    UpdateStreamWarmThroughputResponse, WarmThroughput,
};
use millstream_wire::{Operation, StreamArn};
use std::collections::BTreeSet;
use std::num::NonZeroU32;

pub(super) async fn update_shard_count(
    engine: &Engine,
    caller: &Caller,
    request: UpdateShardCountRequest,
) -> Result<UpdateShardCountResponse, ApiError> {
    let arn = stream_arn(
        caller,
        request.stream_name.as_deref(),
        request.stream_arn.as_deref(),
    )?;
    // A number that does not fit is over every limit.
    let target = u32::try_from(request.target_shard_count.unwrap_or_default());
    let target = NonZeroU32::new(target.unwrap_or(u32::MAX)).unwrap_or(NonZeroU32::MIN);
    let before = engine.update_shard_count(&arn, target).await?;
    Ok(UpdateShardCountResponse {
        stream_name: arn.name.to_string(),
        current_shard_count: u32::try_from(before).unwrap_or(u32::MAX),
        target_shard_count: target.get(),
        stream_arn: arn.to_string(),
    })
}

pub(super) async fn update_mode(
    engine: &Engine,
    caller: &Caller,
    request: UpdateStreamModeRequest,
) -> Result<Empty, ApiError> {
    let arn = stream_arn(caller, None, request.stream_arn.as_deref())?;
    let details = request.stream_mode_details;
    let mode = match details.and_then(|details| details.stream_mode) {
        Some(StreamMode::OnDemand) => catalog::StreamMode::OnDemand,
        // Validation allows the two only.
        _ => catalog::StreamMode::Provisioned,
    };
    let warm = request.warm_throughput_mibps.map(mibps);
    engine.set_mode(&arn, mode, warm).await?;
    Ok(Empty {})
}

pub(super) async fn update_warm_throughput(
    engine: &Engine,
    caller: &Caller,
    request: UpdateStreamWarmThroughputRequest,
) -> Result<UpdateStreamWarmThroughputResponse, ApiError> {
    let arn = stream_arn(
        caller,
        request.stream_name.as_deref(),
        request.stream_arn.as_deref(),
    )?;
    let wanted = mibps(request.warm_throughput_mibps.unwrap_or_default());
    let warm = engine.set_warm_throughput(&arn, wanted).await?;
    Ok(UpdateStreamWarmThroughputResponse {
        stream_arn: arn.to_string(),
        stream_name: arn.name.to_string(),
        warm_throughput: WarmThroughput {
            target_mibps: Some(warm.target_mibps),
            current_mibps: Some(warm.current_mibps),
        },
    })
}

/// A number of MiB per second; one that does not fit is over every limit.
pub(super) fn mibps(given: i64) -> u32 {
    u32::try_from(given).unwrap_or(u32::MAX)
}

pub(super) async fn update_max_record_size(
    engine: &Engine,
    caller: &Caller,
    request: UpdateMaxRecordSizeRequest,
) -> Result<Empty, ApiError> {
    let arn = stream_arn(caller, None, request.stream_arn.as_deref())?;
    let kibibytes = usize::try_from(request.max_record_size_in_kib.unwrap_or_default());
    let bytes = kibibytes.unwrap_or_default().saturating_mul(1_024);
    engine.set_max_record_bytes(&arn, bytes).await?;
    Ok(Empty {})
}

pub(super) async fn update_distribution(
    engine: &Engine,
    caller: &Caller,
    request: UpdateStreamRecordDistributionStrategyRequest,
) -> Result<Empty, ApiError> {
    let arn = stream_arn(caller, None, request.stream_arn.as_deref())?;
    let strategy = request.record_distribution_strategy;
    let strategy = strategy.map_or(Distribution::default(), |strategy| distribution(&strategy));
    engine.set_distribution(&arn, strategy).await?;
    Ok(Empty {})
}

pub(super) fn distribution(strategy: &RecordDistributionStrategy) -> Distribution {
    match strategy {
        RecordDistributionStrategy::Auto => Distribution::Auto,
        // Validation allows the two only.
        _ => Distribution::UserPartitionKey,
    }
}

pub(super) fn strategy(stream: &Stream) -> RecordDistributionStrategy {
    match stream.options.distribution {
        Distribution::Auto => RecordDistributionStrategy::Auto,
        Distribution::UserPartitionKey => RecordDistributionStrategy::UserPartitionKey,
    }
}

pub(super) async fn start_encryption(
    engine: &Engine,
    caller: &Caller,
    request: StartStreamEncryptionRequest,
) -> Result<Empty, ApiError> {
    let arn = stream_arn(
        caller,
        request.stream_name.as_deref(),
        request.stream_arn.as_deref(),
    )?;
    engine.stream(&arn)?;
    let key_id = key(request.encryption_type.as_ref(), request.key_id)?;
    engine.start_encryption(&arn, key_id).await?;
    Ok(Empty {})
}

pub(super) async fn stop_encryption(
    engine: &Engine,
    caller: &Caller,
    request: StopStreamEncryptionRequest,
) -> Result<Empty, ApiError> {
    let arn = stream_arn(
        caller,
        request.stream_name.as_deref(),
        request.stream_arn.as_deref(),
    )?;
    engine.stream(&arn)?;
    key(request.encryption_type.as_ref(), request.key_id)?;
    engine.stop_encryption(&arn).await?;
    Ok(Empty {})
}

/// The key, if it has one of the forms the model names: a UUID, `alias/NAME`, or the ARN of either.
fn key(kind: Option<&EncryptionType>, key_id: Option<String>) -> Result<String, ApiError> {
    if kind != Some(&EncryptionType::Kms) {
        return Err(ApiError::encryption_type_not_kms());
    }
    let key_id = key_id.unwrap_or_default();
    let word = |text: &str| {
        !text.is_empty()
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"/_-".contains(&b))
    };
    let is_id = |text: &str| {
        let groups: Vec<_> = text.split('-').map(str::len).collect();
        let hex = text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
        let multi_region = text.strip_prefix("mrk-");
        (hex && groups == [8, 4, 4, 4, 12])
            || multi_region.is_some_and(|id| id.bytes().all(|b| b.is_ascii_hexdigit()))
    };
    let is_name = |text: &str| match text.split_once('/') {
        Some(("alias", name)) => word(name),
        Some(("key", id)) => is_id(id),
        _ => false,
    };
    let known = match key_id.splitn(6, ':').collect::<Vec<_>>()[..] {
        ["arn", partition, "kms", _, account, resource] => {
            partition.starts_with("aws") && account.len() == 12 && is_name(resource)
        }
        [name] => is_id(name) || (name.starts_with("alias/") && is_name(name)),
        _ => false,
    };
    if known {
        Ok(key_id)
    } else {
        Err(ApiError::bad_key_id(&key_id))
    }
}

pub(super) async fn enable_monitoring(
    engine: &Engine,
    caller: &Caller,
    request: EnableEnhancedMonitoringRequest,
) -> Result<EnhancedMonitoringResponse, ApiError> {
    let arn = stream_arn(
        caller,
        request.stream_name.as_deref(),
        request.stream_arn.as_deref(),
    )?;
    let given = request.shard_level_metrics.unwrap_or_default();
    change_metrics(engine, &arn, MetricsChange::Enable, &given).await
}

pub(super) async fn disable_monitoring(
    engine: &Engine,
    caller: &Caller,
    request: DisableEnhancedMonitoringRequest,
) -> Result<EnhancedMonitoringResponse, ApiError> {
    let arn = stream_arn(
        caller,
        request.stream_name.as_deref(),
        request.stream_arn.as_deref(),
    )?;
    let given = request.shard_level_metrics.unwrap_or_default();
    change_metrics(engine, &arn, MetricsChange::Disable, &given).await
}

async fn change_metrics(
    engine: &Engine,
    arn: &StreamArn,
    change: MetricsChange,
    given: &[String],
) -> Result<EnhancedMonitoringResponse, ApiError> {
    engine.stream(arn)?;
    let operation = match change {
        MetricsChange::Enable => Operation::EnableEnhancedMonitoring,
        MetricsChange::Disable => Operation::DisableEnhancedMonitoring,
    };
    engine.count_call_on(operation, arn)?;
    let all = given.iter().any(|name| name == "ALL");
    let named = |metric: &Metric| all || given.iter().any(|name| name == metric.name());
    let metrics = Metric::ALL.into_iter().filter(named).collect();
    let (before, after) = engine.change_metrics(arn, change, &metrics).await?;
    Ok(EnhancedMonitoringResponse {
        stream_name: arn.name.to_string(),
        current_shard_level_metrics: names(&before),
        desired_shard_level_metrics: names(&after),
        stream_arn: arn.to_string(),
    })
}

pub(super) fn names(metrics: &BTreeSet<Metric>) -> Vec<String> {
    metrics
        .iter()
        .map(|metric| metric.name().to_owned())
        .collect()
}
