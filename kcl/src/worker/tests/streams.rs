//! One worker, many streams: shared together, begun each at its own position, added, removed and gone while the others go on.

use super::*;
use crate::ErrorKind;
use crate::client::{
    IteratorStart, PutRecord, RecordsPage, Shard, StreamConsumer, StreamSummary, SubscribeRequest,
    Subscription,
};
use crate::config::Retrieval;
use crate::fake::recorder::{Event, Recorder};
use crate::lease::{Lease, MemoryLeaseStore};
use crate::policy::ErrorPolicy;
use crate::processor::ShardInfo;
use crate::worker::{StreamConfig, StreamState};
use async_trait::async_trait;
use millstream_wire::SequenceNumber;
use std::collections::{BTreeMap, BTreeSet};

const SECOND: Duration = Duration::from_secs(1);

/// Streams by name, behind one client.
#[derive(Debug, Clone, Default)]
struct Region(BTreeMap<String, FakeKinesis>);

impl Region {
    fn stream(&self, stream: &str) -> Result<&FakeKinesis, Error> {
        // What names a consumer names its stream before it.
        let (stream, _) = stream.split_once("/consumer/").unwrap_or((stream, ""));
        let name = stream.rsplit('/').next().unwrap();
        let none = || Error::new(ErrorKind::NotFound, format!("no stream {name}"));
        self.0.get(name).ok_or_else(none)
    }
}

#[async_trait]
impl KinesisApi for Region {
    async fn describe_stream(&self, stream: &str) -> Result<StreamSummary, Error> {
        self.stream(stream)?.describe_stream(stream).await
    }

    async fn list_shards(&self, stream: &str) -> Result<Vec<Shard>, Error> {
        self.stream(stream)?.list_shards(stream).await
    }

    async fn shard_iterator(
        &self,
        stream: &str,
        shard_id: &str,
        start: IteratorStart,
    ) -> Result<String, Error> {
        let kinesis = self.stream(stream)?;
        let iterator = kinesis.shard_iterator(stream, shard_id, start).await?;
        Ok(format!("{stream}:{iterator}"))
    }

    async fn get_records(&self, iterator: &str, limit: u32) -> Result<RecordsPage, Error> {
        let (stream, iterator) = iterator.rsplit_once(':').unwrap();
        let mut page = self.stream(stream)?.get_records(iterator, limit).await?;
        page.next_iterator = page.next_iterator.map(|next| format!("{stream}:{next}"));
        Ok(page)
    }

    async fn put_record(&self, record: PutRecord<'_>) -> Result<SequenceNumber, Error> {
        self.stream(record.stream)?.put_record(record).await
    }

    async fn register_consumer(
        &self,
        stream_arn: &str,
        name: &str,
    ) -> Result<StreamConsumer, Error> {
        let kinesis = self.stream(stream_arn)?;
        kinesis.register_consumer(stream_arn, name).await
    }

    async fn describe_consumer(&self, consumer_arn: &str) -> Result<StreamConsumer, Error> {
        let kinesis = self.stream(consumer_arn)?;
        kinesis.describe_consumer(consumer_arn).await
    }

    async fn subscribe(
        &self,
        request: SubscribeRequest<'_>,
    ) -> Result<Box<dyn Subscription>, Error> {
        self.stream(request.consumer_arn)?.subscribe(request).await
    }
}

/// Streams, what is done with their records, and the leases.
struct Scene {
    region: Region,
    journals: BTreeMap<String, Journal>,
    store: MemoryLeaseStore,
}

impl Scene {
    fn new(streams: &[(&str, u32)]) -> Self {
        let streams = streams
            .iter()
            .map(|(name, shards)| ((*name).to_owned(), *shards));
        let streams: Vec<(String, u32)> = streams.collect();
        let kinesis = |(name, shards): &(String, u32)| (name.clone(), FakeKinesis::new(*shards));
        let journal = |(name, _): &(String, u32)| (name.clone(), Journal::default());
        Scene {
            region: Region(streams.iter().map(kinesis).collect()),
            journals: streams.iter().map(journal).collect(),
            store: MemoryLeaseStore::new(),
        }
    }

    fn builder(&self, id: &str, stream: &str) -> WorkerBuilder {
        let client: Arc<dyn KinesisApi> = Arc::new(self.region.clone());
        Worker::builder("app", stream)
            .client(client)
            .lease_store(self.store.clone())
            .worker_id(id)
            .failover_time(FAILOVER)
            .max_records(10)
    }

    async fn launch(&self, builder: WorkerBuilder, id: &str) -> Started {
        let factories: BTreeMap<String, _> = self
            .journals
            .iter()
            .map(|(name, journal)| (name.clone(), journal.factory(id)))
            .collect();
        let factory = move |shard: &ShardInfo| -> Recorder { factories[&shard.stream_name](shard) };
        let worker = builder.build(factory).await.unwrap();
        Started {
            handle: worker.handle(),
            task: tokio::spawn(worker.run()),
        }
    }

