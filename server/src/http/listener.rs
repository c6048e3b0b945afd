//! Accepts connections, caps them, and lets them finish.

use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::HttpConfig;
use super::connection::connection;
use super::places::{Held, Places};
use super::request::Shared;
use crate::api::Dispatch;

/// Pause after a failed accept, such as one without a free file descriptor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

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
    let drain_timeout = config.drain_timeout;
    let places = Arc::new(Places::new(&config));
    let shared = Arc::new(Shared::new(dispatch, config, shutdown.clone()));
    let mut connections = JoinSet::new();
    loop {
        let accepted = async {
            let place = places.accept().await;
            (place, listener.accept().await)
        };
        tokio::select! {
            () = shutdown.cancelled() => break,
            Some(_) = connections.join_next() => {}
            (place, accepted) = accepted => match accepted {
                Ok((stream, _)) => {
                    let (shared, places) = (Arc::clone(&shared), Arc::clone(&places));
                    let held = Held::new(place, places, shutdown.clone());
                    connections.spawn(connection(stream, shared, held));
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
