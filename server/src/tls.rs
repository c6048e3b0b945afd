//! The certificate a server shows: a given one, or one of its own, made once and kept with the data.

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig};

/// The file of the certificate in the data directory. Clients may be told to trust it.
pub const CERTIFICATE_FILE: &str = "tls-certificate.pem";
/// The file of its key, readable by its owner only.
pub const KEY_FILE: &str = "tls-key.pem";
/// Bytes of either file at most: a chain of certificates is some ten thousand.
const MAX_FILE_BYTES: u64 = 1024 * 1024;
/// The certificate must outlive the data: to replace it means to tell every client.
const FIRST_YEAR: i32 = 2025;
const LAST_YEAR: i32 = 2049;

/// Why there is no certificate to show.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read the TLS {what} {}: {source}", path.display())]
    Unreadable {
        /// `certificate` or `key`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file holds something else.
    #[error("{} holds no TLS {what} in PEM form: {reason}", path.display())]
    Malformed {
        /// `certificate` or `key`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The two do not belong together, or cannot be used.
    #[error("the TLS certificate {} cannot be served with the key {}: {reason}", certificate.display(), key.display())]
    Unusable {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Making a certificate failed.
    #[error("a TLS certificate for {names} cannot be made: {reason}")]
    Unmade {
        /// Whom it was for.
        names: String,
        /// What is wrong.
        reason: String,
    },
}

/// What a server shows to clients that speak TLS.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Settings of the handshake, certificate and key included.
    pub(crate) config: Arc<ServerConfig>,
    /// The certificate, and those that vouch for it, in PEM form.
    pub(crate) certificate_pem: String,
}

impl Identity {
    /// The one in two files of the operator's.
    ///
    /// # Errors
    /// Says which file is wrong and how.
    pub fn from_files(certificate: &Path, key: &Path) -> Result<Identity, TlsError> {
        let certificate_pem = read("certificate", certificate)?;
        let key_pem = read("key", key)?;
        Identity::new(certificate_pem, &key_pem, (certificate, key))
    }

    /// The one in the data directory, made for these names if there is none yet. `directory` must be
    /// claimed by this process. What cannot be kept there is good for this run only.
    ///
    /// # Errors
    /// If the files are there but of no use.
    pub fn kept_in(directory: &Path, names: &[String]) -> Result<Identity, TlsError> {
        let certificate = directory.join(CERTIFICATE_FILE);
        let key = directory.join(KEY_FILE);
        if certificate.exists() && key.exists() {
            return Identity::from_files(&certificate, &key);
        }
        let made = Pair::make(names)?;
        if let Err(error) = made.keep(directory) {
            tracing::warn!(
                %error,
                directory = %directory.display(),
                "the TLS certificate could not be kept: the next start makes another"
            );
        }
        made.identity()
    }

    /// One for these names that is gone when the server stops.
    ///
    /// # Errors
    /// If a name cannot stand in a certificate.
    pub fn for_this_run(names: &[String]) -> Result<Identity, TlsError> {
        Pair::make(names)?.identity()
    }

    fn new(
        certificate_pem: String,
        key_pem: &str,
        (certificate, key): (&Path, &Path),
    ) -> Result<Identity, TlsError> {
        let malformed = |what, path: &Path, reason: &dyn std::fmt::Display| TlsError::Malformed {
            what,
            path: path.to_owned(),
            reason: reason.to_string(),
        };
        let chain = CertificateDer::pem_slice_iter(certificate_pem.as_bytes())
            .collect::<Result<Vec<_>, pem::Error>>()
            .map_err(|error| malformed("certificate", certificate, &error))?;
        if chain.is_empty() {
            let reason = "it has no section CERTIFICATE";
            return Err(malformed("certificate", certificate, &reason));
        }
        let private = PrivateKeyDer::from_pem_slice(key_pem.as_bytes())
            .map_err(|error| malformed("key", key, &error))?;
        let config = server_config(chain, private).map_err(|error| TlsError::Unusable {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            reason: error.to_string(),
        })?;
        Ok(Identity {
            config: Arc::new(config),
            certificate_pem,
        })
    }
}

fn server_config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, rustls::Error> {
    // Named, because a second provider in the same program would leave no default.
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn read(what: &'static str, path: &Path) -> Result<String, TlsError> {
    let unreadable = |source| TlsError::Unreadable {
        what,
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(unreadable)?;
    let mut text = String::new();
    let mut file = io::Read::take(file, MAX_FILE_BYTES);
    io::Read::read_to_string(&mut file, &mut text).map_err(unreadable)?;
    Ok(text)
}

/// A certificate and its key, as they stand in files.
struct Pair {
    certificate_pem: String,
    key_pem: String,
}

impl Pair {
    fn make(names: &[String]) -> Result<Pair, TlsError> {
        let make = || {
            let mut params = CertificateParams::new(names)?;
            let subject = &mut params.distinguished_name;
            subject.push(DnType::CommonName, "Millstream, self-signed");
            params.not_before = rcgen::date_time_ymd(FIRST_YEAR, 1, 1);
            params.not_after = rcgen::date_time_ymd(LAST_YEAR, 12, 31);
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            let key = KeyPair::generate()?;
            Ok(Pair {
                certificate_pem: params.self_signed(&key)?.pem(),
                key_pem: key.serialize_pem(),
            })
        };
        make().map_err(|error: rcgen::Error| TlsError::Unmade {
            names: names.join(", "),
            reason: error.to_string(),
        })
    }

    fn identity(self) -> Result<Identity, TlsError> {
        let nowhere = Path::new("(in memory)");
        Identity::new(self.certificate_pem, &self.key_pem, (nowhere, nowhere))
    }

    /// Writes both files, the certificate last: it stands for a whole pair.
    fn keep(&self, directory: &Path) -> io::Result<()> {
        let certificate = directory.join(CERTIFICATE_FILE);
        match fs::remove_file(&certificate) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        write_whole(&directory.join(KEY_FILE), &self.key_pem, 0o600)?;
        write_whole(&certificate, &self.certificate_pem, 0o644)?;
        File::open(directory)?.sync_all()
    }
}

/// Writes a file that is there in full or not at all.
fn write_whole(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let draft = path.with_extension("pem.new");
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(draft, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn names() -> Vec<String> {
        ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into()
    }

    #[test]
    fn a_certificate_is_made_once_and_its_key_is_private() {
        let directory = tempfile::tempdir().unwrap();
        let first = Identity::kept_in(directory.path(), &names()).unwrap();
        let again = Identity::kept_in(directory.path(), &names()).unwrap();
        assert_eq!(first.certificate_pem, again.certificate_pem);
        let key = directory.path().join(KEY_FILE);
        assert_eq!(
            fs::metadata(&key).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let mut left: Vec<_> = fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        left.sort();
        assert_eq!(left, [CERTIFICATE_FILE, KEY_FILE]);
    }

    #[test]
    fn a_pair_that_was_not_finished_is_made_anew() {
        for missing in [CERTIFICATE_FILE, KEY_FILE] {
            let directory = tempfile::tempdir().unwrap();
            let first = Identity::kept_in(directory.path(), &names()).unwrap();
            fs::remove_file(directory.path().join(missing)).unwrap();
            fs::write(directory.path().join("tls-key.pem.new"), "half").unwrap();
            let second = Identity::kept_in(directory.path(), &names()).unwrap();
            assert_ne!(first.certificate_pem, second.certificate_pem);
            let third = Identity::kept_in(directory.path(), &names()).unwrap();
            assert_eq!(second.certificate_pem, third.certificate_pem);
        }
    }

    #[test]
    fn a_directory_that_takes_no_files_is_no_reason_not_to_serve() {
        let directory = tempfile::tempdir().unwrap();
        // A directory where the draft of the key belongs cannot be removed as a file is.
        fs::create_dir(directory.path().join("tls-key.pem.new")).unwrap();
        Identity::kept_in(directory.path(), &names()).unwrap();
        assert!(!directory.path().join(CERTIFICATE_FILE).exists());
    }

    #[test]
    fn what_is_wrong_with_given_files_is_said() {
        let directory = tempfile::tempdir().unwrap();
        let other = tempfile::tempdir().unwrap();
        for directory in [&directory, &other] {
            Identity::kept_in(directory.path(), &names()).unwrap();
        }
        let certificate = directory.path().join(CERTIFICATE_FILE);
        let key = directory.path().join(KEY_FILE);
        let said = |certificate: &Path, key: &Path| {
            Identity::from_files(certificate, key)
                .unwrap_err()
                .to_string()
        };
        let nowhere = directory.path().join("nowhere.pem");
        let message = said(&nowhere, &key);
        assert!(
            message.starts_with("cannot read the TLS certificate ")
                && message.contains("nowhere.pem"),
            "{message}"
        );
        let message = said(&certificate, &nowhere);
        assert!(message.starts_with("cannot read the TLS key "), "{message}");
        let message = said(&certificate, &other.path().join(KEY_FILE));
        assert!(
            message.contains("cannot be served with the key"),
            "{message}"
        );
        let message = said(&key, &key);
        assert!(message.contains("no section CERTIFICATE"), "{message}");
        let message = said(&certificate, &certificate);
        assert!(message.contains("holds no TLS key"), "{message}");
        fs::write(
            &nowhere,
            "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n",
        )
        .unwrap();
        let message = said(&nowhere, &key);
        assert!(message.contains("holds no TLS certificate"), "{message}");
    }
}
