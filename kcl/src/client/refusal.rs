//! What a request failed with, as an error that says what to do, and what may help: pure.

use crate::client::cbor;
use crate::client::dialect::encoding_of;
use crate::client::json::{ErrorAnswer, kind_of};
use crate::client::target::Target;
use crate::error::{Error, ErrorKind};
use millstream_wire::{Encoding, ErrorCode, Operation};
use serde::Deserialize;
use std::time::{SystemTime, UNIX_EPOCH};

/// A clock that differs by less is not what a signature was refused for: AWS allows five minutes.
const SKEW_MIN_MS: i64 = 240_000;

/// A failed request.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: Error,
    pub(super) remedy: Remedy,
}

/// What may let the same request succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Remedy {
    /// Nothing that this client can do.
    Never,
    /// Another attempt a little later.
    Wait,
    /// Fewer calls of the operation.
    Slower,
    /// Other credentials: these have expired.
    Credentials,
    /// A signature by the endpoint's clock, which is so many milliseconds ahead.
    Clock(i64),
    /// Another encoding: the endpoint does not seem to have understood.
    Encoding,
}

impl Failure {
    /// One that no repetition mends.
    pub(super) fn lasting(kind: ErrorKind, message: impl Into<String>) -> Self {
        Failure {
            error: Error::new(kind, message),
            remedy: Remedy::Never,
        }
    }
}

/// A request that was refused.
#[derive(Debug, Clone, Copy)]
pub(super) struct Refused<'a> {
    pub(super) operation: Operation,
    pub(super) status: u16,
    pub(super) body: &'a [u8],
    /// The encoding of the request, and its body.
    pub(super) request: (Encoding, &'a [u8]),
    /// How far the endpoint's clock is ahead of the one that signed, milliseconds.
    pub(super) clock_ahead_ms: Option<i64>,
}

/// The members of requests that name what they are about.
#[derive(Debug, Default, Deserialize)]
struct Subject<'a> {
    #[serde(rename = "StreamName")]
    name: Option<&'a str>,
    #[serde(rename = "StreamARN")]
    arn: Option<&'a str>,
}

