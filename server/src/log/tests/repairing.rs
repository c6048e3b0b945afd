//! Damaged logs are checked and repaired: each damage is told with its place, nothing is dropped that was not named, what is
//! left is served, and numbers are not given out twice.

use std::collections::{BTreeMap, BTreeSet};

use crate::log::check::{Changes, Checked, Remedy, check};
use crate::log::disk::Disk;
use crate::log::extent::Index;
use crate::log::frame::Magic;
use crate::log::packed_index::padded;
use crate::log::repair::repair;
use crate::log::tests::damage::{Contents, SHARDS, Sealed, log_of};
use crate::log::tests::{
    EVERYTHING, Events, batch, create, is_rewritten, open, read_all, seal, texts,
};
use crate::log::{Error, LogShard, MemoryDisk, segment};

const KINDS: [Sealed; 3] = [Sealed::Left, Sealed::Rewritten, Sealed::UsedAgain];

type Records = BTreeMap<u64, Vec<(u64, String)>>;

const LATE_COMMITS: u64 = 18;

/// Records that one frame of these logs holds at most.
const IN_ONE_FRAME: usize = 2;

/// A log and what is in it.
struct Whole {
    contents: Contents,
    events: Events,
    records: Records,
    /// How many records at most may be lost unnamed.
    unnamed: usize,
    /// Where what an earlier segment left in the last file begins.
    left: Option<usize>,
}

impl Whole {
    /// The greatest counter of all.
    fn greatest(&self) -> Option<u64> {
        let records = self.records.values().flatten();
        records.map(|(counter, _)| *counter).max()
    }

    /// The end of what a file has, and the end of what its segment wrote.
    fn ends(&self, name: &str) -> (usize, usize) {
        let bytes = &self.contents[name];
        let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        let is_last = self
            .contents
            .keys()
            .next_back()
            .is_some_and(|last| last == name);
        (end, self.left.filter(|_| is_last).unwrap_or(end))
    }
}

/// How its process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Closed,
    Killed,
}

/// Several segments, two shards, one of them sealed; two lives, so that two epochs are in it.
async fn whole(sealed: Sealed, end: End) -> Whole {
    let (contents, ..) = log_of(sealed).await;
    let disk = MemoryDisk::with_contents(contents);
    let log = open(&disk).unwrap();
    log.commit(create("third", &[3])).await.unwrap();
    // The last files are those of earlier segments only after some more.
    let commits = if sealed == Sealed::UsedAgain {
        LATE_COMMITS
    } else {
        3
    };
    for number in 0..commits {
        let text = format!("late {number}");
        let several = [
            (LogShard(1), batch(&[&text])),
            (LogShard(3), batch(&[&text, "x"])),
        ];
        let appended = log.append_all(several.into_iter().collect()).await;
        appended.unwrap();
        if sealed == Sealed::UsedAgain {
            log.rewrite(|_| Some(0)).await.unwrap();
        }
    }
    log.commit(seal("seal third", &[3])).await.unwrap();
    // What nothing comes after cannot be told from a torn tail: one more commit speaks for all before.
    log.append(LogShard(1), batch(&["last"])).await.unwrap();
    log.commit(create("a word for all", &[])).await.unwrap();
    let mut records = Records::new();
    for shard in all_shards() {
        let all = read_all(&log, LogShard(shard), EVERYTHING).await.unwrap();
        records.insert(shard, all);
    }
    let events = Events::clone(&log.metadata());
    let killed = disk.contents();
    log.close().await;
    let mut contents = match end {
        End::Closed => disk.contents(),
        End::Killed => killed,
    };
    contents.retain(|name, _| segment::number(name).is_some());
    let notes = checked(&MemoryDisk::with_contents(contents.clone())).notes;
    let left = notes
        .iter()
        .find(|note| note.text.contains("left by an earlier segment"));
    assert_eq!(left.is_some(), sealed == Sealed::UsedAgain, "{notes:?}");
    let left = left.map(|note| usize::try_from(note.offset).unwrap());
    Whole {
        contents,
        events,
        records,
        unnamed: IN_ONE_FRAME,
        left,
    }
}

fn all_shards() -> impl Iterator<Item = u64> {
    SHARDS.into_iter().chain([3])
}

fn checked(disk: &MemoryDisk) -> Checked<Events> {
    let before = disk.contents();
    let checked = check(disk).unwrap();
    assert!(disk.contents() == before, "a check changed files");
    checked
}

