//! Enhanced fan-out between real workers and the real server: kills of both, reshards, a connection that becomes half-open, more shards than
//! a connection carries, TLS; and how long a record takes from its producer to its processor.

use crate::scene::{FAILOVER, PATIENCE, STREAM, Scene, Setup};
use crate::{SERVER, WORKER};
use async_trait::async_trait;
use kcl::{
    Checkpointer, MemoryLeaseStore, ProcessorError, RecordBatch, RecordProcessor, Retrieval,
    Retrieving, ShardInfo, Worker, WorkerHandle,
};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use support::client::{encode_base64, text};
use support::clock::now_us;
use support::history::{deliveries, outstanding, outstanding_at_losses};
use support::reader::range_of;
use support::worker::Fleet;
use support::{RawClient, ServerProcess, check, wait_until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Workers are killed, the server is killed, shards are split and merged: every record is delivered (K4), again only if it was outstanding at a
/// kill (K5), in order and after the parents' (K6), by one owner at a time (K2).
#[tokio::test(flavor = "multi_thread")]
async fn k4_k5_k6_fan_out_loses_no_record_when_workers_and_the_server_are_killed() {
    let _alone = support::alone().await;
    let mut random = support::seeded("fan-out");
    let mut scene = Scene::with(Setup {
        fan_out: true,
        ..Setup::default()
    })
    .await;
    let mut workers = Vec::new();
    for _ in 0..3 {
        workers.push(scene.fleet.start().await);
    }
    let mut outstanding_at_kills = Vec::new();
    for round in 0..support::scaled(12, 120) {
        tokio::time::sleep(Duration::from_millis(random.u64(300..1300))).await;
        match round % 4 {
            0 => scene.split_widest().await,
            1 => scene.merge_narrowest().await,
            2 => {
                scene.server.kill9().await;
                scene.server.restart().await;
            }
            _ => {
                let mut victim = workers.swap_remove(random.usize(..workers.len()));
                assert!(victim.is_running(), "it ended by itself: {}", victim.log());
                victim.kill9().await;
                outstanding_at_kills.push(outstanding(&victim.events(), victim.id()));
                scene.fleet.retire(&victim);
                workers.push(scene.fleet.start().await);
            }
        }
    }
    let running: Vec<_> = workers.iter().collect();
    let (expected, parents, events) = scene.finish(&running).await;
    let counts = deliveries(&events);
    check::all_delivered(&expected, &counts).unwrap();
    outstanding_at_kills.extend(outstanding_at_losses(&events));
    check::duplicates_bounded(&counts, &outstanding_at_kills).unwrap();
    check::order_kept(&events, &parents).unwrap();
    check::one_owner(&events).unwrap();
}

/// What arrived, with the time, by payload; and how to hold a processor up.
#[derive(Debug, Clone, Default)]
struct Arrivals {
    at_us: Arc<Mutex<BTreeMap<String, u64>>>,
    /// Shards whose processor never finishes a batch.
    stuck: Arc<Mutex<Vec<String>>>,
    is_over: Arc<AtomicBool>,
}

impl Arrivals {
    fn count(&self) -> usize {
        self.at_us.lock().unwrap().len()
    }

    fn has(&self, payload: &str) -> Option<u64> {
        self.at_us.lock().unwrap().get(payload).copied()
    }
}

struct Receiver {
    arrivals: Arrivals,
    shard: String,
}

#[async_trait]
impl RecordProcessor for Receiver {
    async fn process_records(
        &mut self,
        batch: RecordBatch,
        checkpointer: &Checkpointer,
    ) -> Result<(), ProcessorError> {
        let now = now_us();
        for record in batch.records() {
            let start = &record.data()[..record.data().len().min(100)];
            let payload = String::from_utf8_lossy(start).into_owned();
            let before = self.arrivals.at_us.lock().unwrap().insert(payload, now);
            assert_eq!(before, None, "each record once");
        }
        let is_stuck = self.arrivals.stuck.lock().unwrap().contains(&self.shard);
        while is_stuck && !self.arrivals.is_over.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        checkpointer.checkpoint().await?;
        Ok(())
    }
}

/// A worker in this process that polls once a minute only.
struct Pushed {
    arrivals: Arrivals,
    handle: WorkerHandle,
    task: JoinHandle<Result<(), kcl::Error>>,
}

impl Pushed {
    async fn start(endpoint: &str, arrivals: &Arrivals) -> Pushed {
        let named = arrivals.clone();
        let worker = Worker::builder("app", STREAM)
            .endpoint(endpoint)
            .region("us-east-1")
            .retrieval(Retrieval::FanOut {
                consumer_name: None,
            })
            .poll_interval(Duration::from_mins(1))
            .lease_store(MemoryLeaseStore::new())
            .build(move |shard: &ShardInfo| Receiver {
                arrivals: named.clone(),
                shard: shard.shard_id.clone(),
            })
            .await
            .unwrap();
        Pushed {
            arrivals: arrivals.clone(),
            handle: worker.handle(),
            task: tokio::spawn(worker.run()),
        }
    }

    /// Waits until so many shards are subscribed to.
    async fn subscribed(&self, shards: usize) {
        wait_until("the shards are subscribed to", PATIENCE, || async {
            let all = self.handle.shards();
            let pushed = all
                .iter()
                .filter(|one| one.retrieving == Retrieving::FanOut);
            (pushed.count() == shards).then_some(())
        })
        .await;
    }

    async fn stop(self) {
        self.arrivals.is_over.store(true, Ordering::Relaxed);
        self.handle.shutdown_and_wait().await;
        self.task.await.unwrap().unwrap();
    }
}

fn percentile(sorted: &[u64], hundredths: usize) -> Duration {
    let rank = (sorted.len() * hundredths).div_ceil(100).max(1);
    Duration::from_micros(sorted[rank - 1])
}

/// How long it takes from a put, sent or acknowledged, to the processor. The bounds are loose: the machine may be busy, and the build is
/// not optimised.
#[tokio::test(flavor = "multi_thread")]
async fn records_are_at_their_processor_in_milliseconds() {
    let _alone = support::alone().await;
    let server = ServerProcess::start(SERVER).await;
    let client = server.client();
    client.create_stream(STREAM, 2).await;
    let arrivals = Arrivals::default();
    let worker = Pushed::start(&server.url(), &arrivals).await;
    worker.subscribed(2).await;
    let (mut from_put, mut from_ack) = (Vec::new(), Vec::new());
    for n in 0..support::scaled(500, 5000) {
        let payload = n.to_string();
        let put_us = now_us();
        client
            .put(STREAM, &payload, payload.as_bytes())
            .await
            .unwrap();
        let acked_us = now_us();
        let arrived_us = wait_until("it arrives", PATIENCE, || async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            arrivals.has(&payload)
        })
        .await;
        from_put.push(arrived_us - put_us);
        from_ack.push(arrived_us.saturating_sub(acked_us));
    }
    worker.stop().await;
    for (name, times) in [("sent", &mut from_put), ("acknowledged", &mut from_ack)] {
        times.sort_unstable();
        let (p50, p99) = (percentile(times, 50), percentile(times, 99));
        println!(
            "from the put {name} to the processor: {} records, p50 {p50:?}, p99 {p99:?}",
            times.len()
        );
    }
    // How long a put takes is up to the disk.
    assert!(percentile(&from_ack, 50) < Duration::from_millis(50));
    assert!(percentile(&from_ack, 99) < Duration::from_millis(500));
}

