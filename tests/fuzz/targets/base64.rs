//! Base64 as requests carry it.

use crate::engine::{Target, outcome, shape};
use millstream_wire::b64;

pub(crate) struct Base64;

impl Target for Base64 {
    fn seeds(&self) -> Vec<Vec<u8>> {
        let seeds = [
            "",
            "aGVsbG8=",
            "aGVsbG8h",
            "aA==",
            "aGVs\nbG8=",
            "a",
            "====",
            "+/+/",
        ];
        seeds.map(|text| text.as_bytes().to_vec()).to_vec()
    }

    fn tokens(&self) -> &'static [&'static [u8]] {
        &[
            b"=",
            b"==",
            b"AAAA",
            b"+/",
            b"-_",
            b" ",
            b"\r\n",
            b"\xc3\xa9",
            b"\0",
        ]
    }

    fn run(&mut self, input: &[u8]) -> u64 {
        // What is written is read again.
        let written = b64::encode(input);
        assert_eq!(b64::decode(&written).unwrap(), input);
        let Ok(text) = std::str::from_utf8(input) else {
            return 0;
        };
        let (decoded, checked) = (b64::decode(text), b64::check(text));
        assert_eq!(decoded.is_ok(), checked.is_ok());
        if let Ok(decoded) = &decoded {
            assert_eq!(decoded.len(), b64::decoded_len(text));
            let mut buffer = Vec::new();
            b64::decode_append(text, &mut buffer).unwrap();
            assert_eq!(decoded, &buffer);
            // No two texts mean the same.
            assert_eq!(b64::encode(decoded), text);
        }
        if let Err(error) = &checked {
            return shape(error.explain(text));
        }
        outcome(&decoded, |decoded| shape(decoded.len().min(4)))
    }
}
