//! Putting an application, or a new one, elsewhere in its stream: what a reset comes to is planned from the listing, as for an application
//! without leases, and applied in one transaction.

use super::ground::{Ground, StartAt};
use super::watch::{Life, STORE_LIMIT, Until, watch};
use super::{Operations, arn_of, name_of, readable, rfc3339, span};
use crate::error::{Error, ErrorKind};
use crate::lease::renew::bounded;
use crate::lease::{Lease, LeaseKey, Reset, ResetChange, ResetCondition, ResetNote, Snapshot};
use serde::Serialize;
use std::time::Duration;

/// How often a reset is planned anew when leases come in between.
const ATTEMPTS: u32 = 5;
const AGAIN: Duration = Duration::from_millis(200);
/// The longest name of who asks for a reset, characters.
const BY_MAX: usize = 256;

/// Whether leases are taken from workers that live.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Force {
    /// A worker that lives, or may live, refuses the reset.
    #[default]
    OnlyIfNobodyLives,
    /// Workers that live lose the leases, and begin again at the new place. What they have in work is finished but not checkpointed.
    TakeFromTheLiving,
}

/// A wish to put an application elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResetRequest {
    to: StartAt,
    by: String,
    shard: Option<String>,
    force: Force,
    patience: Duration,
}

impl ResetRequest {
    /// The whole stream; `by` is who asks, for the note that the store keeps (256 characters at most).
    pub fn new(to: StartAt, by: impl Into<String>) -> Self {
        let by: String = by.into();
        ResetRequest {
            to,
            by: by
                .chars()
                .filter(|c| !c.is_control())
                .take(BY_MAX)
                .collect(),
            shard: None,
            force: Force::default(),
            patience: Duration::from_secs(30),
        }
    }

    /// Only this shard. Its descendants stay where they are.
    #[must_use]
    pub fn shard(mut self, shard_id: impl Into<String>) -> Self {
        self.shard = Some(shard_id.into());
        self
    }

    /// What becomes of workers that live; default: they refuse it.
    #[must_use]
    pub fn force(mut self, force: Force) -> Self {
        self.force = force;
        self
    }

    /// How long workers that are silent are listened for at most; default 30 s. Whoever has been silent for its fail-over time is dead.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }
}

/// What a reset or replay did, or would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ResetReport {
    /// The application whose leases it is about.
    pub application: String,
    /// The stream's identity: `ARN@creation-milliseconds`.
    pub stream: String,
    /// What was asked for, in words.
    pub asked: String,
    /// Whether it was done; `false` for a plan.
    pub done: bool,
    /// What changed, or would.
    pub changes: Vec<ChangeLine>,
    /// Why it would be refused, for a plan.
    pub refusal: Option<String>,
}

/// A lease that a reset puts elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ChangeLine {
    /// The stream's name.
    pub stream_name: String,
    /// The shard.
    pub shard_id: String,
    /// Where it was, as stored; `None` for a lease that is created.
    pub from: Option<String>,
    /// Where it is, as stored.
    pub to: String,
    /// The same for people.
    pub readable: String,
    /// Who held it.
    pub taken_from: Option<String>,
}

/// A reset of the past.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NoteLine {
    /// Counts the resets of the application.
    pub number: u64,
    /// When, RFC 3339, by the clock of the database.
    pub at: String,
    /// Who asked for it.
    pub by: String,
    /// What was asked for.
    pub asked: String,
    /// What it changed.
    pub changes: Vec<ChangeLine>,
}

impl From<&ResetChange> for ChangeLine {
    fn from(change: &ResetChange) -> Self {
        let to = readable(&change.to);
        ChangeLine {
            stream_name: name_of(arn_of(&change.key.stream)).to_owned(),
            shard_id: change.key.shard_id.clone(),
            from: change.from.map(|from| from.to_string()),
            to: change.to.to_string(),
            readable: match &change.from {
                Some(from) => format!("{} -> {to}", readable(from)),
                None => format!("new, {to}"),
            },
            taken_from: change.taken_from.clone(),
        }
    }
}

impl From<ResetNote> for NoteLine {
    fn from(note: ResetNote) -> Self {
        NoteLine {
            number: note.number,
            at: rfc3339(note.at_ms),
            by: note.by,
            asked: note.asked,
            changes: note.changes.iter().map(ChangeLine::from).collect(),
        }
    }
}

