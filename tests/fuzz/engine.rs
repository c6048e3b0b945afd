//! A campaign against one decoder: inputs made from its seeds and from whatever it answered in a new way, one after the other, until so many were tried or the
//! time is over.
//!
//! There is no instrumentation: an input is worth keeping when the *shape* of what came out is new, which is an error's text without its numbers and
//! quotations, or what else the target makes of its answer. A panic, in whatever thread, or an input that takes more than a second of the processor is a crash; it is made
//! smaller, and told as a byte string to be pasted into a unit test.

use crate::mutate::{Material, mutate};
use std::collections::BTreeSet;
use std::fmt::{self, Write};
use std::hash::{DefaultHasher, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, Once, PoisonError};
use std::time::Duration;

use rustix::time::ClockId;
use tokio::time::Instant;

/// Inputs that are kept at most.
const CORPUS_MAX: usize = 4096;
/// An input may take so much of the processor's time.
const EXECUTION_MAX: Duration = Duration::from_secs(1);
/// Attempts to make a crash smaller.
const SHRINKS_MAX: usize = 2000;

/// A decoder under test.
pub(crate) trait Target {
    /// Inputs that are right.
    fn seeds(&self) -> Vec<Vec<u8>>;
    /// What the format is made of.
    fn tokens(&self) -> &'static [&'static [u8]] {
        &[]
    }
    /// Puts checksums right, so that what is behind them is reached. Most inputs go through it, not all.
    fn mend(&mut self, _input: &mut Vec<u8>) {}
    /// Decodes; gives the shape of what came out. It panics where what came out breaks a promise.
    fn run(&mut self, input: &[u8]) -> u64;
}

/// When a campaign ends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) executions: u64,
    pub(crate) time: Duration,
}

/// What a campaign did.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Report {
    pub(crate) executions: u64,
    pub(crate) shapes: usize,
    pub(crate) took: Duration,
    pub(crate) slowest: Duration,
}

/// An input that a decoder did not survive.
#[derive(Debug)]
pub(crate) struct Crash {
    pub(crate) input: Vec<u8>,
    pub(crate) what: &'static str,
}

impl fmt::Display for Crash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} bytes, b\"{}\"",
            self.what,
            self.input.len(),
            self.input.escape_ascii()
        )
    }
}

/// Panics of any thread.
static PANICS: AtomicU64 = AtomicU64::new(0);

fn count_panics() {
    static HOOKED: Once = Once::new();
    HOOKED.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            // The first says where; those of the attempts to make it smaller say the same.
            if PANICS.fetch_add(1, Ordering::SeqCst) == 0 {
                usual(panic);
            }
        }));
    });
}

/// Runs a campaign. One at a time in a process: whose a panic of another thread is cannot be told.
pub(crate) fn run(target: &mut dyn Target, limits: Limits, seed: u64) -> Result<Report, Crash> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    count_panics();
    let mut random = fastrand::Rng::with_seed(seed);
    let mut corpus = target.seeds();
    let (mut shapes, mut report) = (BTreeSet::new(), Report::default());
    let began = Instant::now();
    for input in corpus.clone() {
        shapes.insert(execute(target, &input, &mut report)?);
    }
    while report.executions < limits.executions && began.elapsed() < limits.time {
        let mut input = random.choice(&corpus).cloned().unwrap_or_default();
        let other = random.choice(&corpus).cloned().unwrap_or_default();
        let material = Material {
            tokens: target.tokens(),
            other: &other,
        };
        mutate(&mut input, material, &mut random);
        if random.u8(0..8) > 0 {
            target.mend(&mut input);
        }
        let shape = execute(target, &input, &mut report)?;
        if shapes.insert(shape) {
            match corpus.len() {
                CORPUS_MAX => corpus[random.usize(0..CORPUS_MAX)] = input,
                _ => corpus.push(input),
            }
        }
    }
    report.shapes = shapes.len();
    report.took = began.elapsed();
    Ok(report)
}

fn execute(target: &mut dyn Target, input: &[u8], report: &mut Report) -> Result<u64, Crash> {
    let began = processor_time();
    let Some(shape) = survives(target, input) else {
        return Err(Crash {
            input: shrink(target, input),
            what: "it panicked",
        });
    };
    let took = processor_time().saturating_sub(began);
    if took > EXECUTION_MAX {
        return Err(Crash {
            input: input.to_vec(),
            what: "it took more than a second of processor time",
        });
    }
    report.executions += 1;
    report.slowest = report.slowest.max(took);
    Ok(shape)
}

