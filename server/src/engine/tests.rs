//! Guarantees of the engine: over random reshards of the catalog alone, and over a log in memory.

mod races;
mod retained;

use super::catalog::{Catalog, Event, Shard, Status, Stream, StreamMode};
use super::reshard::{self, Moment, Refused};
use super::{Engine, Error, Limits, NewStream, PutEntry, RetentionChange, Settings, Start};
use crate::clock::ManualClock;

pub(crate) use crate::log::MemoryDisk;
use crate::log::{Log, LogConfig, LogShard, Metadata, Transaction};
use crate::patience::{Patience, ROOM_WAIT};
use millstream_wire::shapes::Blob;
use millstream_wire::{HashKey, ShardId, StreamArn, hash_key};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

mod settings;

pub(crate) const NOW_MS: u64 = 1_750_000_000_000;

pub(crate) fn arn() -> StreamArn {
    "arn:aws:kinesis:us-east-1:000000000000:stream/orders"
        .parse()
        .unwrap()
}

pub(crate) fn new_stream(shards: u32) -> NewStream {
    NewStream {
        arn: arn(),
        shards: NonZeroU32::new(shards).unwrap(),
        mode: StreamMode::Provisioned,
        retention_hours: 24,
        max_record_bytes: 1_048_576,
        tags: BTreeMap::new(),
    }
}

/// An engine over a log in memory; the layers above use it in their tests too.
pub(crate) fn engine_with(
    clock: &Arc<ManualClock>,
    disk: &MemoryDisk,
    settings: Settings,
) -> Engine {
    let config = LogConfig {
        segment_bytes: 1 << 20,
        rewrite_bytes_per_second: 0,
        ..LogConfig::default()
    };
    engine_over(clock, disk, config, settings)
}

/// One that has nothing in memory, and room for so many bytes of what it reads.
pub(crate) fn engine_that_reads_files(
    clock: &Arc<ManualClock>,
    disk: &MemoryDisk,
    settings: Settings,
    read_bytes: usize,
) -> Engine {
    let config = LogConfig {
        tail_cache_bytes: 0,
        read_bytes,
        ..LogConfig::default()
    };
    engine_over(clock, disk, config, settings)
}

fn engine_over(
    clock: &Arc<ManualClock>,
    disk: &MemoryDisk,
    config: LogConfig,
    settings: Settings,
) -> Engine {
    let log = Log::open(
        Arc::new(disk.clone()),
        config,
        clock.clone(),
        Catalog::default(),
    );
    Engine::new(log.unwrap(), clock.clone(), settings)
}

pub(crate) fn engine(limits: Limits) -> (Engine, Arc<ManualClock>) {
    let clock = ManualClock::at(NOW_MS);
    let settings = Settings {
        limits,
        state_delay_ms: 0,
        ..Settings::default()
    };
    (engine_with(&clock, &MemoryDisk::new(), settings), clock)
}

