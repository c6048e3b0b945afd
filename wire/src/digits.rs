//! Sequence numbers as decimal text, and the text of one that follows another without dividing anew.

use crate::{SequenceNumber, ShardId};

/// 10^19, the largest power of ten in a u64: one limb of decimal conversion.
const CHUNK: u64 = 10_000_000_000_000_000_000;
pub(crate) const CHUNK_DIGITS: usize = 19;

/// Room for the most digits that a number below 2^192 has, which are 58, in whole words.
const ROOM: usize = 64;
/// Digits that are added at once: those of a word.
const WORD_DIGITS: usize = 8;

/// A sequence number's decimal text.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Digits {
    /// ASCII digits, at the end; before them zeros.
    text: [u8; ROOM],
    start: usize,
}

impl Digits {
    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.text[self.start..]
    }

    /// Writes `value` before what is there, padded to `width` digits.
    fn prepend(&mut self, mut value: u64, width: usize) {
        const WORD: u64 = 100_000_000;
        let digits = value.checked_ilog10().map_or(0, |log| log + 1);
        let digits = usize::try_from(digits).unwrap_or(CHUNK_DIGITS).max(width);
        let mut at = self.start;
        self.start -= digits;
        // What is before the start stays zeros: what is padded need not be written, nor what a word has too much be taken back.
        while value > 0 {
            let digits = word_digits(value % WORD);
            value /= WORD;
            if let Some(begin) = at.checked_sub(WORD_DIGITS) {
                self.text[begin..begin + WORD_DIGITS].copy_from_slice(&digits);
                at = begin;
            } else {
                self.text[..at].copy_from_slice(&digits[WORD_DIGITS - at..]);
                at = 0;
            }
        }
    }

    /// Adds a number; the sum is below 2^192. Each byte of a word begins so far up that a sum of ten or more carries into
    /// the next.
    fn add(&mut self, other: &Digits) {
        const VALUES: u64 = 0x0f0f_0f0f_0f0f_0f0f;
        const UP: u64 = 0xf6f6_f6f6_f6f6_f6f6;
        const NOT_CARRIED: u64 = 0x8080_8080_8080_8080;
        const ASCII: u64 = 0x3030_3030_3030_3030;
        let (words, _) = self.text.as_chunks_mut::<WORD_DIGITS>();
        let (others, _) = other.text.as_chunks::<WORD_DIGITS>();
        let (mut at, mut carries) = (ROOM, false);
        for (word, other_word) in words.iter_mut().zip(others).rev() {
            if at <= other.start && !carries {
                break;
            }
            let values = |word: &[u8; WORD_DIGITS]| u64::from_be_bytes(*word) & VALUES;
            let (sum, one) = (values(word) + values(other_word)).overflowing_add(UP);
            let (sum, two) = sum.overflowing_add(u64::from(carries));
            carries = one || two;
            let still_up = (sum & NOT_CARRIED) >> 7;
            let sum = sum - still_up * (UP & 0xff);
            *word = (sum | ASCII).to_be_bytes();
            at -= WORD_DIGITS;
        }
        self.start = self.start.min(other.start);
        // The sum has one digit more at most.
        let before = self.start.checked_sub(1);
        self.start = before
            .filter(|at| self.text[*at] != b'0')
            .unwrap_or(self.start);
    }
}

/// The eight digits of a number below 10^8: its halves, theirs and theirs again are divided side by side in one word.
fn word_digits(value: u64) -> [u8; WORD_DIGITS] {
    /// Divides each part of a word by a number; `reciprocal` of `1 << shift` is what it is multiplied with instead.
    fn halve(word: u64, [by, reciprocal, shift, mask, width]: [u64; 5]) -> u64 {
        let quotients = ((word * reciprocal) >> shift) & mask;
        quotients + ((word - quotients * by) << width)
    }
    let fours = value / 10_000 + ((value % 10_000) << 32);
    let pairs = halve(fours, [100, 10_486, 20, 0x7f_0000_007f, 16]);
    let ones = halve(pairs, [10, 103, 10, 0x0f_000f_000f_000f, 8]);
    (ones | 0x3030_3030_3030_3030).to_le_bytes()
}

/// Texts of numbers that follow each other, most of them at the same distance, as the records of a commit do.
#[derive(Debug, Default)]
pub(crate) struct Successive {
    last: Option<(SequenceNumber, Digits)>,
    /// The latest distance, and its text once it came twice.
    step: Option<(SequenceNumber, Option<Digits>)>,
}

