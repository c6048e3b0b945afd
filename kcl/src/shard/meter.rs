//! How busy each shard of this worker is: what was delivered, as a moving average, and how far it was behind.
//!
//! Told to the other workers with the heartbeat, so that they can share the work and not only the shards.

use crate::clock::{self, Instant};
use crate::lease::{LeaseKey, Load, Loads};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Shards that one heartbeat names at most: the busiest.
const LOADS_MAX: usize = 256;
/// What makes no difference to anybody, and is not told.
const IDLE: Load = Load {
    bytes_per_second: 1024,
    behind_ms: 1000,
};

/// The meters of all shard consumers of a worker.
#[derive(Debug, Default)]
pub(crate) struct Meters {
    /// One short lock around plain data; never held across an await.
    meters: Mutex<BTreeMap<LeaseKey, Meter>>,
}

#[derive(Debug)]
struct Meter {
    bytes: u64,
    since: Instant,
    load: Load,
}

impl Meters {
    fn with<T>(&self, act: impl FnOnce(&mut BTreeMap<LeaseKey, Meter>) -> T) -> T {
        act(&mut self.meters.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A page of a shard was read.
    pub(crate) fn read(&self, shard: &LeaseKey, bytes: usize, behind_ms: u64) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.with(|meters| {
            if let Some(meter) = meters.get_mut(shard) {
                meter.bytes = meter.bytes.saturating_add(bytes);
                meter.load.behind_ms = behind_ms;
                return;
            }
            let load = Load {
                bytes_per_second: 0,
                behind_ms,
            };
            let since = clock::now();
            meters.insert(shard.clone(), Meter { bytes, since, load });
        });
    }

    /// The shard is not this worker's any more.
    pub(crate) fn forget(&self, shard: &LeaseKey) {
        self.with(|meters| meters.remove(shard));
    }

    /// The loads now: half of each is what was, half what came since they were last asked for.
    pub(crate) fn loads(&self) -> Loads {
        let now = clock::now();
        let mut loads: Vec<(LeaseKey, Load)> = self.with(|meters| {
            let load = |(shard, meter): (&LeaseKey, &mut Meter)| {
                let ms = now.saturating_duration_since(meter.since).as_millis();
                let rate = u128::from(meter.bytes) * 1000 / ms.max(1);
                let rate = u64::try_from(rate).unwrap_or(u64::MAX);
                meter.load.bytes_per_second = meter.load.bytes_per_second / 2 + rate / 2;
                meter.bytes = 0;
                meter.since = now;
                (shard.clone(), meter.load)
            };
            meters.iter_mut().map(load).collect()
        });
        loads.retain(|(_, load)| {
            load.bytes_per_second >= IDLE.bytes_per_second || load.behind_ms >= IDLE.behind_ms
        });
        loads.sort_by_key(|(_, load)| std::cmp::Reverse((load.bytes_per_second, load.behind_ms)));
        loads.truncate(LOADS_MAX);
        let mut by_stream = Loads::new();
        for (shard, load) in loads {
            let of_stream = by_stream.entry(shard.stream).or_default();
            of_stream.insert(shard.shard_id, load);
        }
        by_stream
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn shard(id: &str) -> LeaseKey {
        LeaseKey {
            stream: "s".to_owned(),
            shard_id: id.to_owned(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_load_follows_what_is_read() {
        let meters = Meters::default();
        let rate = || {
            meters
                .loads()
                .get("s")?
                .get("a")
                .map(|load| load.bytes_per_second)
        };
        meters.read(&shard("a"), 0, 5000);
        let mut rates = Vec::new();
        for _ in 0..10 {
            tokio::time::advance(Duration::from_secs(3)).await;
            meters.read(&shard("a"), 300_000, 5000);
            rates.push(rate().unwrap());
        }
        assert_eq!(rates[..2], [50_000, 75_000]);
        assert!((99_000..=100_000).contains(&rates[9]), "{rates:?}");
        assert_eq!(meters.loads()["s"]["a"].behind_ms, 5000);
        meters.read(&shard("a"), 0, 0);
        for _ in 0..10 {
            tokio::time::advance(Duration::from_secs(3)).await;
            rate();
        }
        assert_eq!(rate(), None, "an idle shard is not told of");
        meters.read(&shard("a"), 0, 1000);
        assert!(rate().is_some());
        meters.forget(&shard("a"));
        assert_eq!(rate(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_heartbeat_names_the_busiest_shards_only() {
        let meters = Meters::default();
        for index in 0..1000_usize {
            meters.read(
                &shard(&format!("shard-{index:04}")),
                10_000 + index * 1000,
                0,
            );
        }
        tokio::time::advance(Duration::from_secs(1)).await;
        let loads = meters.loads().remove("s").unwrap();
        assert_eq!(loads.len(), LOADS_MAX);
        assert!(loads.contains_key("shard-0999") && !loads.contains_key("shard-0000"));
    }
}
