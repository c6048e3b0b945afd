//! Whether a request carries a signature, by whom and for which region. Any signature is accepted: this
//! checks that its parts are there, as the SDKs' errors for missing ones depend on it.

use hyper::header::{AUTHORIZATION, DATE, HeaderMap};
use millstream_wire::{AccountId, Region};
use std::borrow::Cow;

use crate::error::ApiError;

/// What a complete signature says of its maker.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Signer {
    /// The account: an access key id of 12 digits names one, as with other stand-ins.
    pub(super) account: Option<AccountId>,
    /// The region, if it names one that can be.
    pub(super) region: Option<Region>,
}

/// Who signed a request.
///
/// # Errors
/// The parts of a signature that are missing, in AWS's words.
pub(super) fn signer(headers: &HeaderMap, query: Option<&str>) -> Result<Signer, ApiError> {
    // Most requests are signed in a header, and have no query.
    let query = query.map(Query);
    let query = query.filter(|query| query.get("X-Amz-Algorithm").is_some());
    match (headers.get(AUTHORIZATION), query) {
        (Some(_), Some(_)) => Err(ApiError::two_signatures()),
        (None, None) => Err(ApiError::missing_token()),
        (Some(header), None) => {
            let dated = headers.contains_key("x-amz-date") || headers.contains_key(DATE);
            let credential = header_credential(header.as_bytes(), dated)?;
            Ok(Signer::of(&credential))
        }
        (None, Some(query)) => Ok(Signer::of(&query_credential(&query)?)),
    }
}

impl Signer {
    /// The one that a credential names: `ACCESS-KEY-ID/DATE/REGION/SERVICE/aws4_request`.
    fn of(credential: &str) -> Signer {
        let mut scope = credential.split('/');
        Signer {
            account: scope.next().and_then(|key_id| key_id.parse().ok()),
            region: scope.nth(1).and_then(|region| region.parse().ok()),
        }
    }
}

fn header_credential(header: &[u8], dated: bool) -> Result<Cow<'_, str>, ApiError> {
    const NAMES: [&str; 3] = ["Credential", "Signature", "SignedHeaders"];
    let mut values = [&b""[..]; NAMES.len()];
    // By bytes: a signature comes with every request, and both separators are ASCII.
    let parts = header.split(|byte| matches!(byte, b',' | b' '));
    for part in parts.skip(1) {
        let known = NAMES.iter().position(|name| {
            let value = part.strip_prefix(name.as_bytes());
            value.is_some_and(|value| value.starts_with(b"="))
        });
        // The last one counts where a part is given twice.
        if let Some(at) = known {
            values[at] = part.get(NAMES[at].len() + 1..).unwrap_or_default();
        }
    }
    if dated && values.iter().all(|value| !value.is_empty()) {
        return Ok(String::from_utf8_lossy(values[0]));
    }
    let missing = NAMES
        .into_iter()
        .zip(values)
        .filter(|(_, value)| value.is_empty());
    let missing: Vec<&str> = missing.map(|(name, _)| name).collect();
    let header = String::from_utf8_lossy(header);
    Err(ApiError::incomplete_header(&missing, !dated, &header))
}

fn query_credential(query: &Query<'_>) -> Result<String, ApiError> {
    let names = [
        "X-Amz-Algorithm",
        "X-Amz-Credential",
        "X-Amz-Signature",
        "X-Amz-SignedHeaders",
        "X-Amz-Date",
    ];
    let given = |name: &str| query.get(name).is_some_and(|value| !value.is_empty());
    let missing: Vec<&str> = names.into_iter().filter(|name| !given(name)).collect();
    match query.get("X-Amz-Credential") {
        Some(credential) if missing.is_empty() => Ok(credential),
        _ => Err(ApiError::incomplete_query(&missing)),
    }
}

struct Query<'q>(&'q str);

impl Query<'_> {
    /// A parameter's value, empty where it is named without one.
    fn get(&self, name: &str) -> Option<String> {
        self.0.split('&').find_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (percent_decoded(key) == name).then(|| percent_decoded(value))
        })
    }
}

