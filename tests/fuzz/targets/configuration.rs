//! The configuration file of the server.

use crate::engine::{Target, outcome};

pub(crate) struct Configuration;

impl Target for Configuration {
    fn seeds(&self) -> Vec<Vec<u8>> {
        let all = "
host = '127.0.0.1'
port = 4567
data-dir = './data'
durability = 'interval=10'
limits = 'off'
state-delay = 500
error-probability = 0.1
latency = '10-20'
region = 'eu-west-1'
account = '000000000000'
allow-public = false

[[streams]]
name = 'orders'
shards = 2
region = 'eu-west-1'
retention-hours = 48
max-record-size-kib = 2048
tags = { team = 'a' }
";
        let seeds = [all, "streams = 'a:1,b:2:eu-west-1'", "ephemeral = true", ""];
        seeds.map(|text| text.as_bytes().to_vec()).to_vec()
    }

    fn tokens(&self) -> &'static [&'static [u8]] {
        &[
            b"[[streams]]",
            b"[streams]",
            b"=",
            b"'",
            b"\"\"\"",
            b"{",
            b"}",
            b"[",
            b"]",
            b"\n",
            b"#",
            b"inf",
            b"nan",
            b"-1",
            b"1e400",
            b"0x7fffffffffffffff",
            b"2026-01-31T08:00:00Z",
            b"data-dir = 'x'\n",
            b"ephemeral = true\n",
            b"shards = 0",
            b"\xc3\xa9",
            b"\\u0000",
        ]
    }

    fn run(&mut self, input: &[u8]) -> u64 {
        let text = String::from_utf8_lossy(input);
        outcome(&millstream_cli::check_configuration(&text), |()| 1)
    }
}
