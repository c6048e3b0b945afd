//! Every setting of a worker, once: name, unit, default and allowed range. Components (lease store, client, clock) are not settings.

use crate::error::{Error, ErrorKind};
use millstream_wire::ConsumerName;
use std::time::Duration;

/// Where an application starts that has no leases for the stream yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum InitialPosition {
    /// The oldest record still retained.
    #[default]
    TrimHorizon,
    /// The moment the first worker of the application starts, by the stream server's clock, rounded down
    /// to the second. It is stored as that time, so that nothing after it is lost by a crash (K4).
    Latest,
    /// The first record that arrived at or after this time, milliseconds since 1970 by the stream server's clock.
    AtTimestamp(u64),
}

/// How the records of a shard get to the worker.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Retrieval {
    /// The worker asks for records, five times a second at most; all applications of a stream share what a shard gives, 2 MB a second.
    #[default]
    Polling,
    /// Enhanced fan-out: the server pushes records as they arrive, over HTTP/2, to a registered consumer, which has 2 MB a second of each shard
    /// to itself. Choose it for latency, or where several applications read one stream; AWS charges for it.
    ///
    /// The worker registers the consumer when it is built and never deregisters it: other workers of the application use it, and
    /// a restart finds it again. Whoever retires the application calls `DeregisterStreamConsumer`. For as long as a shard has no
    /// subscription, because the consumer is still being created, may not be registered or used, or the connection does
    /// not work, the shard is polled, and a subscription is tried for again, at least every ten minutes.
    FanOut {
        /// The consumer's name, `[a-zA-Z0-9_.-]` and up to 128 characters; the same for all workers of an application and for none of
        /// another, which would take its subscriptions. Default: the application's name.
        consumer_name: Option<String>,
    },
}

/// What becomes of a user record inside an aggregated record that belongs to another shard by its hash key.
///
/// Around a reshard a producer may pack for shards that are no more, so that user records arrive on a shard whose hash key
/// range is not theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ForeignRecords {
    /// It is delivered where it arrived; nothing is ever lost. After a reshard the records of the Kinesis Producer Library that arrived on the wrong
    /// shard are delivered twice, since it sends them again.
    #[default]
    Deliver,
    /// It is dropped, counted and logged; the other records of its aggregate are delivered. Only for producers that send such records again, as the
    /// Kinesis Producer Library does: what other aggregators put on the wrong shard is lost.
    Drop,
}

/// The settings of a [`Worker`](crate::Worker); set them on its builder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerConfig {
    /// Names the application: workers of one name share the stream's shards. 1 to 256 characters.
    pub application: String,
    /// The stream's name or ARN; of several the first.
    pub stream: String,
    /// This worker's id, unique among the live workers of the application. Default: host, process and a random part. Choose a stable one
    /// (a pod's name) to get your shards back at once after a crash.
    pub worker_id: String,
    /// The endpoint's URL. Default: `AWS_ENDPOINT_URL_KINESIS`, `AWS_ENDPOINT_URL`, else AWS in the region.
    pub endpoint: Option<String>,
    /// The region. Default: the one in the stream's ARN, `AWS_REGION`, `AWS_DEFAULT_REGION`; `us-east-1` for an endpoint of one's own.
    pub region: Option<String>,
    /// Where to start without leases. Default: trim horizon.
    pub initial_position: InitialPosition,
    /// A worker that showed no life for this long loses its shards. Default 10 s, 1 s to 1 h. Shorter: faster take-over, more writes to the
    /// lease store (three per period and worker), less patience with pauses. The same for all workers of an application: each
    /// judges the others by its own.
    pub failover_time: Duration,
    /// How records get here. Default: by polling.
    pub retrieval: Retrieval,
    /// Pause before reading again at the tip of a shard. Default 200 ms, the five reads a second that Kinesis allows; 1 ms to 1 min.
    /// A backlog is read without pauses, until the endpoint refuses that.
    pub poll_interval: Duration,
    /// Records asked for in one read, and handed over in one batch at most. Default 10,000; 1 to 10,000. Smaller batches mean finer checkpoints
    /// and less memory. An aggregated record counts as one when it is read; of its user records each counts in the batch.
    pub max_records: u32,
    /// Bytes of data and partition keys in one batch at most; a single record always fits. Default 10 MiB, the most that one read brings; 1 byte to
    /// 1 GiB. Smaller where a batch becomes one request with a limit of its own.
    pub max_batch_bytes: usize,
    /// How long a batch may wait for more records, from its first, until it holds `max_records` or `max_batch_bytes`. Default zero: what a read brings is
    /// delivered at once; up to 5 min. Longer: fewer and larger batches from a stream that trickles, each later by as much. A hand-over
    /// and a shutdown do not wait for it, nor does the end of a shard. What waits counts as read ahead: while `read_ahead_bytes` is used up,
    /// no more is gathered.
    pub batch_window: Duration,
    /// What becomes of user records in aggregated records that belong to another shard. Default: they are delivered.
    pub foreign_records: ForeignRecords,
    /// Shards this worker processes at most, of all streams together. Default: no limit; at least 1.
    pub max_leases: usize,
    /// Bytes that all shards together may have read beyond the batches in work. Default 64 MiB; 10 MiB to 4 GiB.
    pub read_ahead_bytes: usize,
    /// How often the shards are listed to find new ones; also at every shard end. Default 30 s; 100 ms to 1 h.
    pub shard_sync_interval: Duration,
    /// How long the endpoint may be silent during a request; an answer that goes on arriving may take ten times as long.
    /// Default: 10 s, but less than the fail-over time; 100 ms to 10 min.
    pub request_timeout: Option<Duration>,
    /// How long a graceful shutdown waits for processors; what still runs then is cancelled. Also how long `shutdown_requested` and
    /// `lease_lost` may take when a single shard changes hands. Default 30 s, up to 1 h.
    pub shutdown_grace: Duration,
}

