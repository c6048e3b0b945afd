//! Dead letters: to another stream and to a function; queues that fail for a while and for ever; K4 at every step.

use super::policy::{
    SECOND, check_parts, good, lease, poison, put_poisoned, scene, until_good_processed,
};
use super::*;
use crate::checkpoint::{Checkpointer, Position};
use crate::dead_letter::{DeadLetter, DeadLetterStream};
use crate::error::ErrorKind;
use crate::fake::shard_id;
use crate::policy::{ErrorAction, ErrorPolicy};
use crate::processor::{ProcessorError, Record, RecordBatch, RecordProcessor, ShardInfo};
use async_trait::async_trait;
use bytes::Bytes;
use millstream_wire::aggregation::{UserRecord, encode};
use millstream_wire::{HashKey, SequenceNumber};
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::Mutex;

/// The sequence numbers of the letters in the fake's other streams.
fn letters(kinesis: &FakeKinesis) -> Vec<SequenceNumber> {
    let letters = kinesis.letters();
    let number = |json: Value| json["sequence_number"].as_str().unwrap().parse().unwrap();
    letters
        .iter()
        .map(|letter| number(serde_json::from_slice(&letter.data).unwrap()))
        .collect()
}

fn to_stream(builder: WorkerBuilder, policy: ErrorPolicy) -> WorkerBuilder {
    builder
        .on_error(policy)
        .dead_letters(DeadLetterStream::new("orders-dead"))
}

/// Goal: poison goes to the other stream, each record once, with all that is known of it; everything else is processed.
#[tokio::test(start_paused = true)]
async fn k4_dead_letters_go_to_another_stream_and_all_else_is_processed() {
    let (kinesis, store, journal) = scene(2);
    let put = put_poisoned(&kinesis, &journal, (0, 40), &[0, 14, 15, 39]);
    put_poisoned(&kinesis, &journal, (1, 10), &[9]);
    let worker = to_stream(
        builder(&kinesis, store.clone(), "w"),
        ErrorPolicy::dead_letter(),
    );
    let worker = launch(worker, &journal, "w").await;
    until("every letter is put", SECOND * 10, || {
        letters(&kinesis).len() == 5
    })
    .await;
    until_good_processed(&kinesis, &journal, SECOND).await;
    let counts = worker.handle.counts();
    assert_eq!((counts.skipped, counts.dead_letters), (0, 5));
    worker.stop().await.unwrap();
    check_parts(&journal, &put).unwrap();
    let letters: BTreeSet<_> = letters(&kinesis).into_iter().collect();
    assert_eq!(letters, poison(&journal));
    let letter = &kinesis.letters()[0];
    assert_eq!(
        (&*letter.stream, &*letter.partition_key),
        ("orders-dead", "key")
    );
    let json: Value = serde_json::from_slice(&letter.data).unwrap();
    let expected = serde_json::json!({
        "application": "app", "stream": "orders", "shard_id": json["shard_id"],
        "sequence_number": json["sequence_number"], "sub_sequence_number": 0, "partition_key": "key",
        "arrival_ms": crate::fake::EPOCH_MS, "attempts": json["attempts"], "error": json["error"], "data": json["data"],
    });
    assert_eq!(json, expected);
    let error = format!("poison at {}", json["sequence_number"].as_str().unwrap());
    assert_eq!(json["error"], error);
    assert_eq!(lease(&store, 0).await.checkpoint, Position::after(put[39]));
}

/// Goal: while the queue is out of order, only that shard waits, at the poison and not after it, and nothing is lost; when the queue is
/// back the shard goes on. A worker that is stopped meanwhile releases the lease before the poison.
#[tokio::test(start_paused = true)]
async fn k4_k10_a_queue_that_fails_stalls_only_its_shard_and_loses_nothing() {
    for kind in [
        ErrorKind::Unavailable,
        ErrorKind::Throttled,
        ErrorKind::Protocol,
    ] {
        let (kinesis, store, journal) = scene(2);
        let put = put_poisoned(&kinesis, &journal, (0, 30), &[14]);
        kinesis.put_many(1, 30);
        kinesis.fail_puts(Some(kind));
        let start = |id: &str| {
            to_stream(
                builder(&kinesis, store.clone(), id),
                ErrorPolicy::dead_letter(),
            )
        };
        let first = launch(start("a"), &journal, "a").await;
        tokio::time::sleep(SECOND * 60).await;
        kinesis.put_many(1, 10);
        tokio::time::sleep(SECOND).await;
        assert_eq!(
            journal.processed().len(),
            14 + 40,
            "the other shard went on"
        );
        assert_eq!(first.handle.counts().dead_letters, 0);
        first.stop().await.unwrap();
        assert_eq!(lease(&store, 0).await.checkpoint, Position::after(put[13]));
        let second = launch(start("b"), &journal, "b").await;
        tokio::time::sleep(SECOND * 30).await;
        assert_eq!(journal.processed().len(), 14 + 40);
        kinesis.fail_puts(None);
        until_good_processed(&kinesis, &journal, SECOND * 15).await;
        second.stop().await.unwrap();
        assert_eq!(letters(&kinesis), [put[14]]);
        check_parts(&journal, &put).unwrap();
    }
}

