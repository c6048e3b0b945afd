//! What the client library reads of servers: event streams, and pages of records.

use crate::engine::{Target, outcome, shape};
use kcl::client::fuzzing;
use tokio::runtime::{Builder, Runtime};

/// Before the payload of a frame: its length, its headers' length, and a checksum.
const PRELUDE_BYTES: usize = 12;
const CHECKSUM_BYTES: usize = 4;

/// The answer to SubscribeToShard, from its first byte.
pub(crate) struct Events {
    runtime: Runtime,
}

impl Events {
    pub(crate) fn new() -> Self {
        let mut builder = Builder::new_current_thread();
        Events {
            runtime: builder.enable_time().start_paused(true).build().unwrap(),
        }
    }
}

/// A frame with these texts as its headers.
fn frame(headers: &[(&str, &str)], payload: &[u8]) -> Vec<u8> {
    let mut written = Vec::new();
    for (name, value) in headers {
        written.push(u8::try_from(name.len()).unwrap());
        written.extend(name.as_bytes());
        written.push(7);
        written.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
        written.extend(value.as_bytes());
    }
    let total = PRELUDE_BYTES + written.len() + payload.len() + CHECKSUM_BYTES;
    let mut frame = u32::try_from(total).unwrap().to_be_bytes().to_vec();
    frame.extend(u32::try_from(written.len()).unwrap().to_be_bytes());
    frame.extend([0; 4]);
    frame.extend(written);
    frame.extend(payload);
    frame.extend([0; 4]);
    mend(&mut frame);
    frame
}

/// Puts the checksums of every frame right, as far as their lengths make sense.
fn mend(bytes: &mut [u8]) {
    let mut rest = bytes;
    while let Some(length) = rest.first_chunk::<4>() {
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        if length < PRELUDE_BYTES + CHECKSUM_BYTES || length > rest.len() {
            return;
        }
        let (frame, behind) = rest.split_at_mut(length);
        let crc = crc32(&frame[..PRELUDE_BYTES - 4]);
        frame[PRELUDE_BYTES - 4..PRELUDE_BYTES].copy_from_slice(&crc.to_be_bytes());
        let crc = crc32(&frame[..length - CHECKSUM_BYTES]);
        frame[length - CHECKSUM_BYTES..].copy_from_slice(&crc.to_be_bytes());
        rest = behind;
    }
}

/// CRC-32 of IEEE 802.3, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & 0_u32.wrapping_sub(crc & 1))
        })
    })
}

const JSON_EVENT: &[u8] = br#"{"Records":[{"SequenceNumber":"5","PartitionKey":"k","Data":"aGVsbG8=","ApproximateArrivalTimestamp":1.7E9}],"ContinuationSequenceNumber":"6","MillisBehindLatest":7,"ChildShards":[{"ShardId":"c","ParentShards":["a"],"HashKeyRange":{"StartingHashKey":"0","EndingHashKey":"9"}}]}"#;
const CBOR_EVENT: &[u8] = b"\xbf\x67Records\x9f\xbf\x6eSequenceNumber\x615\x64Data\x45hello\x6cPartitionKey\x61k\xff\xff\x78\x1aContinuationSequenceNumber\x616\x72MillisBehindLatest\x07\x6bChildShards\x9f\xbf\x67ShardId\x61c\x6cParentShards\x9f\x61a\xff\x6cHashKeyRange\xbf\x6fStartingHashKey\x610\x6dEndingHashKey\x619\xff\xff\xff\xff";
const TOKENS: &[&[u8]] = &[
    b"{",
    b"}",
    b"[",
    b"\"",
    b"null",
    b"\xbf",
    b"\xff",
    b"\x9f",
    b"\x5f",
    b"\x7f",
    b"\xc1",
    b"\xf6",
    b"\x5b\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff",
    b":event-type",
    b":message-type",
    b":exception-type",
    b"exception",
    b"\x07\x00\x05event",
    b"\x06\xff\xff",
    b"\x08",
    b"\x09",
    b"Records",
    b"Data",
    b"SequenceNumber",
    b"\\u0000",
    b"1e400",
];

impl Target for Events {
    fn seeds(&self) -> Vec<Vec<u8>> {
        let named = |kind: &'static str, name: &'static str| {
            let header = match kind {
                "exception" => ":exception-type",
                _ => ":event-type",
            };
            [(":message-type", kind), (header, name)]
        };
        let initial = frame(&named("event", "initial-response"), b"{}");
        let event = |payload| frame(&named("event", "SubscribeToShardEvent"), payload);
        let failure = frame(
            &named("exception", "ResourceNotFoundException"),
            br#"{"message":"gone"}"#,
        );
        vec![
            [initial.clone(), event(JSON_EVENT)].concat(),
            [initial.clone(), event(CBOR_EVENT), event(b"\xa0")].concat(),
            [initial.clone(), failure].concat(),
            [event(b"{}"), initial.clone()].concat(),
            initial,
        ]
    }

    fn tokens(&self) -> &'static [&'static [u8]] {
        TOKENS
    }

    fn mend(&mut self, input: &mut Vec<u8>) {
        // Often the length of the frame that was changed is made to fit as well.
        if let Some(first) = input.first_chunk::<4>() {
            let first = usize::try_from(u32::from_be_bytes(*first)).unwrap_or(usize::MAX);
            let is_cut = first > input.len() || first < PRELUDE_BYTES + CHECKSUM_BYTES;
            if is_cut && input.len() >= PRELUDE_BYTES + CHECKSUM_BYTES {
                let length = u32::try_from(input.len()).unwrap_or(u32::MAX);
                input[..4].copy_from_slice(&length.to_be_bytes());
            }
        }
        mend(input);
    }

    fn run(&mut self, input: &[u8]) -> u64 {
        let read = self.runtime.block_on(fuzzing::events(input.to_vec()));
        let error = read.error.map_or(1, |error| {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            shape(format_args!("{error} {}", cause.unwrap_or_default()))
        });
        error
            ^ shape(format_args!(
                "{} {}",
                letter(read.events),
                letter(read.records)
            ))
            .rotate_left(7)
    }
}

/// A number as a letter, few of them: a shape has no digits.
fn letter(number: usize) -> char {
    ["a", "b", "c", "d"][number.min(3)]
        .chars()
        .next()
        .unwrap_or('z')
}

/// The answer to GetRecords.
pub(crate) struct Pages;

impl Target for Pages {
    fn seeds(&self) -> Vec<Vec<u8>> {
        let mut seeds = vec![JSON_EVENT.to_vec(), CBOR_EVENT.to_vec()];
        seeds.push(br#"{"Records":[],"NextShardIterator":"i","MillisBehindLatest":0}"#.to_vec());
        seeds.push(
            b"\xa3\x67Records\x80\x71NextShardIterator\x61i\x72MillisBehindLatest\x00".to_vec(),
        );
        seeds
    }

    fn tokens(&self) -> &'static [&'static [u8]] {
        TOKENS
    }

    fn run(&mut self, input: &[u8]) -> u64 {
        let page = fuzzing::page(input.to_vec());
        let page = page.map_err(|error| {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            format!("{error} {}", cause.unwrap_or_default())
        });
        outcome(&page, |page| {
            let ends = page.next_iterator.is_none();
            shape(format_args!(
                "{ends} {} {}",
                letter(page.records.len()),
                letter(page.children.len())
            ))
        })
    }
}
