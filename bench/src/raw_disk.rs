//! `raw-disk`: what one write and its sync take, on the file system that a server's data are on. No answer can be durable sooner.

use crate::ceiling::laid_out;
use crate::measure::{self, Latency};
use crate::{Failure, report};
use serde::{Deserialize, Serialize};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::Instant;

/// The file; writing goes around in it.
const FILE_BYTES: u64 = 64 << 20;

/// What to write, and where.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// Where the file of 64 MiB is made; it is removed at the end.
    #[arg(long, default_value = ".")]
    directory: PathBuf,
    /// Bytes of one write.
    #[arg(long, default_values_t = [1024, 4096], value_parser = clap::value_parser!(u32).range(1..=1 << 20), value_delimiter = ',')]
    bytes: Vec<u32>,
    /// Seconds for each size.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// Prints JSON, a line for each size.
    #[arg(long)]
    json: bool,
}

/// What writes of one size took.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Raw {
    /// Bytes of one write.
    pub bytes: u32,
    /// Write and sync.
    pub latency: Latency,
}

/// Measures and prints.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    for bytes in &arguments.bytes {
        let length = Duration::from_secs(arguments.seconds);
        let raw = measure(&arguments.directory, *bytes, length)?;
        if arguments.json {
            report::say(&serde_json::to_string(&raw)?);
            continue;
        }
        let Latency { p50_us, p99_us, .. } = raw.latency;
        report::say(&format!(
            "{bytes} bytes into written space and fdatasync: p50 {p50_us:.0} us, p99 {p99_us:.0} us"
        ));
    }
    Ok(())
}

/// Writes and syncs one after the other for so long.
pub fn measure(directory: &Path, bytes: u32, length: Duration) -> Result<Raw, Failure> {
    std::fs::create_dir_all(directory)?;
    let path = directory.join(format!("raw-disk-{}.log", std::process::id()));
    let mut file = laid_out(&path, FILE_BYTES)?;
    // Gone with the last handle, however this ends.
    std::fs::remove_file(&path)?;
    let mut data = vec![0; usize::try_from(bytes)?];
    fastrand::fill(&mut data);
    let mut latencies = measure::latencies()?;
    let began = Instant::now();
    let mut left = 0;
    while began.elapsed() < length {
        if left == 0 {
            file.seek(SeekFrom::Start(0))?;
            left = FILE_BYTES / u64::from(bytes);
        }
        left -= 1;
        let since = Instant::now();
        file.write_all(&data)?;
        file.sync_data()?;
        latencies.saturating_record(u64::try_from(since.elapsed().as_nanos())?);
    }
    Ok(Raw {
        bytes,
        latency: Latency::of(&latencies),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_and_its_sync_take_time() {
        let directory = tempfile::tempdir().unwrap();
        let raw = measure(directory.path(), 4096, Duration::from_millis(20)).unwrap();
        assert!(raw.latency.p50_us >= 1.0, "{raw:?}");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
