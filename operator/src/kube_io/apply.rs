//! The objects the operator makes: bundles, and the parameters of the admission policies.

use std::collections::BTreeMap;
use std::sync::Arc;

use behalf_crds::names;
use behalf_plan::bundle_object;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Client, Error};

use super::WriteError;
use super::lease::Leadership;
use crate::metrics::{Metrics, Object};

/// Field manager of the parameters of the admission policies.
const MANAGER_ADMISSION: &str = "behalf/admission";

/// Writes objects.
#[derive(Clone)]
pub struct Apply {
    client: Client,
    leadership: Leadership,
    metrics: Arc<Metrics>,
}

impl Apply {
    /// Writes with this client, as long as this replica leads.
    #[must_use]
    pub fn new(client: Client, leadership: Leadership, metrics: Arc<Metrics>) -> Self {
        Self { client, leadership, metrics }
    }

    /// Puts a signed bundle in place of `seen`, what the writer knows to be there. Returns what the server made of it.
    ///
    /// The first one is created, not applied: applying would silently merge into an object somebody else just made,
    /// while creating, like applying with a resource version, is refused (HTTP 409).
    ///
    /// # Errors
    /// We do not lead, or the API server refuses; a conflict means that `seen` is out of date.
    pub async fn bundle(
        &self,
        namespace: &str,
        identity: &str,
        signed: String,
        seen: Option<&ConfigMap>,
    ) -> Result<ConfigMap, WriteError> {
        let api = Api::<ConfigMap>::namespaced(self.client.clone(), namespace);
        let mut object = bundle_object::config_map(namespace, identity, signed);
        let written = if let Some(seen) = seen {
            object.metadata.resource_version.clone_from(&seen.metadata.resource_version);
            object.metadata.uid.clone_from(&seen.metadata.uid);
            let parameters = PatchParams::apply(names::MANAGER_BUNDLE).force();
            self.leadership.fence()?;
            api.patch(&names::bundle_configmap(identity), &parameters, &Patch::Apply(&object)).await?
        } else {
            let manager = Some(names::MANAGER_BUNDLE.to_owned());
            self.leadership.fence()?;
            api.create(&PostParams { field_manager: manager, ..PostParams::default() }, &object).await?
        };
        self.metrics.wrote(Object::Bundle);
        Ok(written)
    }

    /// The bundle object as it is now, not as a cache has it.
    ///
    /// # Errors
    /// The API server cannot be asked.
    pub async fn read_bundle(&self, namespace: &str, identity: &str) -> Result<Option<ConfigMap>, Error> {
        let api = Api::<ConfigMap>::namespaced(self.client.clone(), namespace);
        api.get_opt(&names::bundle_configmap(identity)).await
    }

    /// The parameters of the admission policies as they are now.
    ///
    /// # Errors
    /// The API server cannot be asked.
    pub async fn read_parameters(&self, namespace: &str) -> Result<Option<BTreeMap<String, String>>, Error> {
        let api = Api::<ConfigMap>::namespaced(self.client.clone(), namespace);
        Ok(api.get_opt(names::CONFIGMAP_TRUST).await?.map(|held| held.data.unwrap_or_default()))
    }

    /// Writes the parameters of the admission policies unless they are there already; whether it wrote. The first time
    /// they are created, later applied over the version that was read: either is refused if somebody else came between.
    ///
    /// # Errors
    /// We do not lead, or the API server refuses.
    pub async fn admission_parameters(
        &self,
        namespace: &str,
        data: BTreeMap<String, String>,
    ) -> Result<bool, WriteError> {
        let api = Api::<ConfigMap>::namespaced(self.client.clone(), namespace);
        let held = api.get_opt(names::CONFIGMAP_TRUST).await?;
        if held.as_ref().is_some_and(|held| held.data.as_ref() == Some(&data)) {
            return Ok(false);
        }
        let mut object = ConfigMap {
            metadata: ObjectMeta {
                name: Some(names::CONFIGMAP_TRUST.to_owned()),
                namespace: Some(namespace.to_owned()),
                labels: Some(
                    [
                        (names::LABEL_PART_OF, names::PART_OF),
                        (names::LABEL_MANAGED_BY, names::MANAGED_BY),
                        (names::LABEL_COMPONENT, "admission"),
                    ]
                    .map(|(key, value)| (key.to_owned(), value.to_owned()))
                    .into(),
                ),
                ..ObjectMeta::default()
            },
            data: Some(data),
            ..ConfigMap::default()
        };
        if let Some(held) = held {
            object.metadata.resource_version = held.metadata.resource_version;
            object.metadata.uid = held.metadata.uid;
            let parameters = PatchParams::apply(MANAGER_ADMISSION).force();
            self.leadership.fence()?;
            api.patch(names::CONFIGMAP_TRUST, &parameters, &Patch::Apply(&object)).await?;
        } else {
            let manager = Some(MANAGER_ADMISSION.to_owned());
            self.leadership.fence()?;
            api.create(&PostParams { field_manager: manager, ..PostParams::default() }, &object).await?;
        }
        self.metrics.wrote(Object::AdmissionParameters);
        Ok(true)
    }
}
