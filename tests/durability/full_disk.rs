//! S6 and S8 on a disk that is full: puts are refused with the documented error, nothing that was acknowledged goes,
//! reads go on, and puts work again once there is space. On a file system of its own, so that no other test is in want.

use crate::SERVER;
use crate::puts::read_whole;
use millstream_server::clock::ManualClock;
use millstream_server::log::LogConfig;
use millstream_server::{Config, DataLocation, Limits, Server};
use serde_json::json;
use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
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
    padding_bytes: 0,
};

/// A file system in memory, unmounted on drop.
#[derive(Debug)]
struct SmallDisk {
    directory: TempDir,
}

impl SmallDisk {
    /// Mounts it. To mount something takes root; what cannot be tested fails.
    fn mount(bytes: u64) -> SmallDisk {
        let directory = TempDir::with_prefix("millstream-full-").unwrap();
        let mounted = Command::new("mount")
            .args([
                "-t",
                "tmpfs",
                "-o",
                &format!("size={bytes}"),
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
    let disk = SmallDisk::mount(DISK_BYTES);
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

/// Room for a few segments of the size below.
const SMALLER_DISK_BYTES: u64 = 8 << 20;
const SEGMENT_BYTES: u64 = 1 << 20;
const NOW_MS: u64 = 1_750_000_000_000;
const HOUR_MS: u64 = 3_600_000;

/// A server in this process on a small disk, so that its clock and its sweeps need not be waited for.
struct Served {
    disk: SmallDisk,
    clock: Arc<ManualClock>,
    server: Server,
    client: RawClient,
}

impl Served {
    async fn start() -> Served {
        let disk = SmallDisk::mount(SMALLER_DISK_BYTES);
        let clock = ManualClock::at(NOW_MS);
        let server = Served::serve(&disk, &clock).await;
        let client = RawClient::new(&server.url());
        for stream in ["going", "staying", "afterwards"] {
            client.create_stream(stream, 2).await;
        }
        Served {
            disk,
            clock,
            server,
            client,
        }
    }

    async fn serve(disk: &SmallDisk, clock: &Arc<ManualClock>) -> Server {
        let config = Config {
            port: 0,
            data: DataLocation::Directory(disk.directory.path().join("data")),
            limits: Limits::Off,
            log: LogConfig {
                segment_bytes: SEGMENT_BYTES,
                rewrite_bytes_per_second: 0,
                ..LogConfig::default()
            },
            ..Config::default()
        };
        Server::start_with_clock(config, clock.clone())
            .await
            .unwrap()
    }

    /// Puts into a stream until the segments take so much.
    async fn put_some(&self, stream: &str, until_bytes: u64) -> Vec<Acked> {
        let load = Load::start(&self.client, stream, SHAPE);
        while self.data_bytes() < until_bytes {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let (acked, refusals) = load.stop().await;
        assert_eq!(refusals, [], "there is room");
        acked
    }

    fn data_bytes(&self) -> u64 {
        let files = fs::read_dir(self.disk.directory.path().join("data")).unwrap();
        let bytes = files.filter_map(|file| Some(file.ok()?.metadata().ok()?.len()));
        bytes.sum()
    }

    /// What the server does in the background every half minute.
    async fn free(&self) {
        let engine = self.server.engine();
        // The first frees the space, whatever else it cannot do; what is rewritten may be trimmed then.
        let _ = engine.sweep().await;
        let _ = engine.rewrite().await;
        engine.sweep().await.unwrap();
        engine.rewrite().await.unwrap();
    }

    /// Puts are taken again, and what was acknowledged is there, also after a restart.
    async fn goes_on(self, staying: &[Acked]) -> usize {
        let load = Load::start(&self.client, "afterwards", SHAPE);
        tokio::time::sleep(Duration::from_millis(700)).await;
        let (taken, refusals) = load.stop().await;
        assert_eq!(refusals, [], "there is room again");
        assert!(taken.len() > 300, "{} puts", taken.len());
        // Readers take what is of this very moment for the tip.
        self.clock.advance_ms(1);
        read_whole(&self.client, "staying", staying).await;
        read_whole(&self.client, "afterwards", &taken).await;
        self.server.shutdown().await;
        let server = Served::serve(&self.disk, &self.clock).await;
        let client = RawClient::new(&server.url());
        read_whole(&client, "staying", staying).await;
        read_whole(&client, "afterwards", &taken).await;
        server.shutdown().await;
        taken.len()
    }
}

/// On a disk that is full a stream is deleted: its segments go, and of those it shared what is left; puts are taken again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s6_a_full_disk_has_room_again_when_a_stream_is_deleted() {
    let _alone = alone().await;
    let served = Served::start().await;
    served.put_some("going", SMALLER_DISK_BYTES / 2).await;
    // Both in each segment.
    let beside = Load::start(&served.client, "going", SHAPE);
    let staying = put_until_refused(&served.client, "staying").await;
    beside.stop().await;
    let before = served.data_bytes();
    served
        .client
        .must("DeleteStream", json!({"StreamName": "going"}))
        .await;
    served.free().await;
    let after = served.data_bytes();
    assert!(after < before, "{before} bytes, then {after}");
    let taken = served.goes_on(&staying).await;
    println!(
        "full disk, a stream deleted: {before} bytes, then {after}; {} acknowledged before and {taken} after, lost 0",
        staying.len()
    );
}

/// On a disk that is full a stream's retention is made shorter: what is older goes, and puts are taken again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s6_s7_a_full_disk_has_room_again_when_a_retention_is_shorter() {
    let _alone = alone().await;
    let served = Served::start().await;
    let hours = |hours: u64| json!({"StreamName": "going", "RetentionPeriodHours": hours});
    let longer = served
        .client
        .must("IncreaseStreamRetentionPeriod", hours(48));
    longer.await;
    served.put_some("going", SMALLER_DISK_BYTES / 2).await;
    served.clock.advance_ms(30 * HOUR_MS);
    let staying = put_until_refused(&served.client, "staying").await;
    let shorter = served
        .client
        .must("DecreaseStreamRetentionPeriod", hours(24));
    shorter.await;
    let before = served.data_bytes();
    served.free().await;
    let after = served.data_bytes();
    assert!(after < before, "{before} bytes, then {after}");
    let taken = served.goes_on(&staying).await;
    println!(
        "full disk, a shorter retention: {before} bytes, then {after}; {} acknowledged before and {taken} after, lost 0",
        staying.len()
    );
}
