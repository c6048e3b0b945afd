//! Group commit at its barest: one thread writes what waits, syncs once, and answers all of it.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use tokio::sync::{Semaphore, oneshot};

/// The file; writing goes around in it.
pub(super) const FILE_BYTES: u64 = 256 << 20;
/// Most that may wait to be written.
const WAITING_BYTES: usize = 64 << 20;
/// Pieces of one write, as many as Linux takes.
const PIECES_MAX: usize = 1024;

type Committed = oneshot::Sender<Result<(), io::ErrorKind>>;

#[derive(Debug, Default)]
struct Waiting {
    frames: Vec<(Vec<u8>, Committed)>,
    /// The thread sleeps.
    is_idle: bool,
    is_over: bool,
}

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    wake: Condvar,
}

/// The thread and its file.
#[derive(Debug)]
pub(super) struct Durable {
    shared: Arc<Shared>,
    budget: Semaphore,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Durable {
    fn drop(&mut self) {
        let mut waiting = self
            .shared
            .waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        waiting.is_over = true;
        drop(waiting);
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.take() {
            // It cannot panic, and nobody would hear of it.
            let _ = thread.join();
        }
    }
}

impl Durable {
    /// Writes into a file that is laid out.
    pub(super) fn start(file: File) -> io::Result<Durable> {
        let shared = Arc::<Shared>::default();
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("commit".to_owned());
        Ok(Durable {
            shared,
            budget: Semaphore::new(WAITING_BYTES),
            thread: Some(thread.spawn(move || for_thread.run(file))?),
        })
    }

    /// Waits until the frames are on disk.
    pub(super) async fn commit(&self, frames: Vec<u8>) -> io::Result<()> {
        let share = u32::try_from(frames.len()).map_err(io::Error::other)?;
        let share = self.budget.acquire_many(share).await;
        let (committed, wait) = oneshot::channel();
        let is_idle = {
            let mut waiting = self
                .shared
                .waiting
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            waiting.frames.push((frames, committed));
            std::mem::take(&mut waiting.is_idle)
        };
        if is_idle {
            self.shared.wake.notify_one();
        }
        let committed = wait.await.unwrap_or(Err(io::ErrorKind::BrokenPipe));
        drop(share);
        committed.map_err(io::Error::from)
    }
}

impl Shared {
    fn run(&self, mut file: File) {
        let mut at = 0;
        while let Some(batch) = self.next() {
            let written = write(&mut file, &mut at, &batch).map_err(|error| error.kind());
            for (_, committed) in batch {
                // Whoever asked may have gone.
                let _ = committed.send(written);
            }
        }
    }

    fn next(&self) -> Option<Vec<(Vec<u8>, Committed)>> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        while waiting.frames.is_empty() {
            if waiting.is_over {
                return None;
            }
            waiting.is_idle = true;
            waiting = self
                .wake
                .wait(waiting)
                .unwrap_or_else(PoisonError::into_inner);
        }
        waiting.is_idle = false;
        Some(std::mem::take(&mut waiting.frames))
    }
}

fn write(file: &mut File, at: &mut u64, batch: &[(Vec<u8>, Committed)]) -> io::Result<()> {
    let len: usize = batch.iter().map(|(frames, _)| frames.len()).sum();
    let len = u64::try_from(len).map_err(io::Error::other)?;
    if *at + len > FILE_BYTES {
        *at = 0;
        file.seek(SeekFrom::Start(0))?;
    }
    *at += len;
    for part in batch.chunks(PIECES_MAX) {
        let mut pieces: Vec<IoSlice<'_>> = part.iter().map(|(one, _)| IoSlice::new(one)).collect();
        let mut left = pieces.as_mut_slice();
        IoSlice::advance_slices(&mut left, 0);
        while !left.is_empty() {
            let written = file.write_vectored(left)?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            IoSlice::advance_slices(&mut left, written);
        }
    }
    file.sync_data()
}

/// A file of so many bytes, written in zeros and synced, so that writes into it change its data only.
pub(crate) fn laid_out(path: &Path, bytes: u64) -> io::Result<File> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)?;
    let zeros = vec![0; 1 << 20];
    let mut left = bytes;
    while left > 0 {
        let part = usize::try_from(left).unwrap_or(usize::MAX).min(zeros.len());
        file.write_all(zeros.get(..part).unwrap_or(&zeros))?;
        left -= part as u64;
    }
    file.sync_all()?;
    file.seek(SeekFrom::Start(0))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: what is answered was written. Method: the file holds what was committed, one after the other.
    #[tokio::test]
    async fn what_is_answered_is_in_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let durable = Durable::start(laid_out(&path, 1 << 20).unwrap()).unwrap();
        for n in 0..20u8 {
            durable.commit(vec![n; 1000]).await.unwrap();
            let file = std::fs::read(&path).unwrap();
            let at = usize::from(n) * 1000;
            assert_eq!(file[at..at + 1000], vec![n; 1000]);
            assert_eq!(file.len(), 1 << 20);
        }
    }
}
