//! What is computed per key. Numbers are millionths in integers, so that a sum does not depend on the order
//! of its parts and can be compared exactly.

/// Count, sum and extremes of a key's records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Aggregate {
    /// Records.
    pub(crate) records: u64,
    /// Records with a number.
    pub(crate) values: u64,
    /// Sum of the numbers, millionths.
    pub(crate) sum: i128,
    /// The smallest number, millionths.
    pub(crate) min: Option<i64>,
    /// The largest number, millionths.
    pub(crate) max: Option<i64>,
}

impl Aggregate {
    /// Counts one record.
    pub(crate) fn add(&mut self, value: Option<i64>) {
        self.records += 1;
        if let Some(value) = value {
            self.values += 1;
            self.sum += i128::from(value);
            self.min = Some(self.min.map_or(value, |min| min.min(value)));
            self.max = Some(self.max.map_or(value, |max| max.max(value)));
        }
    }
}

/// A decimal number in millionths; digits after the sixth place are cut. `None` if it is not one.
pub(crate) fn millionths(text: &str) -> Option<i64> {
    let text = text.trim();
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !all_digits(whole) || !all_digits(fraction) {
        return None;
    }
    let places = fraction.bytes().chain(std::iter::repeat(b'0')).take(6);
    let magnitude = whole
        .bytes()
        .chain(places)
        .try_fold(0i64, |number, digit| {
            number.checked_mul(10)?.checked_add(i64::from(digit - b'0'))
        })?;
    Some(if negative { -magnitude } else { magnitude })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_decimal_numbers_exactly() {
        let cases = [
            ("39.02", Some(39_020_000)),
            ("-0.5", Some(-500_000)),
            (" 7 ", Some(7_000_000)),
            (".25", Some(250_000)),
            ("1.23456789", Some(1_234_567)),
            ("9223372036854.775807", Some(i64::MAX)),
            ("9223372036854.775808", None),
        ];
        for (text, expected) in cases {
            assert_eq!(millionths(text), expected, "{text:?}");
        }
        for text in ["", "-", ".", "1e5", "NA", "1.2.3", "--1", "+1", "0x1"] {
            assert_eq!(millionths(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_record_without_a_number_only_counts() {
        let mut aggregate = Aggregate::default();
        for value in [Some(-3), None, Some(5)] {
            aggregate.add(value);
        }
        let expected = Aggregate {
            records: 3,
            values: 2,
            sum: 2,
            min: Some(-3),
            max: Some(5),
        };
        assert_eq!(aggregate, expected);
    }
}