impl Operations {
    /// What [`Operations::reset`] would do now; changes nothing.
    ///
    /// # Errors
    /// As for [`Operations::reset`], but a refusal because workers live is part of the answer.
    pub async fn plan_reset(&self, request: &ResetRequest) -> Result<ResetReport, Error> {
        let refusal = match self.condition(request).await {
            Ok(_) => None,
            Err(error) if error.kind() == ErrorKind::InUse => Some(error.to_string()),
            Err(error) => return Err(error),
        };
        let (reset, snapshot) = self.assemble(request, ResetCondition::Forced).await?;
        let planned = reset.plan(&self.application, &snapshot)?;
        Ok(self.report(&reset, &planned.changes, refusal, false))
    }

    /// Puts the leases of the stream, or of one shard, where they are to start, in one transaction. Nobody holds them afterwards: workers that
    /// live lose them and begin again there (K1), and every record from the new place on is delivered again (K4). This alone lowers
    /// checkpoints (K3). The store keeps a note of it.
    ///
    /// A whole stream is planned anew from its shards, as for an application without leases: closed shards are done again, parents before
    /// children; under `Latest` what closed before is passed over. Of one shard only that is done again, also while its children are in work.
    ///
    /// # Errors
    /// `InUse`: workers live, or may live. `NotFound`: no such stream or shard, or the application has no leases of it. `Configuration`: the position
    /// makes no sense, or several streams are meant. `Store`: a damaged row. Then nothing was changed. `Unavailable`: try again; after a reply that
    /// was lost it may have been done.
    ///
    /// # Cancel safety
    /// Dropped, it was done wholly or not at all; [`history`](Operations::history) tells.
    pub async fn reset(&self, request: &ResetRequest) -> Result<ResetReport, Error> {
        let condition = self.condition(request).await?;
        let mut attempt = 1;
        loop {
            let (reset, _) = self.assemble(request, condition.clone()).await?;
            let call = self.store.reset(&self.application, &reset);
            match bounded(STORE_LIMIT, call).await {
                Ok(changes) => return Ok(self.report(&reset, &changes, None, true)),
                Err(error) if error.is_retryable() && attempt < ATTEMPTS => {
                    tracing::debug!(%error, attempt, "the reset is planned again");
                }
                Err(error) => return Err(error),
            }
            attempt += 1;
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// What [`Operations::replay`] would do now; changes nothing.
    ///
    /// # Errors
    /// As for [`Operations::replay`].
    pub async fn plan_replay(
        &self,
        application: &str,
        to: StartAt,
        by: &str,
    ) -> Result<ResetReport, Error> {
        let (other, reset) = self.assemble_replay(application, to, by).await?;
        let call = self.store.snapshot(application);
        let snapshot = bounded(STORE_LIMIT, call).await?;
        let planned = reset.plan(application, &snapshot)?;
        Ok(other.report(&reset, &planned.changes, None, false))
    }

    /// Creates the leases of another application that starts at the given place of the same stream; nothing of this one is touched. Start workers
    /// under that name afterwards: their initial position counts only for shards that come later.
    ///
    /// # Errors
    /// `InUse`: that application has leases already. `Configuration`: a sequence number was given, which is of one shard. Others as for
    /// [`Operations::reset`].
    ///
    /// # Cancel safety
    /// As for [`Operations::reset`].
    pub async fn replay(
        &self,
        application: &str,
        to: StartAt,
        by: &str,
    ) -> Result<ResetReport, Error> {
        let (other, reset) = self.assemble_replay(application, to, by).await?;
        let call = self.store.reset(application, &reset);
        let changes = bounded(STORE_LIMIT, call).await?;
        Ok(other.report(&reset, &changes, None, true))
    }

    /// The last resets of the application, the latest first.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn history(&self) -> Result<Vec<NoteLine>, Error> {
        let notes = bounded(STORE_LIMIT, self.store.resets(&self.application)).await?;
        Ok(notes.into_iter().map(NoteLine::from).collect())
    }

    /// Under which condition the reset may happen, if at all.
    async fn condition(&self, request: &ResetRequest) -> Result<ResetCondition, Error> {
        if request.force == Force::TakeFromTheLiving {
            return Ok(ResetCondition::Forced);
        }
        let patience = request.patience;
        let watched = watch(&*self.store, &self.application, Until::OneLives, patience).await?;
        // Of several, one that is known to live: the others may not have been heard yet.
        let heard = watched
            .may_live()
            .find(|row| matches!(watched.life(&row.worker_id), Life::Heard { .. }));
        if let Some(row) = heard.or_else(|| watched.may_live().next()) {
            let why = match watched.life(&row.worker_id) {
                Life::Silent { so_far } => format!(
                    "was not heard within {}, but its fail-over time is {}: it may live. Wait, or",
                    span(so_far),
                    span(super::watch::failover_of(row))
                ),
                Life::Heard { .. } | Life::Dead { .. } => {
                    "is at work: stop the workers first, or".to_owned()
                }
            };
            return Err(Error::new(
                ErrorKind::InUse,
                format!(
                    "worker {:?} of application {:?} {why} force the reset, which takes their leases away; nothing was changed",
                    row.worker_id, self.application
                ),
            ));
        }
        let workers = watched.last.snapshot.workers.into_iter();
        let silent = workers.map(|row| (row.worker_id, row.heartbeat)).collect();
        Ok(ResetCondition::NobodyLives { silent })
    }

    /// The reset, and what it is planned from.
    async fn assemble(
        &self,
        request: &ResetRequest,
        condition: ResetCondition,
    ) -> Result<(Reset, Snapshot), Error> {
        let call = self.store.snapshot(&self.application);
        let stream = self.stream_asked(&bounded(STORE_LIMIT, call).await?)?;
        let client = self.client_for(&stream)?;
        let ground = Ground::of(&*client, &stream).await?;
        // Read after the shards were listed, as for every plan.
        let call = self.store.snapshot(&self.application);
        let snapshot = bounded(STORE_LIMIT, call).await?;
        let own = |key: &LeaseKey| key.stream == ground.identity;
        let leases: Vec<&Lease> = snapshot
            .leases
            .iter()
            .filter(|lease| own(&lease.key))
            .collect();
        if leases.is_empty() && !snapshot.damaged.iter().any(own) {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!(
                    "application {:?} has no leases of stream {}: check both names; an application without leases starts where its workers are told to, and leases of an earlier stream of this name mean nothing any more",
                    self.application, ground.identity
                ),
            ));
        }
        let name = name_of(arn_of(&ground.identity)).to_owned();
        let (starts, whole_stream, about) = match &request.shard {
            None => (
                ground.starts(request.to, &leases)?,
                Some(ground.identity.clone()),
                format!("stream {name}"),
            ),
            Some(shard_id) => {
                let start = ground
                    .start(&*client, &stream, shard_id, request.to)
                    .await?;
                (
                    vec![start],
                    None,
                    format!("shard {shard_id} of stream {name}"),
                )
            }
        };
        let reset = Reset {
            by: request.by.clone(),
            asked: format!("{about} to {}", request.to),
            condition,
            whole_stream,
            starts,
        };
        Ok((reset, snapshot))
    }

    async fn assemble_replay(
        &self,
        application: &str,
        to: StartAt,
        by: &str,
    ) -> Result<(Operations, Reset), Error> {
        let length = application.chars().count();
        if !(1..=256).contains(&length) || application.chars().any(char::is_control) {
            return Err(Error::new(
                ErrorKind::Configuration,
                "the name of the new application must have 1 to 256 characters without control characters",
            ));
        }
        let call = self.store.snapshot(&self.application);
        let stream = self.stream_asked(&bounded(STORE_LIMIT, call).await?)?;
        let client = self.client_for(&stream)?;
        let ground = Ground::of(&*client, &stream).await?;
        let name = name_of(arn_of(&ground.identity));
        let reset = Reset {
            by: ResetRequest::new(to, by).by,
            asked: format!("replay of {}: stream {name} to {}", self.application, to),
            condition: ResetCondition::NoLeases,
            starts: ground.starts(to, &[])?,
            whole_stream: Some(ground.identity),
        };
        let other = Operations {
            application: application.to_owned(),
            ..self.clone()
        };
        Ok((other, reset))
    }

    fn report(
        &self,
        reset: &Reset,
        changes: &[ResetChange],
        refusal: Option<String>,
        done: bool,
    ) -> ResetReport {
        let stream = reset.starts.first().map(|start| start.key.stream.clone());
        ResetReport {
            application: self.application.clone(),
            stream: stream.unwrap_or_default(),
            asked: reset.asked.clone(),
            done,
            changes: changes.iter().map(ChangeLine::from).collect(),
            refusal,
        }
    }
}
