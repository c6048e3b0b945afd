//! The thread that rewrites sealed segments in the background, at the lowest priority, one at a time. It is asked for
//! a pass; what a pass does is in `rewrite`.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use tokio::sync::oneshot;

use crate::log::pace::Pace;
use crate::log::packed::Compression;
use crate::log::plan::SeededBug;
use crate::log::published::Published;
use crate::log::rewrite::{Due, Keep, Rewrite, Standing, Weight, due, rewrite_published, weigh};
use crate::log::{Error, LogConfig, LogShard};

/// Segments whose footers are looked at in one pass; the next one goes on after them.
const EXAMINED: usize = 1024;

/// What a pass over sealed segments did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rewritten {
    /// Segments that were rewritten.
    pub segments: usize,
    /// Bytes of their files before.
    pub before_bytes: u64,
    /// Bytes of their files after.
    pub after_bytes: u64,
}

type Reply = oneshot::Sender<Result<Rewritten, Error>>;

struct Job {
    keep: Box<dyn Fn(LogShard) -> Option<u64> + Send>,
    reply: Reply,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Rewriter {
    desk: Arc<Desk>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Where the next pass is asked for.
#[derive(Debug)]
struct Desk {
    pace: Pace,
    asked: Mutex<Asked>,
    changed: Condvar,
}

#[derive(Default)]
struct Asked {
    job: Option<Job>,
    stopped: bool,
}

impl std::fmt::Debug for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Asked")
            .field("job", &self.job.is_some())
            .field("stopped", &self.stopped)
            .finish()
    }
}

