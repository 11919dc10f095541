//! The operator's own Secrets: read, watched, created and replaced by name, and no other.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;

use behalf_crds::names;
use futures::{Stream, StreamExt as _};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ObjectMeta, PostParams};
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{Config, Event, watcher};
use kube::{Client, Error};

use super::is_conflict;

/// The Secrets of one namespace.
#[derive(Clone)]
pub struct Secrets {
    api: Api<Secret>,
    metadata: Api<PartialObjectMeta<Secret>>,
    manager: &'static str,
}

/// A Secret as it was read.
pub struct Found {
    /// Its data.
    pub data: BTreeMap<String, ByteString>,
    metadata: ObjectMeta,
}

/// Shows no data.
impl fmt::Debug for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Found").field("name", &self.metadata.name).finish_non_exhaustive()
    }
}

impl Found {
    /// The value of an annotation.
    #[must_use]
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.metadata.annotations.as_ref()?.get(key).map(String::as_str)
    }
}

impl Secrets {
    /// The Secrets of `namespace`, written as `manager`.
    #[must_use]
    pub fn new(client: Client, namespace: &str, manager: &'static str) -> Self {
        let metadata = Api::namespaced(client.clone(), namespace);
        Self { api: Api::namespaced(client, namespace), metadata, manager }
    }

    /// Says that the Secret may have changed, each time it may have; also once at first. Brings no content, so that none
    /// lies about.
    #[must_use]
    pub fn changes(&self, name: &str) -> Pin<Box<dyn Stream<Item = ()> + Send>> {
        let config = Config::default().fields(&format!("metadata.name={name}"));
        let events = watcher(self.metadata.clone(), config).default_backoff();
        Box::pin(events.filter_map(|event| async {
            match event {
                Ok(Event::Apply(_) | Event::Delete(_) | Event::InitDone) => Some(()),
                Ok(Event::Init | Event::InitApply(_)) => None,
                Err(error) => {
                    tracing::warn!(error = %error, "cannot watch a Secret; it is read from time to time");
                    None
                }
            }
        }))
    }

    /// The Secret, if there is one.
    ///
    /// # Errors
    /// The API server cannot be asked.
    pub async fn get(&self, name: &str) -> Result<Option<Found>, Error> {
        let secret = self.api.get_opt(name).await?;
        Ok(secret.map(|secret| Found { data: secret.data.unwrap_or_default(), metadata: secret.metadata }))
    }

    /// Creates the Secret; `false`: there is one already, read it.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn create(&self, name: &str, data: BTreeMap<String, ByteString>) -> Result<bool, Error> {
        let metadata = ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(
                [(names::LABEL_PART_OF, names::PART_OF), (names::LABEL_MANAGED_BY, names::MANAGED_BY)]
                    .map(|(key, value)| (key.to_owned(), value.to_owned()))
                    .into(),
            ),
            ..ObjectMeta::default()
        };
        let secret = Secret { metadata, data: Some(data), ..Secret::default() };
        won(self.api.create(&self.parameters(), &secret).await)
    }

    /// Replaces what was read; `false`: somebody else did so meanwhile, read again.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn replace(
        &self,
        name: &str,
        found: Found,
        data: BTreeMap<String, ByteString>,
    ) -> Result<bool, Error> {
        // The resource version among the metadata makes the API server refuse if the Secret changed.
        let secret = Secret { metadata: found.metadata, data: Some(data), ..Secret::default() };
        won(self.api.replace(name, &self.parameters(), &secret).await)
    }

    fn parameters(&self) -> PostParams {
        PostParams { field_manager: Some(self.manager.to_owned()), ..PostParams::default() }
    }
}

fn won(result: Result<Secret, Error>) -> Result<bool, Error> {
    match result {
        Ok(_) => Ok(true),
        Err(error) if is_conflict(&error) => Ok(false),
        Err(error) => Err(error),
    }
}
