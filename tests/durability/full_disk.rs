//! S6 and S8 on a disk that is full: puts are refused with the documented error, nothing that was acknowledged goes,
//! reads go on, and puts work again once there is space. On a file system of its own, so that no other test is in want.

use crate::SERVER;
use crate::puts::read_whole;
use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use support::client::{CallError, RawClient};
use support::history::Acked;
use support::load::{Load, Shape};
use support::{ServerProcess, alone, scaled, seeded};
use tempfile::TempDir;

const STREAMS: [&str; 3] = ["until-full", "while-full", "once-freed"];
/// Room for the first segment and one whole segment more.
const DISK_BYTES: u64 = 80 << 20;

const SHAPE: Shape = Shape {
    writers: 4,
    pause: Duration::from_millis(1),
    batch: 200,
};

/// A file system in memory, unmounted on drop.
#[derive(Debug)]
struct SmallDisk {
    directory: TempDir,
}

impl SmallDisk {
    /// Mounts it. To mount something takes root; what cannot be tested fails.
    fn mount() -> SmallDisk {
        let directory = TempDir::with_prefix("millstream-full-").unwrap();
        let mounted = Command::new("mount")
            .args([
                "-t",
                "tmpfs",
                "-o",
                &format!("size={DISK_BYTES}"),
                "millstream-test",
            ])
            .arg(directory.path())
            .output()
            .expect("the program mount");
        assert!(
            mounted.status.success(),
            "this test mounts a file system of its own, as root: {}",
            String::from_utf8_lossy(&mounted.stderr)
        );
        SmallDisk { directory }
    }

    /// Takes all space but so much; gives the file that takes it.
    fn fill(&self, but_bytes: u64) -> PathBuf {
        let path = self.directory.path().join("filler");
        let mut filler = File::create(&path).unwrap();
        let chunk = vec![1; 64 << 10];
        while let Ok(()) = filler.write_all(&chunk) {}
        let full = filler.metadata().unwrap().len();
        assert!(
            full > DISK_BYTES / 2 && full < DISK_BYTES,
            "{full} bytes were free"
        );
        filler.set_len(full - but_bytes).unwrap();
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: whoever has files open there is on its way out.
        let unmounted = Command::new("umount")
            .arg("-l")
            .arg(self.directory.path())
            .status();
        assert!(
            unmounted.is_ok_and(|status| status.success()) || std::thread::panicking(),
            "the file system is still mounted"
        );
    }
}

/// Puts from several writers at once until nothing is taken any more; what was acknowledged. A writer's numbers begin
/// anew, so each load has a stream of its own.
async fn put_until_refused(client: &RawClient, stream: &str) -> Vec<Acked> {
    let load = Load::start(client, stream, SHAPE);
    let mut before = None;
    for _ in 0..120 {
        if before.replace(load.acked_count()) == Some(load.acked_count()) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let (acked, refusals) = load.stop().await;
    assert!(
        !refusals.is_empty(),
        "nothing was refused: is the disk full?"
    );
    for refusal in &refusals {
        // Of a call with several records each is refused by itself, and that error has no name of its own there.
        let CallError::Refused {
            status,
            code,
            message,
        } = refusal
        else {
            panic!("{refusal}");
        };
        let said = (*status, code.as_str());
        let documented = [(503, "ServiceUnavailable"), (200, "InternalFailure")];
        assert!(documented.contains(&said), "{refusal}");
        assert!(message.contains("no space for more records"), "{refusal}");
    }
    acked
}

/// One disk: full, killed and started again while it is full, freed, and killed once more.
async fn fill_and_free(but_bytes: u64) -> usize {
    let disk = SmallDisk::mount();
    let data = disk.directory.path().join("data");
    let mut server = ServerProcess::start_on(SERVER, data, &["--limits", "off"]).await;
    let client = server.client();
    // Before anything is written: with the first write the next segment is laid out, which is to fail.
    let filler = disk.fill(but_bytes);
    for stream in STREAMS {
        client.create_stream(stream, 2).await;
    }
    let mut acked = vec![put_until_refused(&client, STREAMS[0]).await];
    assert!(acked[0].len() > 1000, "{} puts", acked[0].len());
    assert!(server.is_running(), "{}", server.log());
    read_whole(&client, STREAMS[0], &acked[0]).await;

    server.kill9().await;
    server.restart().await;
    read_whole(&client, STREAMS[0], &acked[0]).await;
    acked.push(put_until_refused(&client, STREAMS[1]).await);

    fs::remove_file(filler).unwrap();
    let load = Load::start(&client, STREAMS[2], SHAPE);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let (taken, refusals) = load.stop().await;
    assert_eq!(refusals, [], "without a restart");
    assert!(taken.len() > 1000, "{} puts", taken.len());
    acked.push(taken);
    server.kill9().await;
    server.restart().await;
    for (stream, acked) in STREAMS.iter().zip(&acked) {
        read_whole(&client, stream, acked).await;
    }
    server.terminate().await;
    acked.iter().map(Vec::len).sum()
}

/// The server goes on while its disk is full, and after a kill; more is taken as soon as something is removed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s1_s6_a_full_disk_refuses_puts_and_nothing_else() {
    let _alone = alone().await;
    let mut random = seeded("s1_s6_a_full_disk_refuses_puts_and_nothing_else");
    let disks = scaled(1, 20);
    let mut acked = 0;
    for _ in 0..disks {
        acked += fill_and_free(random.u64(0..4 << 20)).await;
    }
    println!("full disk: {disks} disks of {DISK_BYTES} bytes, {acked} acknowledged, lost 0");
}
