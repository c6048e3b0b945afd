//! Scaling and settings: over random starting points of the catalog alone, and over a log in memory.

use super::*;
use crate::engine::options::{CommitmentStatus, Distribution, Metric};
use crate::engine::scale::{self, ROUNDING_KEYS};
use crate::engine::{MetricsChange, SettingError, ShardBound};
use millstream_wire::hash_key::HashKeyRange;
use std::collections::BTreeSet;

fn count(shards: u32) -> NonZeroU32 {
    NonZeroU32::new(shards).unwrap()
}

const MOMENT: Moment = Moment {
    now_ms: NOW_MS,
    state_delay_ms: 0,
    closing_ms: NOW_MS,
};

fn with_shards(shards: u32) -> Catalog {
    let mut catalog = Catalog::default();
    let first = reshard::first_shards(&catalog, count(shards), NOW_MS);
    let event = crate::engine::streams::creation_event(new_stream(shards), first, MOMENT);
    catalog.apply(&event.encode()).unwrap();
    catalog
}

/// Scales in place; whether anything changed.
fn scale_to(catalog: &mut Catalog, shards: u32) -> bool {
    let stream = Arc::clone(catalog.stored_stream(&arn()).unwrap());
    let Some(plan) = scale::plan(catalog, &stream, count(shards), MOMENT) else {
        return false;
    };
    let transaction = plan.transaction(&stream, Vec::new(), MOMENT);
    catalog.apply(&transaction.event).unwrap();
    let (created, sealed): (BTreeSet<_>, BTreeSet<_>) = (
        transaction.create.iter().copied().collect(),
        transaction.seal.iter().copied().collect(),
    );
    assert_eq!(created.len(), transaction.create.len(), "created once each");
    assert_eq!(sealed.len(), transaction.seal.len(), "sealed once each");
    let after = catalog.stored_stream(&arn()).unwrap();
    for shard in after.shards.values() {
        let log_shard = shard.log_shard();
        let before = stream.shards.get(&shard.index);
        assert_eq!(created.contains(&log_shard), before.is_none());
        let closed_now = !shard.is_open() && before.is_none_or(Shard::is_open);
        assert_eq!(sealed.contains(&log_shard), closed_now);
    }
    true
}

/// Every shard came by a split from one parent, or by a merge from two neighbours, and starts after them.
fn check_lineage(stream: &Stream) {
    for child in stream.shards.values() {
        let parents: Vec<&Shard> = child
            .parents()
            .map(|index| &stream.shards[&index])
            .collect();
        for parent in &parents {
            let ending = parent.ending_sequence().expect("a parent is closed");
            assert!(ending < child.starting_sequence(), "S2");
        }
        match parents[..] {
            [] => {}
            [parent] => {
                assert!(parent.range().contains(child.start) && parent.range().contains(child.end));
                assert_ne!(parent.range(), child.range());
            }
            [first, second] => {
                assert!(first.range().is_followed_by(&second.range()));
                assert_eq!((first.start, second.end), (child.start, child.end));
            }
            _ => unreachable!("two parents at most"),
        }
    }
}