    /// Puts records to every shard that is open.
    fn put(&self, count: usize) {
        for name in self.journals.keys() {
            self.put_to(name, count);
        }
    }

    fn put_to(&self, name: &str, count: usize) {
        let kinesis = &self.region.0[name];
        for shard in kinesis.open_shards() {
            kinesis.put_many(shard, count);
        }
    }

    async fn until_processed(&self, name: &str) {
        until_processed(&self.region.0[name], &self.journals[name], SECOND * 20).await;
    }

    async fn leases(&self) -> Vec<Lease> {
        self.store.snapshot("app").await.unwrap().leases
    }

    /// The leases that a worker holds of a stream.
    async fn held(&self, id: &str, name: &str) -> usize {
        let leases = self.leases().await.into_iter();
        let held = leases.filter(|lease| {
            lease.owner.as_deref() == Some(id) && lease.key.stream.contains(&format!("/{name}@"))
        });
        held.count()
    }
}

#[tokio::test(start_paused = true)]
async fn every_stream_has_its_own_position_and_policy() {
    let scene = Scene::new(&[("clicks", 2), ("orders", 2)]);
    scene.put(3);
    tokio::time::sleep(SECOND * 5).await;
    let clicks = StreamConfig::new("clicks")
        .initial_position(InitialPosition::Latest)
        .on_error(ErrorPolicy::skip().after(2));
    let poison = scene.region.0["clicks"].put_so_far();
    let builder = scene.builder("w", "orders").also_stream(clicks);
    let worker = scene.launch(builder, "w").await;
    scene.until_processed("orders").await;
    scene.put(2);
    let later = scene.region.0["clicks"]
        .put_so_far()
        .split_off(poison.len());
    scene.journals["clicks"].behave(|behaviour| behaviour.poison.extend([later[0]]));
    scene.until_processed("orders").await;
    tokio::time::sleep(SECOND * 10).await;
    let counts = worker.handle.counts();
    worker.stop().await.unwrap();
    let processed = scene.journals["clicks"].processed();
    assert_eq!(processed, later[1..].iter().copied().collect());
    assert_eq!(counts.skipped, 1);
    let deliveries = scene.journals["clicks"].deliveries();
    assert!(poison.iter().all(|early| !deliveries.contains_key(early)));
}

/// Goal: each stream is read in its own way, by the consumer that is registered with it.
#[tokio::test(start_paused = true)]
async fn every_stream_has_its_own_retrieval() {
    let scene = Scene::new(&[("clicks", 2), ("orders", 2), ("returns", 1)]);
    let pushed = Retrieval::FanOut {
        consumer_name: None,
    };
    let builder = scene
        .builder("w", "orders")
        .retrieval(pushed)
        .also_stream(StreamConfig::new("clicks").retrieval(Retrieval::Polling))
        .also_stream("returns");
    let worker = scene.launch(builder, "w").await;
    for _ in 0..3 {
        scene.put(3);
        tokio::time::sleep(SECOND * 7).await;
    }
    for (name, is_pushed) in [("clicks", false), ("orders", true), ("returns", true)] {
        scene.until_processed(name).await;
        let kinesis = &scene.region.0[name];
        let found = (kinesis.subscriptions() > 0, kinesis.reads() == 0);
        assert_eq!(found, (is_pushed, is_pushed), "{name}");
    }
    worker.stop().await.unwrap();
}

/// Goal: the shards of all streams are divided together, K4 and K5 hold for each, and who dies is replaced in all.
#[tokio::test(start_paused = true)]
async fn k4_k5_workers_share_the_shards_of_all_streams() {
    let scene = Scene::new(&[("a", 1), ("b", 1), ("c", 1), ("d", 5)]);
    let all = |id: &str| {
        let builder = scene.builder(id, "a");
        builder.also_stream("b").also_stream("c").also_stream("d")
    };
    let one = scene.launch(all("one"), "one").await;
    let two = scene.launch(all("two"), "two").await;
    scene.put(20);
    tokio::time::sleep(SECOND * 3).await;
    let owned = |leases: Vec<Lease>, id: &str| {
        let of = leases
            .into_iter()
            .filter(|lease| lease.owner.as_deref() == Some(id));
        of.count()
    };
    assert_eq!(owned(scene.leases().await, "one"), 4);
    assert_eq!(owned(scene.leases().await, "two"), 4);
    let names: BTreeSet<String> = two
        .handle
        .shards()
        .into_iter()
        .map(|s| s.stream_name)
        .collect();
    assert!(names.contains("d") && names.len() > 1, "{names:?}");
    scene.put(20);
    one.task.abort();
    tokio::time::sleep(FAILOVER + SECOND * 2).await;
    assert_eq!(owned(scene.leases().await, "two"), 8);
    scene.put(5);
    for name in ["a", "b", "c", "d"] {
        scene.until_processed(name).await;
        scene.journals[name].check_order().unwrap();
        scene.journals[name].check_no_overlap().unwrap();
    }
    two.stop().await.unwrap();
    let free = scene
        .leases()
        .await
        .iter()
        .all(|lease| lease.owner.is_none());
    assert!(free, "everything is released");
}

