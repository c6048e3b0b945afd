//! The client against a listener that answers with canned bytes: what is sent, what is made of answers, when requests are repeated.

use super::*;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A listener that gives one answer after the other, the last one for ever, and keeps the requests.
pub(super) struct Canned {
    pub(super) url: String,
    requests: Arc<Mutex<Vec<String>>>,
}

pub(super) fn answer(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nDate: Tue, 14 Nov 2023 22:13:20 GMT\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

pub(super) async fn read_request(socket: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        let mut chunk = [0; 4096];
        let count = socket
            .read(&mut chunk)
            .await
            .ok()
            .filter(|count| *count > 0)?;
        bytes.extend_from_slice(&chunk[..count]);
        let text = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        if length.is_none_or(|length| length.trim().parse::<usize>().unwrap() <= body.len()) {
            return Some(String::from_utf8_lossy(&bytes).into_owned());
        }
    }
}

pub(super) async fn serve(answers: Vec<String>) -> Canned {
    serve_bytes(answers.into_iter().map(String::into_bytes).collect()).await
}

async fn serve_bytes(answers: Vec<Vec<u8>>) -> Canned {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let requests = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&requests);
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            while let Some(request) = read_request(&mut socket).await {
                let number = {
                    let mut kept = kept.lock().unwrap();
                    kept.push(request);
                    kept.len() - 1
                };
                let reply = &answers[number.min(answers.len() - 1)];
                if reply.is_empty() || socket.write_all(reply).await.is_err() {
                    break;
                }
            }
        }
    });
    Canned { url, requests }
}

fn client(url: &str) -> HttpClient {
    let target = Target::resolve(Some(url), None, "orders", &|_| None).unwrap();
    let mut client = HttpClient::to_target(target, Duration::from_millis(400)).unwrap();
    client.retry.first_pause = Duration::from_millis(1);
    client
}

pub(super) const SUMMARY: &str = r#"{"StreamDescriptionSummary":{"StreamARN":"arn:x","StreamName":"orders",
    "StreamStatus":"ACTIVE","StreamCreationTimestamp":1.7E9,"OpenShardCount":1,"Later":{}}}"#;

#[tokio::test]
async fn sends_signed_json_and_reads_the_servers_clock() {
    let canned = serve(vec![answer("200 OK", SUMMARY)]).await;
    let summary = client(&canned.url).describe_stream("orders").await.unwrap();
    assert_eq!(summary.identity(), "arn:x@1700000000000");
    assert_eq!(summary.server_time_ms, 1_700_000_000_000);
    let requests = canned.requests.lock().unwrap();
    let request = requests[0].to_ascii_lowercase();
    for part in [
        "post / http/1.1",
        "x-amz-target: kinesis_20131202.describestreamsummary",
        "content-type: application/x-amz-json-1.1",
        "authorization: aws4-hmac-sha256 credential=millstream/",
        r#"{"streamname":"orders"}"#,
    ] {
        assert!(request.contains(part), "{part} is not in {request}");
    }
}

