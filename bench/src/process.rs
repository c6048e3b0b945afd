//! What Linux says of a process: the processor time it took, and what it holds in memory.

use std::io;

/// Ticks of `/proc/PID/stat` in a second: `USER_HZ`, which is 100 wherever Linux runs.
const TICKS_PER_SECOND: u32 = 100;

/// What a process holds, KiB.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    /// Now.
    pub resident_kib: u64,
    /// At most so far.
    pub peak_kib: u64,
}

/// Memory of a process, from `/proc/PID/status`.
pub fn memory(pid: u32) -> io::Result<Memory> {
    let path = format!("/proc/{pid}/status");
    let status = std::fs::read_to_string(&path)?;
    memory_in(&status).ok_or_else(|| io::Error::other(format!("{path}: no VmRSS and VmHWM")))
}

fn memory_in(status: &str) -> Option<Memory> {
    let kib = |name: &str| -> Option<u64> {
        let line = status.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse().ok()
    };
    Some(Memory {
        resident_kib: kib("VmRSS:")?,
        peak_kib: kib("VmHWM:")?,
    })
}

/// How many files a process has open, sockets among them, from `/proc/PID/fd`.
pub fn open_files(pid: u32) -> io::Result<usize> {
    Ok(std::fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}

/// Seconds of processor time that a process took so far, of all its threads, from `/proc/PID/stat`.
pub fn cpu_seconds(pid: u32) -> io::Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let stat = std::fs::read_to_string(&path)?;
    cpu_seconds_in(&stat).ok_or_else(|| io::Error::other(format!("{path}: no utime and stime")))
}

fn cpu_seconds_in(stat: &str) -> Option<f64> {
    // The name, in parentheses, may hold anything; utime and stime are the 12th and 13th word after it.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut words = rest.split_whitespace().skip(11);
    let mut ticks = || -> Option<u32> { words.next()?.parse().ok() };
    let ticks = ticks()?.checked_add(ticks()?)?;
    Some(f64::from(ticks) / f64::from(TICKS_PER_SECOND))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_found_whatever_the_name() {
        let stat = "77 (a) b) S 1 77 77 0 -1 4194304 1 2 3 4 150 50 8 9 20 0 3 0 55";
        assert_eq!(cpu_seconds_in(stat), Some(2.0));
        assert_eq!(cpu_seconds_in("77 (a) S 1"), None);
    }

    #[test]
    fn memory_is_found_among_the_lines() {
        let status = "Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        let expected = Memory {
            resident_kib: 1024,
            peak_kib: 2048,
        };
        assert_eq!(memory_in(status), Some(expected));
        assert_eq!(memory_in("Name:\tx\n"), None);
    }
}
