//! Records put one by one, each in a commit of its own, and whether all of them are there.

use std::ops::Range;
use support::check::stream_is_whole;
use support::client::RawClient;
use support::history::{Acked, ReadShard, Sequence, Written};
use support::reader::read_stream;

/// Puts the records `numbers` one after another.
pub(crate) async fn put_each(client: &RawClient, stream: &str, numbers: Range<u64>) -> Vec<Acked> {
    let mut acked = Vec::new();
    for n in numbers {
        let written = Written {
            writer: "one".to_owned(),
            n,
        };
        let payload = written.payload();
        let put = client
            .put(stream, &written.writer, payload.as_bytes())
            .await;
        let (shard, sequence) = put.unwrap_or_else(|error| panic!("put {payload}: {error}"));
        let sequence = Sequence::new(&sequence);
        acked.push(Acked {
            written,
            shard,
            sequence,
        });
    }
    acked
}

/// Reads the stream; panics unless it holds all that was acknowledged, and rightly.
pub(crate) async fn read_whole(
    client: &RawClient,
    stream: &str,
    acked: &[Acked],
) -> Vec<ReadShard> {
    let whole = read_stream(client, stream).await.unwrap();
    stream_is_whole(acked, &whole).unwrap();
    whole
}

/// How many records were read.
pub(crate) fn count(whole: &[ReadShard]) -> usize {
    whole.iter().map(|shard| shard.records.len()).sum()
}
