//! Checkpoints and the ends of tenures: K3, K6, K9, K11 and K12.

use super::*;

pub(super) async fn k3_monotonic_checkpoints_move_forward_only(stores: Stores) {
    holder(&stores.one, "w1", &["a"]).await;
    let mine = token(&lease(&stores.one, "a").await);
    let within = |sequence: u64, sub_sequence| Position::Sequence {
        sequence: sequence.to_string().parse().unwrap(),
        sub_sequence,
    };
    let steps = [
        (Position::TrimHorizon, true),
        (Position::AtTimestamp(5), false),
        (within(9, 3), true),
        (within(9, 2), false),
        (within(9, 3), true),
        (at(9), true),
        (within(9, 4), false),
        (at(10), true),
        (at(9), false),
        (Position::TrimHorizon, false),
        (Position::ShardEnd, false),
        (at(100), true),
    ];
    let mut stored = Position::TrimHorizon;
    for (position, good) in steps {
        let result = stores.other.checkpoint(APP, &mine, &position).await;
        if good {
            result.unwrap();
            stored = position;
        } else {
            assert_eq!(kind(result), ErrorKind::InvalidPosition, "{position}");
        }
        assert_eq!(
            lease(&stores.one, "a").await.checkpoint,
            stored,
            "after {position}"
        );
    }
    // A checkpoint changes nothing else.
    assert_eq!(token(&lease(&stores.one, "a").await), mine);
}

/// Goal: a prepared checkpoint stays with its state, through changes of owner, until a checkpoint covers it.
pub(super) async fn k3_a_pending_checkpoint_stays_until_it_is_covered(stores: Stores) {
    let worker = holder(&stores.one, "w1", &["a"]).await;
    let mine = token(&lease(&stores.one, "a").await);
    let pending = |sequence, state: &[u8]| PendingCheckpoint {
        position: at(sequence),
        state: state.to_vec(),
    };
    let prepare = async |token: &LeaseToken, pending: &PendingCheckpoint| {
        stores.other.prepare(APP, token, pending).await
    };
    prepare(&mine, &pending(20, b"first")).await.unwrap();
    prepare(&mine, &pending(10, b"\0second\xff")).await.unwrap();
    let noted = lease(&stores.one, "a").await;
    assert_eq!(noted.pending, Some(pending(10, b"\0second\xff")));
    assert_eq!(
        (noted.checkpoint, noted.counter),
        (Position::TrimHorizon, mine.counter)
    );

    stores.one.checkpoint(APP, &mine, &at(9)).await.unwrap();
    stores
        .one
        .release(APP, &[give_up(&mine, None, None)])
        .await
        .unwrap();
    let again = stores
        .one
        .take(APP, &worker, &[claim("a", mine.counter + 1)])
        .await
        .unwrap();
    assert_eq!(again[0].pending, Some(pending(10, b"\0second\xff")));
    assert_eq!(
        kind(prepare(&mine, &pending(30, b"")).await),
        ErrorKind::LeaseLost
    );

    let mine = token(&again[0]);
    let back = prepare(&mine, &pending(8, b"")).await;
    assert_eq!(kind(back), ErrorKind::InvalidPosition);
    stores.other.checkpoint(APP, &mine, &at(10)).await.unwrap();
    assert_eq!(lease(&stores.one, "a").await.pending, None);
    prepare(&mine, &pending(11, b"x")).await.unwrap();
    stores.one.end_shard(APP, &mine, &[]).await.unwrap();
    assert_eq!(lease(&stores.one, "a").await.pending, None);
    let none = LeaseKey {
        shard_id: "none".to_owned(),
        ..key("a")
    };
    assert_eq!(stores.one.lease(APP, &none).await.unwrap(), None);
    let found = stores.other.lease(APP, &key("a")).await.unwrap();
    assert_eq!(found, Some(lease(&stores.one, "a").await));
}

pub(super) async fn k3_monotonic_an_ended_shard_is_final(stores: Stores) {
    let worker = holder(&stores.one, "w1", &["a"]).await;
    let mine = token(&lease(&stores.one, "a").await);
    stores.one.checkpoint(APP, &mine, &at(7)).await.unwrap();
    stores.one.end_shard(APP, &mine, &[]).await.unwrap();
    let ended = lease(&stores.other, "a").await;
    assert_eq!(
        (ended.checkpoint, &ended.owner, ended.counter),
        (Position::ShardEnd, &None, 2)
    );

    for position in [at(8), Position::TrimHorizon, Position::ShardEnd] {
        let result = stores.one.checkpoint(APP, &mine, &position).await;
        assert_eq!(kind(result), ErrorKind::LeaseLost);
    }
    for counter in [1, 2] {
        assert_eq!(
            stores
                .one
                .take(APP, &worker, &[claim("a", counter)])
                .await
                .unwrap(),
            []
        );
    }
    assert_eq!(
        stores
            .one
            .create_leases(APP, &[new_lease("a", &[])])
            .await
            .unwrap(),
        0
    );
    assert_eq!(
        stores
            .one
            .release(APP, &[give_up(&mine, Some(at(9)), None)])
            .await
            .unwrap(),
        0
    );
    assert_eq!(lease(&stores.other, "a").await, ended);
}

