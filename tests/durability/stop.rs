//! An orderly end under load.

use crate::{SERVER, SIXTEEN, STREAM};
use std::time::Duration;
use support::load::Load;
use support::reader::read_stream;
use support::{ServerProcess, check};

/// SIGTERM while sixteen writers put: the process ends with code 0, and after a restart everything it
/// acknowledged is there once (S10). Several times, because what is in flight differs.
#[tokio::test(flavor = "multi_thread")]
async fn s10_sigterm_under_load_exits_0_and_loses_nothing() {
    let _alone = support::alone().await;
    let mut server = ServerProcess::start(SERVER).await;
    let client = server.client();
    client.create_stream(STREAM, 4).await;
    let load = Load::start(&client, STREAM, SIXTEEN);
    for _ in 0..support::scaled(5, 50) {
        let before = load.acked_count();
        tokio::time::sleep(Duration::from_millis(300)).await;
        let ended = server.terminate().await;
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
        let acked = load.acked();
        assert!(acked.len() > before, "it was under load");
        server.restart().await;
        check::stream_is_whole(&acked, &read_stream(&client, STREAM).await.unwrap()).unwrap();
    }
    let (acked, _) = load.stop().await;
    check::stream_is_whole(&acked, &read_stream(&client, STREAM).await.unwrap()).unwrap();
}
