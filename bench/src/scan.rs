//! What a load needs to know of an answer, found by its member's name: reading the whole would cost more than making the request.
//!
//! Nothing else in these answers can be taken for a name: data are Base64, which has no quotes, or of random bytes; keys are the
//! load's own. Where every byte counts, [`crate::page`] reads answers in full.

use crate::client::Encoding;
use memchr::memmem;

/// The end of an answer of `GetRecords`, where all known servers but kinesalite put what is no record.
const END_BYTES: usize = 1024;

/// How many records an answer of `GetRecords` has.
pub fn records(answer: &[u8]) -> usize {
    memmem::find_iter(answer, b"SequenceNumber").count()
}

/// A number that is a member of the answer.
pub fn number(answer: &[u8], encoding: Encoding, name: &str) -> Option<u64> {
    let value = value(answer, encoding, name)?;
    match encoding {
        Encoding::Json => {
            let digits = value.iter().take_while(|byte| byte.is_ascii_digit());
            let digits = value.get(..digits.count())?;
            std::str::from_utf8(digits).ok()?.parse().ok()
        }
        Encoding::Cbor => minicbor::Decoder::new(value).u64().ok(),
    }
}

/// A text that is a member of the answer, without quotes in it; nothing where it is null.
pub fn text(answer: &[u8], encoding: Encoding, name: &str) -> Option<String> {
    let value = value(answer, encoding, name)?;
    match encoding {
        Encoding::Json => {
            let end = memchr::memchr(b'"', value.strip_prefix(b"\"")?)?;
            // With both quotes; moto's iterators have escapes.
            serde_json::from_slice(value.get(..end + 2)?).ok()
        }
        Encoding::Cbor => minicbor::Decoder::new(value).str().ok().map(str::to_owned),
    }
}

/// What follows a member's name.
fn value<'a>(answer: &'a [u8], encoding: Encoding, name: &str) -> Option<&'a [u8]> {
    let end = answer.len().saturating_sub(END_BYTES);
    let tail = answer.get(end..)?;
    let after = |part: &'a [u8]| {
        let at = memmem::rfind(part, name.as_bytes())?;
        part.get(at + name.len()..)
    };
    let rest = after(tail).or_else(|| after(answer))?;
    match encoding {
        Encoding::Json => {
            let rest = rest.strip_prefix(b"\"")?.trim_ascii_start();
            Some(rest.strip_prefix(b":")?.trim_ascii_start())
        }
        Encoding::Cbor => Some(rest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_found_wherever_they_are() {
        let records: Vec<String> = (0..100)
            .map(|n| format!(r#"{{"Data":"QUJD","PartitionKey":"k","SequenceNumber":"{n}"}}"#))
            .collect();
        let records = format!(r#""Records": [{}]"#, records.join(","));
        for answer in [
            format!(r#"{{{records},"NextShardIterator":"AA\n=","MillisBehindLatest":12}}"#),
            format!(r#"{{"NextShardIterator": "AA\n=", "MillisBehindLatest": 12, {records}}}"#),
        ] {
            let answer = answer.as_bytes();
            assert_eq!(super::records(answer), 100);
            let next = text(answer, Encoding::Json, "NextShardIterator");
            assert_eq!(next.as_deref(), Some("AA\n="));
            assert_eq!(
                number(answer, Encoding::Json, "MillisBehindLatest"),
                Some(12)
            );
            assert_eq!(text(answer, Encoding::Json, "Other"), None);
        }
        let end = br#"{"Records":[],"NextShardIterator":null}"#;
        assert_eq!(text(end, Encoding::Json, "NextShardIterator"), None);
        assert_eq!(super::records(end), 0);
    }

    #[test]
    fn members_are_found_in_cbor() {
        use millstream_wire::shapes::PutRecordsResponse;
        let failed = PutRecordsResponse {
            failed_record_count: 300,
            records: Vec::new(),
            encryption_type: None,
        };
        let answer = millstream_wire::cbor::to_vec(&failed).unwrap();
        assert_eq!(
            number(&answer, Encoding::Cbor, "FailedRecordCount"),
            Some(300)
        );
        let answer = b"\xbf\x71NextShardIterator\x63abc\xff";
        assert_eq!(
            text(answer, Encoding::Cbor, "NextShardIterator").as_deref(),
            Some("abc")
        );
    }
}
