//! Precedence of the layers, and what each refuses.

use super::*;
use clap::Parser;
use std::collections::HashMap;
use std::num::NonZeroU32;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    flags: Flags,
}

fn resolve(
    line: &[&str],
    environment: &[(&str, &str)],
    file: Option<&str>,
) -> Result<Settings, String> {
    let directory = tempfile::tempdir().unwrap();
    let mut arguments = vec!["serve".to_owned()];
    arguments.extend(line.iter().map(|&text| text.to_owned()));
    if let Some(text) = file {
        let path = directory.path().join("millstream.toml");
        std::fs::write(&path, text).unwrap();
        arguments.extend(["--config".to_owned(), path.display().to_string()]);
    }
    let line = Line::try_parse_from(arguments).map_err(|error| error.to_string())?;
    let environment: HashMap<&str, &str> = environment.iter().copied().collect();
    Settings::resolve(&line.flags, &|name| {
        environment.get(name).map(OsString::from)
    })
    .map_err(|failure| failure.to_string())
}

fn port(line: &[&str], environment: &[(&str, &str)], file: Option<&str>) -> u16 {
    resolve(line, environment, file).unwrap().config.port
}

#[test]
fn a_flag_beats_the_environment_which_beats_the_file_which_beats_the_default() {
    let environment = [("MILLSTREAM_PORT", "2")];
    let file = Some("port = 3");
    assert_eq!(port(&["--port", "1"], &environment, file), 1);
    assert_eq!(port(&[], &environment, file), 2);
    assert_eq!(port(&[], &[], file), 3);
    assert_eq!(port(&[], &[], None), 4567);
    assert_eq!(
        port(&[], &[("MILLSTREAM_PORT", "")], None),
        4567,
        "an empty variable is not set"
    );
}

const EVERY_VARIABLE: [(&str, &str); 17] = [
    ("MILLSTREAM_HOST", "::1"),
    ("MILLSTREAM_PORT", "1"),
    ("MILLSTREAM_DATA_DIR", "/d"),
    ("MILLSTREAM_DURABILITY", "interval=20"),
    ("MILLSTREAM_COMPRESSION", "none"),
    ("MILLSTREAM_LIMITS", "off"),
    ("MILLSTREAM_MEMORY", "2GiB"),
    ("MILLSTREAM_STREAMS", "a:1,b:2"),
    ("MILLSTREAM_STATE_DELAY", "5"),
    ("MILLSTREAM_ERROR_PROBABILITY", "0.5"),
    ("MILLSTREAM_LATENCY", "5-10"),
    ("MILLSTREAM_REGION", "eu-west-1"),
    ("MILLSTREAM_ACCOUNT", "123456789012"),
    ("MILLSTREAM_ALLOW_PUBLIC", "true"),
    ("MILLSTREAM_TLS_CERT", "/c.pem"),
    ("MILLSTREAM_TLS_KEY", "/k.pem"),
    ("MILLSTREAM_LOG_FORMAT", "json"),
];

#[test]
fn every_source_reads_every_setting() {
    let line = "--host ::1 --port 1 --data-dir /d --durability interval=20 --compression none --limits off --memory 2GiB \
        --streams a:1,b:2 --state-delay 5 --error-probability 0.5 --latency 5-10 --region eu-west-1 --account 123456789012 \
        --allow-public --tls-cert /c.pem --tls-key /k.pem --log-format json";
    let file = r#"
        host = "::1"
        port = 1
        data-dir = "/d"
        durability = "interval=20"
        compression = "none"
        limits = "off"
        memory = "2GiB"
        streams = "a:1,b:2"
        state-delay = 5
        error-probability = 0.5
        latency = "5-10"
        region = "eu-west-1"
        account = "123456789012"
        allow-public = true
        tls-cert = "/c.pem"
        tls-key = "/k.pem"
        log-format = "json"
    "#;
    let words: Vec<&str> = line.split_whitespace().collect();
    let from_line = resolve(&words, &[], None).unwrap();
    let config = &from_line.config;
    assert_eq!(config.host, "::1".parse::<IpAddr>().unwrap());
    assert_eq!(config.data, DataLocation::Directory("/d".into()));
    assert_eq!(
        config.durability,
        Durability::Interval(Duration::from_millis(20))
    );
    assert_eq!(config.log.compression, Compression::None);
    assert_eq!(config.limits, Limits::Off);
    let streams: Vec<_> = config
        .streams
        .iter()
        .map(|s| (s.name.as_str(), s.shards.map(NonZeroU32::get)))
        .collect();
    assert_eq!(streams, [("a", Some(1)), ("b", Some(2))]);
    assert_eq!(config.latency, Latency::new(5, 10).unwrap());
    assert_eq!(config.error_probability, Probability::new(0.5).unwrap());
    assert_eq!((config.port, config.state_delay_ms), (1, 5));
    assert_eq!(config.region.as_str(), "eu-west-1");
    assert_eq!(config.account.as_str(), "123456789012");
    assert!(config.allow_public);
    let tls = TlsSource::Files {
        certificate: "/c.pem".into(),
        key: "/k.pem".into(),
    };
    assert_eq!(config.tls, tls);
    assert_eq!(from_line.log_format, LogFormat::Json);
    let expected = format!("{from_line:?}");
    assert_eq!(
        format!("{:?}", resolve(&[], &EVERY_VARIABLE, None).unwrap()),
        expected
    );
    assert_eq!(
        format!("{:?}", resolve(&[], &[], Some(file)).unwrap()),
        expected
    );
}

