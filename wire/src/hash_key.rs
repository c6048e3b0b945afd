//! Hash keys: the 128-bit space a stream's shards divide among themselves.
//!
//! Source: the API reference of `CreateStream`, `SplitShard` and `MergeShards`; the width of an even
//! division is floor(2^128 / n) with the last range ending at 2^128-1.

use md5::{Digest, Md5};
use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

/// A point in the hash key space, written in decimal on the wire.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HashKey(pub u128);

impl HashKey {
    /// The smallest hash key, 0.
    pub const MIN: HashKey = HashKey(0);
    /// The largest hash key, 2^128-1.
    pub const MAX: HashKey = HashKey(u128::MAX);

    /// The MD5 of a partition key, read as a big-endian number.
    pub fn of_partition_key(partition_key: &str) -> HashKey {
        HashKey(u128::from_be_bytes(
            Md5::digest(partition_key.as_bytes()).into(),
        ))
    }
}

impl fmt::Display for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The text is not a hash key: only `0` or digits without a leading zero, below 2^128.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a hash key: expected a decimal number from 0 to 2^128-1 without leading zeros"
)]
pub struct InvalidHashKey(pub String);

impl FromStr for HashKey {
    type Err = InvalidHashKey;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let canonical = digits && (text == "0" || !text.starts_with('0'));
        match (canonical, text.parse()) {
            (true, Ok(value)) => Ok(HashKey(value)),
            _ => Err(InvalidHashKey(text.to_owned())),
        }
    }
}

/// A shard's share of the space; both ends belong to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HashKeyRange {
    /// First hash key of the range.
    pub start: HashKey,
    /// Last hash key of the range; never below `start`.
    pub end: HashKey,
}

impl HashKeyRange {
    /// The whole space.
    pub const ALL: HashKeyRange = HashKeyRange {
        start: HashKey::MIN,
        end: HashKey::MAX,
    };

    /// Whether `key` falls into this range.
    pub fn contains(&self, key: HashKey) -> bool {
        self.start <= key && key <= self.end
    }

    /// Whether `other` begins right after this range ends.
    pub fn is_followed_by(&self, other: &HashKeyRange) -> bool {
        self.end.0.checked_add(1) == Some(other.start.0)
    }

    /// Divides the whole space into `count` ranges of equal width; the last takes the remainder.
    pub fn divide(count: NonZeroU32) -> Vec<HashKeyRange> {
        let count = u128::from(count.get());
        let width = if count == 1 {
            return vec![HashKeyRange::ALL];
        } else {
            // floor(2^128 / count) without leaving u128: 2^128 = MAX + 1.
            u128::MAX / count + u128::from(u128::MAX % count == count - 1)
        };
        (0..count)
            .map(|index| HashKeyRange {
                start: HashKey(index * width),
                end: HashKey(if index == count - 1 {
                    u128::MAX
                } else {
                    (index + 1) * width - 1
                }),
            })
            .collect()
    }
}

/// Whether `ranges`, in any order, cover the whole space with no gap and no overlap (invariant S4).
pub fn tiles(ranges: &[HashKeyRange]) -> bool {
    let mut sorted = ranges.to_vec();
    sorted.sort_by_key(|range| range.start);
    sorted
        .first()
        .is_some_and(|range| range.start == HashKey::MIN)
        && sorted.last().is_some_and(|range| range.end == HashKey::MAX)
        && sorted.iter().all(|range| range.start <= range.end)
        && sorted
            .windows(2)
            .all(|pair| pair[0].is_followed_by(&pair[1]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn divides_as_kinesis_does() {
        let four = HashKeyRange::divide(NonZeroU32::new(4).unwrap());
        assert_eq!(
            four[0].end.to_string(),
            "85070591730234615865843651857942052863"
        );
        assert_eq!(four[3].end, HashKey::MAX);
        let three = HashKeyRange::divide(NonZeroU32::new(3).unwrap());
        assert_eq!(
            three[0].end.to_string(),
            "113427455640312821154458202477256070484"
        );
    }

    #[test]
    fn hashes_a_partition_key_with_md5() {
        // printf a | md5sum -> 0cc175b9c0f1b6a831c399e269772661
        assert_eq!(
            HashKey::of_partition_key("a").0,
            0x0cc1_75b9_c0f1_b6a8_31c3_99e2_6977_2661
        );
    }

    #[test]
    fn refuses_what_is_not_canonical_decimal() {
        for text in [
            "",
            "00",
            "01",
            "+1",
            "-1",
            " 1",
            "340282366920938463463374607431768211456",
            "x",
        ] {
            assert!(text.parse::<HashKey>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn s4_every_division_tiles_the_space(count in 1u32..2000) {
            prop_assert!(tiles(&HashKeyRange::divide(NonZeroU32::new(count).unwrap())));
        }

        #[test]
        fn text_round_trips(value: u128) {
            prop_assert_eq!(HashKey(value).to_string().parse::<HashKey>().unwrap(), HashKey(value));
        }
    }
}
