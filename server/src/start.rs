//! Starting and stopping a server: the only place that knows every layer.

use crate::api;
use crate::clock::{SharedClock, SystemClock};
use crate::config::{
    Config, DataLocation, EPHEMERAL_MAX_BYTES, EPHEMERAL_SEGMENT_BYTES, TlsSource,
};
use crate::engine::catalog::{Catalog, StreamMode};
use crate::engine::{self, Engine, NewStream};
use crate::http;
use crate::log::{self, Disk, Log, LogConfig, MemoryDisk, RealDisk};
use crate::memory::Plan;
use crate::tls::{self, Identity, TlsError};
use millstream_wire::StreamArn;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How often what left the retention is removed.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);

/// How often the log is looked through for segments that are worth rewriting.
const REWRITE_INTERVAL: Duration = Duration::from_secs(20);

/// Why a server did not start. Nothing of the data directory has been changed by then, unless a stream was
/// already created.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A non-loopback address without authentication.
    #[error(
        "refusing to listen on {0}: the server checks no signatures, so anyone who reaches it could read and write; listen on 127.0.0.1, or allow it explicitly (--allow-public)"
    )]
    PublicAddress(std::net::IpAddr),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}; is another server running there?")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// The data directory cannot be used.
    #[error(transparent)]
    Log(#[from] log::Error),
    /// The given TLS certificate cannot be used.
    #[error(transparent)]
    Tls(TlsError),
    /// The TLS certificate in the data directory cannot be used.
    #[error("{0}; remove both files to have new ones made")]
    KeptTls(TlsError),
    /// A start-up stream cannot be created.
    #[error("cannot create the stream {name}: {source}")]
    Stream {
        /// Its name.
        name: String,
        /// Why.
        source: engine::Error,
    },
}

