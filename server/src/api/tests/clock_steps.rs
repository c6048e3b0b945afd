//! The server's clock is set ten minutes forward and back, again and again, while records are put, shards split, merged and
//! scaled, segments trimmed and rewritten, and the server started again. What a client sees stays sane.

use super::*;
use std::collections::BTreeMap;

const STEPS: usize = 80;
const STEP_MS: u64 = 600_000;
const ITERATOR_MS: u64 = 300_000;
const RETENTION_MS: u64 = 24 * HOUR_MS;
const SETTINGS: Settings = Settings {
    limits: Limits::Off,
    state_delay_ms: 0,
    error_probability: crate::engine::Probability::NEVER,
    page_bytes: 64 << 20,
};

/// A record as it was acknowledged; its number is its data.
#[derive(Debug, Clone, PartialEq)]
struct Put {
    number: usize,
    shard: String,
    /// Of equal length, so that they compare as numbers do.
    sequence: String,
    sent_ms: u64,
}

/// A record as it is served.
#[derive(Debug, Clone, PartialEq)]
struct Served {
    number: usize,
    sequence: String,
    arrival_ms: u64,
}

struct Walk {
    service: Service,
    random: fastrand::Rng,
    put: Vec<Put>,
    created_ms: u64,
    /// What the clock said at most, and at most when something was trimmed.
    latest_ms: u64,
    swept_ms: u64,
    /// Iterators with the time they were made.
    iterators: Vec<(String, u64)>,
}

impl Walk {
    async fn new(seed: u64) -> Walk {
        let service = Service::with_stream(2).await;
        Walk {
            service,
            random: fastrand::Rng::with_seed(seed),
            put: Vec::new(),
            created_ms: NOW_MS,
            latest_ms: NOW_MS,
            swept_ms: 0,
            iterators: Vec::new(),
        }
    }

    fn now_ms(&self) -> u64 {
        self.service.engine.now_ms()
    }

    async fn step(&mut self) {
        match self.random.u8(0..20) {
            0..=5 => self.put().await,
            6..=10 => self.set_clock(),
            11..=13 => self.reshard().await,
            14 => self.sweep().await,
            15 => self.restart().await,
            16 => self.take_iterator().await,
            17 => self.use_iterators().await,
            18 => self.check_times().await,
            _ => self.check_all().await,
        }
    }

    fn set_clock(&mut self) {
        let clock = &self.service.clock;
        match self.random.u8(0..8) {
            0..=1 => clock.advance_ms(self.random.u64(1..8) * HOUR_MS),
            2 => clock.advance_ms(self.random.u64(1..20_000)),
            3..=4 => clock.advance_ms(self.random.u64(..=STEP_MS)),
            _ => clock.set_ms(self.now_ms() - self.random.u64(..=STEP_MS)),
        }
        self.latest_ms = self.latest_ms.max(self.now_ms());
    }

    async fn put(&mut self) {
        for _ in 0..self.random.u8(1..5) {
            let number = self.put.len();
            let data = base64_simd::STANDARD.encode_to_string(number.to_string());
            let request =
                json!({"StreamName": "orders", "PartitionKey": number.to_string(), "Data": data});
            let answer = self.service.ok(Operation::PutRecord, request).await;
            let text = |name: &str| answer[name].as_str().unwrap().to_owned();
            self.put.push(Put {
                number,
                shard: text("ShardId"),
                sequence: text("SequenceNumber"),
                sent_ms: self.now_ms(),
            });
        }
    }

    async fn list(&self, filter: Value) -> Vec<Value> {
        let mut request = json!({"StreamName": "orders"});
        if !filter.is_null() {
            request["ShardFilter"] = filter;
        }
        let answer = self.service.ok(Operation::ListShards, request).await;
        answer["Shards"].as_array().unwrap().clone()
    }

    async fn reshard(&mut self) {
        let open = self.list(json!({"Type": "AT_LATEST"})).await;
        let tiling = ranges(&json!({"Shards": open}));
        let at = self.random.usize(..open.len());
        let id = |at: usize| open[at]["ShardId"].as_str().unwrap();
        if self.random.u8(0..5) == 0 {
            let target = self.random.usize(open.len().div_ceil(2)..=open.len());
            let request = json!({"StreamName": "orders", "TargetShardCount": target,
                                 "ScalingType": "UNIFORM_SCALING"});
            // Where it is already, or out of reach: both are fine.
            let _ = self
                .service
                .call(Operation::UpdateShardCount, request)
                .await;
        } else if open.len() < 3 || self.random.bool() {
            let key = self.random.u128(tiling[at].start.0 + 2..tiling[at].end.0);
            self.service.split(id(at), key).await;
        } else {
            let next = tiling.iter().position(|r| tiling[at].is_followed_by(r));
            let Some(next) = next else { return };
            let request = json!({"StreamName": "orders", "ShardToMerge": id(at),
                                 "AdjacentShardToMerge": id(next)});
            self.service.ok(Operation::MergeShards, request).await;
        }
    }

