//! Iterator tokens. With the signature put right over whatever is in them, since none that is not signed gets further.

use super::requests::Service;
use crate::engine::{Target, outcome, shape};
use hmac::{Hmac, KeyInit, Mac};
use millstream_wire::{Encoding, Operation};
use serde_json::json;
use sha2::Sha256;

const MAC_BYTES: usize = 16;

pub(crate) struct Iterators {
    service: Service,
}

impl Iterators {
    pub(crate) fn new() -> Self {
        Iterators {
            service: Service::new(),
        }
    }
}

impl Target for Iterators {
    /// Before base64: version, log shard, counter, time, shard, the stream's name, zeros, signature.
    fn seeds(&self) -> Vec<Vec<u8>> {
        let token = |log_shard: u64, counter: u64| {
            let mut token = Vec::new();
            for number in [1, log_shard, counter, 1_700_000_000_000] {
                token.extend(number.to_be_bytes());
            }
            token.extend([0; 4]);
            let text = b"000000000000/orders";
            token.push(u8::try_from(text.len()).unwrap());
            token.extend(text);
            token.resize(152, 0);
            token
        };
        vec![token(0, 0), token(1, 0), token(2, 7), Vec::new()]
    }

    fn tokens(&self) -> &'static [&'static [u8]] {
        &[
            b"000000000000/",
            b"orders",
            b"/",
            b"\0\0\0\0\0\0\0\x01",
            b"\xff\xff\xff\xff\xff\xff\xff\xff",
        ]
    }

    fn mend(&mut self, input: &mut Vec<u8>) {
        // As long as tokens are.
        input.resize(input.len().clamp(152, 280), 0);
        let at = input.len() - MAC_BYTES;
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.service.log_id).unwrap();
        mac.update(&input[..at]);
        let signature = mac.finalize().into_bytes();
        input[at..].copy_from_slice(&signature[..MAC_BYTES]);
    }

    fn run(&mut self, input: &[u8]) -> u64 {
        let token = millstream_wire::b64::encode(input);
        let body = json!({ "ShardIterator": token }).to_string();
        let answer = self
            .service
            .ask(Operation::GetRecords, Encoding::Json, body.into_bytes());
        if let Err(error) = &answer {
            assert_ne!(error.code.name(), "InternalFailure", "{}", error.message);
        }
        let answer = answer.map_err(|error| format!("{}: {}", error.code, error.message));
        outcome(&answer, |bytes| shape(bytes / 64))
    }
}