/// What became of a damaged log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Nothing was found.
    Sound,
    Repaired,
    BeyondRepair,
}

/// Checks and repairs, and holds what is found against the whole log.
async fn fate(damaged: Contents, whole: &Whole, case: &str) -> Fate {
    let disk = MemoryDisk::with_contents(damaged);
    let found = checked(&disk);
    if found.findings.is_empty() {
        let log = open(&disk).unwrap_or_else(|error| panic!("{case}: sound and {error}"));
        assert_eq!(&*log.metadata(), &whole.events, "{case}");
        for (shard, expected) in &whole.records {
            let read = read_all(&log, LogShard(*shard), EVERYTHING).await;
            assert_eq!(&read.unwrap(), expected, "{case}: sound");
        }
        return Fate::Sound;
    }
    serves_nothing_wrong(&disk, &found, whole, case).await;
    if found.is_beyond_repair() {
        return Fate::BeyondRepair;
    }
    let mut kept = BTreeSet::new();
    let before = disk.contents();
    repair(&disk, &found, &mut |name| {
        kept.insert(name.to_owned());
        Ok(())
    })
    .unwrap_or_else(|error| panic!("{case}: {error}"));
    for (name, bytes) in disk.contents() {
        let changed = before.get(&name).is_some_and(|before| *before != bytes);
        assert!(
            !changed || kept.contains(&name),
            "{case}: {name} was not kept"
        );
    }
    judge(&disk, &found, whole, case).await;
    Fate::Repaired
}

/// A server that is started on a damaged log all the same refuses, or serves what is right and tells what is not: shards that lost nothing
/// are read as if nothing had been.
async fn serves_nothing_wrong(
    disk: &MemoryDisk,
    found: &Checked<Events>,
    whole: &Whole,
    case: &str,
) {
    let damaged: BTreeSet<u64> = found
        .findings
        .iter()
        .filter_map(|one| one.segment)
        .collect();
    let is_told = |error: &Error| match error {
        Error::Corrupt {
            segment, reason, ..
        } => damaged.contains(segment) || reason.contains("missing"),
        _ => false,
    };
    let log = match open(&MemoryDisk::with_contents(disk.contents())) {
        Ok(log) => log,
        Err(error) => return assert!(is_told(&error), "{case}: {error} and {found:?}"),
    };
    assert_eq!(&*log.metadata(), &whole.events, "{case}");
    let lost = found.findings.iter().flat_map(|one| &one.lost);
    let lost: BTreeSet<u64> = lost.map(|lost| lost.shard.0).collect();
    for (shard, expected) in &whole.records {
        match read_all(&log, LogShard(*shard), EVERYTHING).await {
            Ok(read) => assert_eq!(&read, expected, "{case}: shard {shard} of {found:?}"),
            Err(error) => {
                assert!(is_told(&error), "{case}: {error} and {found:?}");
                assert!(
                    lost.contains(shard),
                    "{case}: shard {shard}, {error}, {found:?}"
                );
            }
        }
    }
}

