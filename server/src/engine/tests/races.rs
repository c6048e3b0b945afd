//! What happens in between: changes while a sweep runs, a disk that is full, a clock set back.

use super::{NOW_MS, arn, engine, engine_with, new_stream, put_one, read_all};
use crate::clock::ManualClock;
use crate::engine::catalog::{Catalog, Event, Status};
use crate::engine::streams::change_only;
use crate::engine::{
    Engine, Error, Limits, NewStream, Probability, PutEntry, Refusal, Settings, Start,
};
use crate::log::{Disk, DiskFile, Format, Log, LogConfig, LogShard, MemoryDisk, Transaction};
use crate::patience::Patience;
use millstream_wire::shapes::Blob;
use millstream_wire::{HashKey, ShardId, StreamArn};
use std::collections::BTreeMap;
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::timeout;

const HOUR_MS: u64 = 3_600_000;
const OFF: Settings = Settings {
    limits: Limits::Off,
    state_delay_ms: 0,
    error_probability: Probability::NEVER,
    page_bytes: 64 << 20,
};

async fn put_bytes(engine: &Engine, arn: &StreamArn, bytes: usize) -> bool {
    let data = vec![7; bytes];
    let blob = Blob::from(&data[..]);
    let entry = PutEntry {
        partition_key: "a",
        explicit_hash_key: None,
        data: &blob,
    };
    let stream = engine.writable_stream(arn).unwrap();
    engine.put(&stream, &[entry]).await.unwrap()[0].is_ok()
}

/// A disk that says so when it is first to take a segment away, and waits until it may go on.
#[derive(Debug)]
struct Gated {
    disk: MemoryDisk,
    gate: Mutex<Option<(SyncSender<()>, Receiver<()>)>>,
}

impl Gated {
    fn pass(&self) {
        if let Some((reached, go_on)) = self.gate.lock().unwrap().take() {
            reached.send(()).unwrap();
            go_on.recv().unwrap();
        }
    }
}

impl Disk for Gated {
    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }
    fn create(&self, name: &str, len_bytes: u64) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.create(name, len_bytes)
    }
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.open(name)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        if to == "recycled.segment" {
            self.pass();
        }
        self.disk.rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.pass();
        self.disk.remove(name)
    }
    fn sync_directory(&self) -> io::Result<()> {
        self.disk.sync_directory()
    }
    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.link(from, to)
    }
    fn raise_format(&self, format: Format) -> io::Result<()> {
        self.disk.raise_format(format)
    }
}

/// An engine whose first trim has begun and goes on when it is told.
async fn amid_a_trim() -> (Engine, SyncSender<()>, JoinHandle<Result<(), Error>>) {
    let clock = ManualClock::at(NOW_MS);
    let (reached, is_reached) = sync_channel(1);
    let (go_on, may_go_on) = sync_channel(1);
    let disk = Arc::new(Gated {
        disk: MemoryDisk::new(),
        gate: Mutex::new(Some((reached, may_go_on))),
    });
    let config = LogConfig {
        segment_bytes: 1 << 20,
        ..LogConfig::default()
    };
    let log = Log::open(disk, config, clock.clone(), Catalog::default()).unwrap();
    let engine = Engine::new(log, clock.clone(), OFF);
    engine.create_stream(new_stream(1)).await.unwrap();
    for _ in 0..3 {
        assert!(put_bytes(&engine, &arn(), 900_000).await);
    }
    clock.advance_ms(25 * HOUR_MS);
    let sweeping = engine.clone();
    let sweep = tokio::spawn(async move { sweeping.sweep().await });
    tokio::task::spawn_blocking(move || is_reached.recv().unwrap())
        .await
        .unwrap();
    (engine, go_on, sweep)
}

/// What a trim that nobody waits for any more still does to the directory is done when the log is closed: the next to open it is alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s8_a_close_waits_for_a_trim_that_was_given_up() {
    let (engine, go_on, sweep) = amid_a_trim().await;
    sweep.abort();
    sweep.await.unwrap_err();
    let mut closing = tokio::spawn(async move { engine.close().await });
    let early = timeout(Duration::from_millis(200), &mut closing).await;
    assert!(early.is_err(), "closed while a trim goes on");
    go_on.send(()).unwrap();
    closing.await.unwrap();
}

