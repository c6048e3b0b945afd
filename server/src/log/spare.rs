//! The file that becomes the next segment: that of an earlier one of which nobody reads any more, or else one that is
//! laid out ahead, in zeros or, where commits are large or somebody waits for it, as room that is reserved, in a thread of its own, so that no commit waits for long. There is one at a time.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::clock::SharedClock;
use crate::log::disk::{Disk, DiskFile};
use crate::log::segment::{LARGE, RECYCLED, SPARE};
use crate::log::{Error, Format};

/// A spare is laid out ahead by so many times what laying one out took.
const AHEAD: u64 = 4;

/// Where the spare is asked for and taken, and where files that are no longer needed are brought.
#[derive(Debug)]
pub(crate) struct SpareDesk {
    disk: Arc<dyn Disk>,
    segment_bytes: u64,
    desk: Mutex<Desk>,
    changed: Condvar,
    /// No more zeros are wanted in the spare that is laid out: room that is reserved is, or who asked waits for it already.
    enough: AtomicBool,
}

#[derive(Debug)]
struct Desk {
    state: State,
    /// How long laying one out took at last, in milliseconds.
    took_ms: u64,
    /// How the next one is laid out.
    space: Space,
    /// Who needs it waits.
    is_awaited: bool,
}

/// How room for a segment is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Space {
    /// In zeros: whatever is written into it is synced fast.
    #[default]
    Written,
    /// It is reserved, which takes no time: large commits are synced nearly as fast, and the disk does nothing twice.
    Reserved,
}

#[derive(Debug)]
enum State {
    Idle,
    Wanted,
    /// Somebody may bring a file. Who wants one does not wait for it: that takes operations of the disk, at a low priority.
    Promised,
    /// A file was brought, and is to be made as long as a segment.
    Brought(Arc<dyn DiskFile>),
    Ready(Arc<dyn DiskFile>, &'static str),
    /// It was taken, and has its name still.
    Taken,
    Failed(Arc<io::Error>),
    Stopped,
}

impl SpareDesk {
    pub(crate) fn new(disk: Arc<dyn Disk>, segment_bytes: u64) -> SpareDesk {
        SpareDesk {
            disk,
            segment_bytes,
            desk: Mutex::new(Desk {
                state: State::Idle,
                took_ms: 0,
                space: Space::default(),
                is_awaited: false,
            }),
            changed: Condvar::new(),
            enough: AtomicBool::new(false),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for a spare ahead of its need.
    pub(crate) fn want(&self) {
        let mut desk = self.lock();
        match desk.state {
            State::Idle | State::Promised | State::Taken | State::Failed(_) => {
                desk.state = State::Wanted;
                self.changed.notify_all();
            }
            State::Wanted | State::Brought(_) | State::Ready(..) | State::Stopped => {}
        }
    }

    /// Asks for a spare once it is time to; see [`is_time`]. Says whether it was. Laid out like this is what is wanted from now on.
    pub(crate) fn want_in_time(
        &self,
        space: Space,
        written: u64,
        left: u64,
        elapsed_ms: u64,
    ) -> bool {
        let took_ms = {
            let mut desk = self.lock();
            desk.space = space;
            desk.took_ms
        };
        let due = left <= self.segment_bytes / 2 || is_time(written, left, elapsed_ms, took_ms);
        if due {
            self.want();
        }
        due
    }

    /// The spare, of at least `need_bytes`, and the name it has. Waits for it if it must, but not for zeros; a failure
    /// to lay it out is tried anew by the next call. Once it has another name, [`SpareDesk::placed`] is to be called.
    pub(crate) fn take(&self, need_bytes: u64) -> Result<(Arc<dyn DiskFile>, &'static str), Error> {
        if need_bytes > self.segment_bytes {
            // One commit fills it.
            let made = self.disk.reserve(LARGE, need_bytes);
            return made
                .map(|file| (file, LARGE))
                .map_err(|source| refused(need_bytes, Arc::new(source)));
        }
        self.want();
        let mut desk = self.lock();
        loop {
            match std::mem::replace(&mut desk.state, State::Idle) {
                State::Ready(file, name) => {
                    desk.is_awaited = false;
                    desk.state = State::Taken;
                    return Ok((file, name));
                }
                State::Failed(source) => {
                    desk.is_awaited = false;
                    return Err(refused(self.segment_bytes, source));
                }
                State::Stopped => {
                    desk.state = State::Stopped;
                    return Err(Error::Closed);
                }
                waiting => desk.state = waiting,
            }
            desk.is_awaited = true;
            self.enough.store(true, Ordering::Relaxed);
            desk = self.wait(desk);
        }
    }

    /// What was taken has another name: there may be a next one.
    pub(crate) fn placed(&self) {
        let mut desk = self.lock();
        if matches!(desk.state, State::Taken) {
            desk.state = State::Idle;
        }
    }

    /// Promises a file of so many bytes, if one is of use now: no spare is there or on its way, and it is a segment's.
    pub(crate) fn promise(&self, len_bytes: u64) -> Option<Promise<'_>> {
        if !(self.segment_bytes / 2..=self.segment_bytes).contains(&len_bytes) {
            return None;
        }
        let mut desk = self.lock();
        if !matches!(desk.state, State::Idle) {
            return None;
        }
        desk.state = State::Promised;
        Some(Promise {
            to: self,
            is_named: false,
        })
    }

    fn wait<'a>(&self, desk: MutexGuard<'a, Desk>) -> MutexGuard<'a, Desk> {
        let waited = self.changed.wait(desk);
        waited.unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, clock: &SharedClock) {
        let mut desk = self.lock();
        loop {
            desk = match std::mem::replace(&mut desk.state, State::Idle) {
                State::Stopped => {
                    desk.state = State::Stopped;
                    return;
                }
                State::Wanted => {
                    desk.state = State::Wanted;
                    let enough = desk.is_awaited || desk.space == Space::Reserved;
                    self.enough.store(enough, Ordering::Relaxed);
                    drop(desk);
                    let began_ms = clock.now_ms();
                    let bytes = self.segment_bytes;
                    let made = self.disk.create_until(SPARE, bytes, &self.enough);
                    let took_ms = clock.now_ms().saturating_sub(began_ms);
                    let mut desk = self.lock();
                    // If it was awaited, this one did not take as long as the next one may.
                    desk.took_ms = took_ms.max(if desk.is_awaited { desk.took_ms } else { 0 });
                    self.made(desk, made.map(|file| (file, SPARE)))
                }
                State::Brought(file) => {
                    desk.state = State::Wanted;
                    drop(desk);
                    let made = file.lengthen(self.segment_bytes);
                    if made.is_err() {
                        // Nothing is in it that is needed, and without it there is more room.
                        let _ = self.disk.remove(RECYCLED);
                    }
                    self.made(self.lock(), made.map(|()| (file, RECYCLED)))
                }
                state => {
                    desk.state = state;
                    self.wait(desk)
                }
            }
        }
    }

