//! A server at work for long: puts, reads, reshards, retention and rewriting over many times the retention of its streams, with
//! time driven an hour at a time. Memory and open files stay flat, the disk stays near what is retained, and everything young enough
//! is read back once, as it was put. A process of its own, because it looks at its own memory; `MILLSTREAM_SOAK_MINUTES` says for how
//! long (20 with `MILLSTREAM_LONG=1`, else ten seconds or so).

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "in helpers of tests, too; what was found is printed"
)]

mod by_http;

use by_http::must;
use millstream_server::clock::{Clock, ManualClock};
use millstream_server::log::LogConfig;
use millstream_server::{Config, DataLocation, Limits, Memory, Server};
use serde_json::{Value, json};
use std::collections::{HashMap, VecDeque};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

const NOW_MS: u64 = 1_750_000_000_000;
const HOUR_MS: u64 = 3_600_000;
const SEGMENT_BYTES: u64 = 1 << 20;
/// Streams by how long they keep their records, hours: a round is an hour.
const RETENTIONS: [u64; 3] = [24, 30, 48];
/// Rounds that there are at least, whatever the time: the longest retention is left behind, and then as much again, of which the halves are compared.
const ROUNDS_AT_LEAST: usize = 96;
/// How much memory may have grown in the last quarter on average over the quarter before: what the allocator does.
const GROWTH_KIB: u64 = 8 * 1024;

/// A record that was acknowledged.
#[derive(Debug)]
struct Kept {
    arrival_ms: u64,
    place: (String, String),
    checksum: u32,
    bytes: u64,
}

struct Stream {
    name: String,
    retention_ms: u64,
    kept: VecDeque<Kept>,
}

struct Soak {
    server: Server,
    http: reqwest::Client,
    clock: Arc<ManualClock>,
    random: fastrand::Rng,
    streams: Vec<Stream>,
    put: u64,
    read: u64,
    reshards: u64,
}

/// What the process holds.
#[derive(Debug, Clone, Copy)]
struct Held {
    resident_kib: u64,
    files: usize,
}

fn held() -> Held {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let resident = resident.unwrap().trim().trim_end_matches(" kB");
    Held {
        resident_kib: resident.parse().unwrap(),
        files: fs::read_dir("/proc/self/fd").unwrap().count(),
    }
}

fn segments_bytes(data: &Path) -> u64 {
    let entries = fs::read_dir(data).unwrap().map(Result::unwrap);
    let segments = entries.filter(|entry| {
        let path = entry.path();
        path.extension().is_some_and(|end| end == "segment")
    });
    // One may have been removed since.
    segments
        .filter_map(|entry| entry.metadata().ok())
        .map(|metadata| metadata.len())
        .sum()
}

impl Soak {
    async fn start(data: &Path, seed: u64) -> Soak {
        let clock = ManualClock::at(NOW_MS);
        let config = Config {
            port: 0,
            data: DataLocation::Directory(data.to_owned()),
            limits: Limits::Off,
            memory: Memory::MIN,
            log: LogConfig {
                segment_bytes: SEGMENT_BYTES,
                rewrite_bytes_per_second: 0,
                ..LogConfig::default()
            },
            ..Config::default()
        };
        let server = Server::start_with_clock(config, Arc::clone(&clock) as _).await;
        let streams = RETENTIONS.map(|hours| Stream {
            name: format!("kept-{hours}"),
            retention_ms: hours * HOUR_MS,
            kept: VecDeque::new(),
        });
        let mut soak = Soak {
            server: server.unwrap(),
            http: reqwest::Client::new(),
            clock,
            random: fastrand::Rng::with_seed(seed),
            streams: Vec::new(),
            put: 0,
            read: 0,
            reshards: 0,
        };
        for stream in streams {
            let name = &stream.name;
            let create = json!({"StreamName": name, "ShardCount": 2});
            soak.call("CreateStream", &create).await;
            let hours = stream.retention_ms / HOUR_MS;
            if hours > 24 {
                let longer = json!({"StreamName": name, "RetentionPeriodHours": hours});
                soak.call("IncreaseStreamRetentionPeriod", &longer).await;
            }
            soak.streams.push(stream);
        }
        soak
    }

    async fn call(&self, operation: &str, input: &Value) -> Value {
        must(
            &self.http,
            self.server.url(),
            (operation, input.to_string()),
        )
        .await
    }

