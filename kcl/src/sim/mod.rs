//! Deterministic simulation of worker fleets: whole workers of this crate against a simulated network, stream and lease store,
//! in virtual time, with everything that goes wrong drawn from one seed; and a checker of the guarantees.
//!
//! Every simulated process has a tokio runtime and a monotonic clock of its own ([`host`]); all run on one thread, tick by tick, in
//! an order drawn from the seed. Calls are messages that belong to the [`world`] once they are sent. What processors are told and
//! what the store does is the [`history`], which [`check`] judges. A run is a function of its seed and of the code, so a
//! failure is repeated with `MILLSTREAM_SIM_SEED=<seed> cargo test -p kcl --lib sim::tests::one_seed -- --nocapture`.

mod check;
mod drive;
mod history;
mod host;
mod kinesis;
mod processor;
mod scenario;
mod settled;
mod store;
mod subscription;
#[cfg(test)]
mod tests;
mod trace;
mod trouble;
mod world;

use check::{Facts, Violation, check};
use drive::Simulation;
use scenario::Scenario;
use std::cell::Cell;

/// What one seed came to.
struct Outcome {
    facts: Facts,
    violations: Vec<Violation>,
}

fn simulate(seed: u64) -> Outcome {
    let mut simulation = Simulation::new(Scenario::draw(seed));
    simulation.run();
    Outcome::of(simulation)
}

/// The same, with what the workers say about themselves in the history.
fn listen(seed: u64) -> Outcome {
    let mut simulation = Simulation::new(Scenario::draw(seed));
    let listener = trace::Listener(simulation.world.clone());
    tracing::subscriber::with_default(listener, || simulation.run());
    Outcome::of(simulation)
}

std::thread_local! {
    static INCARNATIONS: Cell<bool> = const { Cell::new(false) };
}

/// On a thread that simulates, the number of a new run of a worker comes from the seed too.
pub(crate) fn incarnation() -> Option<u64> {
    INCARNATIONS.get().then(|| fastrand::u64(..))
}

impl Outcome {
    fn of(simulation: Simulation) -> Self {
        let facts = simulation.into_facts();
        let violations = check(&facts);
        Outcome { facts, violations }
    }

    /// What went wrong, the entries before it, and how to run it again.
    fn report(&self) -> String {
        let history = &self.facts.history;
        let mut lines = Vec::new();
        for Violation {
            guarantee,
            entry,
            what,
        } in &self.violations
        {
            lines.push(format!("\n{guarantee} violated: {what}"));
            let to = (entry + 1).min(history.entries.len());
            let shown = &history.entries[entry.saturating_sub(40)..to];
            lines.extend(shown.iter().map(|entry| history.line(entry)));
        }
        let seed = self.facts.scenario.seed;
        lines.push(format!("\n{:?}", self.facts.scenario));
        lines.push(format!("seed {seed}; again, with the whole history:"));
        lines.push(format!(
            "MILLSTREAM_SIM_SEED={seed} cargo test -p kcl --lib sim::tests::one_seed -- --nocapture"
        ));
        lines.join("\n")
    }
}
