//! S8 and S10 for starts and stops in every state: amid a recovery, twice, at once with others, where nothing may be written, beside files
//! that are not the log's. What `clean_stop` and `honest_start` show of an undisturbed one is not shown again.

use crate::SERVER;
use crate::puts::{count, put_each, read_whole};
use crate::segment_file::{assert_unchanged, contents, segments};
use rustix::fs::{CWD, Mode, OFlags, mkfifoat};
use serde_json::json;
use std::fs;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;
use support::client::encode_base64;
use support::load::{Load, Shape};
use support::process::{Ended, Process, Signal};
use support::{RawClient, ServerProcess, alone, scaled, seeded, wait_until};

const STREAM: &str = "starts";
/// The most that a stop may take here, recovery of a large segment included.
const STOPS_WITHIN: Duration = Duration::from_secs(10);
const UNUSABLE: i32 = 3;

fn serve(data: &Path) -> Process {
    let data = data.display().to_string();
    let arguments = ["serve", "--port", "0", "--data-dir", &data].map(str::to_owned);
    Process::spawn(Path::new(SERVER), &arguments, &[])
}

/// `millstream COMMAND DIRECTORY`, to its end.
async fn command(name: &str, data: &Path) -> Ended {
    let arguments = [name.to_owned(), data.display().to_string()];
    let mut process = Process::spawn(Path::new(SERVER), &arguments, &[]);
    process.wait(Duration::from_mins(1)).await
}

#[track_caller]
fn assert_quiet(ended: &Ended) {
    assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
}

/// Fills the active segment, so that its recovery takes a while.
async fn fill(client: &RawClient, stream: &str, mebibytes: usize) {
    let data = encode_base64(&vec![7; 512 << 10]);
    for _ in 0..mebibytes / 4 {
        let records: Vec<_> = (0..8)
            .map(|n| json!({"PartitionKey": n.to_string(), "Data": data}))
            .collect();
        let put = json!({"StreamName": stream, "Records": records});
        client.must("PutRecords", put).await;
    }
}

/// Signals at random instants of a start, over a segment of many mebibytes: it ends soon, by what it was told, and whatever it was at, the
/// directory is sound and the next start finds everything.
#[tokio::test]
async fn s10_sigterm_amid_a_start() {
    let _alone = alone().await;
    let mut random = seeded("s10_sigterm_amid_a_start");
    let mut server = ServerProcess::start(SERVER).await;
    let client = server.client();
    client.create_stream(STREAM, 1).await;
    client.create_stream("large", 1).await;
    let acked = put_each(&client, STREAM, 0..10).await;
    fill(&client, "large", scaled(24, 56)).await;
    server.kill9().await;
    let mut ends = std::collections::BTreeMap::new();
    for cycle in 0..scaled(20, 300) {
        let mut process = serve(server.data());
        let twice = cycle % 3 == 2;
        let wait = Duration::from_millis(random.u64(..400));
        tokio::time::sleep(wait).await;
        process.signal(Signal::Term).await;
        if twice {
            tokio::time::sleep(Duration::from_millis(random.u64(..20))).await;
            if process.is_running() {
                process.signal(Signal::Term).await;
            }
        }
        let ended = process.wait(STOPS_WITHIN).await;
        assert_quiet(&ended);
        // Before it listens for signals, one ends it by itself.
        let as_told = matches!(ended.code, Some(0) | None) || (twice && ended.code == Some(1));
        assert!(as_told, "after {wait:?}: {:?} {}", ended.code, ended.stderr);
        *ends
            .entry((ended.stdout.contains("Ready"), ended.code))
            .or_insert(0) += 1;
        let found = command("check", server.data()).await;
        assert_eq!(found.code, Some(0), "after {wait:?}: {}", found.stdout);
    }
    server.restart().await;
    let whole = read_whole(&server.client(), STREAM, &acked).await;
    assert_eq!(count(&whole), acked.len());
    println!("ready and exit code, how often: {ends:?}");
}

/// Two signals shortly after each other under load: what was acknowledged is there, whether the second one came in time or not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s10_two_signals_under_load() {
    let _alone = alone().await;
    let mut random = seeded("s10_two_signals_under_load");
    let mut server = ServerProcess::start(SERVER).await;
    let client = server.client();
    client.create_stream(STREAM, 2).await;
    let shape = Shape {
        writers: 16,
        pause: Duration::from_millis(1),
        batch: 5,
        padding_bytes: 0,
    };
    let load = Load::start(&client, STREAM, shape);
    for _ in 0..scaled(4, 60) {
        let before = load.acked_count();
        wait_until("writers go on", Duration::from_secs(30), || async {
            (load.acked_count() > before + 100).then_some(())
        })
        .await;
        server.signal(Signal::Term).await;
        tokio::time::sleep(Duration::from_millis(random.u64(..30))).await;
        if server.is_running() {
            server.signal(Signal::Term).await;
        }
        let ended = server.wait(STOPS_WITHIN).await;
        assert_quiet(&ended);
        assert!(
            matches!(ended.code, Some(0 | 1)),
            "{:?} {}",
            ended.code,
            ended.stderr
        );
        server.restart().await;
    }
    let (acked, _) = load.stop().await;
    read_whole(&client, STREAM, &acked).await;
}