    async fn sweep(&mut self) {
        self.swept_ms = self.swept_ms.max(self.now_ms());
        self.service.engine.sweep().await.unwrap();
        self.service.engine.rewrite().await.unwrap();
    }

    async fn restart(&mut self) {
        let service = &mut self.service;
        service.engine.close().await;
        service.engine = engine_with(&service.clock, &service.disk, SETTINGS);
        service.api = Api::new(service.engine.clone(), Latency::default());
    }

    /// An iterator of a shard's beginning, or why there is none.
    async fn iterator(&self, shard: &str, position: Value) -> Result<String, ApiError> {
        let mut request = position;
        request["StreamName"] = json!("orders");
        request["ShardId"] = json!(shard);
        let answer = self
            .service
            .call(Operation::GetShardIterator, request)
            .await?;
        Ok(answer["ShardIterator"].as_str().unwrap().to_owned())
    }

    /// The records from an iterator on.
    async fn read(&self, iterator: String) -> Vec<Served> {
        let (mut served, mut next) = (Vec::new(), Some(iterator));
        while let Some(at) = next {
            let request = json!({"ShardIterator": at, "Limit": 3});
            let page = self.service.ok(Operation::GetRecords, request).await;
            let behind_ms = page["MillisBehindLatest"].as_u64().unwrap();
            assert!(behind_ms <= RETENTION_MS, "{behind_ms} ms behind");
            let records = page["Records"].as_array().unwrap();
            served.extend(records.iter().map(served_of));
            next = page["NextShardIterator"].as_str().map(str::to_owned);
            if records.is_empty() && behind_ms == 0 {
                break;
            }
        }
        served
    }

    async fn read_shard(&self, shard: &str) -> Vec<Served> {
        let oldest = json!({"ShardIteratorType": "TRIM_HORIZON"});
        self.read(self.iterator(shard, oldest).await.unwrap()).await
    }

    async fn take_iterator(&mut self) {
        let open = self.list(json!({"Type": "AT_LATEST"})).await;
        let shard = open[0]["ShardId"].as_str().unwrap();
        let oldest = json!({"ShardIteratorType": "TRIM_HORIZON"});
        let iterator = self.iterator(shard, oldest).await.unwrap();
        self.iterators.push((iterator, self.now_ms()));
    }

    /// An iterator is good for five minutes of this clock, and after a step back not longer than the step.
    async fn use_iterators(&mut self) {
        for (iterator, made_ms) in self.iterators.split_off(0) {
            let request = json!({"ShardIterator": iterator});
            let answer = self.service.call(Operation::GetRecords, request).await;
            let is_old = self.now_ms() > made_ms + ITERATOR_MS;
            match answer {
                Ok(_) => assert!(!is_old, "made at {made_ms}, used at {}", self.now_ms()),
                Err(error) if error.code == ErrorCode::ExpiredIterator => assert!(is_old),
                // The shard left the retention.
                Err(error) => assert_eq!(error.code, ErrorCode::ResourceNotFound),
            }
        }
    }

    /// S7 and S2: what must be there is served once and in order, nothing older is, times do not fall and are neither
    /// before the put nor later than the clock ever was.
    async fn check_all(&mut self) {
        let horizon_ms = self.now_ms() - RETENTION_MS;
        let floor_ms = self.swept_ms.max(self.now_ms()) - RETENTION_MS;
        let listed = self.list(Value::Null).await;
        check_lineage(&listed);
        let mut all: BTreeMap<usize, (String, Served)> = BTreeMap::new();
        for shard in &listed {
            let shard = shard["ShardId"].as_str().unwrap();
            let records = self.read_shard(shard).await;
            for pair in records.windows(2) {
                assert!(pair[0].sequence < pair[1].sequence, "S2: {pair:?}");
                assert!(pair[0].arrival_ms <= pair[1].arrival_ms, "{pair:?}");
            }
            for record in records {
                let twice = all.insert(record.number, (shard.to_owned(), record));
                assert_eq!(twice, None, "S3: served twice");
            }
        }
        for put in &self.put {
            let Some((shard, record)) = all.get(&put.number) else {
                // Its arrival is the put's or later, never earlier.
                assert!(
                    put.sent_ms < floor_ms,
                    "S7: {put:?} is lost, from {floor_ms} on all must be there"
                );
                continue;
            };
            assert_eq!((shard, &record.sequence), (&put.shard, &put.sequence));
            assert!(record.arrival_ms >= horizon_ms, "S7: {record:?} is too old");
            let sane = put.sent_ms..=self.latest_ms;
            assert!(sane.contains(&record.arrival_ms), "{put:?}: {record:?}");
        }
    }

