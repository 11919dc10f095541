//! The objects with the counts of an identity's pods: written before a status shows them, so that no later one forgets.

use std::sync::Arc;

use behalf_crds::names;
use behalf_plan::reports;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, Error};

use super::WriteError;
use super::lease::Leadership;
use crate::metrics::{Metrics, Object};

/// Reads and writes counts.
#[derive(Clone)]
pub struct Counts {
    client: Client,
    leadership: Leadership,
    metrics: Arc<Metrics>,
}

impl Counts {
    /// Writes with this client, as long as this replica leads.
    #[must_use]
    pub fn new(client: Client, leadership: Leadership, metrics: Arc<Metrics>) -> Self {
        Self { client, leadership, metrics }
    }

    /// The object of an identity, if there is one.
    ///
    /// # Errors
    /// The API server cannot be asked.
    pub async fn read(&self, namespace: &str, identity: &str) -> Result<Option<ConfigMap>, Error> {
        let api = Api::<ConfigMap>::namespaced(self.client.clone(), namespace);
        api.get_opt(&names::counts_configmap(identity)).await
    }

    /// Puts the ledger in place of `seen`, what the writer knows to be there. Returns what the server made of it.
    ///
    /// # Errors
    /// We do not lead, or the API server refuses; a conflict means that `seen` is out of date.
    pub async fn write(
        &self,
        namespace: &str,
        identity: &str,
        ledger: String,
        seen: Option<&ConfigMap>,
    ) -> Result<ConfigMap, WriteError> {
        let api = Api::<ConfigMap>::namespaced(self.client.clone(), namespace);
        let mut object = reports::config_map(namespace, identity, ledger);
        let written = if let Some(seen) = seen {
            object.metadata.resource_version.clone_from(&seen.metadata.resource_version);
            object.metadata.uid.clone_from(&seen.metadata.uid);
            let parameters = PatchParams::apply(names::MANAGER_COUNTS).force();
            self.leadership.fence()?;
            api.patch(&names::counts_configmap(identity), &parameters, &Patch::Apply(&object)).await?
        } else {
            let manager = Some(names::MANAGER_COUNTS.to_owned());
            self.leadership.fence()?;
            api.create(&PostParams { field_manager: manager, ..PostParams::default() }, &object).await?
        };
        self.metrics.wrote(Object::Counts);
        Ok(written)
    }
}
