//! A thousand subscribers on one shard beside ten thousand connections that have nothing to do.

use super::Size;
use super::connections::{open, raise_open_files};
use super::puts::mib;
use super::server::Setup;
use super::table::Row;
use crate::measure::{Recorder, Window, float, watch};
use crate::workload::{Propagation, Retrieval};
use crate::{Failure, process, report, stream};
use bytes::Bytes;
use std::time::Duration;

/// Records a second, each of which all subscribers get: a record for each subscriber and second makes the load ten thousand.
const RATE: f64 = 10.0;
const RECORD_BYTES: usize = 1024;
/// Of the server: a budget under which all of them have a place.
const MEMORY: &str = "1GiB";
/// Until all have subscribed.
const SUBSCRIBED_WITHIN: Duration = Duration::from_secs(20);

pub(super) async fn run(setup: &Setup, size: Size) -> Result<Vec<Row>, Failure> {
    raise_open_files()?;
    let data = setup.data()?;
    let server = Setup {
        memory: MEMORY.to_owned(),
        ..setup.clone()
    }
    .start(data.path())
    .await?;
    let name = stream::create(&server.endpoint, 1).await?;
    let (idle, subscribers) = (size.connections, size.subscribers);
    report::note(&format!(
        "{subscribers} subscribers, {idle} idle connections"
    ));
    let request = server
        .endpoint
        .request("ListStreams", Bytes::from_static(b"{}"))?;
    let connections = open(&server, &request, idle).await?;
    let window = Window::after(SUBSCRIBED_WITHIN, size.duration * 3);
    let recorder = Recorder::new(window)?;
    let propagation = Propagation {
        stream: name,
        connections: 1,
        record_bytes: RECORD_BYTES,
        rate: RATE,
        retrieval: Retrieval::Subscribe,
        subscribers,
        poll_every: Duration::from_secs(1),
    };
    let (ran, used) = tokio::join!(
        propagation.run(&server.endpoint, &recorder),
        watch(window, Some(server.pid))
    );
    ran?;
    let round = recorder.round(used?);
    let memory = server.memory()?;
    let files = process::open_files(server.pid)?;
    drop(connections);
    server.stop().await?;
    let due = RATE * window.seconds() * float(u64::try_from(subscribers)?);
    if float(round.records) < due * 0.9 {
        let message = format!("{} of {due:.0} records were received", round.records);
        return Err(message.into());
    }
    let what =
        format!("put to each of {subscribers} subscribers of a shard, {RATE} records/s, p99");
    let told = format!("p50 {:.1} ms", round.latency.p50_us / 1e3);
    Ok(vec![
        Row::at_most(&what, (50.0, "ms"), round.latency.p99_us / 1e3).noting(&told),
        Row::at_most(
            &format!("resident with them and {idle} idle connections"),
            (286.0, "MiB"),
            mib(memory.peak_kib),
        )
        .noting(&format!("{files} open files")),
    ])
}