impl Refused<'_> {
    /// The stream that the request names.
    fn stream(&self) -> Option<&str> {
        let subject: Subject<'_> = serde_json::from_slice(self.request.1).unwrap_or_default();
        subject.name.or(subject.arn)
    }

    /// The failure that it is at an endpoint. A throttled read or put is left to the caller, who knows how urgent the shard is.
    pub(super) fn failure(&self, target: &Target) -> Failure {
        let answer = error_answer(self.body);
        let (kind, remedy) = self.judge(&answer);
        let Target {
            endpoint, region, ..
        } = target;
        let (operation, status) = (self.operation, self.status);
        let stream = match self.stream() {
            Some(stream) => format!(" of stream {stream}"),
            None => String::new(),
        };
        let code = match bare(&answer.code) {
            "" => "no error code",
            code => code,
        };
        let message = match answer.message.as_str() {
            "" => String::new(),
            message => format!(": {message}"),
        };
        let hint = self.hint(kind, &answer, target);
        let text = format!(
            "{operation}{stream} was refused by {endpoint} (region {region}) with status {status}, {code}{message}{hint}"
        );
        Failure {
            error: Error::new(kind, text),
            remedy,
        }
    }

    fn judge(&self, answer: &ErrorAnswer) -> (ErrorKind, Remedy) {
        let skewed = self.clock_ahead_ms.filter(|ms| ms.abs() >= SKEW_MIN_MS);
        let misunderstood = self.request.0 == Encoding::Cbor
            && match ErrorCode::from_name(&answer.code) {
                Some(code) => {
                    matches!(code, ErrorCode::UnknownOperation | ErrorCode::Serialization)
                }
                None => answer.code.is_empty() && encoding_of(self.body) != Encoding::Cbor,
            };
        if misunderstood {
            let kind = match self.status {
                500.. | 429 => ErrorKind::Unavailable,
                _ => ErrorKind::Protocol,
            };
            return (kind, Remedy::Encoding);
        }
        let data = matches!(self.operation, Operation::GetRecords | Operation::PutRecord);
        match (bare(&answer.code), ErrorCode::from_name(&answer.code)) {
            ("ExpiredTokenException" | "ExpiredToken", _) => {
                (ErrorKind::AccessDenied, Remedy::Credentials)
            }
            (code, _) if is_about_time(code) => {
                let remedy = skewed.map_or(Remedy::Never, Remedy::Clock);
                (ErrorKind::AccessDenied, remedy)
            }
            (
                "ThrottlingException"
                | "Throttling"
                | "TooManyRequestsException"
                | "RequestLimitExceeded"
                | "KMSThrottlingException",
                _,
            ) if data => (ErrorKind::Throttled, Remedy::Never),
            (
                "ThrottlingException"
                | "Throttling"
                | "TooManyRequestsException"
                | "RequestLimitExceeded"
                | "KMSThrottlingException",
                _,
            ) => (ErrorKind::Unavailable, Remedy::Slower),
            (
                "UnrecognizedClientException"
                | "InvalidClientTokenId"
                | "AccessDenied"
                | "NotAuthorized"
                | "OptInRequired"
                | "SubscriptionRequiredException"
                | "KMSAccessDeniedException"
                | "KMSDisabledException"
                | "KMSInvalidStateException"
                | "KMSNotFoundException"
                | "KMSOptInRequired",
                _,
            ) => (ErrorKind::AccessDenied, Remedy::Never),
            (_, Some(code @ ErrorCode::ProvisionedThroughputExceeded)) => {
                (kind_of(code), Remedy::Never)
            }
            (_, Some(code @ ErrorCode::LimitExceeded)) if !data => (kind_of(code), Remedy::Slower),
            (_, Some(code)) if code.is_retryable() => (kind_of(code), Remedy::Wait),
            (_, Some(code)) => (kind_of(code), Remedy::Never),
            (_, None) if self.status == 429 => (ErrorKind::Unavailable, Remedy::Slower),
            (_, None) if self.status >= 500 => (ErrorKind::Unavailable, Remedy::Wait),
            (_, None) if self.status == 403 => (ErrorKind::AccessDenied, Remedy::Never),
            (_, None) => (ErrorKind::Protocol, Remedy::Never),
        }
    }

    /// What to do about it.
    fn hint(&self, kind: ErrorKind, answer: &ErrorAnswer, target: &Target) -> String {
        let code = bare(&answer.code);
        let skewed = self.clock_ahead_ms.filter(|ms| ms.abs() >= SKEW_MIN_MS);
        let skewed = skewed.filter(|_| is_about_time(code));
        let endpoint = &target.endpoint;
        match (kind, code) {
            (ErrorKind::AccessDenied, "ExpiredTokenException" | "ExpiredToken") => {
                "; the session token has expired: get new credentials".to_owned()
            }
            (ErrorKind::AccessDenied, "AccessDeniedException" | "AccessDenied") => {
                let arn = arn_of(self.stream(), &target.region);
                format!(
                    "; allow kinesis:{} on {arn} to these credentials",
                    self.operation
                )
            }
            (ErrorKind::AccessDenied, _) if skewed.is_some() => {
                let ms = skewed.unwrap_or_default();
                let side = if ms > 0 { "behind" } else { "ahead of" };
                let seconds = ms.unsigned_abs() / 1000;
                format!(
                    "; this machine's clock is {seconds} s {side} the endpoint's: set it, or let NTP do so"
                )
            }
            (ErrorKind::AccessDenied, "") => format!("; is {endpoint} an endpoint of Kinesis?"),
            (ErrorKind::AccessDenied, _) => format!(
                "; are access key {} and its secret for this endpoint and region?",
                target.credentials.access_key_id()
            ),
            (ErrorKind::Protocol, "" | "UnknownOperationException") => {
                format!("; is {endpoint} an endpoint of Kinesis?")
            }
            _ => String::new(),
        }
    }
}

/// Whether requests are refused so when the clock that signed them is wrong, among other reasons.
fn is_about_time(code: &str) -> bool {
    matches!(
        code,
        "InvalidSignatureException"
            | "RequestExpired"
            | "RequestTimeTooSkewed"
            | "SignatureDoesNotMatch"
    )
}

/// The code without its namespace, and without the URL that some gateways append.
fn bare(code: &str) -> &str {
    let code = code.rsplit_once('#').map_or(code, |(_, bare)| bare);
    code.split(':').next().unwrap_or_default()
}

/// The ARN for a policy, as far as it is known.
fn arn_of(stream: Option<&str>, region: &str) -> String {
    match stream {
        Some(arn) if arn.starts_with("arn:") => arn.to_owned(),
        Some(name) => format!("arn:aws:kinesis:{region}:*:stream/{name}"),
        None => "the stream".to_owned(),
    }
}

/// What a failure says, in whichever encoding.
pub(super) fn error_answer(body: &[u8]) -> ErrorAnswer {
    match encoding_of(body) {
        Encoding::Cbor => cbor::error_answer(body),
        Encoding::Json => serde_json::from_slice(body).unwrap_or_default(),
    }
}

/// How far an endpoint's clock is ahead of one that shows `time`, milliseconds.
pub(super) fn ahead_of(time: SystemTime, date_ms: u64) -> Option<i64> {
    let ours = time.duration_since(UNIX_EPOCH).ok()?.as_millis();
    let ours = i64::try_from(ours).ok()?;
    i64::try_from(date_ms).ok()?.checked_sub(ours)
}

