//! Subscriptions that end, break, fall silent and are refused, against the fake Kinesis with paused time.

use super::*;
use crate::client::{IteratorStart, PutRecord, RecordsPage, Shard, StreamSummary};
use crate::fake::{FakeKinesis, shard_id};
use crate::fetch::Page;
use crate::fetch::reader::Reader;
use crate::fetch::source::Source;
use async_trait::async_trait;
use millstream_wire::SequenceNumber;
use proptest::prelude::*;
use tokio::sync::Semaphore;

const SECOND: Duration = Duration::from_secs(1);
const BUDGET: usize = 64 * 1024 * 1024;

/// A shard that is read, and what was read.
struct Reading {
    kinesis: FakeKinesis,
    reader: Reader,
    standing: Arc<Standing>,
    budget: Arc<Semaphore>,
    seen: Vec<SequenceNumber>,
    /// The shard's end, once it was read.
    end: Option<Vec<Shard>>,
}

impl Reading {
    async fn of(kinesis: &FakeKinesis, shard: usize) -> Reading {
        let client: Arc<dyn KinesisApi> = Arc::new(kinesis.clone());
        Reading::with(kinesis, client, shard).await
    }

    async fn with(kinesis: &FakeKinesis, client: Arc<dyn KinesisApi>, shard: usize) -> Reading {
        let summary = kinesis.describe_stream("orders").await.unwrap();
        let settings = PollSettings {
            stream: "orders".to_owned(),
            shard_id: shard_id(shard),
            poll_interval: Duration::from_millis(200),
            max_records: 10,
            consumer: Some(Consumer::register(&client, &summary, "app").await),
        };
        let source = Source::new(client, settings, Position::TrimHorizon);
        let budget = Arc::new(Semaphore::new(BUDGET));
        Reading {
            kinesis: kinesis.clone(),
            standing: source.standing(),
            reader: Reader::new(source, Arc::clone(&budget)),
            budget,
            seen: Vec::new(),
            end: None,
        }
    }

    fn take(&mut self, page: Page) {
        let numbers = page.records.iter().map(|record| record.sequence_number);
        self.seen.extend(numbers);
        self.end = page.end.or(self.end.take());
    }

    /// Reads for a while.
    async fn go_on(&mut self, period: Duration) {
        let until = clock::now() + period;
        while self.end.is_none() {
            match tokio::time::timeout_at(until, self.reader.next()).await {
                Ok(Ok(page)) => self.take(page),
                // A failure is told, and reading goes on.
                Ok(Err(_)) => {}
                Err(_) => return,
            }
        }
    }

    /// Reads until everything that was put has come; how long it took.
    async fn catch_up(&mut self, limit: Duration) -> Duration {
        let began = clock::now();
        while self.seen.len() < self.kinesis.put_so_far().len() {
            let page = tokio::time::timeout(limit, self.reader.next()).await;
            if let Ok(page) = page.expect("records come") {
                self.take(page);
            }
        }
        clock::now() - began
    }

    fn check(&self) {
        assert_eq!(self.seen, self.kinesis.put_so_far(), "K4, K5, K6");
    }
}

/// Goal: subscriptions follow one another without a gap, and nothing is polled. Method: twenty minutes, a record every ten seconds.
#[tokio::test(start_paused = true)]
async fn k4_records_are_pushed_once_across_subscriptions() {
    let kinesis = FakeKinesis::new(1);
    let mut reading = Reading::of(&kinesis, 0).await;
    for _ in 0..120 {
        reading.go_on(SECOND * 10).await;
        kinesis.put(0, "x");
        assert!(reading.catch_up(SECOND).await < Duration::from_millis(10));
    }
    reading.check();
    assert_eq!(kinesis.reads(), 0, "nothing was polled");
    assert!(
        (4..=5).contains(&kinesis.subscriptions()),
        "{}",
        kinesis.subscriptions()
    );
    assert_eq!(reading.standing.get(), Retrieving::FanOut);
}

/// Goal: an endpoint that repeats what was read before does no harm.
#[tokio::test(start_paused = true)]
async fn k5_records_that_come_again_are_dropped() {
    let kinesis = FakeKinesis::new(1);
    kinesis.repeat_a_record();
    let mut reading = Reading::of(&kinesis, 0).await;
    for _ in 0..5 {
        kinesis.put_many(0, 3);
        reading.go_on(SECOND * 100).await;
        kinesis.cut_subscriptions();
    }
    reading.catch_up(SECOND).await;
    reading.check();
}

