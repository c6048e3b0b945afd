//! What was measured, round by round, and what it comes to.

use super::figures::Figure;
use super::systems::{Start, System};
use crate::measure::{Latency, Round, Spread};
use serde::Serialize;
use std::collections::BTreeMap;

/// Everything that was measured.
#[derive(Debug, Default)]
pub(super) struct Results {
    /// By round; nothing where it failed.
    cells: BTreeMap<(System, Figure), Vec<Option<Round>>>,
    /// Why the last that failed did.
    failures: BTreeMap<(System, Figure), String>,
    starts: BTreeMap<System, Vec<Start>>,
    /// One raw write and its sync.
    pub(super) raw: Vec<Latency>,
}

/// One measurement, as JSON tells it.
#[derive(Debug, Serialize)]
struct Cell<'r> {
    system: System,
    figure: Figure,
    rounds: &'r [Option<Round>],
    failure: Option<&'r str>,
}

impl Results {
    /// One more round of a figure.
    pub(super) fn add(&mut self, system: System, figure: Figure, round: Result<Round, String>) {
        let cell = (system, figure);
        let rounds = self.cells.entry(cell).or_default();
        match round {
            Ok(round) => rounds.push(Some(round)),
            Err(failure) => {
                rounds.push(None);
                self.failures.insert(cell, failure);
            }
        }
    }

    /// One more start of a system.
    pub(super) fn started(&mut self, system: System, start: Start) {
        self.starts.entry(system).or_default().push(start);
    }

    /// The rounds of a figure that succeeded.
    fn rounds(&self, system: System, figure: Figure) -> impl Iterator<Item = &Round> {
        let rounds = self.cells.get(&(system, figure));
        rounds.into_iter().flatten().flatten()
    }

    /// A value of a figure over its rounds.
    pub(super) fn spread(
        &self,
        system: System,
        figure: Figure,
        value: impl Fn(&Round) -> f64,
    ) -> Option<Spread> {
        Spread::of(self.rounds(system, figure).map(value))
    }

    /// What a system reaches of another, each round compared with the same round of the other: the machine's speed drifts.
    pub(super) fn share(&self, system: System, of: System, figure: Figure) -> Option<Spread> {
        let own = self.cells.get(&(system, figure))?.iter();
        let others = self.cells.get(&(of, figure))?.iter();
        let shares = own.zip(others).filter_map(|(own, other)| {
            let (own, other) = (figure.rate(own.as_ref()?), figure.rate(other.as_ref()?));
            (other > 0.0).then(|| own / other)
        });
        Spread::of(shares)
    }

    /// Why a figure of a system is not there.
    pub(super) fn failure(&self, system: System, figure: Figure) -> Option<&str> {
        self.failures.get(&(system, figure)).map(String::as_str)
    }

    /// All that failed.
    pub(super) fn failures(&self) -> impl Iterator<Item = (System, Figure, &str)> {
        let failures = self.failures.iter();
        failures.map(|((system, figure), failure)| (*system, *figure, failure.as_str()))
    }

    /// A value of a system's starts.
    pub(super) fn start(&self, system: System, value: impl Fn(&Start) -> f64) -> Option<Spread> {
        let starts = self.starts.get(&system).into_iter().flatten();
        Spread::of(starts.map(value))
    }

    /// Most that a system held in memory under any load.
    pub(super) fn peak_mib(&self, system: System) -> Option<f64> {
        let own = self.cells.iter().filter(|((who, _), _)| *who == system);
        let rounds = own.flat_map(|(_, rounds)| rounds.iter().flatten());
        let peaks = rounds.filter_map(|round| round.server.map(|server| server.peak_mib));
        peaks.max_by(f64::total_cmp)
    }

    /// Whether a system was measured at all.
    pub(super) fn has(&self, system: System) -> bool {
        self.cells.keys().any(|(who, _)| *who == system)
    }

    /// A JSON object.
    pub(super) fn json(&self) -> serde_json::Value {
        let cells = self.cells.iter().map(|((system, figure), rounds)| Cell {
            system: *system,
            figure: *figure,
            rounds,
            failure: self.failure(*system, *figure),
        });
        let starts = self.starts.iter();
        let starts = starts
            .map(|(system, starts)| serde_json::json!({ "system": system, "starts": starts }));
        serde_json::json!({
            "figures": cells.collect::<Vec<_>>(),
            "starts": starts.collect::<Vec<_>>(),
            "raw_write_and_sync": self.raw,
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::measure::Server;

    /// A round in which all values follow from one.
    pub(crate) fn round(value: f64) -> Round {
        let us = 1e6 / value;
        Round {
            requests: 1,
            records: 1,
            requests_per_s: value,
            records_per_s: value,
            mb_per_s: value / 1000.0,
            latency: Latency {
                p50_us: us,
                p90_us: us,
                p99_us: us * 2.0,
                p999_us: us,
                max_us: us,
            },
            client_cpu_us: 10.0,
            server: Some(Server {
                cpu_us: 20.0,
                resident_mib: 30.0,
                peak_mib: value / 100.0,
            }),
        }
    }

    /// Goal: a share compares what was measured in the same minutes. Method: the machine halves its speed between rounds.
    #[test]
    fn shares_are_of_the_same_round() {
        let mut results = Results::default();
        for speed in [2.0, 1.0, 4.0] {
            let (ours, theirs) = (round(600.0 * speed), round(1000.0 * speed));
            results.add(System::Millstream, Figure::Put16, Ok(ours));
            results.add(System::Durable, Figure::Put16, Ok(theirs));
        }
        let share = results.share(System::Millstream, System::Durable, Figure::Put16);
        let share = share.unwrap();
        assert!((share.min - 0.6).abs() < 1e-9 && (share.max - 0.6).abs() < 1e-9);
    }

    #[test]
    fn a_round_that_failed_has_no_share() {
        let mut results = Results::default();
        let (system, figure) = (System::Moto, Figure::Put1);
        results.add(system, figure, Err("down".to_owned()));
        results.add(system, figure, Ok(round(500.0)));
        results.add(System::Durable, figure, Ok(round(10.0)));
        results.add(System::Durable, figure, Ok(round(1000.0)));
        let share = results.share(system, System::Durable, figure).unwrap();
        assert!((share.median - 0.5).abs() < 1e-9);
        assert_eq!(results.failure(system, figure), Some("down"));
        assert_eq!(results.share(System::None, System::Durable, figure), None);
        assert_eq!(results.peak_mib(system), Some(5.0));
    }
}
