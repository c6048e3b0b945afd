//! What is checked before what, over every combination of method, target, content type, body, signature and
//! origin. The expectation is written down as AWS's order, not taken from the server.
//!
//! Source: the connection tests of kinesalite 3.3.3, which were compared with AWS.

use crate::raw::{CBOR, Connection, JSON, NO_STREAMS, Reply, start};

const DENIED: &str = "<AccessDeniedException>\n  <Message>Unable to determine service/operation name to be \
                      authorized</Message>\n</AccessDeniedException>\n";
const PLAIN: &str = "application/json";

const METHODS: [&str; 5] = ["OPTIONS", "GET", "PUT", "DELETE", "POST"];
const QUERIES: [&str; 4] = [
    "/whatever",
    "/?X-Amz-Algorith",
    "/?X-Amz-Algorithm",
    "/a/b?X-Amz-Algorithm=a&X-Amz-Credential=b%2Fc&X-Amz-Signature=d&X-Amz-SignedHeaders=e&X-Amz-Date=f",
];
const AUTHORIZATIONS: [&str; 4] = [
    "",
    "a",
    "AWS4- Signature=b,Credential=a",
    "AWS4-HMAC-SHA256 Credential=A/d/eu-west-1/kinesis/aws4_request, SignedHeaders=host, Signature=b",
];
const KINDS: [&str; 7] = [
    "",
    "application/x-amz-json-1.0",
    "application/x-amz-json-1.1asdf",
    JSON,
    "   application/x-amz-json-1.1   ; charset=utf-8",
    PLAIN,
    CBOR,
];
const TARGETS: [&str; 7] = [
    "",
    "whatever",
    "Kinesis_20131202.",
    "Kinesis_20131202.whatever",
    "Kinesis_20131202.ListStream",
    "whatever.ListStreams",
    "Kinesis_20131202.ListStreams",
];
/// Nothing, four that are no structure in either encoding, an object, a map.
const BODIES: [&[u8]; 7] = [b"", b"hello", b"true", b"null", b"[]", b"{}", b"\xbf\xff"];

#[derive(Debug, Clone, Copy)]
struct Asked {
    method: &'static str,
    path: &'static str,
    authorization: &'static str,
    dated: bool,
    kind: &'static str,
    target: &'static str,
    body: &'static [u8],
    origin: bool,
}

