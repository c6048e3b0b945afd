//! S8: what cannot be served rightly is refused at the start: said clearly, with exit code 3, and untouched.

use crate::SERVER;
use crate::puts::{count, put_each, read_whole};
use crate::segment_file::{
    Frame, RECORDS, assert_unchanged, contents, first_segment, frames, leave_little_room, segments,
};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;
use support::process::Ended;
use support::reader::read_shard;
use support::server::refused;
use support::{ServerProcess, alone, scaled, seeded, wait_until};

const STREAM: &str = "honest";
/// The exit code of an unusable data directory.
const UNUSABLE: i32 = 3;

fn assert_refused(ended: &Ended, says: &[&str]) {
    assert_eq!(ended.code, Some(UNUSABLE), "{}", ended.stderr);
    assert!(!ended.stdout.contains("Ready"), "{}", ended.stdout);
    for part in says {
        assert!(
            ended.stderr.contains(part),
            "no {part:?} in {}",
            ended.stderr
        );
    }
    assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
}

/// Two servers on one directory would each hand out the same numbers.
#[tokio::test]
async fn s8_a_second_process_is_refused_and_the_first_goes_on() {
    let _alone = alone().await;
    let server = ServerProcess::start(SERVER).await;
    let client = server.client();
    client.create_stream(STREAM, 1).await;
    let mut acked = put_each(&client, STREAM, 0..5).await;
    let directory = server.data().display().to_string();
    for turn in 1..=3 {
        let second = server.second_process().await;
        assert_refused(&second, &[&directory, "in use by another process"]);
        acked.extend(put_each(&client, STREAM, turn * 5..turn * 5 + 5).await);
    }
    read_whole(&client, STREAM, &acked).await;
}

fn flip(segment: &Path, at: usize, bit: u8) {
    let file = File::options()
        .read(true)
        .write(true)
        .open(segment)
        .unwrap();
    let mut byte = [0];
    let at = u64::try_from(at).unwrap();
    file.read_exact_at(&mut byte, at).unwrap();
    byte[0] ^= 1 << bit;
    file.write_all_at(&byte, at).unwrap();
}

/// How a server came to its end.
#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    Killed,
    Stopped,
}

/// Flips one bit of what was acknowledged, anywhere: the start names the segment and the frame's offset.
async fn flipped_bits(end: End) {
    let mut random = seeded("s8_flipped_bits");
    let mut server = ServerProcess::start(SERVER).await;
    let client = server.client();
    client.create_stream(STREAM, 2).await;
    let mut acked = put_each(&client, STREAM, 0..20).await;
    match end {
        End::Killed => server.kill9().await,
        End::Stopped => server.terminate().await,
    };
    let path = first_segment(server.data());
    let all = frames(&fs::read(&path).unwrap());
    let durable = all.iter().map(|frame| frame.durable).max().unwrap();
    // Nothing says that the last commit of a killed process was durable (docs/0001-log.md); a clean stop says
    // so of everything, and only its own word is not spoken for.
    let spoken_for: Vec<&Frame> = all.iter().filter(|frame| frame.commit <= durable).collect();
    let runs: Vec<&Frame> = spoken_for
        .iter()
        .copied()
        .filter(|frame| frame.kind == RECORDS)
        .collect();
    let last = usize::from(end == End::Killed);
    assert_eq!(runs.len(), 20 - last, "a commit for each put");

    let mut victims: Vec<&Frame> = vec![spoken_for[0], runs[0], runs[runs.len() - 1]];
    for _ in 0..scaled(9, 300) {
        victims.push(spoken_for[random.usize(..spoken_for.len())]);
    }
    for frame in victims {
        // The padding behind a frame holds nothing.
        let (at, bit) = (frame.at + random.usize(..frame.bytes), random.u8(..8));
        flip(&path, at, bit);
        let before = contents(server.data());
        let ended = server.restart_refused().await;
        let offset = format!("byte {}:", frame.at);
        assert_refused(&ended, &["segment 1 ", &offset]);
        assert_unchanged(server.data(), &before);
        flip(&path, at, bit);
    }
    // Undamaged, it is served as if nothing had been.
    server.restart().await;
    acked.extend(put_each(&client, STREAM, 20..25).await);
    read_whole(&client, STREAM, &acked).await;
}

#[tokio::test]
async fn s8_a_flipped_bit_is_refused_after_a_kill() {
    let _alone = alone().await;
    flipped_bits(End::Killed).await;
}

#[tokio::test]
async fn s8_a_flipped_bit_is_refused_after_a_clean_stop() {
    let _alone = alone().await;
    flipped_bits(End::Stopped).await;
}

