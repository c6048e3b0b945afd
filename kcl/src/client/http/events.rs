//! Subscriptions over HTTP/2 to an endpoint that speaks CBOR, or does not: what is asked for, and what is made of answers.

use super::*;
use aws_smithy_eventstream::frame::write_message_to;
use aws_smithy_types::event_stream::{Header, HeaderValue, Message};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Mutex;
use tokio::net::TcpListener;

/// Status, content type, body.
type Canned = (u16, &'static str, Vec<u8>);

/// An endpoint that gives one answer after the other, the last for ever, and keeps how each request was encoded.
struct Endpoint {
    url: String,
    asked: Arc<Mutex<Vec<Encoding>>>,
}

async fn serve(answers: Vec<Canned>) -> Endpoint {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::<Mutex<Vec<Encoding>>>::default();
    let answers = Arc::new(Mutex::new(VecDeque::from(answers)));
    let kept = Arc::clone(&asked);
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let (kept, answers) = (Arc::clone(&kept), Arc::clone(&answers));
            let service = service_fn(move |request: Request<Incoming>| {
                let (kept, answers) = (Arc::clone(&kept), Arc::clone(&answers));
                async move { Ok::<_, Infallible>(answer(request, &kept, &answers).await) }
            });
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(server.serve_connection(TokioIo::new(socket), service));
        }
    });
    Endpoint { url, asked }
}

async fn answer(
    request: Request<Incoming>,
    asked: &Mutex<Vec<Encoding>>,
    answers: &Mutex<VecDeque<Canned>>,
) -> Response<Full<Bytes>> {
    let kind = request.headers()["content-type"].to_str().unwrap();
    let encoding = Encoding::from_content_type(kind).unwrap();
    let target = request.headers()["x-amz-target"].clone();
    assert_eq!(target, "Kinesis_20131202.SubscribeToShard");
    let body = request.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(encoding_of(&body), encoding);
    asked.lock().unwrap().push(encoding);
    let mut answers = answers.lock().unwrap();
    let (status, kind, body) = match answers.len() {
        1 => answers[0].clone(),
        _ => answers.pop_front().unwrap(),
    };
    let answer = Response::builder().status(status);
    let answer = answer.header("content-type", kind);
    answer.body(Full::from(body)).unwrap()
}

const STREAM: &str = "application/vnd.amazon.eventstream";

/// A subscription that has an event which is so far behind, and ends.
fn events(encoding: Encoding) -> Canned {
    let (initial, event): (&[u8], &[u8]) = match encoding {
        Encoding::Cbor => (b"\xa0", b"\xbf\x72MillisBehindLatest\x07\xff"),
        Encoding::Json => (b"{}", br#"{"MillisBehindLatest":7}"#),
    };
    let mut bytes = Vec::new();
    for (name, payload) in [
        ("initial-response", initial),
        ("SubscribeToShardEvent", event),
    ] {
        let text = |value: &'static str| HeaderValue::String(value.into());
        let message = Message::new(payload.to_vec())
            .add_header(Header::new(":message-type", text("event")))
            .add_header(Header::new(":event-type", text(name)));
        write_message_to(&message, &mut bytes).unwrap();
    }
    (200, STREAM, bytes)
}

fn refusal(status: u16, body: &str) -> Canned {
    (status, "text/plain", body.as_bytes().to_vec())
}

fn client(url: &str) -> HttpClient {
    let target = Target::resolve(Some(url), None, "orders", &|_| None).unwrap();
    HttpClient::to_target(target, Duration::from_secs(5)).unwrap()
}

async fn subscribe(client: &HttpClient) -> Result<u64, Error> {
    let request = SubscribeRequest {
        consumer_arn: "c",
        shard_id: "s",
        start: IteratorStart::TrimHorizon,
    };
    let mut subscription = client.subscribe(request).await?;
    let event = subscription.next().await.unwrap()?;
    assert!(subscription.next().await.is_none());
    Ok(event.millis_behind_latest)
}

/// Goal: an endpoint that speaks CBOR is asked for events in CBOR, and one that does not in JSON, from the second request on. Method: each case
/// gives what it answers, and how many requests of three subscriptions are sent in each encoding.
#[tokio::test]
async fn events_are_asked_for_in_cbor_until_the_endpoint_shows_that_it_does_not_speak_it() {
    let json = || events(Encoding::Json);
    let unknown = r#"{"__type":"UnknownOperationException"}"#;
    let serialization = r#"{"__type":"SerializationException"}"#;
    let cases = [
        (vec![events(Encoding::Cbor)], 3, 0),
        (vec![json()], 1, 2),
        (vec![refusal(415, ""), json()], 1, 3),
        (vec![refusal(400, unknown), json()], 1, 3),
        (vec![refusal(400, serialization), json()], 1, 3),
        (vec![refusal(500, "<html>"), json()], 1, 3),
        (vec![refusal(200, "no events"), json()], 1, 3),
        (vec![(200, STREAM, vec![0; 16]), json()], 1, 3),
    ];
    for (answers, in_cbor, in_json) in cases {
        let shown = format!("{:?}", answers[0]);
        let endpoint = serve(answers).await;
        let client = client(&endpoint.url);
        for _ in 0..3 {
            assert_eq!(subscribe(&client).await.unwrap(), 7, "{shown}");
        }
        let asked = endpoint.asked.lock().unwrap();
        let count = |encoding| asked.iter().filter(|asked| **asked == encoding).count();
        assert_eq!(
            (count(Encoding::Cbor), count(Encoding::Json)),
            (in_cbor, in_json),
            "{shown}"
        );
    }
}

/// Goal: a refusal that says what is wrong is told at once and decides nothing; nor does one that comes once CBOR was understood.
#[tokio::test]
async fn a_refusal_of_what_was_understood_is_no_reason_for_another_encoding() {
    let gone = r#"{"__type":"ResourceNotFoundException"}"#;
    let answers = vec![
        refusal(400, gone),
        events(Encoding::Cbor),
        refusal(502, "<html>"),
        events(Encoding::Cbor),
    ];
    let endpoint = serve(answers).await;
    let client = client(&endpoint.url);
    let kinds = [
        Some(ErrorKind::NotFound),
        None,
        Some(ErrorKind::Unavailable),
        None,
    ];
    for kind in kinds {
        assert_eq!(
            subscribe(&client).await.err().map(|error| error.kind()),
            kind
        );
    }
    assert_eq!(*endpoint.asked.lock().unwrap(), [Encoding::Cbor; 4]);
}

/// Goal: an endpoint whose pages are read in JSON is asked for its events in JSON.
#[tokio::test]
async fn what_pages_have_shown_counts_for_events() {
    let endpoint = serve(vec![events(Encoding::Json)]).await;
    let client = client(&endpoint.url);
    client.dialect.decide(Encoding::Json, Operation::GetRecords);
    subscribe(&client).await.unwrap();
    assert_eq!(*endpoint.asked.lock().unwrap(), [Encoding::Json]);
}
