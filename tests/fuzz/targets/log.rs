//! The log's files: one of them changed, with the checksums of its frames put right, opened and read.
//!
//! An input is which file, and what is in it; what is not given is zero, as a segment is that was written out beforehand.

use super::requests::Service;
use crate::engine::{Target, shape};
use millstream_server::clock::ManualClock;
use millstream_server::engine::catalog::Catalog;
use millstream_server::log::{Log, LogConfig, LogShard, MemoryDisk, ReadLimit};
use millstream_server::{Compression, Durability};
use millstream_wire::{Encoding, Operation};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::runtime::{Builder, Runtime};

const HEADER_BYTES: usize = 40;
const ALIGNMENT: usize = 8;
/// The shards that are read.
const SHARDS: u64 = 8;

const CONFIG: LogConfig = LogConfig {
    segment_bytes: 8 << 10,
    segment_runs: 1 << 10,
    durability: Durability::None,
    queue_bytes: 1 << 20,
    tail_cache_bytes: 1 << 16,
    footer_cache_bytes: 1 << 16,
    block_cache_bytes: 1 << 16,
    read_bytes: 1 << 20,
    compression: Compression::Zstd,
    rewrite_bytes_per_second: 0,
};

pub(crate) struct Files {
    runtime: Runtime,
    files: BTreeMap<String, Vec<u8>>,
}

impl Files {
    pub(crate) fn new() -> Self {
        let disk = MemoryDisk::new();
        // Three segments of records, a reshard, tags.
        let service = Service::on(disk.clone(), CONFIG);
        let ask = |operation, body: serde_json::Value| {
            let asked = service.ask(operation, Encoding::Json, body.to_string().into_bytes());
            asked.unwrap_or_else(|error| panic!("{operation}: {error:?}"));
        };
        for n in 0..24 {
            let data = "QUFB".repeat(200);
            let record =
                json!({ "StreamName": "orders", "PartitionKey": n.to_string(), "Data": data });
            ask(Operation::PutRecord, record);
        }
        ask(
            Operation::SplitShard,
            json!({ "StreamName": "orders", "ShardToSplit": "shardId-000000000000", "NewStartingHashKey": "100" }),
        );
        ask(
            Operation::AddTagsToStream,
            json!({ "StreamName": "orders", "Tags": { "team": "a" } }),
        );
        drop(service);
        let files = disk.contents();
        assert!(files.len() >= 3, "{:?}", files.keys());
        Files {
            runtime: Builder::new_current_thread().enable_all().build().unwrap(),
            files,
        }
    }
}

impl Target for Files {
    fn seeds(&self) -> Vec<Vec<u8>> {
        let seed = |(index, file): (u8, &Vec<u8>)| {
            let used = file.iter().rposition(|byte| *byte != 0);
            let used = used.map_or(0, |last| last + 1);
            let mut seed = vec![index];
            seed.extend(&file[..used.next_multiple_of(ALIGNMENT).min(file.len())]);
            seed
        };
        (0..).zip(self.files.values()).map(seed).collect()
    }

    fn tokens(&self) -> &'static [&'static [u8]] {
        &[
            b"MSF\x01",
            b"\0\0\0\0\0\0\0\0",
            b"\xff\xff\xff\xff",
            b"\x01\x01",
            b"\x01\x02\0\x01",
            b"\x01\x03",
            b"\x01\x05",
            b"\x01\x06",
            b"\0\0\0\0\0\0\0\x01",
            b"\0\0\x01\0",
            b"orders",
            b"{",
            b"\"",
        ]
    }

    /// Follows the frames from the first on.
    fn mend(&mut self, input: &mut Vec<u8>) {
        let Some((_, mut rest)) = input.split_first_mut() else {
            return;
        };
        while let Some(header) = rest.first_chunk::<HEADER_BYTES>() {
            let length: [u8; 4] = [header[4], header[5], header[6], header[7]];
            let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
            let end = HEADER_BYTES.saturating_add(length);
            if end > rest.len() || header[..4] == [0; 4] {
                return;
            }
            let crc = crc32c::crc32c(&rest[12..end]);
            rest[8..12].copy_from_slice(&crc.to_be_bytes());
            let next = end.next_multiple_of(ALIGNMENT).min(rest.len());
            rest = &mut rest[next..];
        }
    }

    fn run(&mut self, input: &[u8]) -> u64 {
        let Some((index, changed)) = input.split_first() else {
            return 0;
        };
        let mut files = self.files.clone();
        let place = usize::from(*index) % files.len();
        if let Some(file) = files.values_mut().nth(place) {
            let whole = file.len().max(changed.len());
            *file = changed.to_vec();
            file.resize(whole, 0);
        }
        let disk = Arc::new(MemoryDisk::with_contents(files));
        let clock = ManualClock::at(1_700_000_000_000);
        let log = match Log::open(disk, CONFIG, clock, Catalog::default()) {
            Ok(log) => log,
            Err(error) => return shape(error),
        };
        let read = async {
            let (mut all, limit) = (
                0,
                ReadLimit {
                    records: 1000,
                    bytes: 1 << 16,
                },
            );
            for shard in 0..SHARDS {
                all = match log.read(LogShard(shard), 0, limit, 0).await {
                    Ok(records) => all ^ shape(records.is_empty()).rotate_left(1),
                    Err(error) => all ^ shape(error).rotate_left(2),
                };
            }
            log.close().await;
            all
        };
        self.runtime.block_on(read)
    }
}