/// A stream created while a trim is under way is not taken for one that is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s7_a_stream_created_while_a_trim_runs_keeps_its_records() {
    let (engine, go_on, sweep) = amid_a_trim().await;
    let other: StreamArn = "arn:aws:kinesis:us-east-1:000000000000:stream/other"
        .parse()
        .unwrap();
    engine
        .create_stream(NewStream {
            arn: other.clone(),
            ..new_stream(1)
        })
        .await
        .unwrap();
    for _ in 0..3 {
        assert!(put_bytes(&engine, &other, 900_000).await);
    }
    go_on.send(()).unwrap();
    sweep.await.unwrap().unwrap();
    let mut token = engine
        .shard_iterator(&other, "0", Start::TrimHorizon)
        .await
        .unwrap();
    let mut kept = 0;
    loop {
        let page = engine.records(&token, 1).await.unwrap();
        if page.records.is_empty() {
            break;
        }
        kept += page.records.len();
        token = page.next_iterator.unwrap();
    }
    assert_eq!(kept, 3);
}

/// A full disk refuses the change that drops expired shards; the space must be given back all the same.
#[tokio::test]
async fn s6_a_full_disk_is_freed_of_what_left_the_retention() {
    let clock = ManualClock::at(NOW_MS);
    let disk = MemoryDisk::new();
    let engine = engine_with(&clock, &disk, OFF);
    engine.create_stream(new_stream(1)).await.unwrap();
    for _ in 0..4 {
        assert!(put_bytes(&engine, &arn(), 900_000).await);
    }
    engine
        .split_shard(&arn(), ShardId(0), HashKey(1 << 127))
        .await
        .unwrap();
    disk.set_capacity(Some(6 << 20));
    for bytes in [900_000, 90_000, 9_000, 900, 90, 0] {
        while put_bytes(&engine, &arn(), bytes).await {}
    }
    clock.advance_ms(25 * HOUR_MS);
    // The first sweep frees the space, whatever else it could not do.
    let _ = engine.sweep().await;
    assert!(put_bytes(&engine, &arn(), 900_000).await);
    engine.sweep().await.unwrap();
    assert!(!engine.stream(&arn()).unwrap().shards.contains_key(&0));
}

/// Without a delay a change is over at once, and stays over when the clock is set back.
#[tokio::test]
async fn a_clock_set_back_does_not_bring_a_state_back() {
    let (engine, clock) = engine(Limits::Off);
    engine.create_stream(new_stream(1)).await.unwrap();
    clock.set_ms(NOW_MS - HOUR_MS);
    assert_eq!(
        engine.stream(&arn()).unwrap().status(NOW_MS - HOUR_MS),
        Some(Status::Active)
    );
    put_one(&engine, "a", b"1").await;
    engine
        .split_shard(&arn(), ShardId(0), HashKey(1 << 127))
        .await
        .unwrap();
    clock.set_ms(NOW_MS - 2 * HOUR_MS);
    engine
        .merge_shards(&arn(), (ShardId(1), ShardId(2)))
        .await
        .unwrap();
}

/// The log publishes a seal before the catalog that names the children: a reader in between must come
/// again, and not end without them.
#[tokio::test]
async fn s3_a_reader_that_sees_the_seal_first_does_not_end_without_children() {
    let (engine, _) = engine(Limits::Off);
    engine.create_stream(new_stream(1)).await.unwrap();
    put_one(&engine, "a", b"1").await;
    let token = engine
        .shard_iterator(&arn(), "0", Start::TrimHorizon)
        .await
        .unwrap();
    let event = Event::TagsChanged {
        arn: arn(),
        set: BTreeMap::new(),
        remove: Vec::new(),
    };
    let shard = engine.stream(&arn()).unwrap().shards[&0].log_shard();
    let seal = Transaction {
        seal: vec![shard],
        ..change_only(&event)
    };
    engine.inner.log.commit(seal).await.unwrap();
    let page = engine.records(&token, 10).await.unwrap();
    assert_eq!(page.records.len(), 1);
    assert!(page.children.is_empty() && page.next_iterator.is_some());
}

/// Records keep the time of the newest before them when the clock is set back; a shard closed by that
/// clock must not take them away early.
#[tokio::test]
async fn s7_a_shard_closed_by_a_clock_set_back_keeps_its_records() {
    let (engine, clock) = engine(Limits::Off);
    engine.create_stream(new_stream(1)).await.unwrap();
    put_one(&engine, "a", b"1").await;
    clock.set_ms(NOW_MS - HOUR_MS);
    engine
        .split_shard(&arn(), ShardId(0), HashKey(1 << 127))
        .await
        .unwrap();
    clock.set_ms(NOW_MS + 24 * HOUR_MS - 1);
    engine.sweep().await.unwrap();
    assert_eq!(read_all(&engine, 0).await.0.len(), 1);
    clock.advance_ms(2);
    engine.sweep().await.unwrap();
    assert!(!engine.stream(&arn()).unwrap().shards.contains_key(&0));
}

