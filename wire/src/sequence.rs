//! Sequence numbers: a record's position in its shard.
//!
//! On the wire a sequence number is opaque decimal text. Here it is an ordered 192-bit number, so
//! that the client library can compare what any endpoint hands out; [`Parts`] is the layout the
//! server gives its own (version 2, 186 bits, 56 decimal digits), the one AWS uses:
//!
//! ```text
//! hex digits: 2 | shard created, s (9) | shard index low nibble (1) | counter (16) | 00 (2)
//!               | record time, s (9) | shard index (8) | version = 2 (1)
//! ```
//!
//! Within a shard only counter and time vary, so numbers order by counter; a child shard is created
//! at a later second than its parents, so all its numbers are greater than theirs (guarantee S2).

use std::fmt;
use std::str::FromStr;

use crate::digits::CHUNK_DIGITS;

/// A record's position in its shard: a number below 2^192, written in decimal on the wire.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceNumber {
    high: u64,
    low: u128,
}

/// The text is not a sequence number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a sequence number: expected a decimal number below 2^192 without leading zeros"
)]
pub struct InvalidSequenceNumber(pub String);

/// The version-2 layout of a sequence number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parts {
    /// When the shard was created, seconds since 1970; below 2^36.
    pub shard_created_seconds: u64,
    /// The record's counter in its shard; at most [`Parts::COUNTER_MAX`].
    pub counter: u64,
    /// When the record arrived, seconds since 1970; below 2^36.
    pub record_seconds: u64,
    /// The shard's index: 7 for `shardId-000000000007`.
    pub shard_index: u32,
}

impl Parts {
    /// The greatest counter; it marks the end of a closed shard and is never given to a record.
    pub const COUNTER_MAX: u64 = 0x7fff_ffff_ffff_ffff;
    const SECONDS_MASK: u64 = (1 << 36) - 1;

    /// Packs the parts; values beyond their field are an error of the caller.
    pub fn pack(self) -> SequenceNumber {
        assert!(
            self.shard_created_seconds <= Self::SECONDS_MASK,
            "shard creation fits 36 bits"
        );
        assert!(
            self.record_seconds <= Self::SECONDS_MASK,
            "record time fits 36 bits"
        );
        assert!(self.counter <= Self::COUNTER_MAX, "counter fits 63 bits");
        // Below bit 128 from the top: counter low 52 bits | 00 | time | shard index | version.
        // Bit positions: version 0..4, index 4..36, time 36..72, zero 72..80, counter 80..144,
        // nibble 144..148, created 148..184, leading 2 at 184.
        let nibble = u64::from(self.shard_index & 0xf);
        let low = 2u128
            | u128::from(self.shard_index) << 4
            | u128::from(self.record_seconds) << 36
            | u128::from(self.counter & ((1 << 48) - 1)) << 80;
        let high = self.counter >> 48
            | nibble << (144 - 128)
            | self.shard_created_seconds << (148 - 128)
            | 2 << (184 - 128);
        SequenceNumber { high, low }
    }

    /// The parts of a version-2 number, or `None` where the layout does not hold.
    pub fn unpack(number: SequenceNumber) -> Option<Parts> {
        let SequenceNumber { high, low } = number;
        let field = |shift: u32, bits: u32| -> u64 {
            u64::try_from((low >> shift) & ((1u128 << bits) - 1)).unwrap_or(u64::MAX)
        };
        let shard_index = u32::try_from(field(4, 32)).ok()?;
        let parts = Parts {
            shard_created_seconds: (high >> 20) & Self::SECONDS_MASK,
            counter: (high & 0xffff) << 48 | field(80, 48),
            record_seconds: field(36, 36),
            shard_index,
        };
        let sound = high >> 56 == 2
            && low & 0xf == 2
            && field(72, 8) == 0
            && (high >> 16) & 0xf == u64::from(shard_index & 0xf)
            && parts.counter <= Self::COUNTER_MAX;
        sound.then_some(parts)
    }
}

/// Where a number says it comes from, in any of the three layouts that AWS has handed out.
///
/// Source: kinesalite's parser, whose refusals were compared with AWS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// The layout: 0, 1 or 2.
    pub version: u8,
    /// When the shard was created, seconds since 1970.
    pub shard_created_seconds: u64,
    /// When the record arrived, seconds since 1970; version 0 does not say.
    pub record_seconds: Option<u64>,
    /// The shard's index. Negative where its highest bit is set, as Java reads it.
    pub shard_index: i32,
}

impl Origin {
    /// The first second that AWS takes for too late, in the year 2477.
    const TOO_LATE_SECONDS: u64 = 16_025_175_000;
}

impl SequenceNumber {
    /// The smallest number, before every record.
    pub const ZERO: SequenceNumber = SequenceNumber { high: 0, low: 0 };