/// Goal: a half-open connection is noticed within 15 s, also while the processor works, and read on from by another subscription.
#[tokio::test(start_paused = true)]
async fn k10_a_half_open_connection_is_noticed_within_15_seconds() {
    for works in [false, true] {
        let kinesis = FakeKinesis::new(1);
        kinesis.put_many(0, 3);
        let mut reading = Reading::of(&kinesis, 0).await;
        reading.go_on(SECOND * 42).await;
        kinesis.silence_subscriptions();
        kinesis.put_many(0, 3);
        let fell_silent = clock::now();
        if works {
            let _ = tokio::time::timeout(SECOND * 14, reading.reader.ahead()).await;
        }
        reading.catch_up(SECOND * 20).await;
        let took = clock::now() - fell_silent;
        assert!(took < SECOND * 15, "it took {took:?}");
        reading.check();
        reading.go_on(SECOND).await;
        assert_eq!(reading.standing.get(), Retrieving::FanOut);
        assert_eq!(kinesis.subscriptions(), 2);
    }
}

/// Goal: a connection that breaks costs no time: the next subscription follows at once.
#[tokio::test(start_paused = true)]
async fn a_broken_subscription_is_followed_by_another_at_once() {
    let kinesis = FakeKinesis::new(1);
    let mut reading = Reading::of(&kinesis, 0).await;
    reading.go_on(SECOND * 42).await;
    kinesis.cut_subscriptions();
    reading.go_on(Duration::from_millis(20)).await;
    kinesis.put(0, "x");
    assert!(reading.catch_up(SECOND).await < Duration::from_millis(20));
    assert_eq!((kinesis.reads(), kinesis.subscriptions()), (0, 2));
}

/// Goal: while a subscription is refused because the last one is still in the way, records come by polling.
#[tokio::test(start_paused = true)]
async fn a_subscription_in_the_way_delays_no_record() {
    let kinesis = FakeKinesis::new(1);
    kinesis.put_many(0, 5);
    let mut reading = Reading::of(&kinesis, 0).await;
    kinesis.refuse_next(&[ErrorKind::Unavailable; 5]);
    assert!(reading.catch_up(SECOND).await < SECOND / 2);
    reading.go_on(SECOND * 15).await;
    assert_eq!(reading.standing.get(), Retrieving::FanOut);
    kinesis.put_many(0, 5);
    reading.catch_up(SECOND).await;
    reading.check();
}

/// Goal: while the consumer is being created the shard is polled, so that a start is not delayed; then it is subscribed to.
#[tokio::test(start_paused = true)]
async fn a_consumer_being_created_does_not_delay_the_start() {
    let kinesis = FakeKinesis::new(1);
    kinesis.create_consumers_in(SECOND * 20);
    kinesis.put_many(0, 5);
    let mut reading = Reading::of(&kinesis, 0).await;
    assert!(reading.catch_up(SECOND).await < SECOND / 10);
    let standing = reading.standing.get();
    assert_eq!(
        standing.to_string(),
        "polling, without enhanced fan-out: consumer app is CREATING"
    );
    reading.go_on(SECOND * 60).await;
    assert_eq!(reading.standing.get(), Retrieving::FanOut);
    kinesis.put_many(0, 5);
    reading.catch_up(SECOND).await;
    reading.check();
}

/// Goal: where fan-out is refused for good the shard is polled without a pause, with the reason to be seen, tried for rarely, and subscribed to
/// once it is allowed.
#[tokio::test(start_paused = true)]
async fn k10_what_fan_out_cannot_mend_is_read_by_polling_until_it_is_mended() {
    for kind in [
        ErrorKind::AccessDenied,
        ErrorKind::Unavailable,
        ErrorKind::Protocol,
    ] {
        let kinesis = FakeKinesis::new(1);
        let mut reading = Reading::of(&kinesis, 0).await;
        reading.go_on(SECOND * 42).await;
        kinesis.refuse_subscriptions(Some(kind));
        for _ in 0..600 {
            kinesis.put(0, "x");
            assert!(reading.catch_up(SECOND).await < SECOND / 2);
            reading.go_on(SECOND).await;
        }
        let standing = reading.standing.get();
        assert!(
            matches!(&standing, Retrieving::PollingInstead { reason } if reason.contains("on demand")),
            "{standing}"
        );
        kinesis.refuse_subscriptions(None);
        reading.go_on(SECOND * 660).await;
        assert_eq!(reading.standing.get(), Retrieving::FanOut);
        kinesis.put(0, "x");
        reading.catch_up(SECOND).await;
        reading.check();
    }
}

