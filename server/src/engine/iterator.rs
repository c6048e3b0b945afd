//! Shard iterators: opaque tokens that say where the next read begins. Minted and parsed here only.
//!
//! Layout before base64 (152 bytes, the least AWS sends): version 1 as u64 | log shard u64 | counter u64 | minted, ms u64 |
//! zeros | the first 16 bytes of HMAC-SHA-256 over all before, keyed with the log's id. A token of
//! another server, or a changed one, does not verify.

use crate::log::LogShard;
use hmac::{Hmac, KeyInit, Mac};
use millstream_wire::limits::SHARD_ITERATOR_TTL_SECONDS;
use sha2::Sha256;

const VERSION: u64 = 1;
const FIELDS_BYTES: usize = 32;
const MAC_BYTES: usize = 16;
const TOKEN_BYTES: usize = 152;

/// Where the next read begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ShardIterator {
    /// The shard of one incarnation of a stream.
    pub log_shard: LogShard,
    /// First counter to read.
    pub counter: u64,
    /// When the token was made, milliseconds since 1970.
    pub minted_ms: u64,
}

/// Why a token is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// Not a token of this server.
    Invalid,
    /// Older than 300 seconds.
    Expired {
        /// When it was made.
        minted_ms: u64,
    },
}

impl ShardIterator {
    /// The token.
    pub(super) fn mint(&self, key: &[u8; 16]) -> String {
        let mut bytes = Vec::with_capacity(TOKEN_BYTES);
        for field in [VERSION, self.log_shard.0, self.counter, self.minted_ms] {
            bytes.extend_from_slice(&field.to_be_bytes());
        }
        bytes.resize(TOKEN_BYTES - MAC_BYTES, 0);
        let mac = mac(key, &bytes).finalize().into_bytes();
        bytes.extend_from_slice(&mac[..MAC_BYTES]);
        base64_simd::STANDARD.encode_to_string(&bytes)
    }

    /// Reads a token; AWS accepts one in double quotes too.
    pub(super) fn parse(
        token: &str,
        key: &[u8; 16],
        now_ms: u64,
    ) -> Result<ShardIterator, Refused> {
        let bare = token
            .strip_prefix('"')
            .and_then(|rest| rest.strip_suffix('"'))
            .unwrap_or(token);
        let bytes = base64_simd::STANDARD
            .decode_to_vec(bare)
            .map_err(|_| Refused::Invalid)?;
        if bytes.len() != TOKEN_BYTES {
            return Err(Refused::Invalid);
        }
        let (body, given_mac) = bytes.split_at(TOKEN_BYTES - MAC_BYTES);
        mac(key, body)
            .verify_truncated_left(given_mac)
            .map_err(|_| Refused::Invalid)?;
        let mut fields = body[..FIELDS_BYTES].chunks_exact(8).map(|chunk| {
            chunk
                .iter()
                .fold(0u64, |value, byte| value << 8 | u64::from(*byte))
        });
        let mut next = || fields.next().ok_or(Refused::Invalid);
        if next()? != VERSION {
            return Err(Refused::Invalid);
        }
        let log_shard = LogShard(next()?);
        let iterator = ShardIterator {
            log_shard,
            counter: next()?,
            minted_ms: next()?,
        };
        // A clock that stepped back does not make a token valid for longer than the step.
        if now_ms
            > iterator
                .minted_ms
                .saturating_add(SHARD_ITERATOR_TTL_SECONDS * 1_000)
        {
            return Err(Refused::Expired {
                minted_ms: iterator.minted_ms,
            });
        }
        Ok(iterator)
    }
}

fn mac(key: &[u8; 16], body: &[u8]) -> Hmac<Sha256> {
    #[expect(clippy::expect_used, reason = "HMAC takes a key of any length")]
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(body);
    mac
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: [u8; 16] = [7; 16];

    fn sample() -> ShardIterator {
        ShardIterator {
            log_shard: LogShard(3),
            counter: 99,
            minted_ms: 1_000_000,
        }
    }

    #[test]
    fn lives_for_three_hundred_seconds() {
        let token = sample().mint(&KEY);
        assert_eq!(ShardIterator::parse(&token, &KEY, 1_300_000), Ok(sample()));
        let expired = Err(Refused::Expired {
            minted_ms: 1_000_000,
        });
        assert_eq!(ShardIterator::parse(&token, &KEY, 1_300_001), expired);
    }

    #[test]
    fn accepts_quotes_and_refuses_other_servers() {
        let token = sample().mint(&KEY);
        assert_eq!(
            ShardIterator::parse(&format!("\"{token}\""), &KEY, 1_000_000),
            Ok(sample())
        );
        assert_eq!(
            ShardIterator::parse(&token, &[8; 16], 1_000_000),
            Err(Refused::Invalid)
        );
    }

    proptest! {
        #[test]
        fn any_changed_byte_is_refused(position in 0usize..152, bit in 0u8..8) {
            let mut bytes = base64_simd::STANDARD.decode_to_vec(sample().mint(&KEY)).unwrap();
            bytes[position] ^= 1 << bit;
            let token = base64_simd::STANDARD.encode_to_string(&bytes);
            prop_assert_eq!(ShardIterator::parse(&token, &KEY, 1_000_000), Err(Refused::Invalid));
        }

        #[test]
        fn any_text_is_answered(text in "\\PC{0,300}") {
            prop_assert_eq!(ShardIterator::parse(&text, &KEY, 0), Err(Refused::Invalid));
        }
    }
}