/// What AWS answers: status, content type, body.
type Expected = (u16, Option<&'static str>, Vec<u8>);

impl Asked {
    fn bytes(&self) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\nHost: x\r\n", self.method, self.path);
        let mut add = |name: &str, value: &str| {
            if !value.is_empty() {
                head.push_str(&format!("{name}: {value}\r\n"));
            }
        };
        add("Content-Type", self.kind);
        add("X-Amz-Target", self.target);
        add("Authorization", self.authorization);
        add(
            "X-Amz-Date",
            if self.dated { "20150101T000000Z" } else { "" },
        );
        add("Origin", if self.origin { "whatever" } else { "" });
        head.push_str(&format!("Content-Length: {}\r\n\r\n", self.body.len()));
        [head.as_bytes(), self.body].concat()
    }

    fn kind(&self) -> &'static str {
        self.kind.split(';').next().unwrap_or_default().trim()
    }

    fn expected(&self) -> Expected {
        if self.method == "OPTIONS" && self.origin {
            return (200, None, Vec::new());
        }
        if self.method != "POST" {
            return (403, None, DENIED.into());
        }
        let known = self.target == "Kinesis_20131202.ListStreams";
        if self.body.is_empty() {
            let code = if known {
                "SerializationException"
            } else {
                "UnknownOperationException"
            };
            let kind = if self.kind() == JSON { JSON } else { CBOR };
            return (400, Some(kind), error(kind, code, None));
        }
        let named = self.target.contains('.') && !self.target.ends_with('.');
        if ![JSON, CBOR, PLAIN].contains(&self.kind()) {
            return match named {
                true => (404, None, b"<UnknownOperationException/>\n".to_vec()),
                false => (403, None, DENIED.into()),
            };
        }
        self.of_a_known_kind(known)
    }

    fn of_a_known_kind(&self, known: bool) -> Expected {
        let kind = self.kind();
        let is_structure = self.body == if kind == CBOR { b"\xbf\xff" } else { b"{}" };
        if kind == PLAIN {
            let (status, code) = match is_structure {
                true => (404, "UnknownOperationException"),
                false => (400, "SerializationException"),
            };
            let body = format!(
                r#"{{"Output":{{"__type":"com.amazon.coral.service#{code}"}},"Version":"1.0"}}"#
            );
            return (status, Some(PLAIN), body.into());
        }
        let refused = |code, text| (400, Some(kind), error(kind, code, text));
        if !is_structure {
            return refused("SerializationException", None);
        }
        if !known {
            return refused("UnknownOperationException", None);
        }
        match self.signature() {
            Err((code, text)) => refused(code, Some(&text)),
            Ok(()) if kind == JSON => (200, Some(kind), NO_STREAMS.into()),
            Ok(()) => {
                let empty = b"\xbf\x6bStreamNames\x9f\xff\x6eHasMoreStreams\xf4\x6fStreamSummaries\x9f\xff\xff";
                (200, Some(kind), empty.to_vec())
            }
        }
    }

    fn signature(&self) -> Result<(), (&'static str, String)> {
        let in_query = self.path.contains("X-Amz-Algorithm");
        if in_query && !self.authorization.is_empty() {
            let text = "Found both 'X-Amz-Algorithm' as a query-string param and 'Authorization' as HTTP header.";
            return Err(("InvalidSignatureException", text.to_owned()));
        }
        let mut text = String::new();
        if in_query {
            if self.path.contains('=') {
                return Ok(());
            }
            for name in [
                "Algorithm",
                "Credential",
                "Signature",
                "SignedHeaders",
                "Date",
            ] {
                text += &format!("AWS query-string parameters must include 'X-Amz-{name}'. ");
            }
            return Err((
                "IncompleteSignatureException",
                text + "Re-examine the query-string parameters.",
            ));
        }
        if self.authorization.is_empty() {
            let text = "Missing Authentication Token".to_owned();
            return Err(("MissingAuthenticationTokenException", text));
        }
        for name in ["Credential", "Signature", "SignedHeaders"] {
            if !self.authorization.contains(&format!("{name}=")) {
                text += &format!("Authorization header requires '{name}' parameter. ");
            }
        }
        if !self.dated {
            text += "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header. ";
        }
        match text.is_empty() {
            true => Ok(()),
            false => Err((
                "IncompleteSignatureException",
                text + "Authorization=" + self.authorization,
            )),
        }
    }

    #[track_caller]
    fn assert(&self, reply: &Reply) {
        let (status, kind, body) = self.expected();
        let found = (reply.status, reply.header("content-type"), reply.text());
        let expected = (status, kind, String::from_utf8_lossy(&body).into_owned());
        assert_eq!(found, expected, "{self:?}");
        assert_eq!(reply.body, body, "{self:?}");
        self.assert_headers(reply, kind.is_some());
    }

    /// That there are these headers and no others.
    #[track_caller]
    fn assert_headers(&self, reply: &Reply, typed: bool) {
        let preflight = self.method == "OPTIONS" && self.origin;
        let mut names = vec!["content-length", "date", "x-amzn-requestid"];
        if typed {
            names.push("content-type");
        }
        if self.origin {
            names.push("access-control-allow-origin");
            names.push(if preflight {
                "access-control-max-age"
            } else {
                "access-control-expose-headers"
            });
            assert_eq!(reply.header("access-control-allow-origin"), Some("*"));
        }
        if !preflight {
            names.push("x-amz-id-2");
        }
        names.sort_unstable();
        let mut found: Vec<_> = reply
            .headers
            .iter()
            .map(|(name, _)| name.to_lowercase())
            .collect();
        found.sort_unstable();
        assert_eq!(found, names, "{self:?}");
        assert_eq!(
            reply.header("content-length"),
            Some(reply.body.len().to_string().as_str())
        );
        assert_ids(reply);
    }
}

