//! What reading costs: `cargo bench -p kcl --bench reads` prints records and megabytes a second for JSON and CBOR, and the cost of a signed request.
//!
//! A listener on this machine answers every read with the same page, made beforehand, so what is measured is the client: HTTP, decoding, and
//! handing out the page. Sender and client share the machine's cores.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a bench may talk and panic"
)]

use kcl::client::{HttpClient, KinesisApi};
use millstream_wire::Encoding;
use millstream_wire::shapes::{GetRecordsResponse, Record, Timestamp};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

const PERIOD: Duration = Duration::from_secs(3);

/// A page of `count` records of `bytes` each.
fn page(count: u64, bytes: usize) -> GetRecordsResponse {
    let record = |number: u64| Record {
        sequence_number: format!("4960{number:052}").parse().unwrap(),
        approximate_arrival_timestamp: Some(Timestamp::from_millis(1_700_000_000_000 + number)),
        data: (0..bytes)
            .map(|_| fastrand::u8(..))
            .collect::<Vec<u8>>()
            .into(),
        partition_key: format!(
            "device-{:08}-of-the-fleet-of-eu-west",
            fastrand::u32(..) % 1_000_000
        ),
        encryption_type: None,
    };
    GetRecordsResponse {
        records: (0..count).map(record).collect(),
        next_shard_iterator: Some("next".to_owned()),
        millis_behind_latest: Some(5),
        child_shards: None,
    }
}

fn answer(page: &GetRecordsResponse, encoding: Encoding) -> Arc<Vec<u8>> {
    let body = encoding.encode(page).unwrap();
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {}\r\nContent-Length: {}\r\n\r\n",
        encoding.content_type(),
        body.len()
    );
    Arc::new([head.as_bytes(), &body].concat())
}

/// Answers every request with the page in the one encoding; a client that asks in the other learns it from the first answer.
async fn serve(answer: Arc<Vec<u8>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let answer = Arc::clone(&answer);
            tokio::spawn(async move {
                while read_request(&mut socket).await {
                    if socket.write_all(&answer).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    url
}

async fn read_request(socket: &mut TcpStream) -> bool {
    let mut request = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        match socket.read(&mut chunk).await {
            Ok(0) | Err(_) => return false,
            Ok(read) => request.extend_from_slice(&chunk[..read]),
        }
        let Some(head) = request.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
            continue;
        };
        let text = String::from_utf8_lossy(&request[..head]).to_ascii_lowercase();
        let length = text
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.map_or(0, |length| length.trim().parse().unwrap());
        if request.len() >= head + 4 + length {
            return true;
        }
    }
}

async fn measure(what: &str, encoding: Encoding, page: &GetRecordsResponse) {
    let url = serve(answer(page, encoding)).await;
    let client = HttpClient::new(Some(&url), None, "orders", Duration::from_secs(10)).unwrap();
    let read = async || client.get_records("iterator", 10_000).await.unwrap();
    assert_eq!(read().await.records.len(), page.records.len());
    let (began, mut records, mut bytes, mut pages) = (Instant::now(), 0_u32, 0_u64, 0_u32);
    while began.elapsed() < PERIOD {
        let page = read().await;
        pages += 1;
        records += u32::try_from(page.records.len()).unwrap();
        bytes += page
            .records
            .iter()
            .map(|record| record.data().len() as u64)
            .sum::<u64>();
    }
    let took = began.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let megabytes = bytes as f64 / 1e6;
    println!(
        "{what:24} {encoding:?} {:>9.0} records/s {:>7.1} MB/s {:>8.1} us a page",
        f64::from(records) / took,
        megabytes / took,
        took * 1e6 / f64::from(pages)
    );
}

#[tokio::main]
async fn main() {
    let shapes = [
        ("10,000 x 1 KiB (10 MiB)", page(10_000, 1024)),
        ("10,000 x 100 B", page(10_000, 100)),
        ("no records: a request", page(0, 0)),
    ];
    for (what, page) in shapes {
        for encoding in [Encoding::Json, Encoding::Cbor] {
            measure(what, encoding, &page).await;
        }
    }
}
