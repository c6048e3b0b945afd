//! S8 for the operator: `millstream check` and `millstream repair` over directories that the real server wrote.

use crate::SERVER;
use crate::puts::{count, put_each, read_whole};
use crate::segment_file::{
    Frame, RECORDS, assert_unchanged, contents, first_segment, frames, leave_little_room, segments,
};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use support::history::Acked;
use support::reader::read_stream;
use support::{ServerProcess, alone};

const STREAM: &str = "mended";
/// Exit codes of both commands.
const SOUND: i32 = 0;
const DAMAGED: i32 = 1;
const CANNOT_TELL: i32 = 2;

fn run(command: &str, data: &Path, more: &[&str]) -> Output {
    let mut process = Command::new(SERVER);
    process.arg(command).arg(data).args(more);
    let output = process.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!said.contains("panicked"), "{said}");
    output
}

/// The exit code, and what was printed.
fn said(command: &str, data: &Path, more: &[&str]) -> (i32, String) {
    let output = run(command, data, more);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    (output.status.code().unwrap(), text + &errors)
}

#[track_caller]
fn assert_said(said: &(i32, String), code: i32, parts: &[&str]) {
    assert_eq!(said.0, code, "{}", said.1);
    for part in parts {
        assert!(said.1.contains(part), "no {part:?} in {}", said.1);
    }
}

