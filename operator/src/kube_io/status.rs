//! The status of our kinds: one writer, server-side apply, only what changed.

use std::sync::Arc;

use behalf_crds::names;
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams};
use kube::{Client, Resource};
use serde::Serialize;
use serde_json::json;

use super::lease::Leadership;
use super::{WriteError, is_not_found};
use crate::metrics::{Metrics, Object};

/// Writes statuses.
#[derive(Clone)]
pub struct Statuses {
    client: Client,
    leadership: Leadership,
    metrics: Arc<Metrics>,
}

impl Statuses {
    /// Writes with this client, as long as this replica leads.
    #[must_use]
    pub fn new(client: Client, leadership: Leadership, metrics: Arc<Metrics>) -> Self {
        Self { client, leadership, metrics }
    }

    /// Writes `next` as the status of `object` unless it is `previous`; whether it wrote.
    ///
    /// The object's UID goes along, so that a re-made object does not get the status of the one before, and its resource
    /// version, so that whoever led before us and does not know it cannot undo what was written since. An object that is
    /// gone needs no status.
    ///
    /// # Errors
    /// We do not lead, or the API server refuses; a conflict means that `object` is out of date.
    pub async fn write<K, S>(&self, object: &K, previous: Option<&S>, next: &S) -> Result<bool, WriteError>
    where
        K: Resource<DynamicType = ()>,
        S: Serialize + PartialEq,
    {
        if previous == Some(next) {
            return Ok(false);
        }
        let (resource, meta) = (ApiResource::erase::<K>(&()), object.meta());
        let api: Api<DynamicObject> = match meta.namespace.as_deref() {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        };
        let patch = json!({
            "apiVersion": K::api_version(&()),
            "kind": K::kind(&()),
            "metadata": {"name": meta.name, "uid": meta.uid, "resourceVersion": meta.resource_version},
            "status": next,
        });
        let parameters = PatchParams::apply(names::MANAGER_STATUS).force();
        let name = meta.name.as_deref().unwrap_or_default();
        self.leadership.fence()?;
        match api.patch_status(name, &parameters, &Patch::Apply(&patch)).await {
            Ok(_) => {
                self.metrics.wrote(Object::Status);
                Ok(true)
            }
            Err(error) if is_not_found(&error) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}