fn check_even(stream: &Stream, shards: u32) {
    let ranges: Vec<_> = stream.open_shards().map(Shard::range).collect();
    assert!(hash_key::tiles(&ranges), "S4");
    let ideal = HashKeyRange::divide(count(shards));
    assert_eq!(ranges.len(), ideal.len());
    for (range, ideal) in ranges.iter().zip(ideal) {
        assert!(range.start.0.abs_diff(ideal.start.0) <= ROUNDING_KEYS);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn s4_scaling_any_stream_gives_equal_shards(
        choices in prop::collection::vec((any::<bool>(), any::<u32>(), any::<u128>()), 0..12),
        targets in prop::collection::vec(1u32..40, 1..5),
    ) {
        let (mut catalog, _) = reshard_at_random(&choices);
        for target in targets {
            scale_to(&mut catalog, target);
            let stream = catalog.stored_stream(&arn()).unwrap();
            check_even(stream, target);
            check_lineage(stream);
            prop_assert_eq!(&Catalog::decode(&catalog.encode()).unwrap(), &catalog);
        }
    }

    #[test]
    fn s4_scaling_new_streams_gives_the_even_division(from in 1u32..200, to in 1u32..200) {
        let mut catalog = with_shards(from);
        prop_assert_eq!(scale_to(&mut catalog, to), from != to);
        check_even(catalog.stored_stream(&arn()).unwrap(), to);
        prop_assert!(!scale_to(&mut catalog, to), "a second time changes nothing");
    }
}

#[test]
fn doubling_is_splits_and_halving_is_merges_only() {
    for shards in [1, 2, 3, 5, 7, 64, 100] {
        let mut catalog = with_shards(shards);
        scale_to(&mut catalog, 2 * shards);
        let stream = Arc::clone(catalog.stored_stream(&arn()).unwrap());
        assert_eq!(stream.shards.len(), 3 * usize::try_from(shards).unwrap());
        scale_to(&mut catalog, shards);
        let stream = catalog.stored_stream(&arn()).unwrap();
        assert_eq!(stream.shards.len(), 4 * usize::try_from(shards).unwrap());
        check_lineage(stream);
    }
}

#[test]
fn four_to_five_is_eight_pieces_and_three_merges() {
    let mut catalog = with_shards(4);
    scale_to(&mut catalog, 5);
    let stream = catalog.stored_stream(&arn()).unwrap();
    assert_eq!(stream.shards.len(), 4 + 8 + 3);
    let ranges: Vec<_> = stream.open_shards().map(Shard::range).collect();
    assert_eq!(ranges, HashKeyRange::divide(count(5)));
}

#[tokio::test]
async fn s1_s4_s5_a_scaled_stream_is_read_to_its_end_after_a_restart() {
    let (clock, disk) = (ManualClock::at(NOW_MS), MemoryDisk::new());
    let settings = Settings {
        limits: Limits::Off,
        state_delay_ms: 0,
        ..Settings::default()
    };
    let engine = engine_with(&clock, &disk, settings);
    engine.create_stream(new_stream(4)).await.unwrap();
    for n in 0..50 {
        put_one(&engine, &n.to_string(), b"before").await;
    }
    assert_eq!(
        engine.update_shard_count(&arn(), count(5)).await.unwrap(),
        4
    );
    for n in 0..50 {
        put_one(&engine, &n.to_string(), b"after").await;
    }
    let before = engine.catalog();
    engine.close().await;
    let engine = engine_with(&clock, &disk, settings);
    assert_eq!(engine.catalog(), before);
    let stream = engine.stream(&arn()).unwrap();
    let mut read = 0;
    for shard in stream.shards.values() {
        let (records, children) = read_all(&engine, shard.index).await;
        read += records.len();
        assert_eq!(children.is_empty(), shard.is_open(), "{shard:?}");
    }
    assert_eq!(read, 100);
    engine
        .update_shard_count(&arn(), count(1_000))
        .await
        .unwrap();
    assert_eq!(engine.stream(&arn()).unwrap().open_shard_count(), 1_000);
    clock.advance_ms(25 * 3_600_000);
    engine.sweep().await.unwrap();
    assert_eq!(engine.stream(&arn()).unwrap().shards.len(), 1_000);
}

#[tokio::test]
async fn the_shards_on_the_way_count_against_the_bound_of_all_shards() {
    let (engine, _) = engine(Limits::Off);
    engine.create_stream(new_stream(1)).await.unwrap();
    let mut refused = None;
    for target in [9_999, 5_000, 9_999, 5_000, 9_999, 5_000] {
        if let Err(error) = engine.update_shard_count(&arn(), count(target)).await {
            refused = Some(error);
            break;
        }
    }
    assert!(
        matches!(refused, Some(Error::ShardLimit { limit: 50_000, .. })),
        "{refused:?}"
    );
    let stream = engine.stream(&arn()).unwrap();
    assert!(stream.shards.len() <= 50_000);
}

#[tokio::test]
async fn the_accounts_of_any_region_are_bounded() {
    let (engine, _) = engine(Limits::Off);
    let account = &arn().account;
    let region = |n: u32| format!("region-{n}").parse().unwrap();
    for n in 0..1_000 {
        engine
            .switch_commitment(account, &region(n), true)
            .await
            .unwrap();
    }
    let more = engine
        .switch_commitment(account, &region(1_000), true)
        .await;
    assert!(matches!(more, Err(Error::Overloaded)), "{more:?}");
    engine
        .switch_commitment(account, &region(7), false)
        .await
        .unwrap();
}

fn refused<T: std::fmt::Debug>(result: Result<T, Error>) -> SettingError {
    match result {
        Err(Error::Setting { refused, .. }) => refused,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn scaling_keeps_to_the_limits_of_aws() {
    let (engine, clock) = engine(Limits::Aws);
    engine.create_stream(new_stream(4)).await.unwrap();
    for (target, bound) in [
        (501, ShardBound::AtMost(500)),
        (9, ShardBound::Double),
        (1, ShardBound::Half),
    ] {
        let error = refused(engine.update_shard_count(&arn(), count(target)).await);
        let (current, target) = (4, usize::try_from(target).unwrap());
        assert_eq!(
            error,
            SettingError::ShardTarget {
                current,
                target,
                bound
            }
        );
    }
    for round in 0..10 {
        let target = if round % 2 == 0 { 5 } else { 4 };
        engine
            .update_shard_count(&arn(), count(target))
            .await
            .unwrap();
    }
    let error = refused(engine.update_shard_count(&arn(), count(5)).await);
    assert!(matches!(error, SettingError::TooOften { times: 10, .. }));
    clock.advance_ms(24 * 3_600_000);
    engine.update_shard_count(&arn(), count(5)).await.unwrap();
}

#[tokio::test]
async fn on_demand_streams_are_scaled_by_warm_throughput_only() {
    let (engine, clock) = engine(Limits::Aws);
    engine.create_stream(new_stream(2)).await.unwrap();
    let stream = arn();
    let warm = || engine.set_warm_throughput(&stream, 8);
    assert!(matches!(
        refused(warm().await),
        SettingError::NotOnDemand(_)
    ));
    let auto = || engine.set_distribution(&stream, Distribution::Auto);
    assert!(matches!(
        refused(auto().await),
        SettingError::NotOnDemand(_)
    ));
    engine
        .set_mode(&arn(), StreamMode::OnDemand, None)
        .await
        .unwrap();
    let scaled = engine.update_shard_count(&arn(), count(3)).await;
    assert_eq!(refused(scaled), SettingError::OnDemand);
    let split = engine
        .split_shard(&arn(), ShardId(0), HashKey(1 << 100))
        .await;
    assert_eq!(refused(split), SettingError::OnDemand);
    assert_eq!(refused(warm().await), SettingError::NoCommitment);
    let (account, region) = (&arn().account, &arn().region);
    engine
        .switch_commitment(account, region, true)
        .await
        .unwrap();
    let ready = warm().await.unwrap();
    assert_eq!((ready.target_mibps, ready.current_mibps), (8, 8));
    assert_eq!(engine.stream(&arn()).unwrap().open_shard_count(), 8);
    let cooled = engine.set_warm_throughput(&arn(), 0).await.unwrap();
    assert_eq!((cooled.target_mibps, cooled.current_mibps), (0, 4));
    auto().await.unwrap();
    let mut used = BTreeSet::new();
    for _ in 0..16 {
        used.insert(put_one(&engine, "same key", b"x").await.shard);
    }
    assert_eq!(used.len(), 4, "records of one key are spread");
    engine
        .set_mode(&arn(), StreamMode::Provisioned, None)
        .await
        .unwrap();
    let stream = engine.stream(&arn()).unwrap();
    assert_eq!(stream.options.distribution, Distribution::UserPartitionKey);
    let third = engine.set_mode(&arn(), StreamMode::OnDemand, None).await;
    assert!(matches!(
        refused(third),
        SettingError::TooOften { times: 2, .. }
    ));

    let off = engine
        .switch_commitment(account, region, false)
        .await
        .unwrap();
    let status = |now_ms| off.status(now_ms);
    assert_eq!(status(NOW_MS), CommitmentStatus::EnabledUntilEarliestEnd);
    clock.advance_ms(24 * 3_600_000);
    assert_eq!(status(engine.now_ms()), CommitmentStatus::Disabled);
}

#[tokio::test]
async fn records_are_encrypted_while_their_stream_is() {
    let (engine, clock) = engine(Limits::Off);
    engine.create_stream(new_stream(1)).await.unwrap();
    put_one(&engine, "a", b"1").await;
    clock.advance_ms(1_000);
    let key = "alias/aws/kinesis".to_owned();
    engine.start_encryption(&arn(), key.clone()).await.unwrap();
    put_one(&engine, "a", b"2").await;
    assert_eq!(engine.stream(&arn()).unwrap().options.key(), Some(&*key));
    clock.advance_ms(1_000);
    engine.stop_encryption(&arn()).await.unwrap();
    put_one(&engine, "a", b"3").await;
    assert_eq!(engine.stream(&arn()).unwrap().options.key(), None);
    let (records, _) = read_all(&engine, 0).await;
    let encrypted: Vec<_> = records.iter().map(|record| record.encrypted).collect();
    assert_eq!(encrypted, [false, true, false]);
}

#[tokio::test]
async fn s1_settings_survive_a_restart_and_older_data_opens() {
    let (clock, disk) = (ManualClock::at(NOW_MS), MemoryDisk::new());
    let settings = Settings {
        limits: Limits::Aws,
        state_delay_ms: 0,
        ..Settings::default()
    };
    let engine = engine_with(&clock, &disk, settings);
    engine.create_stream(new_stream(1)).await.unwrap();
    let metrics = BTreeSet::from([Metric::IncomingBytes, Metric::OutgoingBytes]);
    let enable = MetricsChange::Enable;
    engine
        .change_metrics(&arn(), enable, &metrics)
        .await
        .unwrap();
    let one = BTreeSet::from([Metric::OutgoingBytes]);
    let disable = MetricsChange::Disable;
    let (before, after) = engine.change_metrics(&arn(), disable, &one).await.unwrap();
    assert_eq!((before, after.len()), (metrics, 1));
    engine.set_max_record_bytes(&arn(), 4 << 20).await.unwrap();
    engine
        .set_policy(&arn(), Some("{}".to_owned()))
        .await
        .unwrap();
    engine
        .start_encryption(&arn(), "alias/a".to_owned())
        .await
        .unwrap();
    let (account, region) = (&arn().account, &arn().region);
    engine
        .switch_commitment(account, region, true)
        .await
        .unwrap();
    let before = engine.catalog();
    engine.close().await;
    let reopened = engine_with(&clock, &disk, settings);
    assert_eq!(reopened.catalog(), before);
    assert!(reopened.commitment(account, region).holds(NOW_MS));

    // As the version before wrote it: no options, no accounts.
    let mut json: serde_json::Value =
        serde_json::from_slice(&with_shards(2).encode()[1..]).unwrap();
    json.as_object_mut().unwrap().remove("accounts").unwrap();
    let stream = json["streams"][0].as_object_mut().unwrap();
    stream.remove("options").unwrap();
    let mut bytes = vec![1];
    serde_json::to_writer(&mut bytes, &json).unwrap();
    assert_eq!(Catalog::decode(&bytes).unwrap(), with_shards(2));
}

#[tokio::test]
async fn the_largest_records_are_taken_and_read_once_the_stream_allows_them() {
    let (engine, _) = engine(Limits::Aws);
    engine.create_stream(new_stream(1)).await.unwrap();
    engine.set_max_record_bytes(&arn(), 10 << 20).await.unwrap();
    let data = vec![7; (10 << 20) - 1];
    let blob = Blob::from(&data[..]);
    let entry = PutEntry {
        partition_key: "a",
        explicit_hash_key: None,
        data: &blob,
    };
    assert!(put(&engine, &[entry]).await.unwrap()[0].is_ok());
    let start = engine.shard_iterator(&arn(), "0", Start::TrimHorizon).await;
    let page = engine.records(&start.unwrap(), 10).await.unwrap();
    assert_eq!(page.records[0].data().len(), data.len());
}

/// Writers race with scaling; every record that was placed is in its shard, once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s5_nothing_is_lost_or_added_while_a_stream_is_scaled() {
    let (engine, _) = engine(Limits::Off);
    engine.create_stream(new_stream(1)).await.unwrap();
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let engine = engine.clone();
            tokio::spawn(async move {
                let mut placed = Vec::new();
                for n in 0..100 {
                    placed.push(put_one(&engine, &format!("{writer}-{n}"), b"x").await);
                }
                placed
            })
        })
        .collect();
    let mut closed = Vec::new();
    for target in [2, 3, 7, 4, 8, 5, 1] {
        let open: Vec<Shard> = engine
            .stream(&arn())
            .unwrap()
            .open_shards()
            .cloned()
            .collect();
        engine
            .update_shard_count(&arn(), count(target))
            .await
            .unwrap();
        let stream = engine.stream(&arn()).unwrap();
        for shard in open
            .iter()
            .filter(|shard| !stream.shards[&shard.index].is_open())
        {
            closed.push((shard.index, read_all(&engine, shard.index).await.0.len()));
        }
    }
    let mut placed = Vec::new();
    for writer in writers {
        placed.extend(writer.await.unwrap());
    }
    for (shard, before) in closed {
        let after = read_all(&engine, shard).await.0.len();
        assert_eq!(after, before, "shard {shard} grew after it was closed");
    }
    let mut stored = BTreeSet::new();
    for shard in engine.stream(&arn()).unwrap().shards.keys() {
        let (records, _) = read_all(&engine, *shard).await;
        stored.extend(records.iter().map(|record| record.sequence));
    }
    let placed: BTreeSet<_> = placed.iter().map(|one| one.sequence).collect();
    assert_eq!((stored.len(), stored == placed), (400, true));
}
