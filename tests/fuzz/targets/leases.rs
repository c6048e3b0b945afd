//! Rows of the tables that workers coordinate by: anybody who can write to the database can put anything there. A line for each column: its name, the kind
//! of what it holds (`t`ext, `n`umber, `b`ytes), and that.

use crate::engine::{Target, outcome, shape};
use kcl::lease::fuzzing::{self, Cell, Cells};

pub(crate) struct Rows;

const LEASE: &str = "\
stream t arn:aws:kinesis:us-east-1:000000000000:stream/orders@1700000000000
lease_key t shardId-000000000002
lease_owner t worker-1
lease_counter n 7
wanted_by t worker-2
checkpoint t 49600000000000000000000000000000000000000000000000000001:3
pending_checkpoint t SHARD_END
pending_state b abc
owner_switches n 2
parents t [\"shardId-000000000000\",\"shardId-000000000001\"]
hash_range_start t 0
hash_range_end t 340282366920938463463374607431768211455
owned_since_ms n 1700000000000";
const NEW_LEASE: &str = "\
stream t s
lease_key t k
lease_counter n 0
checkpoint t AT_TIMESTAMP:1700000000000
owner_switches n 0
parents t []";
const WORKER: &str = "\
worker_id t worker-1
heartbeat n 5
streams t [\"s\"]
failover_ms n 10000
max_leases n 20
loads t {}
troubles t [{\"s\":\"s\",\"k\":\"shardId-000000000000\",\"w\":\"stuck\",\"ms\":5}]";
const RESET: &str = "\
number n 1
at_ms n 1700000000000
made_by t me
asked t TRIM_HORIZON
changes t [[\"s\",\"k\",\"5:7\",\"TRIM_HORIZON\",\"worker-1\"],[\"s\",\"k\",null,\"AT_SEQUENCE_NUMBER:5\",null]]";

/// The row of an input.
fn row(input: &[u8]) -> Cells {
    let mut cells = Cells::default();
    for line in input.split(|byte| *byte == b'\n') {
        let mut parts = line.splitn(3, |byte| *byte == b' ');
        let column = String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
        let (kind, value) = (parts.next(), parts.next().unwrap_or_default());
        let text = || String::from_utf8_lossy(value).into_owned();
        let cell = match kind {
            Some(b"n") => text().parse().ok().map(Cell::Number),
            Some(b"t") => Some(Cell::Text(text())),
            Some(b"b") => Some(Cell::Bytes(value.to_vec())),
            _ => None,
        };
        cells.0.extend(cell.map(|cell| (column, cell)));
    }
    cells
}

impl Target for Rows {
    fn seeds(&self) -> Vec<Vec<u8>> {
        let seeds = [LEASE, NEW_LEASE, WORKER, RESET];
        seeds.map(|row| row.as_bytes().to_vec()).to_vec()
    }

    fn tokens(&self) -> &'static [&'static [u8]] {
        &[
            b"\nparents t ",
            b"\ncheckpoint t ",
            b"\npending_checkpoint t ",
            b"\nhash_range_end t ",
            b"\nlease_counter n ",
            b"\nloads t ",
            b"\ntroubles t ",
            b"\nchanges t ",
            b"TRIM_HORIZON",
            b"LATEST",
            b"SHARD_END",
            b"AT_TIMESTAMP:",
            b"AT_SEQUENCE_NUMBER:",
            b"18446744073709551615",
            b"9223372036854775807",
            b"-9223372036854775808",
            b"340282366920938463463374607431768211456",
            b"[[[[[[[[[[[[[[[[",
            b"[\"\"]",
            b"null",
            b"\\ud800",
            b"\\u0000",
            b"1e400",
        ]
    }

    /// What is understood is written and read again.
    fn run(&mut self, input: &[u8]) -> u64 {
        let cells = row(input);
        let lease = fuzzing::lease(&cells);
        if let Ok(lease) = &lease {
            let ends = lease.hash_key_range.map(|range| (range.start, range.end));
            assert!(ends.is_none_or(|(start, end)| start <= end), "{lease:?}");
            let again = fuzzing::lease(&fuzzing::cells_of(lease));
            assert_eq!(again.as_ref(), Ok(lease));
        }
        // What an error quotes makes no new shape.
        let lease = lease.map_err(|error| {
            error
                .split('"')
                .next()
                .map(str::to_owned)
                .unwrap_or_default()
        });
        let lease = outcome(&lease, |lease| {
            let parts = [
                lease.owner.is_some(),
                lease.pending.is_some(),
                lease.hash_key_range.is_some(),
                lease.parents.is_empty(),
            ];
            let checkpoint = lease.checkpoint.to_string();
            let kind = checkpoint.split(':').next().unwrap_or_default();
            shape(format_args!("{parts:?} {kind}"))
        });
        let worker = fuzzing::worker(&cells);
        let worker = outcome(&worker, |worker| {
            let profile = &worker.profile;
            let parts = [
                profile.streams.is_some(),
                profile.failover.is_some(),
                worker.loads.is_empty(),
            ];
            shape(format_args!("{parts:?}"))
        });
        let reset = fuzzing::reset_note(&cells);
        let reset = outcome(&reset, |note| shape(note.changes.len().min(3) % 2 == 1));
        let troubles =
            fuzzing::troubles(&cells).map_or(0, |(_, all)| 1 + u64::from(all.is_empty()));
        let since = u64::from(fuzzing::owned_since(&cells).is_some());
        lease ^ worker.rotate_left(7) ^ reset.rotate_left(14) ^ (troubles << 2 | since)
    }
}
