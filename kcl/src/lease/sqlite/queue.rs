//! Who writes when: a fair queue within the process, and short random waits for other processes.
//!
//! SQLite knows no queue. A waiter looks whether the file is free, and its own busy handler looks ever more rarely, down to
//! every 100 ms; a process that writes without pause then keeps all others out for seconds, until their leases expire. So waiting
//! is done here: often, and whoever has lately met others lets the file rest between two writes. Heartbeats never queue behind
//! checkpoints.

use super::fault::is_busy;
use crate::clock::{self, Instant};
use crate::error::Error;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Pause before looking again whether the file is free; at random, so that waiters do not stay in step.
const LOOK_AGAIN: std::ops::RangeInclusive<u64> = 500..=2_500;
/// How long the file rests between two writes of this process while others want it.
const REST: Duration = Duration::from_millis(2);
/// How long others count as wanting the file after they were met.
const CONTENDED_FOR: Duration = Duration::from_secs(1);

/// The writes of one process to one file.
#[derive(Debug)]
pub(super) struct Queue {
    /// How long a write waits for other processes.
    patience: Duration,
    /// Held for a write; tokio's lock, because it is fair.
    turn: tokio::sync::Mutex<()>,
    /// Plain data behind a std mutex, never held across an await.
    traffic: Mutex<Traffic>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Traffic {
    /// When the file was last found locked.
    met: Option<Instant>,
    /// When the last write ended.
    ended: Option<Instant>,
}

impl Queue {
    pub(super) fn new(patience: Duration) -> Self {
        Queue {
            patience,
            turn: tokio::sync::Mutex::new(()),
            traffic: Mutex::default(),
        }
    }

    fn traffic<T>(&self, act: impl FnOnce(&mut Traffic) -> T) -> T {
        act(&mut self.traffic.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Makes a write in its turn. A write that finds the file locked has done nothing and is made again.
    pub(super) async fn in_turn<T, W>(&self, write: impl Fn() -> W) -> Result<T, Error>
    where
        W: Future<Output = Result<T, Error>>,
    {
        let _turn = self.turn.lock().await;
        let Traffic { met, ended } = self.traffic(|traffic| *traffic);
        if let (Some(met), Some(ended)) = (met, ended)
            && met.elapsed() < CONTENDED_FOR
        {
            tokio::time::sleep_until(ended + REST).await;
        }
        let written = self.at_once(write).await;
        self.traffic(|traffic| traffic.ended = Some(clock::now()));
        written
    }

    /// Makes a write that waits for other processes only.
    pub(super) async fn at_once<T, W>(&self, write: impl Fn() -> W) -> Result<T, Error>
    where
        W: Future<Output = Result<T, Error>>,
    {
        let deadline = clock::now() + self.patience;
        loop {
            match write().await {
                Err(error) if is_busy(&error) => {
                    let now = clock::now();
                    if now >= deadline {
                        return Err(error);
                    }
                    self.traffic(|traffic| traffic.met = Some(now));
                }
                written => return written,
            }
            tokio::time::sleep(Duration::from_micros(fastrand::u64(LOOK_AGAIN))).await;
        }
    }
}
