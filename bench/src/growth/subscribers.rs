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
use tokio::time::sleep_until;

/// Records a second, each of which all subscribers get: ten thousand events a second.
const RATE: f64 = 10.0;
const RECORD_BYTES: usize = 1024;
/// Subscriptions over one connection, as a client has them that is asked for as many.
const PER_CONNECTION: usize = 20;
/// Of the server: a budget under which all of them have a place, where the system gives it twenty thousand files.
const MEMORY: &str = "1GiB";
const WARM_UP: Duration = Duration::from_secs(1);

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
    let propagation = Propagation {
        stream: name,
        connections: 1,
        record_bytes: RECORD_BYTES,
        rate: RATE,
        retrieval: Retrieval::Subscribe,
        subscribers,
        per_connection: PER_CONNECTION,
        poll_every: Duration::from_secs(1),
    };
    let receivers = propagation.receivers(&server.endpoint).await?;
    let connections = open(&server, &request, idle).await?;
    let window = Window::after(WARM_UP, size.duration * 3);
    let recorder = Recorder::new(window)?;
    let amid = async {
        sleep_until(window.begins + size.duration).await;
        process::open_files(server.pid)
    };
    let (ran, used, files) = tokio::join!(
        propagation.run_with(receivers, &server.endpoint, &recorder),
        watch(window, None),
        amid
    );
    ran?;
    let (round, files) = (recorder.round(used?), files?);
    let memory = server.memory()?;
    drop(connections);
    server.stop().await?;
    let due = RATE * window.seconds() * float(u64::try_from(subscribers)?);
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
        Row::told(
            "records that they received in time, of those due",
            format!("{} of {due:.0}", round.records),
        ),
    ])
}
