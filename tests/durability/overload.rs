//! S6: four times the load that the server, or a shard, can take, and more clients than there are places at work: what is too much is refused at once with the code that clients
//! know to wait on, what can be taken is, memory stays within its budget, and nothing that was acknowledged is missing.

use crate::SERVER;
use crate::slow_disk::SlowDisk;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use support::client::{AUTHORIZATION, RawClient, decode_base64, encode_base64, text};
use support::history::Sequence;
use support::{ServerProcess, alone, scaled};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

const STREAM: &str = "overload";
/// The data of a record.
const RECORD_BYTES: usize = 64 * 1024;
/// The least that can be configured.
const MEMORY_MIB: u64 = 192;
/// What a client waits that was refused.
const BACKOFF: Duration = Duration::from_millis(100);
/// Refusals of a server that is at work take no longer, this share of them.
const REFUSED_WITHIN: Duration = Duration::from_millis(50);

/// What one client, or all of them, were answered.
#[derive(Debug, Default)]
struct Outcome {
    /// Shard and number of what was acknowledged.
    acked: Vec<(String, Sequence)>,
    /// How long it took.
    acked_after: Vec<Duration>,
    /// How long each refusal took, by code.
    refused: BTreeMap<String, Vec<Duration>>,
}

impl Outcome {
    fn add(&mut self, other: Outcome) {
        self.acked.extend(other.acked);
        self.acked_after.extend(other.acked_after);
        for (code, times) in other.refused {
            self.refused.entry(code).or_default().extend(times);
        }
    }

    fn refusals(&self) -> Vec<Duration> {
        let mut times: Vec<Duration> = self.refused.values().flatten().copied().collect();
        times.sort_unstable();
        times
    }
}

/// A client with a connection of its own that speaks HTTP/1.1 in bytes made beforehand: it takes little of the machine.
struct Client {
    stream: TcpStream,
    request: Arc<Vec<u8>>,
}

