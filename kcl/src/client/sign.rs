//! AWS Signature Version 4 for one kind of request: a POST to `/` with a JSON body.

use crate::client::target::Target;
use crate::error::{Error, ErrorKind};
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use std::time::SystemTime;

/// The headers that sign `body` sent to `target` with `headers` at `time`.
pub(crate) fn signature(
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
        .name("kinesis")
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
    use std::time::Duration;

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
        let signed = signature(&target, &headers, b"{}", time).unwrap();
        let value = |name: &str| &signed.iter().find(|(key, _)| key == name).unwrap().1;
        assert_eq!(value("x-amz-date"), "20150830T123601Z");
        assert_eq!(value("authorization"), EXPECTED);
    }

    const EXPECTED: &str = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/kinesis/aws4_request, SignedHeaders=content-type;host;x-amz-date, Signature=aede2945419115673562bdc11391c4a38edfd8ebcc8b2a323b1bf73b7caa89aa";
}
