//! The table: what is asked for, and what was reached.

use crate::measure::Spread;
use std::fmt::Write;

/// Units of times.
const TIMES: [&str; 3] = ["ms", "s", "s a GiB"];

/// A line of the table.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    pub(super) what: String,
    pub(super) target: String,
    pub(super) reached: String,
    /// Whether the target was reached; nothing where there is none.
    pub(super) holds: Option<bool>,
    /// Of a time or a change: up to the machine as well.
    pub(super) is_timed: bool,
}

impl Row {
    /// A figure that should be at most so much.
    pub(super) fn at_most(what: &str, (limit, unit): (f64, &str), reached: f64) -> Row {
        Row {
            what: what.to_owned(),
            target: format!("<= {} {unit}", figure(limit)),
            reached: format!("{} {unit}", figure(reached)),
            holds: Some(reached <= limit),
            is_timed: TIMES.contains(&unit),
        }
    }

    /// Whether a target is missed that no slow machine excuses: of a size or a count.
    pub(super) fn fails(&self) -> bool {
        self.holds == Some(false) && !self.is_timed
    }

    /// With a note behind what was reached.
    pub(super) fn noting(mut self, note: &str) -> Row {
        self.reached = format!("{} ({note})", self.reached);
        self
    }

    /// A figure without a target.
    pub(super) fn told(what: &str, reached: String) -> Row {
        Row {
            what: what.to_owned(),
            target: String::new(),
            reached,
            holds: None,
            is_timed: false,
        }
    }
}

/// One figure of two states, measured in turns.
#[derive(Debug, Clone, Copy)]
pub(super) struct Compared<'a> {
    pub(super) what: &'a str,
    pub(super) unit: &'a str,
    pub(super) before: &'a [f64],
    pub(super) after: &'a [f64],
    /// More is better, as with throughput; otherwise less is.
    pub(super) more_is_better: bool,
    /// By how much `after` may be worse, percent.
    pub(super) within_percent: f64,
}

impl Compared<'_> {
    /// By how much the later state is worse, percent: the median over the rounds, each of which compares its own two.
    fn worse_percent(&self) -> Option<f64> {
        let rounds = self.before.iter().zip(self.after);
        let worse = rounds.map(|(before, after)| {
            let more = (after / before - 1.0) * 100.0;
            if self.more_is_better { -more } else { more }
        });
        Spread::of(worse).map(|spread| spread.median)
    }

    pub(super) fn row(&self) -> Row {
        let median =
            |values: &[f64]| Spread::of(values.iter().copied()).map_or(f64::NAN, |s| s.median);
        let worse = self.worse_percent().unwrap_or(f64::NAN);
        let mut reached = String::new();
        // Writing to a string does not fail.
        let _ = write!(
            reached,
            "{} -> {} {}, {worse:+.0} %",
            figure(median(self.before)),
            figure(median(self.after)),
            self.unit,
        );
        Row {
            what: self.what.to_owned(),
            target: format!("worse by <= {} %", figure(self.within_percent)),
            reached,
            holds: Some(worse <= self.within_percent),
            is_timed: true,
        }
    }
}

fn figure(value: f64) -> String {
    match value.abs() {
        0.0..10.0 if value.fract().abs() > 0.001 => format!("{value:.2}"),
        0.0..100.0 if value.fract().abs() > 0.001 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// The lines of a Markdown table.
pub(super) fn markdown(rows: &[Row]) -> Vec<String> {
    let mut lines = vec![
        "| what | target | reached | |".to_owned(),
        "|---|---|---|---|".to_owned(),
    ];
    lines.extend(rows.iter().map(|row| {
        let holds = match row.holds {
            Some(true) => "yes",
            Some(false) => "**no**",
            None => "",
        };
        format!(
            "| {} | {} | {} | {holds} |",
            row.what, row.target, row.reached
        )
    }));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_worse_is_told_by_rounds_and_in_the_right_direction() {
        let compared = Compared {
            what: "puts",
            unit: "/s",
            before: &[100.0, 50.0, 110.0],
            after: &[100.0, 40.0, 100.0],
            more_is_better: true,
            within_percent: 10.0,
        };
        // 0, 20 and 9 percent less.
        assert!((compared.worse_percent().unwrap() - 100.0 / 11.0).abs() < 1e-9);
        assert_eq!(compared.row().reached, "100 -> 100 /s, +9 %");
        let latency = Compared {
            more_is_better: false,
            ..compared
        };
        assert!(latency.worse_percent().unwrap() < 0.0);
        assert_eq!(latency.row().holds, Some(true));
        let worse = Compared {
            after: &[80.0, 40.0, 70.0],
            ..compared
        };
        assert_eq!(worse.row().holds, Some(false));
    }

    #[test]
    fn only_sizes_and_counts_fail_whatever_the_machine() {
        assert!(Row::at_most("resident", (20.0, "MiB"), 21.0).fails());
        assert!(!Row::at_most("resident", (20.0, "MiB"), 20.0).fails());
        assert!(!Row::at_most("start", (50.0, "ms"), 60.0).fails());
        let worse = Compared {
            what: "p99",
            unit: "us",
            before: &[1.0],
            after: &[2.0],
            more_is_better: false,
            within_percent: 20.0,
        };
        assert_eq!(worse.row().holds, Some(false));
        assert!(!worse.row().fails());
    }

    #[test]
    fn a_row_says_whether_its_target_holds() {
        let rows = [
            Row::at_most("idle", (20.0, "MiB"), 13.456),
            Row::at_most("start", (50.0, "ms"), 51.0),
            Row::told("records", "10".to_owned()),
        ];
        let lines = markdown(&rows);
        assert_eq!(lines[2], "| idle | <= 20 MiB | 13.5 MiB | yes |");
        assert_eq!(lines[3], "| start | <= 50 ms | 51 ms | **no** |");
        assert_eq!(lines[4], "| records |  | 10 |  |");
    }
}
