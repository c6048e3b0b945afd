//! After a reset every record from the new place on is delivered again, whatever was resharded before and after, and whether workers live.

use super::*;
use crate::client::KinesisApi;
use crate::fake::EPOCH_MS;
use millstream_wire::SequenceNumber;
use proptest::prelude::*;
use std::collections::BTreeMap;

#[derive(Debug, Clone)]
enum Step {
    Put { shard: usize, count: usize },
    Split { shard: usize },
    Merge { shard: usize },
}

#[derive(Debug, Clone, Copy)]
enum To {
    Horizon,
    Latest,
    /// The beginning of this step, of those before the reset.
    Step(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0usize..8, 1usize..25).prop_map(|(shard, count)| Step::Put { shard, count }),
        1 => (0usize..8).prop_map(|shard| Step::Split { shard }),
        1 => (0usize..8).prop_map(|shard| Step::Merge { shard }),
    ]
}

/// A stream that is changed step by step, and what was put with which of them.
struct Stage {
    kinesis: FakeKinesis,
    put: BTreeMap<SequenceNumber, usize>,
    /// When each step began, by the server's clock.
    began_ms: Vec<u64>,
    origin: tokio::time::Instant,
}

impl Stage {
    fn now_ms(&self) -> u64 {
        EPOCH_MS + u64::try_from(self.origin.elapsed().as_millis()).unwrap()
    }

    async fn play(&mut self, steps: &[Step]) {
        for step in steps {
            tokio::time::sleep(Duration::from_millis(700)).await;
            let number = self.began_ms.len();
            self.began_ms.push(self.now_ms());
            let listed = self.kinesis.list_shards("orders").await.unwrap();
            let mut open: Vec<_> = listed
                .iter()
                .enumerate()
                .filter(|(_, shard)| !shard.closed)
                .collect();
            open.sort_by_key(|(_, shard)| shard.hash_key_range.start);
            let open: Vec<usize> = open.into_iter().map(|(index, _)| index).collect();
            match step {
                Step::Put { shard, count } => {
                    self.kinesis.put_many(open[shard % open.len()], *count);
                }
                Step::Split { shard } if open.len() < 6 => {
                    self.kinesis.split(open[shard % open.len()]);
                }
                Step::Merge { shard } if open.len() > 1 => {
                    let lower = shard % (open.len() - 1);
                    self.kinesis.merge(open[lower], open[lower + 1]);
                }
                Step::Split { .. } | Step::Merge { .. } => {}
            }
            for sequence in self.kinesis.put_so_far() {
                self.put.entry(sequence).or_insert(number);
            }
        }
    }
}

/// Steps, a reset, steps; then everything from the new place on comes again, in tenures that began after it.
async fn scenario(before: &[Step], to: To, lives: bool, after: &[Step]) -> Result<(), String> {
    let kinesis = FakeKinesis::new(2);
    let store = MemoryLeaseStore::new();
    let journal = Journal::default();
    let mut stage = Stage {
        kinesis: kinesis.clone(),
        put: BTreeMap::new(),
        began_ms: Vec::new(),
        origin: tokio::time::Instant::now(),
    };
    let frequent = |id| builder(&kinesis, store.clone(), id).shard_sync_interval(SECOND * 2);
    let first = launch(frequent("w"), &journal, "w").await;
    stage.play(before).await;
    tokio::time::sleep(SECOND * 2).await;
    let (start, from) = match to {
        To::Horizon => (StartAt::TrimHorizon, 0),
        To::Latest => (StartAt::Latest, before.len()),
        To::Step(step) => {
            let step = step % before.len();
            (StartAt::Time(stage.began_ms[step]), step)
        }
    };
    let request = ResetRequest::new(start, "anna");
    let (request, first) = if lives {
        (request.force(Force::TakeFromTheLiving), Some(first))
    } else {
        first.stop().await;
        (request, None)
    };
    let app = app(&kinesis, store.clone());
    app.reset(&request)
        .await
        .map_err(|error| error.to_string())?;
    let last = journal
        .entries()
        .iter()
        .map(|entry| entry.tenure)
        .max()
        .unwrap_or(0);
    let worker = match first {
        Some(first) => first,
        None => launch(frequent("w"), &journal, "w").await,
    };
    stage.play(after).await;
    tokio::time::sleep(SECOND * 90).await;
    worker.stop().await;
    journal.entries().retain(|entry| entry.tenure > last);
    let expected = stage.put.iter().filter(|(_, step)| **step >= from);
    let expected: Vec<SequenceNumber> = expected.map(|(sequence, _)| *sequence).collect();
    journal.check_no_loss(&expected)?;
    if let To::Latest = to {
        return Ok(());
    }
    journal.check_order()?;
    journal.check_no_duplicates()?;
    match journal
        .deliveries()
        .keys()
        .find(|record| stage.put[record] < from)
    {
        Some(early) => Err(format!("{early} came, which was put before the new place")),
        None => Ok(()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn k3_k4_after_a_reset_everything_from_the_new_place_on_comes_again(
        before in prop::collection::vec(step(), 1..8),
        to in prop_oneof![Just(To::Horizon), Just(To::Latest), (0usize..8).prop_map(To::Step)],
        lives in any::<bool>(),
        after in prop::collection::vec(step(), 0..4),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        let verdict = runtime.block_on(scenario(&before, to, lives, &after));
        prop_assert_eq!(verdict, Ok(()));
    }
}