#[tokio::test]
async fn lists_all_pages() {
    let page = |id: &str, more: &str| {
        let range = r#""HashKeyRange":{"StartingHashKey":"0","EndingHashKey":"9"}"#;
        let sequence = r#""SequenceNumberRange":{"StartingSequenceNumber":"1"}"#;
        answer(
            "200 OK",
            &format!(r#"{{"Shards":[{{"ShardId":"{id}",{range},{sequence}}}]{more}}}"#),
        )
    };
    let canned = serve(vec![page("a", r#","NextToken":"t""#), page("b", "")]).await;
    let shards = client(&canned.url).list_shards("orders").await.unwrap();
    let ids: Vec<_> = shards.iter().map(|shard| shard.shard_id.as_str()).collect();
    assert_eq!(ids, ["a", "b"]);
    assert!(!shards[0].closed);
    assert!(canned.requests.lock().unwrap()[1].ends_with(r#"{"NextToken":"t"}"#));
}

/// Goal: a record is put as the API expects it, byte for byte.
#[tokio::test]
async fn puts_a_record_to_a_stream_by_name_or_arn() {
    let put =
        r#"{"ShardId":"shardId-000000000001","SequenceNumber":"123","EncryptionType":"NONE"}"#;
    let canned = serve(vec![answer("200 OK", put)]).await;
    let client = client(&canned.url);
    let data = Bytes::from_static(b"\x00hello\xff");
    let mut record = PutRecord {
        stream: "orders-dead",
        partition_key: "k \"1\"",
        explicit_hash_key: None,
        data: &data,
    };
    let number = client.put_record(record).await.unwrap();
    assert_eq!(number.to_string(), "123");
    record.stream = "arn:aws:kinesis:us-east-1:000000000000:stream/orders-dead";
    record.explicit_hash_key = Some(millstream_wire::HashKey::MAX);
    client.put_record(record).await.unwrap();
    let requests = canned.requests.lock().unwrap();
    let head = requests[0].to_ascii_lowercase();
    assert!(
        head.contains("x-amz-target: kinesis_20131202.putrecord\r\n"),
        "{head}"
    );
    let body = |index: usize| requests[index].split_once("\r\n\r\n").unwrap().1;
    assert_eq!(
        body(0),
        r#"{"StreamName":"orders-dead","PartitionKey":"k \"1\"","Data":"AGhlbGxv/w=="}"#
    );
    assert_eq!(
        body(1),
        r#"{"StreamARN":"arn:aws:kinesis:us-east-1:000000000000:stream/orders-dead","PartitionKey":"k \"1\"","ExplicitHashKey":"340282366920938463463374607431768211455","Data":"AGhlbGxv/w=="}"#
    );
}

/// Each case: answers, how it ends (`None`: well), and how many requests are sent.
#[tokio::test]
async fn repeats_what_may_succeed_and_nothing_else() {
    let refuse = |status: &str, code: &str| {
        answer(
            status,
            &format!(r#"{{"__type":"com.amazonaws#{code}","message":"because"}}"#),
        )
    };
    let good = || answer("200 OK", SUMMARY);
    let cases = vec![
        (vec![answer("500 X", "<html>"), good()], None, 2),
        (
            vec![refuse("400 X", "LimitExceededException"), good()],
            None,
            2,
        ),
        (vec![refuse("503 X", "Unheard-of"), good()], None, 2),
        (vec![String::new(), good()], None, 2),
        (
            vec![refuse("500 X", "InternalFailure")],
            Some(ErrorKind::Unavailable),
            4,
        ),
        (
            vec![refuse("400 X", "ResourceNotFoundException")],
            Some(ErrorKind::NotFound),
            1,
        ),
        (
            vec![refuse("400 X", "ExpiredIteratorException")],
            Some(ErrorKind::Expired),
            1,
        ),
        (
            vec![refuse("400 X", "ProvisionedThroughputExceededException")],
            Some(ErrorKind::Throttled),
            1,
        ),
        (
            vec![refuse("403 X", "UnrecognizedClientException")],
            Some(ErrorKind::AccessDenied),
            1,
        ),
        (
            vec![refuse("400 X", "Unheard-of")],
            Some(ErrorKind::Protocol),
            1,
        ),
        (
            vec![answer("200 OK", "not json")],
            Some(ErrorKind::Protocol),
            1,
        ),
        (vec![answer("301 X", "")], Some(ErrorKind::Protocol), 1),
    ];
    for (answers, expected, count) in cases {
        let shown = answers[0].clone();
        let canned = serve(answers).await;
        let ended = client(&canned.url).describe_stream("orders").await;
        assert_eq!(
            ended.as_ref().err().map(Error::kind),
            expected,
            "{shown}: {ended:?}"
        );
        let requests = canned.requests.lock().unwrap();
        let is_call = |request: &&String| request.contains("DescribeStreamSummary");
        assert_eq!(requests.iter().filter(is_call).count(), count, "{shown}");
    }
}

#[tokio::test]
async fn an_endpoint_that_is_not_there_or_does_not_answer_is_unavailable() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", nobody.local_addr().unwrap());
    let mut client = client(&url);
    client.retry.attempts = 1;
    let hung = client.describe_stream("orders").await.unwrap_err();
    assert!(
        hung.to_string().contains("did not answer in time"),
        "{hung}"
    );
    drop(nobody);
    let refused = client.describe_stream("orders").await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    assert!(
        refused.to_string().contains("could not be reached"),
        "{refused}"
    );
}

/// Goal: an endless answer ends in an error, not in all memory.
#[tokio::test]
async fn an_answer_without_end_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let _ = read_request(&mut socket).await;
        let _ = socket.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
        let chunk = vec![b' '; 1 << 20];
        while socket.write_all(&chunk).await.is_ok() {}
    });
    let target = Target::resolve(Some(&url), None, "orders", &|_| None).unwrap();
    let client = HttpClient::to_target(target, Duration::from_mins(1)).unwrap();
    let error = client.describe_stream("orders").await.unwrap_err();
    assert!(error.to_string().contains("longer than"), "{error}");
}

/// Goal: a large page over a slow line arrives, however long it takes: giving it up would ask for the same page for ever
/// (K10). Method: an answer in pieces, each in time, all together not.
#[tokio::test]
async fn k10_a_slow_answer_that_goes_on_is_waited_for() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let _ = read_request(&mut socket).await;
        for piece in answer("200 OK", SUMMARY).as_bytes().chunks(40) {
            tokio::time::sleep(Duration::from_millis(100)).await;
            socket.write_all(piece).await.unwrap();
            socket.flush().await.unwrap();
        }
        std::future::pending::<()>().await;
    });
    let target = Target::resolve(Some(&url), None, "orders", &|_| None).unwrap();
    let mut client = HttpClient::to_target(target, Duration::from_millis(400)).unwrap();
    client.retry.attempts = 1;
    client.describe_stream("orders").await.unwrap();
}

