//! What leaves the retention: expired shards, whole log segments, and what is left out when segments are rewritten. Reads
//! never serve older records anyway (S7); this frees their space.

use crate::engine::catalog::{Catalog, Event, Shard, Stream};
use crate::engine::streams::change_only;
use crate::engine::{Engine, Error};
use crate::log::{LogShard, Rewritten, Transaction};
use crate::patience::Patience;
use millstream_wire::StreamArn;
use std::sync::Arc;

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
        // Space first: on a full disk nothing else here can be written.
        let trimmed = self.trim().await;
        self.remove_gone_streams().await?;
        self.remove_gone_consumers().await?;
        let catalog = self.catalog();
        let now_ms = self.now_ms();
        for stream in catalog.stored_streams() {
            if !self.expired_shards(stream, now_ms).is_empty() {
                self.expire_shards(&stream.arn).await?;
            }
        }
        let catalog = self.catalog();
        self.inner
            .throttle
            .retain(|shard| catalog.owner_of(shard).is_some());
        self.inner.subscriptions.forget_old();
        trimmed
    }

    async fn trim(&self) -> Result<(), Error> {
        let (engine, now_ms) = (self.clone(), self.now_ms());
        // The catalog as it is when a segment is looked at: a shard that was created since the trim
        // began must not be taken for one that is gone.
        let keep = move |shard| keep_from_ms(&engine.catalog(), shard, now_ms);
        self.inner.log.trim(keep).await?;
        Ok(())
    }

    /// One pass over sealed log segments: puts together and compresses what lies in them, without what has left the
    /// retention. May take long, at low priority.
    pub async fn rewrite(&self) -> Result<Rewritten, Error> {
        // Weak: a pass must not keep the service open.
        let inner = Arc::downgrade(&self.inner);
        let keep = move |shard| match inner.upgrade() {
            Some(inner) => {
                let patience = Patience::default();
                let engine = Engine { inner, patience };
                keep_from_ms(&engine.catalog(), shard, engine.now_ms())
            }
            None => Some(0),
        };
        Ok(self.inner.log.rewrite(keep).await?)
    }

    /// Whether records of the shard may still be served.
    pub(super) fn is_retained(&self, stream: &Stream, shard: &Shard, now_ms: u64) -> bool {
        let horizon_ms = stream.trim_horizon_ms(now_ms);
        // A clock that was set back closes a shard before the time of its newest record.
        let newest = || self.inner.log.tail(shard.log_shard());
        shard
            .closed_ms
            .is_none_or(|closed_ms| closed_ms >= horizon_ms)
            || newest().is_some_and(|tail| tail.last_time_ms >= horizon_ms)
    }

    /// The closed shards of a stream whose last records have left the retention.
    fn expired_shards(&self, stream: &Stream, now_ms: u64) -> Vec<u32> {
        let shards = stream.shards.values();
        shards
            .filter(|shard| !self.is_retained(stream, shard, now_ms))
            .map(|shard| shard.index)
            .collect()
    }

    async fn expire_shards(&self, arn: &StreamArn) -> Result<(), Error> {
        self.transact(|catalog, moment| {
            let Some(stream) = catalog.stored_stream(arn) else {
                return Ok(None);
            };
            let shards = self.expired_shards(stream, moment.now_ms);
            if shards.is_empty() {
                return Ok(None);
            }
            let gone = stream
                .shards
                .values()
                .filter(|shard| shards.contains(&shard.index));
            let drop = gone.map(Shard::log_shard).collect();
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
