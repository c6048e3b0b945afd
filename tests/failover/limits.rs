//! Workers against a server with AWS's limits: they learn to live with them, and get everything.

use crate::SERVER;
use async_trait::async_trait;
use bytes::Bytes;
use kcl::client::{
    HttpClient, IteratorStart, KinesisApi, PutRecord, RecordsPage, Shard, StreamSummary,
};
use kcl::{
    Checkpointer, Error, ErrorKind, MemoryLeaseStore, ProcessorError, RecordBatch, RecordProcessor,
    ShardInfo, Worker, WorkerHandle,
};
use millstream_wire::SequenceNumber;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use support::ServerProcess;

const STREAM: &str = "orders";
const SHARDS: u32 = 50;
const RECORDS: u32 = 400;
/// A test machine is busy; alone it takes some seconds.
const LIMIT: Duration = Duration::from_mins(1);

/// A client that counts what is asked, and what is refused for the pace.
#[derive(Debug)]
struct Counting {
    inner: HttpClient,
    calls: AtomicU32,
    throttled: AtomicU32,
}

impl Counting {
    fn count<T>(&self, answer: Result<T, Error>) -> Result<T, Error> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = &answer
            && error.kind() == ErrorKind::Throttled
        {
            self.throttled.fetch_add(1, Ordering::Relaxed);
        }
        answer
    }
}

#[async_trait]
impl KinesisApi for Counting {
    async fn describe_stream(&self, stream: &str) -> Result<StreamSummary, Error> {
        self.count(self.inner.describe_stream(stream).await)
    }

    async fn list_shards(&self, stream: &str) -> Result<Vec<Shard>, Error> {
        self.count(self.inner.list_shards(stream).await)
    }

    async fn shard_iterator(
        &self,
        stream: &str,
        shard_id: &str,
        start: IteratorStart,
    ) -> Result<String, Error> {
        let iterator = self.inner.shard_iterator(stream, shard_id, start).await;
        self.count(iterator)
    }

    async fn get_records(&self, iterator: &str, limit: u32) -> Result<RecordsPage, Error> {
        self.count(self.inner.get_records(iterator, limit).await)
    }

    async fn put_record(&self, record: PutRecord<'_>) -> Result<SequenceNumber, Error> {
        self.count(self.inner.put_record(record).await)
    }
}

/// Keeps which records it saw.
struct Keeper(Arc<Mutex<BTreeSet<Bytes>>>);

#[async_trait]
impl RecordProcessor for Keeper {
    async fn process_records(
        &mut self,
        batch: RecordBatch,
        checkpointer: &Checkpointer,
    ) -> Result<(), ProcessorError> {
        let data = batch.records().iter().map(|record| record.data().clone());
        self.0.lock().unwrap().extend(data);
        Ok(checkpointer.checkpoint().await?)
    }
}

/// An application of one worker.
struct Application {
    client: Arc<Counting>,
    seen: Arc<Mutex<BTreeSet<Bytes>>>,
    handle: WorkerHandle,
    running: tokio::task::JoinHandle<Result<(), Error>>,
}

impl Application {
    async fn start(name: &str, url: &str) -> Application {
        let client = Arc::new(Counting {
            inner: HttpClient::new(Some(url), None, STREAM, Duration::from_secs(10)).unwrap(),
            calls: AtomicU32::new(0),
            throttled: AtomicU32::new(0),
        });
        let seen: Arc<Mutex<BTreeSet<Bytes>>> = Arc::default();
        let keep = Arc::clone(&seen);
        let worker = Worker::builder(name, STREAM)
            .client(Arc::clone(&client) as Arc<dyn KinesisApi>)
            .lease_store(MemoryLeaseStore::new())
            .build(move |_: &ShardInfo| Keeper(Arc::clone(&keep)))
            .await
            .unwrap();
        Application {
            client,
            seen,
            handle: worker.handle(),
            running: tokio::spawn(worker.run()),
        }
    }

    fn calls(&self) -> (u32, u32) {
        let of = |count: &AtomicU32| count.load(Ordering::Relaxed);
        (of(&self.client.calls), of(&self.client.throttled))
    }

    fn seen(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

/// Goal: K4 under AWS's limits: two applications on one stream of many shards read everything, though together they may read a shard five times a
/// second only; and once they have found their pace, few of their calls are refused. Method: a real server with these limits, records before and
/// after the start; what is called in ten seconds after twenty is counted.
#[tokio::test(flavor = "multi_thread")]
async fn k4_two_applications_live_with_the_limits_of_aws() {
    let _alone = support::alone().await;
    let server = ServerProcess::start_with(SERVER, &["--limits", "aws"]).await;
    server.client().create_stream(STREAM, SHARDS).await;
    let url = server.url();
    let producer = HttpClient::new(Some(&url), None, STREAM, Duration::from_secs(10)).unwrap();
    let put = async |from: u32| {
        for number in from..from + RECORDS / 2 {
            let (key, data) = (number.to_string(), Bytes::from(number.to_string()));
            let record = PutRecord {
                stream: STREAM,
                partition_key: &key,
                explicit_hash_key: None,
                data: &data,
            };
            producer.put_record(record).await.unwrap();
        }
    };
    put(0).await;
    let applications = [
        Application::start("one", &url).await,
        Application::start("two", &url).await,
    ];
    put(RECORDS / 2).await;
    let began = tokio::time::Instant::now();
    while applications.iter().any(|one| one.seen() < RECORDS as usize) {
        let counts: Vec<usize> = applications.iter().map(Application::seen).collect();
        assert!(began.elapsed() < LIMIT, "{counts:?} of {RECORDS} seen");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!("everything was seen after {:?}", began.elapsed());
    tokio::time::sleep(Duration::from_secs(20)).await;
    let before: Vec<(u32, u32)> = applications.iter().map(Application::calls).collect();
    tokio::time::sleep(Duration::from_secs(10)).await;
    for (application, before) in applications.iter().zip(before) {
        let after = application.calls();
        let (calls, throttled) = (after.0 - before.0, after.1 - before.1);
        println!("{throttled} of {calls} calls in ten seconds were refused");
        assert!(
            throttled * 100 <= calls * 15,
            "{throttled} of {calls} refused"
        );
        assert!(calls >= SHARDS * 5, "{calls} calls: it hardly reads");
        assert!(
            application.handle.health().is_ready(),
            "{}",
            application.handle.health()
        );
    }
    for application in applications {
        application.handle.shutdown();
        application.running.await.unwrap().unwrap();
    }
}
