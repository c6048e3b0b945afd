//! Event streams by hand: the frames of a SubscribeToShard answer, each checked to the last byte.

/// A frame: its headers by name, and its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Header names and values, in their order.
    pub headers: Vec<(String, String)>,
    /// What is in it.
    pub payload: Vec<u8>,
}

impl Event {
    /// What it is: the value of the header that says so, `initial-response` or the like.
    pub fn kind(&self) -> &str {
        let names = [":event-type", ":exception-type"];
        let found = self
            .headers
            .iter()
            .find(|(name, _)| names.contains(&name.as_str()));
        found.map_or("", |(_, value)| value)
    }
}

/// The next whole frame off the front of `bytes`; panics on one whose lengths or checksums are wrong.
pub fn take(bytes: &mut Vec<u8>) -> Option<Event> {
    let number = |at: usize| {
        let four = bytes.get(at..at + 4)?;
        Some(u32::from_be_bytes(four.try_into().ok()?))
    };
    let total = usize::try_from(number(0)?).unwrap();
    if bytes.len() < total {
        return None;
    }
    let headers_len = usize::try_from(number(4)?).unwrap();
    assert_eq!(
        number(8)?,
        crc32(&bytes[..8]),
        "the checksum of the lengths"
    );
    assert_eq!(
        number(total - 4)?,
        crc32(&bytes[..total - 4]),
        "the checksum of the frame"
    );
    let mut rest = &bytes[12..12 + headers_len];
    let mut headers = Vec::new();
    while let Some((len, after)) = rest.split_first() {
        let (name, after) = after.split_at(usize::from(*len));
        assert_eq!(after[0], 7, "the value is a text");
        let len = usize::from(u16::from_be_bytes(after[1..3].try_into().unwrap()));
        let (value, after) = after[3..].split_at(len);
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        headers.push((text(name), text(value)));
        rest = after;
    }
    let payload = bytes[12 + headers_len..total - 4].to_vec();
    bytes.drain(..total);
    Some(Event { headers, payload })
}

/// CRC-32 (IEEE), four bits at a time.
fn crc32(bytes: &[u8]) -> u32 {
    const HALVES: [u32; 16] = {
        let mut table = [0; 16];
        let mut at = 0;
        while at < 16 {
            #[expect(clippy::cast_possible_truncation, reason = "it is below sixteen")]
            let mut crc = at as u32;
            let mut bit = 0;
            while bit < 4 {
                crc = crc >> 1 ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
                bit += 1;
            }
            table[at] = crc;
            at += 1;
        }
        table
    };
    let step = |crc: u32| crc >> 4 ^ HALVES[usize::try_from(crc & 15).unwrap()];
    let all = bytes
        .iter()
        .fold(u32::MAX, |crc, byte| step(step(crc ^ u32::from(*byte))));
    !all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_everybody() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(crc32(b""), 0);
    }
}
