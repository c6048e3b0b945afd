//! Times as people write and read them: RFC 3339, and seconds since 1970. No clock is read here.

use crate::error::{Error, ErrorKind};

const DAY_MS: u64 = 86_400_000;
/// Where the year 10000 begins, which RFC 3339 cannot write.
const YEARS_END_MS: u64 = 253_402_300_800_000;

/// A time in UTC, to the millisecond: `2026-01-31T08:00:00.250Z`, without the fraction where there is none.
pub fn rfc3339(ms: u64) -> String {
    let (days, of_day) = (ms / DAY_MS, ms % DAY_MS);
    // Years that begin in March, counted in eras of 400 of them.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 {
        month_index + 3
    } else {
        month_index - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (second, fraction) = (of_day / 1000, of_day % 1000);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let whole = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    match fraction {
        0 => format!("{whole}Z"),
        fraction => format!("{whole}.{fraction:03}Z"),
    }
}

/// Milliseconds since 1970 of a time in RFC 3339 (`2026-01-31T08:00:00Z`, `2026-01-31T09:00:00.5+01:00`) or in seconds since 1970
/// (`1769846400`, `1769846400.25`). Thirteen digits without a fraction are milliseconds.
///
/// # Errors
/// `Configuration`, with what is expected.
pub fn parse_time(text: &str) -> Result<u64, Error> {
    let text = text.trim();
    epoch(text).or_else(|| calendar(text)).ok_or_else(|| {
        Error::new(
            ErrorKind::Configuration,
            format!(
                "{text:?} is not a time from 1970 on: write it as 2026-01-31T08:00:00Z, with an offset as 2026-01-31T09:00:00+01:00, or in seconds since 1970"
            ),
        )
    })
}

fn epoch(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds = number(whole)?;
    match whole.len() {
        13 if !text.contains('.') => Some(seconds),
        1..=11 => seconds
            .checked_mul(1000)?
            .checked_add(thousandths(fraction)?),
        _ => None,
    }
}

/// Digits only: the parsers of the standard library also take a sign.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok())?
}

fn thousandths(fraction: &str) -> Option<u64> {
    if fraction.is_empty() {
        return Some(0);
    }
    number(fraction)?;
    let padded: String = fraction.chars().chain("00".chars()).take(3).collect();
    number(&padded)
}

fn calendar(text: &str) -> Option<u64> {
    let (date, rest) = text.split_at_checked(10)?;
    let rest = rest.strip_prefix(['T', 't', ' '])?;
    let (time, offset_ms) = if let Some(time) = rest.strip_suffix(['Z', 'z']) {
        (time, 0)
    } else {
        let (time, offset) = rest.split_at_checked(rest.len().checked_sub(6)?)?;
        (time, offset_ms(offset)?)
    };
    let mut date = date.split('-').map(number);
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let (clock, fraction) = time.split_once('.').unwrap_or((time, ""));
    let mut clock = clock.split(':').map(number);
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let month_days = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    let sound = (1970..=9999).contains(&year)
        && (1..=month_days).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    if !sound || clock.next().is_some() {
        return None;
    }
    let shifted = if month > 2 { year } else { year - 1 };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = (shifted * 365 + shifted / 4 - shifted / 100 + shifted / 400 + day_of_year)
        .checked_sub(719_468)?;
    let of_day = (hour * 60 + minute) * 60_000 + second * 1000 + thousandths(fraction)?;
    let ms = (days * DAY_MS + of_day).checked_add_signed(-offset_ms)?;
    (ms < YEARS_END_MS).then_some(ms)
}

/// Milliseconds east of UTC of `+01:00`.
fn offset_ms(text: &str) -> Option<i64> {
    let (sign, rest) = match text.split_at_checked(1)? {
        ("+", rest) => (1, rest),
        ("-", rest) => (-1, rest),
        _ => return None,
    };
    let (hours, minutes) = rest.split_once(':')?;
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    if hours > 23 || minutes > 59 {
        return None;
    }
    Some(sign * i64::try_from((hours * 60 + minutes) * 60_000).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_what_people_write() {
        let table = [
            ("0", 0),
            ("1769846400", 1_769_846_400_000),
            ("1769846400.25", 1_769_846_400_250),
            ("1769846400123", 1_769_846_400_123),
            ("2026-01-31T08:00:00Z", 1_769_846_400_000),
            ("2026-01-31t08:00:00.250z", 1_769_846_400_250),
            ("2026-01-31 09:00:00+01:00", 1_769_846_400_000),
            ("2026-01-30T22:30:00.5-09:30", 1_769_846_400_500),
            ("2024-02-29T00:00:00Z", 1_709_164_800_000),
        ];
        for (text, ms) in table {
            assert_eq!(parse_time(text).unwrap(), ms, "{text}");
        }
        for text in [
            "",
            "yesterday",
            "-5",
            "+5",
            "1.2.3",
            "12345678901234",
            "2026-01-31",
            "2026-01-31T08:00Z",
            "2026-01-31T08:00:00",
            "2026-02-30T08:00:00Z",
            "2025-02-29T08:00:00Z",
            "2026-13-01T08:00:00Z",
            "1969-12-31T23:59:59Z",
            "1970-01-01T00:00:00+01:00",
            "2026-01-31T08:00:00+25:00",
            "é",
            "2026-01-31T08:00:00:00Z",
            "9999-12-31T23:59:60Z",
            "9999-12-31T23:59:59-00:01",
            "2026-01-3éT08:00:00Z",
            "49680697608967129591508926601648723160777352848024272914",
        ] {
            assert_eq!(
                parse_time(text).unwrap_err().kind(),
                ErrorKind::Configuration,
                "{text}"
            );
        }
    }

    proptest! {
        #[test]
        fn a_time_is_read_as_it_was_written(ms in 0u64..253_402_300_799_999) {
            prop_assert_eq!(parse_time(&rfc3339(ms)).unwrap(), ms);
        }

        #[test]
        fn no_text_breaks_it(text in ".{0,40}") {
            let _ = parse_time(&text);
        }
    }
}
