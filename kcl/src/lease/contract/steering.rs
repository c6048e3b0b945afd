//! What operators see and do: K3 and K1 of a reset, and what it leaves alone.

use super::*;
use std::collections::BTreeMap;

fn reset_to(shards: &[&str], checkpoint: Position, condition: ResetCondition) -> Reset {
    let start = |shard: &&str| NewLease {
        checkpoint,
        ..new_lease(shard, &[])
    };
    Reset {
        by: "anna".to_owned(),
        asked: format!("{checkpoint}"),
        condition,
        whole_stream: None,
        starts: shards.iter().map(start).collect(),
    }
}

pub(super) async fn applications_are_named_in_order(stores: Stores) {
    assert!(stores.one.applications().await.unwrap().is_empty());
    for application in ["b", "a"] {
        let leases = [new_lease("s", &[])];
        stores
            .one
            .create_leases(application, &leases)
            .await
            .unwrap();
    }
    let profile = WorkerProfile::default();
    stores.one.register("c", "w", &profile).await.unwrap();
    stores.one.snapshot("nobody's").await.unwrap();
    assert_eq!(stores.other.applications().await.unwrap(), ["a", "b", "c"]);
}

pub(super) async fn k10_operators_see_since_when_a_lease_is_owned_and_what_troubles_it(
    stores: Stores,
) {
    let worker = holder(&stores.one, "w1", &["a", "b"]).await;
    let inspect = async || stores.other.inspect(APP).await.unwrap();
    let first = inspect().await;
    assert_eq!(first.snapshot, stores.one.snapshot(APP).await.unwrap());
    assert!(first.troubles.is_empty());
    let since = first.owned_since_ms[&key("a")];
    assert!(since > 1_600_000_000_000, "{since}");
    // A checkpoint and a request leave it alone, a new owner does not.
    let mine = token(&lease(&stores.one, "a").await);
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    stores.one.checkpoint(APP, &mine, &at(3)).await.unwrap();
    assert_eq!(inspect().await.owned_since_ms, first.owned_since_ms);
    join(&stores.other, "w2").await;
    let handed = give_up(&mine, None, Some("w2"));
    stores.one.release(APP, &[handed]).await.unwrap();
    let later = inspect().await.owned_since_ms;
    assert!(later[&key("a")] > since, "{later:?} {since}");
    assert_eq!(later[&key("b")], first.owned_since_ms[&key("b")]);
    let given = token(&lease(&stores.one, "a").await);
    let free = give_up(&given, None, None);
    stores.one.release(APP, &[free]).await.unwrap();
    assert!(!inspect().await.owned_since_ms.contains_key(&key("a")));

    let trouble = Trouble {
        stream: Some(STREAM.to_owned()),
        shard_id: "b".to_owned(),
        what: "\"quoted\" é".to_owned(),
        for_ms: 5000,
    };
    let troubles = [trouble.clone()];
    let beat = async |troubles: &[Trouble]| {
        let loads = Loads::new();
        stores
            .one
            .heartbeat(APP, &worker, &loads, troubles)
            .await
            .unwrap();
    };
    beat(&troubles).await;
    let told = inspect().await;
    assert_eq!(told.trouble("w1", &key("b")), Some(&trouble));
    assert_eq!(told.trouble("w2", &key("b")), None);
    assert_eq!(told.trouble("w1", &key("a")), None);
    beat(&[]).await;
    assert!(inspect().await.troubles.is_empty());
    beat(&troubles).await;
    join(&stores.one, "w1").await;
    assert!(
        inspect().await.troubles.is_empty(),
        "a new run has none yet"
    );
}

