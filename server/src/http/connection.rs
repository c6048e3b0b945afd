//! One connection, from its first byte to its end: plain or over TLS, HTTP/1.1 or HTTP/2, at work or at rest.
//!
//! An HTTP/1.1 connection on which nothing happens *rests*: what served it goes, with its buffers, timers and its place among
//! those at work, and the next byte brings it back. So thousands of clients that call now and then take little, and when more
//! would be at work than there are places for, those between two requests make room for those who wait.

use hyper::Response;
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::CONNECTION;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::cell::Cell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io::ErrorKind;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::HttpConfig;
use super::LateTls;
use super::alarm::Alarmed;
use super::peer::Peer;
use super::places::{Held, Place, Places};
use super::request::{REFUSAL_TIME, Shared};
use super::rewound::Rewound;
use super::stall::WriteStall;
use super::unwritten::Unwritten;
use crate::api::Dispatch;

/// The first byte of a TLS connection. No HTTP method begins with it.
const TLS_HANDSHAKE: u8 = 0x16;
/// What an HTTP/2 connection begins with (RFC 9113, 3.4).
const HTTP_2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Requests one HTTP/2 connection may have under way.
const MAX_CONCURRENT_STREAMS: u32 = 128;
/// Bytes of a request's head at most.
const MAX_HEAD_BYTES: u32 = 64 * 1024;
/// Bytes that an HTTP/1.1 connection reads ahead, and has in its hands of an answer, at most.
const MAX_BUFFER_BYTES: usize = 128 * 1024;
/// How often a silent HTTP/2 connection is asked whether it is still there.
const PING_INTERVAL: Duration = Duration::from_secs(20);
/// How often, and how often in a row, nothing must be under way for a connection to end at shutdown.
const QUIET_LOOK: Duration = Duration::from_millis(250);
const QUIET_LOOKS: u32 = 4;
/// Bytes of bodies an HTTP/2 client may send ahead, by stream and by connection. The body budget
/// counts a body once it is asked for; this is what may wait before.
const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 2 * 1024 * 1024;

/// Serves a connection to its end.
pub(super) async fn connection<D: Dispatch>(stream: TcpStream, shared: Arc<Shared<D>>, held: Held) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "the connection was gone before it was served");
        return;
    }
    let config = &shared.config;
    let begun = async {
        let mut first = [0];
        let peeked = timeout(config.header_read_timeout, stream.peek(&mut first)).await;
        // Not a byte, for whatever reason, is nothing to serve.
        matches!(peeked, Ok(Ok(1))).then_some(first[0])
    };
    let first = tokio::select! {
        first = begun => first,
        () = held.shutdown.cancelled() => return,
    };
    let tls = config.tls.as_ref();
    let tls = tls.filter(|_| first == Some(TLS_HANDSHAKE)).cloned();
    let peer = Peer::new(stream);
    let unwritten = Arc::clone(&peer.unwritten);
    let stream = WriteStall::new(peer.clone(), config.write_stall_timeout, unwritten);
    match (first, tls) {
        (None, _) => {}
        (Some(_), None) => serve(stream, peer, shared, held).await,
        // Aside, so that a plain connection does not take the room that this needs.
        (Some(_), Some(tls)) => Box::pin(serve_tls(stream, peer, shared, (held, tls))).await,
    }
}

async fn serve_tls<D: Dispatch>(
    stream: WriteStall<Peer>,
    peer: Peer,
    shared: Arc<Shared<D>>,
    (mut held, mut tls): (Held, LateTls),
) {
    if !held.add_tls().await {
        tracing::debug!("a TLS connection found no place");
        return;
    }
    let handshake = Box::pin(async move {
        // Without a sender, what is not there yet will not come.
        let config = tls.wait_for(Option::is_some).await;
        let config = config.ok().and_then(|config| config.clone());
        let config = config.ok_or(ErrorKind::NotConnected)?;
        TlsAcceptor::from(config).accept(stream).await
    });
    let handshake = timeout(shared.config.tls_handshake_timeout, handshake);
    let done = tokio::select! {
        done = handshake => done,
        () = held.shutdown.cancelled() => return,
    };
    match done {
        Ok(Ok(stream)) => serve(stream, peer, shared, held).await,
        Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
        Err(_) => tracing::debug!("a TLS handshake took too long"),
    }
}

