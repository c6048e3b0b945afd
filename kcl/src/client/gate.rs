//! Calls that the endpoint refuses because they come too fast: who calls the same waits as well, so that a fleet that starts does not stampede.

use crate::client::retry::backoff;
use crate::clock::{self, Instant};
use millstream_wire::Operation;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Calls of one client that were refused in a row before the last of them fails: about 20 s.
const REFUSALS_MAX: u32 = 10;
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// One gate for each operation that was refused.
#[derive(Debug, Default)]
pub(super) struct Gates {
    /// One short lock around plain data; never held across an await.
    gates: Mutex<BTreeMap<&'static str, Gate>>,
}

#[derive(Debug, Clone, Copy)]
struct Gate {
    opens: Instant,
    /// Whoever waits comes within this time after it opens, not all at once.
    spread: Duration,
    /// In a row.
    refusals: u32,
}

impl Gates {
    fn with<T>(&self, act: impl FnOnce(&mut BTreeMap<&'static str, Gate>) -> T) -> T {
        act(&mut self.gates.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits while calls of the operation are held back.
    pub(super) async fn pass(&self, operation: Operation) {
        loop {
            let gate = self.with(|gates| gates.get(operation.name()).copied());
            let Some(gate) = gate.filter(|gate| clock::now() < gate.opens) else {
                return;
            };
            tokio::time::sleep_until(gate.opens + gate.spread.mul_f64(fastrand::f64())).await;
        }
    }

    /// A call was refused; gives whether it may be repeated when it can [`pass`](Gates::pass). `attempt` counts this caller's from 1.
    pub(super) fn refused(&self, operation: Operation, attempt: u32) -> bool {
        let now = clock::now();
        self.with(|gates| {
            let gate = gates.entry(operation.name()).or_insert(Gate {
                opens: now,
                spread: Duration::ZERO,
                refusals: 0,
            });
            // What was under way when it was shut is refused as well, and says nothing new.
            if now >= gate.opens {
                gate.refusals = gate.refusals.saturating_add(1);
                let pause = backoff(FIRST_PAUSE, LONGEST_PAUSE, gate.refusals);
                gate.spread = pause / 2;
                gate.opens = now + pause / 2;
            }
        });
        attempt < REFUSALS_MAX
    }

    /// A call was answered.
    pub(super) fn accepted(&self, operation: Operation) {
        self.with(|gates| gates.remove(operation.name()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    const CALL: Operation = Operation::ListShards;

    /// Goal: many callers of one client get through an endpoint that accepts twenty a second, and few of their calls are refused. Method: a
    /// hundred at once, each until it is accepted, against a count that begins anew every second.
    #[tokio::test(start_paused = true)]
    async fn callers_that_are_refused_together_come_back_spread_out() {
        let gates = Arc::new(Gates::default());
        let accepted = Arc::new(Mutex::new((clock::now(), 0_u32, 0_u32)));
        let mut callers = tokio::task::JoinSet::new();
        for _ in 0..100 {
            let (gates, accepted) = (Arc::clone(&gates), Arc::clone(&accepted));
            callers.spawn(async move {
                for attempt in 1.. {
                    gates.pass(CALL).await;
                    let fits = {
                        let mut count = accepted.lock().unwrap();
                        if clock::now() >= count.0 + Duration::from_secs(1) {
                            *count = (clock::now(), 0, count.2);
                        }
                        count.1 += 1;
                        count.2 += u32::from(count.1 > 20);
                        count.1 <= 20
                    };
                    if fits {
                        return gates.accepted(CALL);
                    }
                    assert!(gates.refused(CALL, attempt), "it gave up");
                }
            });
        }
        let began = clock::now();
        callers.join_all().await;
        let took = clock::now() - began;
        let refused = accepted.lock().unwrap().2;
        assert!(took < Duration::from_secs(20), "it took {took:?}");
        assert!(refused < 500, "{refused} calls refused");
    }

    #[tokio::test(start_paused = true)]
    async fn a_gate_holds_back_its_operation_only_and_opens_with_an_answer() {
        let gates = Gates::default();
        assert!(gates.refused(CALL, 1));
        let began = clock::now();
        gates.pass(Operation::GetShardIterator).await;
        assert_eq!(clock::now(), began);
        gates.pass(CALL).await;
        assert!(clock::now() - began >= FIRST_PAUSE / 2);
        gates.accepted(CALL);
        assert!(!gates.refused(CALL, REFUSALS_MAX), "it has tried enough");
    }
}
