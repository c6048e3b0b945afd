//! Encrypted connections. The servers of the tests speak no TLS, so a proxy in front of one does.

use super::*;
use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use std::path::PathBuf;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

/// What a client says that wants TLS: its length, and a code in the place of a version.
/// <https://www.postgresql.org/docs/current/protocol-message-formats.html>, `SSLRequest`.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// A proxy that takes TLS only.
struct Proxy {
    port: u16,
    certificate: CertifiedKey<KeyPair>,
    folder: tempfile::TempDir,
    accepting: AbortHandle,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Proxy {
    async fn to(server: u16) -> Proxy {
        let certificate = generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(certificate.signing_key.serialize_der()).unwrap();
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.cert.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, acceptor.clone(), server));
            }
        });
        Proxy {
            port,
            certificate,
            folder: tempfile::tempdir().unwrap(),
            accepting: accepting.abort_handle(),
        }
    }

    fn file(&self, name: &str, certificate: &CertifiedKey<KeyPair>) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, certificate.cert.pem()).unwrap();
        path
    }
}

async fn pass(mut client: TcpStream, acceptor: TlsAcceptor, server: u16) -> std::io::Result<()> {
    let mut request = [0; 8];
    client.read_exact(&mut request).await?;
    if request != SSL_REQUEST {
        // As a server does that wants TLS: it hangs up.
        return Ok(());
    }
    client.write_all(b"S").await?;
    let mut client = acceptor.accept(client).await?;
    let mut server = TcpStream::connect(("127.0.0.1", server)).await?;
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}

/// Goal: `sslmode` of the URL is what counts: a certificate is looked at or not, as it says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_is_as_the_url_says() {
    let cluster = Cluster::shared().await;
    let plain = cluster.database().await;
    let proxy = Proxy::to(cluster.port()).await;
    let own = proxy.file("own.pem", &proxy.certificate);
    let foreign = generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let foreign = proxy.file("foreign.pem", &foreign);
    let server = format!("127.0.0.1:{}", cluster.port());
    let url = plain.replace(&server, &format!("127.0.0.1:{}", proxy.port));
    let with =
        |mode: &str, root: &PathBuf| format!("{url}?sslmode={mode}&sslrootcert={}", root.display());
    for good in [
        format!("{url}?sslmode=require"),
        url.clone(),
        with("verify-ca", &own),
        with("verify-full", &own),
    ] {
        holder(&open(&good).await, &good, &[]).await;
    }
    for bad in [
        with("verify-full", &foreign),
        with("verify-ca", &foreign),
        format!("{url}?sslmode=verify-full"),
    ] {
        let error = PostgresLeaseStore::connect(&bad).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration, "{bad}: {error}");
        assert!(error.to_string().contains("sslrootcert"), "{error}");
    }
    let plain = PostgresLeaseStore::connect(&format!("{url}?sslmode=disable")).await;
    assert_eq!(plain.unwrap_err().kind(), ErrorKind::Unavailable);
}