/// What a client speaks.
enum Protocol {
    Http1,
    Http2,
}

/// Serves what comes over the stream, which rests in between.
async fn serve<D: Dispatch, S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    peer: Peer,
    shared: Arc<Shared<D>>,
    mut held: Held,
) {
    let limit = shared.config.header_read_timeout;
    let mut stream = Rewound::new(stream);
    let protocol = tokio::select! {
        protocol = timeout(limit, protocol(&mut stream)) => protocol,
        () = held.shutdown.cancelled() => return,
    };
    match protocol {
        Ok(Some(Protocol::Http1)) => {}
        Ok(Some(Protocol::Http2)) if held.add_http_2().await => {
            return Box::pin(serve_http_2(stream, peer, shared, held)).await;
        }
        _ => return,
    }
    loop {
        let Some(place) = held.work().await else {
            tracing::debug!("a connection found no place among those at work");
            return;
        };
        let turn = (&shared, &held, &place);
        let served = Box::pin(serve_http_1(stream, &peer, turn)).await;
        drop(place);
        match served {
            Some(resting) => stream = resting,
            None => return,
        }
        let woken = tokio::select! {
            woken = rest(&mut stream, &shared.config, &held.places) => woken,
            () = held.shutdown.cancelled() => false,
        };
        if !woken {
            return;
        }
    }
}

/// Waits for the next request; `false` if none comes. When all places for connections are taken it need not be waited for
/// longer than for a head.
async fn rest<S: AsyncRead + Unpin>(
    stream: &mut Rewound<S>,
    config: &HttpConfig,
    places: &Places,
) -> bool {
    let (mut first, mut left) = ([0], config.idle_timeout);
    while !left.is_zero() {
        let step = left.min(config.header_read_timeout);
        match timeout(step, stream.read(&mut first)).await {
            Ok(Ok(1)) => {
                stream.rewind(&first);
                return true;
            }
            Err(_) if !places.are_taken() => left -= step,
            Ok(_) | Err(_) => return false,
        }
    }
    false
}

/// Looks at the first bytes; `None` if there are none.
async fn protocol<S: AsyncRead + Unpin>(stream: &mut Rewound<S>) -> Option<Protocol> {
    let mut seen = [0; HTTP_2_PREFACE.len()];
    let mut len = 0;
    while len < seen.len() && seen[..len] == HTTP_2_PREFACE[..len] {
        match stream.read(&mut seen[len..]).await {
            Ok(count @ 1..) => len += count,
            Ok(0) if len > 0 => break,
            _ => return None,
        }
    }
    stream.rewind(&seen[..len]);
    Some(if seen == HTTP_2_PREFACE {
        Protocol::Http2
    } else {
        Protocol::Http1
    })
}