/// Goal: a consumer that somebody deregisters is registered again, and one that may not be is no reason to stand still.
#[tokio::test(start_paused = true)]
async fn k10_a_consumer_that_is_gone_is_registered_again() {
    let kinesis = FakeKinesis::new(1);
    let mut reading = Reading::of(&kinesis, 0).await;
    reading.go_on(SECOND * 42).await;
    kinesis.refuse_registration(Some(ErrorKind::AccessDenied));
    kinesis.deregister_consumers();
    kinesis.put_many(0, 3);
    assert!(reading.catch_up(SECOND).await < SECOND);
    reading.go_on(SECOND * 120).await;
    let standing = reading.standing.get().to_string();
    assert!(
        standing.contains("consumer app cannot be registered"),
        "{standing}"
    );
    kinesis.refuse_registration(None);
    reading.go_on(SECOND * 600).await;
    assert_eq!(reading.standing.get(), Retrieving::FanOut);
    kinesis.put_many(0, 3);
    reading.catch_up(SECOND).await;
    reading.check();
}

/// Goal: the end of a shard and its children come by subscription, after its last record; also where the subscription begins behind it.
#[tokio::test(start_paused = true)]
async fn k6_the_end_of_a_shard_comes_with_its_children() {
    let kinesis = FakeKinesis::new(1);
    kinesis.put_many(0, 25);
    let mut reading = Reading::of(&kinesis, 0).await;
    reading.catch_up(SECOND).await;
    kinesis.split(0);
    kinesis.cut_subscriptions();
    reading.go_on(SECOND).await;
    let children: Vec<String> = reading
        .end
        .take()
        .unwrap()
        .into_iter()
        .map(|child| child.shard_id)
        .collect();
    assert_eq!(children, [shard_id(1), shard_id(2)]);
    assert_eq!(kinesis.reads(), 0, "nothing was polled");
    reading.check();
}

/// Goal: an end that is none is read on from.
#[tokio::test(start_paused = true)]
async fn a_false_end_is_read_on_from() {
    let kinesis = FakeKinesis::new(1);
    kinesis.put_many(0, 5);
    kinesis.end_falsely(0, 1);
    let mut reading = Reading::of(&kinesis, 0).await;
    reading.go_on(SECOND).await;
    assert_eq!(reading.end.take(), Some(Vec::new()));
    let error = Error::new(ErrorKind::Protocol, "not closed");
    reading.reader.restart(error);
    kinesis.put_many(0, 5);
    reading.catch_up(SECOND).await;
    reading.check();
}

/// Goal: who waits at the tip takes no room from others, and an event that is read ahead takes what it is.
#[tokio::test(start_paused = true)]
async fn k10_waiting_takes_no_room() {
    let kinesis = FakeKinesis::new(1);
    let mut reading = Reading::of(&kinesis, 0).await;
    let taken = |reading: &Reading| BUDGET - reading.budget.available_permits();
    let _ = tokio::time::timeout(SECOND * 3, reading.reader.ahead()).await;
    assert_eq!(taken(&reading), 0);
    {
        let all = u32::try_from(BUDGET).unwrap();
        let _room = reading
            .budget
            .clone()
            .acquire_many_owned(all)
            .await
            .unwrap();
        kinesis.put_many(0, 5);
        let _ = tokio::time::timeout(SECOND, reading.reader.ahead()).await;
        assert!(
            reading.catch_up(SECOND).await < SECOND / 100,
            "who waits for it needs no room"
        );
    }
    kinesis.put_many(0, 5);
    let _ = tokio::time::timeout(SECOND, reading.reader.ahead()).await;
    assert!((1..=1000).contains(&taken(&reading)), "{}", taken(&reading));
    reading.catch_up(SECOND).await;
    assert_eq!(taken(&reading), 0);
    reading.check();
}

/// A client as users have written them before there was enhanced fan-out.
#[derive(Debug)]
struct Older(FakeKinesis);

#[async_trait]
impl KinesisApi for Older {
    async fn describe_stream(&self, stream: &str) -> Result<StreamSummary, Error> {
        self.0.describe_stream(stream).await
    }

    async fn list_shards(&self, stream: &str) -> Result<Vec<Shard>, Error> {
        self.0.list_shards(stream).await
    }

    async fn shard_iterator(
        &self,
        stream: &str,
        shard_id: &str,
        start: IteratorStart,
    ) -> Result<String, Error> {
        self.0.shard_iterator(stream, shard_id, start).await
    }

    async fn get_records(&self, iterator: &str, limit: u32) -> Result<RecordsPage, Error> {
        self.0.get_records(iterator, limit).await
    }

