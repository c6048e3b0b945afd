//! The CBOR of what carries data, the answer to `GetRecords` and the events of subscriptions: read in one pass, payloads and partition keys left where they lie in the answer.
//!
//! Every byte is taken for hostile: no length that is read decides over an allocation, nesting and lists are bounded. Members that this library
//! does not know are passed over. Lists, maps and strings may have an indefinite length, as AWS writes the first two; a timestamp is tag 1
//! around whole *milliseconds*, as AWS means it, or around seconds with a fraction, as the standard does.

#![warn(
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::arithmetic_side_effects
)]

use crate::client::json::{ErrorAnswer, RecordsRequest, milliseconds, too_many};
use crate::client::{RecordsPage, Shard, SubscriptionEvent};
use crate::error::{Error, ErrorKind};
use crate::key::Key;
use crate::processor::Record;
use bytes::{Bytes, BytesMut};
use millstream_wire::limits::GET_RECORDS_MAX_COUNT;
use millstream_wire::{HashKey, HashKeyRange, cbor};
use minicbor::Decoder;
use minicbor::data::Type;
use minicbor::decode;
use std::borrow::Cow;
use std::str::FromStr;

/// Lists and maps inside one another at most, where they are passed over.
const DEPTH_MAX: usize = 64;
/// The tag of a timestamp.
const TIMESTAMP_TAG: u64 = 1;

/// The request for records.
pub(super) fn records_request(request: &RecordsRequest<'_>) -> Result<Vec<u8>, Error> {
    cbor::to_vec(request).map_err(|error| {
        let message = "a request cannot be written as CBOR";
        Error::with_source(ErrorKind::Protocol, message, error)
    })
}

/// What an error answer says; nothing, if it is none.
pub(super) fn error_answer(body: &[u8]) -> ErrorAnswer {
    cbor::from_slice(body).unwrap_or_default()
}

/// The page that an answer to `GetRecords` is. Its records are slices of `body`.
pub(super) fn records_page(body: &Bytes) -> Result<RecordsPage, Error> {
    let read = whole(body, Input::page);
    read.map_err(|error| {
        let message = "the answer to GetRecords is not what the API says";
        Error::with_source(ErrorKind::Protocol, message, error)
    })
}

/// The event of a subscription that `body` is. Its records are slices of `body`.
pub(super) fn event(body: &Bytes) -> Result<SubscriptionEvent, Error> {
    let read = whole(body, Input::event);
    read.map_err(|error| {
        let message = "an event of a subscription cannot be read";
        Error::with_source(ErrorKind::Protocol, message, error)
    })
}

/// What is read of `body`, which has nothing behind it.
fn whole<'b, T>(
    body: &'b Bytes,
    read: impl FnOnce(&mut Input<'b>) -> Result<T, decode::Error>,
) -> Result<T, decode::Error> {
    let mut input = Input {
        decoder: Decoder::new(body),
        body,
    };
    let value = read(&mut input)?;
    if input.decoder.position() < body.len() {
        return Err(decode::Error::message("something follows the answer"));
    }
    Ok(value)
}

type Result<T, E = decode::Error> = std::result::Result<T, E>;

/// An answer, and how far it is read.
struct Input<'b> {
    decoder: Decoder<'b>,
    body: &'b Bytes,
}

impl<'b> Input<'b> {
    fn page(&mut self) -> Result<RecordsPage> {
        let mut page = RecordsPage::default();
        self.entries(|input, name| {
            match name {
                "Records" => page.records = input.records()?,
                "MillisBehindLatest" => page.millis_behind_latest = input.unsigned()?,
                "NextShardIterator" => page.next_iterator = Some(input.text()?.into_owned()),
                "ChildShards" => page.children = input.list(Input::child)?,
                _ => input.pass_over(DEPTH_MAX)?,
            }
            Ok(())
        })?;
        Ok(page)
    }

