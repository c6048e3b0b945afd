//! Every setting of the server, once: unit, default, range, and when one would change it.

use crate::api::Latency;
use crate::engine::{Limits, Probability};
use crate::log::{Durability, LogConfig};
use crate::memory::Memory;
use millstream_wire::limits::{RECORD_DEFAULT_MAX_BYTES, RETENTION_DEFAULT_HOURS};
use millstream_wire::{AccountId, Region, StreamName};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;
use std::path::PathBuf;

/// Settings of a server; plain data.
#[derive(Debug, Clone)]
pub struct Config {
    /// Address to listen on, default 127.0.0.1. Another one makes the server reachable from elsewhere:
    /// it checks no signatures, so that needs `allow_public`.
    pub host: IpAddr,
    /// Port to listen on, default 4567; 0 takes any free one.
    pub port: u16,
    /// Where the log lives, default the directory `./millstream-data`.
    pub data: DataLocation,
    /// When a put is acknowledged, default after `fdatasync`.
    pub durability: Durability,
    /// Whether AWS's limits on shards, calls and accounts hold, default yes. Off on hardware of your own.
    pub limits: Limits,
    /// How often PutRecord, PutRecords, GetRecords and GetShardIterator are refused as if a shard's throughput
    /// were used up, default never. Raise it to see that a client tries again.
    pub error_probability: Probability,
    /// How long an operation waits before it begins, default not at all. Raise it to see what a client does
    /// whose service is far away.
    pub latency: Latency,
    /// How long streams stay CREATING, UPDATING and DELETING, milliseconds, default 0. Raise it to test
    /// that a client waits.
    pub state_delay_ms: u64,
    /// Account of requests whose access key id is not 12 digits, default 000000000000.
    pub account: AccountId,
    /// Region of requests whose signature names none, default us-east-1.
    pub region: Region,
    /// Streams to create at start if they do not exist.
    pub streams: Vec<StartStream>,
    /// Listen on a non-loopback address although no signature is checked.
    pub allow_public: bool,
    /// The certificate shown to clients that speak TLS on the same port, default one of its own.
    pub tls: TlsSource,
    /// Memory for all that grows with load, default 512 MiB, from 192 MiB. Raise it for more connections at a time, and for
    /// readers that follow from further behind without reading files.
    pub memory: Memory,
    /// Sizes of the log that are not memory; the rest of it follows from `memory`. And whether its sealed segments are
    /// compressed (`compression`, default zstd): not, if records are compressed already or the processor is needed
    /// elsewhere.
    pub log: LogConfig,
}

/// Where the log lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DataLocation {
    /// A directory, created if it does not exist; one process at a time.
    Directory(PathBuf),
    /// Memory, bounded, gone at the end: for tests.
    Ephemeral,
}

/// Where the TLS certificate comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum TlsSource {
    /// Made at the first start for the names of this machine, kept with the data.
    #[default]
    SelfSigned,
    /// Given in PEM form: a certificate that clients trust anyway.
    Files {
        /// The certificate, then those that vouch for it.
        certificate: PathBuf,
        /// Its private key.
        key: PathBuf,
    },
}

/// A stream to create at start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartStream {
    /// Its name.
    pub name: StreamName,
    /// Its region; `None` is the server's.
    pub region: Option<Region>,
    /// Its shards; `None` makes it an on-demand stream.
    pub shards: Option<NonZeroU32>,
    /// Hours its records stay readable.
    pub retention_hours: u32,
    /// Data plus partition key of one record at most, bytes.
    pub max_record_bytes: usize,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
}

impl StartStream {
    /// A stream with the defaults of CreateStream, in the server's region.
    pub fn new(name: StreamName, shards: NonZeroU32) -> StartStream {
        StartStream {
            name,
            region: None,
            shards: Some(shards),
            retention_hours: RETENTION_DEFAULT_HOURS,
            max_record_bytes: RECORD_DEFAULT_MAX_BYTES,
            tags: BTreeMap::new(),
        }
    }
}

/// The default port, the one Kinesis stand-ins use.
pub const DEFAULT_PORT: u16 = 4567;
/// The default data directory.
pub const DEFAULT_DATA_DIR: &str = "./millstream-data";
/// Bytes that an ephemeral server keeps at most; puts are refused beyond it.
pub const EPHEMERAL_MAX_BYTES: u64 = 2 * 1024 * 1024 * 1024;
/// Bytes of a segment of an ephemeral server; it is also the step in which memory is given back.
pub const EPHEMERAL_SEGMENT_BYTES: u64 = 16 * 1024 * 1024;

impl Default for Config {
    #[expect(clippy::expect_used, reason = "both texts are valid names")]
    fn default() -> Self {
        Config {
            host: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: DEFAULT_PORT,
            data: DataLocation::Directory(PathBuf::from(DEFAULT_DATA_DIR)),
            durability: Durability::Fsync,
            limits: Limits::Aws,
            error_probability: Probability::default(),
            latency: Latency::default(),
            state_delay_ms: 0,
            account: "000000000000".parse().expect("twelve digits"),
            region: "us-east-1".parse().expect("a region"),
            streams: Vec::new(),
            allow_public: false,
            tls: TlsSource::default(),
            memory: Memory::default(),
            log: LogConfig::default(),
        }
    }
}
