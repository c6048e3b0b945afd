//! Where requests go and who signs them: endpoint, region and credentials from the builder and the environment.

use crate::client::endpoint::{Variant, aws_endpoint};
use crate::error::{Error, ErrorKind};
use aws_credential_types::Credentials;

/// Reads an environment variable; a parameter so that tests need not change the process's environment.
pub(crate) type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// An endpoint with the region and credentials to sign for.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) endpoint: reqwest::Url,
    pub(crate) region: String,
    pub(crate) credentials: Credentials,
}

/// Access key and secret used for an endpoint of one's own when the environment has no credentials.
const PLACEHOLDER: &str = "millstream";

impl Target {
    /// Where requests go, and the credentials of the environment; an endpoint of one's own needs none.
    pub(crate) fn resolve(
        endpoint: Option<&str>,
        region: Option<&str>,
        stream: &str,
        env: Env<'_>,
    ) -> Result<Target, Error> {
        let (place, is_own) = Target::place(endpoint, region, stream, env)?;
        Ok(Target {
            credentials: credentials(&set(env), is_own)?,
            ..place
        })
    }

    /// The same with credentials that stand for none yet, and whether the endpoint is one's own.
    ///
    /// The endpoint: `endpoint`, else `AWS_ENDPOINT_URL_KINESIS`, else `AWS_ENDPOINT_URL` (both unless
    /// `AWS_IGNORE_CONFIGURED_ENDPOINT_URLS` is true), else AWS in the region: the ordinary one, or what `AWS_USE_FIPS_ENDPOINT` and
    /// `AWS_USE_DUALSTACK_ENDPOINT` ask for. The region: `region`, else the stream's ARN, else
    /// `AWS_REGION`, else `AWS_DEFAULT_REGION`; `us-east-1` for an endpoint of one's own.
    pub(crate) fn place(
        endpoint: Option<&str>,
        region: Option<&str>,
        stream: &str,
        env: Env<'_>,
    ) -> Result<(Target, bool), Error> {
        let set = set(env);
        let is_true =
            |name: &str| set(name).is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let ignore = is_true("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS");
        let configured = |name| if ignore { None } else { set(name) };
        let custom = endpoint
            .map(str::to_owned)
            .or_else(|| configured("AWS_ENDPOINT_URL_KINESIS"))
            .or_else(|| configured("AWS_ENDPOINT_URL"));
        let of_stream = region_of(stream);
        if let (Some(given), Some(of_stream), None) = (region, of_stream, &custom)
            && given != of_stream
        {
            return Err(refused(&format!(
                "the region is {given}, but the stream {stream} is in {of_stream}: leave the region out"
            )));
        }
        let region = region
            .or(of_stream)
            .map(str::to_owned)
            .or_else(|| set("AWS_REGION"))
            .or_else(|| set("AWS_DEFAULT_REGION"))
            .or_else(|| custom.is_some().then(|| "us-east-1".to_owned()))
            .ok_or_else(|| refused("no region: set AWS_REGION or call .region(\"...\")"))?;
        let is_own = custom.is_some();
        let url = match custom {
            Some(url) => url,
            None => aws_endpoint(
                &region,
                Variant {
                    fips: is_true("AWS_USE_FIPS_ENDPOINT"),
                    dual_stack: is_true("AWS_USE_DUALSTACK_ENDPOINT"),
                },
            )?,
        };
        let target = Target {
            endpoint: parse(&url)?,
            region,
            credentials: placeholder(),
        };
        Ok((target, is_own))
    }

    /// Whether the endpoint is on this machine; it is never reached through a proxy.
    pub(crate) fn is_loopback(&self) -> bool {
        match self.endpoint.host_str() {
            Some(host) => {
                let bare = host.trim_start_matches('[').trim_end_matches(']');
                bare == "localhost"
                    || bare
                        .parse::<std::net::IpAddr>()
                        .is_ok_and(|address| address.is_loopback())
            }
            None => false,
        }
    }
}

