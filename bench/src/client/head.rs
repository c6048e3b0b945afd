//! Heads of HTTP/1.1: writing a request's, and reading of an answer's what its end is known by.

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use memchr::memmem;
use std::fmt::Write;
use std::ops::Range;

/// A head longer than this is none.
const HEAD_MAX_BYTES: usize = 64 * 1024;

/// The head of a POST to `/`.
pub(super) fn write(host: &str, lines: &[(&str, &str)], body_len: usize) -> Bytes {
    let mut head = format!("POST / HTTP/1.1\r\nhost: {host}\r\n");
    for (name, value) in lines {
        // Writing to a string does not fail.
        let _ = write!(head, "{name}: {value}\r\n");
    }
    let _ = write!(head, "content-length: {body_len}\r\n\r\n");
    Bytes::from(head)
}

/// The same lines for HTTP/2.
pub(super) fn headers(lines: &[(&str, &str)]) -> Result<HeaderMap, http::Error> {
    let mut headers = HeaderMap::with_capacity(lines.len());
    for (name, value) in lines {
        headers.insert(
            HeaderName::from_bytes(name.as_bytes())?,
            HeaderValue::from_str(value)?,
        );
    }
    Ok(headers)
}

/// What says where the body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// It has so many bytes.
    Length(usize),
    /// It comes in chunks.
    Chunked,
    /// It ends with the connection.
    ToTheEnd,
}

/// What of an answer's head matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) status: u16,
    /// Where the body begins.
    pub(super) len: usize,
    pub(super) extent: Extent,
    /// The server ends the connection after it.
    pub(super) is_last: bool,
}

impl Head {
    /// Nothing, if more bytes are needed.
    pub(super) fn parse(input: &[u8]) -> Result<Option<Head>, &'static str> {
        let Some(end) = memmem::find(input, b"\r\n\r\n") else {
            if input.len() > HEAD_MAX_BYTES {
                return Err("the answer's head is too long");
            }
            return Ok(None);
        };
        let text = input.get(..end).unwrap_or_default();
        let text = std::str::from_utf8(text).map_err(|_| "the answer's head is no text")?;
        let mut lines = text.split("\r\n");
        let first = lines.next().unwrap_or_default();
        let version = first
            .strip_prefix("HTTP/1.")
            .ok_or("the answer is not HTTP/1")?;
        let status = version.get(2..5).and_then(|status| status.parse().ok());
        let mut head = Head {
            status: status.ok_or("the answer has no status")?,
            len: end + 4,
            extent: Extent::ToTheEnd,
            is_last: version.starts_with('0'),
        };
        for line in lines {
            head.read_line(line)?;
        }
        if head.extent == Extent::ToTheEnd {
            head.is_last = true;
        }
        Ok(Some(head))
    }

    fn read_line(&mut self, line: &str) -> Result<(), &'static str> {
        let Some((name, value)) = line.split_once(':') else {
            return Ok(());
        };
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            let len = value.parse().map_err(|_| "Content-Length is no number")?;
            self.extent = Extent::Length(len);
        } else if name.eq_ignore_ascii_case("transfer-encoding")
            && value.eq_ignore_ascii_case("chunked")
        {
            self.extent = Extent::Chunked;
        } else if name.eq_ignore_ascii_case("connection") {
            self.is_last = value.eq_ignore_ascii_case("close");
        }
        Ok(())
    }
}

/// The body that came in chunks; nothing, if the last of them is not there yet.
pub(super) fn dechunk(input: &[u8]) -> Result<Option<Vec<u8>>, &'static str> {
    let Some(chunks) = chunks(input)? else {
        return Ok(None);
    };
    let pieces = chunks.into_iter().filter_map(|chunk| input.get(chunk));
    Ok(Some(pieces.collect::<Vec<_>>().concat()))
}

/// Where the chunks lie, if all are there. Looks at nothing but their lengths.
fn chunks(input: &[u8]) -> Result<Option<Vec<Range<usize>>>, &'static str> {
    let mut chunks = Vec::new();
    let mut at = 0;
    loop {
        let rest = input.get(at..).unwrap_or_default();
        let Some(line_len) = memmem::find(rest, b"\r\n") else {
            if rest.len() > HEAD_MAX_BYTES {
                return Err("a chunk's length is too long");
            }
            return Ok(None);
        };
        let line = rest.get(..line_len).unwrap_or_default();
        let line = std::str::from_utf8(line).map_err(|_| "a chunk's length is no text")?;
        let digits = line.split(';').next().unwrap_or_default().trim();
        let len = usize::from_str_radix(digits, 16).map_err(|_| "a chunk's length is no number")?;
        let begin = at + line_len + 2;
        let end = begin.checked_add(len).ok_or("a chunk is too long")?;
        if end.checked_add(2).is_none_or(|after| after > input.len()) {
            return Ok(None);
        }
        if len == 0 {
            return Ok(Some(chunks));
        }
        chunks.push(begin..end);
        at = end + 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_head_says_where_the_body_ends() {
        let head = |text: &str| Head::parse(text.as_bytes()).unwrap().unwrap();
        let known = head("HTTP/1.1 200 OK\r\nContent-Length: 12\r\nx: y\r\n\r\nabc");
        assert_eq!((known.status, known.extent), (200, Extent::Length(12)));
        assert!(!known.is_last);
        let chunked =
            head("HTTP/1.1 503 Busy\r\ntransfer-encoding: chunked\r\nConnection: close\r\n\r\n");
        assert_eq!((chunked.status, chunked.extent), (503, Extent::Chunked));
        assert!(chunked.is_last);
        let open = head("HTTP/1.0 200 OK\r\n\r\n");
        assert_eq!(open.extent, Extent::ToTheEnd);
        assert!(open.is_last);
    }

    #[test]
    fn what_is_no_head_is_refused() {
        for text in [
            "SSH-2.0\r\n\r\n",
            "HTTP/1.1 2\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        ] {
            Head::parse(text.as_bytes()).unwrap_err();
        }
        Head::parse(&vec![b'a'; HEAD_MAX_BYTES + 1]).unwrap_err();
    }

    proptest! {
        /// Goal: nothing that a server sends makes the client panic.
        #[test]
        fn hostile_bytes_are_read(bytes: Vec<u8>) {
            let _ = Head::parse(&bytes);
            let _ = dechunk(&bytes);
        }

        /// Goal: a body is the same however it was cut, and is not taken for whole before it is.
        #[test]
        fn chunks_become_a_body(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..50), 0..9)) {
            let mut sent = Vec::new();
            for piece in &pieces {
                sent.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                sent.extend_from_slice(piece);
                sent.extend_from_slice(b"\r\n");
            }
            sent.extend_from_slice(b"0\r\n\r\n");
            prop_assert_eq!(dechunk(&sent), Ok(Some(pieces.concat())));
            for cut in 0..sent.len() {
                prop_assert_eq!(dechunk(&sent[..cut]), Ok(None));
            }
        }
    }
}
