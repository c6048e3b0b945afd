//! Who runs the server: whoever runs the tests, and for root an ordinary user, because initdb and postgres refuse root.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// Every Unix has this user; it owns nothing.
const ORDINARY: &str = "nobody";

/// An account that may run PostgreSQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Account {
    /// That of the tests.
    Mine,
    /// The one of the ordinary user; the tests are root's.
    Ordinary { uid: u32, gid: u32 },
}

impl Account {
    pub(crate) fn choose() -> Account {
        // What I create belongs to me.
        let mine = tempfile::tempdir().unwrap();
        if fs::metadata(mine.path()).unwrap().uid() != 0 {
            return Account::Mine;
        }
        let accounts = fs::read_to_string("/etc/passwd")
            .expect("/etc/passwd names the user who runs PostgreSQL for root");
        ordinary(&accounts).unwrap_or_else(|| {
            panic!("PostgreSQL does not run as root, and /etc/passwd has no usable {ORDINARY:?}")
        })
    }

    /// Makes the command run under this account. The standard library drops root's further groups with it.
    pub(crate) fn apply(self, command: &mut Command) {
        if let Account::Ordinary { uid, gid } = self {
            command.uid(uid).gid(gid);
        }
    }

    /// Gives a folder to this account.
    pub(crate) fn give(self, folder: &Path) {
        if let Account::Ordinary { uid, gid } = self {
            std::os::unix::fs::chown(folder, Some(uid), Some(gid)).unwrap();
        }
    }
}

/// The ordinary user's line of `/etc/passwd`: name, password, uid, gid, and more.
fn ordinary(accounts: &str) -> Option<Account> {
    let line = accounts
        .lines()
        .find(|line| line.split(':').next() == Some(ORDINARY))?;
    let mut fields = line.split(':').skip(2);
    let uid = fields.next()?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    (uid != 0).then_some(Account::Ordinary { uid, gid })
}

#[test]
fn the_ordinary_user_is_found_by_name() {
    let accounts = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65533:nobody:/:/bin/false\n";
    let found = Account::Ordinary {
        uid: 65534,
        gid: 65533,
    };
    assert_eq!(ordinary(accounts), Some(found));
    assert_eq!(ordinary("nobody:x:0:0::/:/bin/sh"), None);
    assert_eq!(ordinary("somebody:x:1:1::/:/bin/sh"), None);
}