    /// The number as AWS prints it: one of version 0 has 125 bits, whose highest is set.
    #[must_use]
    pub fn normalized(self) -> SequenceNumber {
        const VERSION_0_BIT: u128 = 1 << 124;
        match self.high {
            0 => SequenceNumber {
                high: 0,
                low: self.low & (VERSION_0_BIT - 1) | VERSION_0_BIT,
            },
            _ => self,
        }
    }

    /// Where the number says it comes from; `None` for one that AWS never handed out.
    pub fn origin(self) -> Option<Origin> {
        let SequenceNumber { high, low } = self.normalized();
        let field = |shift: u32, bits: u32| (low >> shift) & ((1u128 << bits) - 1);
        let seconds = |shift: u32| u64::try_from(field(shift, 36)).ok();
        let index = |shift: u32, bits: u32| u32::try_from(field(shift, bits)).ok();
        let (version, created, record_seconds, index) = match (high >> 56, low & 0xf) {
            _ if high == 0 => (0, seconds(88)?, None, index(0, 16)?),
            // The time of version 1 reaches over the middle.
            (2, 1) => {
                let time = (high & 0xff) << 28 | u64::try_from(low >> 100).unwrap_or_default();
                (
                    1,
                    high >> 20 & Parts::SECONDS_MASK,
                    Some(time),
                    index(4, 32)?,
                )
            }
            (2, 2) => (
                2,
                high >> 20 & Parts::SECONDS_MASK,
                seconds(36),
                index(4, 32)?,
            ),
            _ => return None,
        };
        let too_late = version != 1 && created >= Origin::TOO_LATE_SECONDS;
        // The highest bit of the counter.
        let too_many = version == 2 && high & 0x8000 != 0;
        (!too_late && !too_many).then_some(Origin {
            version,
            shard_created_seconds: created,
            record_seconds,
            shard_index: index.cast_signed(),
        })
    }

    pub(crate) fn limbs(self) -> [u64; 3] {
        let low_half = u64::try_from(self.low & u128::from(u64::MAX)).unwrap_or(u64::MAX);
        let high_half = u64::try_from(self.low >> 64).unwrap_or(u64::MAX);
        [low_half, high_half, self.high]
    }

    /// How far it lies behind another, if it does.
    pub(crate) fn behind(self, other: SequenceNumber) -> Option<SequenceNumber> {
        let (low, borrows) = self.low.overflowing_sub(other.low);
        let high = self.high.checked_sub(other.high)?;
        let high = high.checked_sub(u64::from(borrows))?;
        Some(SequenceNumber { high, low })
    }

    /// The number so far behind it, as far as there is one.
    #[cfg(test)]
    pub(crate) fn plus(self, step: u128) -> SequenceNumber {
        let (low, carries) = self.low.overflowing_add(step);
        let high = self.high.saturating_add(u64::from(carries));
        SequenceNumber { high, low }
    }

    fn from_limbs(limbs: [u64; 3]) -> Self {
        SequenceNumber {
            high: limbs[2],
            low: u128::from(limbs[1]) << 64 | u128::from(limbs[0]),
        }
    }
}

impl fmt::Display for SequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.digits().as_str())
    }
}