/// An answer in CBOR: a page without records.
fn cbor_page() -> Vec<u8> {
    let body = b"\xbf\x67Records\x80\x72MillisBehindLatest\x07\x71NextShardIterator\x61i\xff";
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

const PAGE: &str = r#"{"Records":[],"MillisBehindLatest":7,"NextShardIterator":"i"}"#;
const IN_CBOR: &str = "content-type: application/x-amz-cbor-1.1";

/// Goal: an endpoint that speaks CBOR is asked for records in CBOR, and one that does not in JSON, from the second request on. Method: each case
/// gives what it answers to the first request, and how many of three calls are sent in CBOR.
#[tokio::test]
async fn records_are_asked_for_in_cbor_until_the_endpoint_shows_that_it_does_not_speak_it() {
    let refuse = |status: &str, body: &str| answer(status, body).into_bytes();
    let unknown = r#"{"__type":"UnknownOperationException"}"#;
    let json = || answer("200 OK", PAGE).into_bytes();
    let cases = [
        (vec![cbor_page()], 3),
        (vec![json()], 1),
        (vec![refuse("415 X", ""), json()], 1),
        (
            vec![refuse("404 X", "<UnknownOperationException/>"), json()],
            1,
        ),
        (vec![refuse("400 X", unknown), json()], 1),
        (vec![refuse("500 X", "<html>"), json()], 1),
        (vec![refuse("200 X", "\u{1}"), json()], 1),
    ];
    for (answers, in_cbor) in cases {
        let shown = String::from_utf8_lossy(&answers[0]).into_owned();
        let canned = serve_bytes(answers).await;
        let client = client(&canned.url);
        for _ in 0..3 {
            let page = client.get_records("i", 10).await.unwrap();
            assert_eq!(page.millis_behind_latest, 7, "{shown}");
        }
        let requests = canned.requests.lock().unwrap();
        let is_cbor = |request: &&String| request.to_ascii_lowercase().contains(IN_CBOR);
        assert_eq!(requests.iter().filter(is_cbor).count(), in_cbor, "{shown}");
        assert!(requests.len() <= 4, "{shown}");
    }
}

/// Goal: what is wrong with a request in CBOR is told once, and nothing is decided by it.
#[tokio::test]
async fn an_error_in_cbor_is_an_answer() {
    let body = b"\xa2\x66__type\x78\x18ExpiredIteratorException\x67message\x61x";
    let head = format!("HTTP/1.1 400 X\r\nContent-Length: {}\r\n\r\n", body.len());
    let canned = serve_bytes(vec![[head.as_bytes(), body].concat(), cbor_page()]).await;
    let client = client(&canned.url);
    let error = client.get_records("i", 10).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Expired, "{error}");
    client.get_records("i", 10).await.unwrap();
    assert_eq!(canned.requests.lock().unwrap().len(), 2);
}