    fn event(&mut self) -> Result<SubscriptionEvent> {
        let mut event = SubscriptionEvent::default();
        self.entries(|input, name| {
            match name {
                "Records" => event.records = input.records()?,
                "MillisBehindLatest" => event.millis_behind_latest = input.unsigned()?,
                "ContinuationSequenceNumber" => {
                    event.continuation = Some(input.parsed("a sequence number")?);
                }
                "ChildShards" => event.children = input.list(Input::child)?,
                _ => input.pass_over(DEPTH_MAX)?,
            }
            Ok(())
        })?;
        Ok(event)
    }

    fn records(&mut self) -> Result<Vec<Record>> {
        let begin = self.decoder.position();
        let mut left = self.decoder.array()?;
        let mut records = Vec::new();
        while self.more(&mut left)? {
            let record = self.record()?;
            if records.is_empty() {
                // The others will be about as long as the first.
                let length = self.decoder.position().saturating_sub(begin).max(1);
                let about = self.body.len().checked_div(length).unwrap_or(1);
                records.reserve(about.min(GET_RECORDS_MAX_COUNT));
            }
            if records.len() >= GET_RECORDS_MAX_COUNT {
                return Err(decode::Error::message(too_many("records")));
            }
            records.push(record);
        }
        Ok(records)
    }

    fn record(&mut self) -> Result<Record> {
        let (mut number, mut data) = (None, None);
        let (mut key, mut arrival_ms) = (Key::slice(Bytes::new()), 0);
        self.entries(|input, name| {
            match name {
                "SequenceNumber" => number = Some(input.parsed("a sequence number")?),
                "PartitionKey" => key = input.key()?,
                "Data" => data = Some(input.blob()?),
                "ApproximateArrivalTimestamp" => arrival_ms = input.milliseconds()?,
                _ => input.pass_over(DEPTH_MAX)?,
            }
            Ok(())
        })?;
        let number = number.ok_or_else(|| missing("SequenceNumber"))?;
        let data = data.ok_or_else(|| missing("Data"))?;
        Ok(Record::stored(number, key, data, arrival_ms))
    }

    fn child(&mut self) -> Result<Shard> {
        let (mut shard_id, mut parents, mut range) = (None, Vec::new(), None);
        self.entries(|input, name| {
            match name {
                "ShardId" => shard_id = Some(input.text()?.into_owned()),
                "ParentShards" => parents = input.list(|input| Ok(input.text()?.into_owned()))?,
                "HashKeyRange" => range = Some(input.hash_keys()?),
                _ => input.pass_over(DEPTH_MAX)?,
            }
            Ok(())
        })?;
        Ok(Shard {
            shard_id: shard_id.ok_or_else(|| missing("ShardId"))?,
            parents,
            hash_key_range: range.ok_or_else(|| missing("HashKeyRange"))?,
            closed: false,
        })
    }

    fn hash_keys(&mut self) -> Result<HashKeyRange> {
        let (mut start, mut end): (Option<HashKey>, Option<HashKey>) = (None, None);
        self.entries(|input, name| {
            match name {
                "StartingHashKey" => start = Some(input.parsed("a hash key")?),
                "EndingHashKey" => end = Some(input.parsed("a hash key")?),
                _ => input.pass_over(DEPTH_MAX)?,
            }
            Ok(())
        })?;
        Ok(HashKeyRange {
            start: start.ok_or_else(|| missing("StartingHashKey"))?,
            end: end.ok_or_else(|| missing("EndingHashKey"))?,
        })
    }

    /// The members of a structure; one that is null is not there.
    fn entries(&mut self, mut member: impl FnMut(&mut Self, &str) -> Result<()>) -> Result<()> {
        let mut left = self.decoder.map()?;
        while self.more(&mut left)? {
            let name = self.text()?;
            match self.kind()? {
                Type::Null => self.decoder.null()?,
                Type::Undefined => self.decoder.undefined()?,
                _ => member(self, &name)?,
            }
        }
        Ok(())
    }

