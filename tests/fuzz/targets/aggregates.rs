//! Aggregated records.

use crate::engine::{Target, shape};
use bytes::Bytes;
use md5::{Digest, Md5};
use millstream_wire::aggregation::{DIGEST_BYTES, Decoded, MAGIC, UserRecord, decode, encode};

pub(crate) struct Aggregates;

impl Target for Aggregates {
    fn seeds(&self) -> Vec<Vec<u8>> {
        let user = |key: &str, hash_key: Option<&str>, data: &'static [u8]| UserRecord {
            partition_key: key.into(),
            explicit_hash_key: hash_key.map(Into::into),
            data: Bytes::from_static(data),
        };
        let some = [
            user("a", None, b"one"),
            user("b", Some("7"), b""),
            user("a", Some("x"), b"three"),
        ];
        vec![
            encode(&some).to_vec(),
            encode(&some[..1]).to_vec(),
            encode(&vec![some[0].clone(); 300]).to_vec(),
            encode(&[]).to_vec(),
            b"plain".to_vec(),
        ]
    }

    fn tokens(&self) -> &'static [&'static [u8]] {
        &[
            &MAGIC,
            b"\x0a\x00",
            b"\x12\x00",
            b"\x1a\x00",
            b"\x1a\x06\x08\x00\x1a\x00",
            b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            b"\x10\x00",
            b"\x22\x00",
            b"\x1a\xff\xff\xff\xff\x0f",
            b"\x0b",
            b"\x0c",
            b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80",
        ]
    }

    fn mend(&mut self, input: &mut Vec<u8>) {
        if input.len() < MAGIC.len() + DIGEST_BYTES {
            return;
        }
        input[..MAGIC.len()].copy_from_slice(&MAGIC);
        let at = input.len() - DIGEST_BYTES;
        let digest = Md5::digest(&input[MAGIC.len()..at]);
        input[at..].copy_from_slice(&digest);
    }

    fn run(&mut self, input: &[u8]) -> u64 {
        let data = Bytes::copy_from_slice(input);
        match decode(data.clone()) {
            Decoded::Plain { data: given, flaw } => {
                assert_eq!(given, data, "what is no aggregate stays as it is");
                flaw.map_or(0, shape)
            }
            Decoded::Aggregate(users) => {
                assert!(!users.is_empty());
                for user in &users {
                    let _ = user.hash_key();
                }
                assert_eq!(decode(encode(&users)), Decoded::Aggregate(users.clone()));
                let keyed = users.iter().any(|user| user.explicit_hash_key.is_some());
                shape(format_args!(
                    "{keyed} {}",
                    users.len().min(4).to_string().replace('0', "o")
                ))
            }
        }
    }
}