/// K10: more shards than one connection carries are all pushed, and processors that are stuck on some of them, with more waiting for each than
/// its connection takes for a subscription, hold up no other.
#[tokio::test(flavor = "multi_thread")]
async fn k10_stuck_processors_among_many_shards_hold_up_no_other() {
    const STUCK: usize = 10;
    let _alone = support::alone().await;
    let server = ServerProcess::start(SERVER).await;
    let client = server.client();
    let count = u32::try_from(support::scaled(120, 1000)).unwrap();
    client.create_stream(STREAM, count).await;
    let shards = client.list_shards(STREAM).await.unwrap();
    let arrivals = Arrivals::default();
    let stuck = shards[..STUCK].iter().map(|shard| text(shard, "ShardId"));
    arrivals.stuck.lock().unwrap().extend(stuck);
    let worker = Pushed::start(&server.url(), &arrivals).await;
    worker.subscribed(shards.len()).await;
    let put = async |shard: usize, payload: &str| {
        let key = range_of(&shards[shard]).0.to_string();
        let data = encode_base64(payload.as_bytes());
        let input = json!({
            "StreamName": STREAM, "PartitionKey": "k", "ExplicitHashKey": key, "Data": data,
        });
        client.must("PutRecord", input).await;
    };
    for shard in 0..STUCK {
        put(shard, &format!("stuck {shard}")).await;
    }
    wait_until("the processors are stuck", PATIENCE, || async {
        (arrivals.count() == STUCK).then_some(())
    })
    .await;
    for (shard, n) in (0..STUCK).flat_map(|shard| (0..4).map(move |n| (shard, n))) {
        let large = format!("stuck {shard} {n} {}", "x".repeat(500_000));
        put(shard, &large).await;
    }
    for round in 0..3 {
        for shard in STUCK..shards.len() {
            put(shard, &format!("{round} {shard}")).await;
        }
    }
    let expected = STUCK + 3 * (shards.len() - STUCK);
    // One that is starved would be taken for broken after twelve seconds, and read in another way.
    let limit = Duration::from_secs(10);
    wait_until("the others get their records", limit, || async {
        (arrivals.count() == expected).then_some(())
    })
    .await;
    worker.stop().await;
}