pub(super) async fn k3_only_a_reset_lowers_a_checkpoint(stores: Stores) {
    let worker = holder(&stores.one, "w1", &["a", "b"]).await;
    let mine = token(&lease(&stores.one, "a").await);
    stores.one.checkpoint(APP, &mine, &at(7)).await.unwrap();
    let pending = PendingCheckpoint {
        position: at(9),
        state: vec![1],
    };
    stores.one.prepare(APP, &mine, &pending).await.unwrap();
    let other = lease(&stores.one, "b").await;
    for position in [at(5), Position::AtTimestamp(9), Position::TrimHorizon] {
        let reset = reset_to(&["a"], position, ResetCondition::Forced);
        let before = lease(&stores.one, "a").await;
        let changes = stores.other.reset(APP, &reset).await.unwrap();
        let change = ResetChange {
            key: key("a"),
            from: Some(before.checkpoint),
            to: position,
            taken_from: before.owner.clone(),
        };
        assert_eq!(changes, [change]);
        let now = lease(&stores.one, "a").await;
        assert_eq!(
            (now.checkpoint, now.owner, now.pending),
            (position, None, None)
        );
        assert!(now.counter > before.counter, "K1");
        assert_eq!(
            (now.parents, now.hash_key_range, now.owner_switches),
            (before.parents, before.hash_key_range, before.owner_switches)
        );
        // The same again changes nothing.
        assert_eq!(stores.one.reset(APP, &reset).await.unwrap(), []);
    }
    assert_eq!(lease(&stores.one, "b").await, other);
    // Whoever takes it goes on from there, forward only.
    let counter = lease(&stores.one, "a").await.counter;
    let taken = stores.one.take(APP, &worker, &[claim("a", counter)]).await;
    let mine = token(&taken.unwrap()[0]);
    stores.one.checkpoint(APP, &mine, &at(4)).await.unwrap();
    let back = stores.one.checkpoint(APP, &mine, &at(3)).await;
    assert_eq!(kind(back), ErrorKind::InvalidPosition);
}

pub(super) async fn k1_fenced_a_reset_ends_every_tenure(stores: Stores) {
    let worker = holder(&stores.one, "w1", &["a"]).await;
    let asker = join(&stores.other, "w2").await;
    let mine = token(&lease(&stores.one, "a").await);
    let asks = [ask_for("a", mine.counter, None)];
    stores.other.ask(APP, &asker, &asks).await.unwrap();
    // Also where the position stays: what its owner has delivered since is delivered again.
    let reset = reset_to(&["a"], Position::TrimHorizon, ResetCondition::Forced);
    assert_eq!(stores.other.reset(APP, &reset).await.unwrap().len(), 1);
    let free = lease(&stores.one, "a").await;
    assert_eq!((&free.owner, &free.wanted_by), (&None, &None));
    for result in [
        stores.one.checkpoint(APP, &mine, &at(9)).await,
        stores.one.end_shard(APP, &mine, &[]).await,
    ] {
        assert_eq!(kind(result), ErrorKind::LeaseLost);
    }
    let release = give_up(&mine, Some(at(9)), None);
    assert_eq!(stores.one.release(APP, &[release]).await.unwrap(), 0);
    assert_eq!(lease(&stores.one, "a").await, free);
    // The worker itself lives on and may take it.
    let loads = Loads::new();
    stores
        .one
        .heartbeat(APP, &worker, &loads, &[])
        .await
        .unwrap();
    let claims = [claim("a", free.counter)];
    let taken = stores.one.take(APP, &worker, &claims).await.unwrap();
    assert_eq!(taken.len(), 1);
}

/// Goal: an ended shard starts again, and one that a reset ends is not taken by its owner for one that it ended itself.
pub(super) async fn k3_a_reset_ends_and_reopens_shards(stores: Stores) {
    let worker = holder(&stores.one, "w1", &["a"]).await;
    let mine = token(&lease(&stores.one, "a").await);
    let end = reset_to(&["a", "never"], Position::ShardEnd, ResetCondition::Forced);
    assert_eq!(stores.one.reset(APP, &end).await.unwrap().len(), 1);
    let ended = lease(&stores.other, "a").await;
    assert_eq!(ended.checkpoint, Position::ShardEnd);
    let own = stores.one.end_shard(APP, &mine, &[]).await;
    assert_eq!(kind(own), ErrorKind::LeaseLost);
    assert_eq!(stores.one.snapshot(APP).await.unwrap().leases.len(), 1);
    let claims = [claim("a", ended.counter)];
    assert_eq!(stores.one.take(APP, &worker, &claims).await.unwrap(), []);

    let start = reset_to(&["a", "new"], Position::TrimHorizon, ResetCondition::Forced);
    let changes = stores.other.reset(APP, &start).await.unwrap();
    let from: Vec<_> = changes.iter().map(|change| change.from).collect();
    assert_eq!(from, [Some(Position::ShardEnd), None]);
    let reopened = lease(&stores.one, "a").await;
    assert!(reopened.counter > ended.counter);
    assert_eq!(
        lease(&stores.one, "new").await,
        rules::create(&new_lease("new", &[]))
    );
    let claims = [claim("a", reopened.counter), claim("new", 0)];
    let taken = stores.one.take(APP, &worker, &claims).await.unwrap();
    assert_eq!(taken.len(), 2);
}