    fn made<'a>(
        &self,
        mut desk: MutexGuard<'a, Desk>,
        made: io::Result<(Arc<dyn DiskFile>, &'static str)>,
    ) -> MutexGuard<'a, Desk> {
        if !matches!(desk.state, State::Stopped) {
            desk.state = match made {
                Ok((file, name)) => State::Ready(file, name),
                Err(error) => State::Failed(Arc::new(error)),
            };
            self.changed.notify_all();
        }
        desk
    }
}

/// Whether at the pace so far so little of a segment is left that the next one should be laid out.
fn is_time(written: u64, left: u64, elapsed_ms: u64, took_ms: u64) -> bool {
    let left_ms = u128::from(left) * u128::from(elapsed_ms) / u128::from(written.max(1));
    // Within a millisecond nothing can be told.
    elapsed_ms > 0 && left_ms < u128::from(took_ms) * u128::from(AHEAD)
}

/// That a file may be brought, which bears the name [`RECYCLED`] by then. Dropped, none will be. There is one at a time: who
/// takes names away from segments does so in turns.
#[derive(Debug)]
pub(crate) struct Promise<'a> {
    to: &'a SpareDesk,
    is_named: bool,
}

impl Promise<'_> {
    /// Gives the file its name beside the one it has. `None` where that cannot be.
    pub(crate) fn link(mut self, name: &str) -> Option<Self> {
        if let Err(error) = self.to.disk.link(name, RECYCLED) {
            tracing::debug!(%error, name, "the file is not used again");
            // One that could not be removed before. Nothing reads from it.
            let _ = self.to.disk.remove(RECYCLED);
            return None;
        }
        self.is_named = true;
        Some(self)
    }

    /// Gives the file its name instead of the one it has.
    pub(crate) fn rename(mut self, name: &str) -> io::Result<Self> {
        self.to.disk.rename(name, RECYCLED)?;
        self.is_named = true;
        Ok(self)
    }

    /// Brings the file. Nobody else may have it, no other name may lead to it, and that must survive a power cut: what is in
    /// it will be written over.
    pub(crate) fn bring(mut self, file: Arc<dyn DiskFile>) {
        if Arc::strong_count(&file) > 1 {
            // A reader is not through with it. The system keeps it until then, without a name.
            return;
        }
        if let Err(error) = self.to.disk.raise_format(Format::Recycled) {
            tracing::debug!(%error, "the file is not used again");
            return;
        }
        let mut desk = self.to.lock();
        if matches!(desk.state, State::Promised) {
            desk.state = State::Brought(file);
            self.to.changed.notify_all();
            self.is_named = false;
        }
    }
}

