//! Connections that were of use once and have nothing to do.

use super::Size;
use super::server::{Running, Setup};
use super::table::Row;
use crate::client::{Connection, Request};
use crate::measure::float;
use crate::{Failure, report};
use bytes::Bytes;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// Tasks that open connections.
const OPENERS: usize = 64;
/// After the last answer, until they count as idle: the server lets what is idle rest after a second or two, and lets it go
/// after a minute.
const IDLE_AFTER: Duration = Duration::from_secs(4);

pub(super) async fn run(setup: &Setup, size: Size) -> Result<Vec<Row>, Failure> {
    raise_open_files()?;
    let data = setup.data()?;
    let server = setup.start(data.path()).await?;
    let request = server
        .endpoint
        .request("ListStreams", Bytes::from_static(b"{}"))?;
    report::note(&format!("opening {} connections", size.connections));
    let before = server.memory()?.resident_kib;
    let mut connections = open(&server, &request, size.connections).await?;
    let busy = server.memory()?.resident_kib;
    sleep(IDLE_AFTER).await;
    let idle = server.memory()?.resident_kib;
    let each = float(idle.saturating_sub(before)) / float(as_u64(size.connections));
    let each_busy = float(busy.saturating_sub(before)) / float(as_u64(size.connections));
    let mut answered = 0;
    for connection in &mut connections {
        let answer = connection.send(&request).await;
        answered += usize::from(answer.is_ok_and(|answer| answer.status == 200));
    }
    let what = format!("resident for each of {} idle connections", size.connections);
    let rows = vec![
        Row::at_most(&what, (20.0, "KiB"), each),
        Row::told(
            "the same right after their first answer",
            format!("{each_busy:.1} KiB"),
        ),
        Row {
            what: "of these, answered again".to_owned(),
            target: size.connections.to_string(),
            reached: answered.to_string(),
            holds: Some(answered == size.connections),
            is_timed: false,
        },
    ];
    drop(connections);
    server.stop().await?;
    Ok(rows)
}

/// So many connections, each of which has had an answer.
pub(super) async fn open(
    server: &Running,
    request: &Request,
    count: usize,
) -> Result<Vec<Connection>, Failure> {
    let mut openers = JoinSet::new();
    for opener in 0..OPENERS {
        let (endpoint, request) = (server.endpoint.clone(), request.clone());
        openers.spawn(async move {
            let mut connections = Vec::new();
            for _ in (opener..count).step_by(OPENERS) {
                let mut connection = endpoint.connect().await?;
                connection.send(&request).await?.success("ListStreams")?;
                connections.push(connection);
            }
            Ok::<_, std::io::Error>(connections)
        });
    }
    let mut all = Vec::with_capacity(count);
    while let Some(opened) = openers.join_next().await {
        all.extend(opened??);
    }
    Ok(all)
}

pub(super) fn raise_open_files() -> Result<(), Failure> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    Ok(setrlimit(Resource::Nofile, raised)?)
}

fn as_u64(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
