//! The client's end of a connection: its bytes, whether it has gone away, and what it has not taken yet.

use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::sleep;

use super::unwritten::Unwritten;

/// How often it is asked again while bytes lie there that nobody reads yet.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// A client. Its socket is shared so that an answer that has no end of its own can see that nobody waits
/// for it any more: while an answer is under way, HTTP/1.1 does not read.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    stream: Arc<TcpStream>,
    /// What it has not taken yet.
    pub(super) unwritten: Arc<Unwritten>,
}

impl Peer {
    pub(super) fn new(stream: TcpStream) -> Peer {
        Peer {
            stream: Arc::new(stream),
            unwritten: Arc::default(),
        }
    }

    /// Waits until the client has ended its side, or the connection is broken.
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub(super) async fn gone(&self) {
        // Looking for a byte waits until there is one, or there will be none.
        while let Ok(1..) = self.stream.peek(&mut [0]).await {
            match self.stream.ready(Interest::READABLE).await {
                Ok(ready) if !ready.is_read_closed() => sleep(LOOK_AGAIN).await,
                _ => return,
            }
        }
    }
}

/// What `attempt` gives once the socket is `ready` for it.
fn once_ready<T>(
    mut is_ready: impl FnMut() -> Poll<io::Result<()>>,
    mut attempt: impl FnMut() -> io::Result<T>,
) -> Poll<io::Result<T>> {
    loop {
        ready!(is_ready())?;
        match attempt() {
            // Readiness was out of date, and has been cleared by the attempt.
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            done => return Poll::Ready(done),
        }
    }
}

impl AsyncRead for Peer {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = || self.stream.try_read_buf(buffer).map(drop);
        once_ready(|| self.stream.poll_read_ready(cx), read)
    }
}

impl AsyncWrite for Peer {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        once_ready(
            || self.stream.poll_write_ready(cx),
            || self.stream.try_write(bytes),
        )
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let write = || self.stream.try_write_vectored(slices);
        once_ready(|| self.stream.poll_write_ready(cx), write)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Does nothing: the socket is closed when the connection is dropped, which is right after.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
