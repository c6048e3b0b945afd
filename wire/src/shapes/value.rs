//! The value types members are made of: text, blobs and timestamps.

use bytes::Bytes;
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;
use std::str::FromStr;

use crate::b64::{self, Base64Error};
use crate::{SequenceNumber, ShardId};

/// A string that borrows from the request's body where it can.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Text<'a>(Cow<'a, str>);

impl Text<'_> {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The same text, owned.
    pub fn into_owned(self) -> String {
        self.0.into_owned()
    }

    /// Whether the text borrows, which a string without escapes does.
    pub fn is_borrowed(&self) -> bool {
        matches!(self.0, Cow::Borrowed(_))
    }
}

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<'a> From<&'a str> for Text<'a> {
    fn from(text: &'a str) -> Self {
        Text(Cow::Borrowed(text))
    }
}

impl From<String> for Text<'_> {
    fn from(text: String) -> Self {
        Text(Cow::Owned(text))
    }
}

impl Serialize for Text<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

// By hand, because a derived `Option<Cow<str>>` always copies.
impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }

            fn visit_string<E: de::Error>(self, text: String) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text)))
            }
        }
        deserializer.deserialize_str(TextVisitor)
    }
}

/// A request's blob. From JSON it stays Base64 text, already known to be sound, until
/// [`Blob::append_to`] writes its bytes where they belong; from an encoding with byte strings, and
/// in a client's hands, it is the bytes themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob<'a>(Form<'a>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Form<'a> {
    /// Invariant: `b64::check` accepts it, so it is ASCII.
    Base64 {
        text: Cow<'a, [u8]>,
        /// Kept, because its padding lies far away from what is looked at before.
        decoded_len: usize,
    },
    Slice(&'a [u8]),
    Shared(Bytes),
}

impl<'a> Blob<'a> {
    /// A blob given as Base64.
    ///
    /// # Errors
    /// Says why the text is not Base64.
    pub fn from_base64(text: impl Into<Text<'a>>) -> Result<Blob<'a>, Base64Error> {
        match text.into().0 {
            Cow::Borrowed(text) => Blob::of_base64(Cow::Borrowed(text.as_bytes())),
            Cow::Owned(text) => Blob::of_base64(Cow::Owned(text.into_bytes())),
        }
    }

    fn of_base64(text: Cow<'a, [u8]>) -> Result<Blob<'a>, Base64Error> {
        b64::check(&text)?;
        let decoded_len = b64::decoded_len(&text);
        Ok(Blob(Form::Base64 { text, decoded_len }))
    }

    /// Bytes it holds.
    pub fn decoded_len(&self) -> usize {
        match &self.0 {
            Form::Base64 { decoded_len, .. } => *decoded_len,
            Form::Slice(bytes) => bytes.len(),
            Form::Shared(bytes) => bytes.len(),
        }
    }

    /// Appends its bytes, [`Blob::decoded_len`] of them. A buffer with room for them stays where it is.
    ///
    /// # Errors
    /// None: what is not Base64 was refused before.
    pub fn append_to(&self, buffer: &mut Vec<u8>) -> Result<(), Base64Error> {
        match &self.0 {
            Form::Base64 { text, .. } => return b64::decode_append(text, buffer),
            Form::Slice(bytes) => buffer.extend_from_slice(bytes),
            Form::Shared(bytes) => buffer.extend_from_slice(bytes),
        }
        Ok(())
    }

    /// Whether it borrows, which one without escapes does.
    pub fn is_borrowed(&self) -> bool {
        match &self.0 {
            Form::Base64 { text, .. } => matches!(text, Cow::Borrowed(_)),
            Form::Slice(_) => true,
            Form::Shared(_) => false,
        }
    }

    /// Its bytes in a buffer of their own.
    pub fn to_bytes(&self) -> Bytes {
        match &self.0 {
            // Checked on the way in, so the empty default is never taken.
            Form::Base64 { text, .. } => b64::decode(text).unwrap_or_default(),
            Form::Slice(bytes) => Bytes::copy_from_slice(bytes),
            Form::Shared(bytes) => bytes.clone(),
        }
    }
}

impl<'a> From<&'a [u8]> for Blob<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Blob(Form::Slice(bytes))
    }
}

