//! The server that all systems read from: in memory, so that the disk is no part of the comparison, and without AWS's limits.

use crate::Failure;
use millstream_server::{Config, DataLocation, Limits, Server, StartStream};

/// Serves until standard input is closed, which it is when the comparison ends in whatever way.
pub(crate) async fn serve(streams: &[String]) -> Result<(), Failure> {
    let mut start = Vec::new();
    for stream in streams {
        let (name, shards) = stream.split_once(':').ok_or("a stream is NAME:SHARDS")?;
        let shards: u32 = shards.parse()?;
        start.push(StartStream::new(name.parse()?, shards.try_into()?));
    }
    let config = Config {
        port: 0,
        data: DataLocation::Ephemeral,
        limits: Limits::Off,
        streams: start,
        ..Config::default()
    };
    let server = Server::start(config).await?;
    println!("{}", server.url());
    let mut line = String::new();
    tokio::task::spawn_blocking(move || std::io::stdin().read_line(&mut line)).await??;
    server.shutdown().await;
    Ok(())
}
