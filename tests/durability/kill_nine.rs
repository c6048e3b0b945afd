//! S1 and S2: kill -9 at any instant loses nothing that was acknowledged and reuses no number.

use crate::SERVER;
use crate::offline::assert_sound;
use crate::reshard::{Resharder, open_ranges, reshards_hold};
use crate::segment_file::{leave_little_room, segments};
use crate::witness::Witness;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;
use support::check::{extends, stream_is_whole, tiles};
use support::load::{Load, Shape};
use support::process::Process;
use support::reader::read_stream;
use support::{ServerProcess, alone, scaled, seeded};
use tokio::time::Instant;

const STREAM: &str = "kill-nine";
/// The resharder works in every third cycle.
const RESHARD_EVERY: usize = 3;
/// The longest pause from one reshard to the next.
const RESHARD_PAUSE: Duration = Duration::from_millis(100);

/// What kind of lives the server leads.
#[derive(Debug)]
struct Lives {
    name: &'static str,
    flags: &'static [&'static str],
    shape: Shape,
    cycles: usize,
    /// How long one takes, milliseconds.
    length_ms: Range<u64>,
    /// Splits and merges are under way in every third.
    resharding: bool,
    /// Each begins with an active segment that is nearly full.
    rotating: bool,
    /// Lives go on until there are so many segments, up to [`CYCLES_MORE`] times as many.
    segments: usize,
}

const SMALL: Shape = Shape {
    writers: 16,
    pause: Duration::from_millis(10),
    batch: 4,
    padding_bytes: 0,
};

/// Commits that are written past the page cache and small ones take turns.
const LARGE: Shape = Shape {
    writers: 2,
    pause: Duration::from_millis(10),
    batch: 50,
    padding_bytes: 4000,
};

/// How many times as many cycles a slow disk may need to fill its segments.
const CYCLES_MORE: usize = 5;

/// What came of them.
#[derive(Debug)]
struct Outcome {
    acked: usize,
    reshards: usize,
    shards: usize,
    segments: usize,
}

/// What a kill leaves is no damage: a check has nothing to find after one in so many.
const CHECK_EVERY: usize = 3;

/// Starts the server and kills it, most times before it is ready: amid its recovery.
async fn die_at_the_start(server: &ServerProcess, after: Duration) {
    let data = server.data().display().to_string();
    let arguments = ["serve", "--port", "0", "--data-dir", &data].map(str::to_owned);
    let mut process = Process::spawn(Path::new(SERVER), &arguments, &[]);
    tokio::time::sleep(after).await;
    process.kill9().await;
}

async fn live_and_die(lives: &Lives) -> Outcome {
    let mut random = seeded(lives.name);
    let mut server = ServerProcess::start_with(SERVER, lives.flags).await;
    let client = server.client();
    client.create_stream(STREAM, 4).await;
    let load = Load::start(&client, STREAM, lives.shape);
    let mut resharder = Resharder::new(&client, STREAM, random.fork());
    let mut witness = Witness::of(STREAM);
    let mut checked = 0;
    let mut restarts = Vec::new();
    for cycle in 0..lives.cycles * CYCLES_MORE {
        if cycle >= lives.cycles && segments(server.data()).len() >= lives.segments {
            break;
        }
        let length = Duration::from_millis(random.u64(lives.length_ms.clone()));
        if lives.resharding && cycle % RESHARD_EVERY == 1 {
            let task = tokio::spawn(resharder.until_unanswered(RESHARD_PAUSE));
            tokio::time::sleep(length).await;
            server.kill9().await;
            resharder = task.await.unwrap();
        } else {
            tokio::time::sleep(length).await;
            server.kill9().await;
        }
        if lives.rotating {
            leave_little_room(server.data(), random.usize(..20_000));
        }
        if cycle % RESHARD_EVERY == 2 {
            die_at_the_start(&server, Duration::from_millis(random.u64(..120))).await;
        }
        if cycle % CHECK_EVERY == 0 {
            assert_sound(server.data());
        }
        let began = Instant::now();
        server.restart().await;
        restarts.push(began.elapsed());

        let new = load.acked_since(checked);
        checked += new.len();
        witness.read_on(&client).await.unwrap();
        let listed = client.list_shards(STREAM).await.unwrap();
        let verdict = witness
            .has(&new)
            .and_then(|()| tiles(&open_ranges(&listed)))
            .and_then(|()| reshards_hold(resharder.acked(), &listed));
        verdict.unwrap_or_else(|wrong| panic!("cycle {cycle}: {wrong}"));
    }

    let (acked, refusals) = load.stop().await;
    assert_eq!(refusals, [], "nothing but the kills came in between");
    let whole = read_stream(&client, STREAM).await.unwrap();
    stream_is_whole(&acked, &whole).unwrap();
    extends(&witness.shards(), &whole).unwrap();
    restarts.sort_unstable();
    let (median, longest) = (restarts[restarts.len() / 2], restarts[restarts.len() - 1]);
    let outcome = Outcome {
        acked: acked.len(),
        reshards: resharder.acked().len(),
        shards: whole.len(),
        segments: segments(server.data()).len(),
    };
    println!(
        "kill -9, {}: {} cycles, {outcome:?}, lost 0; restart median {median:?}, longest {longest:?}",
        lives.name,
        restarts.len()
    );
    assert!(outcome.acked >= lives.cycles * 10, "hardly a load");
    outcome
}

