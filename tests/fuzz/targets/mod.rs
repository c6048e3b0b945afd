//! The decoders.

mod aggregates;
mod base64;
mod cbor;
mod client;
mod configuration;
mod iterators;
mod leases;
mod log;
mod requests;
mod signatures;
mod texts;

use crate::engine::Target;
use millstream_wire::Encoding;

/// Every target.
pub(crate) const NAMES: [&str; 13] = [
    "json-requests",
    "cbor-requests",
    "iterators",
    "base64",
    "cbor",
    "texts",
    "log",
    "aggregates",
    "events",
    "pages",
    "configuration",
    "signatures",
    "leases",
];

/// A target by its name.
pub(crate) fn make(name: &str) -> Box<dyn Target> {
    match name {
        "json-requests" => Box::new(requests::Requests::new(Encoding::Json)),
        "cbor-requests" => Box::new(requests::Requests::new(Encoding::Cbor)),
        "iterators" => Box::new(iterators::Iterators::new()),
        "base64" => Box::new(base64::Base64),
        "cbor" => Box::new(cbor::Cbor),
        "texts" => Box::new(texts::Texts),
        "log" => Box::new(log::Files::new()),
        "aggregates" => Box::new(aggregates::Aggregates),
        "events" => Box::new(client::Events::new()),
        "pages" => Box::new(client::Pages),
        "configuration" => Box::new(configuration::Configuration),
        "signatures" => Box::new(signatures::Signatures::new()),
        "leases" => Box::new(leases::Rows),
        _ => panic!("there is no target {name}"),
    }
}
