//! Changes of a stream's settings and of an account's: each one event, most of them while ACTIVE only.

use crate::engine::catalog::{Catalog, Event, Stream, StreamMode};
use crate::engine::options::{
    Commitment, CommitmentStatus, DAY_MS, Distribution, Metric, Options, Setting,
};
use crate::engine::reshard::Moment;
use crate::engine::streams::{change_only, check_shard_limit, check_stored_shards};
use crate::engine::{Engine, Error, Limits, NewStream, active, scale};
use crate::log::Transaction;
use millstream_wire::limits::{
    ENCRYPTION_CHANGES_PER_DAY, MODE_CHANGES_PER_DAY, ON_DEMAND_INITIAL_SHARDS,
    ON_DEMAND_STREAMS_PER_ACCOUNT, SCALED_SHARDS_MAX, SCALINGS_PER_DAY, SHARDS_PER_ACCOUNT,
    SHARDS_PER_NODE, WARM_THROUGHPUT_MAX_MIBPS,
};
use millstream_wire::{AccountId, Region, StreamArn};
use std::collections::BTreeSet;
use std::num::NonZeroU32;

/// Accounts and regions whose settings are remembered at most: a bound on memory.
const ACCOUNTS_MAX: usize = 1_000;

/// Why a setting cannot be changed like this.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    /// The stream is on demand, where the service decides on the number of shards.
    #[error("the stream is in on-demand mode")]
    OnDemand,
    /// The setting is for on-demand streams.
    #[error("{0} is for streams in on-demand mode only")]
    NotOnDemand(&'static str),
    /// Warm throughput without the account's commitment.
    #[error("the account has no minimum throughput billing commitment")]
    NoCommitment,
    /// More warm throughput than a stream may have.
    #[error("{0} MiB/s is more than the {WARM_THROUGHPUT_MAX_MIBPS} MiB/s that a stream may have")]
    TooWarm(u32),
    /// The account has as many on-demand streams as it may.
    #[error("the account has {current} on-demand streams already")]
    OnDemandStreams {
        /// Where they are counted.
        region: Region,
        /// On-demand streams there are.
        current: usize,
        /// On-demand streams there may be.
        limit: usize,
    },
    /// The number of shards is out of reach from the current one.
    #[error("{target} shards cannot be reached from {current}: {bound:?}")]
    ShardTarget {
        /// Open shards.
        current: usize,
        /// Shards asked for.
        target: usize,
        /// What forbids it.
        bound: ShardBound,
    },
    /// An operation was called too often in 24 hours.
    #[error("{what} was called {times} times within 24 hours")]
    TooOften {
        /// The operation.
        what: &'static str,
        /// How often it may be called.
        times: usize,
    },
}

/// What bounds the target of UpdateShardCount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShardBound {
    /// No more than this.
    AtMost(usize),
    /// No more than twice the current number.
    Double,
    /// No less than half the current number.
    Half,
}

/// Which way metrics change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricsChange {
    /// EnableEnhancedMonitoring.
    Enable,
    /// DisableEnhancedMonitoring.
    Disable,
}

/// The write throughput a stream is ready for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WarmThroughput {
    /// What was asked for, MiB per second.
    pub target_mibps: u32,
    /// What its open shards take, MiB per second.
    pub current_mibps: u32,
}

/// What an account has and may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccountLimits {
    /// Open shards there may be.
    pub shard_limit: usize,
    /// Open shards.
    pub open_shards: usize,
    /// On-demand streams.
    pub on_demand_streams: usize,
    /// On-demand streams there may be.
    pub on_demand_limit: usize,
}