impl From<Bytes> for Blob<'_> {
    fn from(bytes: Bytes) -> Self {
        Blob(Form::Shared(bytes))
    }
}

impl Serialize for Blob<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Form::Base64 { text, .. } if serializer.is_human_readable() => {
                serializer.serialize_str(std::str::from_utf8(text).unwrap_or_default())
            }
            Form::Base64 { .. } => serializer.serialize_bytes(&self.to_bytes()),
            Form::Slice(bytes) => blob::write(bytes, serializer),
            Form::Shared(bytes) => blob::write(bytes, serializer),
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Blob<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// In a text, bytes are what stands between the quotes: Base64, or refused. They are not looked at as
        /// UTF-8 first, which takes as long as reading them.
        struct BlobVisitor {
            is_text: bool,
        }
        impl<'de> Visitor<'de> for BlobVisitor {
            type Value = Blob<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a blob")
            }

            fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Blob<'de>, E> {
                Blob::from_base64(text).map_err(E::custom)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Blob<'de>, E> {
                Blob::from_base64(text.to_owned()).map_err(E::custom)
            }

            fn visit_borrowed_bytes<E: de::Error>(self, bytes: &'de [u8]) -> Result<Blob<'de>, E> {
                if self.is_text {
                    return Blob::of_base64(Cow::Borrowed(bytes)).map_err(E::custom);
                }
                Ok(Blob::from(bytes))
            }

            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Blob<'de>, E> {
                if self.is_text {
                    return Blob::of_base64(Cow::Owned(bytes.to_vec())).map_err(E::custom);
                }
                Ok(Blob::from(Bytes::copy_from_slice(bytes)))
            }
        }
        let is_text = deserializer.is_human_readable();
        deserializer.deserialize_bytes(BlobVisitor { is_text })
    }
}

/// Serde for a response's blob, which is `Bytes` on both sides.
pub(crate) mod blob {
    use super::{Blob, Bytes, Deserialize, Deserializer, Serializer, b64};

    pub(crate) fn write<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(&b64::Encoded(bytes))
        } else {
            serializer.serialize_bytes(bytes)
        }
    }

    pub(crate) fn serialize<S: Serializer>(bytes: &Bytes, s: S) -> Result<S::Ok, S::Error> {
        write(bytes, s)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Bytes, D::Error> {
        Blob::deserialize(d).map(|blob| blob.to_bytes())
    }
}

/// Serde for a type that is its decimal or other text on the wire.
pub(crate) mod as_text {
    use super::{Deserialize, Deserializer, FromStr, Serializer, Text, de, fmt};

    pub(crate) fn serialize<T: fmt::Display, S: Serializer>(
        value: &T,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(crate) fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: fmt::Display>,
        D: Deserializer<'de>,
    {
        Text::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

/// A record's place: a text that is written without being allocated.
pub(crate) trait Place: FromStr<Err: fmt::Display> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error>;
}

impl Place for SequenceNumber {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.digits().as_str())
    }
}

impl Place for ShardId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.text().as_str())
    }
}

/// Serde for a [`Place`].
pub(crate) mod place {
    use super::{Deserializer, Place, Serializer, as_text};

    pub(crate) fn serialize<T: Place, S: Serializer>(
        value: &T,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        value.serialize(serializer)
    }

    pub(crate) fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
    where
        T: Place,
        D: Deserializer<'de>,
    {
        as_text::deserialize(deserializer)
    }
}

/// Serde for a [`Place`] that may be missing; it is not written then.
pub(crate) mod optional_place {
    use super::{Deserialize, Deserializer, Place, Serializer, Text, de};