    /// S4 at every time that can be asked for, and an iterator of a time begins with the first record of that time or later.
    async fn check_times(&mut self) {
        let oldest_ms = (self.now_ms() - RETENTION_MS).max(self.created_ms);
        for filter in ["AT_LATEST", "AT_TRIM_HORIZON"] {
            if filter == "AT_TRIM_HORIZON" && self.now_ms() - RETENTION_MS < self.created_ms {
                continue;
            }
            let open = self.list(json!({"Type": filter})).await;
            assert!(
                hash_key::tiles(&ranges(&json!({"Shards": open}))),
                "S4 {filter}"
            );
        }
        if self.now_ms() < oldest_ms {
            return;
        }
        for _ in 0..5 {
            let at_ms = self.random.u64(oldest_ms..=self.now_ms());
            let filter = json!({"Type": "AT_TIMESTAMP", "Timestamp": seconds(at_ms)});
            let open = self.list(filter).await;
            let tiled = hash_key::tiles(&ranges(&json!({"Shards": open})));
            assert!(tiled, "S4 at {at_ms}, now {}: {open:?}", self.now_ms());
            let shard = open[0]["ShardId"].as_str().unwrap();
            let position =
                json!({"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": seconds(at_ms)});
            let from = self.iterator(shard, position).await.unwrap();
            let mut expected = self.read_shard(shard).await;
            expected.retain(|record| record.arrival_ms >= at_ms);
            assert_eq!(self.read(from).await, expected, "from {at_ms}");
        }
    }
}

fn seconds(ms: u64) -> Value {
    let text = format!("{}.{:03}", ms / 1_000, ms % 1_000);
    serde_json::from_str(&text).unwrap()
}

fn served_of(record: &Value) -> Served {
    let text = |name: &str| record[name].as_str().unwrap();
    let data = base64_simd::STANDARD.decode_to_vec(text("Data")).unwrap();
    // Seconds with three decimals.
    let arrival: f64 = record["ApproximateArrivalTimestamp"].as_f64().unwrap();
    let arrival_ms = format!("{:.0}", arrival * 1_000.0).parse().unwrap();
    Served {
        number: String::from_utf8(data).unwrap().parse().unwrap(),
        sequence: text("SequenceNumber").to_owned(),
        arrival_ms,
    }
}

/// S2: numbers of a child begin above where those of its parents end.
fn check_lineage(listed: &[Value]) {
    let range = |shard: &Value, end: &str| {
        let number = shard["SequenceNumberRange"][end].as_str();
        number.map(str::to_owned)
    };
    for shard in listed {
        for name in ["ParentShardId", "AdjacentParentShardId"] {
            let parent = listed
                .iter()
                .find(|parent| parent["ShardId"] == shard[name]);
            let Some(parent) = parent else { continue };
            let end = range(parent, "EndingSequenceNumber").expect("a parent is closed");
            let start = range(shard, "StartingSequenceNumber").unwrap();
            assert!(
                start.len() == end.len() && start > end,
                "S2: {shard} of {parent}"
            );
        }
    }
}

