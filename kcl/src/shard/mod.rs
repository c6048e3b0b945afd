//! Shards: which of them need leases ([`sync`]), and the life of one under a lease ([`consumer`]), batch by batch
//! ([`deliver`]).

mod ahead;
pub(crate) mod bisect;
pub(crate) mod callback;
pub(crate) mod consumer;
pub(crate) mod deliver;
pub(crate) mod meter;
mod noticed;
pub(crate) mod served;
pub(crate) mod sync;
