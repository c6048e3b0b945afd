//! The range rule, repetition, and the end of tenures.

use super::*;
use crate::clock;
use crate::fake::store::FaultyStore;
use crate::lease::{Claim, LeaseKey, MemoryLeaseStore, NewLease, WorkerProfile};
use bytes::Bytes;

const FAILOVER: Duration = Duration::from_secs(10);

fn position(number: u64) -> Position {
    Position::after(number.to_string().parse().unwrap())
}

fn record(number: u64) -> Record {
    Record::stored(number.to_string().parse().unwrap(), "k", Bytes::new(), 0)
}

/// A lease taken by a worker, and its checkpointer.
async fn tenure() -> (FaultyStore, Checkpointer, OwnerWindow) {
    let store = FaultyStore::new(MemoryLeaseStore::new());
    let key = LeaseKey {
        stream: "s".to_owned(),
        shard_id: "0".to_owned(),
    };
    let new = NewLease {
        key: key.clone(),
        checkpoint: Position::TrimHorizon,
        parents: Vec::new(),
        hash_key_range: None,
    };
    store.create_leases("app", &[new]).await.unwrap();
    let me = store
        .register("app", "w", &WorkerProfile::default())
        .await
        .unwrap();
    let claim = Claim {
        key: key.clone(),
        counter: 0,
        expired: None,
    };
    let taken = store.take("app", &me, &[claim]).await.unwrap();
    let token = LeaseToken {
        key,
        owner: "w".to_owned(),
        counter: taken[0].counter,
    };
    let window = OwnerWindow::open(clock::now(), FAILOVER);
    let shared: Arc<dyn LeaseStore> = Arc::new(store.clone());
    let checkpointer = Checkpointer::new(shared, "app", token, taken[0].checkpoint, window.clone());
    (store, checkpointer, window)
}

async fn stored(store: &FaultyStore) -> Position {
    store.inner.snapshot("app").await.unwrap().leases[0].checkpoint
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_lies_between_the_last_one_and_what_was_delivered() {
    let (store, checkpointer, _) = tenure().await;
    checkpointer.checkpoint().await.unwrap();
    assert_eq!(
        stored(&store).await,
        Position::TrimHorizon,
        "nothing was delivered yet"
    );
    checkpointer.begin_batch(position(9));
    checkpointer.checkpoint_at(&record(5)).await.unwrap();
    checkpointer.checkpoint_at(&record(5)).await.unwrap();
    assert_eq!(stored(&store).await, position(5));
    for wrong in [4, 10] {
        let refused = checkpointer
            .checkpoint_at(&record(wrong))
            .await
            .unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidPosition, "{refused}");
    }
    assert_eq!(stored(&store).await, position(5), "K11");
    checkpointer.checkpoint().await.unwrap();
    assert_eq!(stored(&store).await, position(9));
}

/// Goal: a processor that checkpoints record by record survives a failure in the middle of a batch. The batch is
/// delivered again from its start; the store keeps what it has (K3).
#[tokio::test(start_paused = true)]
async fn k3_a_batch_delivered_again_may_be_checkpointed_from_its_start() {
    let (store, checkpointer, _) = tenure().await;
    checkpointer.begin_batch(position(9));
    checkpointer.checkpoint_at(&record(5)).await.unwrap();
    checkpointer.batch_failed();
    checkpointer.begin_batch(position(9));
    checkpointer.checkpoint_at(&record(2)).await.unwrap();
    assert_eq!(stored(&store).await, position(5));
    checkpointer.checkpoint_at(&record(7)).await.unwrap();
    assert_eq!(stored(&store).await, position(7));
}

#[tokio::test(start_paused = true)]
async fn k12_a_checkpoint_whose_reply_is_lost_is_repeated() {
    let (store, checkpointer, _) = tenure().await;
    checkpointer.begin_batch(position(9));
    store.set(|faults| faults.lose_reply_every = Some(2));
    for number in 1..9 {
        checkpointer.checkpoint_at(&record(number)).await.unwrap();
        assert_eq!(stored(&store).await, position(number));
    }
}

#[tokio::test(start_paused = true)]
async fn k11_a_store_out_of_reach_leaves_everything_as_it_was() {
    let (store, checkpointer, _) = tenure().await;
    checkpointer.begin_batch(position(9));
    store.set(|faults| faults.unreachable = true);
    let refused = checkpointer.checkpoint().await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    store.set(|faults| faults.unreachable = false);
    checkpointer.checkpoint_at(&record(3)).await.unwrap();
    assert_eq!(stored(&store).await, position(3));
}

#[tokio::test(start_paused = true)]
async fn k2_nothing_is_checkpointed_outside_the_owner_window() {
    let (store, checkpointer, window) = tenure().await;
    checkpointer.begin_batch(position(9));
    tokio::time::advance(FAILOVER).await;
    assert!(!window.is_open());
    assert_eq!(
        checkpointer.checkpoint().await.unwrap_err().kind(),
        ErrorKind::LeaseLost
    );
    assert_eq!(stored(&store).await, Position::TrimHorizon);
    assert!(
        !checkpointer.is_over(),
        "the lease may still prove to be ours"
    );
}