/// What was not named as lost is there, nothing else is, and new numbers are greater than all.
async fn judge(disk: &MemoryDisk, found: &Checked<Events>, whole: &Whole, case: &str) {
    let again = checked(disk);
    assert_eq!(again.findings, [], "{case}: after {:?}", found.findings);
    let log = open(disk).unwrap_or_else(|error| panic!("{case}: {error} after {found:?}"));
    let changes = found.findings.iter().map(|one| one.changes);
    if changes.clone().all(|changes| changes == Changes::Kept) {
        assert_eq!(&*log.metadata(), &whole.events, "{case}: {found:?}");
    } else {
        let mut left = whole.events.0.iter();
        let is_part = |event| left.any(|one| one == event);
        assert!(
            log.metadata().0.iter().all(is_part),
            "{case}: {:?}",
            log.metadata()
        );
    }
    let lost: Vec<_> = found.findings.iter().flat_map(|one| &one.lost).collect();
    // What nothing comes after may be lost unnamed: no more than one flipped frame holds, and it is said.
    let is_open = found.findings.iter().any(|one| one.is_open);
    let mut unnamed = if is_open { whole.unnamed } else { 0 };
    let greatest = whole.greatest();
    for (shard, expected) in &whole.records {
        let is_lost = |counter: u64| {
            let within = |lost: &&&crate::log::Lost| {
                lost.shard.0 == *shard && (lost.first..lost.end).contains(&counter)
            };
            lost.iter().any(|lost| within(&lost))
        };
        let read = match read_all(&log, LogShard(*shard), EVERYTHING).await {
            Err(Error::Unknown(_)) if changes.clone().any(|one| one == Changes::Lost) => Vec::new(),
            read => read.unwrap_or_else(|error| panic!("{case}: {error} after {found:?}")),
        };
        let mut left = expected.iter().peekable();
        for record in &read {
            while let Some(missing) = left.next_if(|one| one.0 < record.0) {
                assert!(
                    is_lost(missing.0),
                    "{case}: {shard} {missing:?} of {found:?}"
                );
            }
            assert_eq!(left.next(), Some(record), "{case}: wrong data");
        }
        for missing in left.filter(|missing| !is_lost(missing.0)) {
            assert!(unnamed > 0, "{case}: {shard} {missing:?} of {found:?}");
            unnamed -= 1;
        }
        if let Ok(appended) = log.append(LogShard(*shard), batch(&["new"])).await {
            assert!(
                Some(appended.first) > greatest,
                "{case}: {appended:?} is not new"
            );
            let texts = texts(&log, *shard).await;
            assert_eq!(texts.len(), read.len() + 1, "{case}");
        }
    }
    // Readers that start in what was lost go on behind it.
    for one in &lost {
        for from in [one.first, one.end - 1] {
            let read = log.read(one.shard, from, EVERYTHING, 0).await;
            assert!(
                matches!(read, Ok(_) | Err(Error::Unknown(_))),
                "{case}: {read:?}"
            );
        }
    }
}

fn scaled(normal: usize, long: usize) -> usize {
    let is_long = std::env::var("MILLSTREAM_LONG").is_ok_and(|is_long| is_long == "1");
    if is_long { long } else { normal }
}

/// Every byte in the long variant, one of some in the short one, others in each file.
fn sampled(bytes: usize, file: usize) -> impl Iterator<Item = usize> {
    let step = scaled(17, 1);
    (file % step..bytes).step_by(step)
}

/// Bits flipped all over logs of all kinds: each is told with segment and place, or costs nothing; and is repaired or said to be beyond it.
#[tokio::test]
async fn s8_a_flipped_bit_is_told_and_repaired() {
    for sealed in KINDS {
        for end in [End::Closed, End::Killed] {
            let whole = whole(sealed, end).await;
            flip_everywhere(&whole, &format!("{sealed:?} {end:?}")).await;
        }
    }
}

async fn flip_everywhere(whole: &Whole, kind: &str) {
    let disk = MemoryDisk::with_contents(whole.contents.clone());
    assert_eq!(checked(&disk).findings, [], "{kind}");
    let last = whole.contents.keys().next_back().unwrap();
    let mut fates = BTreeMap::new();
    for (file, name) in whole.contents.keys().enumerate() {
        let number = segment::number(name).unwrap();
        // In the last segment what comes after the last frame was never written, or by an earlier one.
        let (end, own_end) = whole.ends(name);
        for at in sampled(end, file) {
            let mut damaged = whole.contents.clone();
            damaged.get_mut(name).unwrap()[at] ^= 1 << (at % 8);
            let case = format!("{kind} {name} byte {at} of {end}");
            let disk = MemoryDisk::with_contents(damaged.clone());
            let told = checked(&disk).findings;
            let is_there = |one: &crate::log::Finding| {
                let at = u64::try_from(at).unwrap();
                one.segment == Some(number)
                    && one.offset <= at
                    && (at < one.end || one.end == one.offset)
            };
            if at >= own_end {
                assert_eq!(told, [], "{case}");
                assert_eq!(fate(damaged, whole, &case).await, Fate::Sound);
                continue;
            }
            // The word of the last commit of all is not spoken for.
            let unspoken = name == last && told.is_empty();
            assert!(unspoken || told.iter().any(is_there), "{case}: {told:?}");
            let fate = if unspoken {
                at_the_end(&disk, whole, &case).await
            } else {
                fate(damaged, whole, &case).await
            };
            *fates.entry(format!("{fate:?}")).or_insert(0) += 1;
        }
    }
    println!("{kind}: {fates:?}");
    assert!(fates["Repaired"] > 10);
}

