//! `millstream app` against real workers: what it tells of them, and resets while they run, when they have ended, and when they were killed.

use crate::scene::PATIENCE;
use crate::{SERVER, WORKER};
use millstream_test_postgres::Cluster;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;
use support::client::text;
use support::history::{Event, EventKind, Place, Sequence, deliveries};
use support::load::{Load, Shape};
use support::process::Signal;
use support::worker::Fleet;
use support::{RawClient, ServerProcess, Store, WorkerProcess, check, wait_until};

const STREAM: &str = "orders";
const FAILOVER: Duration = Duration::from_secs(2);
const FIRST: &str = "shardId-000000000000";

/// What a command came to.
#[derive(Debug)]
struct Said {
    code: Option<i32>,
    out: String,
    error: String,
}

impl Said {
    /// The answer of a command that did what was asked.
    fn done(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.out
    }

    fn json(self) -> Value {
        serde_json::from_str(&self.done()).unwrap()
    }

    /// The error of one that did not.
    fn refused(self, code: i32) -> String {
        assert_eq!((self.code, self.out.as_str()), (Some(code), ""), "{self:?}");
        self.error
    }
}

async fn millstream(arguments: &[&str]) -> Said {
    let mut command = tokio::process::Command::new(SERVER);
    command.arg("app").args(arguments).kill_on_drop(true);
    let output = tokio::time::timeout(PATIENCE, command.output()).await;
    let output = output.expect("it ends by itself").unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Said {
        code: output.status.code(),
        out: text(&output.stdout),
        error: text(&output.stderr),
    }
}

/// A server, a stream, and an application whose workers can be made to fail.
struct Stage {
    client: RawClient,
    fleet: Fleet,
    server: ServerProcess,
    fails: PathBuf,
}

impl Stage {
    async fn with(shards: u32, store: Option<Store>) -> Stage {
        let server = ServerProcess::start(SERVER).await;
        let client = server.client();
        client.create_stream(STREAM, shards).await;
        let mut fleet = Fleet::new(WORKER, &server.url(), STREAM, FAILOVER)
            .with("--poll-ms", &50)
            .with("--max-records", &50);
        let fails = fleet.file("fails");
        fleet = fleet.with("--fail-while", &fails.display());
        if let Some(store) = store {
            fleet = fleet.on(store);
        }
        Stage {
            client,
            fleet,
            server,
            fails,
        }
    }

    /// A command about the application.
    async fn app(&self, arguments: &[&str]) -> Said {
        self.app_of("app", arguments).await
    }

    async fn app_of(&self, application: &str, arguments: &[&str]) -> Said {
        let (store, url) = (self.fleet.store().to_string(), self.server.url());
        let common = ["--store", &store, "--application", application];
        let endpoint = ["--endpoint-url", &url, "--region", "us-east-1"];
        millstream(&[arguments, &common, &endpoint].concat()).await
    }

    async fn json(&self, arguments: &[&str]) -> Value {
        self.app(&[arguments, &["--output", "json"]].concat())
            .await
            .json()
    }

    async fn why(&self, shard: &str) -> (String, String) {
        let why = self.json(&["why", shard]).await;
        (text(&why, "reason"), text(&why, "sentence"))
    }

    /// Waits until `why` gives this reason.
    async fn until_why(&self, shard: &str, reason: &str) -> String {
        wait_until(&format!("{shard} is {reason}"), PATIENCE, || async {
            let (found, sentence) = self.why(shard).await;
            (found == reason).then_some(sentence)
        })
        .await
    }

    /// Puts records; their places.
    async fn put(&self, count: usize) -> BTreeSet<Place> {
        let mut places = BTreeSet::new();
        for number in 0..count {
            let key = format!("key {number}");
            let data = format!("{key}:{number}");
            let (shard, sequence) = self
                .client
                .put(STREAM, &key, data.as_bytes())
                .await
                .unwrap();
            places.insert((shard, Sequence::new(&sequence)));
        }
        places
    }

    /// Waits until each of the records was delivered at least `times`.
    async fn until_delivered(
        &self,
        workers: &[&WorkerProcess],
        places: &BTreeSet<Place>,
        times: usize,
    ) {
        wait_until("the records are delivered", PATIENCE, || async {
            let counts = deliveries(&self.fleet.history(workers.iter().copied()));
            let enough = |place: &Place| counts.get(place).is_some_and(|count| *count >= times);
            places.iter().all(enough).then_some(())
        })
        .await;
    }
}

