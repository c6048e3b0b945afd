//! Reads a shard with GetRecords: iterators and their expiry, the pace under throttling, the pause at the tip. It also keeps how far the
//! shard was read when others read it ([`fanout`](super::fanout)), so that there is one account of it.
//!
//! What it gives back is in strictly increasing order with nothing left out (K4, K6): a new iterator starts after the last
//! record *read*, or at the original position if none was.

use crate::checkpoint::Position;
use crate::client::retry::backoff;
use crate::client::{IteratorStart, KinesisApi, RecordsPage, Shard, SubscriptionEvent};
use crate::clock::{self, Instant};
use crate::error::{Error, ErrorKind};
use crate::fetch::Page;
use crate::fetch::registration::Consumer;
use crate::metrics::ShardMetrics;
use crate::processor::Record;
#[cfg(test)]
use crate::seeded_bug::{Bug, made};
use millstream_wire::SequenceNumber;
use std::sync::Arc;
use std::time::Duration;

/// What one shard is read with.
#[derive(Debug, Clone)]
pub(crate) struct PollSettings {
    pub(crate) stream: String,
    pub(crate) shard_id: String,
    pub(crate) poll_interval: Duration,
    pub(crate) max_records: u32,
    /// Reads by enhanced fan-out where there is one.
    pub(crate) consumer: Option<Arc<Consumer>>,
}

/// The reading end of one shard.
#[derive(Debug)]
pub(crate) struct Poller {
    client: Arc<dyn KinesisApi>,
    settings: PollSettings,
    start: Position,
    last_read: Option<SequenceNumber>,
    iterator: Option<String>,
    failures: u32,
    pace: Pace,
    metrics: ShardMetrics,
}

/// What one request brought.
#[derive(Debug)]
pub(crate) enum Polled {
    /// A sound answer: records, or the end of the shard, or neither; what comes after is to be read after the pause.
    Page(Page, Duration),
    /// No answer: read again after the pause.
    Nothing(Duration),
    /// A failure: read again after the pause.
    Failed(Error, Duration),
}

/// What one shard allows, to all applications together: five reads a second.
const PACE_INTERVAL: Duration = Duration::from_millis(200);
/// How long the pace is kept after the first refusal; doubled whenever going fast is refused again.
const FIRST_PACE: Duration = Duration::from_secs(5);
const LONGEST_PACE: Duration = Duration::from_mins(5);
/// The slowest pace: with as many applications on a shard as share five reads a second at one in two seconds each.
const SLOWEST_PACE: Duration = Duration::from_secs(2);
/// The part of the interval by which a page makes it shorter: of some fifty reads one is refused to find out that more are not allowed.
const PACE_RECOVERY: u32 = 100;
/// Refusals in a row that are routine; more have a reason worth telling.
const ROUTINE_REFUSALS: u32 = 8;
const EMPTY_PAGE_PAUSE: Duration = Duration::from_millis(10);
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const LONGEST_BACKOFF: Duration = Duration::from_secs(5);

impl Poller {
    /// Reads what comes after `start`.
    pub(crate) fn new(
        client: Arc<dyn KinesisApi>,
        settings: PollSettings,
        start: Position,
    ) -> Self {
        Poller {
            client,
            settings,
            start,
            last_read: None,
            iterator: None,
            failures: 0,
            pace: Pace::default(),
            metrics: ShardMetrics::default(),
        }
    }

    /// Counts its reads.
    pub(crate) fn measured(self, metrics: ShardMetrics) -> Self {
        Poller { metrics, ..self }
    }

    /// Sends one request for records, with a new iterator if there is none.
    pub(crate) async fn poll(&mut self) -> Polled {
        match self.read().await {
            Ok(page) => {
                self.failures = 0;
                self.take_in(page)
            }
            Err(error) => self.failed(error),
        }
    }

    async fn read(&mut self) -> Result<RecordsPage, Error> {
        let iterator = if let Some(iterator) = &self.iterator {
            iterator.clone()
        } else {
            let (stream, shard_id) = (&self.settings.stream, &self.settings.shard_id);
            let start = self.place()?;
            let iterator = self.client.shard_iterator(stream, shard_id, start).await?;
            self.iterator.insert(iterator).clone()
        };
        self.client
            .get_records(&iterator, self.settings.max_records)
            .await
    }