/// Streams of one worker at most.
pub(crate) const STREAMS_MAX: usize = 1_000;

/// Bytes reserved for a read of unknown size: the most that GetRecords answers with.
pub(crate) const PAGE_RESERVATION_BYTES: u32 = 10 * 1024 * 1024;

impl WorkerConfig {
    /// The defaults for an application and a stream.
    pub fn new(application: impl Into<String>, stream: impl Into<String>) -> Self {
        WorkerConfig {
            application: application.into(),
            stream: stream.into(),
            worker_id: default_worker_id(),
            endpoint: None,
            region: None,
            initial_position: InitialPosition::TrimHorizon,
            failover_time: Duration::from_secs(10),
            retrieval: Retrieval::Polling,
            poll_interval: Duration::from_millis(200),
            max_records: 10_000,
            max_batch_bytes: 10 * 1024 * 1024,
            batch_window: Duration::ZERO,
            foreign_records: ForeignRecords::Deliver,
            max_leases: usize::MAX,
            read_ahead_bytes: 64 * 1024 * 1024,
            shard_sync_interval: Duration::from_secs(30),
            request_timeout: None,
            shutdown_grace: Duration::from_secs(30),
        }
    }

    /// Checks every setting.
    ///
    /// # Errors
    /// `Configuration`, naming the setting, its value and what is allowed.
    pub fn validate(&self) -> Result<(), Error> {
        text("application", &self.application, 256)?;
        text("stream", &self.stream, 2048)?;
        text("worker_id", &self.worker_id, 256)?;
        let (hour, ms) = (Duration::from_hours(1), Duration::from_millis(1));
        range(
            "failover_time",
            self.failover_time,
            Duration::from_secs(1),
            hour,
        )?;
        range(
            "poll_interval",
            self.poll_interval,
            ms,
            Duration::from_mins(1),
        )?;
        if let Some(name) = self.consumer_name() {
            consumer_name(name)?;
        }
        range("max_records", self.max_records, 1, 10_000)?;
        range("max_batch_bytes", self.max_batch_bytes, 1, 1 << 30)?;
        range(
            "batch_window",
            self.batch_window,
            Duration::ZERO,
            Duration::from_mins(5),
        )?;
        range("max_leases", self.max_leases, 1, usize::MAX)?;
        let (least, most) = (PAGE_RESERVATION_BYTES, u32::MAX);
        let read_ahead = u32::try_from(self.read_ahead_bytes)
            .map_err(|_| refused("read_ahead_bytes", &self.read_ahead_bytes, &(least..=most)))?;
        range("read_ahead_bytes", read_ahead, least, most)?;
        range(
            "shard_sync_interval",
            self.shard_sync_interval,
            ms * 100,
            hour,
        )?;
        if let Some(timeout) = self.request_timeout {
            range(
                "request_timeout",
                timeout,
                ms * 100,
                Duration::from_mins(10),
            )?;
        }
        range("shutdown_grace", self.shutdown_grace, Duration::ZERO, hour)
    }