/// Puts into the stream of these tests.
async fn put(
    engine: &Engine,
    entries: &[PutEntry<'_>],
) -> Result<Vec<Result<super::Placed, super::Refusal>>, Error> {
    let stream = engine.writable_stream(&arn())?;
    engine.put(&stream, entries).await
}

pub(crate) async fn put_one(engine: &Engine, key: &str, data: &'static [u8]) -> super::Placed {
    let blob = Blob::from(data);
    let entry = PutEntry {
        partition_key: key,
        explicit_hash_key: None,
        data: &blob,
    };
    put(engine, &[entry]).await.unwrap().remove(0).unwrap()
}

async fn read_all(engine: &Engine, shard: u32) -> (Vec<super::read::ReadRecord>, Vec<Shard>) {
    let id = ShardId(shard).to_string();
    let mut token = Some(
        engine
            .shard_iterator(&arn(), &id, Start::TrimHorizon)
            .await
            .unwrap(),
    );
    let (mut records, mut children) = (Vec::new(), Vec::new());
    while let Some(at) = token {
        let page = engine.records(&at, 7).await.unwrap();
        if page.records.is_empty() && page.next_iterator.is_some() {
            break;
        }
        records.extend(page.records);
        children = page.children;
        token = page.next_iterator;
    }
    (records, children)
}

/// Those who read until they are 0 ms behind stop at the tip and not before, whatever the clock says.
#[tokio::test]
async fn s3_zero_behind_is_said_at_the_tip_only() {
    let (engine, clock) = engine(Limits::Off);
    engine.create_stream(new_stream(1)).await.unwrap();
    for data in [b"a", b"b", b"c"] {
        put_one(&engine, "key", data).await;
    }
    clock.set_ms(NOW_MS - 1000);
    let id = ShardId(0).to_string();
    let mut at = engine
        .shard_iterator(&arn(), &id, Start::TrimHorizon)
        .await
        .unwrap();
    let mut behind = Vec::new();
    for _ in 0..3 {
        let page = engine.records(&at, 1).await.unwrap();
        behind.push(page.millis_behind_latest > 0);
        at = page.next_iterator.unwrap();
    }
    assert_eq!(behind, [true, true, false]);
}

/// Applies `choices` as splits and merges wherever they are possible.
fn reshard_at_random(choices: &[(bool, u32, u128)]) -> (Catalog, Vec<Stream>) {
    let mut catalog = Catalog::default();
    let moment = Moment {
        now_ms: NOW_MS,
        state_delay_ms: 0,
        closing_ms: NOW_MS,
    };
    let shards = reshard::first_shards(&catalog, NonZeroU32::new(3).unwrap(), NOW_MS);
    catalog
        .apply(&super::streams::creation_event(new_stream(3), shards, moment).encode())
        .unwrap();
    let mut history = Vec::new();
    for (split, pick, key) in choices {
        let stream = Stream::clone(catalog.stored_stream(&arn()).unwrap());
        let open: Vec<Shard> = stream.open_shards().cloned().collect();
        let picked = &open[usize::try_from(*pick).unwrap() % open.len()];
        let plan: Result<Transaction, Refused> = if *split {
            reshard::split(&catalog, &stream, picked.id(), HashKey(*key), moment)
        } else {
            let next = open
                .iter()
                .find(|shard| picked.range().is_followed_by(&shard.range()));
            let second = next.map_or(picked.id(), Shard::id);
            reshard::merge(&catalog, &stream, (picked.id(), second), moment)
        };
        if let Ok(transaction) = plan {
            catalog.apply(&transaction.event).unwrap();
        }
        history.push(stream);
    }
    (catalog, history)
}

proptest! {
    #[test]
    fn s4_random_reshards_keep_the_space_tiled(
        choices in prop::collection::vec((any::<bool>(), any::<u32>(), any::<u128>()), 0..40),
        probe: u128,
    ) {
        let (catalog, _) = reshard_at_random(&choices);
        let stream = catalog.stored_stream(&arn()).unwrap();
        let ranges: Vec<_> = stream.open_shards().map(Shard::range).collect();
        prop_assert!(hash_key::tiles(&ranges));
        prop_assert!(stream.shard_of(HashKey(probe)).unwrap().range().contains(HashKey(probe)));
    }

    #[test]
    fn s2_children_start_after_their_parents_end(
        choices in prop::collection::vec((any::<bool>(), any::<u32>(), any::<u128>()), 0..40),
    ) {
        let (catalog, _) = reshard_at_random(&choices);
        let stream = catalog.stored_stream(&arn()).unwrap();
        for child in stream.shards.values() {
            for parent in child.parents() {
                let ending = stream.shards[&parent].ending_sequence().unwrap();
                prop_assert!(ending < child.starting_sequence());
            }
        }
    }

    #[test]
    fn the_stored_catalog_is_the_catalog(
        choices in prop::collection::vec((any::<bool>(), any::<u32>(), any::<u128>()), 0..20),
    ) {
        let (catalog, _) = reshard_at_random(&choices);
        let decoded = Catalog::decode(&catalog.encode()).unwrap();
        prop_assert_eq!(&decoded, &catalog);
        for catalog in [&catalog, &decoded] {
            let (mut owned, mut highest) = (0, 0);
            for stream in catalog.stored_streams() {
                for shard in stream.shards.values() {
                    let (owner, id) = catalog.owner_of(shard.log_shard()).unwrap();
                    prop_assert_eq!((&owner.arn, id), (&stream.arn, shard.id()));
                    owned += 1;
                    highest = highest.max(shard.log_shard);
                }
            }
            let found = (0..=highest + 1).filter(|log_shard| catalog.owner_of(LogShard(*log_shard)).is_some());
            prop_assert_eq!(found.count(), owned);
        }
    }

    #[test]
    fn s8_any_bytes_decode_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Catalog::decode(&bytes);
        let _ = Catalog::default().apply(&bytes);
    }
}

