//! The settings of `serve`: flags, `MILLSTREAM_*` variables and the configuration file are layers of one
//! struct, merged in that order. What each setting means is in the server's `Config`.

mod streams;

use crate::Failure;
use clap::{Args, ValueEnum};
use millstream_server::log::LogConfig;
use millstream_server::{
    Compression, Config, DataLocation, Durability, Latency, Limits, Memory, Probability, TlsSource,
};
use millstream_wire::{AccountId, Region};
use serde::{Deserialize, Deserializer, de::Error as _};
use std::ffi::OsString;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;
use streams::StreamList;

/// The longest time that `interval=MS` leaves writes unsynced.
const INTERVAL_MAX_MS: u64 = 60_000;
/// The longest time that `--state-delay` keeps a stream in transition.
const STATE_DELAY_MAX_MS: u64 = 600_000;

/// What `serve` is started with.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Flags {
    /// TOML file with the same settings, by the names of the flags (`data-dir = "/var/lib/millstream"`).
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Stop as on SIGTERM when standard input ends, so that no server outlives the demo that started it.
    #[arg(long, hide = true)]
    pub(crate) stop_with_stdin: bool,
    #[command(flatten)]
    settings: Layer,
}

/// Settings as one source gives them; what it leaves out comes from the next.
#[derive(Debug, Clone, Default, PartialEq, Args, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
struct Layer {
    /// Address to listen on [default: 127.0.0.1].
    #[arg(long, value_name = "ADDRESS")]
    host: Option<IpAddr>,
    /// Port to listen on; 0 takes any free one [default: 4567].
    #[arg(long)]
    port: Option<u16>,
    /// Directory of the data, created if it does not exist [default: ./millstream-data].
    #[arg(long, value_name = "DIRECTORY")]
    data_dir: Option<PathBuf>,
    /// Keep the data in memory; it is gone when the server stops.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    ephemeral: Option<bool>,
    /// When a put is acknowledged: `fsync`, `interval=MS` or `none` [default: fsync].
    #[arg(long, value_name = "MODE")]
    #[serde(deserialize_with = "from_text")]
    durability: Option<DurabilityMode>,
    /// How records are compressed once they have lain for a while: `zstd` or `none` [default: zstd].
    #[arg(long, value_name = "zstd|none")]
    #[serde(deserialize_with = "from_text")]
    compression: Option<CompressionMode>,
    /// Whether AWS's limits on shards, calls and accounts hold: `aws` or `off` [default: aws].
    #[arg(long, value_name = "aws|off")]
    #[serde(deserialize_with = "from_text")]
    limits: Option<LimitsMode>,
    /// Memory for all that grows with load, as in `512MiB` or `2GiB` [default: 512MiB].
    #[arg(long, value_name = "SIZE")]
    #[serde(deserialize_with = "from_scalar")]
    memory: Option<Memory>,
    /// Streams that exist when the server is ready, `NAME:SHARDS[:REGION],...`.
    #[arg(long, value_name = "NAME:SHARDS,...")]
    streams: Option<StreamList>,
    /// How long streams and consumers stay CREATING, UPDATING and DELETING [default: 0].
    #[arg(long, value_name = "MS")]
    #[serde(deserialize_with = "from_scalar")]
    state_delay: Option<StateDelay>,
    /// How often puts and reads are refused as if a shard's throughput were used up, 0.0 to 1.0 [default: 0].
    #[arg(long, value_name = "P")]
    #[serde(deserialize_with = "from_scalar")]
    error_probability: Option<Probability>,
    /// How long every call takes at least, `MS` or a range `MS-MS` [default: 0].
    #[arg(long, value_name = "MS[-MS]")]
    #[serde(deserialize_with = "from_scalar")]
    latency: Option<Latency>,
    /// Region of requests whose signature names none [default: us-east-1].
    #[arg(long)]
    #[serde(deserialize_with = "from_text")]
    region: Option<Region>,
    /// Account of requests whose access key id is not 12 digits [default: 000000000000].
    #[arg(long, value_name = "ID")]
    #[serde(deserialize_with = "from_text")]
    account: Option<AccountId>,
    /// Listen on an address that is not loopback although no signature is checked.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    allow_public: Option<bool>,
    /// TLS certificate in PEM form, with those that vouch for it [default: one of the server's own].
    #[arg(long, value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// Private key of the TLS certificate in PEM form.
    #[arg(long, value_name = "FILE")]
    tls_key: Option<PathBuf>,
    /// How logs look on standard error [default: text].
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
}

/// How logs are written to standard error.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, for collectors.
    Json,
}

/// `fsync`, `interval=MS` or `none`.
#[derive(Debug, Clone, Copy, PartialEq)]
struct DurabilityMode(Durability);

impl FromStr for DurabilityMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let interval = |ms: &str| {
            let ms = ms
                .parse()
                .ok()
                .filter(|ms| (1..=INTERVAL_MAX_MS).contains(ms));
            ms.map(|ms| Durability::Interval(Duration::from_millis(ms)))
        };
        let mode = match (text, text.strip_prefix("interval=")) {
            ("fsync", _) => Some(Durability::Fsync),
            ("none", _) => Some(Durability::None),
            (_, Some(ms)) => interval(ms),
            _ => None,
        };
        mode.map(DurabilityMode).ok_or_else(|| {
            format!("expected fsync, interval=MS with 1 to {INTERVAL_MAX_MS} milliseconds, or none")
        })
    }
}