/// What a variable is set to, unless that is nothing.
fn set(env: Env<'_>) -> impl Fn(&str) -> Option<String> + '_ {
    move |name| env(name).filter(|value| !value.is_empty())
}

/// The region in a stream's ARN, in whatever partition: `arn:PARTITION:kinesis:REGION:ACCOUNT:stream/NAME`.
pub(super) fn region_of(stream: &str) -> Option<&str> {
    let region = stream.strip_prefix("arn:")?.split(':').nth(2)?;
    (!region.is_empty()).then_some(region)
}

fn placeholder() -> Credentials {
    Credentials::new(PLACEHOLDER, PLACEHOLDER, None, None, "placeholder")
}

fn credentials(
    set: &dyn Fn(&str) -> Option<String>,
    custom_endpoint: bool,
) -> Result<Credentials, Error> {
    match (set("AWS_ACCESS_KEY_ID"), set("AWS_SECRET_ACCESS_KEY")) {
        (Some(id), Some(secret)) => Ok(Credentials::new(
            id,
            secret,
            set("AWS_SESSION_TOKEN"),
            None,
            "environment",
        )),
        (None, None) if custom_endpoint => Ok(placeholder()),
        (None, None) => Err(refused(
            "no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or an endpoint of your own",
        )),
        (Some(_), None) => Err(refused(
            "AWS_ACCESS_KEY_ID is set, AWS_SECRET_ACCESS_KEY is not",
        )),
        (None, Some(_)) => Err(refused(
            "AWS_SECRET_ACCESS_KEY is set, AWS_ACCESS_KEY_ID is not",
        )),
    }
}

fn parse(url: &str) -> Result<reqwest::Url, Error> {
    let parsed = reqwest::Url::parse(url)
        .map_err(|error| refused(&format!("endpoint {url:?} is not a URL: {error}")))?;
    match (parsed.scheme(), parsed.host_str()) {
        ("http" | "https", Some(_)) => Ok(parsed),
        _ => Err(refused(&format!(
            "endpoint {url:?} must begin with http:// or https:// and name a host"
        ))),
    }
}

fn refused(message: &str) -> Error {
    Error::new(ErrorKind::Configuration, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(
        endpoint: Option<&str>,
        stream: &str,
        vars: &[(&str, &str)],
    ) -> Result<Target, Error> {
        let env = |name: &str| {
            vars.iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        };
        Target::resolve(endpoint, None, stream, &env)
    }

    const KEYS: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b")];

    #[test]
    fn the_endpoint_comes_from_the_builder_then_the_environment_then_the_region() {
        let both = [
            ("AWS_ENDPOINT_URL", "http://127.0.0.1:2"),
            ("AWS_ENDPOINT_URL_KINESIS", "http://127.0.0.1:1"),
        ];
        let url = |target: Result<Target, Error>| target.unwrap().endpoint.to_string();
        assert_eq!(
            url(resolve(Some("http://[::1]:3"), "s", &both)),
            "http://[::1]:3/"
        );
        assert_eq!(url(resolve(None, "s", &both)), "http://127.0.0.1:1/");
        assert_eq!(url(resolve(None, "s", &both[..1])), "http://127.0.0.1:2/");
        let mut aws = KEYS.to_vec();
        aws.extend(both);
        aws.push(("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true"));
        aws.push(("AWS_REGION", "eu-west-1"));
        assert_eq!(
            url(resolve(None, "s", &aws)),
            "https://kinesis.eu-west-1.amazonaws.com/"
        );
        for (arn, region) in [
            (
                "arn:aws:kinesis:ap-south-1:000000000000:stream/s",
                "ap-south-1",
            ),
            (
                "arn:aws-cn:kinesis:cn-north-1:000000000000:stream/s",
                "cn-north-1",
            ),
        ] {
            assert_eq!(resolve(None, arn, &aws).unwrap().region, region);
            let env = |_: &str| None;
            let other = Target::place(None, Some("eu-west-1"), arn, &env).unwrap_err();
            assert!(other.to_string().contains(region), "{other}");
        }
        aws.push(("AWS_USE_FIPS_ENDPOINT", "true"));
        assert_eq!(
            url(resolve(None, "s", &aws)),
            "https://kinesis-fips.eu-west-1.amazonaws.com/"
        );
    }

    #[test]
    fn placeholder_credentials_are_for_endpoints_of_ones_own_only() {
        let own = resolve(Some("http://localhost:4567"), "s", &[]).unwrap();
        assert_eq!(own.credentials.access_key_id(), "millstream");
        assert_eq!(own.region, "us-east-1");
        assert!(own.is_loopback());
        let aws = resolve(None, "s", &[("AWS_REGION", "us-east-1")]).unwrap_err();
        assert_eq!(aws.kind(), ErrorKind::Configuration);
        let half = resolve(Some("http://localhost:1"), "s", &KEYS[..1]).unwrap_err();
        assert!(half.to_string().contains("AWS_SECRET_ACCESS_KEY"), "{half}");
    }

    #[test]
    fn refuses_what_is_no_endpoint() {
        for url in ["localhost:4567", "ftp://x", "", "http://"] {
            let error = resolve(Some(url), "s", &[]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Configuration, "{url:?}: {error}");
        }
    }
}
