//! Everything at once, for as long as it takes every cache and budget to fill: what the server holds at most.

use super::Size;
use super::puts::mib;
use super::server::{Running, Setup};
use super::table::Row;
use crate::client::Endpoint;
use crate::measure::{Recorder, Window};
use crate::workload::Puts;
use crate::{Failure, report, stream};
use bytes::Bytes;
use serde_json::json;
use std::io;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// Shards of the stream.
const SHARDS: u32 = 64;
/// Readers that begin at the oldest record over and over.
const READERS: usize = 64;
/// Large bodies, small bodies of many records, single records.
const PUTS: [(usize, usize, usize); 4] = [
    (16, 500, 1024),
    (64, 500, 20),
    (64, 1, 512),
    (4, 10, 1_000_000),
];
/// How long a client waits that was told to.
const PAUSE: Duration = Duration::from_millis(5);

/// Loads a server with more than it can do, and gives what it held.
pub(super) async fn run(setup: &Setup, size: Size) -> Result<Vec<Row>, Failure> {
    let data = setup.data()?;
    let server = setup.start(data.path()).await?;
    let name = stream::create(&server.endpoint, SHARDS).await?;
    report::note("puts, reads and small records at once");
    let window = Window::after(Duration::ZERO, size.duration * 6);
    let (peak_kib, told) = everything(&server, &name, window).await?;
    let budget = budget_mib(&setup.memory)?;
    let row = Row::at_most(
        "resident under puts and reads at once, at most",
        (budget, "MiB"),
        mib(peak_kib),
    )
    .noting(&told);
    sleep(Duration::from_secs(3)).await;
    let after = mib(server.memory()?.resident_kib);
    let rows = vec![
        row,
        Row::told("three seconds after it", format!("{after:.0} MiB")),
    ];
    server.stop().await?;
    Ok(rows)
}

async fn everything(
    server: &Running,
    name: &str,
    window: Window,
) -> Result<(u64, String), Failure> {
    let shards = stream::shards(&server.endpoint, name).await?;
    let recorder = Recorder::new(window)?;
    let mut tasks = JoinSet::new();
    for (connections, records, record_bytes) in PUTS {
        let load = Puts {
            stream: name.to_owned(),
            connections,
            records,
            record_bytes,
            rate: None,
        };
        let (endpoint, recorder) = (server.endpoint.clone(), recorder.clone());
        tasks.spawn(async move {
            // A server that refuses in time does what it should; the load goes on.
            while Instant::now() < window.ends {
                if load.run(&endpoint, &recorder).await.is_err() {
                    sleep(PAUSE).await;
                }
            }
            Ok(0)
        });
    }
    for shard in shards.iter().cycle().take(READERS) {
        let (endpoint, name, shard) = (server.endpoint.clone(), name.to_owned(), shard.clone());
        tasks.spawn(async move { read(&endpoint, (&name, &shard), window).await });
    }
    let mut pages: u64 = 0;
    while let Some(done) = tasks.join_next().await {
        pages += done??;
    }
    let memory = server.memory()?;
    Ok((memory.peak_kib, format!("{pages} pages read")))
}

/// Reads a shard from its oldest record, again and again; gives how many pages.
async fn read(endpoint: &Endpoint, (name, shard): (&str, &str), window: Window) -> io::Result<u64> {
    let mut connection = endpoint.connect().await?;
    let mut pages = 0;
    while Instant::now() < window.ends {
        let Ok(mut token) = stream::iterator(endpoint, name, shard, "TRIM_HORIZON").await else {
            sleep(PAUSE).await;
            continue;
        };
        for _ in 0..100 {
            let body = Bytes::from(json!({ "ShardIterator": token }).to_string());
            let answer = connection
                .send(&endpoint.request("GetRecords", body)?)
                .await?;
            if answer.status != 200 {
                sleep(PAUSE).await;
                break;
            }
            pages += 1;
            let Some(next) = next_iterator(answer.body) else {
                break;
            };
            token = next;
            if Instant::now() >= window.ends {
                break;
            }
        }
    }
    Ok(pages)
}

/// The next iterator, found without reading the records.
fn next_iterator(body: &[u8]) -> Option<String> {
    const NAME: &[u8] = b"\"NextShardIterator\":\"";
    let at = memchr::memmem::rfind(body, NAME)? + NAME.len();
    let rest = body.get(at..)?;
    let end = memchr::memchr(b'"', rest)?;
    String::from_utf8(rest.get(..end)?.to_vec()).ok()
}

fn budget_mib(memory: &str) -> Result<f64, Failure> {
    let memory: millstream_server::Memory = memory.parse()?;
    Ok(crate::measure::float(memory.bytes() / 1024) / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_iterator_is_found_behind_the_records() {
        let body =
            br#"{"Records":[{"Data":"x"}],"NextShardIterator":"abc/+=","MillisBehindLatest":3}"#;
        assert_eq!(next_iterator(body), Some("abc/+=".to_owned()));
        assert_eq!(next_iterator(br#"{"Records":[]}"#), None);
        assert_eq!(next_iterator(b"\"NextShardIterator\":\""), None);
    }

    #[test]
    fn the_budget_is_read_as_the_server_reads_it() {
        assert!((budget_mib("2GiB").unwrap() - 2048.0).abs() < 0.1);
        budget_mib("1MiB").unwrap_err();
    }
}
