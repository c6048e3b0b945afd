//! Why a shard does not move: what is known is gathered here, and judged in [`judge`](super::judge) (K10).

use super::Operations;
use super::judge::{Asked, Facts};
use super::lag::probe;
use super::watch::{Until, Watched, watch};
use crate::client::KinesisApi;
use crate::error::{Error, ErrorKind};
use crate::lease::LeaseKey;
use serde::Serialize;
use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

/// Why a shard is where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Why {
    /// The shard.
    pub shard_id: String,
    /// The stream's identity that its lease belongs to, where there is one.
    pub stream: Option<String>,
    /// The answer for scripts.
    pub reason: Reason,
    /// The answer in words.
    pub sentence: String,
    /// What else is worth knowing.
    pub details: Vec<String>,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.shard_id, self.sentence)?;
        for detail in &self.details {
            write!(f, "\n  {detail}")?;
        }
        Ok(())
    }
}

/// The answer for scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Reason {
    /// There is no stream of that name.
    StreamGone,
    /// The stream was deleted and created anew: the lease belongs to the former one.
    StreamRecreated,
    /// The row of the lease makes no sense.
    DamagedRow,
    /// Neither the endpoint nor the application knows the shard.
    NoSuchShard,
    /// The application has no lease for it.
    NoLease,
    /// Everything in it is done.
    Ended,
    /// Its parents come first.
    WaitsForParents,
    /// Its owner is dead.
    OwnerDead,
    /// Its owner was not heard, and may live.
    OwnerSilent,
    /// Its owner tells what fails.
    Failing,
    /// It is read faster than its limits allow.
    Throttled,
    /// Its records outlived the retention.
    ShardExpired,
    /// Nobody holds it, and no worker runs that could.
    NobodyRuns,
    /// Nobody holds it, and all workers hold as many as they may.
    NoRoom,
    /// Nobody holds it; a worker takes it within moments.
    SoonTaken,
    /// It is behind, and its owner tells of no trouble.
    Behind,
    /// It keeps up.
    KeepingUp,
    /// Its owner lives and tells of no trouble; more is not known, because the endpoint could not be asked.
    Held,
}

async fn ask(client: &dyn KinesisApi, stream: &str) -> Result<Asked, Error> {
    let summary = client.describe_stream(stream).await?;
    let shards = match client.list_shards(stream).await {
        // A stream that is being created has none yet.
        Err(error) if error.kind() == ErrorKind::Unavailable && summary.status == "CREATING" => {
            Vec::new()
        }
        listed => listed?,
    };
    Ok(Asked { summary, shards })
}

impl Operations {
    /// Why the shard is where it is: one clear answer. `shard` is its id, or the number in it. Heartbeats are listened for until of every worker
    /// it is known whether it lives, for `patience` at most.
    ///
    /// # Errors
    /// `NotFound`: the application has no leases and no stream is named. `Configuration`: it has leases of several streams and none is
    /// named. Others of the store. What the endpoint refuses is part of the answer.
    pub async fn why(&self, shard: &str, patience: Duration) -> Result<Why, Error> {
        let shard_id = full_id(shard);
        let watched = watch(&*self.store, &self.application, Until::AllKnown, patience).await?;
        let stream = self.stream_asked(&watched.last.snapshot)?;
        let client = self.client_for(&stream);
        let asked = match &client {
            Ok(client) => ask(&**client, &stream).await,
            Err(error) => Err(Error::new(error.kind(), error.to_string())),
        };
        let now = asked.as_ref().ok().map(|asked| asked.summary.identity());
        let key = self.key_of(&watched, &shard_id, now.as_deref());
        let mut facts = Facts {
            key,
            watched,
            asked,
            probed: None,
        };
        if let (Ok(client), Ok(asked), Some(lease)) = (&client, &facts.asked, facts.lease())
            && asked.summary.identity() == facts.key.stream
            && asked.shards.iter().any(|shard| shard.shard_id == shard_id)
        {
            let probed = probe(&**client, &stream, &shard_id, lease.checkpoint, 0).await;
            facts.probed = Some(probed);
        }
        let (reason, sentence) = facts.answer(&stream);
        let known = facts.lease().is_some() || now.is_some();
        Ok(Why {
            details: facts.details(),
            shard_id,
            stream: known.then(|| facts.key.stream.clone()),
            reason,
            sentence,
        })
    }

    /// The lease that is meant: of the stream as it is now, else of the latest former one.
    fn key_of(&self, watched: &Watched, shard_id: &str, now: Option<&str>) -> LeaseKey {
        let snapshot = &watched.last.snapshot;
        let leases = snapshot.leases.iter().map(|lease| &lease.key);
        let known: BTreeSet<&str> = leases
            .chain(&snapshot.damaged)
            .filter(|key| key.shard_id == shard_id && self.concerns(&key.stream))
            .map(|key| key.stream.as_str())
            .collect();
        let current = now.filter(|now| known.contains(now) || known.is_empty());
        let stream = current
            .or_else(|| known.last().copied())
            .unwrap_or_default();
        LeaseKey {
            stream: stream.to_owned(),
            shard_id: shard_id.to_owned(),
        }
    }
}

/// A shard's id, of which the number is enough.
fn full_id(shard: &str) -> String {
    match shard.parse::<u64>() {
        Ok(number) => format!("shardId-{number:012}"),
        Err(_) => shard.to_owned(),
    }
}
