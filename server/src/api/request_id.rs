//! What a request is called in its answer and in the log.

use std::fmt;

const HEX: [u8; 16] = *b"0123456789abcdef";
/// Where the hyphens of a UUID stand.
const HYPHENS: [usize; 4] = [8, 13, 18, 23];

/// A random UUID (version 4). Nothing depends on it being unguessable.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RequestId([u8; 36]);

impl RequestId {
    /// A new one.
    pub fn random() -> RequestId {
        let bits = fastrand::u128(..) & !(0xf << 76) & !(0x3 << 62) | 4 << 76 | 2 << 62;
        let mut text = [b'-'; 36];
        let mut rest = bits;
        for (_, digit) in text
            .iter_mut()
            .enumerate()
            .filter(|(at, _)| !HYPHENS.contains(at))
        {
            rest = rest.rotate_left(4);
            *digit = HEX[usize::try_from(rest & 0xf).unwrap_or_default()];
        }
        RequestId(text)
    }

    /// Its text, 36 characters.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_id_is_a_uuid_of_version_4() {
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..1_000 {
            let id = RequestId::random().to_string();
            let groups: Vec<usize> = id.split('-').map(str::len).collect();
            assert_eq!(groups, [8, 4, 4, 4, 12], "{id}");
            assert!(
                id.bytes()
                    .all(|byte| byte == b'-' || byte.is_ascii_hexdigit())
            );
            assert_eq!(id.as_bytes()[14], b'4', "{id}");
            assert!(b"89ab".contains(&id.as_bytes()[19]), "{id}");
            seen.insert(id);
        }
        assert_eq!(seen.len(), 1_000);
    }
}
