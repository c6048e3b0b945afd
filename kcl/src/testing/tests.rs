//! The probe does what a worker does.

use super::*;
use crate::checkpoint::{Checkpointer, Position};
use crate::error::ErrorKind;
use crate::processor::{ProcessorError, RecordBatch, RecordProcessor, ShardInfo};
use async_trait::async_trait;

/// Checkpoints where it is told to.
#[derive(Default)]
struct Obedient {
    initialized_at: Option<Position>,
    checkpoints: bool,
    kept: Option<Checkpointer>,
}

#[async_trait]
impl RecordProcessor for Obedient {
    async fn initialize(&mut self, shard: &ShardInfo) -> Result<(), ProcessorError> {
        self.initialized_at = Some(shard.position);
        Ok(())
    }

    async fn process_records(
        &mut self,
        _batch: RecordBatch,
        checkpointer: &Checkpointer,
    ) -> Result<(), ProcessorError> {
        self.kept = Some(checkpointer.clone());
        if self.checkpoints {
            checkpointer.checkpoint().await?;
        }
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn calls_are_made_and_told_in_order() {
    let mut probe = ShardProbe::new(Obedient::default());
    probe.deliver([("k", "a"), ("k", "b")]).await.unwrap();
    probe.processor_mut().checkpoints = true;
    pass(Duration::from_hours(100)).await;
    probe.deliver([("k", "c")]).await.unwrap();
    let calls: Vec<_> = probe
        .calls()
        .iter()
        .map(|call| (call.call, call.records.len(), call.checkpoint))
        .collect();
    let after = |number| record(number, "k", "").position();
    let expected = [
        (ProbeCall::Initialize, 0, Position::TrimHorizon),
        (ProbeCall::ProcessRecords, 2, Position::TrimHorizon),
        (ProbeCall::ProcessRecords, 1, after(3)),
    ];
    assert_eq!(calls, expected);
    assert_eq!(
        probe.processor().initialized_at,
        Some(Position::TrimHorizon)
    );
}

#[tokio::test(start_paused = true)]
async fn k9_a_shutdown_stores_what_was_handled() {
    let mut probe = ShardProbe::new(Obedient::default());
    probe.deliver([("k", "a"), ("k", "b")]).await.unwrap();
    assert_eq!(probe.checkpointed(), 0);
    probe.request_shutdown().await.unwrap();
    assert_eq!(probe.checkpointed(), 2);
    let late = probe.redeliver().await.unwrap_err();
    let late = late.downcast_ref::<crate::Error>().map(crate::Error::kind);
    assert_eq!(late, Some(ErrorKind::LeaseLost));
}

#[tokio::test(start_paused = true)]
async fn k1_a_lost_lease_refuses_checkpoints() {
    let mut probe = ShardProbe::new(Obedient::default());
    probe.deliver([("k", "a")]).await.unwrap();
    probe.lose_lease().await.unwrap();
    let kept = probe.processor().kept.clone().unwrap();
    assert_eq!(
        kept.checkpoint().await.unwrap_err().kind(),
        ErrorKind::LeaseLost
    );
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_shard_is_stored() {
    let mut probe = ShardProbe::new(Obedient::default());
    probe.deliver([("k", "a")]).await.unwrap();
    probe.end_shard().await.unwrap();
    assert_eq!(probe.checkpoint(), Position::ShardEnd);
    assert_eq!(probe.checkpointed(), 1);
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "not within 3s: the cows come home")]
async fn what_never_holds_is_said() {
    eventually("the cows come home", Duration::from_secs(3), || false).await;
}
