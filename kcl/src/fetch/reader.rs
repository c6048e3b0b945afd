//! Read-ahead: the next page is fetched while the processor works, within one byte budget for all shards of a worker.
//!
//! A page the processor waits for is never held up by the budget, so that shards whose processor is stuck
//! cannot starve the others (K10); only reading *ahead* needs room.

use crate::config::PAGE_RESERVATION_BYTES;
use crate::error::Error;
use crate::fetch::Page;
use crate::fetch::polling::Polled;
use crate::fetch::source::Source;
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

type Request = Pin<Box<dyn Future<Output = (Source, Polled)> + Send>>;

/// Reads one shard, a page ahead at most.
pub(crate) struct Reader {
    state: State,
    budget: Arc<Semaphore>,
    /// Room for the page in the making or ready, when it was begun ahead of need.
    room: Option<OwnedSemaphorePermit>,
    /// Not to be read before this.
    resume_at: Instant,
    /// The last that was told is a failure.
    failed: bool,
}

enum State {
    Idle(Source),
    Requested(Request),
    Ready(Source, Result<Page, Error>),
    /// Only while a future is being replaced.
    Moving,
}

impl Reader {
    pub(crate) fn new(source: impl Into<Source>, budget: Arc<Semaphore>) -> Self {
        Reader {
            state: State::Idle(source.into()),
            budget,
            room: None,
            resume_at: crate::clock::now(),
            failed: false,
        }
    }

    /// The next page with records or the end of the shard; or a failure, after which reading goes on. The first page after a failure is handed out even
    /// if it is empty: the failure is over.
    ///
    /// # Cancel safety
    /// Nothing is lost: a request under way is taken up by the next call.
    pub(crate) async fn next(&mut self) -> Result<Page, Error> {
        loop {
            match std::mem::replace(&mut self.state, State::Moving) {
                State::Ready(source, page) => {
                    self.state = State::Idle(source);
                    self.room = None;
                    return page;
                }
                other => self.state = other,
            }
            self.step().await;
        }
    }

    /// Like [`next`](Reader::next), but read only when there is room in the budget, which comes with the page: for those who could do without it.
    ///
    /// # Cancel safety
    /// Like [`next`](Reader::next).
    pub(crate) async fn next_in_budget(
        &mut self,
    ) -> (Result<Page, Error>, Option<OwnedSemaphorePermit>) {
        loop {
            match std::mem::replace(&mut self.state, State::Moving) {
                State::Ready(source, page) => {
                    self.state = State::Idle(source);
                    return (page, self.room.take());
                }
                other => self.state = other,
            }
            self.step_in_budget().await;
        }
    }

    /// Reads a page ahead; never returns. To be polled beside the processor's work, and dropped with it.
    ///
    /// # Cancel safety
    /// Like [`next`](Reader::next).
    pub(crate) async fn ahead(&mut self) {
        loop {
            if let State::Ready(..) | State::Moving = self.state {
                std::future::pending::<()>().await;
            }
            self.step_in_budget().await;
        }
    }

    /// Like [`step`](Reader::step), once there is room for a page.
    async fn step_in_budget(&mut self) {
        if let State::Idle(source) = &mut self.state {
            tokio::time::sleep_until(self.resume_at).await;
            if self.room.is_none() {
                // Who only waits for something to come takes no room from others.
                let bytes = source.ready().await.min(PAGE_RESERVATION_BYTES);
                let room = Arc::clone(&self.budget).acquire_many_owned(bytes).await;
                self.room = room.ok();
            }
        }
        self.step().await;
    }

    /// The end of the shard turned out not to be one: read on with a new iterator, after a pause.
    pub(crate) fn restart(&mut self, error: Error) {
        self.state = match std::mem::replace(&mut self.state, State::Moving) {
            State::Idle(mut source) => {
                if let Polled::Failed(_, pause) | Polled::Nothing(pause) = source.restart(error) {
                    self.resume_at = crate::clock::now() + pause;
                }
                State::Idle(source)
            }
            other => other,
        };
    }

    /// Moves from idle to requested, or waits for the request.
    async fn step(&mut self) {
        if let State::Idle(_) = self.state {
            tokio::time::sleep_until(self.resume_at).await;
            if let State::Idle(mut source) = std::mem::replace(&mut self.state, State::Moving) {
                self.state = State::Requested(Box::pin(async move {
                    let polled = source.poll().await;
                    (source, polled)
                }));
            }
        }
        if let State::Requested(request) = &mut self.state {
            let (source, polled) = request.as_mut().await;
            self.take_in(source, polled);
        }
    }

