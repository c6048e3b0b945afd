//! The credentials that requests are signed with: fixed ones, or those of a provider, kept until shortly before they expire.
//!
//! A provider is asked by one caller at a time. While the credentials at hand are valid nobody else waits for it, so that a slow provider stops
//! no shard; and one that fails is not asked again at once.

use crate::client::target::Target;
use crate::clock::{self, Instant};
use crate::error::{Error, ErrorKind};
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// New credentials are asked for so long before the old ones expire.
const RENEW_BEFORE: Duration = Duration::from_mins(5);
/// Credentials are not used any more so long before they expire: a request takes its time.
const VALID_UNTIL_BEFORE: Duration = Duration::from_secs(10);
/// A provider may take so long.
const PROVIDER_TIMEOUT: Duration = Duration::from_secs(20);
/// After a failure, a provider is asked again no sooner, while the old credentials last.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(15);

/// Gives the target of requests with credentials that are valid.
#[derive(Debug)]
pub(super) struct Signer {
    place: Target,
    provider: Option<SharedCredentialsProvider>,
    /// One short lock around plain data; never held across an await.
    kept: Mutex<Kept>,
    /// Held by whoever asks the provider: the others that cannot do without wait for it.
    asking: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Kept {
    target: Option<Arc<Target>>,
    /// When the provider may be asked after a failure.
    ask_after: Option<Instant>,
}

/// What the credentials at hand are good for.
enum State {
    Fresh(Arc<Target>),
    /// Still valid, but to be renewed.
    Aging(Arc<Target>),
    None,
}

impl Signer {
    /// Signs with the credentials of `target` for ever, or with those of a provider.
    pub(super) fn new(target: Target, provider: Option<SharedCredentialsProvider>) -> Self {
        let kept = Kept {
            target: provider.is_none().then(|| Arc::new(target.clone())),
            ask_after: None,
        };
        Signer {
            place: target,
            provider,
            kept: Mutex::new(kept),
            asking: tokio::sync::Mutex::new(()),
        }
    }

    /// The endpoint and region, which never change.
    pub(super) fn place(&self) -> &Target {
        &self.place
    }

    fn with<T>(&self, act: impl FnOnce(&mut Kept) -> T) -> T {
        act(&mut self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn state(&self) -> State {
        self.with(|kept| {
            let Some(target) = &kept.target else {
                return State::None;
            };
            let left = left(target.credentials.expiry());
            let may_ask = kept.ask_after.is_none_or(|after| after <= clock::now());
            match left {
                Some(left) if left <= VALID_UNTIL_BEFORE => State::None,
                Some(left) if left <= RENEW_BEFORE && may_ask => State::Aging(Arc::clone(target)),
                Some(_) | None => State::Fresh(Arc::clone(target)),
            }
        })
    }

    /// Where to send a request, with credentials to sign it.
    ///
    /// # Errors
    /// `Configuration`: there are no credentials, or the provider is set up wrongly. `Unavailable`: it failed or took too long.
    pub(super) async fn target(&self) -> Result<Arc<Target>, Error> {
        match self.state() {
            State::Fresh(target) => Ok(target),
            State::Aging(old) => match self.asking.try_lock() {
                Ok(_asking) => Ok(self.ask().await.unwrap_or(old)),
                Err(_) => Ok(old),
            },
            State::None => {
                let _asking = self.asking.lock().await;
                match self.state() {
                    State::Fresh(target) | State::Aging(target) => Ok(target),
                    State::None => self.ask().await,
                }
            }
        }
    }

    /// These credentials were refused as expired: gives whether there are others now.
    pub(super) async fn renew(&self, refused: &Arc<Target>) -> bool {
        if self.provider.is_none() {
            return false;
        }
        let _asking = self.asking.lock().await;
        let is_old = |kept: &mut Kept| {
            let current = kept.target.as_ref();
            current.is_none_or(|current| Arc::ptr_eq(current, refused))
        };
        if !self.with(is_old) {
            return true;
        }
        match self.ask().await {
            Ok(new) => new.credentials.access_key_id() != refused.credentials.access_key_id(),
            Err(_) => false,
        }
    }

    /// Asks the provider; to be called by one at a time.
    async fn ask(&self) -> Result<Arc<Target>, Error> {
        let Some(provider) = &self.provider else {
            return Ok(Arc::new(self.place.clone()));
        };
        let asked = tokio::time::timeout(PROVIDER_TIMEOUT, provider.provide_credentials()).await;
        let timed_out = || CredentialsError::provider_timed_out(PROVIDER_TIMEOUT);
        match asked.unwrap_or_else(|_| Err(timed_out())) {
            Ok(credentials) => {
                tracing::debug!(expiry = ?credentials.expiry(), "credentials were loaded");
                let target = Arc::new(Target {
                    credentials,
                    ..self.place.clone()
                });
                self.with(|kept| {
                    kept.target = Some(Arc::clone(&target));
                    kept.ask_after = None;
                });
                Ok(target)
            }
            Err(error) => {
                tracing::warn!(error = %chain(&error), "credentials cannot be loaded");
                self.with(|kept| kept.ask_after = Some(clock::now() + PAUSE_AFTER_FAILURE));
                Err(explain(&error))
            }
        }
    }
}

/// How long credentials are valid; `None` for ever.
fn left(expiry: Option<SystemTime>) -> Option<Duration> {
    expiry.map(|expiry| expiry.duration_since(clock::wall()).unwrap_or_default())
}

fn explain(error: &CredentialsError) -> Error {
    let (kind, what) = match error {
        CredentialsError::CredentialsNotLoaded(_) => (
            ErrorKind::Configuration,
            "there are no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, name a profile in AWS_PROFILE, or give the machine a role",
        ),
        CredentialsError::InvalidConfiguration(_) => (
            ErrorKind::Configuration,
            "the credentials are not configured rightly",
        ),
        _ => (ErrorKind::Unavailable, "credentials cannot be loaded"),
    };
    Error::with_source(kind, what, chain(error))
}

/// An error with all its causes: the outermost says little.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
