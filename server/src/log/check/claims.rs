//! What bytes whose checksum does not hold say of themselves. Nothing of it is believed: it is told to whoever decides,
//! and bounds what is missing. Pure.

use std::fmt;

use crate::log::LogShard;
use crate::log::check::survey::Hole;
use crate::log::cursor::Cursor;
use crate::log::frame::{HEADER_BYTES, VERSION, frame_bytes};
use crate::log::records::RunHead;

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claim {
    Run(RunHead),
    Transaction,
    Other,
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Claim::Run(head) => write!(
                f,
                "{} records of log shard {} from counter {}",
                head.count, head.shard.0, head.first
            ),
            Claim::Transaction => write!(f, "a transaction"),
            Claim::Other => write!(f, "neither records nor a transaction"),
        }
    }
}

/// What headers one after the other say.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    pub(crate) found: Vec<Claim>,
    /// Their lengths lead to the end of the hole.
    pub(crate) is_all: bool,
}

/// Follows the headers in a hole as far as they make sense.
pub(crate) fn of(bytes: &[u8], hole: &Hole) -> Claims {
    let mut claims = Claims::default();
    let mut at = hole.at;
    while at < hole.end {
        let left = bytes.get(at..hole.end).unwrap_or_default();
        let Some((claim, length)) = one(left) else {
            return claims;
        };
        claims.found.push(claim);
        at = at.saturating_add(length);
    }
    claims.is_all = at == hole.end;
    claims
}

fn one(bytes: &[u8]) -> Option<(Claim, usize)> {
    let mut cursor = Cursor::new(bytes);
    let _magic: [u8; 4] = cursor.array()?;
    let body_bytes = usize::try_from(cursor.u32()?).ok()?;
    let length = frame_bytes(body_bytes);
    let _crc = cursor.u32()?;
    let (version, kind) = (cursor.u8()?, cursor.u8()?);
    if version != VERSION || length > bytes.len() {
        return None;
    }
    let mut body = Cursor::new(bytes.get(HEADER_BYTES..)?);
    let claim = match kind {
        2 => {
            let head = RunHead {
                shard: LogShard(body.u64()?),
                first: body.u64()?,
                time_ms: body.u64()?,
                count: body.u32()?,
            };
            let most = u32::try_from(body_bytes / 7).unwrap_or(u32::MAX);
            Claim::Run(Some(head).filter(|head| (1..=most).contains(&head.count))?)
        }
        3 => Claim::Transaction,
        4 | 6 => Claim::Other,
        _ => return None,
    };
    Some((claim, length))
}