impl Engine {
    /// Scales a stream to `target` shards of one width; how many it had.
    pub async fn update_shard_count(
        &self,
        arn: &StreamArn,
        target: NonZeroU32,
    ) -> Result<usize, Error> {
        let limits = self.inner.settings.limits;
        let mut before = 0;
        self.transact(|catalog, moment| {
            let stream = active(catalog, arn, moment)?;
            let moment = self.closing(stream, moment);
            check_provisioned(stream)?;
            before = stream.open_shard_count();
            check_target(catalog, limits, stream, target, moment)?;
            let Some(scaling) = scale::plan(catalog, stream, target, moment) else {
                return Ok(None);
            };
            check_stored_shards(catalog, arn, scaling.made())?;
            let at_ms = moment.now_ms;
            let scaled = set(arn, vec![Setting::Scaled { at_ms }], None);
            Ok(Some(scaling.transaction(stream, vec![scaled], moment)))
        })
        .await?;
        Ok(before)
    }

    /// Changes who decides on the number of shards; setting the current mode again changes nothing.
    pub async fn set_mode(
        &self,
        arn: &StreamArn,
        mode: StreamMode,
        warm_mibps: Option<u32>,
    ) -> Result<(), Error> {
        let limits = self.inner.settings.limits;
        self.transact(|catalog, moment| {
            let stream = active(catalog, arn, moment)?;
            if warm_mibps.is_some() && mode == StreamMode::Provisioned {
                return Err(refuse(
                    arn,
                    SettingError::NotOnDemand("WarmThroughputMiBps"),
                ));
            }
            let mut settings = Vec::new();
            if stream.mode != mode {
                let changes = &stream.options.mode_changed_ms;
                let often = ("UpdateStreamMode", MODE_CHANGES_PER_DAY);
                check_often(arn, limits, changes, often, moment)?;
                if mode == StreamMode::OnDemand {
                    check_on_demand_streams(catalog, limits, arn, moment)?;
                }
                let at_ms = moment.now_ms;
                settings.push(Setting::Mode { mode, at_ms });
            }
            match warm_mibps {
                Some(mibps) => {
                    let moment = self.closing(stream, moment);
                    warm(catalog, stream, settings, mibps, moment).map(Some)
                }
                None if settings.is_empty() => Ok(None),
                None => Ok(Some(changing(arn, settings, moment))),
            }
        })
        .await?;
        Ok(())
    }

    /// Makes an on-demand stream ready for a write throughput: it gets a shard for each MiB per second.
    pub async fn set_warm_throughput(
        &self,
        arn: &StreamArn,
        mibps: u32,
    ) -> Result<WarmThroughput, Error> {
        self.transact(|catalog, moment| {
            let stream = active(catalog, arn, moment)?;
            if stream.mode != StreamMode::OnDemand {
                return Err(refuse(arn, SettingError::NotOnDemand("Warm throughput")));
            }
            let moment = self.closing(stream, moment);
            warm(catalog, stream, Vec::new(), mibps, moment).map(Some)
        })
        .await?;
        let current = self.stream(arn)?.open_shard_count();
        Ok(WarmThroughput {
            target_mibps: mibps,
            current_mibps: u32::try_from(current).unwrap_or(u32::MAX),
        })
    }

    /// Changes what spreads records over shards.
    pub async fn set_distribution(
        &self,
        arn: &StreamArn,
        distribution: Distribution,
    ) -> Result<(), Error> {
        self.transact(|catalog, moment| {
            let stream = active(catalog, arn, moment)?;
            if stream.mode != StreamMode::OnDemand {
                let what = "RecordDistributionStrategy";
                return Err(refuse(arn, SettingError::NotOnDemand(what)));
            }
            let changed = stream.options.distribution != distribution;
            let event = || set(arn, vec![Setting::Distribution(distribution)], None);
            Ok(changed.then(|| change_only(&event())))
        })
        .await?;
        Ok(())
    }

    /// Changes the largest record a stream takes.
    pub async fn set_max_record_bytes(&self, arn: &StreamArn, bytes: usize) -> Result<(), Error> {
        self.transact(|catalog, moment| {
            let stream = active(catalog, arn, moment)?;
            let changed = stream.max_record_bytes != bytes;
            Ok(changed.then(|| changing(arn, vec![Setting::MaxRecordBytes(bytes)], moment)))
        })
        .await?;
        Ok(())
    }