/// Goal: K5 and K9, a stream that is removed is given up like a worker that stops, and goes on where it was when it is added again.
#[tokio::test(start_paused = true)]
async fn k5_k9_streams_come_and_go_while_the_worker_runs() {
    let scene = Scene::new(&[("a", 2), ("b", 3)]);
    let worker = scene.launch(scene.builder("w", "a"), "w").await;
    scene.put(4);
    scene.until_processed("a").await;
    assert!(scene.journals["b"].entries().is_empty());

    worker.handle.add_stream("b").await.unwrap();
    scene.until_processed("b").await;
    assert_eq!(scene.held("w", "b").await, 3);
    let again = worker.handle.add_stream("b").await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::Configuration, "{again}");
    let row = scene.store.snapshot("app").await.unwrap().workers.remove(0);
    assert_eq!(row.profile.streams.unwrap().len(), 2);

    let arn = "arn:aws:kinesis:us-east-1:000000000000:stream/b";
    worker.handle.remove_stream(arn).await.unwrap();
    assert_eq!(scene.held("w", "b").await, 0, "released when it returns");
    assert_eq!(scene.journals["b"].count(&Event::ShutdownRequested), 3);
    assert_eq!(worker.handle.streams().len(), 1);
    scene.put(4);
    scene.until_processed("a").await;
    tokio::time::sleep(SECOND * 10).await;
    assert_eq!(scene.journals["b"].processed().len(), 12);
    let none = worker.handle.remove_stream("b").await.unwrap_err();
    assert_eq!(none.kind(), ErrorKind::NotFound, "{none}");

    worker.handle.add_stream("b").await.unwrap();
    scene.until_processed("b").await;
    let handle = worker.handle.clone();
    worker.stop().await.unwrap();
    for name in ["a", "b"] {
        scene.journals[name].check_no_duplicates().unwrap();
    }
    let late = handle.add_stream("b").await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Shutdown);
    let missing = handle.add_stream("none").await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
}

/// Goal: a lease that is handed to a worker after it has left the stream does not lie idle (K10).
#[tokio::test(start_paused = true)]
async fn k10_a_lease_of_a_stream_that_was_left_is_given_on() {
    let scene = Scene::new(&[("a", 1), ("b", 2)]);
    let one = scene
        .launch(scene.builder("one", "a").also_stream("b"), "one")
        .await;
    tokio::time::sleep(SECOND * 2).await;
    // A second worker asks for its share; the first is slow to hand over, and the second leaves the stream meanwhile.
    scene.journals["b"].behave(|behaviour| behaviour.takes = SECOND * 5);
    scene.put(1);
    tokio::time::sleep(SECOND / 2).await;
    let two = scene
        .launch(scene.builder("two", "a").also_stream("b"), "two")
        .await;
    tokio::time::sleep(SECOND).await;
    two.handle.remove_stream("b").await.unwrap();
    scene.journals["b"].behave(|behaviour| behaviour.takes = Duration::ZERO);
    tokio::time::sleep(SECOND * 10).await;
    assert_eq!(scene.held("one", "b").await, 2);
    scene.put_to("b", 3);
    scene.until_processed("b").await;
    one.stop().await.unwrap();
    two.stop().await.unwrap();
}

/// Goal: K10 and K13, a stream that is deleted or created anew stops the worker only if it is its last.
#[tokio::test(start_paused = true)]
async fn k10_k13_a_stream_that_is_gone_leaves_the_others_alone() {
    let scene = Scene::new(&[("a", 2), ("b", 2)]);
    let builder = scene
        .builder("w", "a")
        .also_stream("b")
        .shard_sync_interval(SECOND);
    let worker = scene.launch(builder, "w").await;
    scene.put(2);
    scene.until_processed("a").await;
    scene.until_processed("b").await;
    scene.region.0["b"].recreate();
    tokio::time::sleep(SECOND * 5).await;
    let states = worker.handle.streams();
    assert_eq!(states[0].state, StreamState::Serving);
    assert!(
        matches!(&states[1].state, StreamState::Gone { error } if error.contains("anew")),
        "{states:?}"
    );
    assert_eq!(scene.held("w", "b").await, 0);
    let health = worker.handle.health();
    assert!(health.is_live() && !health.is_ready(), "{health}");
    assert!(health.to_string().contains("stream b is gone"), "{health}");
    scene.put_to("a", 5);
    scene.until_processed("a").await;

    worker.handle.add_stream("b").await.unwrap();
    scene.put_to("b", 5);
    let again = scene.region.0["b"].put_so_far().split_off(4);
    until("the new stream is read", SECOND * 10, || {
        scene.journals["b"].check_no_loss(&again).is_ok()
    })
    .await;
    assert_eq!(
        worker.handle.streams().len(),
        2,
        "the former one is forgotten"
    );
    assert!(worker.handle.health().is_ready());
    scene.region.0["b"].set_missing(true);
    tokio::time::sleep(SECOND * 5).await;
    scene.region.0["a"].set_missing(true);
    let ended = worker.task.await.unwrap().unwrap_err();
    assert_eq!(ended.kind(), ErrorKind::NotFound, "{ended}");
}

