//! AWS Signature Version 4 for one kind of request: a POST with a body. Two hashes and one HMAC each: the key that they are made with is derived
//! once a day, which the crate `aws-sigv4` does anew for each. That crate derives it, and signs what is not sent to `/`.

use crate::client::target::Target;
use crate::error::{Error, ErrorKind};
use crate::ops::rfc3339;
use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use sha2::{Digest, Sha256};
use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

const SERVICE: &str = "kinesis";
const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// The key of the day, kept for the requests that follow.
#[derive(Default)]
pub(crate) struct SigningKeys {
    /// One short lock around plain data; never held across an await.
    kept: Mutex<Option<Kept>>,
}

struct Kept {
    credentials: Credentials,
    region: String,
    day: String,
    key: Arc<[u8]>,
}

impl fmt::Debug for SigningKeys {
    /// Shows no key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKeys").finish_non_exhaustive()
    }
}

impl SigningKeys {
    /// The key for a target on the day that `time` is on.
    fn key(&self, target: &Target, day: &str, time: SystemTime) -> Arc<[u8]> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let secret = target.credentials.secret_access_key();
        let is_it = |kept: &&Kept| {
            kept.day == day
                && kept.region == target.region
                && kept.credentials.secret_access_key() == secret
        };
        if let Some(kept) = kept.as_ref().filter(is_it) {
            return Arc::clone(&kept.key);
        }
        let key = v4::generate_signing_key(secret, time, &target.region, SERVICE);
        let key = Arc::from(key.as_ref());
        *kept = Some(Kept {
            credentials: target.credentials.clone(),
            region: target.region.clone(),
            day: day.to_owned(),
            key: Arc::clone(&key),
        });
        key
    }

    /// The headers that sign `body` sent to `target` with `headers` at `time`. The names of `headers` are in lower case, their values without
    /// spaces.
    pub(crate) fn signature(
        &self,
        target: &Target,
        headers: &[(&str, &str)],
        body: &[u8],
        time: SystemTime,
    ) -> Result<Vec<(String, String)>, Error> {
        match host(target) {
            Some(host) => Ok(self.sign(target, &host, headers, body, time)),
            None => elsewhere(target, headers, body, time),
        }
    }

    fn sign(
        &self,
        target: &Target,
        host: &str,
        headers: &[(&str, &str)],
        body: &[u8],
        time: SystemTime,
    ) -> Vec<(String, String)> {
        let date = date_of(time);
        let day = date.get(..8).unwrap_or_default();
        let token = target.credentials.session_token();
        let mut signed: Vec<(&str, &str)> = headers.to_vec();
        signed.extend([("host", host), ("x-amz-date", &date)]);
        signed.extend(token.map(|token| ("x-amz-security-token", token)));
        signed.sort_unstable();
        let names: Vec<&str> = signed.iter().map(|(name, _)| *name).collect();
        let names = names.join(";");
        let mut request = "POST\n/\n\n".to_owned();
        for (name, value) in signed {
            request.extend([name, ":", value, "\n"]);
        }
        request.extend(["\n", names.as_str(), "\n", hash(body).as_str()]);
        let scope = format!("{day}/{}/{SERVICE}/aws4_request", target.region);
        let text = format!("{ALGORITHM}\n{date}\n{scope}\n{}", hash(request.as_bytes()));
        let key = self.key(target, day, time);
        let signature = v4::calculate_signature(key, text.as_bytes());
        let id = target.credentials.access_key_id();
        let authorization = format!(
            "{ALGORITHM} Credential={id}/{scope}, SignedHeaders={names}, Signature={signature}"
        );
        let token = token.map(|token| ("x-amz-security-token", token.to_owned()));
        [("x-amz-date", date), ("authorization", authorization)]
            .into_iter()
            .chain(token)
            .map(|(name, value)| (name.to_owned(), value))
            .collect()
    }
}

/// The host as its header has it, if nothing about the target needs more than that.
fn host(target: &Target) -> Option<String> {
    let url = &target.endpoint;
    let token = target.credentials.session_token().unwrap_or_default();
    let is_bare = url.path() == "/"
        && url.query().is_none()
        && url.username().is_empty()
        && url.password().is_none()
        && token.bytes().all(|byte| byte.is_ascii_graphic());
    let host = url.host_str().filter(|_| is_bare)?;
    Some(match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    })
}

/// `20150830T123601Z`
fn date_of(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut date = rfc3339(since.as_secs().saturating_mul(1000));
    date.retain(|character| !matches!(character, '-' | ':'));
    date
}