    /// Where to read on.
    pub(crate) fn place(&self) -> Result<IteratorStart, Error> {
        let start = iterator_start(self.start, self.last_read)?;
        #[cfg(test)]
        let start = mistaken(start, self.failures);
        Ok(start)
    }

    /// Moves the place behind these records.
    fn advance(&mut self, records: &[Record]) -> Result<(), Error> {
        let mut last = self.last_read;
        for record in records {
            if last.is_some_and(|last| record.sequence_number <= last) {
                return Err(Error::new(
                    ErrorKind::Protocol,
                    format!(
                        "record {} came after {last:?}: the endpoint must give records in order",
                        record.sequence_number
                    ),
                ));
            }
            last = Some(record.sequence_number);
        }
        self.last_read = last;
        Ok(())
    }

    /// Takes in what a subscription pushed from this place on. Records that were read before are dropped.
    pub(crate) fn take_pushed(&mut self, event: SubscriptionEvent) -> Result<Page, Error> {
        let SubscriptionEvent {
            mut records,
            continuation,
            millis_behind_latest,
            children,
        } = event;
        if let Some(last) = self.last_read {
            records.retain(|record| last < record.sequence_number);
        }
        self.advance(&records)?;
        self.metrics.read(records.len(), millis_behind_latest);
        self.iterator = None;
        self.failures = 0;
        let end = continuation.is_none().then(|| self.true_children(children));
        Ok(Page::read(records, millis_behind_latest, end))
    }

    fn take_in(&mut self, page: RecordsPage) -> Polled {
        if let Err(error) = self.advance(&page.records) {
            return self.failed(error);
        }
        let behind_ms = page.millis_behind_latest;
        self.metrics.read(page.records.len(), behind_ms);
        self.pace.allowed();
        self.iterator = page.next_iterator;
        let end = self
            .iterator
            .is_none()
            .then(|| self.true_children(page.children));
        // At the tip, five reads a second are all that Kinesis allows; behind it there is no reason to wait.
        let pause = match page.millis_behind_latest {
            0 => self.settings.poll_interval,
            _ => Duration::ZERO,
        };
        let pause = pause.max(self.pace.pause(self.settings.poll_interval));
        let page = Page::read(page.records, page.millis_behind_latest, end);
        let least = if page.is_empty() {
            EMPTY_PAGE_PAUSE.min(self.settings.poll_interval)
        } else {
            Duration::ZERO
        };
        Polled::Page(page, pause.max(least))
    }

    /// The children a page names, if they name this shard as their parent; else none: the listing will tell. One that was leased without its
    /// parents would not wait for them (K6).
    fn true_children(&self, children: Vec<Shard>) -> Vec<Shard> {
        let shard_id = &self.settings.shard_id;
        if children
            .iter()
            .all(|child| child.parents.contains(shard_id))
        {
            return children;
        }
        tracing::debug!(shard_id, ?children, "not the children of this shard");
        Vec::new()
    }

    /// What came of it when the shard's end turned out not to be one: the next read asks for a new iterator.
    pub(crate) fn restart(&mut self, error: Error) -> Polled {
        self.failed(error)
    }

    fn failed(&mut self, error: Error) -> Polled {
        self.failures = self.failures.saturating_add(1);
        match error.kind() {
            ErrorKind::Throttled => self.metrics.throttled_reads.increment(1),
            _ => self.metrics.read_failures.increment(1),
        }
        if !matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Throttled) {
            self.iterator = None;
        }
        // An expired iterator is routine; one that expires again and again is not.
        if error.kind() == ErrorKind::Expired && self.failures == 1 {
            return Polled::Nothing(Duration::ZERO);
        }
        let pause = backoff(FIRST_BACKOFF, LONGEST_BACKOFF, self.failures)
            .mul_f64(0.5 + 0.5 * fastrand::f64());
        if error.kind() == ErrorKind::Throttled {
            self.pace.refused(self.failures);
            let pause = pause.max(self.pace.pause(self.settings.poll_interval));
            if self.failures <= ROUTINE_REFUSALS {
                let shard = &self.settings.shard_id;
                tracing::debug!(%error, shard, ?pause, "the shard is read too fast");
                return Polled::Nothing(pause);
            }
            return Polled::Failed(error, pause);
        }
        Polled::Failed(error, pause)
    }
}

