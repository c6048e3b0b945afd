//! Which part of a batch to deliver next, when records of it fail: a stack of ranges (pure).
//!
//! Invariant: the parts on the stack, the next one first, tile what of the batch is not handled yet, in order (K4, K6).

use std::ops::Range;

/// What is left of a batch.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The next part is the last.
    parts: Vec<Part>,
}

/// Records that are delivered in one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    /// Indexes in the batch; never empty.
    pub(crate) records: Range<usize>,
    /// How often they have failed, larger parts that they were in counted.
    pub(crate) failures: u32,
}

impl Plan {
    /// A batch, to be delivered whole.
    pub(crate) fn whole(records: usize) -> Plan {
        let whole = Part {
            records: 0..records,
            failures: 0,
        };
        Plan {
            parts: (records > 0).then_some(whole).into_iter().collect(),
        }
    }

    /// The part to deliver next.
    pub(crate) fn next(&self) -> Option<&Part> {
        self.parts.last()
    }

    /// Everything before this index is handled: processed, or given up.
    pub(crate) fn handled_to(&mut self, index: usize) {
        while self
            .parts
            .pop_if(|part| part.records.end <= index)
            .is_some()
        {}
        if let Some(part) = self.parts.last_mut() {
            part.records.start = part.records.start.max(index);
        }
    }

    /// The batch has taken in so many records: the last part has them.
    pub(crate) fn grow(&mut self, records: usize) {
        if let Some(last) = self.parts.first_mut() {
            last.records.end += records;
        }
    }

    /// The next part has failed so often by now, and is to be delivered again.
    pub(crate) fn retry(&mut self, failures: u32) {
        if let Some(part) = self.parts.last_mut() {
            part.failures = failures;
        }
    }

    /// The next part has failed so often by now: halve it. `false`: it is a single record.
    pub(crate) fn split(&mut self, failures: u32) -> bool {
        let Some(Part { records, .. }) = self.parts.pop_if(|part| part.records.len() > 1) else {
            return false;
        };
        let middle = records.start + records.len() / 2;
        for records in [middle..records.end, records.start..middle] {
            self.parts.push(Part { records, failures });
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// What came of a batch: which records were processed and given up, in which order, and the calls it took.
    #[derive(Debug, Default)]
    struct Run {
        handled: Vec<(usize, bool)>,
        calls: usize,
        most_failures: u32,
    }

    /// Delivers by the plan; a call fails if `fails` says so.
    fn run(records: usize, mut fails: impl FnMut(&Range<usize>) -> bool) -> Run {
        let (mut plan, mut run) = (Plan::whole(records), Run::default());
        while let Some(part) = plan.next().cloned() {
            run.calls += 1;
            let failed = fails(&part.records);
            if failed {
                run.most_failures = run.most_failures.max(part.failures + 1);
                if plan.split(part.failures + 1) {
                    continue;
                }
            }
            plan.handled_to(part.records.end);
            run.handled
                .extend(part.records.map(|record| (record, !failed)));
        }
        run
    }

    fn log2_up(records: usize) -> usize {
        records.next_power_of_two().trailing_zeros() as usize
    }

    proptest! {
        /// Every record is handled exactly once and in order; given up are exactly those that fail alone; calls are bounded.
        #[test]
        fn k4_k6_exactly_the_poison_is_given_up(
            records in 1usize..3000,
            poison in prop::collection::btree_set(0usize..3000, 0..12),
        ) {
            let poison: BTreeSet<usize> = poison.into_iter().filter(|record| *record < records).collect();
            let run = run(records, |part| poison.range(part.clone()).next().is_some());
            let expected: Vec<_> = (0..records).map(|record| (record, !poison.contains(&record))).collect();
            prop_assert_eq!(run.handled, expected);
            let bound = 1 + 2 * poison.len() * log2_up(records);
            prop_assert!(run.calls <= bound, "{} calls, at most {}", run.calls, bound);
            let levels = u32::try_from(log2_up(records)).unwrap() + 1;
            prop_assert!(run.most_failures <= levels);
        }

        /// The same with failures that come and go: nothing is lost or repeated, and it ends.
        #[test]
        fn k4_k6_failures_that_come_and_go_lose_nothing(records in 1usize..600, seed: u64) {
            let mut random = fastrand::Rng::with_seed(seed);
            let run = run(records, |_| random.bool());
            let order: Vec<_> = run.handled.iter().map(|(record, _)| *record).collect();
            prop_assert_eq!(order, (0..records).collect::<Vec<_>>());
            prop_assert!(run.calls < 2 * records);
        }
    }

    /// Goal: a transaction that turned out to be committed is not delivered again, be it a part of a part or more than one.
    #[test]
    fn goes_on_after_what_is_handled_already() {
        let mut plan = Plan::whole(100);
        assert!(plan.split(1));
        plan.handled_to(7);
        assert_eq!(plan.next().unwrap().records, 7..50);
        plan.handled_to(3);
        assert_eq!(plan.next().unwrap().records, 7..50, "never back");
        plan.handled_to(60);
        assert_eq!(plan.next().unwrap().records, 60..100);
        plan.handled_to(100);
        assert_eq!(plan.next(), None);
    }

    #[test]
    fn an_empty_batch_has_no_part() {
        assert_eq!(Plan::whole(0).next(), None);
    }

    #[test]
    fn one_record_among_a_thousand_takes_few_calls() {
        let run = run(1000, |part| part.contains(&617));
        assert!(run.calls <= 21, "{} calls", run.calls);
    }
}