/// Limits hold by region, and a signature may name any: what all of them keep is bounded as well.
#[tokio::test]
async fn s6_shards_of_all_regions_together_are_bounded() {
    let (engine, _) = engine(Limits::Off);
    let mut created = 0;
    for region in 0..10 {
        let arn = format!("arn:aws:kinesis:r-{region}:000000000000:stream/a");
        let stream = NewStream {
            arn: arn.parse().unwrap(),
            ..new_stream(10_000)
        };
        match engine.create_stream(stream).await {
            Ok(()) => created += 1,
            Err(Error::ShardLimit { .. }) => break,
            Err(error) => panic!("{error}"),
        }
    }
    assert!((1..10).contains(&created), "{created}");
    assert!(engine.catalog().owner_of(LogShard(0)).is_some());
}

/// A put finds its shard sealed, and what it must take to another one can go nowhere: what it has stored is not refused with it, or
/// its caller would put that again.
#[tokio::test]
async fn s5_what_is_stored_is_not_refused_for_what_cannot_be_put_any_more() {
    let (engine, _) = engine(Limits::Off);
    engine.create_stream(new_stream(2)).await.unwrap();
    engine.set_max_record_bytes(&arn(), 2 << 20).await.unwrap();
    let before = engine.stream(&arn()).unwrap();
    engine.set_max_record_bytes(&arn(), 1 << 20).await.unwrap();
    let key = HashKey(1 << 126);
    let split = engine.split_shard(&arn(), ShardId(0), key).await;
    split.unwrap();
    let (large, small) = (vec![7; (1 << 20) + 1], b"1");
    let (large, small) = (Blob::from(&large[..]), Blob::from(&small[..]));
    let entry = |data, hash_key| PutEntry {
        partition_key: "a",
        explicit_hash_key: Some(HashKey(hash_key)),
        data,
    };
    let (sealed, open) = (entry(&large, 0), entry(&small, u128::MAX));
    let outcomes = engine.put(&before, &[sealed, open]).await.unwrap();
    assert!(
        matches!(outcomes[0], Err(Refusal::Overloaded(_))),
        "{outcomes:?}"
    );
    assert_eq!(outcomes[1].as_ref().unwrap().shard, ShardId(1));
    // Where nothing is stored, the reason is told.
    let alone = engine.put(&before, &[sealed]).await;
    assert!(
        matches!(alone, Err(Error::RecordTooLarge { .. })),
        "{alone:?}"
    );
    engine.delete_stream(&arn()).await.unwrap();
    let gone = engine.put(&before, &[open]).await;
    assert!(matches!(gone, Err(Error::StreamNotFound(_))), "{gone:?}");
}

/// Goal: who reads from a stream that is deleted meanwhile is told so, and not of a failure inside. Method: the reader has looked at the catalog and
/// waits for memory when the stream goes.
#[tokio::test]
async fn s7_a_reader_of_a_stream_that_is_deleted_meanwhile_is_told_so() {
    let clock = ManualClock::at(NOW_MS);
    let settings = Settings {
        page_bytes: 0,
        ..OFF
    };
    let engine = engine_with(&clock, &MemoryDisk::new(), settings);
    engine.create_stream(new_stream(1)).await.unwrap();
    put_one(&engine, "a", b"one").await;
    let shard = ShardId(0).to_string();
    let token = engine
        .shard_iterator(&arn(), &shard, Start::TrimHorizon)
        .await
        .unwrap();
    let patience = Patience::of(Duration::from_mins(1));
    let all = engine.inner.pages.admit(u64::MAX, &patience).await.unwrap();
    let patient = engine.within(patience);
    let reading = tokio::spawn(async move { patient.records(&token, 10).await });
    tokio::task::yield_now().await;
    let before = engine.stream(&arn()).unwrap();
    engine.delete_stream(&arn()).await.unwrap();
    drop(all);
    let read = reading.await.unwrap();
    assert!(matches!(read, Err(Error::ShardGone { .. })), "{read:?}");
    // Who had looked at the catalog before, and asks the log after it.
    for start in [Start::TrimHorizon, Start::Latest, Start::AtTimestamp(0)] {
        let place = engine.position(&before, before.shards.values().next().unwrap(), start);
        let place = place.await;
        assert!(
            matches!(place, Err(Error::ShardNotFound { .. })),
            "{place:?}"
        );
    }
}