/// Random walks through two days or so; a failure names its seed.
#[tokio::test]
async fn s2_s4_s7_hold_whatever_the_clock_is_set_to() {
    let is_long = std::env::var("MILLSTREAM_LONG").is_ok_and(|long| long == "1");
    let walks = if is_long { 1_000 } else { 20 };
    let given = std::env::var("MILLSTREAM_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let first = given.unwrap_or_else(|| fastrand::u64(..1 << 40));
    let mut puts = 0;
    for seed in first..first + walks {
        println!("clock steps: MILLSTREAM_SEED={seed}");
        let mut walk = Walk::new(seed).await;
        for _ in 0..STEPS {
            walk.step().await;
        }
        walk.use_iterators().await;
        walk.check_times().await;
        walk.check_all().await;
        puts += walk.put.len();
        walk.service.engine.close().await;
    }
    println!("clock steps: {walks} walks of {STEPS} steps, {puts} records");
}

/// The shards that were open at a time.
async fn open_at(service: &Service, at_ms: u64) -> Vec<HashKeyRange> {
    let filter = json!({"Type": "AT_TIMESTAMP", "Timestamp": seconds(at_ms)});
    let request = json!({"StreamName": "orders", "ShardFilter": filter});
    ranges(&service.ok(Operation::ListShards, request).await)
}

/// A shard that was opened by a clock ten minutes ahead and closed by one that was right was open at no time, and its parent and
/// its children at once.
#[tokio::test]
async fn s4_one_shard_is_open_at_a_time_though_the_clock_was_set_back() {
    let service = Service::with_stream(1).await;
    service.clock.set_ms(NOW_MS + STEP_MS);
    service.split("shardId-000000000000", 1 << 127).await;
    service.clock.set_ms(NOW_MS + STEP_MS / 2);
    service.split("shardId-000000000001", 1 << 126).await;
    service.clock.set_ms(NOW_MS + 2 * STEP_MS);
    for tenth in 0..20 {
        let at_ms = NOW_MS + STEP_MS / 10 * tenth;
        let open = open_at(&service, at_ms).await;
        assert!(hash_key::tiles(&open), "{tenth}: {open:?}");
    }
}

/// Scaling closes shards that it has just made, and merges one of them with an older one: all are closed at one time.
#[tokio::test]
async fn s4_one_shard_is_open_at_a_time_amid_a_scaling() {
    let service = Service::with_stream(3).await;
    service.clock.advance_ms(60_000);
    let request = json!({"StreamName": "orders", "TargetShardCount": 2,
                         "ScalingType": "UNIFORM_SCALING"});
    service.ok(Operation::UpdateShardCount, request).await;
    service.clock.advance_ms(60_000);
    for quarter in 0..20 {
        let at_ms = NOW_MS + 60_000 + quarter * 250;
        let open = open_at(&service, at_ms).await;
        assert!(hash_key::tiles(&open), "{quarter}: {open:?}");
    }
}

/// A shard is closed by a clock that was set back after its newest record: it is listed for as long as that is kept.
#[tokio::test]
async fn s7_a_shard_closed_by_a_clock_set_back_is_listed_as_long_as_its_records_are_kept() {
    let service = Service::with_stream(1).await;
    service.clock.set_ms(NOW_MS + STEP_MS);
    let request = json!({"StreamName": "orders", "PartitionKey": "a", "Data": "AA=="});
    service.ok(Operation::PutRecord, request).await;
    service.clock.set_ms(NOW_MS);
    service.split("shardId-000000000000", 1 << 127).await;
    for (after_ms, shards) in [(0, 3), (STEP_MS, 3), (STEP_MS + 1, 2)] {
        service.clock.set_ms(NOW_MS + RETENTION_MS + after_ms);
        service.engine.sweep().await.unwrap();
        let request = json!({"StreamName": "orders"});
        let listed = ranges(&service.ok(Operation::ListShards, request).await);
        assert_eq!(listed.len(), shards, "{after_ms} ms later");
    }
}

/// Throttling goes on within a second of the new time, an iterator lives no longer than the step, a time to come is refused.
#[tokio::test]
async fn limits_and_iterators_do_not_wait_for_the_time_that_was() {
    let service = Service::new_with(Limits::Aws, 0);
    let request = json!({"StreamName": "orders", "ShardCount": 1});
    service.ok(Operation::CreateStream, request).await;
    let put = async |service: &Service| {
        let data = base64_simd::STANDARD.encode_to_string(vec![7; 900_000]);
        let request = json!({"StreamName": "orders", "PartitionKey": "a", "Data": data});
        let answer = service.call(Operation::PutRecord, request).await;
        answer.map_err(|error| error.code)
    };
    put(&service).await.unwrap();
    let throttled = ErrorCode::ProvisionedThroughputExceeded;
    assert_eq!(put(&service).await, Err(throttled));
    service.clock.set_ms(NOW_MS - STEP_MS);
    assert_eq!(put(&service).await, Err(throttled));
    service.clock.advance_ms(1_000);
    put(&service).await.unwrap();

    service.clock.set_ms(NOW_MS + STEP_MS);
    let request = json!({"StreamName": "orders", "ShardId": "shardId-000000000000",
                         "ShardIteratorType": "TRIM_HORIZON"});
    let made = service.ok(Operation::GetShardIterator, request).await;
    let read = json!({"ShardIterator": made["ShardIterator"]});
    for (at_ms, is_good) in [
        (NOW_MS, true),
        (NOW_MS + STEP_MS + ITERATOR_MS, true),
        (NOW_MS + STEP_MS + ITERATOR_MS + 1, false),
    ] {
        service.clock.set_ms(at_ms);
        let answer = service.call(Operation::GetRecords, read.clone()).await;
        assert_eq!(answer.is_ok(), is_good, "{at_ms}");
    }
}