/// What the process has taken so far: time that it was stopped, or others had the processor, is no fault of an input.
fn processor_time() -> Duration {
    let taken = rustix::time::clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(taken).unwrap_or_default()
}

/// The shape of what came out, unless something panicked.
fn survives(target: &mut dyn Target, input: &[u8]) -> Option<u64> {
    let before = PANICS.load(Ordering::SeqCst);
    let shape = catch_unwind(AssertUnwindSafe(|| target.run(input))).ok()?;
    (PANICS.load(Ordering::SeqCst) == before).then_some(shape)
}

/// The smallest part of an input found that panics as well.
fn shrink(target: &mut dyn Target, input: &[u8]) -> Vec<u8> {
    let mut smallest = input.to_vec();
    let mut span = smallest.len().div_ceil(2);
    let mut tried = 0;
    while span > 0 {
        let mut at = 0;
        while at < smallest.len() && tried < SHRINKS_MAX {
            tried += 1;
            let mut less = smallest.clone();
            less.drain(at..(at + span).min(smallest.len()));
            match survives(target, &less) {
                None => smallest = less,
                Some(_) => at += span,
            }
        }
        span /= 2;
    }
    smallest
}

/// What is left of an answer when its numbers and what it quotes are taken out.
#[derive(Default)]
struct Shape {
    hasher: DefaultHasher,
    quoted: Option<char>,
    was_digit: bool,
}

impl Write for Shape {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            match (self.quoted, character) {
                (Some(quote), _) if quote == character => self.quoted = None,
                (Some(_), _) => {}
                (None, '"' | '\'' | '`') => self.quoted = Some(character),
                (None, '0'..='9') if self.was_digit => {}
                (None, '0'..='9') => self.hasher.write_u8(b'0'),
                (None, _) => self.hasher.write_u32(character.into()),
            }
            self.was_digit = character.is_ascii_digit();
        }
        Ok(())
    }
}

/// The shape of a text.
pub(crate) fn shape(text: impl fmt::Display) -> u64 {
    let mut shape = Shape::default();
    // A hasher takes whatever is written to it.
    let _ = write!(shape, "{text}");
    shape.hasher.finish()
}

/// The shape of an answer or an error.
pub(crate) fn outcome<T, E: fmt::Display>(
    result: &Result<T, E>,
    ok: impl FnOnce(&T) -> u64,
) -> u64 {
    match result {
        Ok(value) => ok(value),
        Err(error) => shape(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Refuses what does not begin right, and has a bug behind that.
    struct Buggy {
        slow: bool,
    }

    impl Target for Buggy {
        fn seeds(&self) -> Vec<Vec<u8>> {
            vec![b"0000 0000".to_vec()]
        }

        fn tokens(&self) -> &'static [&'static [u8]] {
            &[b"magic"]
        }

        fn run(&mut self, input: &[u8]) -> u64 {
            if !input.starts_with(b"magic") {
                return 0;
            }
            let begins = input.get(5..7) == Some(b"42");
            assert!(!begins, "a bug");
            if self.slow {
                let until = processor_time() + EXECUTION_MAX * 2;
                while processor_time() < until {}
            }
            u64::from(input.get(5) == Some(&b'4')) + 1
        }
    }

    const ENOUGH: Limits = Limits {
        executions: 2_000_000,
        time: Duration::from_mins(1),
    };

    /// Goal: a bug behind two conditions is found, step by step, and told as small as it is.
    #[test]
    fn a_bug_is_found_and_made_small() {
        let crash = run(&mut Buggy { slow: false }, ENOUGH, 1).unwrap_err();
        assert_eq!(crash.input, b"magic42");
        assert!(
            crash.to_string().ends_with("7 bytes, b\"magic42\""),
            "{crash}"
        );
    }

    #[test]
    fn what_never_ends_is_a_crash() {
        let crash = run(&mut Buggy { slow: true }, ENOUGH, 1).unwrap_err();
        assert_eq!(crash.what, "it took more than a second of processor time");
    }

    #[test]
    fn a_shape_has_neither_numbers_nor_quotations() {
        let one = shape("byte 17 of 'abc' is \"x\"");
        assert_eq!(one, shape("byte 4711 of '' is \"yz\""));
        assert_ne!(one, shape("byte 17 in 'abc' is \"x\""));
    }
}
