//! Accepts connections, caps them, serves them as HTTP/1.1 or HTTP/2, plain or over TLS, and lets them
//! finish.

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::HttpConfig;
use super::peer::Peer;
use super::request::Shared;
use super::stall::WriteStall;
use crate::api::Dispatch;

/// The first byte of a TLS connection. No HTTP method begins with it.
const TLS_HANDSHAKE: u8 = 0x16;
/// Pause after a failed accept, such as one without a free file descriptor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Requests one HTTP/2 connection may have under way.
const MAX_CONCURRENT_STREAMS: u32 = 128;
/// Bytes of a request's head at most.
const MAX_HEAD_BYTES: u32 = 64 * 1024;
/// How often a silent HTTP/2 connection is asked whether it is still there.
const PING_INTERVAL: Duration = Duration::from_secs(20);
/// Bytes of bodies an HTTP/2 client may send ahead, by stream and by connection. The body budget
/// counts a body once it is asked for; this is what may wait before.
const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 2 * 1024 * 1024;

/// Serves requests on `listener` until `shutdown`, then lets those under way finish.
///
/// # Errors
/// None at present; a failed accept is logged and tried again.
///
/// # Cancel safety
/// Dropping the future ends every connection at once. To stop cleanly, cancel `shutdown` and wait.
pub async fn serve<D: Dispatch>(
    listener: TcpListener,
    dispatch: D,
    config: HttpConfig,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let slots = Arc::new(Semaphore::new(
        config.max_connections.min(Semaphore::MAX_PERMITS),
    ));
    let drain_timeout = config.drain_timeout;
    let shared = Arc::new(Shared::new(dispatch, config, shutdown.clone()));
    let mut connections = JoinSet::new();
    loop {
        let accepted = async {
            // Never closed, so this only waits.
            let slot = Arc::clone(&slots).acquire_owned().await.ok();
            (slot, listener.accept().await)
        };
        tokio::select! {
            () = shutdown.cancelled() => break,
            Some(_) = connections.join_next() => {}
            (slot, accepted) = accepted => match accepted {
                Ok((stream, _)) => {
                    let (shared, shutdown) = (Arc::clone(&shared), shutdown.clone());
                    connections.spawn(async move {
                        connection(stream, shared, shutdown).await;
                        drop(slot);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(drain_timeout, drained).await.is_err() {
        tracing::warn!(
            open = connections.len(),
            "connections were cut: they did not finish in time"
        );
        connections.shutdown().await;
    }
    Ok(())
}

async fn connection<D: Dispatch>(
    stream: TcpStream,
    shared: Arc<Shared<D>>,
    shutdown: CancellationToken,
) {
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
        () = shutdown.cancelled() => return,
    };
    let tls = config.tls.as_ref();
    let tls = tls.filter(|_| first == Some(TLS_HANDSHAKE));
    let peer = Peer::new(stream);
    let stream = WriteStall::new(peer.clone(), config.write_stall_timeout);
    match (first, tls) {
        (None, _) => {}
        (Some(_), None) => serve_http(stream, peer, shared, shutdown).await,
        (Some(_), Some(tls)) => {
            let handshake = TlsAcceptor::from(Arc::clone(tls)).accept(stream);
            let handshake = timeout(config.tls_handshake_timeout, handshake);
            tokio::select! {
                done = handshake => match done {
                    Ok(Ok(stream)) => serve_http(stream, peer, shared, shutdown).await,
                    Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
                    Err(_) => tracing::debug!("a TLS handshake took too long"),
                },
                () = shutdown.cancelled() => {}
            }
        }
    }
}

async fn serve_http<D: Dispatch, S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    peer: Peer,
    shared: Arc<Shared<D>>,
    shutdown: CancellationToken,
) {
    let config = &shared.config;
    let spoke = AtomicBool::new(false);
    let service = service_fn(|request| {
        spoke.store(true, Ordering::Relaxed);
        let (shared, peer) = (Arc::clone(&shared), peer.clone());
        async move { Ok::<_, Infallible>(shared.answer(request, peer).await) }
    });
    let io = TokioIo::new(stream);
    let builder = builder(config);
    let mut connection = pin!(builder.serve_connection(io, service));
    // Until the first bytes tell HTTP/1.1 from HTTP/2, no timeout of either applies.
    let mut silence = pin!(tokio::time::sleep(config.header_read_timeout));
    let (mut listening, mut draining) = (true, false);
    loop {
        tokio::select! {
            served = connection.as_mut() => {
                if let Err(error) = served {
                    tracing::debug!(%error, "a connection ended early");
                }
                return;
            }
            () = silence.as_mut(), if listening => {
                if !spoke.load(Ordering::Relaxed) {
                    return;
                }
                listening = false;
            }
            () = shutdown.cancelled(), if !draining => {
                connection.as_mut().graceful_shutdown();
                draining = true;
            }
        }
    }
}

fn builder(config: &HttpConfig) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(config.header_read_timeout)
        // A client that sends no more still gets its answers.
        .half_close(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_CONCURRENT_STREAMS)
        .max_header_list_size(MAX_HEAD_BYTES)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_INTERVAL);
    builder
}
