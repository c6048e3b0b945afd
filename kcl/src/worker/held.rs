//! The leases this worker holds, and the shard consumers that run on them.

use crate::checkpoint::Position;
use crate::error::Error;
use crate::lease::expiry::Expired;
use crate::lease::{Lease, LeaseKey, LeaseToken, Release, Snapshot};
use crate::processor::{RecordProcessorFactory, ShardInfo};
#[cfg(test)]
use crate::seeded_bug::{Bug, made};
use crate::shard::callback::panic_text;
use crate::shard::consumer::{self, Directive, Outcome, Shared, Tenure};
use crate::shard::served::ServedStream;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::{Id, JoinError, JoinSet};

/// All shard consumers of a worker. Dropping it cancels them.
pub(super) struct Held<F> {
    shared: Arc<Shared>,
    factory: Arc<F>,
    /// The streams that are served, by identity.
    streams: BTreeMap<String, Arc<ServedStream>>,
    me: String,
    tasks: JoinSet<Outcome>,
    /// Every task that runs, also of tenures that are over: one shard never has two.
    running: BTreeMap<LeaseKey, Running>,
    keys: BTreeMap<Id, LeaseKey>,
    /// Given up by their consumers, not yet released in the store.
    releases: BTreeMap<LeaseKey, Release>,
    /// What the error policy ends the worker with.
    failure: Option<Error>,
    /// Whether a consumer panicked since it was last asked.
    died: bool,
}

struct Running {
    token: LeaseToken,
    directive: watch::Sender<Directive>,
}

impl<F: RecordProcessorFactory> Held<F> {
    pub(super) fn new(shared: Arc<Shared>, factory: Arc<F>, me: &str) -> Self {
        Held {
            shared,
            factory,
            streams: BTreeMap::new(),
            me: me.to_owned(),
            tasks: JoinSet::new(),
            running: BTreeMap::new(),
            keys: BTreeMap::new(),
            releases: BTreeMap::new(),
            failure: None,
            died: false,
        }
    }

    /// Leases of this stream are worked on from now on.
    pub(super) fn serve(&mut self, stream: Arc<ServedStream>) {
        self.streams.insert(stream.identity.clone(), stream);
    }

    /// Leases of this stream are worked on no more, and those that are held are given up.
    pub(super) fn cease(&mut self, identity: &str) {
        self.streams.remove(identity);
        for (key, running) in &self.running {
            if key.stream == identity {
                running.tell(Directive::GiveUp(None));
            }
        }
    }

    /// The identities of the streams that are served.
    pub(super) fn served(&self) -> BTreeSet<String> {
        self.streams.keys().cloned().collect()
    }

    /// Whether a consumer runs on a shard of the stream or the release of one is due.
    pub(super) fn is_busy_with(&self, identity: &str) -> bool {
        let mut busy = self.running.keys().chain(self.releases.keys());
        busy.any(|key| key.stream == identity)
    }

