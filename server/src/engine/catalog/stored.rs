//! How events and the catalog are stored: a version byte, then JSON in which names and keys are texts.

use super::{Stream, StreamArn};
use crate::log::MetadataError;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// First byte of every encoded event and catalog.
const FORMAT_VERSION: u8 = 1;

pub(super) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = vec![FORMAT_VERSION];
    let written = serde_json::to_writer(&mut bytes, value);
    assert!(
        written.is_ok(),
        "the catalog's types always have a JSON form"
    );
    bytes
}

pub(super) fn decode<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> Result<T, MetadataError> {
    match bytes.split_first() {
        Some((&FORMAT_VERSION, json)) => serde_json::from_slice(json)
            .map_err(|error| MetadataError(format!("metadata does not decode: {error}"))),
        Some((version, _)) => Err(MetadataError(format!(
            "metadata has version {version}, this program reads version {FORMAT_VERSION}: use a newer one"
        ))),
        None => Err(MetadataError("metadata is empty".to_owned())),
    }
}

/// Values stored as their text.
pub(super) mod text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use std::fmt::Display;
    use std::str::FromStr;

    pub(in super::super) fn serialize<T: Display, S: Serializer>(
        value: &T,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_str(value)
    }

    pub(in super::super) fn deserialize<'de, T, D>(from: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        std::borrow::Cow::<'de, str>::deserialize(from)?
            .parse()
            .map_err(D::Error::custom)
    }
}

/// The map of streams stored as a list: each knows its ARN.
pub(super) mod stream_list {
    use super::{Arc, BTreeMap, Stream, StreamArn};
    use serde::{Deserialize, Deserializer, Serializer};

    pub(in super::super) fn serialize<S: Serializer>(
        streams: &BTreeMap<Arc<StreamArn>, Arc<Stream>>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_seq(streams.values().map(AsRef::as_ref))
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<BTreeMap<Arc<StreamArn>, Arc<Stream>>, D::Error> {
        let streams = Vec::<Stream>::deserialize(from)?;
        Ok(streams
            .into_iter()
            .map(|stream| (Arc::new(stream.arn.clone()), Arc::new(stream)))
            .collect())
    }
}