#[test]
fn a_certificate_comes_with_its_key() {
    let own = resolve(&[], &[], None).unwrap().config.tls;
    assert_eq!(own, TlsSource::SelfSigned);
    let refused = resolve(&["--tls-cert", "/c.pem"], &[], None).unwrap_err();
    assert_eq!(refused, "tls-cert is set without tls-key; set both");
    let refused = resolve(&[], &[("MILLSTREAM_TLS_KEY", "/k.pem")], None).unwrap_err();
    assert_eq!(refused, "tls-key is set without tls-cert; set both");
}

#[test]
fn where_the_data_lives_is_decided_by_the_highest_layer_that_says_anything() {
    let data = |line: &[&str], environment: &[(&str, &str)], file| {
        resolve(line, environment, file).unwrap().config.data
    };
    let directory = |path: &str| DataLocation::Directory(path.into());
    let ephemeral = [("MILLSTREAM_EPHEMERAL", "true")];
    assert_eq!(
        data(&["--data-dir", "/a"], &ephemeral, None),
        directory("/a")
    );
    assert_eq!(
        data(&[], &ephemeral, Some("data-dir = '/b'")),
        DataLocation::Ephemeral
    );
    assert_eq!(
        data(&["--ephemeral"], &[], Some("data-dir = '/b'")),
        DataLocation::Ephemeral
    );
    assert_eq!(
        data(&["--ephemeral=false"], &ephemeral, None),
        directory("./millstream-data")
    );
    let both = resolve(&["--ephemeral", "--data-dir", "/a"], &[], None).unwrap_err();
    assert!(both.contains("leave one out"), "{both}");
    let both = [
        ("MILLSTREAM_EPHEMERAL", "true"),
        ("MILLSTREAM_DATA_DIR", "/a"),
    ];
    assert!(
        resolve(&[], &both, None)
            .unwrap_err()
            .contains("in the environment")
    );
}

/// Asserts that the settings are refused with a text that has all these words.
#[track_caller]
fn refused(line: &[&str], environment: &[(&str, &str)], file: Option<&str>, words: &[&str]) {
    let text = resolve(line, environment, file).unwrap_err();
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
}

#[test]
fn refusals_name_the_source_the_value_and_what_is_expected() {
    refused(
        &["--durability", "sync"],
        &[],
        None,
        &["sync", "--durability", "interval=MS"],
    );
    refused(
        &["--durability", "interval=0"],
        &[],
        None,
        &["interval=0", "1 to 60000"],
    );
    refused(
        &["--compression", "gzip"],
        &[],
        None,
        &["gzip", "zstd or none"],
    );
    refused(&["--limits", "on"], &[], None, &["on", "aws or off"]);
    refused(&["--streams", "a"], &[], None, &["\"a\" lacks its shards"]);
    refused(&["--streams", "a:0"], &[], None, &["\"0\"", "1 or more"]);
    refused(&["--streams", "a:1,a:2"], &[], None, &["a is named twice"]);
    refused(
        &["--streams", "a b:1"],
        &[],
        None,
        &["\"a b\"", "stream name"],
    );
    refused(
        &["--state-delay", "600001"],
        &[],
        None,
        &["600001", "600000"],
    );
    refused(
        &["--error-probability", "1.5"],
        &[],
        None,
        &["1.5", "0.0 to 1.0"],
    );
    refused(&["--latency", "9-1"], &[], None, &["9-1", "MS-MS"]);
    refused(
        &[],
        &[("MILLSTREAM_PORT", "x")],
        None,
        &["MILLSTREAM_PORT", "'x'", "invalid digit"],
    );
    refused(
        &[],
        &[("MILLSTREAM_ALLOW_PUBLIC", "2")],
        None,
        &["MILLSTREAM_ALLOW_PUBLIC", "true"],
    );
    refused(
        &["--config", "/nowhere.toml"],
        &[],
        None,
        &["/nowhere.toml", "No such file"],
    );
}

#[test]
fn the_file_is_refused_with_line_and_reason() {
    refused(
        &[],
        &[],
        Some("port = 1\nstate-delay = 600001"),
        &["line 2", "600001", "600000"],
    );
    refused(
        &[],
        &[],
        Some("port = 1\nlatency = 10001"),
        &["line 2", "10001", "10000"],
    );
    refused(
        &[],
        &[],
        Some("ephemeral = true\n\ndata-dir = '/b'"),
        &["millstream.toml", "line 3", "leave one out"],
    );
    refused(
        &[],
        &[],
        Some("\nprot = 1"),
        &["millstream.toml", "line 2", "unknown field", "prot"],
    );
    refused(&[], &[], Some("account = '1'"), &["line 1", "12 digits"]);
}

#[test]
fn the_ready_line_says_where_and_how_data_is_kept() {
    let describe = |line: &[&str]| Settings::describe(&resolve(line, &[], None).unwrap().config);
    assert_eq!(describe(&[]), "data ./millstream-data, durability fsync");
    assert_eq!(
        describe(&["--durability", "interval=7"]),
        "data ./millstream-data, durability interval=7"
    );
    assert_eq!(
        describe(&["--ephemeral"]),
        "data in memory, durability none"
    );
}
