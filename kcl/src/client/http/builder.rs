//! Settings and the environment in, a client out.

#[cfg(feature = "aws-config")]
mod aws;

use super::HttpClient;
use crate::client::credentials::Signer;
use crate::client::retry::RetryPolicy;
use crate::client::subscribe::Connections;
use crate::client::target::{Env, Target};
use crate::error::{Error, ErrorKind};
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use std::time::Duration;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A whole answer may take this many times as long as the endpoint may be silent: ten megabytes over a slow line.
const WHOLE_ANSWER: u32 = 10;
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// What `AWS_MAX_ATTEMPTS` may be.
const ATTEMPTS_MAX: u32 = 100;

/// Collects what an [`HttpClient`] is made with. What is not set comes from the environment, by the names that AWS's own tools use:
///
/// | variable | is |
/// |---|---|
/// | `AWS_ENDPOINT_URL_KINESIS`, `AWS_ENDPOINT_URL` | the endpoint; ignored if `AWS_IGNORE_CONFIGURED_ENDPOINT_URLS` is `true` |
/// | `AWS_REGION`, `AWS_DEFAULT_REGION` | the region |
/// | `AWS_USE_FIPS_ENDPOINT`, `AWS_USE_DUALSTACK_ENDPOINT` | `true`: that endpoint of AWS |
/// | `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN` | the credentials |
/// | `AWS_CA_BUNDLE` | a PEM file of certificates to trust beside those of the system |
/// | `AWS_MAX_ATTEMPTS` | how often a request is sent at most, 1 to 100; default 4 |
///
/// ```
/// use kcl::aws_credential_types::Credentials;
/// use kcl::client::HttpClient;
///
/// let keys = Credentials::new("AKIDEXAMPLE", "secret", None, None, "example");
/// let client = HttpClient::builder("arn:aws:kinesis:eu-west-1:123456789012:stream/orders")
///     .credentials_provider(keys)
///     .build()?;
/// # Ok::<(), kcl::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct HttpClientBuilder {
    endpoint: Option<String>,
    region: Option<String>,
    stream: String,
    request_timeout: Duration,
    provider: Option<SharedCredentialsProvider>,
}

impl HttpClient {
    /// A client for the endpoint of a stream, which is a name or an ARN.
    pub fn builder(stream: impl Into<String>) -> HttpClientBuilder {
        HttpClientBuilder {
            endpoint: None,
            region: None,
            stream: stream.into(),
            request_timeout: REQUEST_TIMEOUT,
            provider: None,
        }
    }

    #[cfg(test)]
    pub(crate) fn to_target(
        target: Target,
        request_timeout: Duration,
    ) -> Result<HttpClient, Error> {
        let http = connections(&target, request_timeout, &[])?;
        let subscriptions = Connections::new(target.is_loopback(), request_timeout, Vec::new());
        let signer = Signer::new(target, None);
        Ok(HttpClient::over(http, subscriptions, signer))
    }

    fn over(http: reqwest::Client, subscriptions: Connections, signer: Signer) -> HttpClient {
        HttpClient {
            http,
            subscriptions,
            signer,
            retry: RetryPolicy::default(),
            dialect: super::Dialect::default(),
            events: super::Dialect::default(),
            gates: super::Gates::default(),
            keys: super::SigningKeys::default(),
            clock_ahead_ms: super::AtomicI64::new(0),
        }
    }
}

impl HttpClientBuilder {
    /// The endpoint's URL, `http://127.0.0.1:4567`.
    #[must_use]
    pub fn endpoint(mut self, url: impl Into<String>) -> Self {
        self.endpoint = Some(url.into());
        self
    }

    /// The region that requests are signed for; of AWS, also where they go.
    #[must_use]
    pub fn region(mut self, region: impl Into<String>) -> Self {
        self.region = Some(region.into());
        self
    }