impl fmt::Display for DurabilityMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Durability::Fsync => f.write_str("fsync"),
            Durability::Interval(time) => write!(f, "interval={}", time.as_millis()),
            Durability::None => f.write_str("none"),
        }
    }
}

/// `zstd` or `none`.
#[derive(Debug, Clone, Copy, PartialEq)]
struct CompressionMode(Compression);

impl FromStr for CompressionMode {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "zstd" => Ok(CompressionMode(Compression::Zstd)),
            "none" => Ok(CompressionMode(Compression::None)),
            _ => Err("expected zstd or none"),
        }
    }
}

/// `aws` or `off`.
#[derive(Debug, Clone, Copy, PartialEq)]
struct LimitsMode(Limits);

impl FromStr for LimitsMode {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "aws" => Ok(LimitsMode(Limits::Aws)),
            "off" => Ok(LimitsMode(Limits::Off)),
            _ => Err("expected aws or off"),
        }
    }
}

/// Milliseconds that streams stay in transition.
#[derive(Debug, Clone, Copy, PartialEq)]
struct StateDelay(u64);

impl FromStr for StateDelay {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let ms = text.parse().ok().filter(|ms| *ms <= STATE_DELAY_MAX_MS);
        let wrong =
            || format!("{text:?} is no delay; expected 0 to {STATE_DELAY_MAX_MS} milliseconds");
        ms.map(StateDelay).ok_or_else(wrong)
    }
}

/// A setting that the file gives in the words of the flag.
fn from_text<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: fmt::Display>,
{
    let text = String::deserialize(deserializer)?;
    text.parse().map(Some).map_err(D::Error::custom)
}

/// The line on which a TOML file sets `key`, counted from 1.
fn line_of(text: &str, key: &str) -> Option<usize> {
    let table = toml::de::DeTable::parse(text).ok()?;
    let (key, _) = table.get_ref().get_key_value(key)?;
    let before = text.get(..key.span().start)?;
    Some(before.matches('\n').count() + 1)
}

/// The same for a setting that is a number as often as a text.
fn from_scalar<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: fmt::Display>,
{
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a number or a text")]
    enum Scalar {
        Integer(i64),
        Float(f64),
        Text(String),
    }
    let text = match Scalar::deserialize(deserializer)? {
        Scalar::Integer(number) => number.to_string(),
        Scalar::Float(number) => number.to_string(),
        Scalar::Text(text) => text,
    };
    text.parse().map(Some).map_err(D::Error::custom)
}

/// What the layers add up to.
#[derive(Debug)]
pub(crate) struct Settings {
    /// For the server.
    pub(crate) config: Config,
    /// For the log on standard error.
    pub(crate) log_format: LogFormat,
}

impl Settings {
    /// Merges command line, environment and file. `environment` gives a variable's value, if it is set.
    pub(crate) fn resolve(
        flags: &Flags,
        environment: &dyn Fn(&str) -> Option<OsString>,
    ) -> Result<Settings, Failure> {
        flags
            .settings
            .check("on the command line")
            .map_err(Failure::usage)?;
        let from_environment = Layer::from_environment(environment).map_err(Failure::usage)?;
        let config_file = flags.config.clone().or_else(|| {
            environment("MILLSTREAM_CONFIG")
                .filter(|path| !path.is_empty())
                .map(PathBuf::from)
        });
        let from_file = match config_file {
            Some(path) => Layer::from_file(&path).map_err(Failure::usage)?,
            None => Layer::default(),
        };
        let layers = flags
            .settings
            .clone()
            .over(from_environment)
            .over(from_file);
        layers.settle().map_err(Failure::usage)
    }

    /// Where the data is and what an acknowledgement means, for the `Ready` line.
    pub(crate) fn describe(config: &Config) -> String {
        match &config.data {
            DataLocation::Directory(path) => {
                let durability = DurabilityMode(config.durability);
                format!("data {}, durability {durability}", path.display())
            }
            DataLocation::Ephemeral => "data in memory, durability none".to_owned(),
        }
    }
}

/// What is wrong with a configuration file that has this text.
pub(crate) fn check_file(text: &str) -> Result<(), String> {
    Layer::from_text(text)?.settle().map(drop)
}

