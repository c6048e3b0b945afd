//! Which encoding an endpoint is asked for records in: CBOR, until it shows that it does not speak it; JSON from then on. Decided for each operation that
//! carries records, since an endpoint may speak it in one and not in the other.

use millstream_wire::{Encoding, Operation};
use std::sync::OnceLock;

/// What is known of an endpoint, decided once.
#[derive(Debug, Default)]
pub(super) struct Dialect {
    decided: OnceLock<Encoding>,
}

impl Dialect {
    /// What to ask in.
    pub(super) fn preferred(&self) -> Encoding {
        self.decided.get().copied().unwrap_or(Encoding::Cbor)
    }

    /// Whether the endpoint has understood something.
    pub(super) fn is_decided(&self) -> bool {
        self.decided.get().is_some()
    }

    /// The endpoint has understood this encoding of `what`, and none that was tried before it.
    pub(super) fn decide(&self, encoding: Encoding, what: Operation) {
        if self.decided.set(encoding).is_ok() && encoding == Encoding::Json {
            tracing::info!(
                operation = %what,
                "the endpoint does not speak CBOR: records are read in JSON, which takes more of the processor"
            );
        }
    }
}

/// What a body is by its first byte: CBOR if that begins a map. No JSON begins so.
pub(super) fn encoding_of(body: &[u8]) -> Encoding {
    match body.first() {
        Some(0xa0..=0xbf) => Encoding::Cbor,
        _ => Encoding::Json,
    }
}