impl Drop for Promise<'_> {
    fn drop(&mut self) {
        if self.is_named {
            // If this fails the next start does it.
            let _ = self.to.disk.remove(RECYCLED);
        }
        let mut desk = self.to.lock();
        if matches!(desk.state, State::Promised) {
            desk.state = State::Idle;
        }
    }
}

pub(crate) fn refused(segment_bytes: u64, source: Arc<io::Error>) -> Error {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::NoSpace {
            segment_bytes,
            source,
        },
        _ => Error::Io {
            operation: "laying out",
            name: SPARE.to_owned(),
            source,
        },
    }
}

/// The thread that sees to the spare; ends when dropped.
#[derive(Debug)]
pub(crate) struct Spare {
    desk: Arc<SpareDesk>,
    thread: Option<JoinHandle<()>>,
}

impl Spare {
    /// Starts the thread, which lays out a spare once one is wanted.
    pub(crate) fn start(desk: Arc<SpareDesk>, clock: SharedClock) -> io::Result<Spare> {
        let worker = Arc::clone(&desk);
        let thread = std::thread::Builder::new()
            .name("log-spare".to_owned())
            .spawn(move || worker.run(&clock))?;
        Ok(Spare {
            desk,
            thread: Some(thread),
        })
    }
}

impl Drop for Spare {
    fn drop(&mut self) {
        let mut desk = self.desk.lock();
        desk.state = State::Stopped;
        self.desk.enough.store(true, Ordering::Relaxed);
        drop(desk);
        self.desk.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported by the runtime; nothing depends on the thread now.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use crate::log::disk::RealDisk;
    use crate::log::memory_disk::MemoryDisk;

    fn desk(disk: &MemoryDisk, segment_bytes: u64) -> (Arc<SpareDesk>, Spare) {
        let desk = Arc::new(SpareDesk::new(Arc::new(disk.clone()), segment_bytes));
        let spare = Spare::start(Arc::clone(&desk), ManualClock::at(0)).unwrap();
        (desk, spare)
    }

    #[test]
    fn a_spare_that_could_not_be_laid_out_is_tried_again() {
        let disk = MemoryDisk::new();
        disk.set_capacity(Some(100));
        let (desk, _thread) = desk(&disk, 200);
        assert!(matches!(
            desk.take(10),
            Err(Error::NoSpace {
                segment_bytes: 200,
                ..
            })
        ));
        disk.set_capacity(None);
        let (file, name) = desk.take(10).unwrap();
        assert_eq!((file.len_bytes().unwrap(), name), (200, SPARE));
        let (file, name) = desk.take(201).unwrap();
        assert_eq!((file.len_bytes().unwrap(), name), (201, LARGE));
    }

    /// Method: where nothing was written a file is a hole to the file system.
    #[test]
    fn a_spare_is_laid_out_as_preferred() {
        let directory = tempfile::tempdir().unwrap();
        let disk = RealDisk::open(directory.path()).unwrap();
        let desk = Arc::new(SpareDesk::new(Arc::new(disk), 1 << 20));
        let _thread = Spare::start(Arc::clone(&desk), ManualClock::at(0)).unwrap();
        for (space, written_bytes) in [
            (Space::Written, 1 << 20),
            (Space::Reserved, 0),
            (Space::Written, 1 << 20),
        ] {
            assert!(desk.want_in_time(space, 0, 0, 0));
            while !matches!(desk.lock().state, State::Ready(..)) {
                std::thread::yield_now();
            }
            let (file, name) = desk.take(10).unwrap();
            assert_eq!(file.len_bytes().unwrap(), 1 << 20);
            let file = std::fs::File::open(directory.path().join(name)).unwrap();
            let hole = rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(0)).unwrap();
            assert_eq!(hole, written_bytes, "{space:?}");
        }
    }