/// Goal: a crash at any moment loses neither a record nor a letter; letters may come twice. Method: a queue that takes its time, so that many
/// crashes fall between the letter and its acknowledgement; and that stores a checkpoint just before, which must not cover the record.
#[tokio::test(start_paused = true)]
async fn k4_no_letter_is_lost_wherever_the_worker_dies() {
    for step in 0..40u32 {
        let (kinesis, store, journal) = scene(1);
        put_poisoned(&kinesis, &journal, (0, 20), &[0, 9, 10, 13]);
        journal.behave(|behaviour| behaviour.takes = Duration::from_millis(20));
        let kept: Arc<Mutex<BTreeSet<SequenceNumber>>> = Arc::default();
        let start = |id: &str| {
            let (kept, journal) = (Arc::clone(&kept), journal.clone());
            let keep = move |letter: DeadLetter| {
                let (kept, journal) = (Arc::clone(&kept), journal.clone());
                async move {
                    if let Some(checkpointer) = journal.checkpointers().last() {
                        checkpointer.checkpoint().await?;
                    }
                    tokio::time::sleep(Duration::from_millis(60)).await;
                    kept.lock().unwrap().insert(letter.record.sequence_number());
                    tokio::time::sleep(Duration::from_millis(60)).await;
                    Ok::<_, ProcessorError>(())
                }
            };
            builder(&kinesis, store.clone(), id)
                .on_error(ErrorPolicy::dead_letter().after(1))
                .dead_letters(keep)
        };
        let first = launch(start("a"), &journal, "a").await;
        tokio::time::sleep(Duration::from_millis(29) * step).await;
        first.task.abort();
        let second = launch(start("b"), &journal, "b").await;
        until("every letter is kept", SECOND * 20, || {
            *kept.lock().unwrap() == poison(&journal)
        })
        .await;
        until_good_processed(&kinesis, &journal, SECOND * 5).await;
        second.stop().await.unwrap();
    }
}

/// Goal: a function as the queue gets the letter whole; when it fails or panics it is called again.
#[tokio::test(start_paused = true)]
async fn k4_a_function_that_fails_or_panics_is_given_the_letter_again() {
    let (kinesis, store, journal) = scene(1);
    let put = put_poisoned(&kinesis, &journal, (0, 10), &[4]);
    let calls: Arc<Mutex<Vec<DeadLetter>>> = Arc::default();
    let seen = Arc::clone(&calls);
    let keep = move |letter: DeadLetter| {
        let seen = Arc::clone(&seen);
        async move {
            let call = {
                let mut seen = seen.lock().unwrap();
                seen.push(letter);
                seen.len()
            };
            assert!(call != 1, "a panic on demand");
            if call == 2 {
                return Err("a failure on demand".into());
            }
            Ok::<(), ProcessorError>(())
        }
    };
    let builder = builder(&kinesis, store, "w")
        .on_error(ErrorPolicy::dead_letter().after(2))
        .dead_letters(keep);
    let worker = launch(builder, &journal, "w").await;
    until_good_processed(&kinesis, &journal, SECOND * 10).await;
    worker.stop().await.unwrap();
    let calls = calls.lock().unwrap();
    assert_eq!(calls.len(), 3);
    let letter = &calls[2];
    assert_eq!(letter.record.sequence_number(), put[4]);
    assert_eq!(&letter.record.data()[..], b"4");
    assert_eq!((&*letter.application, &*letter.stream), ("app", "orders"));
    assert_eq!(letter.shard_id, shard_id(0));
    // Twice as ten, then as five of ten, three of five, two of three, and alone.
    assert_eq!(letter.attempts, 6);
    assert_eq!(letter.error, format!("poison at {}", put[4]));
}

