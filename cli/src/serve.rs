//! `millstream serve`: starts the server, says when it is ready, stops it when asked.

use crate::settings::{Flags, LogFormat, Settings};
use crate::{Failure, FailureKind};
use millstream_server::{DataLocation, Server, StartError, log};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io::{IsTerminal, Write};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// What `--help` says after the flags.
pub(crate) const AFTER_HELP: &str = "\
Every flag is also an environment variable (--data-dir is MILLSTREAM_DATA_DIR) and a name in the \
configuration file (data-dir). A flag beats the environment, which beats the file.
RUST_LOG chooses what is logged on standard error, for example RUST_LOG=debug.
SIGTERM and SIGINT stop the server after what it has accepted; a second one stops it at once.
Exit codes: 0 stopped as asked, 1 could not start or go on, 2 wrong settings, 3 unusable data directory.";

/// Threads that read files and encode large answers: more wait for one. Each takes memory of its own while it does.
const BLOCKING_THREADS: usize = 32;

/// Serves until it is asked to stop.
pub(crate) fn run(flags: &Flags) -> Result<(), Failure> {
    let settings = Settings::resolve(flags, &|name| std::env::var_os(name))?;
    start_logging(settings.log_format)?;
    raise_open_files();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build()
        .map_err(|error| Failure::runtime(format_args!("cannot start threads: {error}")))?;
    let ended = runtime.block_on(serve(settings, flags.stop_with_stdin));
    // What a start or a reader still does in the background is waited for by nobody: the signal has been answered, and the log is closed, or as
    // it is after a kill.
    runtime.shutdown_background();
    ended
}

/// As many connections as memory allows need as many files, and shells give few of those that they may.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        // There are fewer connections then.
        tracing::warn!(%error, files = limit.current, "the limit of open files stays as it is");
    }
}

/// Sends logs to standard error; `RUST_LOG` chooses them, `info` by default.
pub(crate) fn start_logging(format: LogFormat) -> Result<(), Failure> {
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .from_env()
        .map_err(|error| Failure::usage(format_args!("environment variable RUST_LOG: {error}")))?;
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Text => logs.try_init(),
        LogFormat::Json => logs.json().try_init(),
    };
    started.map_err(|error| Failure::runtime(format_args!("cannot start logging: {error}")))
}

async fn serve(settings: Settings, stop_with_stdin: bool) -> Result<(), Failure> {
    // Before the server starts, so that a signal during recovery is not lost.
    let mut signals = Signals::new()?;
    let data = Settings::describe(&settings.config);
    let place = settings.config.data.clone();
    let server = tokio::select! {
        started = Server::start(settings.config) => started.map_err(|error| start_failure(&error, &place))?,
        name = signals.next() => {
            tracing::info!(signal = name, "stopped before the server was ready");
            return Ok(());
        }
    };
    let mut out = std::io::stdout();
    // Whoever reads the line may have gone; the server serves all the same.
    let _ = writeln!(out, "Ready {} ({data})", server.url()).and_then(|()| out.flush());

    tokio::select! {
        name = signals.next() => tracing::info!(signal = name, "stopping"),
        () = stdin_ended(), if stop_with_stdin => tracing::info!("stopping: standard input ended"),
    }
    tokio::select! {
        () = server.shutdown() => Ok(()),
        name = signals.next() => Err(Failure::runtime(format_args!(
            "stopped at once by a second signal ({name}); what was acknowledged is kept"
        ))),
    }
}

fn start_failure(error: &StartError, place: &DataLocation) -> Failure {
    let kind = match error {
        StartError::PublicAddress(_) | StartError::Tls(_) => FailureKind::Usage,
        StartError::Log(_) | StartError::KeptTls(_) => FailureKind::Data,
        StartError::Listen { .. } | StartError::Stream { .. } => FailureKind::Runtime,
    };
    let message = match (error, place) {
        (StartError::Log(log::Error::Corrupt { .. }), DataLocation::Directory(directory)) => {
            let directory = directory.display();
            format!(
                "{error}, or see what else is damaged (`millstream check {directory}`) and what can be done (`millstream repair {directory}`)"
            )
        }
        (
            StartError::Log(log::Error::NotADataDirectory { .. }),
            DataLocation::Directory(directory),
        ) if directory.is_dir() => {
            let directory = directory.display();
            format!("{error}; if it was one, `millstream check {directory}` says what is damaged")
        }
        _ => error.to_string(),
    };
    Failure { kind, message }
}

/// The signals that ask a process to end.
#[derive(Debug)]
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(crate) fn new() -> Result<Signals, Failure> {
        let listen = |kind| {
            signal(kind).map_err(|error| {
                Failure::runtime(format_args!("cannot listen for signals: {error}"))
            })
        };
        Ok(Signals {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next one and names it.
    pub(crate) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Waits until standard input is closed by whoever started this process.
pub(crate) async fn stdin_ended() {
    let (ended, wait) = tokio::sync::oneshot::channel();
    // A thread of its own, because a read of standard input cannot be interrupted: it must not hold up the end of
    // the runtime. There is one at most, and it ends with the process.
    std::thread::spawn(move || {
        // Whatever the read comes to, there is nothing more to read.
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        let _ = ended.send(());
    });
    let _ = wait.await;
}
