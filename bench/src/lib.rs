//! Loads for Kinesis endpoints: one request in flight per connection.

pub mod client;
pub mod clock;
pub mod load;
