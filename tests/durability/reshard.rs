//! Random splits and merges, what was acknowledged of them, and whether a listing holds all of it.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use support::check::Violation;
use support::client::{CallError, RawClient, text};
use support::history::Sequence;
use support::reader::{is_closed, range_of};

/// Open shards are kept between these numbers.
const OPEN_SHARDS: std::ops::RangeInclusive<usize> = 2..=8;

/// A reshard that was acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reshard {
    /// A shard was split, the second child beginning at `at`.
    Split {
        /// The shard.
        shard: String,
        /// Where the second child begins.
        at: u128,
    },
    /// Two neighbours became one.
    Merge {
        /// The shards, the one with the lower hash keys first.
        shards: [String; 2],
    },
}

/// Splits and merges shards of one stream at random.
#[derive(Debug)]
pub(crate) struct Resharder {
    client: RawClient,
    stream: String,
    random: fastrand::Rng,
    acked: Vec<Reshard>,
}

impl Resharder {
    pub(crate) fn new(client: &RawClient, stream: &str, random: fastrand::Rng) -> Resharder {
        Resharder {
            client: client.clone(),
            stream: stream.to_owned(),
            random,
            acked: Vec::new(),
        }
    }

    /// What was acknowledged so far.
    pub(crate) fn acked(&self) -> &[Reshard] {
        &self.acked
    }

    /// One split or merge of the stream as it is now. This is the only resharder, so that nothing but a
    /// server that does not answer is an error.
    pub(crate) async fn step(&mut self) -> Result<(), CallError> {
        let mut open = self.client.list_shards(&self.stream).await?;
        open.retain(|shard| !is_closed(shard));
        open.sort_by_key(range_of);
        let grow = open.len() <= *OPEN_SHARDS.start()
            || (open.len() < *OPEN_SHARDS.end() && self.random.bool());
        let reshard = if grow {
            let shard = &open[self.random.usize(..open.len())];
            let (start, end) = range_of(shard);
            Reshard::Split {
                shard: text(shard, "ShardId"),
                at: self.random.u128(start + 2..end),
            }
        } else {
            let first = self.random.usize(..open.len() - 1);
            Reshard::Merge {
                shards: [
                    text(&open[first], "ShardId"),
                    text(&open[first + 1], "ShardId"),
                ],
            }
        };
        let (operation, input) = match &reshard {
            Reshard::Split { shard, at } => (
                "SplitShard",
                json!({"StreamName": self.stream, "ShardToSplit": shard,
                       "NewStartingHashKey": at.to_string()}),
            ),
            Reshard::Merge { shards } => (
                "MergeShards",
                json!({"StreamName": self.stream, "ShardToMerge": shards[0],
                       "AdjacentShardToMerge": shards[1]}),
            ),
        };
        self.client.call(operation, &input).await?;
        self.acked.push(reshard);
        Ok(())
    }

    /// Goes on, with random pauses of at most that long, until the server does not answer.
    pub(crate) async fn until_unanswered(mut self, pause: Duration) -> Resharder {
        loop {
            match self.step().await {
                Ok(()) => tokio::time::sleep(pause.mul_f64(self.random.f64())).await,
                Err(CallError::Unanswered(_)) => return self,
                Err(error) => panic!("a reshard was refused: {error}"),
            }
        }
    }
}

/// The hash key ranges of the open shards.
pub(crate) fn open_ranges(listed: &[Value]) -> Vec<(u128, u128)> {
    let open = listed.iter().filter(|shard| !is_closed(shard));
    open.map(range_of).collect()
}