/// The text with `%2F` and the like read; what is no escape is left as it is.
fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let escape = (*first == b'%')
            .then(|| tail.first_chunk::<2>())
            .flatten()
            .and_then(|digits| {
                let digits = str::from_utf8(digits)
                    .ok()
                    .filter(|text| !text.starts_with('+'))?;
                u8::from_str_radix(digits, 16).ok()
            });
        bytes.push(escape.unwrap_or(*first));
        rest = tail
            .get(if escape.is_some() { 2.. } else { 0.. })
            .unwrap_or_default();
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn with(authorization: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, authorization.parse().unwrap());
        headers.insert("x-amz-date", "20150101T000000Z".parse().unwrap());
        headers
    }

    fn of_region(region: &str) -> Signer {
        Signer {
            account: None,
            region: Some(region.parse().unwrap()),
        }
    }

    #[test]
    fn the_region_is_in_the_credential_scope() {
        let header = "AWS4-HMAC-SHA256 Credential=AKID/20150101/eu-west-1/kinesis/aws4_request, \
                      SignedHeaders=host;x-amz-date, Signature=abc";
        assert_eq!(signer(&with(header), None), Ok(of_region("eu-west-1")));
        let header = "AWS4-HMAC-SHA256 Credential=anything,SignedHeaders=host,Signature=abc";
        assert_eq!(signer(&with(header), None), Ok(Signer::default()));
        let header = "AWS4-HMAC-SHA256 Credential=123456789012/20150101/eu-west-1/kinesis/aws4_request, \
                      SignedHeaders=host, Signature=abc";
        let account = Some("123456789012".parse().unwrap());
        let signed = Signer {
            account,
            ..of_region("eu-west-1")
        };
        assert_eq!(signer(&with(header), None), Ok(signed));
        let query = "X-Amz-Algorithm=a&X-Amz-Credential=AKID%2F20150101%2Fus-west-2%2Fkinesis&\
                     X-Amz-Signature=b&X-Amz-SignedHeaders=c&X-Amz-Date=d";
        assert_eq!(
            signer(&HeaderMap::new(), Some(query)),
            Ok(of_region("us-west-2"))
        );
    }

    #[test]
    fn a_missing_part_is_named() {
        let message = |headers: &HeaderMap, query| signer(headers, query).unwrap_err().message;
        assert_eq!(
            message(&with("AWS4- Signature=b, Credential=a"), None),
            "Authorization header requires 'SignedHeaders' parameter. \
             Authorization=AWS4- Signature=b, Credential=a"
        );
        let mut undated = with("X");
        undated.remove("x-amz-date");
        assert_eq!(
            message(&undated, Some("X-Amz-Algorith")),
            "Authorization header requires 'Credential' parameter. \
             Authorization header requires 'Signature' parameter. \
             Authorization header requires 'SignedHeaders' parameter. \
             Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header. \
             Authorization=X"
        );
        assert_eq!(
            message(&HeaderMap::new(), Some("X-Amz-Algorithm&X-Amz-Date=d")),
            "AWS query-string parameters must include 'X-Amz-Algorithm'. \
             AWS query-string parameters must include 'X-Amz-Credential'. \
             AWS query-string parameters must include 'X-Amz-Signature'. \
             AWS query-string parameters must include 'X-Amz-SignedHeaders'. \
             Re-examine the query-string parameters."
        );
        assert_eq!(
            message(&with("X"), Some("X-Amz-Algorithm")),
            "Found both 'X-Amz-Algorithm' as a query-string param and 'Authorization' as HTTP header."
        );
        let query = "X-Amz-Credential=a&X-Amz-Signature=b&X-Amz-SignedHeaders=c&X-Amz-Date=d";
        assert_eq!(
            message(&HeaderMap::new(), Some(query)),
            "Missing Authentication Token"
        );
    }

    #[test]
    fn percent_escapes_are_read_and_broken_ones_left() {
        for (text, decoded) in [
            ("a%2Fb", "a/b"),
            ("%", "%"),
            ("%2", "%2"),
            ("%zz", "%zz"),
            ("%+1", "%+1"),
            ("%25", "%"),
        ] {
            assert_eq!(percent_decoded(text), decoded);
        }
    }

    proptest! {
        #[test]
        fn s9_no_header_or_query_panics(header in "[ -~]{0,60}", query in "[ -~é]{0,60}") {
            let _ = signer(&with(&header), Some(&query));
        }
    }
}
