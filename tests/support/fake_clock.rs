//! A wall clock of its own for one process, set while it runs: libfaketime stands between it and the machine's. Its monotonic
//! clock stays the machine's.

use std::fs;
use std::path::PathBuf;

/// A file that says how far the clock is off.
#[derive(Debug, Clone)]
pub struct FakeClock {
    file: PathBuf,
}

impl FakeClock {
    /// A clock so many seconds ahead, or behind, kept in this file.
    pub fn at(file: PathBuf, seconds: i64) -> FakeClock {
        let clock = FakeClock { file };
        clock.set(seconds);
        clock
    }

    /// Sets it. At once: the process may look at any moment.
    pub fn set(&self, seconds: i64) {
        let new = self.file.with_extension("new");
        fs::write(&new, format!("{seconds:+}\n")).unwrap();
        fs::rename(&new, &self.file).unwrap();
    }

    /// The environment of a process that goes by it.
    pub fn environment(&self) -> [(&'static str, String); 5] {
        let text = |text: &str| text.to_owned();
        [
            ("LD_PRELOAD", library().display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", self.file.display().to_string()),
            ("FAKETIME_NO_CACHE", text("1")),
            ("FAKETIME_DONT_FAKE_MONOTONIC", text("1")),
            // Its older name.
            ("DONT_FAKE_MONOTONIC", text("1")),
        ]
    }
}

/// Where Debian and others keep the library.
fn library() -> PathBuf {
    let shelves = ["/usr/lib", "/usr/lib64", "/usr/local/lib"];
    let below = |shelf: &str| -> Vec<PathBuf> {
        let entries = fs::read_dir(shelf).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    };
    let folders = shelves
        .into_iter()
        .flat_map(|shelf| [vec![PathBuf::from(shelf)], below(shelf)].concat());
    let found = folders
        .flat_map(|folder| {
            let name = "libfaketimeMT.so.1";
            [folder.join("faketime").join(name), folder.join(name)]
        })
        .find(|path| path.exists());
    found.unwrap_or_else(|| {
        panic!("libfaketimeMT.so.1 is not in {shelves:?} or below: install faketime (Debian and Ubuntu: apt-get install faketime)")
    })
}

/// What the library leaves in shared memory when its process is killed; cleared away when dropped.
#[derive(Debug, Default)]
pub struct Leavings(Vec<u32>);

impl Leavings {
    /// Notes a process that goes by a fake clock.
    pub fn of(&mut self, process_id: Option<u32>) {
        self.0.extend(process_id);
    }
}

impl Drop for Leavings {
    fn drop(&mut self) {
        for id in &self.0 {
            let _ = fs::remove_file(format!("/dev/shm/faketime_shm_{id}"));
            let _ = fs::remove_file(format!("/dev/shm/sem.faketime_sem_{id}"));
        }
    }
}
