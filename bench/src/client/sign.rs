//! What requests are authorized with: a signature of zeros, or a real one.

use crate::clock;
use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use std::io;

const FIXED: &str = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260101/us-east-1/kinesis/aws4_request, SignedHeaders=host;x-amz-date, Signature=0000000000000000000000000000000000000000000000000000000000000000";

/// Headers that name a key and prove nothing.
pub(super) fn fixed() -> Vec<(String, String)> {
    vec![
        ("x-amz-date".to_owned(), "20260101T000000Z".to_owned()),
        ("authorization".to_owned(), FIXED.to_owned()),
    ]
}

/// Headers that sign `body` for the documented example key in us-east-1, now.
pub(super) fn signed(
    host: &str,
    content_type: &str,
    body: &[u8],
) -> io::Result<Vec<(String, String)>> {
    let key = Credentials::new(
        "AKIDEXAMPLE",
        "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
        None,
        None,
        "example",
    );
    let identity = key.into();
    let parameters = v4::SigningParams::builder()
        .identity(&identity)
        .region("us-east-1")
        .name("kinesis")
        .time(clock::now())
        .settings(SigningSettings::default())
        .build()
        .map_err(io::Error::other)?
        .into();
    let url = format!("http://{host}/");
    let headers = [("content-type", content_type)];
    let body = SignableBody::Bytes(body);
    let request =
        SignableRequest::new("POST", &url, headers.into_iter(), body).map_err(io::Error::other)?;
    let (instructions, _) = sign(request, &parameters)
        .map_err(io::Error::other)?
        .into_parts();
    let headers = instructions.headers();
    Ok(headers
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a signature covers what a server needs to check it.
    #[test]
    fn host_type_and_time_are_signed() {
        let headers = signed("127.0.0.1:4567", "application/x-amz-json-1.1", b"{}").unwrap();
        let value = |name: &str| &headers.iter().find(|(key, _)| key == name).unwrap().1;
        assert!(value("authorization").contains("SignedHeaders=content-type;host;x-amz-date,"));
        assert_eq!(value("x-amz-date").len(), "20260101T000000Z".len());
    }
}
