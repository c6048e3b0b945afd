//! S7 under every operation that touches it: whatever happens to retention and shards, what is younger than the
//! retention is served once, and what is older is not.

use super::*;
use crate::log::MemoryDisk;
use std::collections::BTreeMap;

const HOUR_MS: u64 = 3_600_000;
/// Large enough for several segments in one run.
const RECORD_BYTES: usize = 40 * 1024;
const OFF: Settings = Settings {
    limits: Limits::Off,
    state_delay_ms: 0,
    error_probability: crate::engine::Probability::NEVER,
    page_bytes: 64 << 20,
};

#[derive(Debug, Clone)]
enum Step {
    Put(u8),
    Wait(u64),
    Retain(u32),
    Scale(u32),
    Split(u128),
    Merge(usize),
    Sweep,
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1..8_u8).prop_map(Step::Put),
        4 => (1..20_u64).prop_map(Step::Wait),
        2 => (24..96_u32).prop_map(Step::Retain),
        1 => (1..6_u32).prop_map(Step::Scale),
        1 => any::<u128>().prop_map(Step::Split),
        1 => (0..8_usize).prop_map(Step::Merge),
        2 => Just(Step::Sweep),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..40)
}

struct Run {
    engine: Engine,
    clock: Arc<ManualClock>,
    disk: MemoryDisk,
    /// Number and arrival of every record that was put.
    put: BTreeMap<u32, u64>,
    /// What is older may be gone for good: the latest horizon there ever was.
    floor_ms: u64,
}

impl Run {
    async fn new() -> Run {
        let (clock, disk) = (ManualClock::at(NOW_MS), MemoryDisk::new());
        let engine = engine_with(&clock, &disk, OFF);
        engine.create_stream(new_stream(2)).await.unwrap();
        Run {
            engine,
            clock,
            disk,
            put: BTreeMap::new(),
            floor_ms: 0,
        }
    }

    fn horizon_ms(&self) -> u64 {
        let stream = self.engine.stream(&arn()).unwrap();
        stream.trim_horizon_ms(self.engine.now_ms())
    }

    async fn step(&mut self, step: &Step) {
        let engine = self.engine.clone();
        match *step {
            Step::Put(records) => self.put(records).await,
            Step::Wait(hours) => self.clock.advance_ms(hours * HOUR_MS),
            Step::Retain(hours) => {
                let current = engine.stream(&arn()).unwrap().retention_hours;
                let change = if hours < current {
                    RetentionChange::Decrease
                } else {
                    RetentionChange::Increase
                };
                let arn = arn();
                let set = engine.set_retention(&arn, hours.into(), change);
                set.await.unwrap();
            }
            Step::Scale(shards) => {
                let target = NonZeroU32::new(shards).unwrap();
                // Out of reach from where it is, or not: both are fine.
                let _ = engine.update_shard_count(&arn(), target).await;
            }
            Step::Split(key) => {
                let stream = engine.stream(&arn()).unwrap();
                let shard = stream.shard_of(HashKey(key)).unwrap().id();
                let _ = engine.split_shard(&arn(), shard, HashKey(key)).await;
            }
            Step::Merge(place) => {
                let stream = engine.stream(&arn()).unwrap();
                let open: Vec<ShardId> = stream.open_shards().map(Shard::id).collect();
                if let [first, second, ..] = open[place % open.len()..] {
                    let arn = arn();
                    let merged = engine.merge_shards(&arn, (first, second));
                    merged.await.unwrap();
                }
            }
            Step::Sweep => {
                engine.sweep().await.unwrap();
                engine.rewrite().await.unwrap();
            }
            Step::Restart => {
                engine.close().await;
                self.engine = engine_with(&self.clock, &self.disk, OFF);
            }
        }
        self.floor_ms = self.floor_ms.max(self.horizon_ms());
    }

    async fn put(&mut self, records: u8) {
        for _ in 0..records {
            let number = u32::try_from(self.put.len()).unwrap();
            let mut data = number.to_be_bytes().to_vec();
            data.resize(RECORD_BYTES, 7);
            let (blob, key) = (Blob::from(&data[..]), number.to_string());
            let entry = PutEntry {
                partition_key: &key,
                explicit_hash_key: None,
                data: &blob,
            };
            let outcomes = put(&self.engine, &[entry]).await.unwrap();
            assert!(outcomes[0].is_ok());
            self.put.insert(number, self.engine.now_ms());
        }
    }

    async fn check(&self) {
        let stream = self.engine.stream(&arn()).unwrap();
        let now_ms = self.engine.now_ms();
        let mut served = BTreeMap::new();
        let listed: Vec<u32> = stream.listed_shards(now_ms).map(|one| one.index).collect();
        for shard in listed {
            for record in read_all(&self.engine, shard).await.0 {
                let number = record.data().first_chunk().map(|n| u32::from_be_bytes(*n));
                let twice = served.insert(number.unwrap(), record.arrival_ms);
                assert_eq!(twice, None, "served twice");
            }
        }
        let horizon_ms = self.horizon_ms();
        for (number, arrival_ms) in &self.put {
            match served.get(number) {
                Some(served_ms) => {
                    assert_eq!(served_ms, arrival_ms);
                    assert!(*arrival_ms >= horizon_ms, "record {number} is too old");
                }
                None => assert!(*arrival_ms < self.floor_ms, "record {number} is lost"),
            }
        }
        let ranges: Vec<_> = stream.open_shards().map(Shard::range).collect();
        assert!(hash_key::tiles(&ranges));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn s7_s4_retained_through_retention_changes_scaling_and_restarts(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut run = Run::new().await;
            for step in &steps {
                run.step(step).await;
                run.check().await;
            }
            run.engine.close().await;
        });
    }
}

/// A shorter retention hides at once what it no longer covers, and a longer one loses nothing that was there.
#[tokio::test]
async fn s7_a_changed_retention_holds_at_once() {
    let mut run = Run::new().await;
    run.step(&Step::Retain(48)).await;
    run.step(&Step::Put(3)).await;
    run.step(&Step::Wait(30)).await;
    run.step(&Step::Put(2)).await;
    run.step(&Step::Sweep).await;
    run.check().await;
    let served = async |run: &Run| {
        let mut count = 0;
        for shard in 0..2 {
            count += read_all(&run.engine, shard).await.0.len();
        }
        count
    };
    assert_eq!(served(&run).await, 5);
    run.step(&Step::Retain(24)).await;
    assert_eq!(served(&run).await, 2, "before any sweep");
}
