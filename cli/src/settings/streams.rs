//! Streams to create at start: `NAME:SHARDS[:REGION],...` as a flag, a variable or a text in the file; or, in the
//! file, a table for each, which can say more.

use millstream_server::StartStream;
use millstream_wire::limits::{
    DATA_MAX_BYTES, RECORD_DEFAULT_MAX_BYTES, RETENTION_DEFAULT_HOURS, RETENTION_MAX_HOURS,
    RETENTION_MIN_HOURS, TAGS_PER_STREAM,
};
use millstream_wire::{Region, StreamName};
use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};
use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::str::FromStr;

const KIB: usize = 1024;

/// The streams, each named once in its region.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct StreamList(pub(super) Vec<StartStream>);

impl StreamList {
    fn add(&mut self, stream: StartStream) -> Result<(), String> {
        let known =
            |other: &StartStream| (&other.name, &other.region) == (&stream.name, &stream.region);
        if self.0.iter().any(known) {
            return Err(format!("the stream {} is named twice", stream.name));
        }
        self.0.push(stream);
        Ok(())
    }
}

impl FromStr for StreamList {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut streams = StreamList::default();
        for item in text.split(',').filter(|item| !item.is_empty()) {
            streams.add(item_of_list(item)?)?;
        }
        Ok(streams)
    }
}

fn item_of_list(item: &str) -> Result<StartStream, String> {
    let mut parts = item.splitn(3, ':');
    let name = parts.next().unwrap_or_default();
    let name: StreamName = name.parse().map_err(|error| format!("{error}"))?;
    let shards = parts
        .next()
        .ok_or_else(|| format!("{item:?} lacks its shards; expected NAME:SHARDS"))?;
    let shards: NonZeroU32 = shards.parse().map_err(|_| {
        format!("{shards:?} is not a number of shards for {name}; expected 1 or more")
    })?;
    let region = parts.next().map(str::parse).transpose();
    let region = region.map_err(|error| format!("{name}: {error}"))?;
    Ok(StartStream {
        region,
        ..StartStream::new(name, shards)
    })
}

impl<'de> Deserialize<'de> for StreamList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOrTables;
        impl<'de> Visitor<'de> for TextOrTables {
            type Value = StreamList;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"NAME:SHARDS,...\" or a table [[streams]] for each stream")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<StreamList, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut tables: A) -> Result<StreamList, A::Error> {
                let mut streams = StreamList::default();
                while let Some(Table(stream)) = tables.next_element()? {
                    streams.add(stream).map_err(A::Error::custom)?;
                }
                Ok(streams)
            }
        }
        deserializer.deserialize_any(TextOrTables)
    }
}

/// A stream in the file, checked as a whole so that what is wrong is told with its line.
struct Table(StartStream);

impl<'de> Deserialize<'de> for Table {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(serde::Deserialize)]
        #[serde(deny_unknown_fields, rename_all = "kebab-case")]
        struct Given {
            #[serde(deserialize_with = "parsed")]
            name: StreamName,
            /// An on-demand stream without it.
            shards: Option<NonZeroU32>,
            #[serde(default, deserialize_with = "super::from_text")]
            region: Option<Region>,
            #[serde(default = "default_retention", deserialize_with = "retention")]
            retention_hours: u32,
            #[serde(default = "default_record_size", deserialize_with = "record_size")]
            max_record_size_kib: usize,
            #[serde(default, deserialize_with = "tags")]
            tags: BTreeMap<String, String>,
        }
        let given = Given::deserialize(deserializer)?;
        Ok(Table(StartStream {
            name: given.name,
            region: given.region,
            shards: given.shards,
            retention_hours: given.retention_hours,
            max_record_bytes: given.max_record_size_kib * KIB,
            tags: given.tags,
        }))
    }
}

fn default_retention() -> u32 {
    RETENTION_DEFAULT_HOURS
}

fn default_record_size() -> usize {
    RECORD_DEFAULT_MAX_BYTES / KIB
}

fn parsed<'de, D: Deserializer<'de>>(deserializer: D) -> Result<StreamName, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(D::Error::custom)
}

fn retention<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    within(
        deserializer,
        RETENTION_MIN_HOURS..=RETENTION_MAX_HOURS,
        "hours",
    )
}

