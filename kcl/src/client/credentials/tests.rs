//! When a provider is asked, and who waits for it.

use super::*;
use aws_credential_types::Credentials;
use aws_credential_types::provider::future;
use std::sync::atomic::{AtomicU32, Ordering};

/// Gives credentials that are valid for a while, each time others, after some time.
#[derive(Debug, Default, Clone)]
struct Provider {
    asked: Arc<AtomicU32>,
    valid: Duration,
    takes: Duration,
    fails_after: Option<u32>,
}

impl ProvideCredentials for Provider {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async move {
            let number = self.asked.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(self.takes).await;
            if self.fails_after.is_some_and(|after| number >= after) {
                return Err(CredentialsError::provider_error("the provider is down"));
            }
            let expiry = clock::wall() + self.valid;
            let id = format!("key-{number}");
            Ok(Credentials::new(id, "secret", None, Some(expiry), "test"))
        })
    }
}

fn signer(provider: Provider) -> Arc<Signer> {
    let target = Target::resolve(Some("http://127.0.0.1:1"), None, "s", &|_| None).unwrap();
    let provider = SharedCredentialsProvider::new(provider);
    Arc::new(Signer::new(target, Some(provider)))
}

async fn key(signer: &Signer) -> String {
    let target = signer.target().await.unwrap();
    target.credentials.access_key_id().to_owned()
}

#[tokio::test(start_paused = true)]
async fn many_callers_ask_a_provider_once() {
    let provider = Provider {
        valid: Duration::from_hours(1),
        takes: Duration::from_secs(2),
        ..Provider::default()
    };
    let signer = signer(provider.clone());
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let signer = Arc::clone(&signer);
        callers.spawn(async move { key(&signer).await });
    }
    assert!(callers.join_all().await.iter().all(|key| key == "key-0"));
    assert_eq!(provider.asked.load(Ordering::Relaxed), 1);
}

/// Goal: shards go on with credentials that are valid, however slow the provider is. Method: credentials that are to be renewed from the
/// beginning on, and a provider that takes ten seconds.
#[tokio::test(start_paused = true)]
async fn a_slow_renewal_keeps_one_caller_only() {
    let provider = Provider {
        valid: RENEW_BEFORE * 9 / 10,
        takes: Duration::from_secs(10),
        ..Provider::default()
    };
    let signer = signer(provider.clone());
    assert_eq!(key(&signer).await, "key-0");
    let renewing = tokio::spawn({
        let signer = Arc::clone(&signer);
        async move { key(&signer).await }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    let began = clock::now();
    assert_eq!(key(&signer).await, "key-0");
    assert_eq!(clock::now(), began, "the others do not wait");
    assert_eq!(renewing.await.unwrap(), "key-1");
    assert_eq!(provider.asked.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn old_credentials_are_used_while_a_provider_fails() {
    let provider = Provider {
        valid: RENEW_BEFORE,
        fails_after: Some(1),
        ..Provider::default()
    };
    let signer = signer(provider.clone());
    for _ in 0..10 {
        assert_eq!(key(&signer).await, "key-0");
    }
    assert_eq!(provider.asked.load(Ordering::Relaxed), 2, "once in vain");
    tokio::time::advance(PAUSE_AFTER_FAILURE).await;
    assert_eq!(key(&signer).await, "key-0");
    assert_eq!(provider.asked.load(Ordering::Relaxed), 3);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_loaded_is_an_error_that_says_why() {
    let down = Provider {
        fails_after: Some(0),
        ..Provider::default()
    };
    let error = signer(down).target().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(
        error.to_string().contains("the provider is down"),
        "{error}"
    );
    let hung = Provider {
        takes: Duration::from_hours(1),
        ..Provider::default()
    };
    let error = signer(hung).target().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let none = explain(&CredentialsError::not_loaded("nothing anywhere"));
    assert_eq!(none.kind(), ErrorKind::Configuration);
    assert!(none.to_string().contains("AWS_PROFILE"), "{none}");
}

/// Goal: credentials that are refused are asked for anew, once for all that were refused with them.
#[tokio::test(start_paused = true)]
async fn refused_credentials_are_renewed_once() {
    let provider = Provider {
        valid: Duration::from_hours(1),
        ..Provider::default()
    };
    let signer = signer(provider.clone());
    let old = signer.target().await.unwrap();
    assert!(signer.renew(&old).await && signer.renew(&old).await);
    assert_eq!(provider.asked.load(Ordering::Relaxed), 2);
    let target = Target::resolve(Some("http://127.0.0.1:1"), None, "s", &|_| None).unwrap();
    let fixed = Signer::new(target, None);
    let only = fixed.target().await.unwrap();
    assert!(!fixed.renew(&only).await, "there are no others");
}
