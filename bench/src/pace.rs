//! When requests of an open loop are due. Tokio's timers have a millisecond's step, which is longer than what is measured.

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

/// Requests that are due at equal distances, whatever became of the ones before.
#[derive(Debug)]
pub struct Pacer {
    timer: AsyncFd<OwnedFd>,
    interval: Duration,
    next: Instant,
}

impl Pacer {
    /// The first is due after `first`, which is more than nothing.
    pub fn new(first: Duration, interval: Duration) -> io::Result<Pacer> {
        let timer = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
        )?;
        // Before the timer is set, so that when it expires the time has come.
        let next = Instant::now() + first;
        let times = Itimerspec {
            it_interval: timespec(interval)?,
            it_value: timespec(first.max(Duration::from_nanos(1)))?,
        };
        timerfd_settime(&timer, TimerfdTimerFlags::empty(), &times)?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe; what it asks for, that the descriptor stays open and the same, an OwnedFd gives"
        )]
        let timer = AsyncFd::new(timer)?;
        Ok(Pacer {
            timer,
            interval,
            next,
        })
    }

    /// Of one connection of several that together send `rate` requests a second, one after the other.
    pub fn in_turn(rate: f64, place: usize, connections: usize) -> io::Result<Pacer> {
        let between = Duration::try_from_secs_f64(1.0 / rate).map_err(io::Error::other)?;
        let turns = |count: usize| between * u32::try_from(count).unwrap_or(u32::MAX);
        Pacer::new(turns(place + 1), turns(connections))
    }

    /// As [`Pacer::in_turn`]; none where there is no rate to keep.
    pub fn if_rated(
        rate: Option<f64>,
        place: usize,
        connections: usize,
    ) -> io::Result<Option<Pacer>> {
        rate.map(|rate| Pacer::in_turn(rate, place, connections))
            .transpose()
    }

    /// Waits until the next request is due, if it is not yet; gives when it was.
    pub async fn due(&mut self) -> io::Result<Instant> {
        let due = self.next;
        self.next += self.interval;
        while Instant::now() < due {
            let mut ready = self.timer.readable().await?;
            let mut expirations = [0; 8];
            let read = ready.try_io(|timer| {
                let read = rustix::io::read(timer.get_ref(), &mut expirations);
                read.map_err(io::Error::from)
            });
            // Otherwise it was not ready after all, and is waited for again.
            if let Ok(read) = read {
                read?;
            }
        }
        Ok(due)
    }
}

fn timespec(duration: Duration) -> io::Result<Timespec> {
    Ok(Timespec {
        tv_sec: i64::try_from(duration.as_secs()).map_err(io::Error::other)?,
        tv_nsec: duration.subsec_nanos().into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: requests are due at equal distances, none earlier, and those that were missed at once.
    #[tokio::test]
    async fn requests_are_due_one_after_the_other() {
        let interval = Duration::from_micros(300);
        let mut pacer = Pacer::new(interval, interval).unwrap();
        let first = pacer.due().await.unwrap();
        for n in 1..50 {
            let due = pacer.due().await.unwrap();
            assert_eq!(due, first + interval * n);
            assert!(Instant::now() >= due);
        }
    }
}