    /// Whether it is being laid out when it is needed, or nobody had asked for it.
    #[test]
    fn who_waits_for_a_spare_does_not_wait_for_zeros() {
        let disk = MemoryDisk::new();
        disk.hold_zeros(true);
        let (desk, _thread) = desk(&disk, 200);
        for is_asked_before in [true, false, true] {
            if is_asked_before {
                desk.want();
            }
            let (file, name) = desk.take(10).unwrap();
            assert_eq!((file.len_bytes().unwrap(), name), (200, SPARE));
            desk.placed();
            assert!(!desk.lock().is_awaited);
        }
        // Nor does who stops it.
        desk.want();
    }

    /// A file that is brought is the next spare, as long as a segment, zeros behind what was in it.
    #[test]
    fn a_file_that_is_brought_is_the_next_spare() {
        let disk = MemoryDisk::new();
        let (desk, _thread) = desk(&disk, 200);
        let old = disk.create("old", 150).unwrap();
        old.write_at(&[7; 150], 0).unwrap();
        let promise = desk.promise(150).unwrap();
        assert!(desk.promise(150).is_none(), "one at a time");
        promise.rename("old").unwrap().bring(old);
        let (file, name) = desk.take(10).unwrap();
        assert_eq!(name, RECYCLED);
        let bytes = file.read(0, 200).unwrap();
        assert_eq!(
            (&bytes[..150], &bytes[150..]),
            (&[7; 150][..], &[0; 50][..])
        );
        assert_eq!(disk.format(), Format::Recycled);
        // Its name must not be given to another file before it has lost it.
        assert!(desk.promise(150).is_none());
        desk.placed();
        assert!(desk.promise(150).is_some());
    }

    /// What is not of a segment's size is not taken; what a reader has, or what is never brought, is given up, and one is laid out.
    #[test]
    fn s3_a_file_that_is_read_is_not_written_over() {
        let disk = MemoryDisk::new();
        let (desk, _thread) = desk(&disk, 200);
        assert!(desk.promise(99).is_none() && desk.promise(201).is_none());
        let old = disk.create("old", 150).unwrap();
        let reader = Arc::clone(&old);
        let promise = desk.promise(150).unwrap().link("old");
        promise.unwrap().bring(old);
        assert_eq!(disk.list().unwrap(), ["old"]);
        reader.read(0, 150).unwrap();
        drop(desk.promise(150).unwrap());
        let (_, name) = desk.take(10).unwrap();
        assert_eq!(name, SPARE);
    }

    /// Whoever needs a spare does not wait for one that may be brought.
    #[test]
    fn a_promise_keeps_nobody_waiting() {
        let disk = MemoryDisk::new();
        let (desk, _thread) = desk(&disk, 200);
        let old = disk.create("old", 150).unwrap();
        let promise = desk.promise(150).unwrap().rename("old").unwrap();
        let (_, name) = desk.take(10).unwrap();
        assert_eq!(name, SPARE);
        promise.bring(old);
        assert_eq!(disk.list().unwrap(), [SPARE], "it came too late");
        assert!(desk.promise(150).is_none(), "the spare has its name still");
    }

    /// A name that could not be removed does not lead to a file that is needed being written over.
    #[test]
    fn a_name_that_was_left_is_not_taken_for_a_file_that_was_brought() {
        let disk = MemoryDisk::new();
        let (desk, _thread) = desk(&disk, 200);
        disk.create("needed", 150).unwrap();
        disk.link("needed", RECYCLED).unwrap();
        disk.create("old", 150).unwrap();
        assert!(desk.promise(150).unwrap().link("old").is_none());
        assert_eq!(disk.list().unwrap(), ["needed", "old"]);
        assert!(desk.promise(150).unwrap().link("old").is_some());
    }

    #[test]
    fn a_spare_is_laid_out_in_time() {
        // Half of it in a second, and it took 100 ms.
        assert!(!is_time(50, 50, 1000, 100));
        assert!(is_time(50, 50, 1000, 251));
        assert!(is_time(75, 25, 1000, 100));
        assert!(!is_time(50, 50, 0, 1000), "nothing is known");
    }
}
