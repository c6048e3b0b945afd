//! Shards: which of them need leases ([`sync`]), and the life of one under a lease ([`consumer`]).

pub(crate) mod callback;
pub(crate) mod consumer;
pub(crate) mod meter;
mod noticed;
pub(crate) mod sync;
