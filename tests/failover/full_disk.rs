//! A lease database on a disk that fills up while workers run.

use crate::scene::{Scene, Setup};
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use support::clock::now_us;
use support::history::{EventKind, deliveries, outstanding_at_losses};
use support::{Store, check};
use tempfile::TempDir;

const FAILOVER: Duration = Duration::from_secs(1);

/// A file system of a fixed size in memory; gone when dropped.
struct SmallDisk {
    folder: TempDir,
}

impl SmallDisk {
    /// `None` if this user may not mount one.
    fn mount(kib: u32) -> Option<SmallDisk> {
        let folder = TempDir::with_prefix("millstream-disk-").unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={kib}k"), "tmpfs"])
            .arg(folder.path())
            .output();
        let done = mounted.is_ok_and(|ended| ended.status.success());
        done.then_some(SmallDisk { folder })
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Takes all that is left, and what the write-ahead log had for later: full, it starts again from its front.
    async fn fill(&self, leases: &Store) {
        let mut database = leases.connect().await.unwrap();
        let fold = "PRAGMA wal_checkpoint(TRUNCATE)".to_owned();
        database.change(fold).await.unwrap();
        let mut filler = File::create(self.path().join("filler")).unwrap();
        while filler.write_all(&[7; 1024]).is_ok() {}
    }

    fn free(&self) {
        fs::remove_file(self.path().join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a worker may still have its files open.
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

/// The disk is full for longer than the fail-over time: no checkpoint and no heartbeat can be stored, so delivery pauses; with space
/// again the same processes go on, nothing is lost, and no shard has two owners.
#[tokio::test(flavor = "multi_thread")]
async fn k2_k4_full_disk_is_waited_for() {
    let _alone = support::alone().await;
    let Some(disk) = SmallDisk::mount(16 * 1024) else {
        println!("not run: a small disk takes a mount, which takes root");
        return;
    };
    let mut scene = Scene::with(Setup {
        failover: FAILOVER,
        store: Some(Store::Sqlite(disk.path().join("leases.db"))),
        ..Setup::default()
    })
    .await;
    let (mut one, mut other) = scene.two_workers().await;
    disk.fill(scene.fleet.store()).await;
    let full_us = now_us();
    tokio::time::sleep(FAILOVER * 2 + Duration::from_secs(1)).await;
    let paused_until = now_us();
    disk.free();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(one.is_running(), "{}", one.log());
    assert!(other.is_running(), "{}", other.log());
    let (expected, _, events) = scene.finish(&[&one, &other]).await;
    let checkpoints = |from: u64, until: u64| {
        let of = |event: &&support::history::Event| {
            matches!(event.kind, EventKind::Checkpointed { .. })
                && (from..until).contains(&event.at_us)
        };
        events.iter().filter(of).count()
    };
    let last_second = paused_until - 1_000_000;
    let late = events.iter().find(|event| {
        let records = matches!(event.kind, EventKind::Delivered { .. });
        records && (last_second..paused_until).contains(&event.at_us)
    });
    assert_eq!(late, None, "K2: delivered on a lease that was not renewed");
    let counts = deliveries(&events);
    check::all_delivered(&expected, &counts).unwrap();
    check::one_owner(&events).unwrap();
    let again = counts.values().filter(|count| **count > 1).count();
    println!(
        "{} checkpoints after the disk was full, {again} records came again, {} leases lost",
        checkpoints(full_us, paused_until),
        outstanding_at_losses(&events).len()
    );
}