/// The last commit of all was flipped, and is taken for a torn tail: all the others are there.
async fn at_the_end(disk: &MemoryDisk, whole: &Whole, case: &str) -> Fate {
    // What begins as no frame of this segment, before what an earlier one left, is told as more of that.
    let is_told = |text: &str| {
        text.contains("torn tail")
            || whole.left.is_some() && text.contains("left by an earlier segment")
    };
    let notes = checked(disk).notes;
    assert!(
        notes.iter().any(|note| is_told(&note.text)),
        "{case}: {notes:?}"
    );
    let log = open(disk).unwrap();
    for (shard, expected) in &whole.records {
        let read = read_all(&log, LogShard(*shard), EVERYTHING).await.unwrap();
        assert_eq!(&read, expected, "{case}");
    }
    Fate::Sound
}

/// Each segment cut at each length; the last one may end anywhere behind what was written.
#[tokio::test]
async fn s8_a_file_that_was_cut_is_told_and_repaired() {
    for sealed in KINDS {
        let whole = whole(sealed, End::Closed).await;
        let mut fates = BTreeMap::new();
        let last = whole.contents.keys().next_back().unwrap();
        for (file, (name, bytes)) in whole.contents.iter().enumerate() {
            if name == last {
                // Without what comes after, its end is not to be told from one that was never written.
                continue;
            }
            for length in sampled(bytes.len(), file) {
                let mut damaged = whole.contents.clone();
                damaged.get_mut(name).unwrap().truncate(length);
                let case = format!("{sealed:?} {name} cut at {length} of {}", bytes.len());
                let fate = fate(damaged, &whole, &case).await;
                assert_ne!(fate, Fate::Sound, "{case}");
                *fates.entry(format!("{fate:?}")).or_insert(0) += 1;
            }
        }
        println!("{sealed:?}: {fates:?}");
        assert_eq!(fates.len(), 1, "all are repaired: {fates:?}");
    }
}

/// Regions of zeros, as a lost write or a bad block leaves them, and regions of noise.
#[tokio::test]
async fn s8_a_region_that_was_overwritten_is_told_and_repaired() {
    for sealed in KINDS {
        let mut whole = whole(sealed, End::Closed).await;
        // Several frames, of which nothing may come later.
        whole.unnamed = 100;
        let mut fates = BTreeMap::new();
        let mut random = fastrand::Rng::with_seed(7);
        for (file, (name, bytes)) in whole.contents.iter().enumerate() {
            let (_, end) = whole.ends(name);
            // Frames of the last segment come after it, and say that it was durable.
            let end = end.saturating_sub(200);
            for at in sampled(end, file) {
                for (length, noise) in [(64, false), (512, false), (64, true)] {
                    let mut damaged = whole.contents.clone();
                    let region = at..end.min(at + length);
                    for byte in &mut damaged.get_mut(name).unwrap()[region] {
                        *byte = if noise { random.u8(..) } else { 0 };
                    }
                    if damaged[name] == *bytes {
                        continue;
                    }
                    let case = format!("{sealed:?} {name} {length} bytes from {at} noise {noise}");
                    let fate = fate(damaged, &whole, &case).await;
                    assert_ne!(fate, Fate::Sound, "{case}");
                    *fates.entry(format!("{fate:?}")).or_insert(0) += 1;
                }
            }
        }
        println!("{sealed:?}: {fates:?}");
        assert!(fates["Repaired"] > 50);
    }
}

/// Each segment missing, each under another's name, a copy of each as a further one.
#[tokio::test]
async fn s8_files_that_were_mixed_up_are_told() {
    for sealed in KINDS {
        let mut whole = whole(sealed, End::Closed).await;
        // Of what was in the last segment nothing else tells.
        whole.unnamed = 100;
        let names: Vec<&String> = whole.contents.keys().collect();
        let last = names.len();
        for (at, name) in names.iter().enumerate() {
            let mut missing = whole.contents.clone();
            let bytes = missing.remove(*name).unwrap();
            if at == 0 {
                // The oldest one missing looks as if it had been trimmed.
                assert_eq!(checked(&MemoryDisk::with_contents(missing)).findings, []);
                continue;
            }
            let case = format!("{sealed:?} {name} missing");
            let found = fate(missing.clone(), &whole, &case).await;
            assert_eq!(found, Fate::Repaired, "{case}");
            // Under a name behind the last one it is found, and renaming it back loses nothing.
            let further = segment::name(segment::number(names[last - 1]).unwrap() + 3);
            missing.insert(further.clone(), bytes.clone());
            let disk = MemoryDisk::with_contents(missing);
            let found = checked(&disk);
            let to = (*name).clone();
            let is_renamed = |one: &crate::log::Finding| {
                one.file == further && one.remedy == Remedy::Rename { to: to.clone() }
            };
            assert!(
                found.findings.iter().any(is_renamed),
                "{case}: {:?}",
                found.findings
            );
            assert!(found.is_beyond_repair());

            // A copy of it there is taken away.
            let mut doubled = whole.contents.clone();
            doubled.insert(further.clone(), bytes);
            let case = format!("{sealed:?} {name} doubled");
            assert_eq!(fate(doubled, &whole, &case).await, Fate::Repaired, "{case}");
        }
    }
}