/// How fast a backlog is read: without pauses until the server refuses that, then at its limit for a while, then without
/// pauses again. What other applications read, and a server without limits, are found out by trying: refused at its pace, a shard is read
/// half as fast again, and a little faster after every page.
#[derive(Debug)]
struct Pace {
    /// The last refusal, and how long the pace is kept for it.
    kept: Option<(Instant, Duration)>,
    /// The least time between two reads while it is kept.
    interval: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Pace {
            kept: None,
            interval: PACE_INTERVAL,
        }
    }
}

impl Pace {
    /// A read was refused, as so many in a row.
    fn refused(&mut self, in_a_row: u32) {
        let now = clock::now();
        let span = match self.kept {
            Some((since, span)) if now < since + span => {
                // Those that follow say nothing about the pace, only about the second that is not over.
                if in_a_row == 1 {
                    self.interval = (self.interval * 3 / 2).min(SLOWEST_PACE);
                }
                span
            }
            // Refused soon after going fast again: the limit is there to stay.
            Some((since, span)) if now < since + span * 2 => (span * 2).min(LONGEST_PACE),
            Some(_) | None => {
                self.interval = PACE_INTERVAL;
                FIRST_PACE
            }
        };
        self.kept = Some((now, span));
    }

    /// A page came.
    fn allowed(&mut self) {
        self.interval = (self.interval * (PACE_RECOVERY - 1) / PACE_RECOVERY).max(PACE_INTERVAL);
    }

    /// The least pause between two reads.
    fn pause(&self, poll_interval: Duration) -> Duration {
        match self.kept {
            Some((since, span)) if clock::now() < since + span => poll_interval.max(self.interval),
            Some(_) | None => Duration::ZERO,
        }
    }
}

/// Where to read on. A position inside an aggregate reads its record again, to be filtered later.
fn iterator_start(
    start: Position,
    last_read: Option<SequenceNumber>,
) -> Result<IteratorStart, Error> {
    match (last_read, start) {
        (Some(last), _) => Ok(IteratorStart::AfterSequence(last)),
        (None, Position::TrimHorizon) => Ok(IteratorStart::TrimHorizon),
        (None, Position::AtTimestamp(ms)) => Ok(IteratorStart::AtTimestamp(ms)),
        (
            None,
            Position::Sequence {
                sequence,
                sub_sequence: u64::MAX,
            },
        ) => Ok(IteratorStart::AfterSequence(sequence)),
        (None, Position::AtSequence(sequence) | Position::Sequence { sequence, .. }) => {
            Ok(IteratorStart::AtSequence(sequence))
        }
        (None, Position::ShardEnd) => Err(Error::new(
            ErrorKind::InvalidPosition,
            "a shard at SHARD_END has nothing left to read",
        )),
    }
}

/// The mistakes that the checkers must catch; the Java KCL 3.5 makes the last.
#[cfg(test)]
fn mistaken(start: IteratorStart, failures: u32) -> IteratorStart {
    match start {
        IteratorStart::AtTimestamp(_) if made(Bug::LatestSentinel) => {
            IteratorStart::AtTimestamp(u64::MAX)
        }
        IteratorStart::AtSequence(number)
            if made(Bug::AfterInsteadOfAt) || failures > 0 && made(Bug::RestartAfterTheRecord) =>
        {
            IteratorStart::AfterSequence(number)
        }
        start => start,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k4_every_position_has_its_iterator() {
        let five: SequenceNumber = "5".parse().unwrap();
        let nine: SequenceNumber = "9".parse().unwrap();
        let inside = Position::Sequence {
            sequence: five,
            sub_sequence: 3,
        };
        let table = [
            (Position::TrimHorizon, None, IteratorStart::TrimHorizon),
            (
                Position::AtTimestamp(7),
                None,
                IteratorStart::AtTimestamp(7),
            ),
            (
                Position::after(five),
                None,
                IteratorStart::AfterSequence(five),
            ),
            (inside, None, IteratorStart::AtSequence(five)),
            (
                Position::AtSequence(five),
                None,
                IteratorStart::AtSequence(five),
            ),
            (
                Position::TrimHorizon,
                Some(nine),
                IteratorStart::AfterSequence(nine),
            ),
            (inside, Some(nine), IteratorStart::AfterSequence(nine)),
        ];
        for (start, last_read, expected) in table {
            assert_eq!(iterator_start(start, last_read).unwrap(), expected);
        }
        assert!(iterator_start(Position::ShardEnd, None).is_err());
    }
}
