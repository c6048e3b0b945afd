//! A cluster's folder: it goes with whoever made it, however that ends.

use crate::account::Account;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

/// Removes the folder `$0` when standard input closes, once no server is held in it any more. What is just being written may
/// come in between, so it is tried again for a while.
const KEEP: &str = r#"
read -r nothing
tries=300
while [ -e "$0/held" ] && [ $tries -gt 0 ]; do sleep 0.1; tries=$((tries - 1)); done
until rm -rf "$0" || [ $tries -le 0 ]; do sleep 0.1; tries=$((tries - 1)); done
"#;

/// A folder below the temporary one.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    keeper: Child,
    /// Closed by the system when this process is gone.
    life: Option<ChildStdin>,
}

impl Folder {
    /// A new folder that belongs to the account.
    pub(crate) fn new(account: Account) -> Folder {
        let folder = tempfile::Builder::new()
            .prefix("millstream-postgres-")
            .tempdir()
            .unwrap();
        account.give(folder.path());
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let mut command = Command::new("sh");
        command
            .args(["-c", KEEP])
            .arg(folder.path())
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        account.apply(&mut command);
        let mut keeper = command
            .spawn()
            .unwrap_or_else(|error| panic!("could not start a shell for a folder: {error}"));
        let life = keeper.stdin.take();
        Folder {
            path: folder.keep(),
            keeper,
            life,
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(self.life.take());
        let _ = self.keeper.wait();
    }
}