impl Desk {
    fn lock(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stop(&self) {
        let waiting = {
            let mut asked = self.lock();
            asked.stopped = true;
            asked.job.take()
        };
        // Its caller is told that the log is closed.
        drop(waiting);
        self.pace.stop();
        self.changed.notify_all();
    }

    /// The next pass that is asked for; `None` once it is stopped.
    fn next(&self) -> Option<Job> {
        let mut asked = self.lock();
        loop {
            if asked.stopped {
                return None;
            }
            if let Some(job) = asked.job.take() {
                return Some(job);
            }
            asked = self
                .changed
                .wait(asked)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Rewriter {
    pub(crate) fn start<M>(
        published: Arc<Published<M>>,
        config: &LogConfig,
        bug: SeededBug,
    ) -> io::Result<Rewriter>
    where
        M: Send + Sync + 'static,
    {
        let desk = Arc::new(Desk {
            pace: Pace::new(config.rewrite_bytes_per_second),
            asked: Mutex::default(),
            changed: Condvar::new(),
        });
        let (work, compression) = (Arc::clone(&desk), config.compression);
        let thread = std::thread::Builder::new()
            .name("log-rewriter".to_owned())
            .spawn(move || {
                let _end = End(Arc::clone(&work));
                lower_priority();
                let mut passes = Passes {
                    published: &published,
                    pace: &work.pace,
                    compression,
                    bug,
                    next: 0,
                    damaged: BTreeSet::new(),
                };
                while let Some(Job { keep, reply }) = work.next() {
                    let done = passes.pass(&*keep);
                    // The log may end with the caller's last handle in `keep`: before it is answered.
                    drop(keep);
                    drop(reply.send(done));
                }
            })?;
        Ok(Rewriter {
            desk,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Asks for a pass. One that waits already is answered without being done: this one does it all.
    pub(crate) fn ask(
        &self,
        keep: impl Fn(LogShard) -> Option<u64> + Send + 'static,
    ) -> oneshot::Receiver<Result<Rewritten, Error>> {
        let (reply, answer) = oneshot::channel();
        let keep = Box::new(keep);
        let replaced = {
            let mut asked = self.desk.lock();
            if asked.stopped {
                return answer;
            }
            asked.job.replace(Job { keep, reply })
        };
        self.desk.changed.notify_all();
        if let Some(replaced) = replaced {
            drop(replaced.reply.send(Ok(Rewritten::default())));
        }
        answer
    }

    /// Ends the pass under way, between two blocks, and lets no other begin.
    pub(crate) fn stop(&self) {
        self.desk.stop();
    }

    /// The thread, to be waited for once it was stopped. Not for itself: a log may end with a handle it held.
    pub(crate) fn take_thread(&self) -> Option<JoinHandle<()>> {
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        let own = std::thread::current().id();
        thread.take().filter(|thread| thread.thread().id() != own)
    }
}

impl Drop for Rewriter {
    fn drop(&mut self) {
        self.stop();
        if let Some(thread) = self.take_thread() {
            // A panic there was reported by the runtime; the segments are as sound as after a crash.
            let _ = thread.join();
        }
    }
}

/// However the thread ends, nobody waits for it any more.
struct End(Arc<Desk>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Puts must not wait for this thread's work. Only on Linux has a thread a priority of its own.
fn lower_priority() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::nice(19) {
        tracing::debug!(%error, "segments are rewritten at the usual priority");
    }
}

/// What is remembered from pass to pass.
struct Passes<'a, M> {
    published: &'a Published<M>,
    pace: &'a Pace,
    compression: Compression,
    bug: SeededBug,
    /// Where the next pass begins to look.
    next: u64,
    /// Segments that cannot be read: they stay as they are, for their readers to be told.
    damaged: BTreeSet<u64>,
}

impl<M> Passes<'_, M> {
    /// Rewrites what is due, most gain first.
    fn pass(&mut self, keep: Keep<'_>) -> Result<Rewritten, Error> {
        let mut due = self.examine(keep)?;
        due.sort_by_key(|(number, weight, _)| (std::cmp::Reverse(weight.dead), *number));
        let rewrite = Rewrite {
            disk: self.published.disk.as_ref(),
            magic: self.published.magic,
            pace: self.pace,
            is_committing: &|| self.published.is_committing(),
            compression: self.compression,
            bug: self.bug,
        };
        let (mut rewritten, mut failed) = (Rewritten::default(), None);
        for (at, (number, weight, why)) in due.iter().enumerate() {
            self.pace.begin(due.len() - at, *why == Due::Gain);
            let change = match rewrite_published(self.published, &rewrite, *number, keep) {
                Ok(Some(change)) => change,
                Ok(None) => continue,
                // Trimmed since it was looked at.
                Err(_) if *number < *self.published.range().start() => continue,
                Err(error @ Error::Corrupt { .. }) => {
                    self.leave(*number, &error);
                    continue;
                }
                Err(error) if ends_the_pass(&error) => return Err(error),
                Err(error) => {
                    // One that cannot be read must not keep the others from being rewritten.
                    failed.get_or_insert(error);
                    continue;
                }
            };
            tracing::debug!(number, ?weight, ?change, "a segment was rewritten");
            rewritten.segments += 1;
            rewritten.before_bytes += change.before_bytes;
            rewritten.after_bytes += change.after_bytes;
        }
        failed.map_or(Ok(rewritten), Err)
    }

    /// The segments that are due, of as many as are looked at in one pass.
    fn examine(&mut self, keep: Keep<'_>) -> Result<Vec<(u64, Weight, Due)>, Error> {
        let mut found = Vec::new();
        if self.published.poisoned().is_some() {
            return Ok(found);
        }
        let range = self.published.range();
        let (first, active) = range.into_inner();
        self.damaged = self.damaged.split_off(&first);
        let mut known = BTreeMap::new();
        let mut keep = |shard| *known.entry(shard).or_insert_with(|| keep(shard));
        let sealed = usize::try_from(active - first).unwrap_or(usize::MAX);
        for _ in 0..sealed.min(EXAMINED) {
            self.pace.check_stopped()?;
            let number = if (first..active).contains(&self.next) {
                self.next
            } else {
                first
            };
            self.next = number + 1;
            let standing = match number {
                _ if number + 1 == active => Standing::Newest,
                _ if number == first => Standing::Oldest,
                _ => Standing::Between,
            };
            if let Some(weight) = self.weigh(number, &mut keep)?
                && let Some(why) = due(&weight, standing, self.compression)
            {
                found.push((number, weight, why));
            }
        }
        Ok(found)
    }

    fn weigh(
        &mut self,
        number: u64,
        keep: impl FnMut(LogShard) -> Option<u64>,
    ) -> Result<Option<Weight>, Error> {
        if self.damaged.contains(&number) {
            return Ok(None);
        }
        let read = self.published.load(number).and_then(|(segment, _)| {
            let total = segment.file.len_bytes();
            let total = total.map_err(|source| {
                Error::io("measuring", &crate::log::segment::name(number), source)
            })?;
            Ok(weigh(segment.view().index, total, keep))
        });
        match read {
            Ok(weight) => Ok(Some(weight)),
            Err(_) if number < *self.published.range().start() => Ok(None),
            Err(error @ Error::Corrupt { .. }) => {
                self.leave(number, &error);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn leave(&mut self, number: u64, error: &Error) {
        tracing::error!(%error, "a damaged segment is left as it is");
        self.damaged.insert(number);
    }
}

/// Whether all other segments would meet the same.
fn ends_the_pass(error: &Error) -> bool {
    match error {
        Error::Io { source, .. } => matches!(
            source.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        ),
        _ => true,
    }
}
