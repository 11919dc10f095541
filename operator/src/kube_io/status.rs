//! The status of our kinds: one writer, server-side apply, only what changed.

use std::sync::Arc;

use behalf_crds::names;
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams};
use kube::{Client, Error, Resource};
use serde::Serialize;
use serde_json::json;

use super::is_not_found;
use crate::metrics::{Metrics, Object};

/// Writes statuses.
#[derive(Clone)]
pub struct Statuses {
    client: Client,
    metrics: Arc<Metrics>,
}

impl Statuses {
    /// Writes with this client.
    #[must_use]
    pub fn new(client: Client, metrics: Arc<Metrics>) -> Self {
        Self { client, metrics }
    }

    /// Writes `next` as the status of `object` unless it is `previous`; whether it wrote.
    ///
    /// The object's UID goes along, so that a re-made object does not get the status of the one before. An object that
    /// is gone needs no status.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn write<K, S>(&self, object: &K, previous: Option<&S>, next: &S) -> Result<bool, Error>
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
            "metadata": {"name": meta.name, "uid": meta.uid},
            "status": next,
        });
        let parameters = PatchParams::apply(names::MANAGER_STATUS).force();
        let name = meta.name.as_deref().unwrap_or_default();
        match api.patch_status(name, &parameters, &Patch::Apply(&patch)).await {
            Ok(_) => {
                self.metrics.wrote(Object::Status);
                Ok(true)
            }
            Err(error) if is_not_found(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