/// Goal: one signal stops a start that its disk keeps waiting, for as long as that may be. Method: a pipe in place of a file, into which nobody writes.
#[tokio::test]
async fn s10_sigterm_amid_a_start_that_waits_for_its_disk() {
    let _alone = alone().await;
    let data = tempfile::tempdir().unwrap();
    let pipe = data.path().join("FORMAT");
    mkfifoat(CWD, &pipe, Mode::RUSR | Mode::WUSR).unwrap();
    let mut process = serve(data.path());
    let _writer = wait_until("the server reads the file", STOPS_WITHIN, || {
        // It can be opened for writing once somebody reads it.
        let mut options = fs::OpenOptions::new();
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        let opened = options.write(true).custom_flags(flags).open(&pipe).ok();
        async move { opened }
    })
    .await;
    let ended = process.terminate(STOPS_WITHIN).await;
    assert_quiet(&ended);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
}

/// Several servers and a check begin at once on one directory, new or not: one of the servers serves at most, the others say that it is taken,
/// and the check says the same or that the directory is sound.
#[tokio::test]
async fn s8_of_many_that_begin_at_once_one_serves() {
    let _alone = alone().await;
    let parent = tempfile::tempdir().unwrap();
    let data = parent.path().join("data");
    let mut served = 0;
    for round in 0..scaled(8, 100) {
        let mut servers: Vec<Process> = (0..3).map(|_| serve(&data)).collect();
        let checked = command("check", &data).await;
        assert_quiet(&checked);
        assert!(matches!(checked.code, Some(0 | 2)), "{round}: {checked:?}");
        let mut ready = 0;
        for server in &mut servers {
            let said = wait_until("it serves or ends", STOPS_WITHIN, || {
                let is_ready = server.stdout().text().contains("Ready");
                let has_ended = !is_ready && !server.is_running();
                async move { (is_ready || has_ended).then_some(is_ready) }
            })
            .await;
            ready += u32::from(said);
        }
        assert!(ready <= 1, "{ready} serve in round {round}");
        for mut server in servers {
            if server.is_running() {
                assert_eq!(server.terminate(STOPS_WITHIN).await.code, Some(0));
                continue;
            }
            let ended = server.wait(STOPS_WITHIN).await;
            assert_quiet(&ended);
            assert_eq!(ended.code, Some(UNUSABLE), "{}", ended.stderr);
            assert!(
                ended.stderr.contains("in use by another process"),
                "{}",
                ended.stderr
            );
        }
        served += ready;
    }
    assert!(served > 0);
}

/// Runs without the rights that root has over files, if it is root.
fn unprivileged(arguments: &[String]) -> Process {
    let without = [
        "--bounding-set=-dac_override,-dac_read_search".to_owned(),
        SERVER.to_owned(),
    ];
    Process::spawn(Path::new("setpriv"), &[&without, arguments].concat(), &[])
}