/// A way to the server that can be cut off without anybody being told.
struct Way {
    url: String,
    frozen: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Way {
    async fn to(port: u16) -> Way {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let frozen = Arc::<AtomicBool>::default();
        let current = Arc::clone(&frozen);
        // Connections end with the test, whose runtime they live on.
        let task = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let far = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                near.set_nodelay(true).unwrap();
                far.set_nodelay(true).unwrap();
                // Those that are made after the cut work.
                let frozen = if current.load(Ordering::SeqCst) {
                    Arc::default()
                } else {
                    Arc::clone(&current)
                };
                let ((near_from, near_to), (far_from, far_to)) =
                    (near.into_split(), far.into_split());
                tokio::spawn(carry(near_from, far_to, Arc::clone(&frozen)));
                tokio::spawn(carry(far_from, near_to, frozen));
            }
        });
        Way { url, frozen, task }
    }
}

/// Carries bytes until an end, or drops them once frozen, with both ends left open.
async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, frozen: Arc<AtomicBool>) {
    let mut bytes = vec![0; 16 * 1024];
    while let Ok(count) = from.read(&mut bytes).await {
        if frozen.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        if count == 0 || to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}

/// K10: a connection that becomes half-open is noticed within 15 s, and what was put meanwhile comes by another.
#[tokio::test(flavor = "multi_thread")]
async fn k10_a_half_open_connection_is_noticed_within_15_seconds() {
    let _alone = support::alone().await;
    let server = ServerProcess::start(SERVER).await;
    let client = server.client();
    client.create_stream(STREAM, 2).await;
    let way = Way::to(server.port()).await;
    let arrivals = Arrivals::default();
    let worker = Pushed::start(&way.url, &arrivals).await;
    worker.subscribed(2).await;
    for n in 0..20 {
        let payload = format!("before {n}");
        client
            .put(STREAM, &payload, payload.as_bytes())
            .await
            .unwrap();
    }
    wait_until("the first come", PATIENCE, || async {
        (arrivals.count() == 20).then_some(())
    })
    .await;
    // A subscription as young as that would be in the way of the next.
    tokio::time::sleep(Duration::from_secs(6)).await;
    way.frozen.store(true, Ordering::SeqCst);
    let cut_us = now_us();
    for n in 0..40 {
        let payload = n.to_string();
        client
            .put(STREAM, &payload, payload.as_bytes())
            .await
            .unwrap();
    }
    wait_until(
        "everything comes by another connection",
        PATIENCE,
        || async { (arrivals.count() == 60).then_some(()) },
    )
    .await;
    let took = Duration::from_micros(now_us() - cut_us);
    println!("a half-open connection cost {took:?}");
    assert!(took < Duration::from_secs(15), "{took:?}");
    worker.subscribed(2).await;
    worker.stop().await;
    way.task.abort();
}

/// Over TLS, where HTTP/2 is agreed on by ALPN: a worker process that trusts the server's certificate.
#[tokio::test(flavor = "multi_thread")]
async fn fan_out_works_over_tls() {
    let _alone = support::alone().await;
    let server = ServerProcess::start(SERVER).await;
    let client: RawClient = server.client();
    client.create_stream(STREAM, 2).await;
    let url = format!("https://localhost:{}", server.port());
    let mut fleet = Fleet::new(WORKER, &url, STREAM, FAILOVER)
        .with("--fan-out", &1)
        .with("--poll-ms", &60_000);
    let certificate = server.data().join("tls-certificate.pem");
    let certificate = certificate.display().to_string();
    let mut worker = fleet.start_in(&[("SSL_CERT_FILE", &certificate)]).await;
    for n in 0..20 {
        client.put(STREAM, &n.to_string(), b"w:1").await.unwrap();
        // Polled once a minute, it would take that long.
        wait_until(
            "the record is delivered",
            Duration::from_secs(20),
            || async { (deliveries(&worker.events()).len() == n + 1).then_some(()) },
        )
        .await;
    }
    let ended = worker.terminate().await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(!ended.stderr.contains("fan-out"), "{}", ended.stderr);
}