/// A request whose record says what it is: bytes that anybody can tell from others.
fn request(data: &[u8]) -> Vec<u8> {
    let body = json!({"StreamName": STREAM, "PartitionKey": "k", "Data": encode_base64(data)});
    let body = body.to_string();
    let mut bytes = format!(
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-amz-json-1.1\r\n\
         X-Amz-Target: Kinesis_20131202.PutRecord\r\nX-Amz-Date: 20260101T000000Z\r\n\
         Authorization: {AUTHORIZATION}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    bytes.extend_from_slice(body.as_bytes());
    bytes
}

impl Client {
    async fn connect(port: u16, request: &Arc<Vec<u8>>) -> Client {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Client {
            stream,
            request: Arc::clone(request),
        }
    }

    /// Puts one record; status and body, and how long that took.
    async fn put(&mut self) -> (u16, Value, Duration) {
        let began = Instant::now();
        self.stream.write_all(&self.request).await.unwrap();
        let mut answer = Vec::new();
        loop {
            let read = self.stream.read_buf(&mut answer).await.unwrap();
            assert!(read > 0, "the connection was ended in the middle");
            let Some(head) = answer.windows(4).position(|at| at == b"\r\n\r\n") else {
                continue;
            };
            let text = String::from_utf8_lossy(&answer[..head]).to_ascii_lowercase();
            let length = text
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.expect("a length").trim().parse().unwrap();
            if answer.len() >= head + 4 + length {
                let status = text[9..12].parse().unwrap();
                let body = &answer[head + 4..];
                let json = serde_json::from_slice(body);
                let json =
                    json.unwrap_or_else(|_| panic!("{text}: {}", String::from_utf8_lossy(body)));
                return (status, json, began.elapsed());
            }
        }
    }

    /// Puts one record after another until told to stop.
    async fn run(mut self, stop: Arc<AtomicBool>) -> Outcome {
        let mut outcome = Outcome::default();
        while !stop.load(Ordering::SeqCst) {
            let (status, body, took) = self.put().await;
            if status == 200 {
                let sequence = Sequence::new(&text(&body, "SequenceNumber"));
                outcome.acked.push((text(&body, "ShardId"), sequence));
                outcome.acked_after.push(took);
                continue;
            }
            let code = text(&body, "__type");
            let code = code.rsplit('#').next().unwrap_or_default().to_owned();
            assert!(
                [
                    (400, "ProvisionedThroughputExceededException"),
                    (503, "ServiceUnavailable")
                ]
                .contains(&(status, &code)),
                "{status} {body}"
            );
            outcome.refused.entry(code).or_default().push(took);
            sleep(BACKOFF).await;
        }
        outcome
    }
}

/// So many clients for so long.
async fn load(
    server: &ServerProcess,
    clients: usize,
    request: &Arc<Vec<u8>>,
    length: Duration,
) -> Outcome {
    let stop = Arc::new(AtomicBool::new(false));
    let mut running = JoinSet::new();
    for _ in 0..clients {
        let client = Client::connect(server.port(), request).await;
        running.spawn(client.run(Arc::clone(&stop)));
    }
    sleep(length).await;
    stop.store(true, Ordering::SeqCst);
    let mut all = Outcome::default();
    while let Some(one) = running.join_next().await {
        all.add(one.unwrap());
    }
    all
}

fn part(sorted: &[Duration], percent: usize) -> Duration {
    assert!(
        !sorted.is_empty(),
        "nothing was too much, or nobody looked on"
    );
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
}

/// Everything acknowledged is there, with the data that was put.
async fn all_is_there(client: &RawClient, acked: &[(String, Sequence)], data: &[u8]) {
    let mut found: BTreeSet<(String, Sequence)> = BTreeSet::new();
    for shard in client.list_shards(STREAM).await.unwrap() {
        let shard = text(&shard, "ShardId");
        let mut at = client.trim_horizon(STREAM, &shard).await.unwrap();
        loop {
            // Limits hold for readers, too.
            let page = match client
                .call("GetRecords", &json!({"ShardIterator": at}))
                .await
            {
                Ok(page) => page,
                Err(error) if error.code() == Some("ProvisionedThroughputExceededException") => {
                    sleep(Duration::from_millis(250)).await;
                    continue;
                }
                Err(error) => panic!("{error}"),
            };
            for record in page["Records"].as_array().unwrap() {
                assert!(decode_base64(&text(record, "Data")) == data, "other data");
                let sequence = Sequence::new(&text(record, "SequenceNumber"));
                assert!(found.insert((shard.clone(), sequence)), "a record twice");
            }
            at = text(&page, "NextShardIterator");
            if page["MillisBehindLatest"] == 0 {
                break;
            }
        }
    }
    let lost = acked.iter().find(|place| !found.contains(place));
    assert_eq!(lost, None, "S1: acknowledged and lost");
}

/// Bytes to and fro over the loopback, all the while, past the server; how long each took: what the machine does to everybody.
async fn bystander(stop: Arc<AtomicBool>) -> Vec<Duration> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let there = TcpStream::connect(listener.local_addr().unwrap());
    let (there, here) = tokio::join!(there, listener.accept());
    let (mut there, mut here) = (there.unwrap(), here.unwrap().0);
    let echo = tokio::spawn(async move {
        let (mut from, mut to) = here.split();
        tokio::io::copy(&mut from, &mut to).await
    });
    let mut took = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        let began = Instant::now();
        there.write_all(b"ping").await.unwrap();
        there.read_exact(&mut [0; 4]).await.unwrap();
        took.push(began.elapsed());
        sleep(Duration::from_millis(20)).await;
    }
    drop(there);
    echo.await.unwrap().unwrap();
    took.sort_unstable();
    took
}

/// How long refusals took, and a bystander meanwhile, both sorted.
#[derive(Debug)]
struct Shed {
    refusals: Vec<Duration>,
    bystander: Vec<Duration>,
}

impl Shed {
    /// Within 50 ms, beside what the machine makes everybody wait. A debug build takes ten times as long to read a body, in steps that
    /// each wait for a processor, and shares the processors with its clients and whatever else is tested.
    fn check(&self) -> Result<(), String> {
        let (slack, steps) = if cfg!(debug_assertions) {
            (20, 3)
        } else {
            (1, 1)
        };
        let median = REFUSED_WITHIN + part(&self.bystander, 50) * steps;
        let p99 = REFUSED_WITHIN * slack + part(&self.bystander, 99) * steps;
        if part(&self.refusals, 50) <= median && part(&self.refusals, 99) <= p99 {
            return Ok(());
        }
        Err(self.to_string())
    }
}

impl fmt::Display for Shed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [median, p99, most] = [50, 99, 100].map(|percent| part(&self.refusals, percent));
        let waited = [50, 99].map(|percent| part(&self.bystander, percent));
        let count = self.refusals.len();
        write!(
            f,
            "{count} refused after {median:?} (median), {p99:?} (99 %), {most:?} at most; a bystander waited {waited:?}"
        )
    }
}

/// What a machine does to everybody for a moment is no finding: what took too long is measured again, twice at most. Nothing else is.
async fn in_one_of_three<F: Future<Output = Result<(), String>>>(measured: impl Fn() -> F) {
    let mut said = Vec::new();
    for _ in 0..3 {
        match measured().await {
            Ok(()) => return,
            Err(missed) => said.push(missed),
        }
        println!("overload, took too long: {said:?}");
    }
    panic!("three times in a row: {said:#?}");
}