    /// How long the endpoint may be silent during a request; default 10 s.
    #[must_use]
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// Where credentials come from, instead of the environment. They are kept until five minutes before they expire and asked for by one
    /// request at a time; while they are valid no other request waits for it.
    #[must_use]
    pub fn credentials_provider(self, provider: impl ProvideCredentials + 'static) -> Self {
        self.shared_provider(Some(SharedCredentialsProvider::new(provider)))
    }

    pub(crate) fn shared_provider(mut self, provider: Option<SharedCredentialsProvider>) -> Self {
        self.provider = provider;
        self
    }

    /// The client. Nothing is sent yet.
    ///
    /// # Errors
    /// `Configuration`: a setting is missing or senseless, or the file of `AWS_CA_BUNDLE` is not readable or has no certificates.
    pub fn build(self) -> Result<HttpClient, Error> {
        self.build_with(&|name| std::env::var(name).ok())
    }

    pub(crate) fn build_with(self, env: Env<'_>) -> Result<HttpClient, Error> {
        let (endpoint, region) = (self.endpoint.as_deref(), self.region.as_deref());
        let target = match &self.provider {
            Some(_) => Target::place(endpoint, region, &self.stream, env)?.0,
            None => Target::resolve(endpoint, region, &self.stream, env)?,
        };
        let bundle = env("AWS_CA_BUNDLE").filter(|path| !path.is_empty());
        let certificates = bundle.as_deref().map(certificates).transpose()?;
        let certificates = certificates.unwrap_or_default();
        let http = connections(&target, self.request_timeout, &certificates)?;
        let is_loopback = target.is_loopback();
        let subscriptions = Connections::new(is_loopback, self.request_timeout, certificates);
        let signer = Signer::new(target, self.provider);
        let mut client = HttpClient::over(http, subscriptions, signer);
        if let Some(attempts) = env("AWS_MAX_ATTEMPTS").filter(|value| !value.is_empty()) {
            client.retry.attempts = attempts_of(&attempts)?;
        }
        Ok(client)
    }
}

fn attempts_of(text: &str) -> Result<u32, Error> {
    let attempts = text.parse().ok();
    attempts
        .filter(|attempts| (1..=ATTEMPTS_MAX).contains(attempts))
        .ok_or_else(|| {
            let message =
                format!("AWS_MAX_ATTEMPTS is {text:?}, expected a number from 1 to {ATTEMPTS_MAX}");
            Error::new(ErrorKind::Configuration, message)
        })
}

/// The HTTP side: time limits, no redirects, no retries of its own.
fn connections(
    target: &Target,
    request_timeout: Duration,
    certificates: &[reqwest::Certificate],
) -> Result<reqwest::Client, Error> {
    let mut builder = reqwest::Client::builder()
        .connect_timeout(CONNECT_TIMEOUT.min(request_timeout))
        .read_timeout(request_timeout)
        .timeout(request_timeout.saturating_mul(WHOLE_ANSWER))
        .pool_idle_timeout(IDLE_TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never());
    if target.is_loopback() {
        builder = builder.no_proxy();
    }
    if !certificates.is_empty() {
        builder = builder.tls_certs_merge(certificates.to_vec());
    }
    builder.build().map_err(|error| {
        let message = "no HTTP client can be made";
        Error::with_source(ErrorKind::Configuration, message, error)
    })
}

fn certificates(path: &str) -> Result<Vec<reqwest::Certificate>, Error> {
    let refused = |what: &str, error: Option<Box<dyn std::error::Error + Send + Sync>>| {
        let message = format!("AWS_CA_BUNDLE names {path:?}, {what}");
        match error {
            Some(error) => Error::with_source(ErrorKind::Configuration, message, error),
            None => Error::new(ErrorKind::Configuration, message),
        }
    };
    let text =
        std::fs::read(path).map_err(|error| refused("which cannot be read", Some(error.into())))?;
    let certificates = reqwest::Certificate::from_pem_bundle(&text)
        .map_err(|error| refused("which is no PEM file", Some(error.into())))?;
    if certificates.is_empty() {
        return Err(refused("which has no certificate in it", None));
    }
    Ok(certificates)
}
