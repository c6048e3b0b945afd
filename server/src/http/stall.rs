//! A connection's bytes, with an end to waiting for a client that takes nothing.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::unwritten::Unwritten;

/// Fails a write that could not go on for so long, so that an answer is not kept forever for a
/// client that does not read it.
#[derive(Debug)]
pub(super) struct WriteStall<S> {
    stream: S,
    timeout: Duration,
    /// There while a write waits.
    deadline: Option<Pin<Box<Sleep>>>,
    unwritten: Arc<Unwritten>,
}

impl<S> WriteStall<S> {
    /// Notes in `unwritten` whether a write waits.
    pub(super) fn new(stream: S, timeout: Duration, unwritten: Arc<Unwritten>) -> Self {
        WriteStall {
            stream,
            timeout,
            deadline: None,
            unwritten,
        }
    }

    /// When all is written, more is asked for, which is noted there.
    fn note(&self, written: &Poll<io::Result<usize>>, wanted: usize) {
        if let Poll::Ready(Ok(written)) = written
            && *written < wanted
        {
            self.unwritten.part_was_written();
        }
    }

    fn watch<T>(
        &mut self,
        cx: &mut Context<'_>,
        result: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if result.is_ready() {
            if self.deadline.take().is_some() {
                self.unwritten.set_stalled(false);
            }
            return result;
        }
        let timeout = self.timeout;
        let deadline = self.deadline.get_or_insert_with(|| {
            self.unwritten.set_stalled(true);
            Box::pin(sleep(timeout))
        });
        ready!(deadline.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WriteStall<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WriteStall<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.note(&result, bytes.len());
        self.watch(cx, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.note(&result, slices.iter().map(|slice| slice.len()).sum());
        self.watch(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_flush(cx);
        self.watch(cx, result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
