//! The wire format in raw JSON against the real binary. The walk goes through the service model: every
//! operation that is served, member by member; the model is read from botocore when the test runs, so a newer
//! botocore asks for more than the one before. The goldens are what AWS answers, word for word.

mod goldens;
mod model;
#[path = "../clients/python.rs"]
#[expect(dead_code, reason = "the clients' suite uses all of it")]
mod python;
mod walk;

/// The product's binary.
const SERVER: &str = env!("CARGO_BIN_EXE_millstream-under-test");