impl Successive {
    /// The text of a number.
    pub(crate) fn digits(&mut self, number: SequenceNumber) -> &Digits {
        if !self.step_to(number) {
            self.last = None;
        }
        let (_, digits) = self.last.get_or_insert_with(|| (number, number.digits()));
        digits
    }

    /// Makes the last text that of a number by what it is more, where that is known. In place: it is copied often enough.
    fn step_to(&mut self, number: SequenceNumber) -> bool {
        let Some((last, digits)) = &mut self.last else {
            return false;
        };
        let Some(step) = number.behind(*last) else {
            return false;
        };
        match &mut self.step {
            Some((known, text)) if *known == step => {
                digits.add(text.get_or_insert_with(|| step.digits()));
                *last = number;
                true
            }
            other => {
                *other = Some((step, None));
                false
            }
        }
    }
}

/// As many shards as one answer tells of in turn, mostly.
const SHARDS: usize = 16;

/// [`Successive`] numbers of several shards in turn.
#[derive(Debug, Default)]
pub(crate) struct Places([Successive; SHARDS]);

impl Places {
    /// The text of a number of that shard.
    pub(crate) fn digits(&mut self, shard: ShardId, number: SequenceNumber) -> &Digits {
        // Two shards that share a place only find no step.
        let place = usize::try_from(shard.0).unwrap_or_default() % SHARDS;
        self.0[place].digits(number)
    }
}

impl SequenceNumber {
    /// Its decimal text, nothing allocated.
    pub(crate) fn digits(self) -> Digits {
        let mut digits = Digits {
            text: [b'0'; ROOM],
            start: ROOM,
        };
        let mut limbs = self.limbs();
        let mut used = limbs.len();
        loop {
            while used > 0 && limbs[used - 1] == 0 {
                used -= 1;
            }
            if used <= 1 && limbs[0] < CHUNK {
                digits.prepend(limbs[0], usize::from(digits.start == ROOM));
                return digits;
            }
            let mut remainder = 0u64;
            for limb in limbs[..used].iter_mut().rev() {
                let value = u128::from(remainder) << 64 | u128::from(*limb);
                let quotient = value / u128::from(CHUNK);
                // Below 2^64 both: what is left over is always less than the divisor.
                *limb = u64::try_from(quotient).unwrap_or(u64::MAX);
                remainder = u64::try_from(value - quotient * u128::from(CHUNK)).unwrap_or(u64::MAX);
            }
            digits.prepend(remainder, CHUNK_DIGITS);
        }
    }
}

impl SequenceNumber {
    /// How many digits its decimal text has.
    pub(crate) fn digits_len(self) -> usize {
        // 2 * 2^184 and 3 * 2^184 have 56 digits both.
        let [_, _, high] = self.limbs();
        if high >> (184 - 128) == 2 {
            return 56;
        }
        self.digits().as_str().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn number(text: &str) -> SequenceNumber {
        text.parse().unwrap()
    }

    fn shown(successive: &mut Successive, number: SequenceNumber) -> String {
        successive.digits(number).as_str().to_owned()
    }

    #[test]
    fn a_carry_may_make_a_number_longer() {
        let mut successive = Successive::default();
        for text in [
            "97", "98", "99", "100", "101", "0", "1", "999", "1997", "2995", "3993",
        ] {
            assert_eq!(shown(&mut successive, number(text)), text);
        }
    }

    #[test]
    fn eight_digits_are_those_of_the_number() {
        let halves = 0..10_000u64;
        let numbers = halves.map(|half| half * 10_000 + (9_999 - half));
        for number in numbers.chain(0..10_000).chain([99_999_999, 10_000_000]) {
            let digits = word_digits(number);
            assert_eq!(
                std::str::from_utf8(&digits).unwrap(),
                format!("{number:08}")
            );
        }
    }

    proptest! {
        /// Whatever follows whatever, the text is the number's own.
        #[test]
        fn texts_are_those_of_the_numbers(
            begin in "[1-9][0-9]{0,55}",
            steps in prop::collection::vec((0u32..4, any::<u64>()), 1..20),
        ) {
            let mut successive = Successive::default();
            let mut at = number(&begin);
            let (mut step, mut shift) = (1u64, 0);
            for (kind, value) in steps {
                match kind {
                    0 => at = number(&value.to_string()),
                    1 => (step, shift) = (value, 0),
                    2 => (step, shift) = (value >> 44, 72),
                    _ => {}
                }
                for _ in 0..4 {
                    prop_assert_eq!(shown(&mut successive, at), at.to_string());
                    at = at.plus(u128::from(step) << shift);
                }
            }
        }
    }
}
