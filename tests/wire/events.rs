//! The event stream of SubscribeToShard, frame by frame: lengths and checksums are checked here, and payloads
//! are read in the encoding of the request.

use crate::exchange::Exchange;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;
use support::client::CallError;

const OPERATION: &str = "SubscribeToShard";
/// An event comes every five seconds at least.
const EVENT_LIMIT: Duration = Duration::from_secs(15);

/// A subscription that has begun; dropping it closes its connection.
#[derive(Debug)]
pub(crate) struct Subscription {
    exchange: Exchange,
    response: reqwest::Response,
    bytes: Vec<u8>,
}

impl Subscription {
    /// Subscribes; the first frame, which holds nothing, has been read.
    pub(crate) async fn begin(
        exchange: &Exchange,
        input: &Value,
    ) -> Result<Subscription, CallError> {
        let (status, response) = exchange.send(OPERATION, input).await?;
        if status != 200 {
            let body = response.bytes().await.map_err(CallError::unanswered)?;
            return Err(exchange.refused(OPERATION, status, &body));
        }
        let content_type = response.headers()["content-type"].to_str().unwrap();
        assert_eq!(content_type, "application/vnd.amazon.eventstream");
        let mut begun = Subscription {
            exchange: exchange.clone(),
            response,
            bytes: Vec::new(),
        };
        let first = begun.next().await.expect("a first frame");
        assert_eq!(first.0, "initial-response");
        assert_eq!(first.1, serde_json::json!({}));
        Ok(begun)
    }

    /// The next event or exception and its content; `None` when the subscription has ended.
    pub(crate) async fn next(&mut self) -> Option<(String, Value)> {
        let frame = loop {
            if let Some(frame) = self.take_frame() {
                break frame;
            }
            let chunk = tokio::time::timeout(EVENT_LIMIT, self.response.chunk()).await;
            let chunk = chunk.unwrap_or_else(|_| panic!("no event within {EVENT_LIMIT:?}"));
            match chunk.unwrap_or_else(|error| panic!("a subscription was cut: {error:?}")) {
                Some(chunk) => self.bytes.extend_from_slice(&chunk),
                None if self.bytes.is_empty() => return None,
                None => panic!("a subscription ended in the middle of a frame"),
            }
        };
        Some(self.read(&frame))
    }

    /// A whole frame, if one has come.
    fn take_frame(&mut self) -> Option<Vec<u8>> {
        let total = u32::from_be_bytes(*self.bytes.first_chunk()?);
        let total = usize::try_from(total).unwrap();
        if self.bytes.len() < total {
            return None;
        }
        let rest = self.bytes.split_off(total);
        Some(std::mem::replace(&mut self.bytes, rest))
    }

    fn read(&self, frame: &[u8]) -> (String, Value) {
        let number = |at: usize| u32::from_be_bytes(*frame[at..].first_chunk().unwrap());
        assert_eq!(number(8), crc32(&frame[..8]), "checksum of the lengths");
        let end = frame.len() - 4;
        assert_eq!(number(end), crc32(&frame[..end]), "checksum of the frame");
        let headers_end = 12 + usize::try_from(number(4)).unwrap();
        let headers = headers(&frame[12..headers_end]);
        let payload = &frame[headers_end..end];
        let encoding = self.exchange.encoding;
        assert_eq!(headers[":content-type"], encoding.content_type());
        let name = match headers[":message-type"].as_str() {
            "event" => &headers[":event-type"],
            "exception" => &headers[":exception-type"],
            other => panic!("a message of type {other}"),
        };
        let model = self.exchange.model;
        let shape = model.shape(name);
        let payload = encoding.decode(model, shape, payload);
        let payload = payload.unwrap_or_else(|why| panic!("{name}: {why}"));
        (name.clone(), payload)
    }
}

/// Headers, all of which are texts.
fn headers(mut bytes: &[u8]) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    while let [name_length, rest @ ..] = bytes {
        let (name, rest) = rest.split_at(usize::from(*name_length));
        let [7, high, low, rest @ ..] = rest else {
            panic!("a header that is no text: {rest:?}");
        };
        let (value, rest) = rest.split_at(usize::from(u16::from_be_bytes([*high, *low])));
        found.insert(text(name), text(value));
        bytes = rest;
    }
    found
}

/// CRC-32 (IEEE), bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            let carry = crc & 1 == 1;
            crc >>= 1;
            if carry {
                crc ^= 0xEDB8_8320;
            }
        }
    }
    !crc
}