/// The last segment is gone, or its snapshot is, and the one before has been rewritten: nothing else says which streams there were. It
/// is said, and nothing is touched.
#[tokio::test]
async fn s8_what_is_beyond_repair_is_said() {
    let whole = whole(Sealed::Rewritten, End::Closed).await;
    let is_plain = |name: &String| !is_rewritten(name, &whole.contents[name]);
    let mut contents = whole.contents.clone();
    while contents.keys().next_back().is_some_and(is_plain) {
        let last = contents.keys().next_back().unwrap().clone();
        contents.remove(&last);
    }
    assert!(contents.len() > 1);
    let gone = MemoryDisk::with_contents(contents.clone());
    let found = checked(&gone);
    assert!(found.is_beyond_repair(), "{found:?}");
    let name = segment::name(u64::try_from(contents.len()).unwrap() + 1);
    let mut bytes = whole.contents[&name].clone();
    bytes[60] ^= 1;
    contents.insert(name.clone(), bytes);
    let later = whole.contents.iter().filter(|(later, _)| **later > name);
    assert!(later.count() > 0, "this one has a footer of its own");
    let found = checked(&MemoryDisk::with_contents(contents));
    assert!(found.is_beyond_repair(), "{found:?}");
}

/// A repair that stops at any of its operations, as by a power cut, leaves a log that the next one repairs.
#[tokio::test]
async fn s8_a_repair_may_be_stopped_anywhere() {
    let mut stops = 0;
    for sealed in KINDS {
        let mut whole = whole(sealed, End::Closed).await;
        whole.unnamed = 2 * IN_ONE_FRAME;
        let mut damaged = whole.contents.clone();
        for name in [
            segment::name(2),
            damaged.keys().next_back().unwrap().clone(),
        ] {
            let at = whole.ends(&name).1 / 2;
            damaged.get_mut(&name).unwrap()[at] ^= 4;
        }
        let first = checked(&MemoryDisk::with_contents(damaged.clone()));
        assert!(first.findings.len() >= 2, "{:?}", first.findings);
        for stop in 0.. {
            let disk = MemoryDisk::with_contents(damaged.clone());
            let found = check::<Events>(&disk).unwrap();
            disk.fail_from(disk.operations() + stop, std::io::ErrorKind::Other);
            let done = repair(&disk, &found, &mut |_| Ok(()));
            disk.repair();
            if done.is_ok() {
                break;
            }
            stops += 1;
            for seed in 0..4 {
                let left = disk.crash(seed);
                let case = format!("{sealed:?} stopped at {stop}, seed {seed}");
                let again = checked(&left);
                assert!(!again.is_beyond_repair(), "{case}: {again:?}");
                repair(&left, &again, &mut |_| Ok(())).unwrap();
                let mut all = first.findings.clone();
                all.extend(again.findings);
                let both = Checked {
                    findings: all,
                    ..again
                };
                judge(&left, &both, &whole, &case).await;
            }
        }
    }
    println!("stopped at {stops} operations");
    assert!(stops > 20);
}