/// The ids: a UUID, and Base64 of 72 bytes.
#[track_caller]
fn assert_ids(reply: &Reply) {
    let id = reply.header("x-amzn-requestid").expect("a request id");
    let groups: Vec<usize> = id.split('-').map(str::len).collect();
    let is_hex = |c: char| c == '-' || c.is_ascii_digit() || ('a'..='f').contains(&c);
    assert!(groups == [8, 4, 4, 4, 12] && id.chars().all(is_hex), "{id}");
    if let Some(id) = reply.header("x-amz-id-2") {
        let is_base64 = |c: char| c.is_ascii_alphanumeric() || c == '+' || c == '/';
        assert!(id.len() == 96 && id.chars().all(is_base64), "{id}");
    }
}

/// AWS's envelope, byte for byte.
fn error(kind: &str, code: &str, text: Option<&str>) -> Vec<u8> {
    if kind == JSON {
        let text = text.map_or_else(String::new, |text| format!(r#","message":"{text}""#));
        return format!(r#"{{"__type":"{code}"{text}}}"#).into();
    }
    let mut bytes = vec![0xbf];
    let members = [("__type", Some(code)), ("message", text)];
    let given = members
        .into_iter()
        .filter_map(|(name, text)| Some((name, text?)));
    for text in given.flat_map(|(name, text)| [name, text]) {
        match text.len() {
            len @ ..24 => bytes.push(0x60 | u8::try_from(len).unwrap()),
            len @ ..256 => bytes.extend([0x78, u8::try_from(len).unwrap()]),
            len => {
                bytes.push(0x79);
                bytes.extend(u16::try_from(len).unwrap().to_be_bytes());
            }
        }
        bytes.extend(text.as_bytes());
    }
    bytes.push(0xff);
    bytes
}

fn every_combination() -> Vec<Asked> {
    let mut all = Vec::new();
    for method in METHODS {
        for (path, authorization) in QUERIES
            .iter()
            .flat_map(|path| AUTHORIZATIONS.map(|a| (path, a)))
        {
            for (kind, target) in KINDS
                .iter()
                .flat_map(|kind| TARGETS.map(|target| (kind, target)))
            {
                for (body, origin) in BODIES.iter().flat_map(|body| [(body, false), (body, true)]) {
                    // The rest says nothing new of a request that is not looked into.
                    if method != "POST" && (body.len() > 2 || kind != &JSON) {
                        continue;
                    }
                    for dated in [true, false] {
                        all.push(Asked {
                            method,
                            path,
                            authorization,
                            dated,
                            kind,
                            target,
                            body,
                            origin,
                        });
                    }
                }
            }
        }
    }
    all
}

/// Every combination, in pipelines over a few connections that are kept.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_check_that_fails_decides_the_answer() {
    let server = start().await;
    let asked = every_combination();
    println!("{} requests", asked.len());
    assert!(asked.len() > 20_000);
    let mut connection = Connection::open(server.local_addr()).await;
    for pipeline in asked.chunks(64) {
        let bytes: Vec<u8> = pipeline.iter().flat_map(Asked::bytes).collect();
        connection.send(bytes).await;
        for asked in pipeline {
            asked.assert(&connection.reply().await);
        }
    }
    server.shutdown().await;
}

/// What the combinations leave out: the asked headers of a preflight, the exposed ones, no body in an answer to
/// `HEAD`.
#[tokio::test]
async fn browsers_and_questions_without_a_body_are_answered_as_aws_answers() {
    let server = start().await;
    let mut connection = Connection::open(server.local_addr()).await;
    let preflight = "OPTIONS / HTTP/1.1\r\nHost: x\r\nOrigin: o\r\nAccess-Control-Request-Headers: a, b, c\r\n\
                     Access-Control-Request-Method: d\r\n\r\n";
    connection.send(preflight).await;
    let reply = connection.reply().await;
    reply.assert(200, "");
    assert_eq!(
        reply.header("access-control-allow-headers"),
        Some("a, b, c")
    );
    assert_eq!(reply.header("access-control-allow-methods"), Some("d"));
    assert_eq!(reply.header("access-control-max-age"), Some("172800"));
    connection
        .send("POST / HTTP/1.1\r\nHost: x\r\nOrigin: o\r\nContent-Length: 0\r\n\r\n")
        .await;
    let exposed =
        "x-amzn-RequestId,x-amzn-ErrorType,x-amz-request-id,x-amz-id-2,x-amzn-ErrorMessage,Date";
    let reply = connection.reply().await;
    assert_eq!(reply.header("access-control-expose-headers"), Some(exposed));

    connection.send("HEAD / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let head = connection.head().await.unwrap();
    assert_eq!((head.status, head.header("content-type")), (403, None));
    assert_eq!(
        head.header("content-length"),
        Some(DENIED.len().to_string().as_str())
    );
    connection
        .send("GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .await;
    connection.reply().await.assert(200, r#"{"status":"ok"}"#);
    connection.assert_closed().await;
    server.shutdown().await;
}

/// Other forms of a signature, and a date in another header.
#[tokio::test]
async fn odd_signatures_are_answered_in_the_words_of_aws() {
    let server = start().await;
    let mut connection = Connection::open(server.local_addr()).await;
    let call = "Content-Type: application/x-amz-json-1.1\r\nX-Amz-Target: Kinesis_20131202.ListStreams\r\n\
                Content-Length: 2\r\n";
    for (authorization, text) in [
        (
            "AWS4- Signature=b Credential=a",
            "Authorization header requires 'SignedHeaders' parameter. Authorization=AWS4- Signature=b Credential=a",
        ),
        (
            "AWS4- Signature=b, Credential=a",
            "Authorization header requires 'SignedHeaders' parameter. Authorization=AWS4- Signature=b, Credential=a",
        ),
        (
            "AWS4- Signature=b, Credential=, SignedHeaders=c",
            "Authorization header requires 'Credential' parameter. \
             Authorization=AWS4- Signature=b, Credential=, SignedHeaders=c",
        ),
    ] {
        let head = format!(
            "POST / HTTP/1.1\r\nHost: x\r\n{call}Date: a\r\nAuthorization: {authorization}\r\n\r\n{{}}"
        );
        connection.send(head).await;
        let body = error(JSON, "IncompleteSignatureException", Some(text));
        connection
            .reply()
            .await
            .assert(400, &String::from_utf8(body).unwrap());
    }
    let signed = "Authorization: AWS4- Signature=b, Credential=a, SignedHeaders=c\r\n";
    connection
        .send(format!(
            "POST / HTTP/1.1\r\nHost: x\r\n{call}Date: a\r\n{signed}\r\n{{}}"
        ))
        .await;
    connection.reply().await.assert(200, NO_STREAMS);
    let query = "/?X-Amz-Algorithm=a&X-Amz-Credential=b&X-Amz-Signature=c&X-Amz-Date=d";
    connection
        .send(format!(
            "POST {query} HTTP/1.1\r\nHost: x\r\n{call}\r\n{{}}"
        ))
        .await;
    let text = "AWS query-string parameters must include 'X-Amz-SignedHeaders'. Re-examine the query-string \
                parameters.";
    let body = error(JSON, "IncompleteSignatureException", Some(text));
    connection
        .reply()
        .await
        .assert(400, &String::from_utf8(body).unwrap());
    server.shutdown().await;
}