    /// Some records to a stream; most of them cannot be compressed.
    async fn put(&mut self, stream: usize) {
        let mut records = Vec::new();
        let mut sums = Vec::new();
        for _ in 0..24 {
            let length = self.random.usize(2_000..6_000);
            let noise = self.random.u8(0..4) > 0;
            let data: Vec<u8> = (0..length)
                .map(|at| {
                    if noise {
                        self.random.u8(..)
                    } else {
                        u8::try_from(at % 61).unwrap()
                    }
                })
                .collect();
            let key = self.random.u32(..).to_string();
            sums.push((
                crc32c::crc32c(&data),
                u64::try_from(length + key.len()).unwrap(),
            ));
            let data = base64_simd::STANDARD.encode_to_string(&data);
            records.push(json!({"PartitionKey": key, "Data": data}));
        }
        let input = json!({"StreamName": self.streams[stream].name, "Records": records});
        let answer = self.call("PutRecords", &input).await;
        assert_eq!(answer["FailedRecordCount"], 0, "{answer}");
        let arrival_ms = self.clock.now_ms();
        for (placed, (checksum, bytes)) in answer["Records"].as_array().unwrap().iter().zip(sums) {
            let text = |name: &str| placed[name].as_str().unwrap().to_owned();
            let place = (text("ShardId"), text("SequenceNumber"));
            self.put += 1;
            self.streams[stream].kept.push_back(Kept {
                arrival_ms,
                place,
                checksum,
                bytes,
            });
        }
    }

    /// Two to five shards are open.
    async fn reshard(&mut self, stream: usize) {
        let name = self.streams[stream].name.clone();
        let filter = json!({"StreamName": name, "ShardFilter": {"Type": "AT_LATEST"}});
        let listed = self.call("ListShards", &filter).await;
        let key = |shard: &Value, end: &str| -> u128 {
            shard["HashKeyRange"][end]
                .as_str()
                .unwrap()
                .parse()
                .unwrap()
        };
        let mut open = listed["Shards"].as_array().unwrap().clone();
        open.sort_by_key(|shard| key(shard, "StartingHashKey"));
        let grow = open.len() <= 2 || (open.len() < 5 && self.random.bool());
        let at = self.random.usize(..open.len() - usize::from(!grow));
        if grow {
            let shard = &open[at];
            let (start, end) = (key(shard, "StartingHashKey"), key(shard, "EndingHashKey"));
            let middle = start + (end - start) / 2;
            let input = json!({"StreamName": name, "ShardToSplit": shard["ShardId"],
                               "NewStartingHashKey": middle.to_string()});
            self.call("SplitShard", &input).await;
        } else {
            let input = json!({"StreamName": name, "ShardToMerge": open[at]["ShardId"],
                               "AdjacentShardToMerge": open[at + 1]["ShardId"]});
            self.call("MergeShards", &input).await;
        }
        self.reshards += 1;
    }

    /// What has left the retention is forgotten here, and removed there.
    async fn sweep(&mut self) {
        let now_ms = self.clock.now_ms();
        for stream in &mut self.streams {
            let oldest_ms = now_ms - stream.retention_ms;
            while stream
                .kept
                .front()
                .is_some_and(|kept| kept.arrival_ms < oldest_ms)
            {
                stream.kept.pop_front();
            }
        }
        self.server.engine().sweep().await.unwrap();
        self.server.engine().rewrite().await.unwrap();
    }

    fn retained_bytes(&self) -> u64 {
        let kept = self.streams.iter().flat_map(|stream| &stream.kept);
        kept.map(|kept| kept.bytes).sum()
    }

    /// Everything that is young enough is there once, as it was put, and nothing else is.
    async fn read_back(&mut self, stream: usize) {
        let name = self.streams[stream].name.clone();
        let mut found: HashMap<(String, String), u32> = HashMap::new();
        let listed = self.call("ListShards", &json!({"StreamName": name})).await;
        for shard in listed["Shards"].as_array().unwrap() {
            let shard = shard["ShardId"].as_str().unwrap();
            let start =
                json!({"StreamName": name, "ShardId": shard, "ShardIteratorType": "TRIM_HORIZON"});
            let mut at = self.call("GetShardIterator", &start).await["ShardIterator"].take();
            while at.is_string() {
                let mut page = self.call("GetRecords", &json!({"ShardIterator": at})).await;
                for record in page["Records"].as_array().unwrap() {
                    let text = |name: &str| record[name].as_str().unwrap();
                    let data = base64_simd::STANDARD.decode_to_vec(text("Data")).unwrap();
                    let place = (shard.to_owned(), text("SequenceNumber").to_owned());
                    let twice = found.insert(place, crc32c::crc32c(&data));
                    assert_eq!(twice, None, "read twice");
                }
                if page["Records"] == json!([]) && page["MillisBehindLatest"] == 0 {
                    break;
                }
                at = page["NextShardIterator"].take();
            }
        }
        let kept = &self.streams[stream].kept;
        assert_eq!(
            found.len(),
            kept.len(),
            "{name}: all of the retained records, and no others"
        );
        for kept in kept {
            assert_eq!(
                found.get(&kept.place),
                Some(&kept.checksum),
                "{name}: {kept:?}"
            );
        }
        self.read += u64::try_from(found.len()).unwrap();
    }