fn hash(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    let mut text = String::with_capacity(2 * digest.len());
    for byte in digest {
        // A string takes whatever is written to it.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// What `aws-sigv4` makes of it, which knows paths, queries and strange characters.
fn elsewhere(
    target: &Target,
    headers: &[(&str, &str)],
    body: &[u8],
    time: SystemTime,
) -> Result<Vec<(String, String)>, Error> {
    let failed = |error: Box<dyn std::error::Error + Send + Sync>| {
        Error::with_source(
            ErrorKind::Configuration,
            "a request cannot be signed",
            error,
        )
    };
    let identity = target.credentials.clone().into();
    let parameters = v4::SigningParams::builder()
        .identity(&identity)
        .region(&target.region)
        .name(SERVICE)
        .time(time)
        .settings(SigningSettings::default())
        .build()
        .map_err(|error| failed(error.into()))?
        .into();
    let request = SignableRequest::new(
        "POST",
        target.endpoint.as_str(),
        headers.iter().copied(),
        SignableBody::Bytes(body),
    )
    .map_err(|error| failed(error.into()))?;
    let (instructions, _) = sign(request, &parameters)
        .map_err(|error| failed(error.into()))?
        .into_parts();
    Ok(instructions
        .headers()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use proptest::prelude::*;
    use std::time::Duration;

    const HEADERS: [(&str, &str); 2] = [
        ("content-type", "application/x-amz-json-1.1"),
        ("x-amz-target", "Kinesis_20131202.GetRecords"),
    ];

    /// Goal: the signature is what AWS computes. Method: the canonical request and the key derivation were computed apart from
    /// this code, with Python's hmac and hashlib, for the same date, keys and body.
    #[test]
    fn signs_as_aws_does() {
        let env = |name: &str| match name {
            "AWS_ACCESS_KEY_ID" => Some("AKIDEXAMPLE".to_owned()),
            "AWS_SECRET_ACCESS_KEY" => Some("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_owned()),
            _ => None,
        };
        let target = Target::resolve(Some("http://127.0.0.1:4567"), None, "s", &env).unwrap();
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_440_938_161);
        let headers = [("content-type", "application/x-amz-json-1.1")];
        let keys = SigningKeys::default();
        for sign in [
            keys.signature(&target, &headers, b"{}", time),
            elsewhere(&target, &headers, b"{}", time),
        ] {
            let signed = sign.unwrap();
            let value = |name: &str| &signed.iter().find(|(key, _)| key == name).unwrap().1;
            assert_eq!(value("x-amz-date"), "20150830T123601Z");
            assert_eq!(value("authorization"), EXPECTED);
        }
    }

    const EXPECTED: &str = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/kinesis/aws4_request, SignedHeaders=content-type;host;x-amz-date, Signature=aede2945419115673562bdc11391c4a38edfd8ebcc8b2a323b1bf73b7caa89aa";

    prop_compose! {
        fn target()(
            scheme in prop::sample::select(vec!["http", "https"]),
            host in prop::sample::select(vec!["localhost", "127.0.0.1", "[::1]", "kinesis.eu-west-1.amazonaws.com", "Upper.example"]),
            port in prop::option::of(1..=u16::MAX),
            path in prop::sample::select(vec!["", "/", "/", "/", "/a b/../c", "/?x=1"]),
            region in prop::sample::select(vec!["us-east-1", "eu-west-1"]),
            secret in "[a-zA-Z0-9/+]{1,4}",
            token in prop::option::of("[a-zA-Z0-9/+= ]{0,100}"),
        ) -> Target {
            let port = port.map(|port| format!(":{port}")).unwrap_or_default();
            Target {
                endpoint: format!("{scheme}://{host}{port}{path}").parse().unwrap(),
                region: region.to_owned(),
                credentials: Credentials::new("AKIDEXAMPLE", secret, token, None, "test"),
            }
        }
    }

    proptest! {
        /// Goal: with kept keys every request is signed as `aws-sigv4` signs it. Method: many requests share the keys, whose secrets, regions and days
        /// come again and change.
        #[test]
        fn signs_as_the_crate_does(
            requests in prop::collection::vec(
                (target(), 0..4_000_000_000_000_u64, 0..3_u64, prop::collection::vec(any::<u8>(), 0..100)),
                1..12,
            ),
        ) {
            let keys = SigningKeys::default();
            for (target, ms, later, body) in requests {
                for day in [0, later] {
                    let time = UNIX_EPOCH + Duration::from_millis(ms) + Duration::from_hours(24 * day);
                    let mut ours = keys.signature(&target, &HEADERS, &body, time).unwrap();
                    let mut theirs = elsewhere(&target, &HEADERS, &body, time).unwrap();
                    ours.sort();
                    theirs.sort();
                    prop_assert_eq!(ours, theirs);
                }
            }
        }
    }

    /// Goal: the key is derived once for each secret, region and day. Method: one kept is the very same.
    #[test]
    fn a_key_is_kept_for_the_day() {
        let target = Target::resolve(Some("http://127.0.0.1:1"), None, "s", &|_| None).unwrap();
        let (keys, now) = (SigningKeys::default(), clock::wall());
        let key = |target: &Target, day: &str| keys.key(target, day, now);
        let first = key(&target, "20261130");
        assert!(Arc::ptr_eq(&first, &key(&target, "20261130")));
        assert!(!Arc::ptr_eq(&first, &key(&target, "20261201")));
        let elsewhere = Target {
            region: "eu-west-1".to_owned(),
            ..target.clone()
        };
        assert_ne!(first, key(&elsewhere, "20261130"));
        let other = Target {
            credentials: Credentials::new("millstream", "other", None, None, "test"),
            ..target
        };
        assert_ne!(first, key(&other, "20261130"));
        assert!(!format!("{keys:?}").contains("other"));
    }
}
