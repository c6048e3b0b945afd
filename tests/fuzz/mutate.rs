//! Changes to inputs: small ones at random, tokens of the target, parts of other inputs.

/// The longest input that is made.
pub(crate) const INPUT_MAX_BYTES: usize = 32 * 1024;
/// Changes to one input at most.
const CHANGES_MAX: usize = 6;
/// Bytes inserted, removed or repeated at once, at most.
const SPAN_MAX: usize = 64;
/// Numbers at which decoders tend to go wrong.
const EDGES: [u64; 12] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0xffff_ffff,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    0xffff_ffff_ffff_ffff,
];

/// What an input may be changed with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Material<'a> {
    /// What the format is made of.
    pub(crate) tokens: &'a [&'a [u8]],
    /// Another input, to take a part of.
    pub(crate) other: &'a [u8],
}

/// Changes an input here and there.
pub(crate) fn mutate(input: &mut Vec<u8>, material: Material<'_>, random: &mut fastrand::Rng) {
    for _ in 0..=random.usize(0..CHANGES_MAX) {
        change(input, material, random);
    }
    input.truncate(INPUT_MAX_BYTES);
}

fn change(input: &mut Vec<u8>, material: Material<'_>, random: &mut fastrand::Rng) {
    let at = random.usize(0..=input.len());
    match random.u8(0..10) {
        0 => {
            if let Some(byte) = input.get_mut(at) {
                *byte ^= 1 << random.u8(0..8);
            }
        }
        1 => {
            if let Some(byte) = input.get_mut(at) {
                *byte = random.u8(..);
            }
        }
        2 => {
            let width = 1 << random.usize(0..4);
            let edge = random.choice(EDGES).unwrap_or_default().to_be_bytes();
            overwrite(input, at, &edge[8 - width..]);
        }
        3 => {
            let count = random.usize(1..=SPAN_MAX);
            let bytes: Vec<u8> = (0..count).map(|_| random.u8(..)).collect();
            insert(input, at, &bytes);
        }
        4 => {
            let end = (at + random.usize(1..=SPAN_MAX)).min(input.len());
            input.drain(at..end);
        }
        5 => {
            let end = (at + random.usize(1..=SPAN_MAX)).min(input.len());
            let part = input[at..end].to_vec();
            let times = 1 << random.usize(0..8);
            insert(input, at, &part.repeat(times));
        }
        6 | 7 => {
            if let Some(token) = random.choice(material.tokens) {
                if random.bool() {
                    insert(input, at, token);
                } else {
                    overwrite(input, at, token);
                }
            }
        }
        8 => {
            let from = random.usize(0..=material.other.len());
            let to = (from + random.usize(0..=4 * SPAN_MAX)).min(material.other.len());
            insert(input, at, &material.other[from..to]);
        }
        _ => input.truncate(at),
    }
}

fn overwrite(input: &mut [u8], at: usize, bytes: &[u8]) {
    for (place, byte) in input.iter_mut().skip(at).zip(bytes) {
        *place = *byte;
    }
}

fn insert(input: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    let room = INPUT_MAX_BYTES.saturating_sub(input.len());
    let bytes = &bytes[..bytes.len().min(room)];
    input.splice(at..at, bytes.iter().copied());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a seed gives the same inputs again, and they stay within their bound.
    #[test]
    fn mutations_are_bounded_and_repeat_with_their_seed() {
        let run = || {
            let mut random = fastrand::Rng::with_seed(7);
            let material = Material {
                tokens: &[b"token"],
                other: b"another input",
            };
            let mut input = b"an input".to_vec();
            let mut lengths = Vec::new();
            for _ in 0..5000 {
                mutate(&mut input, material, &mut random);
                assert!(input.len() <= INPUT_MAX_BYTES);
                lengths.push(input.len());
            }
            (lengths, input)
        };
        assert_eq!(run(), run());
    }
}