    async fn put_record(&self, record: PutRecord<'_>) -> Result<SequenceNumber, Error> {
        self.0.put_record(record).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_without_fan_out_polls() {
    let kinesis = FakeKinesis::new(1);
    kinesis.put_many(0, 25);
    let mut reading = Reading::with(&kinesis, Arc::new(Older(kinesis.clone())), 0).await;
    reading.catch_up(SECOND).await;
    reading.check();
    let standing = reading.standing.get().to_string();
    assert!(
        standing.contains("this client has no enhanced fan-out"),
        "{standing}"
    );
}

/// What happens to a shard that is read.
#[derive(Debug, Clone)]
enum Happening {
    Put(usize),
    /// So many milliseconds of reading pass.
    Pass(u64),
    /// So many milliseconds of processing, in which a page is read ahead.
    Work(u64),
    Cut,
    Silence,
    TakeOver,
    Refuse(Vec<ErrorKind>),
    Forbid(Option<ErrorKind>),
    Deregister,
    ForbidRegistration(bool),
    FailPolls(Vec<ErrorKind>),
    ExpireIterators,
}

fn happening() -> impl Strategy<Value = Happening> {
    let kind = prop::sample::select(vec![
        ErrorKind::Unavailable,
        ErrorKind::Throttled,
        ErrorKind::AccessDenied,
        ErrorKind::Protocol,
    ]);
    let kinds = prop::collection::vec(kind.clone(), 1..12);
    prop_oneof![
        6 => (1..25usize).prop_map(Happening::Put),
        4 => (0..40_000u64).prop_map(Happening::Pass),
        2 => (0..400_000u64).prop_map(Happening::Pass),
        3 => (0..20_000u64).prop_map(Happening::Work),
        2 => Just(Happening::Cut),
        2 => Just(Happening::Silence),
        2 => Just(Happening::TakeOver),
        2 => kinds.clone().prop_map(Happening::Refuse),
        1 => prop::option::of(kind).prop_map(Happening::Forbid),
        1 => Just(Happening::Deregister),
        1 => any::<bool>().prop_map(Happening::ForbidRegistration),
        1 => kinds.prop_map(Happening::FailPolls),
        1 => Just(Happening::ExpireIterators),
    ]
}

async fn live_through(happenings: Vec<Happening>, repeats: bool, creating_ms: u64) {
    let kinesis = FakeKinesis::new(1);
    kinesis.create_consumers_in(Duration::from_millis(creating_ms));
    if repeats {
        kinesis.repeat_a_record();
    }
    let mut reading = Reading::of(&kinesis, 0).await;
    for happening in happenings {
        match happening {
            Happening::Put(count) => kinesis.put_many(0, count),
            Happening::Pass(ms) => reading.go_on(Duration::from_millis(ms)).await,
            Happening::Work(ms) => {
                let work = reading.reader.ahead();
                let _ = tokio::time::timeout(Duration::from_millis(ms), work).await;
            }
            Happening::Cut => kinesis.cut_subscriptions(),
            Happening::Silence => kinesis.silence_subscriptions(),
            Happening::TakeOver => kinesis.take_over_subscriptions(),
            Happening::Refuse(kinds) => kinesis.refuse_next(&kinds),
            Happening::Forbid(kind) => kinesis.refuse_subscriptions(kind),
            Happening::Deregister => kinesis.deregister_consumers(),
            Happening::ForbidRegistration(forbidden) => {
                kinesis.refuse_registration(forbidden.then_some(ErrorKind::AccessDenied));
            }
            Happening::FailPolls(kinds) => kinesis.fail(&kinds),
            Happening::ExpireIterators => kinesis.expire_iterators(),
        }
    }
    kinesis.refuse_subscriptions(None);
    kinesis.refuse_registration(None);
    reading.catch_up(SECOND * 60).await;
    reading.go_on(SECOND * 1300).await;
    kinesis.put_many(0, 3);
    let took = reading.catch_up(SECOND * 60).await;
    reading.check();
    assert_eq!(reading.standing.get(), Retrieving::FanOut);
    assert!(took < SECOND / 10, "pushed after {took:?}");
    kinesis.split(0);
    reading.go_on(SECOND).await;
    assert_eq!(reading.end.map(|children| children.len()), Some(2));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Goal: whatever happens to subscriptions, every record comes once and in order (K4, K5, K6), and when nothing fails any more the
    /// shard is read by fan-out again. Method: random troubles, from the state after any others.
    #[test]
    fn k4_nothing_is_lost_or_repeated_whatever_happens_to_subscriptions(
        happenings in prop::collection::vec(happening(), 0..30),
        repeats in any::<bool>(),
        creating_ms in prop_oneof![Just(0u64), 0..60_000u64],
    ) {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_time().start_paused(true).build().unwrap();
        runtime.block_on(live_through(happenings, repeats, creating_ms));
    }
}