/// The leases as they are printed, without what moves by itself.
async fn leases(stage: &Stage, application: &str) -> Value {
    let said = stage
        .app_of(application, &["leases", "--output", "json", "--watch", "0"])
        .await;
    said.json()["leases"].clone()
}

/// Goal: each situation of a shard is told by the commands, with real processes. Method: a batch that fails, a split behind it, a worker that
/// is killed, nobody at all.
#[tokio::test(flavor = "multi_thread")]
async fn k10_operators_are_told_why_a_shard_does_not_move() {
    let _alone = support::alone().await;
    let mut stage = Stage::with(2, None).await;
    let store = stage.fleet.leases();
    let missing = stage.app(&["leases"]).await.refused(1);
    assert!(missing.contains("no such file"), "{missing}");
    assert!(!store.exists(), "nothing is created by looking");

    let mut worker = stage.fleet.start().await;
    let first = stage.put(50).await;
    stage.until_delivered(&[&worker], &first, 1).await;
    stage.until_why(FIRST, "keeping-up").await;
    let names = millstream(&[
        "applications",
        "--store",
        &format!("sqlite:{}", store.display()),
    ])
    .await;
    assert_eq!(names.done(), "app\n");
    let report = stage.json(&["leases"]).await;
    assert_eq!(report["leases"].as_array().unwrap().len(), 2);
    assert_eq!(report["leases"][0]["owner"], json!(worker.id()));
    assert_eq!(report["workers"][0]["state"], json!("alive"));
    let table = stage.app(&["leases"]).await.done();
    assert!(
        table.contains("LAST HEARD") && table.contains(worker.id()),
        "{table}"
    );

    std::fs::write(&stage.fails, FIRST).unwrap();
    stage.put(60).await;
    let sentence = stage.until_why(FIRST, "failing").await;
    assert!(
        sentence.contains("made to fail") && sentence.contains(worker.id()),
        "{sentence}"
    );
    let lag = stage.json(&["lag", "--count-up-to", "3"]).await;
    assert_eq!(
        (&lag["records"], &lag["or_more"]),
        (&json!(3), &json!(true)),
        "{lag}"
    );
    let table = stage.app(&["lag", "--count-up-to", "3"]).await.done();
    assert!(table.contains("3 or more"), "{table}");
    let split = json!({"StreamName": STREAM, "ShardToSplit": FIRST, "NewStartingHashKey": "1000"});
    stage.client.must("SplitShard", split).await;
    let child = stage.why("2").await;
    assert_eq!(child.0, "no-lease", "{child:?}");

    worker.kill9().await;
    let (silent, _) = stage.why(FIRST).await;
    assert!(
        ["owner-dead", "failing"].contains(&silent.as_str()),
        "{silent}"
    );
    let sentence = stage.until_why(FIRST, "owner-dead").await;
    assert!(sentence.contains("no other worker runs"), "{sentence}");
    stage.fleet.retire(&worker);
    // A new worker lists the shards and makes the child's lease, which waits.
    let mut second = stage.fleet.start().await;
    let sentence = stage.until_why("2", "waits-for-parents").await;
    assert!(sentence.contains(FIRST), "{sentence}");
    std::fs::remove_file(&stage.fails).unwrap();
    stage.until_why(FIRST, "ended").await;
    stage.until_why("2", "keeping-up").await;
    second.terminate().await;
    stage.until_why("2", "nobody-runs").await;
    assert_eq!(stage.why("77").await.0, "no-such-shard");
    let wrong = stage.app(&["reset", "--to", "yesterday"]).await.refused(2);
    assert!(wrong.contains("2026-01-31T08:00:00Z"), "{wrong}");
}

/// The leases, once so many workers have some: one that is on its way to another worker changes without any doing of ours.
async fn leases_at_rest(stage: &Stage, workers: usize) -> Value {
    wait_until("each worker has leases", PATIENCE, || async {
        let leases = leases(stage, "app").await;
        let all = leases.as_array().unwrap();
        let owners: BTreeSet<_> = all.iter().map(|lease| lease["owner"].as_str()).collect();
        let moving = all.iter().any(|lease| !lease["wanted_by"].is_null());
        (owners.len() == workers && !moving).then_some(leases)
    })
    .await
}

/// The tenures that began after the latest event of `before`: only what these deliver counts as delivered again.
fn since(events: &[Event], before: &[Event]) -> Vec<Event> {
    let last = before.iter().map(|event| event.at_us).max().unwrap_or(0);
    let mut begun: BTreeSet<(String, String)> = BTreeSet::new();
    let mut kept = Vec::new();
    for event in events.iter().filter(|event| event.at_us > last) {
        let Some(shard) = event.kind.shard() else {
            continue;
        };
        let tenure = (event.worker.clone(), shard.to_owned());
        if let EventKind::Initialized { .. } = event.kind {
            begun.insert(tenure);
        } else if begun.contains(&tenure) {
            kept.push(event.clone());
        }
    }
    kept
}