    /// A list of what is few.
    fn list<T>(&mut self, item: impl Fn(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        let mut left = self.decoder.array()?;
        let mut items = Vec::new();
        while self.more(&mut left)? {
            if items.len() >= GET_RECORDS_MAX_COUNT {
                return Err(decode::Error::message("a list is too long"));
            }
            items.push(item(self)?);
        }
        Ok(items)
    }

    /// Whether a list or map goes on: so many are left, or all until the break.
    fn more(&mut self, left: &mut Option<u64>) -> Result<bool> {
        if let Some(left) = left {
            let before = *left;
            *left = before.saturating_sub(1);
            return Ok(before > 0);
        }
        if self.kind()? != Type::Break {
            return Ok(true);
        }
        let after = self.decoder.position().saturating_add(1);
        self.decoder.set_position(after);
        Ok(false)
    }

    fn kind(&self) -> Result<Type> {
        self.decoder.datatype()
    }

    fn text(&mut self) -> Result<Cow<'b, str>> {
        if self.kind()? == Type::String {
            return self.decoder.str().map(Cow::Borrowed);
        }
        let pieces = self.decoder.str_iter()?;
        pieces.collect::<Result<String>>().map(Cow::Owned)
    }

    fn key(&mut self) -> Result<Key> {
        Ok(match self.text()? {
            Cow::Borrowed(text) => Key::slice(self.body.slice_ref(text.as_bytes())),
            Cow::Owned(text) => Key::from(text),
        })
    }

    fn blob(&mut self) -> Result<Bytes> {
        if self.kind()? == Type::Bytes {
            return Ok(self.body.slice_ref(self.decoder.bytes()?));
        }
        let mut whole = BytesMut::new();
        for piece in self.decoder.bytes_iter()? {
            whole.extend_from_slice(piece?);
        }
        Ok(whole.freeze())
    }

    fn parsed<T: FromStr>(&mut self, what: &str) -> Result<T> {
        let text = self.text()?;
        text.parse()
            .map_err(|_| decode::Error::message(format!("{text:.80?} is not {what}")))
    }

    /// A whole number; a negative one is as good as 0.
    fn unsigned(&mut self) -> Result<u64> {
        let number = i128::from(self.decoder.int()?);
        Ok(u64::try_from(number).unwrap_or(0))
    }

    fn milliseconds(&mut self) -> Result<u64> {
        if self.kind()? == Type::Tag {
            let tag = u64::from(self.decoder.tag()?);
            if tag != TIMESTAMP_TAG {
                let message = format!("tag {tag} where a timestamp belongs");
                return Err(decode::Error::message(message));
            }
        }
        match self.kind()? {
            Type::F16 | Type::F32 | Type::F64 => self.decoder.f64().map(milliseconds),
            _ => self.unsigned(),
        }
    }

    /// A value that nobody wants.
    fn pass_over(&mut self, depth: usize) -> Result<()> {
        let Some(depth) = depth.checked_sub(1) else {
            let message = format!("nested deeper than {DEPTH_MAX} levels");
            return Err(decode::Error::message(message));
        };
        match self.kind()? {
            Type::Array | Type::ArrayIndef => {
                let mut left = self.decoder.array()?;
                while self.more(&mut left)? {
                    self.pass_over(depth)?;
                }
            }
            Type::Map | Type::MapIndef => {
                let mut left = self.decoder.map()?;
                while self.more(&mut left)? {
                    self.pass_over(depth)?;
                    self.pass_over(depth)?;
                }
            }
            Type::Tag => {
                self.decoder.tag()?;
                self.pass_over(depth)?;
            }
            Type::StringIndef => self
                .decoder
                .str_iter()?
                .try_for_each(|piece| piece.map(drop))?,
            Type::BytesIndef => self
                .decoder
                .bytes_iter()?
                .try_for_each(|piece| piece.map(drop))?,
            Type::Break => return Err(decode::Error::message("a break where a value belongs")),
            // A scalar, or a string of a length that the decoder checks.
            _ => self.decoder.skip()?,
        }
        Ok(())
    }
}

fn missing(member: &str) -> decode::Error {
    decode::Error::message(format!("{member} is missing"))
}

#[cfg(test)]
mod tests;
