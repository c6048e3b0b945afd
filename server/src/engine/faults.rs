//! Faults that are asked for: a share of the calls on shards is refused as if the shard's throughput were used
//! up, so that clients can be seen to cope. Nothing of a refused call happens.

use std::fmt;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

/// A probability, 0 to 1.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Probability(f64);

impl Probability {
    /// What never happens.
    pub const NEVER: Probability = Probability(0.0);

    /// The probability, if it is one.
    pub fn new(value: f64) -> Option<Probability> {
        (0.0..=1.0).contains(&value).then_some(Probability(value))
    }
}

impl FromStr for Probability {
    type Err = String;

    fn from_str(text: &str) -> Result<Probability, String> {
        let value = text.parse().ok().and_then(Probability::new);
        value.ok_or_else(|| format!("{text:?} is no probability; expected 0.0 to 1.0"))
    }
}

impl fmt::Display for Probability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What decides which calls are refused.
#[derive(Debug)]
pub(super) struct Faults {
    probability: Probability,
    /// A std mutex around a generator: held for a draw.
    random: Mutex<fastrand::Rng>,
}

impl Default for Faults {
    fn default() -> Self {
        Faults::new(Probability::default(), 0)
    }
}

impl Faults {
    /// Refuses calls with this probability; the seed decides which.
    pub(super) fn new(probability: Probability, seed: u64) -> Faults {
        Faults {
            probability,
            random: Mutex::new(fastrand::Rng::with_seed(seed)),
        }
    }

    /// Whether the next call is refused.
    pub(super) fn strikes(&self) -> bool {
        self.probability.0 > 0.0 && self.draw(|random| random.f64() < self.probability.0)
    }

    /// Where a list of `len` records is cut, if it is: those before are taken, the others refused.
    pub(super) fn cut(&self, len: usize) -> Option<usize> {
        (len > 0 && self.strikes()).then(|| self.draw(|random| random.usize(..len)))
    }

    fn draw<T>(&self, from: impl FnOnce(&mut fastrand::Rng) -> T) -> T {
        from(&mut self.random.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probability_lies_between_0_and_1() {
        assert_eq!("0.25".parse(), Ok(Probability(0.25)));
        for text in ["-0.1", "1.1", "NaN", "inf", "", "a"] {
            assert!(text.parse::<Probability>().is_err(), "{text}");
        }
    }

    #[test]
    fn calls_are_refused_as_often_as_asked_for() {
        let faults = Faults::new(Probability(0.25), 7);
        let struck = (0..10_000).filter(|_| faults.strikes()).count();
        assert!((2_300..2_700).contains(&struck), "{struck}");
        assert!(!(0..10_000).any(|_| Faults::default().strikes()));
    }

    #[test]
    fn a_cut_leaves_less_than_all() {
        let faults = Faults::new(Probability(1.0), 7);
        let cuts: Vec<_> = (0..100).filter_map(|_| faults.cut(3)).collect();
        assert_eq!(cuts.len(), 100);
        assert!((0..3).all(|place| cuts.contains(&place)));
        assert_eq!(faults.cut(0), None);
    }
}