    /// Marks the stream's records as encrypted with a key from now on.
    pub async fn start_encryption(&self, arn: &StreamArn, key_id: String) -> Result<(), Error> {
        let limits = self.inner.settings.limits;
        self.transact(|catalog, moment| {
            let stream = active(catalog, arn, moment)?;
            if stream.options.key() == Some(&key_id) {
                return Ok(None);
            }
            let times = &stream.options.encryption_started_ms;
            let often = ("StartStreamEncryption", ENCRYPTION_CHANGES_PER_DAY);
            check_often(arn, limits, times, often, moment)?;
            let started = Setting::EncryptionStarted {
                key_id,
                at_ms: moment.now_ms,
                from_ms: moment.now_ms.saturating_add(moment.state_delay_ms),
            };
            Ok(Some(changing(arn, vec![started], moment)))
        })
        .await?;
        Ok(())
    }

    /// Ends what [`Engine::start_encryption`] began.
    pub async fn stop_encryption(&self, arn: &StreamArn) -> Result<(), Error> {
        let limits = self.inner.settings.limits;
        self.transact(|catalog, moment| {
            let stream = active(catalog, arn, moment)?;
            if stream.options.key().is_none() {
                return Ok(None);
            }
            let times = &stream.options.encryption_stopped_ms;
            let often = ("StopStreamEncryption", ENCRYPTION_CHANGES_PER_DAY);
            check_often(arn, limits, times, often, moment)?;
            let stopped = Setting::EncryptionStopped {
                at_ms: moment.now_ms,
                until_ms: moment.now_ms.saturating_add(moment.state_delay_ms),
            };
            Ok(Some(changing(arn, vec![stopped], moment)))
        })
        .await?;
        Ok(())
    }

    /// Adds or removes metrics kept by shard; those before and those after.
    pub async fn change_metrics(
        &self,
        arn: &StreamArn,
        change: MetricsChange,
        metrics: &BTreeSet<Metric>,
    ) -> Result<(BTreeSet<Metric>, BTreeSet<Metric>), Error> {
        let (mut before, mut after) = (BTreeSet::new(), BTreeSet::new());
        self.transact(|catalog, moment| {
            let stream = active(catalog, arn, moment)?;
            before.clone_from(&stream.options.metrics);
            after = match change {
                MetricsChange::Enable => &before | metrics,
                MetricsChange::Disable => &before - metrics,
            };
            let changed = before != after;
            let setting = || vec![Setting::Metrics(after.clone())];
            Ok(changed.then(|| changing(arn, setting(), moment)))
        })
        .await?;
        Ok((before, after))
    }

    /// Attaches a resource policy, or removes it, once the stream is ACTIVE. For a consumer's policy AWS says
    /// so (cloudformation-coverage-roadmap 2442), and the model names the error for streams alike.
    pub async fn set_policy(&self, arn: &StreamArn, policy: Option<String>) -> Result<(), Error> {
        self.transact(|catalog, moment| {
            let stream = active(catalog, arn, moment)?;
            let changed = stream.options.policy != policy;
            let event = || set(arn, vec![Setting::Policy(policy)], None);
            Ok(changed.then(|| change_only(&event())))
        })
        .await?;
        Ok(())
    }

    /// An account's commitment as it is now.
    pub fn commitment(&self, account: &AccountId, region: &Region) -> Commitment {
        self.catalog().commitment(account, region)
    }

