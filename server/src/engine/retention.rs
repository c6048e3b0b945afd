//! What leaves the retention: expired shards and whole log segments. Reads never serve older records
//! anyway (S7); this frees their space.

use crate::engine::catalog::{Catalog, Event, Stream};
use crate::engine::streams::change_only;
use crate::engine::{Engine, Error};
use crate::log::{LogShard, Transaction};
use millstream_wire::StreamArn;

/// The closed shards of a stream whose last records have left the retention.
fn expired_shards(stream: &Stream, now_ms: u64) -> Vec<u32> {
    let horizon = stream.trim_horizon_ms(now_ms);
    let closed = stream
        .shards
        .values()
        .filter_map(|s| s.closed_ms.map(|at| (s.index, at)));
    closed
        .filter(|(_, closed_ms)| *closed_ms < horizon)
        .map(|(index, _)| index)
        .collect()
}

/// The oldest time whose records of `shard` must be kept; `None` if nothing of it is needed any more.
fn keep_from_ms(catalog: &Catalog, shard: LogShard, now_ms: u64) -> Option<u64> {
    let (stream, _) = catalog.owner_of(shard)?;
    stream
        .status(now_ms)
        .map(|_| stream.trim_horizon_ms(now_ms))
}

impl Engine {
    /// One sweep: removes what has left the retention.
    pub async fn sweep(&self) -> Result<(), Error> {
        self.remove_gone_streams().await?;
        self.remove_gone_consumers().await?;
        let catalog = self.catalog();
        let now_ms = self.now_ms();
        for stream in catalog.stored_streams() {
            if !expired_shards(stream, now_ms).is_empty() {
                self.expire_shards(&stream.arn).await?;
            }
        }
        let catalog = self.catalog();
        let keep = catalog.clone();
        self.inner
            .throttle
            .retain(|shard| keep.owner_of(shard).is_some());
        self.inner.subscriptions.forget_old();
        self.inner
            .log
            .trim(move |shard| keep_from_ms(&catalog, shard, now_ms))
            .await?;
        Ok(())
    }

    async fn expire_shards(&self, arn: &StreamArn) -> Result<(), Error> {
        self.transact(|catalog, moment| {
            let Some(stream) = catalog.stored_stream(arn) else {
                return Ok(None);
            };
            let shards = expired_shards(stream, moment.now_ms);
            if shards.is_empty() {
                return Ok(None);
            }
            let gone = stream
                .shards
                .values()
                .filter(|shard| shards.contains(&shard.index));
            let drop = gone.map(super::catalog::Shard::log_shard).collect();
            let event = Event::ShardsExpired {
                arn: arn.clone(),
                shards,
            };
            Ok(Some(Transaction {
                drop,
                ..change_only(&event)
            }))
        })
        .await?;
        Ok(())
    }
}