impl Layer {
    /// Reads one variable per flag: `--data-dir` is `MILLSTREAM_DATA_DIR`. An empty one counts as not set.
    fn from_environment(environment: &dyn Fn(&str) -> Option<OsString>) -> Result<Layer, String> {
        let parser = Layer::augment_args(clap::Command::new("environment"))
            .no_binary_name(true)
            .disable_help_flag(true);
        let mut merged = Layer::default();
        for flag in parser.get_arguments().filter_map(clap::Arg::get_long) {
            let variable = format!("MILLSTREAM_{}", flag.replace('-', "_").to_uppercase());
            let Some(value) = environment(&variable).filter(|value| !value.is_empty()) else {
                continue;
            };
            let mut argument = OsString::from(format!("--{flag}="));
            argument.push(value);
            let parsed = parser
                .clone()
                .try_get_matches_from([argument])
                .and_then(|matches| <Layer as clap::FromArgMatches>::from_arg_matches(&matches));
            let one = parsed.map_err(|error| {
                let text = error.to_string();
                let said = text.lines().map(str::trim).filter(|line| !line.is_empty());
                let said: Vec<&str> = said
                    .take_while(|line| !line.starts_with("For more"))
                    .collect();
                let said = said.join(" ");
                format!(
                    "environment variable {variable}: {}",
                    said.trim_start_matches("error: ")
                )
            })?;
            merged = merged.join(one);
        }
        merged.check("in the environment")?;
        Ok(merged)
    }

    fn from_file(path: &std::path::Path) -> Result<Layer, String> {
        let named =
            |error: &dyn fmt::Display| format!("configuration file {}: {error}", path.display());
        let text = std::fs::read_to_string(path).map_err(|error| named(&error))?;
        Layer::from_text(&text).map_err(|error| named(&error))
    }

    fn from_text(text: &str) -> Result<Layer, String> {
        let layer: Layer = toml::from_str(text).map_err(|error| error.to_string())?;
        layer
            .check("in the file")
            .map_err(|error| match line_of(text, "data-dir") {
                Some(line) => format!("line {line}: {error}"),
                None => error,
            })?;
        Ok(layer)
    }

    /// Where the data lives is one choice, made in one layer.
    fn check(&self, layer: &str) -> Result<(), String> {
        match (&self.data_dir, self.ephemeral) {
            (Some(path), Some(true)) => Err(format!(
                "{layer} both ephemeral and data-dir ({}) are set; leave one out",
                path.display()
            )),
            _ => Ok(()),
        }
    }

    /// This layer, completed by one of lower rank. A layer that says where the data lives is not mixed with
    /// what a lower one says about it.
    fn over(self, lower: Layer) -> Layer {
        let decides_data = self.data_dir.is_some() || self.ephemeral.is_some();
        let lower = if decides_data {
            Layer {
                data_dir: None,
                ephemeral: None,
                ..lower
            }
        } else {
            lower
        };
        self.join(lower)
    }

    fn join(self, other: Layer) -> Layer {
        Layer {
            host: self.host.or(other.host),
            port: self.port.or(other.port),
            data_dir: self.data_dir.or(other.data_dir),
            ephemeral: self.ephemeral.or(other.ephemeral),
            durability: self.durability.or(other.durability),
            compression: self.compression.or(other.compression),
            limits: self.limits.or(other.limits),
            memory: self.memory.or(other.memory),
            streams: self.streams.or(other.streams),
            state_delay: self.state_delay.or(other.state_delay),
            error_probability: self.error_probability.or(other.error_probability),
            latency: self.latency.or(other.latency),
            region: self.region.or(other.region),
            account: self.account.or(other.account),
            allow_public: self.allow_public.or(other.allow_public),
            tls_cert: self.tls_cert.or(other.tls_cert),
            tls_key: self.tls_key.or(other.tls_key),
            log_format: self.log_format.or(other.log_format),
        }
    }

    /// Fills in the defaults.
    fn settle(self) -> Result<Settings, String> {
        let defaults = Config::default();
        let data = match (self.ephemeral, self.data_dir) {
            (Some(true), _) => DataLocation::Ephemeral,
            (_, Some(path)) => DataLocation::Directory(path),
            (_, None) => defaults.data,
        };
        let tls = match (self.tls_cert, self.tls_key) {
            (None, None) => defaults.tls,
            (Some(certificate), Some(key)) => TlsSource::Files { certificate, key },
            (Some(_), None) => return Err("tls-cert is set without tls-key; set both".to_owned()),
            (None, Some(_)) => return Err("tls-key is set without tls-cert; set both".to_owned()),
        };
        let compression = self.compression.map(|mode| mode.0);
        let log = LogConfig {
            compression: compression.unwrap_or(defaults.log.compression),
            ..defaults.log
        };
        let config = Config {
            host: self.host.unwrap_or(defaults.host),
            port: self.port.unwrap_or(defaults.port),
            data,
            durability: self.durability.map_or(defaults.durability, |mode| mode.0),
            limits: self.limits.map_or(defaults.limits, |mode| mode.0),
            error_probability: self.error_probability.unwrap_or(defaults.error_probability),
            latency: self.latency.unwrap_or(defaults.latency),
            state_delay_ms: self
                .state_delay
                .map_or(defaults.state_delay_ms, |delay| delay.0),
            account: self.account.unwrap_or(defaults.account),
            region: self.region.unwrap_or(defaults.region),
            streams: self.streams.map_or(defaults.streams, |list| list.0),
            allow_public: self.allow_public.unwrap_or(defaults.allow_public),
            tls,
            memory: self.memory.unwrap_or(defaults.memory),
            log,
        };
        Ok(Settings {
            config,
            log_format: self.log_format.unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests;