#[tokio::test(start_paused = true)]
async fn k9_while_releasing_a_checkpoint_is_kept_for_the_release() {
    let (store, checkpointer, _) = tenure().await;
    checkpointer.begin_batch(position(5));
    checkpointer.batch_succeeded();
    checkpointer.begin_batch(position(9));
    checkpointer.batch_failed();
    checkpointer.begin_release();
    checkpointer.checkpoint().await.unwrap();
    assert_eq!(stored(&store).await, Position::TrimHorizon);
    assert_eq!(
        checkpointer.finish_release().await,
        Some(position(5)),
        "the failed batch does not count"
    );
    assert_eq!(
        checkpointer.checkpoint().await.unwrap_err().kind(),
        ErrorKind::LeaseLost
    );
}

/// Goal: a release never carries a position before the stored one: the store would refuse it.
#[tokio::test(start_paused = true)]
async fn k3_a_release_never_goes_back() {
    let (_, checkpointer, _) = tenure().await;
    checkpointer.begin_batch(position(9));
    checkpointer.checkpoint_at(&record(7)).await.unwrap();
    checkpointer.batch_failed();
    checkpointer.begin_batch(position(9));
    checkpointer.batch_failed();
    checkpointer.begin_release();
    checkpointer.checkpoint().await.unwrap();
    assert_eq!(checkpointer.finish_release().await, None);
}

/// Goal: a checkpoint that was stored though no try of it was answered does not stop a processor that checkpoints record by
/// record. Method: every reply is lost, then the batch is delivered again from its start.
#[tokio::test(start_paused = true)]
async fn k12_a_batch_goes_on_after_a_checkpoint_that_was_stored_without_an_answer() {
    let (store, checkpointer, _) = tenure().await;
    checkpointer.begin_batch(position(9));
    store.set(|faults| faults.lose_reply_every = Some(1));
    let lost = checkpointer.checkpoint_at(&record(5)).await.unwrap_err();
    assert_eq!(lost.kind(), ErrorKind::Unavailable);
    assert_eq!(stored(&store).await, position(5));
    store.set(|faults| faults.lose_reply_every = None);
    checkpointer.batch_failed();
    checkpointer.begin_batch(position(9));
    for number in 1..=9 {
        checkpointer.checkpoint_at(&record(number)).await.unwrap();
        assert_eq!(stored(&store).await, position(number.max(5)), "K3");
    }
}

/// Goal: a processor that hands records on and hears of their end later checkpoints what is done, also of earlier batches.
#[tokio::test(start_paused = true)]
async fn a_record_of_an_earlier_batch_may_be_checkpointed() {
    let (store, checkpointer, _) = tenure().await;
    checkpointer.begin_batch(position(5));
    checkpointer.batch_succeeded();
    checkpointer.begin_batch(position(9));
    checkpointer.checkpoint_at(&record(3)).await.unwrap();
    assert_eq!(stored(&store).await, position(3));
    checkpointer.checkpoint_at(&record(7)).await.unwrap();
    let back = checkpointer.checkpoint_at(&record(5)).await.unwrap_err();
    assert_eq!(back.kind(), ErrorKind::InvalidPosition);
}

/// Goal: what a processor took in but did not checkpoint is not checkpointed for it: it may hold it in memory still.
#[tokio::test(start_paused = true)]
async fn k4_a_release_stores_only_what_the_processor_checkpointed() {
    let (_, checkpointer, _) = tenure().await;
    checkpointer.begin_batch(position(5));
    checkpointer.batch_succeeded();
    checkpointer.begin_batch(position(9));
    checkpointer.batch_succeeded();
    checkpointer.begin_release();
    assert_eq!(checkpointer.finish_release().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_prepared_checkpoint_is_committed_once() {
    let (store, checkpointer, _) = tenure().await;
    checkpointer.begin_batch(position(9));
    let prepared = checkpointer
        .prepare_at(&record(4), *b"state")
        .await
        .unwrap();
    assert_eq!(stored(&store).await, Position::TrimHorizon);
    let pending = async || {
        store.inner.snapshot("app").await.unwrap().leases[0]
            .pending
            .clone()
    };
    let expected = PendingCheckpoint {
        position: position(4),
        state: b"state".to_vec(),
    };
    assert_eq!(pending().await, Some(expected));
    prepared.commit().await.unwrap();
    assert_eq!((stored(&store).await, pending().await), (position(4), None));
    checkpointer.checkpoint_at(&record(6)).await.unwrap();
    prepared.commit().await.unwrap();
    assert_eq!(stored(&store).await, position(6));
    let last = checkpointer.prepare(Vec::new()).await.unwrap();
    assert_eq!(last.position(), position(9));
    checkpointer.batch_failed();
    let early = last.commit().await.unwrap_err();
    assert_eq!(early.kind(), ErrorKind::InvalidPosition);
    let long = checkpointer.prepare(vec![0; 65_537]).await.unwrap_err();
    assert_eq!(long.kind(), ErrorKind::Configuration);
}

/// Goal: the first record found for a starting time takes its place in the store.
#[tokio::test(start_paused = true)]
async fn k4_a_starting_position_is_pinned_to_the_first_record() {
    let (store, checkpointer, _) = tenure().await;
    let first = Position::AtSequence("3".parse().unwrap());
    store.set(|faults| faults.lose_reply_every = Some(2));
    checkpointer.pin(first).await.unwrap();
    checkpointer.pin(first).await.unwrap();
    assert_eq!(
        (stored(&store).await, checkpointer.handled()),
        (first, first)
    );
    checkpointer.begin_batch(position(5));
    checkpointer.checkpoint_at(&record(3)).await.unwrap();
    assert_eq!(stored(&store).await, position(3));
}
