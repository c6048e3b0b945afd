//! The records of a put, decoded into frames: as little as can be done with them.

use crate::client::Encoding;
use base64_simd::STANDARD;
use md5::{Digest, Md5};
use minicbor::Decoder;
use minicbor::data::Type;
use serde::Deserialize;
use std::error::Error;

type Malformed = Box<dyn Error + Send + Sync>;

/// What of a frame is not key and data: their lengths, the key's hash.
const FRAME_HEAD_BYTES: usize = 4 + 2 + 16;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry<'a> {
    data: &'a str,
    partition_key: &'a str,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entries<'a> {
    #[serde(borrow)]
    records: Option<Vec<Entry<'a>>>,
    data: Option<&'a str>,
    partition_key: Option<&'a str>,
}

/// How many records a body of PutRecord or PutRecords has, and their frames.
pub(super) fn decode(body: &[u8], encoding: Encoding) -> Result<(usize, Vec<u8>), Malformed> {
    let mut frames = Vec::new();
    let records = match encoding {
        Encoding::Json => json(body, &mut frames)?,
        Encoding::Cbor => cbor(body, &mut frames)?,
    };
    Ok((records, frames))
}

fn json(body: &[u8], frames: &mut Vec<u8>) -> Result<usize, Malformed> {
    let body: Entries<'_> = serde_json::from_slice(body)?;
    if let (Some(data), Some(partition_key)) = (body.data, body.partition_key) {
        let entry = Entry {
            data,
            partition_key,
        };
        frames.reserve_exact(entry.frame_bytes());
        entry.frame(frames)?;
        return Ok(1);
    }
    let entries = body.records.ok_or("a body without records")?;
    frames.reserve_exact(entries.iter().map(Entry::frame_bytes).sum());
    for entry in &entries {
        entry.frame(frames)?;
    }
    Ok(entries.len())
}

impl Entry<'_> {
    fn frame_bytes(&self) -> usize {
        FRAME_HEAD_BYTES + self.partition_key.len() + self.data.len().div_ceil(4) * 3
    }

    fn frame(&self, frames: &mut Vec<u8>) -> Result<(), Malformed> {
        let len = STANDARD.decoded_length(self.data.as_bytes())?;
        frame_head(self.partition_key, len, frames)?;
        STANDARD.decode_append(self.data, frames)?;
        Ok(())
    }
}

/// Everything but the data.
fn frame_head(key: &str, data_len: usize, frames: &mut Vec<u8>) -> Result<(), Malformed> {
    frames.extend_from_slice(&u32::try_from(data_len)?.to_be_bytes());
    frames.extend_from_slice(&u16::try_from(key.len())?.to_be_bytes());
    frames.extend_from_slice(&Md5::digest(key.as_bytes()));
    frames.extend_from_slice(key.as_bytes());
    Ok(())
}

fn cbor(body: &[u8], frames: &mut Vec<u8>) -> Result<usize, Malformed> {
    frames.reserve_exact(body.len());
    let mut input = Decoder::new(body);
    let (mut records, mut data, mut key) = (0, None, None);
    members(&mut input, |name, input| {
        match name {
            "Records" => records = cbor_records(input, frames)?,
            "Data" => data = Some(input.bytes()?),
            "PartitionKey" => key = Some(input.str()?),
            _ => input.skip()?,
        }
        Ok(())
    })?;
    if let (Some(data), Some(key)) = (data, key) {
        frame_head(key, data.len(), frames)?;
        frames.extend_from_slice(data);
        records += 1;
    }
    Ok(records)
}

fn cbor_records<'b>(input: &mut Decoder<'b>, frames: &mut Vec<u8>) -> Result<usize, Malformed> {
    let mut left = input.array()?;
    let mut records = 0;
    while more(input, &mut left)? {
        let (mut data, mut key): (Option<&'b [u8]>, Option<&'b str>) = (None, None);
        members(input, |name, input| {
            match name {
                "Data" => data = Some(input.bytes()?),
                "PartitionKey" => key = Some(input.str()?),
                _ => input.skip()?,
            }
            Ok(())
        })?;
        let data = data.ok_or("a record without data")?;
        frame_head(key.ok_or("a record without a key")?, data.len(), frames)?;
        frames.extend_from_slice(data);
        records += 1;
    }
    Ok(records)
}

fn members<'b>(
    input: &mut Decoder<'b>,
    mut member: impl FnMut(&'b str, &mut Decoder<'b>) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    let mut left = input.map()?;
    while more(input, &mut left)? {
        let name = input.str()?;
        member(name, input)?;
    }
    Ok(())
}

/// Whether a list or map goes on: so many are left, or all until the break.
fn more(input: &mut Decoder<'_>, left: &mut Option<u64>) -> Result<bool, Malformed> {
    if let Some(left) = left {
        let before = *left;
        *left = before.saturating_sub(1);
        return Ok(before > 0);
    }
    if input.datatype()? != Type::Break {
        return Ok(true);
    }
    input.set_position(input.position() + 1);
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body;
    use proptest::prelude::*;

    proptest! {
        /// Goal: the ceilings do the work that they are named for. Method: their frames hold every key and every byte of data.
        #[test]
        fn frames_hold_keys_and_data(records in 1usize..6, bytes in 0usize..100, cbor: bool) {
            let encoding = if cbor { Encoding::Cbor } else { Encoding::Json };
            let entries: Vec<body::Entry> = (0..records).map(|_| body::Entry::random(bytes)).collect();
            let (count, frames) = decode(&body::put(encoding, "s", &entries), encoding).unwrap();
            let expected: Vec<u8> = entries.iter().flat_map(|entry| {
                let mut frame = u32::try_from(bytes).unwrap().to_be_bytes().to_vec();
                frame.extend(u16::try_from(entry.key.len()).unwrap().to_be_bytes());
                frame.extend(Md5::digest(&entry.key));
                frame.extend(entry.key.bytes());
                frame.extend(&entry.data);
                frame
            }).collect();
            prop_assert_eq!(count, records);
            prop_assert_eq!(frames, expected);
        }

        #[test]
        fn hostile_bodies_are_refused(bytes: Vec<u8>) {
            let _ = decode(&bytes, Encoding::Json);
            let _ = decode(&bytes, Encoding::Cbor);
        }
    }
}