/// Kills the server again and again under 16 writers (64 in the long form), some of the time amid splits and merges, some of the
/// time a second time while it starts. After every restart what was acknowledged since the last one is read back; at the end all of it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s1_s2_kill_nine() {
    let _alone = alone().await;
    let lives = Lives {
        name: "s1_s2_kill_nine",
        flags: &["--limits", "off"],
        shape: Shape {
            writers: scaled(SMALL.writers, 64),
            ..SMALL
        },
        cycles: scaled(25, 1000),
        length_ms: 50..500,
        resharding: true,
        rotating: false,
        segments: 0,
    };
    let outcome = live_and_die(&lives).await;
    assert!(
        outcome.reshards >= lives.cycles / RESHARD_EVERY,
        "{outcome:?}: hardly any reshards"
    );
    assert!(
        outcome.shards >= 4 + outcome.reshards,
        "{outcome:?}: a reshard leaves one shard more at least"
    );
}

/// The same around the change from one segment to the next.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s1_s2_kill_nine_amid_rotation() {
    let _alone = alone().await;
    let lives = Lives {
        name: "s1_s2_kill_nine_amid_rotation",
        flags: &["--limits", "off"],
        shape: SMALL,
        cycles: scaled(15, 300),
        length_ms: 5..150,
        resharding: true,
        rotating: true,
        segments: 0,
    };
    let outcome = live_and_die(&lives).await;
    assert!(
        outcome.segments >= lives.cycles / 4,
        "{outcome:?}: hardly any rotation"
    );
}

/// Where a power cut may lose something by choice, a killed process still loses nothing: what was written is
/// with the system.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s1_s2_kill_nine_without_syncs() {
    const MODES: [&[&str]; 2] = [
        &["--limits", "off", "--durability", "none"],
        &["--limits", "off", "--durability", "interval=50"],
    ];
    let _alone = alone().await;
    for flags in MODES {
        let lives = Lives {
            name: "s1_s2_kill_nine_without_syncs",
            flags,
            shape: SMALL,
            cycles: scaled(5, 100),
            length_ms: 50..300,
            resharding: true,
            rotating: false,
            segments: 0,
        };
        live_and_die(&lives).await;
    }
}

/// The same of commits of 200 KiB, into segments that were laid out in zeros and ones that were reserved.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s1_s2_kill_nine_amid_large_commits() {
    let _alone = alone().await;
    let lives = Lives {
        name: "s1_s2_kill_nine_amid_large_commits",
        flags: &["--limits", "off"],
        shape: LARGE,
        cycles: scaled(12, 40),
        length_ms: 50..600,
        resharding: true,
        rotating: false,
        segments: 3,
    };
    let outcome = live_and_die(&lives).await;
    assert!(outcome.segments >= 3, "{outcome:?}: hardly any rotation");
}