    /// Switches an account's commitment on or off; what it is then.
    pub async fn switch_commitment(
        &self,
        account: &AccountId,
        region: &Region,
        on: bool,
    ) -> Result<Commitment, Error> {
        let after = self
            .transact(|catalog, moment| {
                let before = catalog.commitment(account, region);
                // Signatures can name any region; what is remembered of them is bounded.
                if before == Commitment::default() && catalog.account_count() >= ACCOUNTS_MAX {
                    return Err(Error::Overloaded);
                }
                let commitment = before.switched(on, moment.now_ms);
                let event = || Event::AccountSet {
                    account: account.clone(),
                    region: region.clone(),
                    commitment,
                };
                Ok((before != commitment).then(|| change_only(&event())))
            })
            .await?;
        Ok(after.commitment(account, region))
    }

    /// What an account has and may have.
    pub fn account_limits(&self, account: &AccountId, region: &Region) -> AccountLimits {
        let catalog = self.catalog();
        let now_ms = self.now_ms();
        let streams = || catalog.streams_of(account, region, now_ms);
        let on_demand = streams().filter(|stream| stream.mode == StreamMode::OnDemand);
        let (shard_limit, on_demand_limit) = match self.inner.settings.limits {
            Limits::Aws => (SHARDS_PER_ACCOUNT, ON_DEMAND_STREAMS_PER_ACCOUNT),
            Limits::Off => (SHARDS_PER_NODE, SHARDS_PER_NODE),
        };
        AccountLimits {
            shard_limit,
            open_shards: streams().map(|stream| stream.open_shard_count()).sum(),
            on_demand_streams: on_demand.count(),
            on_demand_limit,
        }
    }
}

fn refuse(arn: &StreamArn, refused: SettingError) -> Error {
    let arn = arn.clone();
    Error::Setting { arn, refused }
}

fn set(arn: &StreamArn, settings: Vec<Setting>, active_ms: Option<u64>) -> Event {
    Event::StreamSet {
        arn: arn.clone(),
        settings,
        active_ms,
    }
}

/// Settings whose change the stream shows as UPDATING.
fn changing(arn: &StreamArn, settings: Vec<Setting>, moment: Moment) -> Transaction {
    change_only(&set(arn, settings, Some(moment.settled_ms())))
}

/// Splits, merges and scaling are for provisioned streams.
pub(super) fn check_provisioned(stream: &Stream) -> Result<(), Error> {
    match stream.mode {
        StreamMode::Provisioned => Ok(()),
        StreamMode::OnDemand => Err(refuse(&stream.arn, SettingError::OnDemand)),
    }
}

/// What a new stream may be set to.
pub(super) fn check_new(
    catalog: &Catalog,
    limits: Limits,
    new: &NewStream,
    options: &Options,
    moment: Moment,
) -> Result<(), Error> {
    match (new.mode, options.warm_mibps) {
        (StreamMode::Provisioned, Some(_)) => {
            let what = "WarmThroughputMiBps";
            Err(refuse(&new.arn, SettingError::NotOnDemand(what)))
        }
        (StreamMode::Provisioned, None) if options.distribution == Distribution::Auto => {
            let what = "RecordDistributionStrategy";
            Err(refuse(&new.arn, SettingError::NotOnDemand(what)))
        }
        (StreamMode::Provisioned, None) => Ok(()),
        (StreamMode::OnDemand, warm_mibps) => {
            check_on_demand_streams(catalog, limits, &new.arn, moment)?;
            warm_mibps.map_or(Ok(()), |mibps| check_warm(catalog, &new.arn, mibps, moment))
        }
    }
}

fn check_on_demand_streams(
    catalog: &Catalog,
    limits: Limits,
    arn: &StreamArn,
    moment: Moment,
) -> Result<(), Error> {
    let streams = catalog.streams_of(&arn.account, &arn.region, moment.now_ms);
    let current = streams.filter(|s| s.mode == StreamMode::OnDemand).count();
    let limit = ON_DEMAND_STREAMS_PER_ACCOUNT;
    if limits == Limits::Aws && current >= limit {
        let refused = SettingError::OnDemandStreams {
            region: arn.region.clone(),
            current,
            limit,
        };
        return Err(refuse(arn, refused));
    }
    Ok(())
}

