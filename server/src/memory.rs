//! One budget for all that grows with load, and what of it each part may take. Pure.
//!
//! What bounds a part is where the part is: this only gives it its number. Not in the budget: the records of a server that keeps
//! its data in memory, and a catalog of more than a few thousand shards, about a kilobyte a shard.

use crate::engine::PAGE_MAX_BYTES;
use crate::http::{HttpConfig, REST_BYTES, WORK_BYTES};
use crate::log::{LogConfig, RUN_COST_BYTES};
use std::fmt;
use std::str::FromStr;

const MIB: u64 = 1024 * 1024;

/// Memory that a server may take, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Memory(u64);

impl Memory {
    /// The least a server can work with: a request, an answer and a read of the largest size must fit.
    pub const MIN: Memory = Memory(192 * MIB);
    /// The most that can be configured.
    pub const MAX: Memory = Memory(1024 * 1024 * MIB);

    /// So many bytes, if that is not too few or too many.
    pub fn new(bytes: u64) -> Option<Memory> {
        Some(Memory(bytes)).filter(|memory| (Memory::MIN..=Memory::MAX).contains(memory))
    }

    /// In bytes.
    pub fn bytes(self) -> u64 {
        self.0
    }
}

impl Default for Memory {
    fn default() -> Self {
        Memory(512 * MIB)
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 % MIB {
            0 => write!(f, "{}MiB", self.0 / MIB),
            _ => write!(f, "{}", self.0),
        }
    }
}

/// A number of bytes, or one with the unit `KiB`, `MiB`, `GiB` or `TiB`.
impl FromStr for Memory {
    type Err = String;

    fn from_str(text: &str) -> Result<Memory, String> {
        let units = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40)];
        let with_unit = units.iter().find_map(|(unit, shift)| {
            let number = text.strip_suffix(unit)?;
            Some((number.trim_end(), 1_u64 << shift))
        });
        let (number, unit) = with_unit.unwrap_or((text, 1));
        let bytes = number.parse().ok().and_then(|n: u64| n.checked_mul(unit));
        bytes.and_then(Memory::new).ok_or_else(|| {
            let (least, most) = (Memory::MIN, Memory::MAX);
            format!(
                "{text:?} is no memory to work with; expected {least} to {most}, as bytes or as in 512MiB or 2GiB"
            )
        })
    }
}

/// What a part has at least, and its part of what is left then.
#[derive(Debug, Clone, Copy)]
struct Share {
    least_mib: u64,
    percent: u64,
}

const fn share(least_mib: u64, percent: u64) -> Share {
    Share { least_mib, percent }
}

/// The program itself, its threads, keys and a catalog of a few thousand shards.
const PROCESS: Share = share(24, 0);
/// The commit being written, the step it is written in, and the footer and snapshot of a segment that ends.
const COMMIT: Share = share(16, 0);
const QUEUE: Share = share(12, 9);
const TAIL_CACHE: Share = share(4, 8);
const FOOTERS: Share = share(2, 4);
const BLOCKS: Share = share(1, 2);
/// What rewriting a segment takes beside its runs: the tables of the compressor, a block on its way, and the new index.
const REWRITING: Share = share(8, 0);
const RUNS: Share = share(6, 7);
const READS: Share = share(21, 14);
const PAGES: Share = share(6, 7);
const REQUESTS: Share = share(20, 12);
const ANSWERS: Share = share(22, 20);
const CONNECTIONS: Share = share(8, 17);
/// What allocators keep between the pieces they gave out, as a part of the whole.
const SLACK: u64 = 8;
/// Files that are not connections: segments, their footers in the cache, and what comes up.
const FILES: u64 = 512;
/// What small bodies, and small answers, have on top of what there is for all is an eighth of it.
const SMALL: u64 = 8;

/// What connections at work have of what there is for connections.
const AT_WORK_PERCENT: u64 = 30;

const PARTS: [Share; 13] = [
    PROCESS,
    COMMIT,
    QUEUE,
    TAIL_CACHE,
    FOOTERS,
    BLOCKS,
    REWRITING,
    RUNS,
    READS,
    PAGES,
    REQUESTS,
    ANSWERS,
    CONNECTIONS,
];

/// What each part may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) queue_bytes: usize,
    pub(crate) tail_cache_bytes: usize,
    pub(crate) footer_cache_bytes: usize,
    pub(crate) block_cache_bytes: usize,
    pub(crate) segment_runs: usize,
    pub(crate) read_bytes: usize,
    pub(crate) page_bytes: usize,
    pub(crate) request_bytes: usize,
    pub(crate) response_bytes: usize,
    pub(crate) connections: usize,
    pub(crate) connections_at_work: usize,
}

impl Plan {
    /// Divides `memory`; `files` is how many files the process may have open.
    pub(crate) fn of(memory: Memory, files: u64) -> Plan {
        let least: u64 = PARTS.iter().map(|part| part.least_mib * MIB).sum();
        let extra = (memory.0 - memory.0 / SLACK).saturating_sub(least);
        let of = |part: Share| part.least_mib * MIB + extra / 100 * part.percent;
        let bytes = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        let count = |bytes: u64, each: usize| bytes / u64::try_from(each).unwrap_or(u64::MAX);
        let at_work = of(CONNECTIONS) / 100 * AT_WORK_PERCENT;
        let connections = count(of(CONNECTIONS) - at_work, REST_BYTES);
        let connections = connections.min(files.saturating_sub(FILES).max(16));
        Plan {
            queue_bytes: bytes(of(QUEUE)),
            tail_cache_bytes: bytes(of(TAIL_CACHE)),
            footer_cache_bytes: bytes(of(FOOTERS)),
            block_cache_bytes: bytes(of(BLOCKS)),
            segment_runs: bytes(count(of(RUNS), RUN_COST_BYTES)),
            read_bytes: bytes(of(READS)),
            page_bytes: bytes(of(PAGES)).max(PAGE_MAX_BYTES),
            request_bytes: bytes(of(REQUESTS) / (SMALL + 1) * SMALL),
            response_bytes: bytes(of(ANSWERS) / (SMALL + 1) * SMALL),
            connections: bytes(connections),
            connections_at_work: bytes(count(at_work, WORK_BYTES)),
        }
    }

