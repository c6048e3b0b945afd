//! A disk that writes so many bytes in a second and no more: a library that is loaded before the C library and lets writes take
//! as long as they would on it. So the disk is what a test overloads, whatever the machine's own can do.

use std::path::PathBuf;
use std::process::Command;
use tempfile::TempDir;

/// Each write at an offset, which is how the log writes, and each sync pays for its bytes.
const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

typedef ssize_t (*write_at)(int, const void *, size_t, off_t);
typedef ssize_t (*write_all_at)(int, const struct iovec *, int, off_t);

static void pass(uint64_t nanoseconds) {
    struct timespec left = { nanoseconds / 1000000000, nanoseconds % 1000000000 };
    while (nanosleep(&left, &left) != 0) { }
}

static uint64_t cost(size_t bytes) {
    const char *rate = getenv("SLOW_DISK_BYTES_PER_SECOND");
    return rate ? (uint64_t)bytes * 1000000000 / strtoull(rate, NULL, 10) : 0;
}

ssize_t pwrite64(int file, const void *bytes, size_t count, off_t offset) {
    static write_at real = NULL;
    if (!real) real = (write_at)dlsym(RTLD_NEXT, "pwrite64");
    ssize_t written = real(file, bytes, count, offset);
    if (written > 0) pass(cost(written));
    return written;
}

ssize_t pwritev64(int file, const struct iovec *pieces, int count, off_t offset) {
    static write_all_at real = NULL;
    if (!real) real = (write_all_at)dlsym(RTLD_NEXT, "pwritev64");
    ssize_t written = real(file, pieces, count, offset);
    if (written > 0) pass(cost(written));
    return written;
}
"#;

/// The library, built for this test; gone when dropped.
#[derive(Debug)]
pub(crate) struct SlowDisk {
    folder: TempDir,
    bytes_per_second: String,
}

impl SlowDisk {
    /// Builds it with the C compiler that building the product takes as well.
    pub(crate) fn of(bytes_per_second: u64) -> SlowDisk {
        let folder = TempDir::with_prefix("millstream-slow-disk-").unwrap();
        let source = folder.path().join("slow_disk.c");
        std::fs::write(&source, SOURCE).unwrap();
        let disk = SlowDisk {
            folder,
            bytes_per_second: bytes_per_second.to_string(),
        };
        let built = Command::new("cc")
            .args(["-O1", "-shared", "-fPIC", "-o"])
            .arg(disk.library())
            .arg(&source)
            .arg("-ldl")
            .output()
            .expect("a C compiler, cc");
        let said = String::from_utf8_lossy(&built.stderr);
        assert!(built.status.success(), "{said}");
        disk
    }

    fn library(&self) -> PathBuf {
        self.folder.path().join("slow_disk.so")
    }

    /// The environment of a process that writes to it.
    pub(crate) fn environment(&self) -> [(&'static str, String); 2] {
        [
            ("LD_PRELOAD", self.library().display().to_string()),
            ("SLOW_DISK_BYTES_PER_SECOND", self.bytes_per_second.clone()),
        ]
    }
}
