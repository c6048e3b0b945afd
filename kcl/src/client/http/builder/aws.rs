//! What AWS's own configuration says: profiles, SSO, web identity, the roles of containers and machines.
//!
//! It stands behind what the builder and the environment say, by the names of the variables that would say it.

use super::HttpClientBuilder;
use crate::client::HttpClient;
use crate::client::target::region_of;
use crate::error::{Error, ErrorKind};
use aws_config::imds::region::ImdsRegionProvider;
use aws_config::meta::region::{ProvideRegion, RegionProviderChain};
use aws_config::profile::ProfileFileRegionProvider;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_types::service_config::ServiceConfigKey;
use std::collections::BTreeMap;
use std::time::Duration;

/// Reading files is quick; what is slower is a mount or a process that hangs.
const LOAD_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the machine is asked for its region: off EC2 nobody answers.
const REGION_TIMEOUT: Duration = Duration::from_secs(2);
/// Without one of these (or a profile that names the endpoint) an endpoint of one's own needs no credentials: nobody is asked for any.
const WANTED_BY: [&str; 4] = [
    "AWS_PROFILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
];

impl HttpClientBuilder {
    /// The client, with what neither the builder nor the variables say taken from where AWS's own tools look: `~/.aws/config` and
    /// `~/.aws/credentials` with `AWS_PROFILE` (region, `endpoint_url` also of a `services` section, FIPS and dual stack, keys, roles, SSO, processes), web
    /// identity, the credentials of ECS and EKS containers, and IMDS on EC2. [`WorkerBuilder::build`](crate::WorkerBuilder::build) does so
    /// by itself.
    ///
    /// Credentials are loaded with the first request. An endpoint of one's own is given the placeholder `millstream`, unless a profile, web identity or container
    /// is named.
    ///
    /// # Errors
    /// Those of [`build`](HttpClientBuilder::build). `Unavailable`: the configuration could not be read within five seconds.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn load(mut self) -> Result<HttpClient, Error> {
        let env = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let region = self.region.clone();
        let region = region
            .or_else(|| region_of(&self.stream).map(str::to_owned))
            .or_else(|| env("AWS_REGION"))
            .or_else(|| env("AWS_DEFAULT_REGION"));
        let chain = RegionProviderChain::first_try(region.map(Region::new))
            .or_else(ProfileFileRegionProvider::new());
        let loader = aws_config::defaults(BehaviorVersion::latest()).region(chain);
        let config = tokio::time::timeout(LOAD_TIMEOUT, loader.load()).await;
        let config = config.map_err(|_| {
            let message =
                format!("the configuration of AWS could not be read within {LOAD_TIMEOUT:?}");
            Error::new(ErrorKind::Unavailable, message)
        })?;
        let is_own = self.endpoint.is_some()
            || env("AWS_ENDPOINT_URL_KINESIS").is_some()
            || env("AWS_ENDPOINT_URL").is_some();
        let found = found(&config, is_own).await;
        let has_keys = env("AWS_ACCESS_KEY_ID").is_some() || env("AWS_SECRET_ACCESS_KEY").is_some();
        let wanted = !is_own || WANTED_BY.iter().any(|name| env(name).is_some());
        if self.provider.is_none() && !has_keys && wanted {
            self.provider = config.credentials_provider();
        }
        self.build_with(&|name| env(name).or_else(|| found.get(name).cloned()))
    }
}

/// What was found, as the variables that would say it.
async fn found(config: &SdkConfig, is_own: bool) -> BTreeMap<&'static str, String> {
    let mut found = BTreeMap::new();
    let service = ServiceConfigKey::builder()
        .service_id("Kinesis")
        .env("AWS_ENDPOINT_URL")
        .profile("endpoint_url")
        .build()
        .ok();
    let of_service = config.service_config().zip(service);
    let of_service = of_service.and_then(|(config, key)| config.load_config(key));
    let endpoint = of_service.or_else(|| config.endpoint_url().map(str::to_owned));
    let mut region = config.region().cloned();
    if region.is_none() && endpoint.is_none() && !is_own {
        let machine = ImdsRegionProvider::builder().build();
        let asked = tokio::time::timeout(REGION_TIMEOUT, ProvideRegion::region(&machine)).await;
        region = asked.ok().flatten();
    }
    // What the environment says of endpoints counts before what a profile says.
    if let Some(endpoint) = endpoint.filter(|_| !is_own) {
        found.insert("AWS_ENDPOINT_URL", endpoint);
    }
    if let Some(region) = region {
        found.insert("AWS_REGION", region.to_string());
    }
    if config.use_fips() == Some(true) {
        found.insert("AWS_USE_FIPS_ENDPOINT", "true".to_owned());
    }
    if config.use_dual_stack() == Some(true) {
        found.insert("AWS_USE_DUALSTACK_ENDPOINT", "true".to_owned());
    }
    found
}
