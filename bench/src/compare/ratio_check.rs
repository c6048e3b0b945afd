//! `ratio-check`: whether Millstream still reaches about the share of its ceilings that is on record. Half of it is enough: machines
//! differ and drift, and this is to find what makes a server several times slower.

use super::figures::{Figure, Loading};
use super::install::Programs;
use super::results::Results;
use super::systems::System;
use super::{measure, table};
use crate::{Failure, report, runtime};
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

/// What is on record.
const RECORD: &str = "ratios.toml";
const RECORD_HEAD: &str = "\
# Shares of their ceilings that Millstream's figures reached when this was written, by `millstream-bench ratio-check --record`, rounded down.
# CI fails when one falls below half of what is written here.
";
/// What is checked, in the order in which it is measured.
const FIGURES: [Figure; 3] = [Figure::Put64, Figure::BatchJson, Figure::GetTail];
/// Who is measured: a figure's ceiling is one of the others.
const SYSTEMS: [System; 3] = [System::Millstream, System::Durable, System::Get];
/// The best of so many counts: what disturbs a round makes it slower only.
const ROUNDS: u32 = 2;
/// Rounds more of a figure that falls short, in each of which it may prove that it does not.
const ROUNDS_MORE: u32 = 3;
const LOADING: Loading = Loading {
    seconds: 2,
    warm_up: 1,
};
/// Of what is on record, at least.
const ENOUGH: f64 = 0.5;

/// What is checked.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// Where data are kept while a load runs.
    #[arg(long, default_value = "target/ratio-check")]
    directory: PathBuf,
    /// The server's program; otherwise it is built.
    #[arg(long)]
    millstream: Option<PathBuf>,
    /// Writes what is measured to the record instead of comparing it.
    #[arg(long)]
    record: bool,
}

/// Shares by the name of their figure.
type Shares = BTreeMap<String, f64>;

/// Measures for a minute or two, and fails if a share is too small.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(RECORD);
    let recorded = if arguments.record {
        Shares::new()
    } else {
        let recorded = std::fs::read_to_string(&path);
        toml::from_str(&recorded.map_err(|error| format!("{}: {error}", path.display()))?)?
    };
    let shares = runtime(NonZeroUsize::MIN)?.block_on(shares(arguments, &recorded))?;
    if arguments.record {
        let lines = shares
            .iter()
            .map(|(name, share)| format!("{name} = {:.2}\n", rounded_down(*share)));
        std::fs::write(path, RECORD_HEAD.to_owned() + &lines.collect::<String>())?;
        return Ok(());
    }
    let failures = failures(&recorded, &shares);
    for failure in &failures {
        report::say(failure);
    }
    if failures.is_empty() {
        return Ok(());
    }
    Err("Millstream got much slower, or this machine was busy: run it again alone".into())
}

/// What is reached now; figures that fall short of half of what is on record are measured more often.
async fn shares(arguments: &Arguments, recorded: &Shares) -> Result<Shares, Failure> {
    std::fs::create_dir_all(&arguments.directory)?;
    let directory = arguments.directory.canonicalize()?;
    let millstream = arguments.millstream.as_deref();
    let programs = Programs::get(&SYSTEMS, millstream, &directory).await?;
    let mut results = Results::default();
    for _ in 0..ROUNDS {
        for figure in FIGURES {
            add_round(&mut results, figure, &programs, &directory).await?;
        }
    }
    let mut shares = Shares::new();
    for figure in FIGURES {
        let ceiling = figure.ceiling().ok_or("a figure without a ceiling")?;
        let name = figure.name()?;
        let best = |results: &Results| results.share(System::Millstream, ceiling, figure);
        let least = recorded.get(&name).map_or(0.0, |share| share * ENOUGH);
        for _ in 0..ROUNDS_MORE {
            if best(&results).is_some_and(|share| share.max >= least) {
                break;
            }
            add_round(&mut results, figure, &programs, &directory).await?;
        }
        let share = best(&results).ok_or("nothing was measured")?;
        let rate = |system| {
            let rate = results.spread(system, figure, |round| figure.rate(round));
            rate.map_or_else(String::new, table::spread)
        };
        report::say(&format!(
            "{name}: {:.0} % of its ceiling ({} of {})",
            share.max * 100.0,
            rate(System::Millstream),
            rate(ceiling)
        ));
        shares.insert(name, share.max);
    }
    Ok(shares)
}

/// Measures a figure once more, of Millstream and of its ceiling.
async fn add_round(
    results: &mut Results,
    figure: Figure,
    programs: &Programs,
    directory: &Path,
) -> Result<(), Failure> {
    for system in SYSTEMS {
        if system == System::Millstream || figure.ceiling() == Some(system) {
            let (round, _) = measure(figure, system, programs, directory, LOADING).await?;
            results.add(system, figure, Ok(round));
        }
    }
    Ok(())
}

/// To a twentieth, and no more than all: rounds differ by as much.
fn rounded_down(share: f64) -> f64 {
    (share.min(1.0) * 20.0).floor() / 20.0
}

/// What is wrong; nothing, if every share on record was measured and is large enough.
fn failures(recorded: &Shares, measured: &Shares) -> Vec<String> {
    let check = |(name, recorded): (&String, &f64)| match measured.get(name) {
        None => Some(format!("{name}: {RECORD} has it, but it is not measured")),
        Some(measured) if *measured >= recorded * ENOUGH => None,
        Some(measured) => Some(format!(
            "{name}: {:.0} % of its ceiling, and {:.0} % are on record, of which half are required",
            measured * 100.0,
            recorded * 100.0
        )),
    };
    let mut failures: Vec<String> = recorded.iter().filter_map(check).collect();
    let unknown = measured.keys().filter(|name| !recorded.contains_key(*name));
    failures.extend(unknown.map(|name| format!("{name}: {RECORD} does not have it: --record")));
    failures
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(share: f64) -> Shares {
        FIGURES
            .iter()
            .map(|figure| (figure.name().unwrap(), share))
            .collect()
    }

    #[test]
    fn half_of_the_record_is_enough_and_less_is_not() {
        assert_eq!(failures(&shares(0.8), &shares(0.4)), Vec::<String>::new());
        assert_eq!(failures(&shares(0.8), &shares(0.39)).len(), FIGURES.len());
    }

    #[test]
    fn what_is_only_measured_or_only_on_record_is_a_failure() {
        assert_eq!(failures(&shares(0.8), &Shares::new()).len(), FIGURES.len());
        assert_eq!(failures(&Shares::new(), &shares(0.8)).len(), FIGURES.len());
    }

    /// Goal: CI compares with something. Method: the file in the tree is read as CI reads it.
    #[test]
    fn the_record_has_every_figure() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(RECORD);
        let recorded: Shares = toml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        assert_eq!(failures(&recorded, &recorded), Vec::<String>::new());
        assert_eq!(recorded.len(), FIGURES.len());
    }
}