impl fmt::Debug for SequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for SequenceNumber {
    type Err = InvalidSequenceNumber;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = || InvalidSequenceNumber(text.chars().take(200).collect());
        let digits =
            !text.is_empty() && text.len() <= 58 && text.bytes().all(|b| b.is_ascii_digit());
        if !digits || (text != "0" && text.starts_with('0')) {
            return Err(refused());
        }
        let mut limbs = [0u64; 3];
        for chunk in text.as_bytes().chunks(CHUNK_DIGITS) {
            let mut carry = 0u64;
            let mut scale = 1u64;
            for digit in chunk {
                carry = carry * 10 + u64::from(digit - b'0');
                scale *= 10;
            }
            for limb in &mut limbs {
                let value = u128::from(*limb) * u128::from(scale) + u128::from(carry);
                *limb = u64::try_from(value & u128::from(u64::MAX)).unwrap_or(u64::MAX);
                carry = u64::try_from(value >> 64).unwrap_or(u64::MAX);
            }
            if carry != 0 {
                return Err(refused());
            }
        }
        Ok(SequenceNumber::from_limbs(limbs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parts() -> impl Strategy<Value = Parts> {
        (
            0u64..1 << 36,
            0..=Parts::COUNTER_MAX,
            0u64..1 << 36,
            any::<u32>(),
        )
            .prop_map(
                |(shard_created_seconds, counter, record_seconds, shard_index)| Parts {
                    shard_created_seconds,
                    counter,
                    record_seconds,
                    shard_index,
                },
            )
    }

    #[test]
    fn has_fifty_six_digits_like_aws() {
        // A number AWS handed out; its layout and digit count are what clients have seen.
        let text = "49545115243490985018280067714973144582180062593244200961";
        let number: SequenceNumber = text.parse().unwrap();
        assert_eq!(number.to_string(), text);
        let made = Parts {
            shard_created_seconds: 1_700_000_000,
            counter: 7,
            record_seconds: 1_700_000_001,
            shard_index: 3,
        };
        assert_eq!(made.pack().to_string().len(), 56);
    }

    #[test]
    fn refuses_what_is_not_a_number_below_two_to_the_192() {
        let too_large = "6277101735386680763835789423207666416102355444464034512896";
        for text in ["", "01", "-1", "1 ", "12x", too_large, &"9".repeat(129)] {
            assert!(text.parse::<SequenceNumber>().is_err(), "{text:?}");
        }
        let largest = "6277101735386680763835789423207666416102355444464034512895";
        assert_eq!(
            largest.parse::<SequenceNumber>().unwrap().to_string(),
            largest
        );
    }

    /// In hexadecimal, as the layouts are read: what a number says of its origin.
    #[test]
    fn every_version_that_aws_has_handed_out_says_where_it_is_from() {
        let number = |hex: &str| {
            let (high, low) = hex.split_at(hex.len().saturating_sub(32));
            SequenceNumber {
                high: u64::from_str_radix(high, 16).unwrap_or_default(),
                low: u128::from_str_radix(low, 16).unwrap(),
            }
        };
        let origin = |hex: &str| {
            let origin = number(hex).origin()?;
            Some((
                origin.version,
                origin.shard_created_seconds,
                origin.record_seconds,
                origin.shard_index,
            ))
        };
        for (hex, expected) in [
            ("0", Some((0, 0, None, 0))),
            ("5", Some((0, 0, None, 5))),
            (
                "13bb2cc3d7ffffffffffffffffffffff",
                Some((0, 16_025_174_999, None, 65_535)),
            ),
            (
                "f3bb2cc3d7ff7fffffffffffffff0000",
                Some((0, 16_025_174_999, None, 0)),
            ),
            ("13bb2cc3d80000000000000000000000", None),
            ("20000000000000000000000000000000000000000000000", None),
            (
                "20000000000000000000000000000000000000000000001",
                Some((1, 0, Some(0), 0)),
            ),
            (
                "20000000000000000000000000000000000000000000002",
                Some((2, 0, Some(0), 0)),
            ),
            ("20000000000000000000000000000000000000000000003", None),
            ("30000000000000000000000000000000000000000000001", None),
            ("1ffffffffff7fffffffffffffff000000000007fffffff2", None),
            ("2ffffffffff7fffffffffffffff000000000007fffffff2", None),
            ("20000000000800000000000000000000000000000000002", None),
            (
                "20000000000000000000000000000000000000800000002",
                Some((2, 0, Some(0), i32::MIN)),
            ),
            (
                "20000000170000000000000000000000000009000000a32",
                Some((2, 23, Some(9), 163)),
            ),
        ] {
            assert_eq!(origin(hex), expected, "{hex}");
        }
        let large = number("f3bb2cc3d7ff7fffffffffffffff0000");
        assert_eq!(
            large.normalized().to_string(),
            "26227199374821822965252748908982894592"
        );
        assert_eq!(
            SequenceNumber::ZERO.normalized().to_string(),
            "21267647932558653966460912964485513216"
        );
    }

    proptest! {
        #[test]
        fn its_own_layout_is_one_that_is_read(parts in parts()) {
            let origin = parts.pack().origin();
            let sound = parts.shard_created_seconds < Origin::TOO_LATE_SECONDS;
            prop_assert_eq!(origin.is_some(), sound);
            if let Some(origin) = origin {
                prop_assert_eq!(origin.shard_created_seconds, parts.shard_created_seconds);
                prop_assert_eq!(origin.record_seconds, Some(parts.record_seconds));
                prop_assert_eq!(origin.shard_index.cast_unsigned(), parts.shard_index);
            }
        }

        #[test]
        fn text_round_trips(high: u64, low: u128) {
            let number = SequenceNumber { high, low };
            prop_assert_eq!(number.to_string().parse::<SequenceNumber>().unwrap(), number);
        }

        #[test]
        fn layout_round_trips(parts in parts()) {
            prop_assert_eq!(Parts::unpack(parts.pack()), Some(parts));
        }

        #[test]
        fn s2_numbers_order_by_creation_then_counter(a in parts(), b in parts()) {
            let b_same_shard = Parts { shard_created_seconds: a.shard_created_seconds, shard_index: a.shard_index, ..b };
            if a.counter != b.counter {
                prop_assert_eq!(a.pack() < b_same_shard.pack(), a.counter < b.counter);
            }
            if a.shard_created_seconds != b.shard_created_seconds {
                prop_assert_eq!(a.pack() < b.pack(), a.shard_created_seconds < b.shard_created_seconds);
            }
        }
    }
}