pub(super) async fn k6_a_child_is_not_taken_before_its_parents_end(stores: Stores) {
    let worker = holder(&stores.one, "w1", &["p1", "p2"]).await;
    let children = [new_lease("child", &["p1", "p2", "absent"])];
    stores.one.create_leases(APP, &children).await.unwrap();
    let child = [claim("child", 0)];
    for parent in ["p1", "p2"] {
        assert_eq!(stores.other.take(APP, &worker, &child).await.unwrap(), []);
        let parent = token(&lease(&stores.one, parent).await);
        stores.one.end_shard(APP, &parent, &[]).await.unwrap();
    }
    assert_eq!(
        stores.other.take(APP, &worker, &child).await.unwrap().len(),
        1
    );
}

pub(super) async fn k6_ending_a_shard_creates_its_children(stores: Stores) {
    holder(&stores.one, "w1", &["p"]).await;
    stores
        .one
        .create_leases(APP, &[new_lease("c2", &["p"])])
        .await
        .unwrap();
    let kept = lease(&stores.one, "c2").await;
    let parent = token(&lease(&stores.one, "p").await);
    let children = [new_lease("c1", &["p"]), new_lease("c2", &["p", "q"])];
    stores.one.end_shard(APP, &parent, &children).await.unwrap();
    assert_eq!(
        lease(&stores.other, "c1").await,
        rules::create(&children[0])
    );
    assert_eq!(
        lease(&stores.other, "c2").await,
        kept,
        "a lease that is there is left alone"
    );
}

pub(super) async fn k9_a_release_stores_the_last_checkpoint(stores: Stores) {
    holder(&stores.one, "w1", &["a", "b"]).await;
    let (a, b) = (lease(&stores.one, "a").await, lease(&stores.one, "b").await);
    stores
        .one
        .checkpoint(APP, &token(&b), &at(3))
        .await
        .unwrap();
    let mut gone = token(&a);
    gone.counter += 1;
    let releases = [
        give_up(&token(&a), Some(at(12)), None),
        give_up(&gone, Some(at(99)), None),
        give_up(&token(&b), None, None),
    ];
    assert_eq!(stores.one.release(APP, &releases).await.unwrap(), 2);
    for (shard, position) in [("a", at(12)), ("b", at(3))] {
        let free = lease(&stores.other, shard).await;
        assert_eq!(
            (free.owner, free.counter, free.checkpoint),
            (None, 2, position)
        );
    }
    let next = join(&stores.other, "w2").await;
    assert_eq!(
        stores
            .other
            .take(APP, &next, &[claim("a", 2)])
            .await
            .unwrap()
            .len(),
        1
    );
}

pub(super) async fn k9_a_hand_over_gives_the_asker_the_lease(stores: Stores) {
    holder(&stores.one, "w1", &["a", "b"]).await;
    let asker = join(&stores.other, "w2").await;
    let asks = [ask_for("a", 1, None), ask_for("b", 1, None)];
    assert_eq!(stores.other.ask(APP, &asker, &asks).await.unwrap(), 2);
    let a = lease(&stores.one, "a").await;
    assert_eq!(a.wanted_by.as_deref(), Some("w2"));
    // Being asked does not touch the tenure.
    stores
        .one
        .checkpoint(APP, &token(&a), &at(4))
        .await
        .unwrap();
    let release = give_up(&token(&a), Some(at(5)), Some("w2"));
    assert_eq!(stores.one.release(APP, &[release]).await.unwrap(), 1);
    let given = lease(&stores.other, "a").await;
    assert_eq!(
        (given.owner.as_deref(), given.counter, given.owner_switches),
        (Some("w2"), 2, 2)
    );
    assert_eq!((given.wanted_by.clone(), given.checkpoint), (None, at(5)));
    assert_eq!(
        kind(stores.one.checkpoint(APP, &token(&a), &at(6)).await),
        ErrorKind::LeaseLost
    );
    stores
        .other
        .checkpoint(APP, &token(&given), &at(6))
        .await
        .unwrap();

    // An asker that has left gets nothing: nobody would find out before the fail-over time.
    let b = lease(&stores.one, "b").await;
    stores.other.deregister(APP, &asker).await.unwrap();
    stores
        .one
        .release(APP, &[give_up(&token(&b), None, Some("w2"))])
        .await
        .unwrap();
    assert_eq!(lease(&stores.one, "b").await.owner, None);
}