    async fn round(&mut self, round: usize) {
        for stream in 0..RETENTIONS.len() {
            self.put(stream).await;
        }
        if round % 10 == 3 {
            self.reshard(round / 10 % RETENTIONS.len()).await;
        }
        self.clock.advance_ms(HOUR_MS);
        self.sweep().await;
        if round % 8 == 7 {
            self.read_back(round / 8 % RETENTIONS.len()).await;
        }
    }
}

fn minutes() -> f64 {
    let set = |name: &str| std::env::var(name).ok();
    let given = set("MILLSTREAM_SOAK_MINUTES").and_then(|minutes| minutes.parse().ok());
    let is_long = set("MILLSTREAM_LONG").is_some_and(|long| long == "1");
    given.unwrap_or(if is_long { 20.0 } else { 0.15 })
}

/// The middle one: a single odd moment says nothing.
fn median(numbers: impl Iterator<Item = u64>) -> u64 {
    let mut numbers: Vec<u64> = numbers.collect();
    numbers.sort_unstable();
    numbers[numbers.len() / 2]
}

/// Memory and files of the last quarter are those of the quarter before. Told, not panicked: the symbols that a backtrace takes
/// would be memory of the process that is watched.
fn stay_flat(held: &[Held]) -> Result<[u64; 4], String> {
    let quarter = held.len() / 4;
    let (third, last) = held[held.len() - 2 * quarter..].split_at(quarter);
    let resident = |part: &[Held]| median(part.iter().map(|held| held.resident_kib));
    let files = |part: &[Held]| median(part.iter().map(|held| u64::try_from(held.files).unwrap()));
    let (before, after) = (resident(third), resident(last));
    if after > before + GROWTH_KIB {
        return Err(format!("resident memory went from {before} to {after} KiB"));
    }
    let (files_before, files_after) = (files(third), files(last));
    if files_after > files_before + 4 {
        return Err(format!(
            "open files went from {files_before} to {files_after}"
        ));
    }
    Ok([before, after, files_before, files_after])
}

/// After each round, which is an hour by the server's clock, the disk is within its bound; every eight rounds a stream is read from
/// end to end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s6_s7_a_server_at_work_for_long_stays_as_it_is() {
    let seed = fastrand::u64(..);
    println!("soak: seed {seed}");
    let data = tempfile::tempdir().unwrap();
    let mut soak = Soak::start(data.path(), seed).await;
    let length = Duration::from_secs_f64(minutes() * 60.0);
    let began = Instant::now();
    let (mut round, mut all, mut worst) = (0, Vec::new(), 0.0_f64);
    while began.elapsed() < length || round < ROUNDS_AT_LEAST {
        soak.round(round).await;
        let (used, retained) = (segments_bytes(data.path()), soak.retained_bytes());
        let beyond = used.saturating_sub(2 * SEGMENT_BYTES);
        assert!(
            beyond * 4 <= retained * 5,
            "round {round}: {used} bytes on disk for {retained} retained"
        );
        let kib = |bytes: u64| f64::from(u32::try_from(bytes >> 10).unwrap());
        worst = worst.max(kib(beyond) / kib(retained));
        all.push(held());
        round += 1;
    }
    for stream in 0..RETENTIONS.len() {
        soak.read_back(stream).await;
    }
    let eighths = all.chunks(all.len().div_ceil(8));
    let eighths = eighths.map(|part| median(part.iter().map(|held| held.resident_kib)));
    println!(
        "soak: resident KiB by eighths of the time: {:?}",
        eighths.collect::<Vec<_>>()
    );
    let flat = stay_flat(&all);
    let [before, after, files_before, files_after] = flat.unwrap_or_else(|grew| panic!("{grew}"));
    println!(
        "soak: {:?}, {round} hours by its clock, {} records put, {} read back, {} reshards; disk at most {worst:.2} times what is \
         retained and two segments; resident {before} KiB, then {after} KiB; {files_before} open files, then {files_after}",
        began.elapsed(),
        soak.put,
        soak.read,
        soak.reshards
    );
    soak.server.shutdown().await;
}

/// The judge of memory and files notices what grows.
#[test]
fn what_grows_is_noticed() {
    let flat = |round: usize| Held {
        resident_kib: 100_000 + u64::try_from(round % 7).unwrap() * 500,
        files: 30 + round % 3,
    };
    let grown = |each: u64| {
        move |round: usize| Held {
            resident_kib: 100_000 + u64::try_from(round).unwrap() * each,
            files: 30,
        }
    };
    let leaking = |round: usize| Held {
        resident_kib: 100_000,
        files: 30 + round / 2,
    };
    let judge = |of: &dyn Fn(usize) -> Held| {
        let held: Vec<Held> = (0..400).map(of).collect();
        stay_flat(&held).is_ok()
    };
    assert!(judge(&flat));
    assert!(judge(&grown(10)));
    assert!(!judge(&grown(100)));
    assert!(!judge(&leaking));
}
