//! Fuzzes every decoder that reads bytes of strangers: requests, base64, CBOR, event streams, the log's files,
//! iterators, aggregates, positions, names, the configuration, signatures and the rows of lease tables.
//!
//! ```text
//! cargo run --release -p millstream-tests --bin fuzz -- [--executions N] [--seconds S] [--only NAME] [--seed N]
//! ```
//!
//! Each target is run until it had so many inputs or its time is over. As a test (`cargo test -p millstream-tests --bin fuzz`) each has a second. A crash
//! is told as a byte string: mend it, and add it to the unit tests of the decoder.

mod engine;
mod mutate;
mod targets;

use engine::Limits;
use std::process::ExitCode;
use std::time::Duration;
use targets::{NAMES, make};

/// What is asked for on the command line.
#[derive(Debug)]
struct Wishes {
    limits: Limits,
    only: Option<String>,
    seed: u64,
}

impl Wishes {
    fn read(mut arguments: impl Iterator<Item = String>) -> Result<Wishes, String> {
        let mut wishes = Wishes {
            limits: Limits {
                executions: u64::MAX,
                time: Duration::from_mins(1),
            },
            only: None,
            seed: fastrand::u64(..),
        };
        let mut has_time = false;
        while let Some(name) = arguments.next() {
            let value = arguments
                .next()
                .ok_or_else(|| format!("{name} needs a value"))?;
            let number = || {
                value
                    .parse::<u64>()
                    .map_err(|error| format!("{name} {value}: {error}"))
            };
            match name.as_str() {
                "--executions" => {
                    wishes.limits.executions = number()?;
                    if !has_time {
                        wishes.limits.time = Duration::MAX;
                    }
                }
                "--seconds" => {
                    wishes.limits.time = Duration::from_secs(number()?);
                    has_time = true;
                }
                "--seed" => wishes.seed = number()?,
                "--only" if NAMES.contains(&value.as_str()) => wishes.only = Some(value),
                "--only" => return Err(format!("no target {value}; there are {NAMES:?}")),
                _ => return Err(format!("{name} is no option")),
            }
        }
        Ok(wishes)
    }
}

/// The most memory that this process has had, MiB; 0 where that is not told.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = peak.and_then(|line| line.trim().strip_suffix(" kB"));
    kib.and_then(|kib| kib.trim().parse::<u64>().ok())
        .unwrap_or_default()
        / 1024
}

fn main() -> ExitCode {
    let wishes = match Wishes::read(std::env::args().skip(1)) {
        Ok(wishes) => wishes,
        Err(what) => {
            eprintln!("{what}");
            return ExitCode::from(2);
        }
    };
    println!("seed {}", wishes.seed);
    let mut status = ExitCode::SUCCESS;
    for name in NAMES {
        if wishes.only.as_deref().is_some_and(|only| only != name) {
            continue;
        }
        match engine::run(&mut *make(name), wishes.limits, wishes.seed) {
            Ok(report) => println!(
                "{name:16} {:>11} executions in {:.1?}, {} shapes, slowest {:.1?}, {} MiB",
                report.executions,
                report.took,
                report.shapes,
                report.slowest,
                peak_mib()
            ),
            Err(crash) => {
                println!("{name:16} CRASH, seed {}: {crash}", wishes.seed);
                status = ExitCode::FAILURE;
            }
        }
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a debug build may hold; a length that is read and believed takes more.
    const MEMORY_MAX_MIB: u64 = 1024;

    fn briefly(name: &str) {
        let limits = Limits {
            executions: u64::MAX,
            time: Duration::from_secs(1),
        };
        let seed = support::seeded(name).u64(..);
        match engine::run(&mut *make(name), limits, seed) {
            Ok(report) => println!("{report:?}"),
            Err(crash) => panic!("{name}, seed {seed}: {crash}"),
        }
        assert!(peak_mib() < MEMORY_MAX_MIB, "{} MiB", peak_mib());
    }

    macro_rules! tests {
        ($($test:ident = $name:literal,)+) => {
            $(
                #[test]
                fn $test() {
                    briefly($name);
                }
            )+

            #[test]
            fn every_target_is_a_test() {
                assert_eq!(NAMES, [$($name),+]);
            }
        };
    }

    tests! {
        s9_no_json_request_is_fatal = "json-requests",
        s9_no_cbor_request_is_fatal = "cbor-requests",
        s9_no_iterator_is_fatal = "iterators",
        s9_no_base64_is_fatal = "base64",
        s9_no_cbor_is_fatal = "cbor",
        s9_no_text_is_fatal = "texts",
        s8_no_file_of_the_log_is_fatal = "log",
        s9_no_aggregate_is_fatal = "aggregates",
        k10_no_event_stream_is_fatal = "events",
        k10_no_page_is_fatal = "pages",
        s9_no_configuration_is_fatal = "configuration",
        s9_no_signature_is_fatal = "signatures",
        k10_no_row_is_fatal = "leases",
    }

    #[test]
    fn wishes_are_read() {
        let read = |line: &str| Wishes::read(line.split_whitespace().map(str::to_owned));
        let wishes = read("--executions 5 --only log --seed 7").unwrap();
        assert_eq!((wishes.limits.executions, wishes.seed), (5, 7));
        assert_eq!(wishes.limits.time, Duration::MAX);
        assert_eq!(wishes.only.as_deref(), Some("log"));
        assert_eq!(read("--seconds 3").unwrap().limits.time.as_secs(), 3);
        for wrong in ["--seconds", "--seconds x", "--only nothing", "--more 1"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