/// Goal: a machine whose clock is wrong works all the same. Method: the endpoint refuses the first signature, and its `Date` is of 2023.
#[tokio::test]
async fn a_clock_that_is_wrong_is_put_right_for_signatures() {
    let refusal = r#"{"__type":"InvalidSignatureException","message":"Signature not yet current"}"#;
    let canned = serve(vec![answer("400 X", refusal), answer("200 OK", SUMMARY)]).await;
    client(&canned.url).describe_stream("orders").await.unwrap();
    let requests = canned.requests.lock().unwrap();
    assert_eq!(requests.len(), 2);
    assert!(
        requests[1].contains("x-amz-date: 20231114T22132"),
        "{}",
        requests[1]
    );
}

/// Goal: throttled control calls are repeated though other attempts are used up; reads are not, whose pace the shard's reader sets.
#[tokio::test]
async fn throttled_calls_are_repeated_more_slowly() {
    let refuse = |code: &str| answer("400 X", &format!(r#"{{"__type":"{code}"}}"#));
    let mut answers = vec![refuse("ThrottlingException"); 2];
    answers.push(answer("200 OK", SUMMARY));
    let canned = serve(answers).await;
    let mut client = client(&canned.url);
    client.retry.attempts = 1;
    client.describe_stream("orders").await.unwrap();
    assert_eq!(canned.requests.lock().unwrap().len(), 3);
    let canned = serve(vec![refuse("ThrottlingException")]).await;
    let client = self::client(&canned.url);
    let refused = client.get_records("i", 10).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Throttled);
    assert_eq!(canned.requests.lock().unwrap().len(), 1);
}

/// Goal: credentials that are refused as expired are renewed, and the request is sent once more. Method: a provider whose every key is another.
#[tokio::test]
async fn expired_credentials_are_renewed_once_and_the_request_repeated() {
    #[derive(Debug, Default)]
    struct Keys(std::sync::atomic::AtomicU32);
    impl aws_credential_types::provider::ProvideCredentials for Keys {
        fn provide_credentials<'a>(
            &'a self,
        ) -> aws_credential_types::provider::future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            let id = format!("KEY{}", self.0.fetch_add(1, Ordering::Relaxed));
            let keys = aws_credential_types::Credentials::new(id, "s", None, None, "test");
            aws_credential_types::provider::future::ProvideCredentials::ready(Ok(keys))
        }
    }
    let expired = || answer("400 X", r#"{"__type":"ExpiredTokenException"}"#);
    let client = |url: &str| {
        let builder = HttpClient::builder("orders").endpoint(url);
        let builder = builder.credentials_provider(Keys::default());
        builder.build_with(&|_| None).unwrap()
    };
    let canned = serve(vec![expired(), answer("200 OK", SUMMARY)]).await;
    client(&canned.url).describe_stream("orders").await.unwrap();
    {
        let requests = canned.requests.lock().unwrap();
        let signed_by =
            |index: usize, key: &str| requests[index].contains(&format!("Credential={key}/"));
        assert!(signed_by(0, "KEY0") && signed_by(1, "KEY1"), "{requests:?}");
    }
    let canned = serve(vec![expired()]).await;
    let refused = client(&canned.url)
        .describe_stream("orders")
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::AccessDenied);
    assert_eq!(
        canned.requests.lock().unwrap().len(),
        2,
        "once more, not for ever"
    );
}