/// What a start does by itself is no damage: a torn tail, a crash within a rotation, files laid out.
#[tokio::test]
async fn s8_what_a_start_mends_is_no_damage() {
    let disk = MemoryDisk::crashable();
    let log = open(&disk).unwrap();
    log.commit(create("create", &[1])).await.unwrap();
    for number in 0..60 {
        log.append(LogShard(1), batch(&[&format!("record {number}")]))
            .await
            .unwrap();
    }
    // Frozen at each of many instants, between two operations.
    drop(log);
    let total = disk.operations();
    let mut notes = BTreeSet::new();
    for stop in 0..total {
        let disk = MemoryDisk::crashable();
        disk.fail_from(stop, std::io::ErrorKind::Other);
        if let Ok(log) = open(&disk) {
            let _ = log.commit(create("create", &[1])).await;
            for number in 0..60 {
                let text = format!("record {number}");
                if log.append(LogShard(1), batch(&[&text])).await.is_err() {
                    break;
                }
            }
            drop(log);
        }
        disk.repair();
        for seed in 0..3 {
            let left = disk.crash(seed);
            let found = checked(&left);
            assert_eq!(found.findings, [], "stopped at {stop}, seed {seed}");
            notes.extend(
                found
                    .notes
                    .into_iter()
                    .map(|note| note.text[..8].to_owned()),
            );
            open(&left).unwrap();
        }
    }
    let notes: Vec<&str> = notes.iter().map(String::as_str).collect();
    assert_eq!(notes, ["a torn t", "no segme", "without "]);
}

/// Seeds that found a defect: an epoch given out again, and counters of the next segment that began before the end of the one before.
const FOUND_SOMETHING: [u64; 2] = [589, 6133];

/// Several damages at once, of all kinds, by chance: whatever is found, a repair leaves a log that is sound and served, without anything wrong in
/// it and without a number given out twice; or it says that it cannot.
#[tokio::test]
async fn s8_any_mixture_of_damage_is_repaired_or_refused() {
    let wholes = [
        whole(Sealed::Left, End::Closed).await,
        whole(Sealed::Rewritten, End::Killed).await,
    ];
    let mut fates = BTreeMap::new();
    let seeds = 0..u64::try_from(scaled(150, 20_000)).unwrap();
    for seed in seeds.chain(FOUND_SOMETHING) {
        let mut random = fastrand::Rng::with_seed(seed);
        let whole = &wholes[random.usize(..2)];
        let mut damaged = whole.contents.clone();
        for _ in 0..random.usize(1..6) {
            spoil(&mut damaged, &whole.contents, &mut random);
        }
        let disk = MemoryDisk::with_contents(damaged);
        let case = format!("seed {seed}");
        let found = checked(&disk);
        let fate = if found.findings.is_empty() {
            Fate::Sound
        } else if found.is_beyond_repair() {
            let before = disk.contents();
            assert!(open(&disk).is_err() || disk.contents() != before);
            Fate::BeyondRepair
        } else {
            repair(&disk, &found, &mut |_| Ok(())).unwrap();
            is_served(&disk, &found, whole, &case).await;
            Fate::Repaired
        };
        *fates.entry(format!("{fate:?}")).or_insert(0) += 1;
    }
    println!("{fates:?}");
    assert!(fates["Repaired"] > 50, "{fates:?}");
}

/// Damages one of the files. The end of the last one stays: without it nothing tells what was written.
fn spoil(damaged: &mut Contents, whole: &Contents, random: &mut fastrand::Rng) {
    let names: Vec<String> = damaged.keys().cloned().collect();
    let name = &names[random.usize(..names.len())];
    let is_last = Some(name) == whole.keys().next_back();
    let other = whole[names.iter().find(|one| whole.contains_key(*one)).unwrap()].clone();
    let bytes = damaged.get_mut(name).unwrap();
    let written = bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |last| last + 1);
    let end = if is_last {
        written.saturating_sub(200)
    } else {
        written
    };
    if end == 0 {
        return;
    }
    let at = random.usize(..end);
    let region = at..end.min(at + random.usize(1..300));
    match random.u8(..10) {
        0..4 => bytes[at] ^= 1 << random.u8(..8),
        4 => bytes[region].fill(0),
        5 => bytes[region]
            .iter_mut()
            .for_each(|byte| *byte = random.u8(..)),
        6 if !is_last => bytes.truncate(at),
        7 if !is_last && names.len() > 2 => drop(damaged.remove(name)),
        8 if !is_last => *bytes = other,
        9 => drop(bytes.splice(at..at, vec![random.u8(..); random.usize(1..30)])),
        _ => {}
    }
}

