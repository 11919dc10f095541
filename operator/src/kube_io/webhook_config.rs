//! The authority in our own webhook configuration: put in, and put back when somebody takes it out.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use behalf_crds::names;
use futures::StreamExt as _;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{Config, Event, watcher};
use kube::{Client, Error};
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::secrets::Secrets;
use crate::certs::issue::Material;
use crate::metrics::{Metrics, Object};

/// How soon a refused write is repeated.
const RETRY: Duration = Duration::from_secs(5);

/// Our webhook configuration.
#[derive(Clone)]
pub struct WebhookConfiguration {
    api: Api<MutatingWebhookConfiguration>,
    name: String,
    secrets: Secrets,
    metrics: Arc<Metrics>,
}

impl WebhookConfiguration {
    /// The configuration called `name`. The authorities are in the certificate Secret among `secrets`.
    #[must_use]
    pub fn new(client: Client, name: &str, secrets: Secrets, metrics: Arc<Metrics>) -> Self {
        Self { api: Api::all(client), name: name.to_owned(), secrets, metrics }
    }

    /// Keeps the newest authorities in the configuration until told to stop; `installed` gets those that are there (PEM).
    ///
    /// Every replica does so, not only the one that holds the Lease: what to write is in the Secret and the same for all,
    /// each write carries the resource version that was seen, and a process without the role to reconcile serves as well.
    pub async fn keep(
        self,
        mut authorities: watch::Receiver<Option<String>>,
        installed: watch::Sender<Option<String>>,
        stop: CancellationToken,
    ) {
        let config = Config::default().fields(&format!("metadata.name={}", self.name));
        let mut changes = pin!(watcher(self.api.clone(), config).default_backoff());
        let mut seen: Option<MutatingWebhookConfiguration> = None;
        loop {
            let there = seen.as_ref().and_then(Self::installed);
            installed.send_if_modified(|held| {
                let news = *held != there;
                *held = there;
                news
            });
            let failed = self.compare(seen.as_ref(), &authorities).await;
            tokio::select! {
                () = stop.cancelled() => return,
                change = changes.next() => match change {
                    Some(Ok(Event::Apply(object) | Event::InitApply(object))) => seen = Some(object),
                    Some(Ok(Event::Delete(_) | Event::Init)) => seen = None,
                    Some(Ok(Event::InitDone)) => {}
                    Some(Err(error)) => tracing::warn!(error = %error, "cannot watch the webhook configuration"),
                    None => return,
                },
                renewed = authorities.changed() => if renewed.is_err() { return },
                () = tokio::time::sleep(RETRY), if failed => {}
            }
        }
    }

    /// Whether something was wrong and could not be repaired.
    async fn compare(
        &self,
        seen: Option<&MutatingWebhookConfiguration>,
        authorities: &watch::Receiver<Option<String>>,
    ) -> bool {
        let wanted = authorities.borrow().clone();
        let (Some(seen), Some(wanted)) = (seen, wanted) else { return false };
        if !Self::differs(seen, &wanted) {
            return false;
        }
        match self.repair_from_secret(seen).await {
            Ok(_) => false,
            Err(error) => {
                tracing::error!(error = %error, "cannot write the authority into the webhook configuration");
                true
            }
        }
    }

    /// What differs from what we know may be right: another replica may just have renewed the authority. The Secret
    /// decides, or two replicas would undo each other's work.
    async fn repair_from_secret(&self, seen: &MutatingWebhookConfiguration) -> Result<bool, Error> {
        let found = self.secrets.get(names::SECRET_WEBHOOK_CERTS).await?;
        match found.and_then(|found| Material::from_data(&found.data).ok()) {
            Some(material) => self.repair(seen, &material.authorities).await,
            None => Ok(false),
        }
    }

    /// The authorities by which the API server trusts our webhook.
    fn installed(seen: &MutatingWebhookConfiguration) -> Option<String> {
        let ours = seen.webhooks.iter().flatten().find(|webhook| webhook.name == names::WEBHOOK_NAME)?;
        String::from_utf8(ours.client_config.ca_bundle.as_ref()?.0.clone()).ok()
    }

    /// A configuration without our webhook is left alone: it is somebody else's, or comes from another release.
    fn differs(seen: &MutatingWebhookConfiguration, authorities: &str) -> bool {
        let ours = seen.webhooks.iter().flatten().find(|webhook| webhook.name == names::WEBHOOK_NAME);
        ours.is_some_and(|ours| {
            ours.client_config.ca_bundle.as_ref().is_none_or(|held| held.0 != authorities.as_bytes())
        })
    }

    /// Writes `authorities` (PEM) unless they are there already; whether it wrote.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn repair(
        &self,
        seen: &MutatingWebhookConfiguration,
        authorities: &str,
    ) -> Result<bool, Error> {
        if !Self::differs(seen, authorities) {
            return Ok(false);
        }
        let patch = json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "MutatingWebhookConfiguration",
            // Without the version, applying to one that was just deleted would create half a configuration.
            "metadata": {"name": self.name, "resourceVersion": seen.metadata.resource_version},
            "webhooks": [{
                "name": names::WEBHOOK_NAME,
                "clientConfig": {"caBundle": STANDARD.encode(authorities)},
            }],
        });
        let parameters = PatchParams::apply(names::MANAGER_WEBHOOK_CERTS).force();
        self.api.patch(&self.name, &parameters, &Patch::Apply(&patch)).await?;
        self.metrics.wrote(Object::WebhookConfiguration);
        tracing::info!(name = self.name, "wrote the authority into the webhook configuration");
        Ok(true)
    }
}