/// Refused without force, planned without a trace, and forced while two workers run and records keep coming: every record from the horizon on is
/// delivered again, and those that come meanwhile are not lost (K3, K4).
async fn forced_while_workers_run(store: Option<Store>) {
    let mut stage = Stage::with(3, store).await;
    let workers = [stage.fleet.start().await, stage.fleet.start().await];
    let running: Vec<&WorkerProcess> = workers.iter().collect();
    let first = stage.put(150).await;
    stage.until_delivered(&running, &first, 1).await;
    let before = leases_at_rest(&stage, 2).await;
    let refused = stage
        .app(&["reset", "--to", "trim-horizon"])
        .await
        .refused(1);
    assert!(
        refused.contains("is at work") && refused.contains("force"),
        "{refused}"
    );
    let planned = stage
        .json(&["reset", "--to", "trim-horizon", "--dry-run"])
        .await;
    assert_eq!(planned["changes"].as_array().unwrap().len(), 3, "{planned}");
    assert!(planned["done"] == json!(false) && planned["refusal"].is_string());
    assert_eq!(leases(&stage, "app").await, before, "nothing has changed");

    let shape = Shape {
        writers: 8,
        pause: Duration::from_millis(20),
        batch: 2,
        padding_bytes: 0,
    };
    let load = Load::start(&stage.client, STREAM, shape);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let history = stage.fleet.history(running.iter().copied());
    let earlier: BTreeSet<Place> = deliveries(&history).into_keys().collect();
    let forced = ["reset", "--to", "trim-horizon", "--force", "--by", "anna"];
    let report = stage.json(&forced).await;
    assert_eq!(report["done"], json!(true), "{report}");
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (acked, refusals) = load.stop().await;
    assert_eq!(refusals, []);
    let later = acked.into_iter().map(|ack| (ack.shard, ack.sequence));
    let expected: BTreeSet<Place> = earlier.into_iter().chain(first).chain(later).collect();
    wait_until("everything comes again", PATIENCE, || async {
        let events = stage.fleet.history(running.iter().copied());
        let again = deliveries(&since(&events, &history));
        expected
            .iter()
            .all(|place| again.contains_key(place))
            .then_some(())
    })
    .await;
    let events = stage.fleet.history(running.iter().copied());
    check::all_delivered(&expected, &deliveries(&since(&events, &history))).unwrap();
    check::one_owner(&events).unwrap();
    check::order_kept(&events, &BTreeMap::new()).unwrap();
    let lag = wait_until("the workers have caught up", PATIENCE, || async {
        let lag = stage.json(&["lag"]).await;
        (lag["records"] == json!(0)).then_some(lag)
    })
    .await;
    assert_eq!(lag["not_judged"], json!(0), "{lag}");
    let notes = stage.json(&["leases", "--history"]).await;
    assert_eq!(notes.as_array().unwrap().len(), 1, "{notes}");
    assert_eq!(
        (&notes[0]["by"], &notes[0]["changes"][0]["to"]),
        (&json!("anna"), &json!("TRIM_HORIZON"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn k3_k4_a_forced_reset_delivers_everything_again_while_workers_run() {
    let _alone = support::alone().await;
    forced_while_workers_run(None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn k3_k4_the_same_on_postgres() {
    let _alone = support::alone().await;
    let url = Cluster::shared().await.database().await;
    forced_while_workers_run(Some(Store::Postgres(url))).await;
}

/// When a record arrived, in seconds since 1970 by the server's clock.
async fn arrival(stage: &Stage, place: &Place) -> f64 {
    let input = json!({
        "StreamName": STREAM, "ShardId": place.0, "ShardIteratorType": "AT_SEQUENCE_NUMBER",
        "StartingSequenceNumber": place.1.as_str(),
    });
    let iterator = text(
        &stage.client.must("GetShardIterator", input).await,
        "ShardIterator",
    );
    let page = stage
        .client
        .must("GetRecords", json!({"ShardIterator": iterator, "Limit": 1}))
        .await;
    page["Records"][0]["ApproximateArrivalTimestamp"]
        .as_f64()
        .unwrap()
}

/// Goal: without workers a reset needs no force, to a time only what came then comes again, to a sequence number one shard; a replay under another
/// name touches nothing of the first.
#[tokio::test(flavor = "multi_thread")]
async fn k4_resets_to_a_time_and_a_number_and_replays_deliver_what_they_say() {
    let _alone = support::alone().await;
    let mut stage = Stage::with(2, None).await;
    let mut worker = stage.fleet.start().await;
    let early = stage.put(40).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let late = stage.put(40).await;
    let all: BTreeSet<Place> = early.union(&late).cloned().collect();
    stage.until_delivered(&[&worker], &all, 1).await;
    worker.terminate().await;
    stage.fleet.retire(&worker);
    let mut arrivals = Vec::new();
    for place in &late {
        arrivals.push(arrival(&stage, place).await);
    }
    let time = arrivals.into_iter().reduce(f64::min).unwrap();
    let report = stage.json(&["reset", "--to", &format!("{time:.3}")]).await;
    assert_eq!(report["changes"].as_array().unwrap().len(), 2, "{report}");
    let mut worker = stage.fleet.start().await;
    stage.until_delivered(&[&worker], &late, 2).await;
    worker.terminate().await;
    stage.fleet.retire(&worker);
    let counts = deliveries(&stage.fleet.history([]));
    assert!(
        early.iter().all(|place| counts[place] == 1),
        "only what came at that time or later"
    );

    let (_, number) = late.iter().rfind(|(shard, _)| shard == FIRST).unwrap();
    let to_number = ["reset", "--to-sequence", number.as_str(), "--shard"];
    let strange = stage
        .app(&[&to_number[..], &["shardId-000000000001"]].concat())
        .await;
    assert!(strange.error.contains("none to start at"), "{strange:?}");
    stage.app(&[&to_number[..], &[FIRST]].concat()).await.done();
    let before = leases(&stage, "app").await;
    assert_eq!(
        before[0]["checkpoint"],
        json!(format!("AT_SEQUENCE_NUMBER:{number}"))
    );

    let replay = ["replay", "--as", "again", "--to", "trim-horizon"];
    let planned = stage
        .app(&[&replay[..], &["--dry-run"]].concat())
        .await
        .done();
    assert!(planned.contains("nothing was"), "{planned}");
    let names = millstream(&["applications", "--store", &stage.fleet.store().to_string()]).await;
    assert_eq!(names.done(), "app\n", "a plan creates nothing");
    stage.app(&replay).await.done();
    let again = stage.app(&replay).await.refused(1);
    assert!(again.contains("has leases already"), "{again}");
    assert_eq!(leases(&stage, "app").await, before);
    let replayed = leases(&stage, "again").await;
    let starts: Vec<&Value> = replayed
        .as_array()
        .unwrap()
        .iter()
        .map(|line| &line["checkpoint"])
        .collect();
    assert_eq!(starts, [&json!("TRIM_HORIZON"), &json!("TRIM_HORIZON")]);
}

/// Goal: a worker that was suspended while its lease was reset finishes the batch it was in, if any, and checkpoints nothing of that tenure (K1, K2); another
/// one begins at the new place at once, without waiting for the fail-over time.
#[tokio::test(flavor = "multi_thread")]
async fn k1_k2_a_worker_suspended_through_a_reset_is_fenced() {
    let _alone = support::alone().await;
    let mut stage = Stage::with(1, None).await;
    let suspended = stage.fleet.start().await;
    let first = stage.put(60).await;
    stage.until_delivered(&[&suspended], &first, 1).await;
    let second = stage.put(60).await;
    let forced = ["reset", "--to", "trim-horizon", "--force"];
    wait_until("the reset is done", PATIENCE, || async {
        suspended.signal(Signal::Stop).await;
        let said = stage.app(&forced).await;
        if said.error.contains("kept it locked") {
            // It was amid a write, and keeps the store locked until it goes on.
            suspended.signal(Signal::Cont).await;
            return None;
        }
        Some(said.done())
    })
    .await;
    let other = stage.fleet.start().await;
    let all: BTreeSet<Place> = first.union(&second).cloned().collect();
    stage.until_delivered(&[&other], &all, 1).await;
    suspended.signal(Signal::Cont).await;
    let third = stage.put(60).await;
    stage
        .until_delivered(&[&suspended, &other], &third, 1)
        .await;
    tokio::time::sleep(FAILOVER).await;
    let events = stage.fleet.history([&suspended, &other]);
    check::one_owner(&events).unwrap();
    check::order_kept(&events, &BTreeMap::new()).unwrap();
    check::all_delivered(&all.union(&third).cloned().collect(), &deliveries(&events)).unwrap();
}