/// Older segments are not read at every start. A damaged record in one is told when it is read: an error,
/// never the record, never the ones behind it as if it had not been; the other shard is served.
#[tokio::test]
async fn s8_damage_in_an_older_segment_is_told_when_it_is_read() {
    let _alone = alone().await;
    let mut server = ServerProcess::start(SERVER).await;
    let client = server.client();
    client.create_stream(STREAM, 1).await;
    client.create_stream("other", 1).await;
    let acked = put_each(&client, STREAM, 0..10).await;
    let others = put_each(&client, "other", 0..10).await;
    server.kill9().await;
    leave_little_room(server.data(), 0);
    server.restart().await;
    put_each(&client, STREAM, 10..20).await;
    server.terminate().await;
    assert_eq!(
        segments(server.data()).len(),
        2,
        "the first segment is an older one"
    );

    let path = first_segment(server.data());
    let all = frames(&fs::read(&path).unwrap());
    let runs: Vec<&Frame> = all.iter().filter(|frame| frame.kind == RECORDS).collect();
    let victim = runs[4];
    flip(&path, victim.at + victim.bytes - 1, 0);
    server.restart().await;
    let error = read_shard(&client, STREAM, &acked[0].shard, false)
        .await
        .unwrap_err();
    assert_eq!(error.code(), Some("InternalFailure"), "{error}");
    let told = format!("segment 1 is damaged at byte {}", victim.at);
    wait_until(
        "the log names the place",
        Duration::from_secs(5),
        || async { server.log().contains(&told).then_some(()) },
    )
    .await;
    read_whole(&client, "other", &others).await;

    server.kill9().await;
    flip(&path, victim.at + victim.bytes - 1, 0);
    server.restart().await;
    let whole = read_whole(&client, STREAM, &acked).await;
    assert_eq!(count(&whole), 20);
}

/// A segment of another log, or none, where acknowledged records were.
#[tokio::test]
async fn s8_a_segment_that_is_not_one_is_refused() {
    let _alone = alone().await;
    let mut server = ServerProcess::start(SERVER).await;
    let client = server.client();
    client.create_stream(STREAM, 1).await;
    let acked = put_each(&client, STREAM, 0..5).await;
    server.terminate().await;
    let path = first_segment(server.data());
    let sound = fs::read(&path).unwrap();
    for (what, bytes) in [
        ("empty", &b""[..]),
        ("text", b"not a segment"),
        ("zeros", &[0; 9_000]),
    ] {
        fs::write(&path, bytes).unwrap();
        let before = contents(server.data());
        let ended = server.restart_refused().await;
        assert_refused(&ended, &["segment 1 ", "byte 0:"]);
        assert_unchanged(server.data(), &before);
        println!("{what}: {}", ended.stderr);
    }
    // A number missing in the sequence of segments.
    fs::write(&path, &sound).unwrap();
    let third = server.data().join("0000000000000003.segment");
    fs::write(&third, &sound).unwrap();
    let before = contents(server.data());
    assert_refused(&server.restart_refused().await, &["segment 2 ", "missing"]);
    assert_unchanged(server.data(), &before);
    fs::remove_file(third).unwrap();
    server.restart().await;
    read_whole(&client, STREAM, &acked).await;
}

/// A newer version's directory is not for this one to change.
#[tokio::test]
async fn s8_a_newer_format_is_refused() {
    let _alone = alone().await;
    let mut server = ServerProcess::start(SERVER).await;
    let client = server.client();
    client.create_stream(STREAM, 1).await;
    let acked = put_each(&client, STREAM, 0..5).await;
    server.kill9().await;
    let format = server.data().join("FORMAT");
    let known = fs::read(&format).unwrap();
    for newer in ["millstream-log 3\n", "millstream-log 1.5 beta\n"] {
        fs::write(&format, newer).unwrap();
        let before = contents(server.data());
        let ended = server.restart_refused().await;
        assert_refused(&ended, &[newer.trim_end(), "newer version"]);
        assert_unchanged(server.data(), &before);
    }
    fs::write(&format, known).unwrap();
    server.restart().await;
    read_whole(&client, STREAM, &acked).await;
}

/// A file in the directory's place, a directory of somebody else's files, one whose log lost its FORMAT.
#[tokio::test]
async fn s8_what_is_no_data_directory_is_refused() {
    let parent = tempfile::tempdir().unwrap();
    let server = Path::new(SERVER);

    let file = parent.path().join("file");
    fs::write(&file, "precious").unwrap();
    let ended = refused(server, &file).await;
    let shown = file.display().to_string();
    assert_refused(&ended, &[&shown, "not a data directory", "it is a file"]);
    let ended = refused(server, &file.join("below")).await;
    assert_refused(&ended, &[&shown, "Not a directory"]);
    assert_eq!(fs::read(&file).unwrap(), b"precious");

    let foreign = parent.path().join("thesis");
    fs::create_dir(&foreign).unwrap();
    fs::write(foreign.join("thesis.tex"), "precious").unwrap();
    fs::write(foreign.join("thesis.bib"), "precious, too").unwrap();
    let before = contents(&foreign);
    let ended = refused(server, &foreign).await;
    assert_refused(
        &ended,
        &[
            &foreign.display().to_string(),
            "not a data directory",
            "thesis.",
        ],
    );
    assert_unchanged(&foreign, &before);

    fs::write(foreign.join("FORMAT"), "LaTeX 2e\n").unwrap();
    let before = contents(&foreign);
    let ended = refused(server, &foreign).await;
    assert_refused(&ended, &["not a data directory", "LaTeX 2e"]);
    assert_unchanged(&foreign, &before);
}