/// That nothing changed is up to the log, which gives a copy.
#[test]
fn a_bad_event_is_refused() {
    let (mut catalog, _) = reshard_at_random(&[(true, 0, 1 << 100)]);
    let event = Event::Resharded {
        arn: arn(),
        parents: vec![1],
        children: Vec::new(),
        closed_ms: 1,
        active_ms: 1,
    };
    assert!(catalog.apply(&event.encode()).is_err());
}

#[tokio::test]
async fn s2_sequence_numbers_increase_and_reads_return_them() {
    let (engine, _) = engine(Limits::Off);
    engine.create_stream(new_stream(1)).await.unwrap();
    let mut placed = Vec::new();
    for _ in 0..20 {
        placed.push(put_one(&engine, "a", b"x").await.sequence);
    }
    assert!(placed.windows(2).all(|pair| pair[0] < pair[1]));
    let (records, _) = read_all(&engine, 0).await;
    assert_eq!(
        records.iter().map(|r| r.sequence).collect::<Vec<_>>(),
        placed
    );
    assert!(
        records
            .iter()
            .all(|r| r.partition_key() == "a" && r.data() == b"x")
    );
}

#[tokio::test]
async fn a_closed_shard_ends_with_its_children() {
    let (engine, _) = engine(Limits::Off);
    engine.create_stream(new_stream(1)).await.unwrap();
    put_one(&engine, "a", b"1").await;
    engine
        .split_shard(&arn(), ShardId(0), HashKey(1 << 127))
        .await
        .unwrap();
    let placed = put_one(&engine, "a", b"2").await;
    assert_ne!(placed.shard, ShardId(0));
    let (records, children) = read_all(&engine, 0).await;
    assert_eq!(records.len(), 1);
    assert_eq!(
        children.iter().map(Shard::id).collect::<Vec<_>>(),
        [ShardId(1), ShardId(2)]
    );
    engine
        .merge_shards(&arn(), (ShardId(1), ShardId(2)))
        .await
        .unwrap();
    let again = engine.merge_shards(&arn(), (ShardId(1), ShardId(2))).await;
    assert!(matches!(again, Err(Error::NotAdjacent { .. })), "{again:?}");
    let (_, children) = read_all(&engine, 2).await;
    assert_eq!(children.len(), 1);
    assert_eq!(children[0].parents().collect::<Vec<_>>(), [1, 2]);
}

/// Writers race with splits and merges; every record that was placed is in its shard, and nothing is
/// after the end of a closed shard that was read before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s5_nothing_lands_in_a_closed_shard() {
    let (engine, _) = engine(Limits::Off);
    engine.create_stream(new_stream(1)).await.unwrap();
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let engine = engine.clone();
            tokio::spawn(async move {
                let mut placed = Vec::new();
                for n in 0..200 {
                    placed.push(put_one(&engine, &format!("{writer}-{n}"), b"x").await);
                }
                placed
            })
        })
        .collect();
    let mut closed = Vec::new();
    for round in 0..10u32 {
        let stream = engine.stream(&arn()).unwrap();
        let open: Vec<Shard> = stream.open_shards().cloned().collect();
        if open.len() == 1 {
            let middle = HashKey(1 << 127);
            engine
                .split_shard(&arn(), open[0].id(), middle)
                .await
                .unwrap();
        } else {
            engine
                .merge_shards(&arn(), (open[0].id(), open[1].id()))
                .await
                .unwrap();
        }
        for parent in open {
            closed.push((parent.index, read_all(&engine, parent.index).await.0.len()));
        }
        assert!(round < 10);
    }
    let mut placed = Vec::new();
    for writer in writers {
        placed.extend(writer.await.unwrap());
    }
    for (shard, count) in closed {
        let (records, _) = read_all(&engine, shard).await;
        assert_eq!(
            records.len(),
            count,
            "shard {shard} grew after it was closed"
        );
    }
    let stream = engine.stream(&arn()).unwrap();
    let mut stored = 0;
    for shard in stream.shards.keys() {
        let (records, _) = read_all(&engine, *shard).await;
        stored += records.len();
        for one in placed.iter().filter(|one| one.shard.0 == *shard) {
            assert!(records.iter().any(|record| record.sequence == one.sequence));
        }
    }
    assert_eq!((stored, placed.len()), (800, 800));
}

