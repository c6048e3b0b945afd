//! Shard iterators: opaque tokens that say where the next read begins. Minted and parsed here only.
//!
//! Layout before base64 (152 to 280 bytes by the stream's name, as AWS sends): version 1 as u64 | log
//! shard u64 | counter u64 | minted, ms u64 | shard index u32 | length of the text u8 | the text
//! `ACCOUNT/STREAM` | zeros | the first 16 bytes of HMAC-SHA-256 over all before, keyed with the log's
//! id. A token of another server, or a changed one, does not verify. Names are there for the message
//! about a stream that is gone; the log shard alone says what is read.

use crate::log::LogShard;
use hmac::{Hmac, KeyInit, Mac};
use millstream_wire::limits::SHARD_ITERATOR_TTL_SECONDS;
use millstream_wire::{AccountId, ShardId, StreamName};
use sha2::Sha256;

const VERSION: u64 = 1;
const MAC_BYTES: usize = 16;
const TOKEN_MIN_BYTES: usize = 152;
const TOKEN_MAX_BYTES: usize = 280;

/// Where the next read begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ShardIterator {
    /// Whose stream it is.
    pub account: AccountId,
    /// The stream.
    pub stream: StreamName,
    /// The shard.
    pub shard: ShardId,
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
        let name = self.stream.as_str();
        let token_bytes = TOKEN_MIN_BYTES + (name.len() + 2) / 16 * 16;
        let mut bytes = Vec::with_capacity(token_bytes);
        for field in [VERSION, self.log_shard.0, self.counter, self.minted_ms] {
            bytes.extend_from_slice(&field.to_be_bytes());
        }
        bytes.extend_from_slice(&self.shard.0.to_be_bytes());
        let text = format!("{}/{name}", self.account);
        // At most 141 bytes: a name has at most 128.
        bytes.push(u8::try_from(text.len()).unwrap_or_default());
        bytes.extend_from_slice(text.as_bytes());
        bytes.resize(token_bytes - MAC_BYTES, 0);
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
        if !(TOKEN_MIN_BYTES..=TOKEN_MAX_BYTES).contains(&bytes.len()) {
            return Err(Refused::Invalid);
        }
        let (body, given_mac) = bytes.split_at(bytes.len() - MAC_BYTES);
        mac(key, body)
            .verify_truncated_left(given_mac)
            .map_err(|_| Refused::Invalid)?;
        let iterator = ShardIterator::decode(body).ok_or(Refused::Invalid)?;
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

    fn decode(body: &[u8]) -> Option<ShardIterator> {
        let (fields, rest) = body.split_first_chunk::<32>()?;
        let (fields, _) = fields.as_chunks::<8>();
        let [version, log_shard, counter, minted_ms] = fields else {
            return None;
        };
        let (shard, rest) = rest.split_first_chunk::<4>()?;
        let (text_bytes, rest) = rest.split_first()?;
        let text = rest.get(..usize::from(*text_bytes))?;
        let (account, stream) = std::str::from_utf8(text).ok()?.split_once('/')?;
        (u64::from_be_bytes(*version) == VERSION).then_some(ShardIterator {
            account: account.parse().ok()?,
            stream: stream.parse().ok()?,
            shard: ShardId(u32::from_be_bytes(*shard)),
            log_shard: LogShard(u64::from_be_bytes(*log_shard)),
            counter: u64::from_be_bytes(*counter),
            minted_ms: u64::from_be_bytes(*minted_ms),
        })
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
            account: "000000000000".parse().unwrap(),
            stream: "orders".parse().unwrap(),
            shard: ShardId(7),
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
    fn is_as_long_as_those_of_aws() {
        for (name_bytes, token_bytes) in [(1, 152), (13, 152), (14, 168), (128, 280)] {
            let iterator = ShardIterator {
                stream: "n".repeat(name_bytes).parse().unwrap(),
                ..sample()
            };
            let token = iterator.mint(&KEY);
            let bytes = base64_simd::STANDARD.decode_to_vec(&token).unwrap();
            assert_eq!(bytes.len(), token_bytes);
            assert_eq!(ShardIterator::parse(&token, &KEY, 1_000_000), Ok(iterator));
        }
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
