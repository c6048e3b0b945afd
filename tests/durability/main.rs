//! The server as a process that is killed, stopped, damaged and fed with garbage, under load: guarantees
//! S1 to S5 and S8 to S10, each test named after the one it is about.

mod crash;
mod damage;
mod garbage;
mod reshard;
mod stop;
mod tail;

use std::time::Duration;
use support::load::Shape;

/// The product's binary.
const SERVER: &str = env!("CARGO_BIN_EXE_millstream-under-test");
/// The stream of every test here.
const STREAM: &str = "orders";

/// Sixteen writers, about a thousand records a second.
const SIXTEEN: Shape = Shape {
    writers: 16,
    pause: Duration::from_millis(30),
    batch: 3,
};