/// Goal: workers for different streams share what they have in common, each stream goes to those who serve it, and the numbers are
/// evened out over all streams.
#[tokio::test(start_paused = true)]
async fn workers_of_different_streams_make_up_for_each_other() {
    let scene = Scene::new(&[("a", 4), ("b", 6)]);
    let both = scene
        .launch(scene.builder("both", "a").also_stream("b"), "both")
        .await;
    let only = scene.launch(scene.builder("only", "b"), "only").await;
    tokio::time::sleep(SECOND * 5).await;
    let held = async |id, name| scene.held(id, name).await;
    assert_eq!((held("both", "a").await, held("both", "b").await), (4, 1));
    assert_eq!((held("only", "a").await, held("only", "b").await), (0, 5));
    let switches = async || -> u64 { scene.leases().await.iter().map(|l| l.owner_switches).sum() };
    let before = switches().await;
    tokio::time::sleep(SECOND * 60).await;
    assert_eq!(switches().await, before, "nothing swings");
    both.stop().await.unwrap();
    tokio::time::sleep(SECOND).await;
    assert_eq!((held("only", "a").await, held("only", "b").await), (0, 6));
    only.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_not_given_twice() {
    let scene = Scene::new(&[("a", 1)]);
    let arn = "arn:aws:kinesis:us-east-1:000000000000:stream/a";
    for (one, other) in [("a", "a"), ("a", arn)] {
        let builder = scene.builder("w", one).also_stream(other);
        let refused = builder
            .build(scene.journals["a"].factory("w"))
            .await
            .unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Configuration);
        assert!(refused.to_string().contains(other), "{refused}");
    }
    let builder = scene.builder("w", "a").also_stream("none");
    let refused = builder
        .build(scene.journals["a"].factory("w"))
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotFound);
    let builder = scene.builder("w", "a");
    let builder = builder.also_stream(StreamConfig::new("b").max_records(0));
    let refused = builder
        .build(scene.journals["a"].factory("w"))
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("max_records"), "{refused}");
}

/// Goal: changes that are asked for before the worker runs, and many at once, are carried out one after the other: none is lost, and none leaves a stream
/// half served.
#[tokio::test(start_paused = true)]
async fn streams_changed_early_and_at_once_end_up_as_asked() {
    let scene = Scene::new(&[("a", 1), ("b", 1), ("c", 1)]);
    let journals = scene.journals.clone();
    let factory =
        move |shard: &ShardInfo| -> Recorder { journals[&shard.stream_name].factory("w")(shard) };
    let worker = scene.builder("w", "a").build(factory).await.unwrap();
    let handle = worker.handle();
    let early = tokio::spawn({
        let handle = handle.clone();
        async move { handle.add_stream("b").await }
    });
    tokio::time::sleep(SECOND).await;
    assert!(!early.is_finished(), "nobody carries it out yet");
    let running = tokio::spawn(worker.run());
    early.await.unwrap().unwrap();
    let mut at_once = tokio::task::JoinSet::new();
    for number in 0..40 {
        let handle = handle.clone();
        at_once.spawn(async move {
            match number % 2 {
                0 => handle.add_stream("c").await,
                _ => handle.remove_stream("c").await,
            }
        });
    }
    let refused = at_once.join_all().await.into_iter().filter_map(Result::err);
    let kinds: BTreeSet<String> = refused.map(|e| format!("{:?}", e.kind())).collect();
    let expected = ["Configuration", "NotFound", "Unavailable"];
    assert!(
        kinds.iter().all(|kind| expected.contains(&&**kind)),
        "{kinds:?}"
    );
    tokio::time::sleep(SECOND).await;
    // Whatever the last of them was: once more, and it is there.
    let _ = handle.add_stream("c").await;
    scene.put(3);
    for name in ["a", "b", "c"] {
        scene.until_processed(name).await;
        scene.journals[name].check_no_duplicates().unwrap();
    }
    assert_eq!(handle.streams().len(), 3);
    handle.shutdown();
    running.await.unwrap().unwrap();
}