/// S1 for metadata: every acknowledged reshard is there, parents closed and children in their places;
/// S2: children begin above where their parents ended.
pub(crate) fn reshards_hold(acked: &[Reshard], listed: &[Value]) -> Result<(), Violation> {
    let by_id: BTreeMap<String, &Value> = listed
        .iter()
        .map(|shard| (text(shard, "ShardId"), shard))
        .collect();
    let mut children: BTreeMap<[Option<&str>; 2], Vec<(u128, u128)>> = BTreeMap::new();
    for shard in listed {
        let parents = ["ParentShardId", "AdjacentParentShardId"].map(|name| shard[name].as_str());
        children.entry(parents).or_default().push(range_of(shard));
    }
    for reshard in acked {
        let (parents, at): (Vec<&String>, _) = match reshard {
            Reshard::Split { shard, at } => (vec![shard], Some(*at)),
            Reshard::Merge { shards } => (shards.iter().collect(), None),
        };
        let mut ranges = Vec::new();
        for parent in &parents {
            match by_id.get(*parent) {
                Some(shard) if is_closed(shard) => ranges.push(range_of(shard)),
                Some(_) => return Err(format!("S1: {reshard:?} was lost, {parent} is open")),
                None => return Err(format!("S1: {reshard:?}, but {parent} is gone")),
            }
        }
        let (start, end) = (ranges[0].0, ranges[ranges.len() - 1].1);
        let expected = match at {
            Some(at) => vec![(start, at - 1), (at, end)],
            None => vec![(start, end)],
        };
        let adjacent = parents.get(1).map(|parent| parent.as_str());
        let of = [Some(parents[0].as_str()), adjacent];
        let mut children = children.get(&of).cloned().unwrap_or_default();
        children.sort_unstable();
        if children != expected {
            return Err(format!(
                "S1: {reshard:?} left {children:?}, not {expected:?}"
            ));
        }
    }
    listed
        .iter()
        .try_for_each(|child| above_parents(child, &by_id))
}

fn above_parents(child: &Value, by_id: &BTreeMap<String, &Value>) -> Result<(), Violation> {
    let sequence = |shard: &Value, name: &str| {
        let text = shard["SequenceNumberRange"][name].as_str();
        text.map(Sequence::new)
    };
    let start = sequence(child, "StartingSequenceNumber");
    for name in ["ParentShardId", "AdjacentParentShardId"] {
        let Some(parent) = child[name].as_str().and_then(|id| by_id.get(id)) else {
            continue;
        };
        let end = sequence(parent, "EndingSequenceNumber");
        if start.is_none() || end.is_none() || start <= end {
            return Err(format!(
                "S2: {child} does not begin above its parent {parent}"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard(
        id: &str,
        parents: [Option<&str>; 2],
        range: (u128, u128),
        numbers: (u64, Option<u64>),
    ) -> Value {
        let mut shard = json!({
            "ShardId": id,
            "HashKeyRange": {"StartingHashKey": range.0.to_string(), "EndingHashKey": range.1.to_string()},
            "SequenceNumberRange": {"StartingSequenceNumber": numbers.0.to_string()},
        });
        if let Some(end) = numbers.1 {
            shard["SequenceNumberRange"]["EndingSequenceNumber"] = json!(end.to_string());
        }
        for (name, parent) in ["ParentShardId", "AdjacentParentShardId"]
            .iter()
            .zip(parents)
        {
            if let Some(parent) = parent {
                shard[*name] = json!(parent);
            }
        }
        shard
    }

    /// 0..=99 split at 40, and merged again.
    fn sound() -> (Vec<Reshard>, Vec<Value>) {
        let acked = vec![
            Reshard::Split {
                shard: "a".to_owned(),
                at: 40,
            },
            Reshard::Merge {
                shards: ["b".to_owned(), "c".to_owned()],
            },
        ];
        let listed = vec![
            shard("a", [None, None], (0, 99), (5, Some(10))),
            shard("b", [Some("a"), None], (0, 39), (11, Some(20))),
            shard("c", [Some("a"), None], (40, 99), (11, Some(20))),
            shard("d", [Some("b"), Some("c")], (0, 99), (21, None)),
        ];
        (acked, listed)
    }

    #[test]
    fn the_checker_accepts_what_is_sound_and_notices_what_was_lost() {
        let (acked, listed) = sound();
        reshards_hold(&acked, &listed).unwrap();
        assert_eq!(open_ranges(&listed), [(0, 99)]);

        let merge_lost: Vec<Value> = listed[..3].to_vec();
        assert!(reshards_hold(&acked, &merge_lost).is_err(), "a lost child");
        let mut open_again = merge_lost.clone();
        open_again[1] = shard("b", [Some("a"), None], (0, 39), (11, None));
        assert!(
            reshards_hold(&acked, &open_again).is_err(),
            "a parent open again"
        );
        assert!(
            reshards_hold(&acked, &listed[1..]).is_err(),
            "a parent gone"
        );
        let mut moved = listed.clone();
        moved[2] = shard("c", [Some("a"), None], (41, 99), (11, Some(20)));
        assert!(reshards_hold(&acked, &moved).is_err(), "a child elsewhere");
        let mut below = listed;
        below[3] = shard("d", [Some("b"), Some("c")], (0, 99), (20, None));
        assert!(
            reshards_hold(&acked, &below).is_err(),
            "a child that begins too low"
        );
    }
}