pub(super) async fn k11_failed_write_leaves_everything_as_it_was(stores: Stores) {
    let worker = holder(&stores.one, "w1", &["a", "b"]).await;
    let (a, b) = (lease(&stores.one, "a").await, lease(&stores.one, "b").await);
    stores
        .one
        .checkpoint(APP, &token(&b), &at(10))
        .await
        .unwrap();
    let stale = LeaseToken {
        counter: 0,
        ..token(&a)
    };
    let impostor = Registration {
        incarnation: worker.incarnation ^ 1,
        ..worker.clone()
    };
    let before = stores.one.snapshot(APP).await.unwrap();

    let half_bad = [
        give_up(&token(&a), Some(at(1)), None),
        give_up(&token(&b), Some(at(9)), None),
    ];
    let result = stores.one.release(APP, &half_bad).await;
    assert_eq!(kind(result), ErrorKind::InvalidPosition);
    let with_end = [give_up(&token(&a), Some(Position::ShardEnd), None)];
    assert_eq!(
        kind(stores.one.release(APP, &with_end).await),
        ErrorKind::InvalidPosition
    );
    let children = [new_lease("child", &["a"])];
    let result = stores.one.end_shard(APP, &stale, &children).await;
    assert_eq!(kind(result), ErrorKind::LeaseLost);
    assert_eq!(
        kind(stores.one.checkpoint(APP, &stale, &at(2)).await),
        ErrorKind::LeaseLost
    );
    assert_eq!(
        kind(
            stores
                .one
                .heartbeat(APP, &impostor, &Loads::new(), &[])
                .await
        ),
        ErrorKind::WorkerReplaced
    );
    stores.one.deregister(APP, &impostor).await.unwrap();
    let missing = LeaseToken {
        key: key("nowhere"),
        ..token(&a)
    };
    let result = stores.one.end_shard(APP, &missing, &children).await;
    assert_eq!(kind(result), ErrorKind::LeaseLost);
    assert_eq!(stores.other.snapshot(APP).await.unwrap(), before);
}

pub(super) async fn k12_repeated_writes_succeed(stores: Stores) {
    let worker = holder(&stores.one, "w1", &["a", "b"]).await;
    let claims = [claim("a", 0), claim("b", 0)];
    let again = stores.other.take(APP, &worker, &claims).await.unwrap();
    assert_eq!(again, stores.one.snapshot(APP).await.unwrap().leases);
    let twice = [claim("a", 0), claim("a", 0)];
    assert_eq!(
        stores.other.take(APP, &worker, &twice).await.unwrap(),
        again[..1]
    );

    let (a, b) = (token(&again[0]), token(&again[1]));
    for _ in 0..2 {
        stores.one.checkpoint(APP, &a, &at(5)).await.unwrap();
    }
    let asker = join(&stores.other, "w2").await;
    for _ in 0..2 {
        assert_eq!(
            stores
                .other
                .ask(APP, &asker, &[ask_for("a", 1, None)])
                .await
                .unwrap(),
            1
        );
    }
    // A claim by which another run might have taken the lease is none of the asker's.
    assert_eq!(stores.other.take(APP, &asker, &claims).await.unwrap(), []);
    let release = [give_up(&a, Some(at(6)), None)];
    assert_eq!(stores.one.release(APP, &release).await.unwrap(), 1);
    assert_eq!(stores.one.release(APP, &release).await.unwrap(), 0);
    assert_eq!(lease(&stores.one, "a").await.counter, 2);
    for _ in 0..2 {
        stores
            .one
            .end_shard(APP, &b, &[new_lease("child", &["b"])])
            .await
            .unwrap();
        assert_eq!(lease(&stores.one, "b").await.counter, 2);
    }
    // Only for the token that ended it.
    let stale = LeaseToken { counter: 0, ..b };
    assert_eq!(
        kind(stores.one.end_shard(APP, &stale, &[]).await),
        ErrorKind::LeaseLost
    );
    for _ in 0..2 {
        stores.one.deregister(APP, &worker).await.unwrap();
    }
}

pub(super) async fn k12_a_repeated_end_does_not_bring_finished_children_back(stores: Stores) {
    let worker = holder(&stores.one, "w1", &["p"]).await;
    let parent = token(&lease(&stores.one, "p").await);
    let children = [new_lease("c", &["p"])];
    stores.one.end_shard(APP, &parent, &children).await.unwrap();
    let child = stores
        .one
        .take(APP, &worker, &[claim("c", 0)])
        .await
        .unwrap();
    stores
        .one
        .end_shard(APP, &token(&child[0]), &[])
        .await
        .unwrap();
    assert_eq!(stores.one.delete_ended(APP, &[key("c")]).await.unwrap(), 1);
    stores
        .other
        .end_shard(APP, &parent, &children)
        .await
        .unwrap();
    assert_eq!(stores.one.snapshot(APP).await.unwrap().leases.len(), 1);
}
