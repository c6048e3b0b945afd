//! Whether a segment goes on where the one before ended. Pure.

use crate::log::check::examined::{Before, End, Examined};
use crate::log::check::report::Lost;
use crate::log::{LogShard, Metadata};

/// Records that must have been in the segment before, by what this one begins with.
pub(crate) fn missing<M>(before: &Before<M>, this: &Examined<M>) -> Vec<Lost> {
    if before.is_whole {
        return Vec::new();
    }
    let mut lost = Vec::new();
    for (shard, start) in starts(this) {
        let end = before.ends.get(&shard).copied().unwrap_or_default();
        if end.next < start.next {
            lost.push(Lost {
                shard,
                first: end.next,
                end: start.next,
                records: None,
            });
        }
    }
    lost
}

/// Where each shard begins, as far as it was written.
fn starts<M>(this: &Examined<M>) -> Vec<(LogShard, End)> {
    if let Some(begins) = &this.begins {
        let shards = begins.shards.iter();
        let start = shards.map(|(shard, state)| {
            let (next, time_ms) = (state.next, state.last_time_ms);
            (*shard, End { next, time_ms })
        });
        return start.collect();
    }
    if !this.is_indexed {
        return Vec::new();
    }
    let parts = this.index.view().iter();
    parts
        .map(|(shard, part)| {
            let (next, time_ms) = (part.start(), part.start_time_ms());
            (shard, End { next, time_ms })
        })
        .collect()
}

/// What does not go on; `None` if all does.
pub(crate) fn breach<M: Metadata>(
    before: &Before<M>,
    this: &Examined<M>,
    known_commit: bool,
) -> Option<String> {
    let number = before.number;
    if let Some(begins) = &this.begins {
        let expected = before.commit + 1;
        if known_commit && begins.commit != expected {
            let found = begins.commit;
            return Some(format!(
                "it begins with commit {found}, segment {number} ends before {expected}"
            ));
        }
    } else if this.is_indexed && this.place.commit <= before.commit {
        return Some(format!("it ends before segment {number} does"));
    }
    for (shard, start) in starts(this) {
        let end = before.ends.get(&shard).copied().unwrap_or_default();
        if start.next < end.next || start.time_ms < end.time_ms {
            return Some(format!(
                "log shard {} begins with counter {}, and ends with {} in segment {number}",
                shard.0, start.next, end.next
            ));
        }
    }
    let state = before.state.as_ref().filter(|_| before.is_whole)?;
    let begins = this.begins.as_ref()?;
    if state.shards != begins.shards {
        return Some(format!(
            "its shards are not those at the end of segment {number}"
        ));
    }
    (state.metadata.0.is_some() && encoded(before) != begins.metadata)
        .then(|| format!("its metadata are not those at the end of segment {number}"))
}

fn encoded<M: Metadata>(before: &Before<M>) -> Vec<u8> {
    use crate::log::Metadata as _;
    before
        .state
        .as_ref()
        .map(|state| state.metadata.encode())
        .unwrap_or_default()
}