/// An endpoint that gave no answer.
pub(super) fn unreached(target: &Target, operation: Operation, error: reqwest::Error) -> Failure {
    let Target {
        endpoint, region, ..
    } = target;
    let timed_out = error.is_timeout();
    let causes = causes(&error.without_url());
    let is = |what: &str| causes.iter().any(|cause| cause.contains(what));
    let deepest = causes.last().cloned().unwrap_or_default();
    let (kind, remedy, text) = if is("invalid peer certificate") {
        let text = format!(
            "the certificate of {endpoint} is not trusted: name a PEM file with its issuer in AWS_CA_BUNDLE (of Millstream: tls-certificate.pem in its data directory)"
        );
        (ErrorKind::Configuration, Remedy::Never, text)
    } else if is("received corrupt message") {
        let text = format!("{endpoint} does not speak TLS: should it begin with http://?");
        (ErrorKind::Configuration, Remedy::Never, text)
    } else if is("invalid HTTP") {
        let text = format!("{endpoint} does not speak HTTP: should it begin with https://?");
        (ErrorKind::Configuration, Remedy::Never, text)
    } else if timed_out {
        let text = format!("{endpoint} did not answer in time for {operation}");
        (ErrorKind::Unavailable, Remedy::Wait, text)
    } else if is("dns error") {
        let text = format!(
            "{endpoint} could not be reached for {operation}: there is no such host; is the endpoint right, and the region {region}?"
        );
        (ErrorKind::Unavailable, Remedy::Wait, text)
    } else {
        let text = format!("{endpoint} could not be reached for {operation}: is it running?");
        (ErrorKind::Unavailable, Remedy::Wait, text)
    };
    Failure {
        error: Error::with_source(kind, text, deepest),
        remedy,
    }
}

/// The texts of an error and its causes, outermost first: the innermost says "connection refused" rather than "error sending request".
pub(super) fn causes(error: &dyn std::error::Error) -> Vec<String> {
    let mut causes = vec![error.to_string()];
    let mut next = error.source();
    while let Some(error) = next {
        causes.push(error.to_string());
        next = error.source();
    }
    causes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: &str, clock_ahead_ms: Option<i64>) -> Failure {
        let body = format!(r#"{{"__type":"com.amazonaws#{code}","message":"because"}}"#);
        let request = br#"{"StreamName":"orders"}"#;
        let refused = Refused {
            operation: Operation::ListShards,
            status: 400,
            body: body.as_bytes(),
            request: (Encoding::Json, request),
            clock_ahead_ms,
        };
        let target = Target::resolve(Some("http://127.0.0.1:1"), None, "s", &|_| None).unwrap();
        refused.failure(&target)
    }

    type Case = (&'static str, Option<i64>, ErrorKind, Remedy, &'static str);

    /// Code, how far the endpoint's clock is ahead, what it is, what helps, and what the text says.
    fn table() -> Vec<Case> {
        use Remedy::{Clock, Credentials, Never, Slower, Wait};
        let (denied, unavailable) = (ErrorKind::AccessDenied, ErrorKind::Unavailable);
        vec![
            (
                "AccessDeniedException",
                None,
                denied,
                Never,
                "allow kinesis:ListShards on arn:aws:kinesis:us-east-1:*:stream/orders",
            ),
            (
                "UnrecognizedClientException",
                None,
                denied,
                Never,
                "access key millstream",
            ),
            (
                "ExpiredTokenException",
                None,
                denied,
                Credentials,
                "has expired",
            ),
            (
                "InvalidSignatureException",
                Some(1_200_000),
                denied,
                Clock(1_200_000),
                "1200 s behind",
            ),
            (
                "RequestExpired",
                Some(-900_000),
                denied,
                Clock(-900_000),
                "900 s ahead of",
            ),
            (
                "InvalidSignatureException",
                Some(5_000),
                denied,
                Never,
                "and its secret",
            ),
            ("ThrottlingException", None, unavailable, Slower, "because"),
            (
                "LimitExceededException",
                None,
                unavailable,
                Slower,
                "because",
            ),
            ("InternalFailure", None, unavailable, Wait, "because"),
            (
                "ResourceNotFoundException",
                None,
                ErrorKind::NotFound,
                Never,
                "of stream orders",
            ),
            (
                "UnknownOperationException",
                None,
                ErrorKind::Protocol,
                Never,
                "an endpoint of Kinesis?",
            ),
        ]
    }

    #[test]
    fn every_code_has_a_remedy_and_a_text_that_says_what_to_do() {
        for (code, ahead, kind, remedy, text) in table() {
            let failure = refused(code, ahead);
            assert_eq!(
                (failure.error.kind(), failure.remedy),
                (kind, remedy),
                "{code}"
            );
            assert!(
                failure.error.to_string().contains(text),
                "{}",
                failure.error
            );
        }
    }
}