#[tokio::test]
async fn s7_older_records_are_not_served_and_expired_shards_vanish() {
    let (engine, clock) = engine(Limits::Off);
    engine.create_stream(new_stream(1)).await.unwrap();
    put_one(&engine, "a", b"old").await;
    engine
        .split_shard(&arn(), ShardId(0), HashKey(1 << 127))
        .await
        .unwrap();
    clock.advance_ms(23 * 3_600_000);
    put_one(&engine, "a", b"new").await;
    assert_eq!(read_all(&engine, 0).await.0.len(), 1);
    clock.advance_ms(2 * 3_600_000);
    engine.sweep().await.unwrap();
    let gone = engine
        .shard_iterator(&arn(), "shardId-000000000000", Start::TrimHorizon)
        .await;
    assert!(matches!(gone, Err(Error::ShardNotFound { .. })), "{gone:?}");
    let mut kept = 0;
    for shard in [1, 2] {
        kept += read_all(&engine, shard).await.0.len();
    }
    assert_eq!(kept, 1);
    clock.advance_ms(24 * 3_600_000);
    for shard in [1, 2] {
        assert!(read_all(&engine, shard).await.0.is_empty());
    }
}

#[tokio::test]
async fn latest_sees_what_comes_after_it_and_at_timestamp_what_came_since() {
    let (engine, clock) = engine(Limits::Off);
    engine.create_stream(new_stream(1)).await.unwrap();
    put_one(&engine, "a", b"1").await;
    let latest = engine
        .shard_iterator(&arn(), "0", Start::Latest)
        .await
        .unwrap();
    clock.advance_ms(1_000);
    put_one(&engine, "a", b"2").await;
    let page = engine.records(&latest, 10).await.unwrap();
    assert_eq!(
        page.records
            .iter()
            .map(super::read::ReadRecord::data)
            .collect::<Vec<_>>(),
        [b"2"]
    );
    let since = Start::AtTimestamp(NOW_MS + 1);
    let token = engine.shard_iterator(&arn(), "0", since).await.unwrap();
    assert_eq!(engine.records(&token, 10).await.unwrap().records.len(), 1);
    let future = engine
        .shard_iterator(&arn(), "0", Start::AtTimestamp(NOW_MS + 1_001))
        .await;
    assert!(matches!(future, Err(Error::FutureTimestamp { .. })));
}

#[tokio::test]
async fn sequence_numbers_of_other_shards_are_refused() {
    let (engine, _) = engine(Limits::Off);
    engine.create_stream(new_stream(2)).await.unwrap();
    let stream = engine.stream(&arn()).unwrap();
    let own = stream.shards[&0].starting_sequence();
    let ok = engine
        .shard_iterator(&arn(), "0", Start::AtSequence(own))
        .await;
    assert!(ok.is_ok());
    let foreign = engine
        .shard_iterator(&arn(), "1", Start::AfterSequence(own))
        .await;
    assert!(
        matches!(foreign, Err(Error::SequenceOfOtherShard { .. })),
        "{foreign:?}"
    );
}

#[tokio::test]
async fn a_throttled_record_holds_back_those_after_it() {
    let (engine, clock) = engine(Limits::Aws);
    engine.create_stream(new_stream(1)).await.unwrap();
    let data = vec![0; 900_000];
    let (large, small) = (Blob::from(&data[..]), Blob::from(&b"x"[..]));
    let entry = |data| PutEntry {
        partition_key: "a",
        explicit_hash_key: None,
        data,
    };
    let entries = [entry(&large), entry(&large), entry(&small)];
    let outcomes = put(&engine, &entries).await.unwrap();
    assert!(outcomes[0].is_ok() && outcomes[1].is_err() && outcomes[2].is_err());
    clock.advance_ms(1_000);
    assert!(put(&engine, &entries[1..2]).await.unwrap()[0].is_ok());
}

