//! What a server says: the last of it is kept, and one can wait for a line or for the end.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// Lines kept for the text of a failure.
const KEPT: usize = 100;

/// The log of one run of a server.
#[derive(Debug, Default)]
pub(crate) struct Log {
    state: Mutex<State>,
    news: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: VecDeque<String>,
    ready: bool,
    ended: bool,
}

/// What was waited for did not come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missed {
    /// The server has ended.
    Ended,
    /// The time was up.
    Late,
}

impl Log {
    /// Reads until every process that could write has ended.
    pub(crate) fn read(source: impl Read + Send + 'static) -> Arc<Log> {
        let log = Arc::new(Log::default());
        let writer = Arc::clone(&log);
        std::thread::Builder::new()
            .name("postgres-log".to_owned())
            .spawn(move || {
                for line in BufReader::new(source).split(b'\n').map_while(Result::ok) {
                    writer.add(String::from_utf8_lossy(&line).into_owned());
                }
                writer.state.lock().unwrap().ended = true;
                writer.news.notify_all();
            })
            .unwrap();
        log
    }

    fn add(&self, line: String) {
        let mut state = self.state.lock().unwrap();
        state.ready |= line.contains("database system is ready to accept connections");
        if state.lines.len() == KEPT {
            state.lines.pop_front();
        }
        state.lines.push_back(line);
        self.news.notify_all();
    }

    /// Waits until the server takes connections.
    pub(crate) fn ready(&self, limit: Duration) -> Result<(), Missed> {
        let state = self.wait(limit, |state| state.ready || state.ended);
        match state {
            (true, _) => Ok(()),
            (false, true) => Err(Missed::Ended),
            (false, false) => Err(Missed::Late),
        }
    }

    /// Waits until all processes of the server have ended; says whether they have.
    pub(crate) fn ended(&self, limit: Duration) -> bool {
        self.wait(limit, |state| state.ended).1
    }

    fn wait(&self, limit: Duration, enough: impl Fn(&State) -> bool) -> (bool, bool) {
        let state = self.state.lock().unwrap();
        let (state, _) = self
            .news
            .wait_timeout_while(state, limit, |state| !enough(state))
            .unwrap();
        (state.ready, state.ended)
    }

    /// The last lines.
    pub(crate) fn text(&self) -> String {
        let state = self.state.lock().unwrap();
        let lines: Vec<&str> = state.lines.iter().map(String::as_str).collect();
        lines.join("\n")
    }
}