    /// The consumer to read by, under enhanced fan-out.
    pub(crate) fn consumer_name(&self) -> Option<&str> {
        match &self.retrieval {
            Retrieval::Polling => None,
            Retrieval::FanOut { consumer_name } => {
                Some(consumer_name.as_deref().unwrap_or(&self.application))
            }
        }
    }

    /// The limit on one request: by default 10 s, or a tenth less than the fail-over time, but no less than 2 s.
    pub(crate) fn effective_request_timeout(&self) -> Duration {
        let below_failover = (self.failover_time * 9 / 10).max(Duration::from_secs(2));
        self.request_timeout
            .unwrap_or(below_failover.min(Duration::from_secs(10)))
    }
}

fn consumer_name(name: &str) -> Result<(), Error> {
    let parsed: Result<ConsumerName, _> = name.parse();
    parsed.map(drop).map_err(|error| {
        let message = format!(
            "consumer_name is {name:?}; it is the application's name unless Retrieval::FanOut gives another"
        );
        Error::with_source(ErrorKind::Configuration, message, error)
    })
}

fn default_worker_id() -> String {
    let host = std::env::var("HOSTNAME")
        .ok()
        .or_else(|| std::fs::read_to_string("/etc/hostname").ok())
        .map(|host| host.trim().chars().take(128).collect::<String>())
        .filter(|host| !host.is_empty())
        .unwrap_or_else(|| "worker".to_owned());
    format!("{host}-{}-{:08x}", std::process::id(), fastrand::u32(..))
}

fn refused(name: &str, value: &dyn std::fmt::Debug, allowed: &dyn std::fmt::Debug) -> Error {
    Error::new(
        ErrorKind::Configuration,
        format!("{name} is {value:?}, allowed is {allowed:?}"),
    )
}

fn text(name: &str, value: &str, longest: usize) -> Result<(), Error> {
    let length = value.chars().count();
    if (1..=longest).contains(&length) && !value.chars().any(char::is_control) {
        return Ok(());
    }
    let shown: String = value.chars().take(80).collect();
    Err(Error::new(
        ErrorKind::Configuration,
        format!(
            "{name} is {shown:?}, expected 1 to {longest} characters without control characters"
        ),
    ))
}

fn range<T: Copy + PartialOrd + std::fmt::Debug>(
    name: &str,
    value: T,
    least: T,
    most: T,
) -> Result<(), Error> {
    if least <= value && value <= most {
        return Ok(());
    }
    Err(refused(name, &value, &(least..=most)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_allowed() {
        WorkerConfig::new("app", "orders").validate().unwrap();
    }

    #[test]
    fn every_setting_out_of_range_is_named() {
        type Change = fn(&mut WorkerConfig);
        let changes: [(&str, Change); 13] = [
            ("application", |c| c.application = String::new()),
            ("stream", |c| c.stream = "a\nb".into()),
            ("worker_id", |c| c.worker_id = "x".repeat(257)),
            ("failover_time", |c| {
                c.failover_time = Duration::from_millis(999);
            }),
            ("poll_interval", |c| c.poll_interval = Duration::ZERO),
            ("consumer_name", |c| {
                c.application = "my app".into();
                c.retrieval = Retrieval::FanOut {
                    consumer_name: None,
                };
            }),
            ("max_records", |c| c.max_records = 10_001),
            ("max_batch_bytes", |c| c.max_batch_bytes = 0),
            ("batch_window", |c| {
                c.batch_window = Duration::from_secs(301);
            }),
            ("max_leases", |c| c.max_leases = 0),
            ("read_ahead_bytes", |c| c.read_ahead_bytes = 1024),
            ("shard_sync_interval", |c| {
                c.shard_sync_interval = Duration::ZERO;
            }),
            ("request_timeout", |c| {
                c.request_timeout = Some(Duration::ZERO);
            }),
        ];
        for (name, change) in changes {
            let mut config = WorkerConfig::new("app", "orders");
            change(&mut config);
            let error = config.validate().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Configuration);
            assert!(error.to_string().starts_with(name), "{error}");
        }
    }

    #[test]
    fn requests_time_out_before_a_worker_is_taken_for_dead() {
        let mut config = WorkerConfig::new("app", "orders");
        assert_eq!(config.effective_request_timeout(), Duration::from_secs(9));
        config.failover_time = Duration::from_mins(1);
        assert_eq!(config.effective_request_timeout(), Duration::from_secs(10));
        config.failover_time = Duration::from_secs(1);
        assert_eq!(config.effective_request_timeout(), Duration::from_secs(2));
    }
}