#[tokio::test]
async fn streams_go_through_their_states() {
    let clock = ManualClock::at(NOW_MS);
    let settings = Settings {
        limits: Limits::Off,
        state_delay_ms: 500,
        ..Settings::default()
    };
    let engine = engine_with(&clock, &MemoryDisk::new(), settings);
    engine.create_stream(new_stream(1)).await.unwrap();
    let status = |at: u64| engine.stream(&arn()).unwrap().status(at);
    assert_eq!(status(NOW_MS), Some(Status::Creating));
    let blob = Blob::from(&b"x"[..]);
    let entry = PutEntry {
        partition_key: "a",
        explicit_hash_key: None,
        data: &blob,
    };
    let early = put(&engine, &[entry]).await;
    assert!(matches!(early, Err(Error::StreamNotFound(_))), "{early:?}");
    clock.advance_ms(500);
    assert_eq!(status(NOW_MS + 500), Some(Status::Active));
    let raised = engine
        .set_retention(&arn(), 48, RetentionChange::Increase)
        .await;
    assert!(raised.is_ok());
    let busy = engine
        .split_shard(&arn(), ShardId(0), HashKey(1 << 127))
        .await;
    assert!(
        matches!(busy, Err(Error::StreamNotActive { .. })),
        "{busy:?}"
    );
    clock.advance_ms(500);
    engine.delete_stream(&arn()).await.unwrap();
    assert_eq!(status(NOW_MS + 1_000), Some(Status::Deleting));
    clock.advance_ms(500);
    assert!(matches!(
        engine.stream(&arn()),
        Err(Error::StreamNotFound(_))
    ));
    engine.create_stream(new_stream(2)).await.unwrap();
    assert_eq!(engine.stream(&arn()).unwrap().shards.len(), 2);
}

#[tokio::test]
async fn s1_metadata_survives_a_restart() {
    let clock = ManualClock::at(NOW_MS);
    let disk = MemoryDisk::new();
    let settings = Settings {
        limits: Limits::Off,
        state_delay_ms: 0,
        ..Settings::default()
    };
    let engine = engine_with(&clock, &disk, settings);
    engine.create_stream(new_stream(2)).await.unwrap();
    engine
        .split_shard(&arn(), ShardId(0), HashKey(1 << 100))
        .await
        .unwrap();
    let tags = BTreeMap::from([("team".to_owned(), "data".to_owned())]);
    engine
        .change_tags(&arn(), tags.clone(), Vec::new())
        .await
        .unwrap();
    engine
        .set_retention(&arn(), 48, RetentionChange::Increase)
        .await
        .unwrap();
    let before = engine.catalog();
    engine.close().await;
    let reopened = engine_with(&clock, &disk, settings);
    assert_eq!(reopened.catalog(), before);
    assert_eq!(reopened.stream(&arn()).unwrap().tags, tags);
}

#[tokio::test]
async fn retention_moves_only_the_way_the_operation_says() {
    let (engine, _) = engine(Limits::Off);
    engine.create_stream(new_stream(1)).await.unwrap();
    for (hours, direction, ok) in [
        (24, RetentionChange::Increase, true),
        (48, RetentionChange::Increase, true),
        (24, RetentionChange::Increase, false),
        (8_761, RetentionChange::Increase, false),
        (72, RetentionChange::Decrease, false),
        (23, RetentionChange::Decrease, false),
        (-1, RetentionChange::Decrease, false),
        (24, RetentionChange::Decrease, true),
    ] {
        let result = engine.set_retention(&arn(), hours, direction).await;
        assert_eq!(result.is_ok(), ok, "{hours} {direction:?}: {result:?}");
    }
}

/// A reader waits for its share of the pages, and then in vain for its share of what is read from files: less than 50 ms in all.
#[tokio::test(start_paused = true)]
async fn s6_the_waits_of_a_reader_together_are_less_than_50_ms() {
    let clock = ManualClock::at(NOW_MS);
    let settings = Settings {
        page_bytes: super::PAGE_MAX_BYTES,
        limits: Limits::Off,
        ..Settings::default()
    };
    // One reader at a time.
    let engine = engine_that_reads_files(&clock, &MemoryDisk::new(), settings, 1);
    engine.create_stream(new_stream(1)).await.unwrap();
    put_one(&engine, "k", b"data").await;
    let arn = arn();
    let start = engine.shard_iterator(&arn, "shardId-000000000000", Start::TrimHorizon);
    let start = start.await.unwrap();
    let _read = engine.records(&start, 1).await.unwrap();
    let none = Patience::default();
    let pages = engine.inner.pages.admit(9_999, &none).await.unwrap();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(30)).await;
        drop(pages);
    });
    let began = tokio::time::Instant::now();
    let reader = engine.within(Patience::of(ROOM_WAIT));
    let refused = reader.records(&start, 1).await.unwrap_err();
    let waited = began.elapsed();
    assert!(matches!(refused, Error::Overloaded), "{refused}");
    assert!(
        (Duration::from_millis(30)..Duration::from_millis(50)).contains(&waited),
        "{waited:?}"
    );
}
