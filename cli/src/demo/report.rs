//! The table at the end of the demo, on standard output.

use crate::demo::input::Input;
use crate::demo::stage::Outcome;
use crate::demo::verify::{Check, count, seconds};
use std::io::{self, Write};

/// Prints what was claimed, what was found, and who did the work.
pub(crate) fn print(
    input: &Input,
    outcome: &Outcome,
    checks: &[Check],
    elapsed_ms: u64,
) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let lines = count(input.lines.len());
    writeln!(
        out,
        "\nMillstream demo: {}, {lines} records, {}\n",
        input.name,
        seconds(elapsed_ms)
    )?;
    work(&mut out, outcome)?;
    writeln!(out)?;
    verdict(&mut out, checks)?;
    let ended = if checks.iter().all(|check| check.holds) {
        "Everything holds: no record was lost, altered or processed out of order."
    } else {
        "NOT everything holds: see the rows marked FAILED."
    };
    writeln!(out, "\n{ended}")?;
    out.flush()
}

fn work(out: &mut impl Write, outcome: &Outcome) -> io::Result<()> {
    writeln!(
        out,
        "  {:<10} {:<22} {:>10} {:>12}",
        "worker", "shard", "processed", "redelivered"
    )?;
    let number = |number: u64| count(usize::try_from(number).unwrap_or(usize::MAX));
    let mut processed = 0;
    let mut redelivered = 0;
    for share in &outcome.shares {
        processed += share.processed;
        redelivered += share.redelivered;
        let (mine, again) = (number(share.processed), number(share.redelivered));
        writeln!(
            out,
            "  {:<10} {:<22} {mine:>10} {again:>12}",
            share.worker, share.shard
        )?;
    }
    let (all, again) = (number(processed), number(redelivered));
    writeln!(out, "  {:<10} {:<22} {all:>10} {again:>12}", "together", "")?;
    let put_again = count(outcome.ledger.uncertain.len());
    let throttled = number(outcome.ledger.throttled);
    writeln!(
        out,
        "  put again because the answer was lost: {put_again}; refused for a moment by the limits: {throttled}"
    )
}

fn verdict(out: &mut impl Write, checks: &[Check]) -> io::Result<()> {
    for check in checks {
        let mark = if check.holds { "ok" } else { "FAILED" };
        writeln!(out, "  {:<46} {:<6}  {}", check.claim, mark, check.found)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_that_does_not_hold_is_marked() {
        let check = |claim, holds| Check {
            claim,
            found: "7".into(),
            holds,
        };
        let mut out = Vec::new();
        verdict(&mut out, &[check("good", true), check("bad", false)]).unwrap();
        let text = String::from_utf8(out).unwrap();
        let words: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(words, [["good", "ok", "7"], ["bad", "FAILED", "7"]]);
    }
}