/// An error unless it is so.
fn timely(is_so: bool, otherwise: impl fmt::Display) -> Result<(), String> {
    is_so.then_some(()).ok_or_else(|| otherwise.to_string())
}

fn per_second(acked: usize, length: Duration) -> f64 {
    f64::from(u32::try_from(acked).unwrap()) / length.as_secs_f64()
}

/// A disk that writes four megabytes in a second. A few clients find out what the server can take, before and after; in between six
/// times as many offer more than four times that. Goodput is nine tenths of the peak or more; what is refused is refused
/// within 50 ms, beside what the machine makes everybody wait (a debug build has more time at the 99th percentile); resident memory stays within the budget; a client that comes when it is over is served at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s6_four_times_what_the_disk_takes_is_shed_at_once() {
    let _alone = alone().await;
    in_one_of_three(load_a_disk).await;
}

async fn load_a_disk() -> Result<(), String> {
    let length = Duration::from_secs(u64::try_from(scaled(3, 30)).unwrap());
    let disk = SlowDisk::of(4_000_000);
    let environment = disk.environment();
    let environment = environment
        .each_ref()
        .map(|(name, value)| (*name, value.as_str()));
    let memory = format!("{MEMORY_MIB}MiB");
    let flags = ["--limits", "off", "--memory", &memory];
    let server = ServerProcess::start_in(SERVER, &flags, &environment).await;
    let client = server.client();
    client.create_stream(STREAM, 4).await;
    let data: Vec<u8> = (0..RECORD_BYTES)
        .map(|n| u8::try_from(n * 7 % 251).unwrap())
        .collect();
    let request = Arc::new(request(&data));

    let before = load(&server, 16, &request, length).await;
    let stop = Arc::new(AtomicBool::new(false));
    let bystander = tokio::spawn(bystander(Arc::clone(&stop)));
    let over = load(&server, 96, &request, length * 2).await;
    stop.store(true, Ordering::SeqCst);
    let ended = Instant::now();
    let (status, body, _) = Client::connect(server.port(), &request).await.put().await;
    assert_eq!(status, 200, "a client that comes when it is over: {body}");
    let served_after = ended.elapsed();
    let after = load(&server, 16, &request, length).await;
    for few in [&before, &after] {
        assert!(
            few.refused.is_empty(),
            "the peak is what is taken without refusals"
        );
    }

    let shed = Shed {
        refusals: over.refusals(),
        bystander: bystander.await.unwrap(),
    };
    let peak = per_second(before.acked.len() + after.acked.len(), length * 2);
    let taken = per_second(over.acked.len(), length * 2);
    let offered = per_second(over.acked.len() + shed.refusals.len(), length * 2);
    let counts: BTreeMap<&String, usize> = over.refused.iter().map(|(c, t)| (c, t.len())).collect();
    let held = server.peak_memory() >> 20;
    println!(
        "overload: peak {peak:.0}/s; offered {offered:.0}/s, taken {taken:.0}/s ({:.0} %); {counts:?}: {shed}; {held} of \
         {MEMORY_MIB} MiB; then a client was served after {served_after:?}",
        100.0 * taken / peak,
    );
    assert!(offered >= 4.0 * peak, "that was no overload");
    assert!(held <= MEMORY_MIB, "{held} MiB");
    assert!(served_after < Duration::from_secs(1), "{served_after:?}");
    let acked = [before.acked, over.acked, after.acked].concat();
    all_is_there(&client, &acked, &data).await;
    timely(
        taken >= 0.9 * peak,
        format!("{taken:.0} of {peak:.0}/s: goodput fell"),
    )?;
    shed.check()
}

/// Four times what one shard takes by AWS's limits, from 32 clients: it gives nine tenths of its mebibyte a second or more, and refuses
/// the rest at once, by the code for that; its neighbour's puts are all taken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s6_four_times_what_a_shard_takes_is_shed_at_once() {
    let _alone = alone().await;
    in_one_of_three(load_a_shard).await;
}

async fn load_a_shard() -> Result<(), String> {
    let seconds = u32::try_from(scaled(4, 60)).unwrap();
    let server = ServerProcess::start_with(SERVER, &[]).await;
    let client = server.client();
    client.create_stream(STREAM, 1).await;
    client.create_stream("neighbour", 1).await;
    let data = vec![7; RECORD_BYTES];
    let request = Arc::new(request(&data));
    let stop = Arc::new(AtomicBool::new(false));
    let neighbour = tokio::spawn(neighbour(server.client(), Arc::clone(&stop)));
    let over = load(&server, 32, &request, Duration::from_secs(1) * seconds).await;
    stop.store(true, Ordering::SeqCst);
    let bystander = neighbour.await.unwrap();
    let shed = Shed {
        refusals: over.refusals(),
        bystander,
    };
    let codes: Vec<&String> = over.refused.keys().collect();
    assert_eq!(codes, ["ProvisionedThroughputExceededException"]);
    let taken = over.acked.len();
    // A second's worth is there from the beginning.
    let allowed = usize::try_from(seconds).unwrap() * (1 << 20) / RECORD_BYTES;
    println!("overload of a shard: {taken} taken of {allowed} allowed; {shed}");
    assert!(
        taken <= allowed + 2 * (1 << 20) / RECORD_BYTES,
        "the limit does not hold"
    );
    assert!(shed.refusals.len() >= 3 * taken, "that was no overload");
    all_is_there(&client, &over.acked, &data).await;
    timely(
        taken * 10 >= allowed * 9,
        format!("{taken} of {allowed}: goodput fell"),
    )?;
    shed.check()
}