/// Serves until the connection ends, which is `None`, or rests.
async fn serve_http_1<D: Dispatch, S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: Rewound<S>,
    peer: &Peer,
    (shared, held, place): (&Arc<Shared<D>>, &Held, &Place),
) -> Option<Rewound<S>> {
    let calls = Arc::new(Calls::default());
    let refuses = place.waited().is_none();
    // Only the first request of a turn waited for it.
    let waited = Cell::new(place.waited().unwrap_or_default());
    peer.unwritten.set_in_turn();
    let counted = &calls;
    let service = service_fn(move |request| {
        let (shared, peer) = (Arc::clone(shared), peer.clone());
        let (under_way, waited) = (UnderWay::count(counted), waited.take());
        Box::pin(async move {
            let answer = if refuses {
                shared.refuse(request).await
            } else {
                shared.answer(request, peer, waited).await
            };
            if answer.headers().contains_key(CONNECTION) {
                under_way.ends_the_connection();
            }
            Ok::<_, Infallible>(Counted::until_taken(answer, under_way))
        })
    });
    let unwritten = &peer.unwritten;
    let io = TokioIo::new(stream);
    let mut connection = http_1().serve_connection(io, service);
    let beside = pin!(beside_http_1(&calls, unwritten, shared, (held, place)));
    let mut beside = Alarmed::new(beside);
    // It ended, or something else says that it should, or others wait for its place.
    let stop = poll_fn(|cx| match connection.poll_without_shutdown(cx) {
        Poll::Ready(ended) => Poll::Ready(Err(ended)),
        Poll::Pending if (refuses || held.places.is_crowded()) && calls.are_done(unwritten) => {
            Poll::Ready(Ok(Stop::Rest))
        }
        Poll::Pending => Pin::new(&mut beside).poll(cx).map(Ok),
    });
    let served = match stop.await {
        Err(ended) => ended,
        Ok(Stop::Cut(why)) => {
            tracing::debug!("a connection was cut: {why}");
            return None;
        }
        Ok(stop) => {
            // Between two requests this ends it at once; otherwise it ends with the request under way.
            Pin::new(&mut connection).graceful_shutdown();
            let ended = poll_fn(|cx| Poll::Ready(connection.poll_without_shutdown(cx))).await;
            match (ended, stop) {
                (Poll::Ready(Ok(())), Stop::Rest) => {
                    let parts = connection.into_parts();
                    let mut stream = parts.io.into_inner();
                    stream.rewind(&parts.read_buf);
                    return Some(stream);
                }
                (Poll::Ready(ended), _) => ended,
                (Poll::Pending, _) => tokio::select! {
                    ended = poll_fn(|cx| connection.poll_without_shutdown(cx)) => ended,
                    () = left_for_long(unwritten, shared) => {
                        tracing::debug!("a connection was cut: {LEFT}");
                        return None;
                    }
                    () = nothing_left(&calls, unwritten) => return None,
                },
            }
        }
    };
    match served {
        Ok(()) => {
            let mut stream = connection.into_parts().io.into_inner();
            // It ends either way; over TLS the client is told.
            let _ = stream.shutdown().await;
        }
        Err(error) => tracing::debug!(%error, "a connection ended early"),
    }
    None
}

async fn serve_http_2<D: Dispatch, S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: Rewound<S>,
    peer: Peer,
    shared: Arc<Shared<D>>,
    held: Held,
) {
    let unwritten = Arc::clone(&peer.unwritten);
    let calls = Arc::new(Calls::default());
    let service = service_fn(|request| {
        let (shared, peer) = (Arc::clone(&shared), peer.clone());
        let under_way = UnderWay::count(&calls);
        async move {
            // It has its places for good, and waits for none.
            let answer = shared.answer(request, peer, Duration::ZERO).await;
            drop(under_way);
            Ok::<_, Infallible>(answer)
        }
    });
    let io = TokioIo::new(stream);
    let mut connection = pin!(http_2().serve_connection(io, service));
    let mut left = pin!(left_for_long(&unwritten, &shared));
    let mut nothing_left = pin!(nothing_left(&calls, &unwritten));
    let mut draining = false;
    loop {
        tokio::select! {
            served = connection.as_mut() => {
                if let Err(error) = served {
                    tracing::debug!(%error, "a connection ended early");
                }
                return;
            }
            () = left.as_mut() => {
                tracing::debug!("a connection was cut: it left an answer where it was");
                return;
            }
            () = held.shutdown.cancelled(), if !draining => {
                connection.as_mut().graceful_shutdown();
                draining = true;
            }
            () = nothing_left.as_mut(), if draining => return,
        }
    }
}

