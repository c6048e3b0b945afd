//! `ceiling`: a bare hyper server that does one thing a Kinesis server must, and nothing else. What a real one reaches is told as a
//! share of it, measured in the same minutes.
//!
//! It is a bound, not a design: it has no sequence numbers, index or limits, checks nothing, and reads what no put wrote.

mod answers;
mod durable;
mod entries;

use crate::client::Encoding;
use crate::{Failure, report, runtime, scan};
pub(crate) use durable::laid_out;

use answers::{Answers, Pieces};
use bytes::Bytes;
use clap::ValueEnum;
use durable::{Durable, FILE_BYTES};
use entries::decode;
use http::header::{CONTENT_TYPE, HeaderMap};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// A body may be no longer, as in a real server.
const BODY_MAX_BYTES: usize = 16 << 20;
/// Connections at once; more wait.
const CONNECTIONS_MAX: usize = 4096;

/// What is done before the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Nothing: the body is read and thrown away.
    None,
    /// The body is parsed, data are decoded, keys hashed.
    Parse,
    /// The same, then written and synced, together with what others wait for.
    Durable,
    /// As `none`; it is `GetRecords` that counts, whose answers are prepared.
    Get,
}

/// What to serve.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// What is done before the answer.
    #[arg(value_enum)]
    mode: Mode,
    /// Where to listen, on 127.0.0.1; 0 takes any free port. The `Ready` line says which.
    #[arg(long, default_value_t = 4567)]
    port: u16,
    /// Where `durable` writes a file of 256 MiB, which has no name.
    #[arg(long, default_value = ".")]
    directory: PathBuf,
    /// Threads that serve.
    #[arg(long, default_value = "2")]
    threads: NonZeroUsize,
    /// Bytes of a record in the answers of `GetRecords`.
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    record_bytes: u32,
    /// Full answers of `GetRecords` before a shard is at its tip.
    #[arg(long, default_value_t = 8)]
    pages: u32,
}

/// Serves until the process is ended.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let durable = match arguments.mode {
        Mode::Durable => Some(Durable::start(own_file(&arguments.directory)?)?),
        Mode::None | Mode::Parse | Mode::Get => None,
    };
    let record_bytes = usize::try_from(arguments.record_bytes)?;
    let ceiling = Ceiling {
        mode: arguments.mode,
        durable,
        answers: Answers::prepare(record_bytes, arguments.pages)?,
        shards: AtomicU32::new(1),
    };
    let runtime = runtime(arguments.threads)?;
    runtime.block_on(serve(Arc::new(ceiling), arguments.port))?;
    Ok(())
}

