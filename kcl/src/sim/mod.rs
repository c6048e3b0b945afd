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
        let mut text = String::new();
        let history = &self.facts.history;
        for violation in &self.violations {
            let Violation {
                guarantee,
                entry,
                what,
            } = violation;
            text += &format!("\n{guarantee} violated: {what}\n");
            let from = entry.saturating_sub(40);
            let to = (entry + 1).min(history.entries.len());
            for entry in &history.entries[from..to] {
                text += &history.line(entry);
                text.push('\n');
            }
        }
        let seed = self.facts.scenario.seed;
        text += &format!(
            "\n{:?}\nseed {seed}; again, with the whole history:\n",
            self.facts.scenario
        );
        text += &format!(
            "MILLSTREAM_SIM_SEED={seed} cargo test -p kcl --lib sim::tests::one_seed -- --nocapture\n"
        );
        text
    }
}