fn record_size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    let range = RECORD_DEFAULT_MAX_BYTES / KIB..=DATA_MAX_BYTES / KIB;
    within(deserializer, range, "KiB")
}

fn within<'de, D, T>(deserializer: D, range: RangeInclusive<T>, unit: &str) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + PartialOrd + fmt::Display,
{
    let value = T::deserialize(deserializer)?;
    if range.contains(&value) {
        return Ok(value);
    }
    let (least, most) = (range.start(), range.end());
    Err(D::Error::custom(format!(
        "{value} is out of range; expected {least} to {most} {unit}"
    )))
}

fn tags<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    let tags = BTreeMap::<String, String>::deserialize(deserializer)?;
    if tags.len() > TAGS_PER_STREAM {
        return Err(D::Error::custom(format!(
            "{} tags are too many; expected {TAGS_PER_STREAM} at most",
            tags.len()
        )));
    }
    let wrong = |(key, value): &(&String, &String)| {
        key.is_empty() || key.chars().count() > 128 || value.chars().count() > 256
    };
    match tags.iter().find(wrong) {
        None => Ok(tags),
        Some((key, _)) => Err(D::Error::custom(format!(
            "the tag {key:?} is out of range; expected 1 to 128 characters, and 0 to 256 in its value"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    struct File {
        streams: StreamList,
    }

    fn file(text: &str) -> Result<Vec<StartStream>, String> {
        let file: Result<File, _> = toml::from_str(text);
        file.map(|file| file.streams.0)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_list_names_shards_and_regions() {
        let StreamList(streams) = "a:1,a:2:eu-west-1,".parse().unwrap();
        let one = NonZeroU32::MIN;
        assert_eq!(streams[0], StartStream::new("a".parse().unwrap(), one));
        assert_eq!(streams[1].region, Some("eu-west-1".parse().unwrap()));
        assert_eq!(file("streams = 'a:1,a:2:eu-west-1'").unwrap(), streams);
        let refused = |text: &str| text.parse::<StreamList>().unwrap_err();
        assert_eq!(refused("a:1,a:2"), "the stream a is named twice");
        assert!(refused("a:1:").contains("region"), "{}", refused("a:1:"));
    }

    #[test]
    fn a_table_says_more() {
        let streams = file(
            "[[streams]]
            name = 'orders'
            shards = 2
            region = 'eu-west-1'
            retention-hours = 48
            max-record-size-kib = 2048
            tags = { team = 'a' }
            [[streams]]
            name = 'clicks'",
        );
        let streams = streams.unwrap();
        let orders = StartStream {
            name: "orders".parse().unwrap(),
            region: Some("eu-west-1".parse().unwrap()),
            shards: NonZeroU32::new(2),
            retention_hours: 48,
            max_record_bytes: 2 << 20,
            tags: BTreeMap::from([("team".to_owned(), "a".to_owned())]),
        };
        assert_eq!(streams[0], orders);
        let clicks = StartStream {
            shards: None,
            ..StartStream::new("clicks".parse().unwrap(), NonZeroU32::MIN)
        };
        assert_eq!(streams[1], clicks);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        let table = "[[streams]]\nname = 'orders'\n";
        let cases = [
            ("shards = 0", "line 3", "nonzero"),
            (
                "retention-hours = 12",
                "line 3",
                "12 is out of range; expected 24 to 8760 hours",
            ),
            (
                "max-record-size-kib = 1",
                "line 3",
                "expected 1024 to 10240 KiB",
            ),
            (
                "tags = { '' = 'a' }",
                "line 3",
                "expected 1 to 128 characters",
            ),
            ("region = ''", "line 3", "region"),
            ("mode = 'x'", "line 3", "unknown field `mode`"),
            ("[[streams]]\nname = 'a b'", "line 4", "stream name"),
        ];
        for (more, line, reason) in cases {
            let refused = file(&format!("{table}{more}\n")).unwrap_err();
            assert!(refused.contains(line), "{more}: {refused}");
            assert!(refused.contains(reason), "{more}: {refused}");
        }
        let twice = file(&format!("{table}{table}")).unwrap_err();
        assert!(twice.contains("orders is named twice"), "{twice}");
        let number = file("streams = 1").unwrap_err();
        assert!(number.contains("[[streams]]"), "{number}");
    }
}
