//! CBOR (RFC 8949) as Kinesis speaks it: what the Java SDKs send and read by default.
//!
//! It is reached through serde, so that the shapes are the same as for JSON. Blobs are byte strings,
//! borrowed from the body where they lie in one piece. A timestamp is tag 1 around a whole number of
//! *milliseconds*, where the standard has seconds; that is what AWS and its SDKs mean by it. Strings,
//! lists and maps of indefinite length are read; lists and maps are written with one, as AWS does.
//!
//! Nothing is allocated by a length that is merely declared, and nesting is bounded.
//!
//! ```
//! use millstream_wire::cbor;
//! use millstream_wire::shapes::ListStreamsRequest;
//!
//! let request: ListStreamsRequest = cbor::from_slice(b"\xbf\x65Limit\x0a\xff")?;
//! assert_eq!(request.limit, Some(10));
//! assert_eq!(cbor::to_vec(&request)?, b"\xbf\x65Limit\x0a\xff");
//! # Ok::<(), cbor::CborError>(())
//! ```

mod read;
#[cfg(test)]
mod tests;
mod write;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use std::fmt;

pub(crate) use read::Reader;

/// Lists, maps and tags inside one another at most, as many as the JSON side takes.
pub const MAX_DEPTH: usize = 128;

/// The tag of a timestamp.
const TIMESTAMP_TAG: u64 = 1;

/// Why bytes are not the CBOR of a value, or a value has none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CborError(String);

impl CborError {
    fn new(message: impl fmt::Display) -> CborError {
        CborError(message.to_string())
    }
}

impl serde::de::Error for CborError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        CborError::new(message)
    }
}

impl serde::ser::Error for CborError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        CborError::new(message)
    }
}

/// Reads a value that is the whole of `bytes`.
///
/// # Errors
/// Says what is wrong, and at which byte where the bytes are not CBOR at all.
pub fn from_slice<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, CborError> {
    let mut reader = Reader::new(bytes);
    let value = T::deserialize(&mut reader)?;
    reader.finish()?;
    Ok(value)
}

/// The bytes of a value.
///
/// # Errors
/// For values no shape has: enums with fields, numbers of more than 64 bits.
pub fn to_vec<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, CborError> {
    write::to_vec(value)
}

/// Appends the head of an item of a major type with this length or number (RFC 8949, section 3).
pub(crate) fn append_head(major: u8, number: u64, body: &mut Vec<u8>) {
    let major = major << 5;
    let bytes = number.to_be_bytes();
    match number {
        0..=0x17 => body.push(major | bytes[7]),
        0x18..=0xff => body.extend_from_slice(&[major | 0x18, bytes[7]]),
        0x100..=0xffff => {
            body.push(major | 0x19);
            body.extend_from_slice(&bytes[6..]);
        }
        0x1_0000..=0xffff_ffff => {
            body.push(major | 0x1a);
            body.extend_from_slice(&bytes[4..]);
        }
        _ => {
            body.push(major | 0x1b);
            body.extend_from_slice(&bytes);
        }
    }
}

/// Bytes of the head of an item with this length or number.
pub(crate) fn head_len(length: usize) -> usize {
    match length {
        0..=0x17 => 1,
        0x18..=0xff => 2,
        0x100..=0xffff => 3,
        0x1_0000..=0xffff_ffff => 5,
        _ => 9,
    }
}

/// Bytes of a whole number: below zero it counts from -1 on.
pub(crate) fn integer_len(number: i64) -> usize {
    let magnitude = if number < 0 { !number } else { number };
    head_len(usize::try_from(magnitude).unwrap_or(usize::MAX))
}

/// Whether `bytes` are one map and nothing else. Keeps nothing of it.
pub fn is_map(bytes: &[u8]) -> bool {
    let mut reader = Reader::new(bytes);
    reader.is_at_map() && IgnoredAny::deserialize(&mut reader).is_ok() && reader.finish().is_ok()
}
