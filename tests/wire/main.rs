//! The wire format in raw JSON and raw CBOR against the real binary, as the service model says it: every
//! member of every request, every documented error, every member of every answer. The model is read from
//! botocore when the test runs, so a newer botocore asks for more than the one before. The goldens are what AWS
//! answers, word for word.

mod cbor;
mod events;
mod exchange;
mod goldens;
mod model;
mod operations;
mod outputs;
#[path = "../clients/python.rs"]
#[expect(dead_code, reason = "the clients' suite uses all of it")]
mod python;
mod walk;

/// The product's binary.
const SERVER: &str = env!("CARGO_BIN_EXE_millstream-under-test");
