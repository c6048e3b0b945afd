//! The thousand seeds, and that a run is a function of its seed.

use super::simulate;

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Goal: whatever happens to a fleet, K1 to K9, K12 and K13 hold. `MILLSTREAM_SIM_SEEDS` sets how many seeds,
/// `MILLSTREAM_SIM_FIRST` the first one.
#[test]
fn a_thousand_seeds_keep_every_guarantee() {
    let first = setting("MILLSTREAM_SIM_FIRST").unwrap_or(0);
    let seeds = setting("MILLSTREAM_SIM_SEEDS").unwrap_or(50);
    let mut failed = Vec::new();
    for seed in first..first + seeds {
        let outcome = simulate(seed);
        if !outcome.violations.is_empty() {
            let names: Vec<_> = outcome.violations.iter().map(|v| v.guarantee).collect();
            println!("seed {seed}: {names:?}");
            failed.push(outcome);
        }
    }
    println!("{seeds} seeds from {first}, {} failed", failed.len());
    if let Some(outcome) = failed.first() {
        panic!(
            "{} of {seeds} seeds fail; the first:\n{}",
            failed.len(),
            outcome.report()
        );
    }
}

/// Runs the seed in `MILLSTREAM_SIM_SEED` and shows everything that happened.
#[test]
fn one_seed() {
    let Some(seed) = setting("MILLSTREAM_SIM_SEED") else {
        return;
    };
    let outcome = simulate(seed);
    for entry in &outcome.facts.history.entries {
        println!("{}", outcome.facts.history.line(entry));
    }
    assert!(outcome.violations.is_empty(), "{}", outcome.report());
}

/// Goal: a failure can be repeated. Method: some seeds twice, the second time on a thread of its own.
#[test]
fn a_run_is_a_function_of_its_seed() {
    for seed in 0..8 {
        let here = simulate(seed).facts.history.fingerprint();
        let there = std::thread::spawn(move || simulate(seed).facts.history.fingerprint());
        assert_eq!(here, there.join().unwrap(), "seed {seed}");
    }
}