    /// Whether a consumer runs on the shard or its release is due, so that a lease on it must not be taken now.
    pub(super) fn is_busy(&self, key: &LeaseKey) -> bool {
        self.running.contains_key(key) || self.releases.contains_key(key)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Whether a lease is under our id and no consumer runs on its shard.
    pub(super) fn is_new(&self, lease: &Lease) -> bool {
        lease.owner.as_ref() == Some(&self.me)
            && lease.checkpoint != Position::ShardEnd
            && !self.is_busy(&lease.key)
    }

    /// Starts a consumer on a lease that is ours, unless one runs on the shard. So leases handed over, and those whose
    /// taking was answered too late, are found in the next snapshot (K12). A lease of a stream that is not served any more was handed over too late,
    /// and is given on.
    pub(super) fn adopt(&mut self, lease: &Lease) {
        if !self.is_new(lease) {
            return;
        }
        let Some(stream) = self.streams.get(&lease.key.stream).cloned() else {
            return self.pass_on(lease);
        };
        let token = LeaseToken {
            key: lease.key.clone(),
            owner: self.me.clone(),
            counter: lease.counter,
        };
        let (directive, receiver) = watch::channel(Directive::Run);
        let tenure = Tenure {
            token: token.clone(),
            shard: ShardInfo {
                stream_name: stream.name.clone(),
                shard_id: lease.key.shard_id.clone(),
                position: lease.checkpoint,
                hash_key_range: lease.hash_key_range,
                parents: lease.parents.clone(),
                pending: lease.pending.clone(),
            },
            stream,
            directive: receiver,
        };
        tracing::info!(lease = %lease.key, counter = lease.counter, checkpoint = %lease.checkpoint, "processing the shard");
        let task = consumer::run(Arc::clone(&self.shared), Arc::clone(&self.factory), tenure);
        let id = self.tasks.spawn(task).id();
        self.keys.insert(id, lease.key.clone());
        self.running
            .insert(lease.key.clone(), Running { token, directive });
    }

    /// Gives up a lease that is ours and has no consumer.
    pub(super) fn pass_on(&mut self, lease: &Lease) {
        if !self.is_new(lease) {
            return;
        }
        let token = LeaseToken {
            key: lease.key.clone(),
            owner: self.me.clone(),
            counter: lease.counter,
        };
        let release = Release {
            token,
            checkpoint: None,
            to: None,
        };
        self.releases.insert(lease.key.clone(), release);
    }

    /// Compares what we believe to hold with the store: tells the consumers of lost leases, and finds who asks for ours.
    pub(super) fn reconcile(&mut self, snapshot: &Snapshot, expired: &Expired) {
        let leases: BTreeMap<&LeaseKey, &Lease> = snapshot
            .leases
            .iter()
            .map(|lease| (&lease.key, lease))
            .collect();
        let is_current = |token: &LeaseToken| {
            leases.get(&token.key).is_some_and(|lease| {
                lease.owner.as_ref() == Some(&token.owner) && lease.counter == token.counter
            })
        };
        for (key, running) in &self.running {
            if !is_current(&running.token) {
                // A consumer that has just ended its shard is not told: it knows. One whose shard another worker ended goes by the
                // counter, which has moved on further.
                let ended_it = leases.get(key).is_some_and(|lease| {
                    lease.checkpoint == Position::ShardEnd
                        && lease.counter.checked_sub(1) == Some(running.token.counter)
                });
                #[cfg(test)]
                let ended_it = ended_it
                    || made(Bug::ForeignEnd)
                        && leases
                            .get(key)
                            .is_some_and(|lease| lease.checkpoint == Position::ShardEnd);
                if !ended_it {
                    running.tell(Directive::Lost);
                }
                continue;
            }
            let wanted_by = leases.get(key).and_then(|lease| lease.wanted_by.as_deref());
            if let Some(asker) = wanted_by.filter(|asker| !expired.contains_key(*asker)) {
                running.tell(Directive::GiveUp(Some(asker.to_owned())));
            }
        }
        self.releases
            .retain(|_, release| is_current(&release.token));
    }

    /// Tells every consumer to finish its batch and give its lease up.
    pub(super) fn give_up_all(&self) {
        for running in self.running.values() {
            running.tell(Directive::GiveUp(None));
        }
    }

    /// Tells every consumer that its lease is another's.
    pub(super) fn lose_all(&self) {
        for running in self.running.values() {
            running.tell(Directive::Lost);
        }
    }

    /// Cancels what still runs.
    pub(super) fn abort_all(&mut self) {
        self.tasks.abort_all();
    }

    /// Waits for a consumer to end.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(super) async fn ended(&mut self) {
        if let Some(ended) = self.tasks.join_next_with_id().await {
            self.take_in(ended);
            while let Some(ended) = self.tasks.try_join_next_with_id() {
                self.take_in(ended);
            }
        }
    }

    fn take_in(&mut self, ended: Result<(Id, Outcome), JoinError>) {
        let (id, outcome) = match ended {
            Ok((id, outcome)) => (id, Some(outcome)),
            Err(error) => {
                let id = error.id();
                if let Ok(panic) = error.try_into_panic() {
                    self.died = true;
                    let text = panic_text(&*panic);
                    tracing::error!(lease = ?self.keys.get(&id), "the shard consumer panicked, it is started again: {text}");
                }
                (id, None)
            }
        };
        let Some(key) = self.keys.remove(&id) else {
            return;
        };
        self.running.remove(&key);
        match outcome {
            Some(Outcome::GiveUp(release)) => {
                self.releases.insert(key, release);
            }
            Some(Outcome::Failed(release, error)) => {
                tracing::error!(lease = %key, %error, "the worker ends");
                self.releases.insert(key, release);
                self.failure.get_or_insert(error);
            }
            Some(Outcome::Ended) => tracing::info!(lease = %key, "the shard has ended"),
            Some(Outcome::Lost) => tracing::info!(lease = %key, "the lease is lost"),
            None => {}
        }
    }

    /// The first failure that ends the worker, if there was one; once.
    pub(super) fn failure(&mut self) -> Option<Error> {
        self.failure.take()
    }

    /// Whether a consumer panicked since the last call: it is started again with the next look, which must not be hurried for it.
    pub(super) fn has_died(&mut self) -> bool {
        std::mem::take(&mut self.died)
    }

    /// What is to be released in the store.
    pub(super) fn releases(&self) -> Vec<Release> {
        self.releases.values().cloned().collect()
    }

    /// These are released, or not ours any more.
    pub(super) fn released(&mut self, releases: &[Release]) {
        for release in releases {
            self.releases.remove(&release.token.key);
        }
    }
}

impl Running {
    /// A consumer that is to stop is not told again to give up; a lost lease overrides all.
    fn tell(&self, wish: Directive) {
        self.directive.send_if_modified(|current| {
            let news = match (&*current, &wish) {
                (Directive::Lost, _) | (Directive::GiveUp(_), Directive::GiveUp(_)) => false,
                (_, wish) => *wish != Directive::Run,
            };
            if news {
                *current = wish;
            }
            news
        });
    }
}