    /// The log's share of it.
    pub(crate) fn log(&self, config: LogConfig) -> LogConfig {
        LogConfig {
            segment_runs: self.segment_runs,
            queue_bytes: self.queue_bytes,
            tail_cache_bytes: self.tail_cache_bytes,
            footer_cache_bytes: self.footer_cache_bytes,
            block_cache_bytes: self.block_cache_bytes,
            read_bytes: self.read_bytes,
            ..config
        }
    }

    /// The share of what is around requests.
    pub(crate) fn http(&self, config: HttpConfig) -> HttpConfig {
        HttpConfig {
            max_connections: self.connections,
            max_connections_at_work: self.connections_at_work,
            max_request_bytes: self.request_bytes,
            max_response_bytes: self.response_bytes,
            ..config
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// All that the parts may take together, as they count it.
    fn sum(plan: &Plan) -> u64 {
        let parts = [
            plan.queue_bytes,
            plan.tail_cache_bytes,
            plan.footer_cache_bytes,
            plan.block_cache_bytes,
            plan.segment_runs * RUN_COST_BYTES,
            plan.read_bytes,
            plan.page_bytes,
            plan.request_bytes + plan.request_bytes / 8,
            plan.response_bytes + plan.response_bytes / 8,
            plan.connections * REST_BYTES,
            plan.connections_at_work * WORK_BYTES,
        ];
        let parts: usize = parts.iter().sum();
        let fixed = PROCESS.least_mib + COMMIT.least_mib + REWRITING.least_mib;
        u64::try_from(parts).unwrap() + fixed * MIB
    }

    proptest! {
        #[test]
        fn s6_the_parts_are_no_more_than_the_whole(mib in 192_u64..1_048_576, files in any::<u64>()) {
            let memory = Memory::new(mib * MIB).unwrap();
            let plan = Plan::of(memory, files);
            prop_assert!(sum(&plan) <= memory.bytes() - memory.bytes() / SLACK, "{plan:?}");
            prop_assert!(sum(&Plan::of(memory, u64::MAX)) >= memory.bytes() / 8 * 6, "most of it is of use");
            // More memory is never less of anything.
            if let Some(more) = Memory::new((mib + 64) * MIB) {
                let more = Plan::of(more, files);
                prop_assert!(more.queue_bytes >= plan.queue_bytes && more.connections >= plan.connections);
            }
        }

        #[test]
        fn memory_is_written_as_it_is_read(bytes in Memory::MIN.0..=Memory::MAX.0) {
            let memory = Memory::new(bytes).unwrap();
            prop_assert_eq!(memory.to_string().parse(), Ok(memory));
        }
    }

    /// Whatever is allowed must be possible: one of the largest of each kind fits in the least memory.
    #[test]
    fn s6_the_largest_of_everything_fits_in_the_least_memory() {
        use millstream_wire::limits::{GET_RECORDS_MAX_BYTES, PUT_RECORDS_MAX_BYTES};
        let plan = Plan::of(Memory::MIN, u64::MAX);
        let http = HttpConfig::new(
            "000000000000".parse().unwrap(),
            "us-east-1".parse().unwrap(),
        );
        assert!(plan.request_bytes >= HttpConfig::request_bytes(http.max_body_bytes));
        assert!(plan.queue_bytes >= PUT_RECORDS_MAX_BYTES + 500 * 512);
        // A page goes on to the end of the run that fills it, which may be one record of ten mebibytes.
        assert!(plan.read_bytes >= 2 * GET_RECORDS_MAX_BYTES);
        assert!(plan.response_bytes >= GET_RECORDS_MAX_BYTES / 3 * 4 + 10_000 * 512);
        assert!(plan.segment_runs >= 32_768 && plan.connections >= 512);
    }

    #[test]
    fn ten_thousand_connections_fit_in_the_default() {
        let plan = Plan::of(Memory::default(), u64::MAX);
        assert!(plan.connections >= 10_000, "{plan:?}");
        assert_eq!(Plan::of(Memory::default(), 1_024).connections, 512);
    }

    #[test]
    fn sizes_that_cannot_be_are_refused_with_the_range() {
        for (text, mib) in [
            ("512MiB", 512),
            ("2GiB", 2_048),
            ("1 GiB", 1_024),
            ("268435456", 256),
        ] {
            assert_eq!(text.parse(), Ok(Memory(mib * MIB)), "{text}");
        }
        for text in [
            "",
            "512",
            "512MB",
            "-1GiB",
            "191MiB",
            "2TiB",
            "99999999999999TiB",
            "GiB",
        ] {
            let error = text.parse::<Memory>().unwrap_err();
            assert!(error.contains("192MiB to 1048576MiB"), "{error}");
        }
    }
}