/// Why a connection is not simply served on.
enum Stop {
    /// It has nothing to do.
    Rest,
    /// The server shuts down: what is under way is finished.
    Finish,
    /// At once, and why.
    Cut(&'static str),
}

const LEFT: &str = "it left an answer where it was";

/// Waits for whatever may end a connection from outside.
async fn beside_http_1<D: Dispatch>(
    calls: &Calls,
    unwritten: &Unwritten,
    shared: &Shared<D>,
    (held, place): (&Held, &Place),
) -> Stop {
    let config = &shared.config;
    let head_limit = match place {
        Place::Serves { .. } => config.header_read_timeout,
        Place::Refuses(_) => config.header_read_timeout.min(REFUSAL_TIME),
    };
    tokio::select! {
        () = quiet(calls, unwritten, config.rest_after) => Stop::Rest,
        () = done_when_wanted(calls, unwritten, &held.places) => Stop::Rest,
        () = left_for_long(unwritten, shared) => Stop::Cut(LEFT),
        () = head_is_late(calls, head_limit) => Stop::Cut("the head of a request took too long"),
        () = held.shutdown.cancelled() => Stop::Finish,
    }
}

/// Waits until no call has begun for this time, or a quarter longer, while none was under way: its head takes too long, or
/// does not come. One timer for a connection, where one for each request would be set and taken back with each.
async fn head_is_late(calls: &Calls, limit: Duration) {
    const LOOKS: u32 = 4;
    let mut begun = calls.begun.load(Ordering::Relaxed);
    let mut unchanged = 0;
    while unchanged < LOOKS {
        sleep(limit / LOOKS).await;
        let now = calls.begun.load(Ordering::Relaxed);
        let waits = now == begun && !calls.are_under_way();
        unchanged = if waits { unchanged + 1 } else { 0 };
        begun = now;
    }
}

/// Waits until the client has taken nothing of an answer for too long, and others want its memory.
async fn left_for_long<D: Dispatch>(unwritten: &Unwritten, shared: &Shared<D>) {
    let limit = shared.config.write_stall_timeout;
    loop {
        sleep(limit / 4).await;
        if shared.answers.is_wanted(limit) && unwritten.longest() > limit {
            return;
        }
    }
}

/// Waits until nothing has been under way for a while, on a connection that was told to end. A client that is
/// there ends it at once; one that is not would be waited for.
async fn nothing_left(calls: &Calls, unwritten: &Unwritten) {
    let mut quiet = 0;
    while quiet < QUIET_LOOKS {
        sleep(QUIET_LOOK).await;
        let is_quiet = !calls.are_under_way() && unwritten.is_empty();
        quiet = if is_quiet { quiet + 1 } else { 0 };
    }
}

/// Waits until others want a place while this connection has nothing to do.
async fn done_when_wanted(calls: &Calls, unwritten: &Unwritten, places: &Places) {
    loop {
        places.room_is_wanted().await;
        if calls.are_done(unwritten) {
            return;
        }
    }
}

/// Waits until a connection that was of use has had nothing to do for at least this time, and at most twice as long.
async fn quiet(calls: &Calls, unwritten: &Unwritten, rest_after: Duration) {
    let mut begun = None;
    loop {
        sleep(rest_after).await;
        let now = calls.begun.load(Ordering::Relaxed);
        if begun == Some(now) && calls.are_done(unwritten) {
            return;
        }
        begun = Some(now);
    }
}

/// The calls of a connection.
#[derive(Debug, Default)]
struct Calls {
    begun: AtomicUsize,
    under_way: AtomicUsize,
    /// One of them was the last: what comes after it is not to be served.
    ended: AtomicBool,
}

impl Calls {
    fn are_under_way(&self) -> bool {
        self.under_way.load(Ordering::Relaxed) > 0
    }

    /// Whether there were calls, all of them have been answered to the last byte, and more may follow.
    fn are_done(&self, unwritten: &Unwritten) -> bool {
        self.begun.load(Ordering::Relaxed) > 0
            && !self.are_under_way()
            && !self.ended.load(Ordering::Relaxed)
            && unwritten.is_written()
    }
}

/// A call under way, until dropped.
#[derive(Debug)]
struct UnderWay(Arc<Calls>);

impl UnderWay {
    fn count(calls: &Arc<Calls>) -> UnderWay {
        calls.begun.fetch_add(1, Ordering::Relaxed);
        calls.under_way.fetch_add(1, Ordering::Relaxed);
        UnderWay(Arc::clone(calls))
    }
}

impl UnderWay {
    fn ends_the_connection(&self) {
        self.0.ended.store(true, Ordering::Relaxed);
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The body of an answer whose call is under way until the connection has taken all of it.
struct Counted<B> {
    body: B,
    _under_way: UnderWay,
}

impl<B> Counted<B> {
    fn until_taken(answer: Response<B>, under_way: UnderWay) -> Response<Counted<B>> {
        answer.map(|body| Counted {
            body,
            _under_way: under_way,
        })
    }
}

impl<B: Body + Unpin> Body for Counted<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn http_1() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        // See `head_is_late`.
        .header_read_timeout(None)
        .max_buf_size(MAX_BUFFER_BYTES)
        // A client that sends no more still gets its answers.
        .half_close(true);
    builder
}

fn http_2() -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_CONCURRENT_STREAMS)
        .max_header_list_size(MAX_HEAD_BYTES)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_INTERVAL);
    builder
}

#[cfg(test)]
mod tests;