#[tokio::test(start_paused = true)]
async fn dead_letters_without_a_queue_are_refused_or_retried() {
    let (kinesis, store, journal) = scene(1);
    let build = builder(&kinesis, store.clone(), "w")
        .on_error(ErrorPolicy::dead_letter())
        .build(journal.factory("w"));
    let error = build.await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(error.to_string().contains(".dead_letters("), "{error}");
    // A policy of one's own cannot be known beforehand.
    put_poisoned(&kinesis, &journal, (0, 10), &[4]);
    let builder = builder(&kinesis, store.clone(), "w")
        .on_error(ErrorPolicy::decide(|_| ErrorAction::DeadLetter));
    let worker = launch(builder, &journal, "w").await;
    tokio::time::sleep(SECOND * 60).await;
    assert!(journal.processed().is_empty(), "never skipped");
    journal.behave(|behaviour| behaviour.poison.clear());
    until_processed(&kinesis, &journal, SECOND * 15).await;
    worker.stop().await.unwrap();
    assert_eq!(journal.processed(), good(&kinesis, &journal));
}

/// Goal: letters never go to the stream that they come from: they would come back.
#[tokio::test(start_paused = true)]
async fn a_dead_letter_stream_that_is_the_source_is_refused() {
    let (kinesis, store, journal) = scene(1);
    let build = builder(&kinesis, store, "w")
        .on_error(ErrorPolicy::dead_letter())
        .dead_letters(DeadLetterStream::new("orders").raw())
        .build(journal.factory("w"));
    let error = build.await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(error.to_string().contains("orders"), "{error}");
}

/// Takes down what succeeds; anything with "bad" in it fails.
struct Taker(Arc<Mutex<Vec<String>>>);

#[async_trait]
impl RecordProcessor for Taker {
    async fn process_records(
        &mut self,
        batch: RecordBatch,
        checkpointer: &Checkpointer,
    ) -> Result<(), ProcessorError> {
        let text = |record: &Record| String::from_utf8_lossy(record.data()).into_owned();
        let texts: Vec<_> = batch.records().iter().map(text).collect();
        if texts.iter().any(|text| text.contains("bad")) {
            return Err("a bad record".into());
        }
        checkpointer.checkpoint().await?;
        self.0.lock().unwrap().extend(texts);
        Ok(())
    }
}

/// Goal: poison inside aggregates is found as well; the letter is of the user record, the checkpoint lies between user records, and a crash
/// at any moment loses none and repeats only what was not checkpointed.
#[tokio::test(start_paused = true)]
async fn k4_k5_poison_inside_an_aggregate_is_found_and_the_rest_processed() {
    let user = |data: String, hash_key: u32| UserRecord {
        partition_key: "user".into(),
        explicit_hash_key: Some(hash_key.to_string().into()),
        data: Bytes::from(data),
    };
    let (kinesis, store, _) = scene(1);
    let texts: Vec<String> = (0..40)
        .map(|index| match index {
            7 | 20 | 39 => format!("bad {index}"),
            _ => index.to_string(),
        })
        .collect();
    for half in texts.chunks(20) {
        let users: Vec<_> = half.iter().map(|text| user(text.clone(), 5)).collect();
        kinesis.put_data(0, encode(&users));
    }
    let taken: Arc<Mutex<Vec<String>>> = Arc::default();
    let mut worker = None;
    for life in 0..40u32 {
        drop(worker.take());
        let taken = Arc::clone(&taken);
        let policy = ErrorPolicy::dead_letter().after(1);
        let built = to_stream(builder(&kinesis, store.clone(), "w"), policy)
            .build(move |_: &ShardInfo| Taker(Arc::clone(&taken)));
        let built = built.await.unwrap();
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(built.run());
        worker = Some(tasks);
        tokio::time::sleep(Duration::from_millis(2) * life).await;
    }
    tokio::time::sleep(SECOND * 5).await;
    let good: Vec<_> = texts
        .iter()
        .filter(|text| !text.contains("bad"))
        .cloned()
        .collect();
    assert_eq!(*taken.lock().unwrap(), good);
    let places: BTreeSet<_> = kinesis
        .letters()
        .iter()
        .map(|letter| {
            assert_eq!(letter.explicit_hash_key, Some(HashKey(5)));
            let json: Value = serde_json::from_slice(&letter.data).unwrap();
            let sub = json["sub_sequence_number"].as_u64().unwrap();
            (json["sequence_number"].as_str().unwrap().to_owned(), sub)
        })
        .collect();
    let expected = [("1", 7), ("2", 0), ("2", 19)];
    assert_eq!(
        places,
        expected
            .map(|(number, sub)| (number.to_owned(), sub))
            .into()
    );
}