/// The file that `durable` writes; it has no name, so that nothing is left of it however the process ends.
fn own_file(directory: &Path) -> io::Result<File> {
    std::fs::create_dir_all(directory)?;
    let path = directory.join(format!("ceiling-{}.log", std::process::id()));
    let file = laid_out(&path, FILE_BYTES)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

struct Ceiling {
    mode: Mode,
    durable: Option<Durable>,
    answers: Answers,
    /// Of the stream that was made last.
    shards: AtomicU32,
}

async fn serve(ceiling: Arc<Ceiling>, port: u16) -> io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    report::say(&format!("Ready http://{}", listener.local_addr()?));
    let mut connections = JoinSet::new();
    loop {
        while connections.len() >= CONNECTIONS_MAX {
            connections.join_next().await;
        }
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        while connections.try_join_next().is_some() {}
        let ceiling = Arc::clone(&ceiling);
        connections.spawn(async move {
            let service = service_fn(|request| {
                let ceiling = Arc::clone(&ceiling);
                async move { Ok::<_, Infallible>(ceiling.answer(request).await) }
            });
            // A client that breaks off has its reasons.
            let _ = auto::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

impl Ceiling {
    async fn answer(&self, request: Request<Incoming>) -> Response<Pieces> {
        let (parts, body) = request.into_parts();
        let encoding = encoding(&parts.headers);
        let operation = parts.headers.get("x-amz-target");
        let operation = operation.and_then(|target| target.to_str().ok()?.split('.').nth(1));
        let operation = operation.unwrap_or_default().to_owned();
        match self.perform(&operation, encoding, body).await {
            Ok(pieces) => respond(StatusCode::OK, encoding, pieces),
            Err(error) => {
                let text = format!(r#"{{"__type":"InternalFailure","message":"{error}"}}"#);
                respond(
                    StatusCode::BAD_REQUEST,
                    Encoding::Json,
                    Pieces::from(Bytes::from(text)),
                )
            }
        }
    }

    async fn perform(
        &self,
        operation: &str,
        encoding: Encoding,
        body: Incoming,
    ) -> io::Result<Pieces> {
        match (operation, self.mode) {
            ("PutRecord", Mode::None | Mode::Get) => {
                discard(body).await?;
                Ok(self.answers.put_record(encoding))
            }
            ("PutRecords", Mode::None | Mode::Get) => {
                discard(body).await?;
                Ok(self.answers.put_records(encoding, answers::BATCH_MAX))
            }
            ("PutRecord" | "PutRecords", Mode::Parse | Mode::Durable) => {
                let body = whole(body).await?;
                let (records, frames) = decode(&body, encoding).map_err(io::Error::other)?;
                drop(body);
                if let Some(durable) = &self.durable {
                    durable.commit(frames).await?;
                }
                match operation {
                    "PutRecord" => Ok(self.answers.put_record(encoding)),
                    _ => Ok(self.answers.put_records(encoding, records)),
                }
            }
            ("GetRecords", _) => {
                let body = whole(body).await?;
                let pages = scan::text(&body, encoding, "ShardIterator");
                let pages = pages.and_then(|pages| pages.parse().ok());
                let pages = pages.ok_or_else(|| io::Error::other("no iterator of this server"))?;
                Ok(self.answers.get_records(encoding, pages))
            }
            _ => self.control(operation, &whole(body).await?),
        }
    }

    /// What comes before and after a load; JSON only.
    fn control(&self, operation: &str, body: &[u8]) -> io::Result<Pieces> {
        if operation == "CreateStream" {
            let shards = scan::number(body, Encoding::Json, "ShardCount").unwrap_or(1);
            let shards = u32::try_from(shards).map_err(io::Error::other)?;
            self.shards.store(shards, Ordering::Relaxed);
        }
        let answer = self
            .answers
            .control(operation, self.shards.load(Ordering::Relaxed));
        answer.ok_or_else(|| io::Error::other(format!("{operation:?} is not served by a ceiling")))
    }
}

fn encoding(headers: &HeaderMap) -> Encoding {
    match headers.get(CONTENT_TYPE) {
        Some(kind) if kind == Encoding::Cbor.content_type() => Encoding::Cbor,
        _ => Encoding::Json,
    }
}

fn respond(status: StatusCode, encoding: Encoding, body: Pieces) -> Response<Pieces> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let kind = http::HeaderValue::from_static(encoding.content_type());
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

async fn discard(mut body: Incoming) -> io::Result<()> {
    while let Some(frame) = body.frame().await {
        frame.map_err(io::Error::other)?;
    }
    Ok(())
}

/// The body in one piece, without a copy if it came in one.
async fn whole(mut body: Incoming) -> io::Result<Bytes> {
    let len = body.size_hint().exact().unwrap_or_default();
    let len = usize::try_from(len).map_err(io::Error::other)?;
    let too_long = || io::Error::other(format!("a body of more than {BODY_MAX_BYTES} bytes"));
    if len > BODY_MAX_BYTES {
        return Err(too_long());
    }
    let mut all = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(io::Error::other)?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if all.is_empty() {
            if data.len() == len {
                return Ok(data);
            }
            all.reserve_exact(len);
        }
        if all.len() + data.len() > BODY_MAX_BYTES {
            return Err(too_long());
        }
        all.extend_from_slice(&data);
    }
    Ok(Bytes::from(all))
}