async fn refused_without_rights(data: &Path) -> Ended {
    let shown = data.display().to_string();
    let arguments = ["serve", "--port", "0", "--data-dir", &shown].map(str::to_owned);
    unprivileged(&arguments).wait(STOPS_WITHIN).await
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// A directory with a stopped server's data.
async fn stopped() -> (ServerProcess, Vec<support::history::Acked>) {
    let mut server = ServerProcess::start(SERVER).await;
    let client = server.client();
    client.create_stream(STREAM, 1).await;
    let acked = put_each(&client, STREAM, 0..10).await;
    server.terminate().await;
    (server, acked)
}

/// Where files may not be written, or not be read, a start says so, with exit code 3, and leaves everything as it was; a check
/// needs to read only.
#[tokio::test]
async fn s8_a_start_without_rights_is_refused() {
    let _alone = alone().await;
    let (mut server, acked) = stopped().await;
    let data = server.data().to_owned();
    let before = contents(&data);
    let segment = segments(&data)[0].1.clone();
    for (path, mode, right) in [
        (&data, 0o555, 0o700),
        (&data, 0o000, 0o700),
        (&segment, 0o000, 0o644),
        (&segment, 0o444, 0o644),
        (&data.join("FORMAT"), 0o000, 0o644),
        (&data.join("LOCK"), 0o444, 0o644),
        (&data.join("tls-key.pem"), 0o000, 0o600),
    ] {
        set_mode(path, mode);
        let ended = refused_without_rights(&data).await;
        let arguments = ["check".to_owned(), data.display().to_string()];
        let checked = unprivileged(&arguments).wait(STOPS_WITHIN).await;
        set_mode(path, right);
        let case = format!("{} with {mode:o}", path.display());
        assert_quiet(&ended);
        assert_eq!(ended.code, Some(UNUSABLE), "{case}: {}", ended.stderr);
        assert!(
            ended.stderr.contains("Permission denied"),
            "{case}: {}",
            ended.stderr
        );
        if !path.ends_with("tls-key.pem") {
            assert_unchanged(&data, &before);
            let is_readable = mode & 0o444 != 0;
            assert_eq!(
                checked.code,
                Some(if is_readable { 0 } else { 2 }),
                "{case}: {checked:?}"
            );
        }
    }
    let closed = tempfile::tempdir().unwrap();
    set_mode(closed.path(), 0o555);
    let ended = refused_without_rights(&closed.path().join("new")).await;
    assert_eq!(ended.code, Some(UNUSABLE), "{}", ended.stderr);
    set_mode(closed.path(), 0o700);
    server.restart().await;
    read_whole(&server.client(), STREAM, &acked).await;
}

/// The same on a file system that is mounted for reading only. Mounting one needs root: without, it is not tried.
#[tokio::test]
async fn s8_a_file_system_for_reading_only_is_refused() {
    let _alone = alone().await;
    let (mut server, acked) = stopped().await;
    let data = server.data().to_owned();
    let before = contents(&data);
    let mount = format!(
        "mount --bind '{0}' '{0}' && mount -o remount,ro,bind '{0}' || exit 77; exec \"$@\"",
        data.display()
    );
    let within = |arguments: &[&str]| {
        let mut all = vec!["-m", "sh", "-c", &mount, "sh", SERVER];
        all.extend(arguments);
        let all: Vec<String> = all.into_iter().map(str::to_owned).collect();
        Process::spawn(Path::new("unshare"), &all, &[])
    };
    let shown = data.display().to_string();
    let ended = within(&["serve", "--port", "0", "--data-dir", &shown])
        .wait(STOPS_WITHIN)
        .await;
    if ended.code == Some(77) || ended.stderr.contains("unshare failed") {
        println!("not tried: nothing can be mounted here ({})", ended.stderr);
        return;
    }
    assert_quiet(&ended);
    assert_eq!(ended.code, Some(UNUSABLE), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("Read-only file system"),
        "{}",
        ended.stderr
    );
    let checked = within(&["check", &shown]).wait(STOPS_WITHIN).await;
    assert_eq!(checked.code, Some(0), "{checked:?}");
    assert_unchanged(&data, &before);
    server.restart().await;
    read_whole(&server.client(), STREAM, &acked).await;
}

/// What an unclean end may leave of files that never became segments, and files of somebody else's beside the log: the first are removed,
/// the others stay, and everything is served.
#[tokio::test]
async fn s8_left_over_and_foreign_files_do_no_harm() {
    let _alone = alone().await;
    let (mut server, acked) = stopped().await;
    let data = server.data().to_owned();
    let (_, segment) = segments(&data)[0].clone();
    let bytes = fs::read(&segment).unwrap();
    let left = [
        "spare.segment",
        "large.segment",
        "rewrite.segment",
        "recycled.segment",
        "FORMAT.new",
    ];
    let foreign = [
        "0000000000000001.segment.bak",
        "1.segment",
        "notes.txt",
        "lost+found",
    ];
    for (turn, content) in [&b""[..], b"noise", &bytes].into_iter().enumerate() {
        for name in left {
            fs::write(data.join(name), content).unwrap();
        }
        let plain: Vec<PathBuf> = foreign[..3].iter().map(|name| data.join(name)).collect();
        for path in &plain {
            fs::write(path, content).unwrap();
        }
        let _there = fs::create_dir(data.join(foreign[3]));
        let found = command("check", &data).await;
        assert_eq!(found.code, Some(0), "turn {turn}: {found:?}");
        for name in &left[..4] {
            assert!(
                found.stdout.contains(name),
                "{name} is told: {}",
                found.stdout
            );
        }
        server.restart().await;
        read_whole(&server.client(), STREAM, &acked).await;
        server.terminate().await;
        for path in &plain {
            assert!(
                fs::read(path).unwrap() == content,
                "{} changed",
                path.display()
            );
        }
        assert!(data.join(foreign[3]).is_dir());
        assert!(!data.join("rewrite.segment").exists());
    }
}
