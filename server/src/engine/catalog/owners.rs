//! Whose records a log shard holds. A stream's shards are numbered in the log as they are in the stream, by the run that was
//! created at once, so it takes a few words per run and not per shard: every change of the catalog copies it.

use super::{Arc, BTreeMap, Shard, Stream, StreamArn};
use crate::log::LogShard;

/// Runs of log shards, by the first.
#[derive(Debug, Clone, Default)]
pub(super) struct Owners(Arc<BTreeMap<u64, Run>>);

#[derive(Debug, Clone)]
struct Run {
    arn: Arc<StreamArn>,
    first_index: u32,
    count: u32,
}

impl Owners {
    /// The stream, and the index that its shard has there if it still has it: whoever asks must look.
    pub(super) fn find(&self, log_shard: LogShard) -> Option<(&StreamArn, u32)> {
        let (first, run) = self.0.range(..=log_shard.0).next_back()?;
        let offset = u32::try_from(log_shard.0 - first).ok()?;
        let index = run.first_index.checked_add(offset)?;
        (offset < run.count).then_some((&run.arn, index))
    }

    /// Adds shards of a stream, in the order of their log shards.
    pub(super) fn adopt<'s>(
        &mut self,
        arn: &Arc<StreamArn>,
        shards: impl IntoIterator<Item = &'s Shard>,
    ) {
        let runs = Arc::make_mut(&mut self.0);
        // The run that the next shard may go on: where it begins.
        let mut open: Option<u64> = None;
        for shard in shards {
            let current = open.and_then(|first| Some((first, runs.get_mut(&first)?)));
            match current {
                Some((first, run))
                    if shard.log_shard == first + u64::from(run.count)
                        && run.first_index.checked_add(run.count) == Some(shard.index) =>
                {
                    run.count += 1;
                }
                _ => {
                    let run = Run {
                        arn: Arc::clone(arn),
                        first_index: shard.index,
                        count: 1,
                    };
                    runs.insert(shard.log_shard, run);
                    open = Some(shard.log_shard);
                }
            }
        }
    }

    /// Forgets a stream.
    pub(super) fn forget(&mut self, arn: &StreamArn) {
        Arc::make_mut(&mut self.0).retain(|_, run| *run.arn != *arn);
    }

    /// Forgets what the stream has no shard of any more.
    pub(super) fn forget_expired(&mut self, stream: &Stream) {
        Arc::make_mut(&mut self.0).retain(|_, run| {
            let end = run.first_index.saturating_add(run.count);
            *run.arn != stream.arn || stream.shards.range(run.first_index..end).next().is_some()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millstream_wire::HashKeyRange;

    fn shard(index: u32, log_shard: u64) -> Shard {
        let HashKeyRange { start, end } = HashKeyRange::ALL;
        Shard {
            index,
            log_shard,
            start,
            end,
            parent: None,
            adjacent_parent: None,
            created_seconds: 1,
            closed_ms: None,
        }
    }

    #[test]
    fn ten_thousand_shards_that_were_created_at_once_are_one_run() {
        let arn = |name: &str| {
            let arn = format!("arn:aws:kinesis:us-east-1:000000000000:stream/{name}");
            Arc::new(arn.parse::<StreamArn>().unwrap())
        };
        let (first, second) = (arn("first"), arn("second"));
        let mut owners = Owners::default();
        let many: Vec<Shard> = (0..10_000)
            .map(|index| shard(index, 5 + u64::from(index)))
            .collect();
        owners.adopt(&first, &many);
        // Numbers that do not go on together are runs of their own.
        owners.adopt(
            &second,
            &[shard(0, 10_005), shard(1, 10_007), shard(3, 10_008)],
        );
        assert_eq!(owners.0.len(), 4);
        let found = |log_shard| owners.find(LogShard(log_shard));
        for (log_shard, expected) in [
            (4, None),
            (5, Some((&*first, 0))),
            (10_004, Some((&*first, 9_999))),
            (10_005, Some((&*second, 0))),
            (10_006, None),
            (10_007, Some((&*second, 1))),
            (10_008, Some((&*second, 3))),
            (10_009, None),
        ] {
            assert_eq!(found(log_shard), expected, "{log_shard}");
        }
        owners.forget(&first);
        assert_eq!(owners.find(LogShard(5)), None);
        assert!(owners.find(LogShard(10_008)).is_some());
    }
}