/// A running server. Dropping it without [`Server::shutdown`] stops it at once; what was acknowledged is
/// on disk all the same.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    engine: Engine,
    certificate_pem: String,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Server {
    /// Opens the data, recovers, listens and serves.
    pub async fn start(config: Config) -> Result<Server, StartError> {
        Server::start_with_clock(config, Arc::new(SystemClock)).await
    }

    /// The same under a clock that a test drives.
    pub async fn start_with_clock(
        config: Config,
        clock: SharedClock,
    ) -> Result<Server, StartError> {
        if !config.host.is_loopback() && !config.allow_public {
            return Err(StartError::PublicAddress(config.host));
        }
        let address = SocketAddr::new(config.host, config.port);
        let listen_error = |source| StartError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(listen_error)?;
        let address = listener.local_addr().map_err(listen_error)?;

        // Before the data directory is touched: a wrong setting is no reason to make one.
        let given = match &config.tls {
            TlsSource::SelfSigned => None,
            TlsSource::Files { certificate, key } => {
                Some(Identity::from_files(certificate, key).map_err(StartError::Tls)?)
            }
        };
        let plan = Plan::of(config.memory, open_files());
        let log = open_log(&config, &plan, Arc::clone(&clock)).await?;
        let settings = engine::Settings {
            limits: config.limits,
            state_delay_ms: config.state_delay_ms,
            error_probability: config.error_probability,
            page_bytes: plan.page_bytes,
        };
        let engine = Engine::new(log, clock, settings);
        create_streams(&engine, &config).await?;

        let stop = CancellationToken::new();
        let own = given.is_none().then(|| OwnIdentity::of(&config));
        let (late, tls) = watch::channel(None);
        let http_config = http::HttpConfig {
            tls: Some(tls),
            ..plan.http(http::HttpConfig::new(config.account, config.region))
        };
        let service = api::Api::new(engine.clone(), config.latency);
        let serving = stop.clone();
        let serve = async move {
            if let Err(error) = http::serve(listener, service, http_config, serving).await {
                tracing::error!(%error, "serving ended");
            }
        };
        let tasks = vec![
            tokio::spawn(serve),
            tokio::spawn(sweep(engine.clone(), stop.clone())),
            tokio::spawn(rewrite(engine.clone(), stop.clone())),
        ];
        let mut server = Server {
            address,
            engine,
            certificate_pem: String::new(),
            stop,
            tasks,
        };
        // Others are served meanwhile: making a key takes longer than all else that a first start does.
        match identity(given, own, server.engine.clone()).await {
            Ok(identity) => {
                server.certificate_pem = identity.certificate_pem;
                late.send_replace(Some(identity.config));
                Ok(server)
            }
            Err(error) => {
                server.shutdown().await;
                Err(StartError::KeptTls(error))
            }
        }
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The endpoint for clients.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The certificate that it shows to clients that speak TLS, in PEM form.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The stream service behind it.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Stops accepting, finishes what was accepted, closes the log (S10).
    pub async fn shutdown(mut self) {
        self.stop.cancel();
        for task in self.tasks.drain(..) {
            if let Err(error) = task.await {
                tracing::error!(%error, "a server task ended badly");
            }
        }
        self.engine.close().await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// The given identity, or the server's own. The data directory is the engine's alone until that is kept, also if who waits for it does so no longer.
async fn identity(
    given: Option<Identity>,
    own: Option<OwnIdentity>,
    engine: Engine,
) -> Result<Identity, TlsError> {
    match (given, own) {
        (Some(given), _) => Ok(given),
        (None, own) => {
            let own = own.unwrap_or_default();
            let made = tokio::task::spawn_blocking(move || {
                let made = own.make();
                drop(engine);
                made
            });
            let made = made.await;
            made.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
        }
    }
}

/// The server's own certificate: for the names a client may reach it by, and where it is kept.
#[derive(Debug, Default)]
struct OwnIdentity {
    names: Vec<String>,
    kept_in: Option<PathBuf>,
}

impl OwnIdentity {
    fn of(config: &Config) -> OwnIdentity {
        OwnIdentity {
            names: own_names(config),
            kept_in: match &config.data {
                DataLocation::Ephemeral => None,
                DataLocation::Directory(path) => Some(path.clone()),
            },
        }
    }

    fn make(self) -> Result<Identity, TlsError> {
        let Some(path) = self.kept_in else {
            return Identity::for_this_run(&self.names);
        };
        let identity = Identity::kept_in(&path, &self.names)?;
        let certificate = path.join(tls::CERTIFICATE_FILE);
        tracing::info!(certificate = %certificate.display(), "TLS is served on the same port");
        Ok(identity)
    }
}

fn own_names(config: &Config) -> Vec<String> {
    let mut names = vec![
        "localhost".to_owned(),
        "*.localhost".to_owned(),
        "127.0.0.1".to_owned(),
        "::1".to_owned(),
        // What it is called in a container's network, and what a container calls its host.
        "millstream".to_owned(),
        "kinesis".to_owned(),
        "host.docker.internal".to_owned(),
        format!("kinesis.{}.amazonaws.com", config.region),
    ];
    if !config.host.is_loopback() && !config.host.is_unspecified() {
        names.push(config.host.to_string());
    }
    names
}

/// How many files the process may have open at a time.
fn open_files() -> u64 {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current.unwrap_or(u64::MAX)
}

async fn open_log(
    config: &Config,
    plan: &Plan,
    clock: SharedClock,
) -> Result<Log<Catalog>, log::Error> {
    let data = config.data.clone();
    let log_config = match data {
        DataLocation::Directory(_) => LogConfig {
            durability: config.durability,
            ..plan.log(config.log)
        },
        // Nothing to wait for, and no reason to lay out much memory beforehand.
        DataLocation::Ephemeral => LogConfig {
            durability: log::Durability::None,
            segment_bytes: EPHEMERAL_SEGMENT_BYTES,
            ..plan.log(config.log)
        },
    };
    let open = move || {
        let disk: Arc<dyn Disk> = match data {
            DataLocation::Directory(path) => Arc::new(RealDisk::open(&path)?),
            DataLocation::Ephemeral => {
                let disk = MemoryDisk::new();
                disk.set_capacity(Some(EPHEMERAL_MAX_BYTES));
                Arc::new(disk)
            }
        };
        Log::open(disk, log_config, clock, Catalog::default())
    };
    match tokio::task::spawn_blocking(open).await {
        Ok(opened) => opened,
        Err(_) => Err(log::Error::Closed),
    }
}

async fn create_streams(engine: &Engine, config: &Config) -> Result<(), StartError> {
    for stream in &config.streams {
        let region = stream.region.as_ref().unwrap_or(&config.region);
        let arn = StreamArn {
            region: region.clone(),
            account: config.account.clone(),
            name: stream.name.clone(),
        };
        let (mode, shards) = match stream.shards {
            Some(shards) => (StreamMode::Provisioned, shards),
            None => (StreamMode::OnDemand, engine::shards_when_new()),
        };
        let new = NewStream {
            arn,
            shards,
            mode,
            retention_hours: stream.retention_hours,
            max_record_bytes: stream.max_record_bytes,
            tags: stream.tags.clone(),
        };
        match engine.create_stream(new).await {
            Ok(()) | Err(engine::Error::StreamExists(_)) => {}
            Err(source) => {
                return Err(StartError::Stream {
                    name: stream.name.to_string(),
                    source,
                });
            }
        }
    }
    Ok(())
}

async fn sweep(engine: Engine, stop: CancellationToken) {
    loop {
        // Jittered by up to a tenth, so that nodes do not sweep in step.
        let jitter = Duration::from_millis(fastrand::u64(0..3_000));
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(SWEEP_INTERVAL + jitter) => {}
        }
        if let Err(error) = engine.sweep().await {
            tracing::warn!(%error, "what left the retention was not removed; trying again later");
        }
    }
}

async fn rewrite(engine: Engine, stop: CancellationToken) {
    let mut told = false;
    loop {
        let jitter = Duration::from_millis(fastrand::u64(0..2_000));
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(REWRITE_INTERVAL + jitter) => {}
        }
        let rewritten = tokio::select! {
            // Closing the log ends a pass that is under way.
            () = stop.cancelled() => return,
            rewritten = engine.rewrite() => rewritten,
        };
        match rewritten {
            Ok(_) => told = false,
            // Once: a full disk stays full for a while.
            Err(_) if told => {}
            Err(error) => {
                told = true;
                tracing::warn!(%error, "a log segment was not rewritten and stays as it is; trying again");
            }
        }
    }
}