/// Puts a small record all the while; how long each took, sorted.
async fn neighbour(client: RawClient, stop: Arc<AtomicBool>) -> Vec<Duration> {
    let mut took = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        let began = Instant::now();
        client.put("neighbour", "k", b"n").await.unwrap();
        took.push(began.elapsed());
        sleep(Duration::from_millis(20)).await;
    }
    took.sort_unstable();
    took
}

/// Clients that send all but the end of their requests, more of them than there are places at work: a put of anybody else is refused
/// at once, on connections that go on, and taken once they have gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s6_without_a_place_at_work_puts_are_refused_at_once() {
    let _alone = alone().await;
    in_one_of_three(leave_no_place).await;
}

async fn leave_no_place() -> Result<(), String> {
    const PLACES: usize = 128;
    let memory = format!("{MEMORY_MIB}MiB");
    let flags = ["--limits", "off", "--memory", &memory];
    let server = ServerProcess::start_with(SERVER, &flags).await;
    server.client().create_stream(STREAM, 1).await;
    let request = Arc::new(request(b"small"));
    let mut idle = Vec::new();
    for _ in 0..PLACES {
        let mut client = Client::connect(server.port(), &request).await;
        let begun = &request[..request.len() - 1];
        client.stream.write_all(begun).await.unwrap();
        idle.push(client);
    }
    // Those of them without a place are refused as well.
    sleep(Duration::from_secs(1)).await;
    let over = load(&server, 32, &request, Duration::from_secs(3)).await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut times = over.refusals();
    assert_eq!(over.acked, [], "there was a place");
    let codes: Vec<&String> = over.refused.keys().collect();
    assert_eq!(codes, ["ServiceUnavailable"]);
    drop(idle);
    // The machine's share of it, told by a server that has places again.
    let bystander = tokio::spawn(bystander(Arc::clone(&stop)));
    let served = load(&server, 32, &request, Duration::from_secs(1)).await;
    stop.store(true, Ordering::SeqCst);
    assert!(!served.acked.is_empty(), "nobody was served");
    times.sort_unstable();
    let shed = Shed {
        refusals: times,
        bystander: bystander.await.unwrap(),
    };
    println!("no place at work: {shed}");
    shed.check()
}

/// Three times as many clients as there are places at work, one put after the other: all get their turns, and hardly any is refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s6_clients_beyond_the_places_at_work_get_their_turns() {
    let _alone = alone().await;
    in_one_of_three(take_turns).await;
}

async fn take_turns() -> Result<(), String> {
    const CLIENTS: usize = 320;
    let memory = format!("{MEMORY_MIB}MiB");
    let flags = ["--limits", "off", "--memory", &memory];
    let server = ServerProcess::start_with(SERVER, &flags).await;
    server.client().create_stream(STREAM, 4).await;
    let request = Arc::new(request(b"small"));
    let length = Duration::from_secs(u64::try_from(scaled(3, 30)).unwrap());
    let stop = Arc::new(AtomicBool::new(false));
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let client = Client::connect(server.port(), &request).await;
        clients.spawn(client.run(Arc::clone(&stop)));
    }
    sleep(length).await;
    stop.store(true, Ordering::SeqCst);
    let (mut all, mut least) = (Outcome::default(), usize::MAX);
    while let Some(one) = clients.join_next().await {
        let one = one.unwrap();
        least = least.min(one.acked.len());
        all.add(one);
    }
    all.acked_after.sort_unstable();
    let (acked, refused) = (all.acked.len(), all.refusals().len());
    let [median, p99] = [50, 99].map(|percent| part(&all.acked_after, percent));
    println!(
        "{CLIENTS} clients: {:.0} puts/s after {median:?} (median) and {p99:?} (99 %), {least} or more each; {refused} refused",
        per_second(acked, length)
    );
    assert!(least > 0, "somebody had no turn");
    timely(
        refused * 20 <= acked,
        format!("{refused} of {acked} were refused"),
    )
}
