//! Read-ahead: the next page is fetched while the processor works, within one byte budget for all shards of a worker.
//!
//! A page the processor waits for is never held up by the budget, so that shards whose processor is stuck
//! cannot starve the others (K10); only reading *ahead* needs room.

use crate::config::PAGE_RESERVATION_BYTES;
use crate::error::Error;
use crate::fetch::Page;
use crate::fetch::polling::{Polled, Poller};
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

type Request = Pin<Box<dyn Future<Output = (Poller, Polled)> + Send>>;

/// Reads one shard, a page ahead at most.
pub(crate) struct Reader {
    state: State,
    budget: Arc<Semaphore>,
    /// Room for the page in the making or ready, when it was begun ahead of need.
    room: Option<OwnedSemaphorePermit>,
    /// Not to be read before this.
    resume_at: Instant,
}

enum State {
    Idle(Poller),
    Requested(Request),
    Ready(Poller, Result<Page, Error>),
    /// Only while a future is being replaced.
    Moving,
}

impl Reader {
    pub(crate) fn new(poller: Poller, budget: Arc<Semaphore>) -> Self {
        Reader {
            state: State::Idle(poller),
            budget,
            room: None,
            resume_at: crate::clock::now(),
        }
    }

    /// The next page with records or the end of the shard; or a failure, after which reading goes on.
    ///
    /// # Cancel safety
    /// Nothing is lost: a request under way is taken up by the next call.
    pub(crate) async fn next(&mut self) -> Result<Page, Error> {
        loop {
            match std::mem::replace(&mut self.state, State::Moving) {
                State::Ready(poller, page) => {
                    self.state = State::Idle(poller);
                    self.room = None;
                    return page;
                }
                other => self.state = other,
            }
            self.step().await;
        }
    }

    /// Reads a page ahead; never returns. To be polled beside the processor's work, and dropped with it.
    ///
    /// # Cancel safety
    /// Like [`next`](Reader::next).
    pub(crate) async fn ahead(&mut self) {
        loop {
            match &self.state {
                State::Ready(..) | State::Moving => std::future::pending().await,
                State::Requested(_) => {}
                State::Idle(_) => {
                    tokio::time::sleep_until(self.resume_at).await;
                    if self.room.is_none() {
                        let room = Arc::clone(&self.budget)
                            .acquire_many_owned(PAGE_RESERVATION_BYTES)
                            .await;
                        self.room = room.ok();
                    }
                }
            }
            self.step().await;
        }
    }

    /// The end of the shard turned out not to be one: read on with a new iterator, after a pause.
    pub(crate) fn restart(&mut self, error: Error) {
        self.state = match std::mem::replace(&mut self.state, State::Moving) {
            State::Idle(mut poller) => {
                if let Polled::Failed(_, pause) | Polled::Nothing(pause) = poller.restart(error) {
                    self.resume_at = crate::clock::now() + pause;
                }
                State::Idle(poller)
            }
            other => other,
        };
    }

    /// Moves from idle to requested, or waits for the request.
    async fn step(&mut self) {
        if let State::Idle(_) = self.state {
            tokio::time::sleep_until(self.resume_at).await;
            if let State::Idle(mut poller) = std::mem::replace(&mut self.state, State::Moving) {
                self.state = State::Requested(Box::pin(async move {
                    let polled = poller.poll().await;
                    (poller, polled)
                }));
            }
        }
        if let State::Requested(request) = &mut self.state {
            let (poller, polled) = request.as_mut().await;
            self.take_in(poller, polled);
        }
    }

    fn take_in(&mut self, poller: Poller, polled: Polled) {
        match polled {
            Polled::Page(page) => {
                let size = page.size_bytes();
                if let Some(room) = &mut self.room {
                    drop(room.split(room.num_permits().saturating_sub(size)));
                }
                self.state = State::Ready(poller, Ok(page));
            }
            Polled::Nothing(pause) => {
                self.room = None;
                self.resume_at = crate::clock::now() + pause;
                self.state = State::Idle(poller);
            }
            Polled::Failed(error, pause) => {
                self.room = None;
                self.resume_at = crate::clock::now() + pause;
                self.state = State::Ready(poller, Err(error));
            }
        }
    }
}