fn check_warm(catalog: &Catalog, arn: &StreamArn, mibps: u32, moment: Moment) -> Result<(), Error> {
    let commitment = catalog.commitment(&arn.account, &arn.region);
    if commitment.status(moment.now_ms) == CommitmentStatus::Disabled {
        return Err(refuse(arn, SettingError::NoCommitment));
    }
    if mibps > WARM_THROUGHPUT_MAX_MIBPS {
        return Err(refuse(arn, SettingError::TooWarm(mibps)));
    }
    Ok(())
}

/// Shards that take `mibps`, one MiB per second each.
pub fn shards_for(mibps: u32) -> u32 {
    mibps.max(ON_DEMAND_INITIAL_SHARDS)
}

/// The shards an on-demand stream begins with when nothing else is asked for.
pub fn shards_when_new() -> NonZeroU32 {
    NonZeroU32::new(ON_DEMAND_INITIAL_SHARDS).unwrap_or(NonZeroU32::MIN)
}

fn warm(
    catalog: &Catalog,
    stream: &Stream,
    mut settings: Vec<Setting>,
    mibps: u32,
    moment: Moment,
) -> Result<Transaction, Error> {
    let arn = &stream.arn;
    check_warm(catalog, arn, mibps, moment)?;
    settings.push(Setting::WarmThroughput(Some(mibps)));
    let target = NonZeroU32::new(shards_for(mibps)).unwrap_or(NonZeroU32::MIN);
    let current = stream.open_shard_count();
    let added = usize::try_from(target.get()).unwrap_or(usize::MAX);
    let added = added.saturating_sub(current);
    check_shard_limit(
        catalog,
        Limits::Off,
        (arn, StreamMode::OnDemand),
        added,
        moment,
    )?;
    let changed = changing(arn, settings.clone(), moment);
    Ok(match scale::plan(catalog, stream, target, moment) {
        None => changed,
        Some(scaling) => {
            check_stored_shards(catalog, arn, scaling.made())?;
            scaling.transaction(stream, vec![set(arn, settings, None)], moment)
        }
    })
}

/// AWS's bounds of UpdateShardCount, in the order it checks them.
fn check_target(
    catalog: &Catalog,
    limits: Limits,
    stream: &Stream,
    target: NonZeroU32,
    moment: Moment,
) -> Result<(), Error> {
    let arn = &stream.arn;
    let current = stream.open_shard_count();
    let target = usize::try_from(target.get()).unwrap_or(usize::MAX);
    let refused = |bound| {
        let refused = SettingError::ShardTarget {
            current,
            target,
            bound,
        };
        Err(refuse(arn, refused))
    };
    let limit = match limits {
        Limits::Aws => SHARDS_PER_ACCOUNT.min(SCALED_SHARDS_MAX),
        Limits::Off => SCALED_SHARDS_MAX.min(SHARDS_PER_NODE),
    };
    if target > limit {
        return refused(ShardBound::AtMost(limit));
    }
    if limits == Limits::Aws {
        if target > current.saturating_mul(2) {
            return refused(ShardBound::Double);
        }
        if target.saturating_mul(2) < current {
            return refused(ShardBound::Half);
        }
    }
    let added = target.saturating_sub(current);
    check_shard_limit(catalog, limits, (arn, stream.mode), added, moment)?;
    let often = ("UpdateShardCount", SCALINGS_PER_DAY);
    check_often(arn, limits, &stream.options.scaled_ms, often, moment)
}

fn check_often(
    arn: &StreamArn,
    limits: Limits,
    times_ms: &[u64],
    (what, times): (&'static str, usize),
    moment: Moment,
) -> Result<(), Error> {
    let recent = times_ms
        .iter()
        .filter(|time| time.saturating_add(DAY_MS) > moment.now_ms);
    if limits == Limits::Aws && recent.count() >= times {
        return Err(refuse(arn, SettingError::TooOften { what, times }));
    }
    Ok(())
}