    #[expect(clippy::ref_option, reason = "serde gives a reference to the member")]
    pub(crate) fn serialize<T: Place, S: Serializer>(
        value: &Option<T>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => value.serialize(serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
    where
        T: Place,
        D: Deserializer<'de>,
    {
        let text = Option::<Text<'de>>::deserialize(deserializer)?;
        let parsed = text.map(|text| text.parse().map_err(de::Error::custom));
        parsed.transpose()
    }
}

/// A point in time, in milliseconds since 1970. JSON has it as seconds with a fraction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    /// Milliseconds since 1970.
    pub millis: i64,
}

impl Timestamp {
    /// The name of the newtype that an encoding which is not text sees; it stands for CBOR's tag 1
    /// around a whole number of milliseconds.
    pub const NEWTYPE: &'static str = "Timestamp";

    /// The time of `millis` milliseconds since 1970; what an `i64` cannot hold is the last it can.
    pub fn from_millis(millis: u64) -> Timestamp {
        Timestamp {
            millis: i64::try_from(millis).unwrap_or(i64::MAX),
        }
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "`as` saturates, which is what is wanted"
    )]
    fn from_seconds(seconds: f64) -> Timestamp {
        Timestamp {
            millis: (seconds * 1000.0).round() as i64,
        }
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "exact below 2^53 ms, the year 287396"
    )]
    fn seconds(self) -> f64 {
        self.millis as f64 / 1000.0
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.millis, f)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_f64(self.seconds())
        } else {
            serializer.serialize_newtype_struct(Self::NEWTYPE, &self.millis)
        }
    }
}

/// What stands for a time where the encoding is not text: a tag, and in it a number.
struct TagVisitor;

impl<'de> Visitor<'de> for TagVisitor {
    type Value = Timestamp;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a timestamp")
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, number: D) -> Result<Timestamp, D::Error> {
        number.deserialize_any(MillisVisitor)
    }
}

struct MillisVisitor;

impl Visitor<'_> for MillisVisitor {
    type Value = Timestamp;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("milliseconds since 1970")
    }

    fn visit_i64<E: de::Error>(self, millis: i64) -> Result<Timestamp, E> {
        Ok(Timestamp { millis })
    }

    fn visit_u64<E: de::Error>(self, millis: u64) -> Result<Timestamp, E> {
        Ok(Timestamp::from_millis(millis))
    }

    // No SDK sends a fraction; whoever does means seconds, as the standard says.
    fn visit_f64<E: de::Error>(self, seconds: f64) -> Result<Timestamp, E> {
        Ok(Timestamp::from_seconds(seconds))
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !deserializer.is_human_readable() {
            return deserializer.deserialize_newtype_struct(Self::NEWTYPE, TagVisitor);
        }
        f64::deserialize(deserializer).map(Timestamp::from_seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_seconds_with_a_fraction() {
        let time = Timestamp {
            millis: 1_700_000_000_123,
        };
        assert_eq!(serde_json::to_string(&time).unwrap(), "1700000000.123");
        for (text, millis) in [
            ("1700000000.123", 1_700_000_000_123),
            ("1700000000", 1_700_000_000_000),
            ("1.7E9", 1_700_000_000_000),
            ("1e300", i64::MAX),
            ("-1", -1000),
        ] {
            assert_eq!(
                serde_json::from_str::<Timestamp>(text).unwrap().millis,
                millis,
                "{text}"
            );
        }
    }

    #[test]
    fn blobs_are_base64_both_ways() {
        let blob: Blob<'_> = serde_json::from_str("\"aGVsbG8=\"").unwrap();
        assert_eq!(blob.decoded_len(), 5);
        assert_eq!(blob.to_bytes(), "hello");
        assert_eq!(serde_json::to_string(&blob).unwrap(), "\"aGVsbG8=\"");
        assert_eq!(
            serde_json::to_string(&Blob::from(&b"hello"[..])).unwrap(),
            "\"aGVsbG8=\""
        );
        let escaped: Blob<'_> = serde_json::from_str(r#""\u0061GVsbG8=""#).unwrap();
        assert_eq!(escaped.to_bytes(), "hello");
        assert!(serde_json::from_str::<Blob<'_>>("\"aGVsbG8\"").is_err());
    }
}