    fn take_in(&mut self, source: Source, polled: Polled) {
        match polled {
            Polled::Page(page, pause) if !page.is_empty() || self.failed => {
                self.failed = false;
                self.resume_at = crate::clock::now() + pause;
                let size = page.size_bytes();
                if let Some(room) = &mut self.room {
                    drop(room.split(room.num_permits().saturating_sub(size)));
                }
                self.state = State::Ready(source, Ok(page));
            }
            Polled::Page(_, pause) | Polled::Nothing(pause) => {
                self.room = None;
                self.resume_at = crate::clock::now() + pause;
                self.state = State::Idle(source);
            }
            Polled::Failed(error, pause) => {
                self.failed = true;
                self.room = None;
                self.resume_at = crate::clock::now() + pause;
                self.state = State::Ready(source, Err(error));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Position;
    use crate::client::KinesisApi;
    use crate::fake::{FakeKinesis, shard_id};
    use crate::fetch::polling::{PollSettings, Poller};
    use bytes::Bytes;
    use millstream_wire::aggregation::{UserRecord, encode};
    use std::time::Duration;

    fn reader(kinesis: &FakeKinesis, shard: usize, budget: &Arc<Semaphore>) -> Reader {
        let client: Arc<dyn KinesisApi> = Arc::new(kinesis.clone());
        let settings = PollSettings {
            stream: "orders".to_owned(),
            shard_id: shard_id(shard),
            poll_interval: Duration::from_millis(200),
            max_records: 10,
            consumer: None,
        };
        Reader::new(
            Poller::new(client, settings, Position::TrimHorizon),
            Arc::clone(budget),
        )
    }

    fn permits(count: u32) -> usize {
        usize::try_from(count).unwrap()
    }

    /// Reads ahead for a while, as the consumer does while the processor works.
    async fn work(reader: &mut Reader) {
        let _ = tokio::time::timeout(Duration::from_secs(1), reader.ahead()).await;
    }

    #[tokio::test(start_paused = true)]
    async fn one_page_is_read_ahead_and_its_room_given_back() {
        let kinesis = FakeKinesis::new(1);
        kinesis.put_many(0, 25);
        let whole = permits(PAGE_RESERVATION_BYTES);
        let budget = Arc::new(Semaphore::new(whole));
        let mut reader = reader(&kinesis, 0, &budget);
        work(&mut reader).await;
        let held = whole - budget.available_permits();
        assert!(
            (10..10_000).contains(&held),
            "a page of ten small records holds {held} bytes"
        );
        let before = crate::clock::now();
        assert_eq!(reader.next().await.unwrap().records.len(), 10);
        assert_eq!(crate::clock::now(), before, "it was there already");
        assert_eq!(budget.available_permits(), whole);
    }

    /// Goal: an aggregate that is read ahead counts, and takes, what it is stored with, however many records it packs.
    #[tokio::test(start_paused = true)]
    async fn an_aggregate_read_ahead_takes_what_it_is_stored_with() {
        let user = UserRecord {
            partition_key: "a long partition key ".repeat(12).into(),
            explicit_hash_key: None,
            data: Bytes::new(),
        };
        let data = encode(&vec![user; 10_000]);
        let stored = data.len();
        let kinesis = FakeKinesis::new(1);
        kinesis.put_data(0, data);
        let whole = permits(PAGE_RESERVATION_BYTES);
        let budget = Arc::new(Semaphore::new(whole));
        let mut reader = reader(&kinesis, 0, &budget);
        work(&mut reader).await;
        let held = whole - budget.available_permits();
        assert!(
            (stored..stored + 1000).contains(&held),
            "{stored} bytes stored, {held} counted"
        );
        assert_eq!(reader.next().await.unwrap().records.len(), 1);
    }

    /// Goal: K10, an exhausted budget keeps nobody from reading what is waited for; and an idle shard holds none of it.
    #[tokio::test(start_paused = true)]
    async fn k10_an_exhausted_budget_stops_reading_ahead_only() {
        let kinesis = FakeKinesis::new(2);
        kinesis.put_many(0, 25);
        let budget = Arc::new(Semaphore::new(permits(PAGE_RESERVATION_BYTES)));
        let mut idle = reader(&kinesis, 1, &budget);
        work(&mut idle).await;
        assert_eq!(budget.available_permits(), permits(PAGE_RESERVATION_BYTES));
        let all = Arc::clone(&budget)
            .acquire_many_owned(PAGE_RESERVATION_BYTES)
            .await
            .unwrap();
        let mut starved = reader(&kinesis, 0, &budget);
        work(&mut starved).await;
        assert!(
            matches!(starved.state, State::Idle(_)),
            "no room, no reading ahead"
        );
        assert_eq!(starved.next().await.unwrap().records.len(), 10);
        drop(all);
        work(&mut starved).await;
        assert!(matches!(starved.state, State::Ready(..)));
    }

    /// Goal: nothing is lost or read twice when waiting is given up at any moment.
    #[tokio::test(start_paused = true)]
    async fn cancelled_waits_lose_nothing() {
        let kinesis = FakeKinesis::new(1);
        kinesis.put_many(0, 100);
        let budget = Arc::new(Semaphore::new(permits(PAGE_RESERVATION_BYTES)));
        let mut reader = reader(&kinesis, 0, &budget);
        let mut seen = Vec::new();
        while seen.len() < 100 {
            let wait = Duration::from_micros(fastrand::u64(..3000));
            let _ = tokio::time::timeout(wait, reader.ahead()).await;
            if let Ok(page) = tokio::time::timeout(wait, reader.next()).await {
                seen.extend(
                    page.unwrap()
                        .records
                        .iter()
                        .map(|record| record.sequence_number),
                );
            }
        }
        assert_eq!(seen, kinesis.put_so_far());
    }

    /// Reads pages for a while, each as soon as the one before was handed out; gives how many came, and fails at the first
    /// failure that reaches the consumer.
    async fn read_for(reader: &mut Reader, period: Duration) -> usize {
        let until = crate::clock::now() + period;
        let mut pages = 0;
        while let Ok(page) = tokio::time::timeout_at(until, reader.next()).await {
            page.unwrap();
            pages += 1;
        }
        pages
    }

    /// Goal: a backlog is read as fast as the limits of a shard allow, and being throttled for it is routine: it reaches
    /// nobody, and stays rare. Method: a server that refuses the sixth read within a second.
    #[tokio::test(start_paused = true)]
    async fn a_backlog_is_read_at_the_pace_the_server_allows() {
        let kinesis = FakeKinesis::new(1);
        kinesis.put_many(0, 20_000);
        kinesis.limit_reads(true);
        let budget = Arc::new(Semaphore::new(permits(PAGE_RESERVATION_BYTES)));
        let mut reader = reader(&kinesis, 0, &budget);
        let pages = read_for(&mut reader, Duration::from_secs(100)).await;
        assert!((400..=505).contains(&pages), "{pages} pages in 100 s");
        let throttled = kinesis.throttled();
        assert!(throttled <= 10, "{throttled} reads refused in 100 s");
    }

    /// Goal: applications that share a shard's reads learn to, so that few of their calls are refused. Method: two and four readers at the tip of one
    /// shard that gives five reads a second; the last two of three minutes count.
    #[tokio::test(start_paused = true)]
    async fn applications_that_share_a_shard_find_their_pace() {
        for applications in [2, 4] {
            let kinesis = FakeKinesis::new(1);
            kinesis.limit_reads(true);
            let budget = Arc::new(Semaphore::new(permits(PAGE_RESERVATION_BYTES)));
            let mut readers = tokio::task::JoinSet::new();
            for _ in 0..applications {
                let mut reader = reader(&kinesis, 0, &budget);
                readers.spawn(async move { while reader.next().await.is_ok() {} });
            }
            tokio::time::sleep(Duration::from_mins(1)).await;
            let before = (kinesis.reads(), kinesis.throttled());
            tokio::time::sleep(Duration::from_mins(2)).await;
            let reads = kinesis.reads() - before.0;
            let refused = kinesis.throttled() - before.1;
            assert!(refused * 100 <= reads * 8, "{refused} of {reads} refused");
            assert!(reads >= 300, "{reads} reads, 600 are allowed");
        }
    }

    /// Goal: the pace is not kept for ever: when the limits are lifted, a backlog is read without pauses again.
    #[tokio::test(start_paused = true)]
    async fn reading_goes_fast_again_when_the_server_allows() {
        let kinesis = FakeKinesis::new(1);
        kinesis.put_many(0, 20_000);
        kinesis.limit_reads(true);
        let budget = Arc::new(Semaphore::new(permits(PAGE_RESERVATION_BYTES)));
        let mut reader = reader(&kinesis, 0, &budget);
        read_for(&mut reader, Duration::from_secs(5)).await;
        kinesis.limit_reads(false);
        let pages = read_for(&mut reader, Duration::from_secs(10)).await;
        assert!(pages > 1000, "{pages} pages in ten seconds without limits");
    }

    /// Goal: a shard that is refused again and again is said to be, so that a stall has a reason (K10).
    #[tokio::test(start_paused = true)]
    async fn k10_throttling_without_end_is_a_failure() {
        let kinesis = FakeKinesis::new(1);
        kinesis.put(0, "x");
        kinesis.fail(&[crate::error::ErrorKind::Throttled; 100]);
        let budget = Arc::new(Semaphore::new(permits(PAGE_RESERVATION_BYTES)));
        let mut reader = reader(&kinesis, 0, &budget);
        let refused = tokio::time::timeout(Duration::from_mins(1), reader.next()).await;
        assert!(refused.unwrap().unwrap_err().is_retryable());
    }
}
