//! S8 and S1 for the end of the log: what a crash left half-written is cut off, and nothing else.

use crate::SERVER;
use crate::puts::{count, put_each, read_whole};
use crate::segment_file::{Frame, first_segment, frames, segments};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use support::{ServerProcess, alone, scaled, seeded};

const STREAM: &str = "torn";

fn write_at(segment: &Path, bytes: &[u8], at: usize) {
    let file = File::options().write(true).open(segment).unwrap();
    file.write_all_at(bytes, u64::try_from(at).unwrap())
        .unwrap();
}

/// What a write that was never synced may leave behind the last frame.
fn garbage(segment: &[u8], last: &Frame, random: &mut fastrand::Rng) -> Vec<Vec<u8>> {
    let mut noise = |bytes: usize| -> Vec<u8> { (0..bytes).map(|_| random.u8(..)).collect() };
    let frame = &segment[last.at..last.at + last.bytes];
    let mut huge = frame.to_vec();
    huge[4..8].fill(0xff);
    let mut elsewhere = vec![0; 4096];
    elsewhere.extend(noise(512));
    vec![
        noise(1),
        noise(5_000),
        frame[..4].to_vec(),
        frame[..40].to_vec(),
        frame[..frame.len() / 2].to_vec(),
        frame[..frame.len() - 1].to_vec(),
        huge,
        elsewhere,
    ]
}

/// Bytes behind the last frame, as an unclean stop may leave them, cost nothing that was acknowledged; and
/// they are gone for good: they do not come back behind what is written next.
#[tokio::test]
async fn s8_what_was_never_acknowledged_is_cut() {
    let _alone = alone().await;
    let mut random = seeded("s8_torn_tail");
    let mut server = ServerProcess::start(SERVER).await;
    let client = server.client();
    client.create_stream(STREAM, 2).await;
    let mut acked = put_each(&client, STREAM, 0..10).await;
    let path = first_segment(server.data());
    for kind in 0..8 {
        server.kill9().await;
        let segment = fs::read(&path).unwrap();
        let all = frames(&segment);
        let last = all[all.len() - 1];
        let tail = garbage(&segment, &last, &mut random).remove(kind);
        write_at(&path, &tail, last.end());

        server.restart().await;
        let whole = read_whole(&client, STREAM, &acked).await;
        assert_eq!(count(&whole), acked.len(), "tail {kind}");
        let next = 10 * (u64::try_from(kind).unwrap() + 1);
        acked.extend(put_each(&client, STREAM, next..next + 10).await);
    }
    server.terminate().await;
    server.restart().await;
    let whole = read_whole(&client, STREAM, &acked).await;
    assert_eq!(count(&whole), acked.len());
}

/// The last commit is torn at a random byte, with zeros behind or with the end of the file there: what was
/// acknowledged before it is served, it is not, and its number is not given out again (S2).
#[tokio::test]
async fn s8_a_torn_commit_is_cut_as_one() {
    let _alone = alone().await;
    let mut random = seeded("s8_torn_commit");
    let mut server = ServerProcess::start(SERVER).await;
    let client = server.client();
    client.create_stream(STREAM, 1).await;
    let acked = put_each(&client, STREAM, 0..10).await;
    let torn = put_each(&client, STREAM, 10..11).await;
    server.kill9().await;
    let path = first_segment(server.data());
    let sound = fs::read(&path).unwrap();
    let all = frames(&sound);
    let last = all[all.len() - 1];
    assert!(
        all.iter().all(|frame| frame.durable < last.commit),
        "nothing says it was durable"
    );

    let mut keeps: Vec<usize> = (0..scaled(4, 100))
        .map(|_| random.usize(1..last.bytes))
        .collect();
    keeps.extend([0, 40, last.bytes - 1]);
    for keep in keeps {
        for is_short in [false, true] {
            let mut bytes = sound.clone();
            bytes[last.at + keep..].fill(0);
            bytes.truncate(if is_short {
                last.at + keep
            } else {
                sound.len()
            });
            // A record may end in zeros, so that its frame is whole without them.
            let is_torn = keep < last.bytes
                && sound[last.at + keep..last.at + last.bytes]
                    .iter()
                    .any(|b| *b != 0);
            assert!(is_torn, "kept {keep} of {}", last.bytes);
            // A file that ends early has no room: the turn before went on in further segments.
            for (_, path) in segments(server.data()) {
                fs::remove_file(path).unwrap();
            }
            fs::write(&path, &bytes).unwrap();

            server.restart().await;
            let whole = read_whole(&client, STREAM, &acked).await;
            assert_eq!(count(&whole), acked.len(), "kept {keep} of {}", last.bytes);
            let mut after = acked.clone();
            after.extend(put_each(&client, STREAM, 11..14).await);
            assert!(
                after[10].sequence > torn[0].sequence,
                "S2: {} was given out before",
                after[10].sequence
            );
            // What was written over the tear is as durable as the rest.
            server.kill9().await;
            server.restart().await;
            read_whole(&client, STREAM, &after).await;
            server.kill9().await;
        }
    }
}
