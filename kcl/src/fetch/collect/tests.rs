//! When a batch is handed on, and that nothing is lost or given twice whatever happens meanwhile.

use super::*;
use crate::checkpoint::Position;
use crate::client::KinesisApi;
use crate::config::PAGE_RESERVATION_BYTES;
use crate::error::ErrorKind;
use crate::fake::{FakeKinesis, shard_id};
use crate::fetch::expand::{Batches, Selection};
use crate::fetch::polling::{PollSettings, Poller};
use bytes::Bytes;
use millstream_wire::aggregation::{UserRecord, encode};
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio::time::timeout;

const WINDOW: Duration = Duration::from_secs(10);

struct Stage {
    kinesis: FakeKinesis,
    budget: Arc<Semaphore>,
    reader: Reader,
    collector: Collector,
}

impl Stage {
    fn new(most: usize, most_bytes: usize) -> Self {
        let kinesis = FakeKinesis::new(1);
        let client: Arc<dyn KinesisApi> = Arc::new(kinesis.clone());
        let settings = PollSettings {
            consumer: None,
            stream: "orders".to_owned(),
            shard_id: shard_id(0),
            poll_interval: Duration::from_millis(200),
            max_records: 100,
        };
        let room = usize::try_from(2 * PAGE_RESERVATION_BYTES).unwrap();
        let budget = Arc::new(Semaphore::new(room));
        let poller = Poller::new(client, settings, Position::TrimHorizon);
        Stage {
            kinesis,
            reader: Reader::new(poller, Arc::clone(&budget)),
            budget,
            collector: Collector::new(Batching {
                most,
                most_bytes,
                window: WINDOW,
            }),
        }
    }

    /// The next page, and how long it took.
    async fn next(&mut self) -> (Result<Page, Error>, Duration) {
        let before = clock::now();
        let page = self.collector.next(&mut self.reader).await;
        (page, clock::now() - before)
    }

    async fn records(&mut self) -> (usize, Duration) {
        let (page, took) = self.next().await;
        (page.unwrap().records.len(), took)
    }
}

fn near(took: Duration, expected: Duration) -> bool {
    took.abs_diff(expected) < Duration::from_millis(300)
}