/// After a repair: sound, and all that is read was written, in its order; new numbers are greater.
async fn is_served(disk: &MemoryDisk, found: &Checked<Events>, whole: &Whole, case: &str) {
    assert_eq!(
        checked(disk).findings,
        [],
        "{case}: after {:?}",
        found.findings
    );
    let log = open(disk).unwrap_or_else(|error| panic!("{case}: {error} after {found:?}"));
    let greatest = whole.greatest();
    for (shard, expected) in &whole.records {
        let read = match read_all(&log, LogShard(*shard), EVERYTHING).await {
            Err(Error::Unknown(_)) => continue,
            read => read.unwrap_or_else(|error| panic!("{case}: {error} after {found:?}")),
        };
        let mut left = expected.iter();
        let is_next = |record| left.any(|one| one == record);
        assert!(read.iter().all(is_next), "{case}: {read:?} after {found:?}");
        if let Ok(appended) = log.append(LogShard(*shard), batch(&["new"])).await {
            assert!(
                Some(appended.first) > greatest,
                "{case}: {appended:?} after {found:?}"
            );
            let after = texts(&log, *shard).await.len();
            assert_eq!(after, read.len() + 1, "{case}");
        }
    }
}

/// Where frames begin, and where each ends, padding included.
fn frames_of(bytes: &[u8]) -> Vec<(usize, usize)> {
    let mut frames = Vec::new();
    let mut at = 0;
    while at + 40 < bytes.len() {
        let length = bytes[at + 4..at + 8].try_into().unwrap();
        let body_bytes = usize::try_from(u32::from_be_bytes(length)).unwrap();
        let end = (at + 40 + body_bytes).next_multiple_of(8);
        if body_bytes == 0 || end > bytes.len() {
            break;
        }
        frames.push((at, end));
        at = end;
    }
    frames
}

/// A frame that holds lies where another one of its segment was, as when a disk writes a block to the wrong place: its checksum says nothing, what
/// it holds does.
#[tokio::test]
async fn s8_a_frame_in_the_place_of_another_is_told_and_repaired() {
    for sealed in KINDS {
        let whole = whole(sealed, End::Closed).await;
        let mut misplaced = 0;
        for (name, bytes) in whole.contents.iter().rev().skip(1) {
            let frames = frames_of(bytes);
            for (at, end) in &frames {
                for (other, other_end) in &frames {
                    if at == other || end - at != other_end - other {
                        continue;
                    }
                    let mut damaged = whole.contents.clone();
                    let file = damaged.get_mut(name).unwrap();
                    file.copy_within(*other..*other_end, *at);
                    let case = format!("{sealed:?} {name} {other} at {at}");
                    assert_eq!(fate(damaged, &whole, &case).await, Fate::Repaired, "{case}");
                    misplaced += 1;
                }
            }
        }
        println!("{sealed:?}: {misplaced} misplaced");
        assert!(misplaced > 0);
    }
}

/// A footer whose checksum holds names a block with one record more, or of another time, than the block has: what a check tells before a reader
/// meets it.
#[tokio::test]
async fn s8_a_block_that_is_not_what_the_footer_says_is_told() {
    let whole = whole(Sealed::Rewritten, End::Closed).await;
    let is_packed = |(name, bytes): &(&String, &Vec<u8>)| is_rewritten(name, bytes);
    let (name, bytes) = whole.contents.iter().find(is_packed).unwrap();
    let number = segment::number(name).unwrap();
    let magic = Magic::begun(bytes).unwrap();
    let disk = MemoryDisk::with_contents(whole.contents.clone());
    let file = disk.open(name).unwrap();
    for lie in 0..2 {
        let footer = segment::read_footer(file.as_ref(), number, magic).unwrap();
        let Index::Packed(mut index) = footer.index else {
            panic!("a rewritten segment");
        };
        let block = &mut index.shards.values_mut().next().unwrap().blocks[0];
        let lied_at = block.offset;
        match lie {
            0 => (block.count, block.end) = (block.count - 1, block.end - 1),
            _ => block.last_time_ms += 1,
        }
        let blocks = index.shards.values().flat_map(|part| &part.blocks);
        let footer_at = blocks.map(|block| padded(block.length)).sum();
        let mut damaged = whole.contents.clone();
        let forged = damaged.get_mut(name).unwrap();
        forged.truncate(usize::try_from(footer_at).unwrap());
        let end = segment::packed_footer(footer_at, &index, footer.place, magic);
        forged.extend_from_slice(&end);
        let found = checked(&MemoryDisk::with_contents(damaged)).findings;
        let is_there = |one: &crate::log::Finding| {
            one.segment == Some(number) && one.offset == lied_at && one.remedy == Remedy::Drop
        };
        assert!(found.iter().any(is_there), "lie {lie}: {found:?}");
    }
}
