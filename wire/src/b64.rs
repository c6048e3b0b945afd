//! Base64 of blobs: strict, straight behind what is in the caller's buffer, and with AWS's words for what is wrong.
//!
//! Only the standard alphabet with padding is read, and the unused bits of the last character must
//! be zero, as AWS requires.

use base64_simd::{AsOut, STANDARD};
use bytes::Bytes;
use std::fmt;

use crate::limits::ECHO_MAX_CHARS;

/// Why a text is not Base64. Its text is what AWS appends to "can not be converted to a Blob: ".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Base64Error {
    /// The text is cut off.
    #[error("Base64 encoded length is expected a multiple of 4 bytes but found: {0}")]
    Length(usize),
    /// A character outside the alphabet, or padding before the end.
    #[error("Invalid Base64 character: '{0}'")]
    Character(char),
    /// The last character carries bits that do not belong to any byte, or there is too much padding.
    // "dectected" is how AWS spells it.
    #[error("Invalid last non-pad Base64 character dectected")]
    LastCharacter,
}

impl Base64Error {
    /// The whole sentence AWS answers with when `text` was given as a blob.
    pub fn explain(&self, text: &str) -> String {
        let echo: String = text.chars().take(ECHO_MAX_CHARS).collect();
        format!("'{echo}' can not be converted to a Blob: {self}")
    }
}

/// Bytes that `text` decodes to if it is Base64 at all. Looks at its length and padding only.
pub fn decoded_len(text: impl AsRef<[u8]>) -> usize {
    let text = text.as_ref();
    let padding = text
        .iter()
        .rev()
        .take(2)
        .take_while(|byte| **byte == b'=')
        .count();
    (text.len() / 4 * 3).saturating_sub(padding)
}

/// Whether `text` is Base64.
///
/// # Errors
/// Says what is wrong with it.
pub fn check(text: impl AsRef<[u8]>) -> Result<(), Base64Error> {
    let text = text.as_ref();
    STANDARD.check(text).map_err(|_| diagnose(text))
}

/// Decodes `text` behind what is in the buffer, which has the same content as before where that fails.
///
/// # Errors
/// Says what is wrong with the text.
pub fn decode_append(text: impl AsRef<[u8]>, buffer: &mut Vec<u8>) -> Result<(), Base64Error> {
    let text = text.as_ref();
    let decoded = STANDARD.decode_append(text, buffer);
    decoded.map_err(|_| diagnose(text))
}

/// Decodes `text` into a buffer of its own.
///
/// # Errors
/// Says what is wrong with the text.
pub fn decode(text: impl AsRef<[u8]>) -> Result<Bytes, Base64Error> {
    let text = text.as_ref();
    STANDARD
        .decode_to_vec(text)
        .map(Bytes::from)
        .map_err(|_| diagnose(text))
}

/// The text of `bytes`.
pub fn encode(bytes: &[u8]) -> String {
    STANDARD.encode_to_string(bytes)
}

/// Appends the text of `bytes`.
pub(crate) fn append(bytes: &[u8], text: &mut Vec<u8>) {
    STANDARD.encode_append(bytes, text);
}

/// Shows bytes as Base64 piece by piece, so that a serializer never holds the whole text twice.
#[derive(Debug, Clone, Copy)]
pub struct Encoded<'a>(pub &'a [u8]);

/// Bytes encoded at a time: a multiple of three, so that no piece but the last is padded.
const PIECE_BYTES: usize = 3 * 1024;

impl fmt::Display for Encoded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut scratch = [0u8; PIECE_BYTES / 3 * 4];
        self.0
            .chunks(PIECE_BYTES)
            .try_for_each(|piece| f.write_str(STANDARD.encode_as_str(piece, scratch[..].as_out())))
    }
}

fn diagnose(text: &[u8]) -> Base64Error {
    let text = &*String::from_utf8_lossy(text);
    let length = text.encode_utf16().count();
    if !length.is_multiple_of(4) {
        return Base64Error::Length(length);
    }
    let in_alphabet = |c: char| c.is_ascii_alphanumeric() || "+/=".contains(c);
    let mut previous = None;
    for c in text.chars() {
        match previous {
            Some('=') if c != '=' => return Base64Error::Character('='),
            _ if !in_alphabet(c) => return Base64Error::Character(c),
            _ => previous = Some(c),
        }
    }
    Base64Error::LastCharacter
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    /// Bit by bit, from RFC 4648, to compare with.
    fn naive_decode(text: &str) -> Option<Vec<u8>> {
        if !text.len().is_multiple_of(4) {
            return None;
        }
        let body = text.trim_end_matches('=');
        if text.len() - body.len() > 2 || body.len() % 4 == 1 {
            return None;
        }
        let mut bits = Vec::new();
        for byte in body.bytes() {
            let value = ALPHABET.iter().position(|letter| *letter == byte)?;
            bits.extend((0..6).rev().map(|shift| value >> shift & 1));
        }
        let (whole, rest) = bits.split_at(bits.len() / 8 * 8);
        let padded = text.len() / 4 * 4 == text.len();
        (padded && rest.iter().all(|bit| *bit == 0)).then(|| {
            whole
                .chunks(8)
                .map(|bits| u8::try_from(bits.iter().fold(0, |sum, bit| sum << 1 | bit)).unwrap())
                .collect()
        })
    }

    #[test]
    fn explains_in_the_words_of_aws() {
        for (text, words) in [
            (
                "23456",
                "Base64 encoded length is expected a multiple of 4 bytes but found: 5",
            ),
            ("=+/=", "Invalid Base64 character: '='"),
            ("+/+=", "Invalid last non-pad Base64 character dectected"),
            ("ab-_", "Invalid Base64 character: '-'"),
            ("====", "Invalid last non-pad Base64 character dectected"),
            // What is counted is characters: UTF-16's, as Java does.
            ("\u{e9}\u{e9}A=", "Invalid Base64 character: '\u{e9}'"),
            (
                "\u{e9}\u{1f980}",
                "Base64 encoded length is expected a multiple of 4 bytes but found: 3",
            ),
        ] {
            let error = check(text).unwrap_err();
            assert_eq!(
                error.explain(text),
                format!("'{text}' can not be converted to a Blob: {words}")
            );
            assert_eq!(decode(text), Err(error));
        }
    }

    proptest! {
        #[test]
        fn decodes_what_the_naive_decoder_does(text in "[A-Za-e0-3+/=\\-é]{0,13}") {
            let expected = naive_decode(&text);
            prop_assert_eq!(check(&text).is_ok(), expected.is_some());
            prop_assert_eq!(decode(&text).ok().map(|bytes| bytes.to_vec()), expected.clone());
            let mut buffer = b"before".to_vec();
            let is_sound = decode_append(&text, &mut buffer).is_ok();
            prop_assert_eq!(is_sound, expected.is_some());
            prop_assert_eq!(&buffer[..6], b"before");
            prop_assert_eq!(&buffer[6..], expected.unwrap_or_default());
        }

        #[test]
        fn round_trips_whole_and_in_pieces(bytes in proptest::collection::vec(any::<u8>(), 0..9000)) {
            let text = encode(&bytes);
            prop_assert_eq!(&Encoded(&bytes).to_string(), &text);
            prop_assert_eq!(decoded_len(&text), bytes.len());
            prop_assert_eq!(naive_decode(&text), Some(bytes));
        }
    }
}