pub(super) async fn k11_a_reset_is_refused_while_workers_live(stores: Stores) {
    let worker = holder(&stores.one, "w1", &["a"]).await;
    let heartbeat = heartbeat_of(&stores.one, "w1").await.unwrap();
    let silent = |heartbeat| ResetCondition::NobodyLives {
        silent: BTreeMap::from([("w1".to_owned(), heartbeat), ("gone".to_owned(), 1)]),
    };
    let nobody = ResetCondition::NobodyLives {
        silent: BTreeMap::new(),
    };
    let loads = Loads::new();
    stores
        .one
        .heartbeat(APP, &worker, &loads, &[])
        .await
        .unwrap();
    let before = stores.one.inspect(APP).await.unwrap();
    for condition in [silent(heartbeat), nobody] {
        let reset = reset_to(&["a", "new"], at(1), condition);
        let refused = stores.other.reset(APP, &reset).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InUse);
        assert!(refused.to_string().contains("\"w1\""), "{refused}");
        assert_eq!(stores.one.inspect(APP).await.unwrap(), before);
    }
    assert_eq!(stores.one.resets(APP).await.unwrap(), []);
    let now = heartbeat_of(&stores.one, "w1").await.unwrap();
    let reset = reset_to(&["a"], at(1), silent(now));
    assert_eq!(stores.other.reset(APP, &reset).await.unwrap().len(), 1);
}

pub(super) async fn k11_a_reset_of_a_stream_misses_no_lease(stores: Stores) {
    holder(&stores.one, "w1", &["a", "b"]).await;
    let elsewhere = NewLease {
        key: LeaseKey {
            stream: "another".to_owned(),
            shard_id: "x".to_owned(),
        },
        ..new_lease("x", &[])
    };
    stores.one.create_leases(APP, &[elsewhere]).await.unwrap();
    let whole = |shards| Reset {
        whole_stream: Some(STREAM.to_owned()),
        ..reset_to(shards, at(1), ResetCondition::Forced)
    };
    let before = stores.one.snapshot(APP).await.unwrap();
    let missed = stores.one.reset(APP, &whole(&["a"])).await.unwrap_err();
    assert!(
        missed.is_retryable() && missed.to_string().contains("/b"),
        "{missed}"
    );
    assert_eq!(stores.one.snapshot(APP).await.unwrap(), before);
    let changes = stores.one.reset(APP, &whole(&["a", "b"])).await.unwrap();
    assert_eq!(changes.len(), 2);
}

pub(super) async fn a_reset_of_a_new_application_finds_no_leases(stores: Stores) {
    let reset = reset_to(&["a", "b"], at(1), ResetCondition::NoLeases);
    let changes = stores.one.reset(APP, &reset).await.unwrap();
    assert_eq!(changes.len(), 2);
    assert_eq!(lease(&stores.other, "b").await.checkpoint, at(1));
    let again = stores.other.reset(APP, &reset).await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::InUse);
    assert!(again.to_string().contains("another name"), "{again}");
}

pub(super) async fn the_last_resets_are_noted(stores: Stores) {
    holder(&stores.one, "w1", &["a"]).await;
    for number in 0..u64::from(RESETS_KEPT) + 3 {
        let reset = reset_to(&["a"], at(100 - number), ResetCondition::Forced);
        stores.one.reset(APP, &reset).await.unwrap();
    }
    let notes = stores.other.resets(APP).await.unwrap();
    assert_eq!(notes.len(), usize::try_from(RESETS_KEPT).unwrap());
    let numbers: Vec<u64> = notes.iter().map(|note| note.number).collect();
    let last = u64::from(RESETS_KEPT) + 3;
    assert_eq!(numbers, (4..=last).rev().collect::<Vec<u64>>());
    let note = &notes[0];
    assert_eq!((note.by.as_str(), note.asked.as_str()), ("anna", "78"));
    assert!(note.at_ms > 1_600_000_000_000);
    let change = ResetChange {
        key: key("a"),
        from: Some(at(79)),
        to: at(78),
        taken_from: None,
    };
    assert_eq!(note.changes, [change]);
    assert!(stores.one.resets("other").await.unwrap().is_empty());
}
