//! CBOR written by hand, so that the server's own encoder does not vouch for its decoder.

/// A text of up to 255 bytes.
pub(crate) fn text(text: &str) -> Vec<u8> {
    let len = u8::try_from(text.len()).unwrap();
    let head = if len < 24 {
        vec![0x60 | len]
    } else {
        vec![0x78, len]
    };
    [head, text.as_bytes().to_vec()].concat()
}

/// A map without a declared length, of names and values that are written already.
pub(crate) fn map(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let entries = entries
        .iter()
        .flat_map(|(name, value)| [text(name), value.clone()]);
    [vec![0xbf], entries.flatten().collect(), vec![0xff]].concat()
}