/// Goal: a trickle makes one batch, when its window from the first record on is over.
#[tokio::test(start_paused = true)]
async fn a_trickle_is_gathered_until_the_window_is_over() {
    let mut stage = Stage::new(100, usize::MAX);
    let kinesis = stage.kinesis.clone();
    let trickle = tokio::spawn(async move {
        tokio::time::sleep(WINDOW).await;
        for _ in 0..30 {
            kinesis.put(0, "x");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
    let (records, took) = stage.records().await;
    assert!(
        near(took, WINDOW * 2),
        "the window begins with the first record: {took:?}"
    );
    assert!((10..=11).contains(&records), "{records} records");
    assert_eq!(
        stage.budget.available_permits(),
        usize::try_from(2 * PAGE_RESERVATION_BYTES).unwrap(),
        "the batch in work is not counted"
    );
    trickle.abort();
}

/// Goal: a full batch does not wait; what is left of its last page begins the next one.
#[tokio::test(start_paused = true)]
async fn a_full_batch_is_handed_on_at_once() {
    let mut stage = Stage::new(60, usize::MAX);
    stage.kinesis.put_many(0, 150);
    for expected in [60, 60] {
        let (records, took) = stage.records().await;
        assert_eq!(records, expected);
        assert!(took < WINDOW / 10, "{took:?}");
    }
    let (records, took) = stage.records().await;
    assert_eq!(records, 30);
    assert!(near(took, WINDOW), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_batch_ends_before_it_would_hold_too_many_bytes() {
    let record = "key".len() + 10;
    let mut stage = Stage::new(100, 3 * record + 5);
    for size in [10, 10, 10, 10, 500, 10] {
        stage.kinesis.put(0, &"x".repeat(size));
    }
    let mut sizes = Vec::new();
    for _ in 0..4 {
        sizes.push(stage.records().await.0);
    }
    assert_eq!(sizes, [3, 1, 1, 1], "a record always fits alone");
}

/// Goal: user records count, not the stored ones that they are packed in.
#[tokio::test(start_paused = true)]
async fn packed_records_fill_a_batch() {
    let user = UserRecord {
        partition_key: "user".into(),
        explicit_hash_key: None,
        data: Bytes::from_static(b"data"),
    };
    let mut stage = Stage::new(20, usize::MAX);
    for _ in 0..4 {
        stage.kinesis.put_data(0, encode(&vec![user.clone(); 10]));
    }
    for _ in 0..2 {
        let (page, took) = stage.next().await;
        let page = page.unwrap();
        assert_eq!(page.records.len(), 2);
        assert!(took < WINDOW / 10, "{took:?}");
        let selection = Selection {
            done: Position::TrimHorizon,
            own: None,
            most: 100,
            most_bytes: usize::MAX,
        };
        let mut batches = Batches::of(page.records, page.decoded, selection);
        assert_eq!(batches.next().unwrap().records.len(), 20);
    }
}

/// Goal: an aggregate is taken apart once, and no sooner than its batch is gathered. Method: a page of many; what was looked into comes with the
/// batch, what comes after it lies as it was read.
#[tokio::test(start_paused = true)]
async fn an_aggregate_is_taken_apart_once_and_for_its_batch_only() {
    let user = UserRecord {
        partition_key: "user".into(),
        explicit_hash_key: None,
        data: Bytes::from_static(b"data"),
    };
    let mut stage = Stage::new(25, usize::MAX);
    stage.kinesis.put(0, "plain");
    for _ in 0..50 {
        stage.kinesis.put_data(0, encode(&vec![user.clone(); 10]));
    }
    let mut aggregates = 0;
    while aggregates < 50 {
        let page = stage.next().await.0.unwrap();
        let count = page.records.iter().filter(|record| !is_plain(record));
        let count = count.count();
        aggregates += count;
        assert_eq!(page.decoded.len(), count);
        let ahead = stage.collector.taken.len();
        assert!(ahead <= 1, "{ahead} taken apart beyond the batch");
    }
}

/// Goal: after a failure the first sound read is told though it brought nothing, and only that one.
#[tokio::test(start_paused = true)]
async fn k10_an_empty_read_ends_a_failure() {
    let mut stage = Stage::new(100, usize::MAX);
    stage.kinesis.fail(&[ErrorKind::Protocol]);
    assert!(stage.next().await.0.is_err());
    let (page, took) = stage.next().await;
    assert!(page.unwrap().is_empty());
    assert!(took < Duration::from_secs(1), "{took:?}");
    let idle = stage.collector.next(&mut stage.reader);
    assert!(timeout(WINDOW, idle).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_shard_does_not_wait() {
    let mut stage = Stage::new(60, usize::MAX);
    stage.kinesis.put_many(0, 70);
    stage.kinesis.split(0);
    let (first, _) = stage.next().await;
    let first = first.unwrap();
    assert_eq!((first.records.len(), first.end), (60, None));
    let (last, took) = stage.next().await;
    let last = last.unwrap();
    assert_eq!(last.records.len(), 10);
    assert_eq!(last.end.map(|children| children.len()), Some(2));
    assert!(took < WINDOW / 10, "{took:?}");
}

/// Goal: K10, trouble in reading does not hold up what was read before it, and is told after it.
#[tokio::test(start_paused = true)]
async fn k10_a_failure_comes_after_what_was_gathered_before_it() {
    let mut stage = Stage::new(100, usize::MAX);
    stage.kinesis.put_many(0, 5);
    let early = timeout(
        Duration::from_secs(1),
        stage.collector.next(&mut stage.reader),
    )
    .await;
    assert!(early.is_err(), "the window is open");
    stage.kinesis.fail(&[ErrorKind::Protocol]);
    let (records, took) = stage.records().await;
    assert_eq!(records, 5);
    assert!(took < WINDOW / 2, "{took:?}");
    let (failed, _) = stage.next().await;
    assert_eq!(failed.unwrap_err().kind(), ErrorKind::Protocol);
    stage.kinesis.put_many(0, 2);
    assert_eq!(stage.records().await.0, 2);
}

/// Goal: K10, while the budget is used up a batch is no larger, and no later.
#[tokio::test(start_paused = true)]
async fn k10_without_room_the_window_ends_as_usual() {
    let mut stage = Stage::new(100, usize::MAX);
    let all = 2 * PAGE_RESERVATION_BYTES;
    let _used_up = Arc::clone(&stage.budget)
        .acquire_many_owned(all)
        .await
        .unwrap();
    stage.kinesis.put_many(0, 5);
    let early = timeout(
        Duration::from_secs(1),
        stage.collector.next(&mut stage.reader),
    )
    .await;
    assert!(early.is_err(), "the window is open");
    stage.kinesis.put_many(0, 7);
    let (records, took) = stage.records().await;
    assert_eq!(records, 5);
    assert!(near(took + Duration::from_secs(1), WINDOW), "{took:?}");
    assert_eq!(stage.records().await.0, 7, "what is waited for is read");
}

/// Goal: K4, nothing is lost or given twice when waiting is given up at any moment, with failures and expired iterators in between.
#[tokio::test(start_paused = true)]
async fn k4_cancelled_waits_lose_nothing() {
    let mut stage = Stage::new(40, 600);
    stage.kinesis.put_many(0, 500);
    let mut seen = Vec::new();
    while seen.len() < 500 {
        if fastrand::u8(..20) == 0 {
            stage.kinesis.fail(&[ErrorKind::Unavailable]);
            stage.kinesis.expire_iterators();
        }
        let wait = Duration::from_micros(fastrand::u64(..3000));
        let _ = timeout(wait, stage.reader.ahead()).await;
        let next = stage.collector.next(&mut stage.reader);
        if let Ok(Ok(page)) = timeout(wait * 500, next).await {
            assert!(page.records.len() <= 40);
            seen.extend(page.records.iter().map(Record::sequence_number));
        }
    }
    assert_eq!(seen, stage.kinesis.put_so_far());
}