fn json(command: &str, data: &Path, more: &[&str]) -> serde_json::Value {
    let output = run(command, data, &[&["--output", "json"], more].concat());
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A check finds nothing.
#[track_caller]
pub(crate) fn assert_sound(data: &Path) {
    assert_said(&said("check", data, &[]), SOUND, &["sound"]);
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// Where a repair keeps what it changes.
fn copies(data: &Path) -> PathBuf {
    let mut name = data.as_os_str().to_owned();
    name.push(".before-repair");
    PathBuf::from(name)
}

/// Removed with what is in it at the end of a test, however that ends.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A stream of one shard with records in two segments, stopped in an orderly way.
async fn two_segments() -> (ServerProcess, Vec<Acked>) {
    let mut server = ServerProcess::start(SERVER).await;
    let client = server.client();
    client.create_stream(STREAM, 1).await;
    client.create_stream("other", 1).await;
    let mut acked = put_each(&client, STREAM, 0..10).await;
    put_each(&client, "other", 0..3).await;
    server.kill9().await;
    leave_little_room(server.data(), 0);
    server.restart().await;
    acked.extend(put_each(&client, STREAM, 10..20).await);
    server.terminate().await;
    assert_eq!(segments(server.data()).len(), 2);
    (server, acked)
}

fn runs(path: &Path) -> Vec<Frame> {
    let all = frames(&fs::read(path).unwrap());
    all.into_iter()
        .filter(|frame| frame.kind == RECORDS)
        .collect()
}

/// All that was acknowledged is there, but for these.
async fn all_but(server: &ServerProcess, acked: &[Acked], lost: &[usize]) {
    let left = acked.iter().enumerate().filter(|(n, _)| !lost.contains(n));
    let left: Vec<Acked> = left.map(|(_, one)| one.clone()).collect();
    let whole = read_whole(&server.client(), STREAM, &left).await;
    assert_eq!(count(&whole), left.len());
}

/// A sound directory: said so, with its size; nothing changes, and a repair has nothing to do.
#[tokio::test]
async fn s8_a_sound_directory_is_said_to_be() {
    let _alone = alone().await;
    let (server, _) = two_segments().await;
    let before = contents(server.data());
    let found = said("check", server.data(), &[]);
    assert_said(
        &found,
        SOUND,
        &["sound; 2 segments (0 of them rewritten), 2 streams, 2 shards, 23 records"],
    );
    let found = json("check", server.data(), &[]);
    assert_eq!(found["sound"], true, "{found}");
    assert_eq!(found["records"], 23, "{found}");
    assert_said(
        &said("repair", server.data(), &["--drop-damaged"]),
        SOUND,
        &["sound"],
    );
    assert_unchanged(server.data(), &before);
    assert!(!copies(server.data()).exists());
}

/// One flipped bit in a record of a sealed segment: told with place, stream and shard; a repair drops that record, tells it first, keeps the
/// file as it was, and the server serves the rest.
#[tokio::test]
async fn s8_a_damaged_record_is_told_and_dropped_when_asked() {
    let _alone = alone().await;
    let (mut server, mut acked) = two_segments().await;
    let path = first_segment(server.data());
    let victim = runs(&path)[4];
    flip(&path, victim.at + victim.bytes - 1);
    let before = contents(server.data());
    let data = server.data().to_owned();

    let place = format!("0000000000000001.segment at byte {}", victim.at);
    let told = [
        &place,
        STREAM,
        "shardId-000000000000: 1 record,",
        "millstream repair",
    ];
    assert_said(&said("check", &data, &[]), DAMAGED, &told);
    let found = json("check", &data, &[]);
    let finding = &found["findings"][0];
    assert_eq!(finding["segment"], 1, "{found}");
    assert_eq!(finding["offset"], victim.at, "{found}");
    let lost = &finding["lost"][0];
    assert_eq!(lost["records"], 1, "{found}");
    let sequence = &acked[4].sequence;
    let bound = |name: &str| support::history::Sequence::new(lost[name].as_str().unwrap());
    assert!(
        bound("from_sequence") <= *sequence && *sequence < bound("before_sequence"),
        "{found}"
    );

    let told = said("repair", &data, &[]);
    assert_said(
        &told,
        DAMAGED,
        &[&place, "would be rewritten", "nothing was changed"],
    );
    assert_unchanged(&data, &before);

    let kept = Folder(copies(&data));
    let done = said("repair", &data, &["--drop-damaged"]);
    assert_said(
        &done,
        SOUND,
        &["is rewritten", &kept.0.display().to_string()],
    );
    let copy = fs::read(kept.0.join("0000000000000001.segment")).unwrap();
    assert!(
        copy == before["0000000000000001.segment"],
        "the copy is the file as it was"
    );
    assert_said(&said("check", &data, &[]), SOUND, &["sound"]);

    server.restart().await;
    all_but(&server, &acked, &[4]).await;
    acked.extend(put_each(&server.client(), STREAM, 20..25).await);
    all_but(&server, &acked, &[4]).await;
    server.kill9().await;
    server.restart().await;
    all_but(&server, &acked, &[4]).await;
    assert_eq!(
        count(&read_stream(&server.client(), "other").await.unwrap()),
        3
    );
}

/// Damage within what the last segment holds, which no server starts on: its refusal names the command, and after the repair all but the record is
/// there, and new sequence numbers are greater.
#[tokio::test]
async fn s8_a_refused_start_names_the_commands_that_help() {
    let _alone = alone().await;
    let (mut server, mut acked) = two_segments().await;
    let (_, path) = segments(server.data()).pop().unwrap();
    let victim = runs(&path)[3];
    flip(&path, victim.at + 45);
    let data = server.data().to_owned();
    let refused = server.restart_refused().await;
    let shown = data.display();
    for command in [
        format!("millstream check {shown}"),
        format!("millstream repair {shown}"),
    ] {
        assert!(refused.stderr.contains(&command), "{}", refused.stderr);
    }
    let place = format!("0000000000000002.segment at byte {}", victim.at);
    assert_said(&said("check", &data, &[]), DAMAGED, &[&place]);
    let _kept = Folder(copies(&data));
    assert_said(
        &said("repair", &data, &["--drop-damaged"]),
        SOUND,
        &["0000000000000003.segment is begun"],
    );
    assert_said(&said("check", &data, &[]), SOUND, &["sound"]);
    server.restart().await;
    all_but(&server, &acked, &[13]).await;
    let new = put_each(&server.client(), STREAM, 20..25).await;
    assert!(
        new.iter()
            .all(|new| acked.iter().all(|old| new.sequence > old.sequence))
    );
    acked.extend(new);
    all_but(&server, &acked, &[13]).await;
}

/// A directory that is served is left alone, while it starts as well; and what is looked at is not served meanwhile.
#[tokio::test]
async fn s8_a_served_directory_is_neither_checked_nor_repaired() {
    let _alone = alone().await;
    let server = ServerProcess::start(SERVER).await;
    let client = server.client();
    client.create_stream(STREAM, 1).await;
    let acked = put_each(&client, STREAM, 0..5).await;
    for (command, more) in [
        ("check", &[][..]),
        ("repair", &[]),
        ("repair", &["--drop-damaged"]),
    ] {
        let told = said(command, server.data(), more);
        assert_said(
            &told,
            CANNOT_TELL,
            &[
                "in use by another process",
                &server.data().display().to_string(),
            ],
        );
    }
    read_whole(&client, STREAM, &acked).await;
    assert!(!copies(server.data()).exists());
}

/// What is no data directory, or a newer one, is said to be that, and untouched.
#[tokio::test]
async fn s8_what_cannot_be_checked_is_said() {
    let parent = tempfile::tempdir().unwrap();
    let missing = parent.path().join("missing");
    let file = parent.path().join("file");
    fs::write(&file, "precious").unwrap();
    let foreign = parent.path().join("foreign");
    fs::create_dir(&foreign).unwrap();
    fs::write(foreign.join("thesis.tex"), "precious").unwrap();
    let newer = parent.path().join("newer");
    fs::create_dir(&newer).unwrap();
    fs::write(newer.join("FORMAT"), "millstream-log 3\n").unwrap();
    for (place, says) in [
        (&missing, "does not exist"),
        (&file, "it is a file"),
        (&foreign, "not a data directory"),
        (&newer, "newer version"),
    ] {
        for (command, more) in [
            ("check", &[][..]),
            ("repair", &[]),
            ("repair", &["--drop-damaged"]),
        ] {
            assert_said(&said(command, place, more), CANNOT_TELL, &[says]);
        }
    }
    assert!(!missing.exists());
    let left: Vec<_> = contents(&foreign).into_keys().collect();
    assert_eq!(left, ["thesis.tex"]);
    let left: Vec<_> = contents(&newer).into_keys().collect();
    assert_eq!(left, ["FORMAT"]);
}

/// A folder for copies that is there already, as one repair leaves it, is refused; another one is named by a flag.
#[tokio::test]
async fn s8_copies_are_never_written_over() {
    let _alone = alone().await;
    let (server, _) = two_segments().await;
    let path = first_segment(server.data());
    let victim = runs(&path)[2];
    flip(&path, victim.at + 50);
    let before = contents(server.data());
    let kept = Folder(copies(server.data()));
    fs::create_dir(&kept.0).unwrap();
    let told = said("repair", server.data(), &["--drop-damaged"]);
    assert_said(
        &told,
        CANNOT_TELL,
        &["File exists", "--copy-to", "nothing was changed"],
    );
    assert_unchanged(server.data(), &before);
    let elsewhere = tempfile::tempdir().unwrap();
    let folder = elsewhere.path().join("copies");
    let folder = folder.to_str().unwrap();
    let told = said(
        "repair",
        server.data(),
        &["--drop-damaged", "--copy-to", folder],
    );
    assert_said(&told, SOUND, &[folder]);
    assert_eq!(contents(Path::new(folder)).len(), 1);
}

/// `FORMAT`, certificate and key: damage is told, and made good; a missing segment of two, and one under a wrong name.
#[tokio::test]
async fn s8_other_files_are_checked_and_repaired() {
    let _alone = alone().await;
    let (mut server, acked) = two_segments().await;
    let data = server.data().to_owned();
    let sound = contents(&data);
    let spoil = |files: &BTreeMap<&str, Option<&[u8]>>| {
        for (name, bytes) in &sound {
            fs::write(data.join(name), bytes).unwrap();
        }
        for (name, bytes) in files {
            match bytes {
                Some(bytes) => fs::write(data.join(name), bytes).unwrap(),
                None => fs::remove_file(data.join(name)).unwrap(),
            }
        }
    };
    for (name, bytes) in [
        ("FORMAT", None),
        ("FORMAT", Some(&b"nillstream-log 1\n"[..])),
        ("tls-certificate.pem", Some(b"-----BEGIN NOTHING")),
        ("tls-key.pem", Some(b"")),
    ] {
        spoil(&BTreeMap::from([(name, bytes)]));
        let shown = if name.starts_with("tls") {
            "tls-certificate.pem"
        } else {
            name
        };
        assert_said(&said("check", &data, &[]), DAMAGED, &[shown]);
        let refused = server.restart_refused().await;
        assert_eq!(refused.code, Some(3), "{}", refused.stderr);
        let _kept = Folder(copies(&data));
        assert_said(&said("repair", &data, &["--drop-damaged"]), SOUND, &[shown]);
        assert_said(&said("check", &data, &[]), SOUND, &["sound"]);
        server.restart().await;
        all_but(&server, &acked, &[]).await;
        server.terminate().await;
    }

    // Nothing of the first is missed by a start, but an empty one between two would be.
    let wrong = "0000000000000005.segment";
    let second = "0000000000000002.segment";
    spoil(&BTreeMap::from([
        (second, None),
        (wrong, Some(&sound[second][..])),
    ]));
    let told = said("repair", &data, &["--drop-damaged"]);
    assert_said(
        &told,
        DAMAGED,
        &[
            &format!("rename the file to {second}"),
            "nothing was changed",
        ],
    );
    fs::rename(data.join(wrong), data.join(second)).unwrap();
    assert_said(&said("check", &data, &[]), SOUND, &["sound"]);
}
