//! Reading numbers and slices from hostile bytes: nothing here indexes, wraps or panics.

/// What is left of some bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Cursor(bytes)
    }

    /// Bytes not yet read.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.0
    }

    pub(crate) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// An LEB128 number; see [`put_varint`].
    pub(crate) fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            let shifted = bits.checked_shl(shift)?;
            if shifted.checked_shr(shift)? != bits {
                return None;
            }
            value |= shifted;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    /// A count of items of at least `item_bytes` each: never more than the bytes left could hold,
    /// so that it can be allocated for.
    pub(crate) fn count(&mut self, item_bytes: usize) -> Option<usize> {
        let count = usize::try_from(self.u32()?).ok()?;
        (count.checked_mul(item_bytes)? <= self.0.len()).then_some(count)
    }
}

/// Seven bits a byte, the lowest first; the highest bit says that more follow.
pub(crate) fn put_varint(buffer: &mut Vec<u8>, mut number: u64) {
    loop {
        let [low, ..] = number.to_le_bytes();
        number >>= 7;
        if number == 0 {
            buffer.push(low & 0x7f);
            return;
        }
        buffer.push(low | 0x80);
    }
}

/// The step from one number to another as a varint that is short for small steps either way.
pub(crate) fn put_step(buffer: &mut Vec<u8>, from: u64, to: u64) {
    let step = to.wrapping_sub(from).cast_signed();
    let folded = (step << 1) ^ (step >> 63);
    put_varint(buffer, folded.cast_unsigned());
}

impl Cursor<'_> {
    /// What [`put_step`] leads to.
    pub(crate) fn step(&mut self, from: u64) -> Option<u64> {
        let folded = self.varint()?;
        let step = (folded >> 1) ^ (folded & 1).wrapping_neg();
        Some(from.wrapping_add(step))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_and_steps_round_trip(from: u64, number: u64, small in 0u64..300) {
            for to in [number, small, from.wrapping_add(small), from.wrapping_sub(small)] {
                let mut bytes = Vec::new();
                put_varint(&mut bytes, to);
                put_step(&mut bytes, from, to);
                let mut cursor = Cursor::new(&bytes);
                prop_assert_eq!(cursor.varint(), Some(to));
                prop_assert_eq!(cursor.step(from), Some(to));
                prop_assert!(cursor.rest().is_empty());
            }
        }

        #[test]
        fn s9_any_bytes_give_a_number_or_none(bytes in prop::collection::vec(any::<u8>(), 0..12)) {
            let _ = Cursor::new(&bytes).varint();
        }
    }

    #[test]
    fn a_number_over_64_bits_is_none() {
        let mut bytes = vec![0xff; 9];
        bytes.push(1);
        assert_eq!(Cursor::new(&bytes).varint(), Some(u64::MAX));
        bytes[9] = 2;
        assert_eq!(Cursor::new(&bytes).varint(), None);
        assert_eq!(Cursor::new(&[0x80; 11]).varint(), None);
    }
}
