//! Copies of what the API server holds, kept current by one watch per kind, and word of every change.
//!
//! The reconciler and the webhook read the same copies. A copy may lag; whoever needs certainty asks the API server.

use std::fmt::Debug;
use std::sync::Arc;

use behalf_crds::names;
use behalf_crds::v1alpha1::{AgentIdentity, IdentityProvider, ScopeCatalog};
use behalf_plan::bundle_object;
use behalf_plan::bypass::LABEL_SERVICE;
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Service, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::Api;
use kube::core::DeserializeGuard;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::reflector::store::{Store, Writer, WriterDropped, store};
use kube::runtime::watcher::{Config, Event, watcher};
use kube::{Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use tokio::sync::watch::error::RecvError;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// Annotations by which scrapers are told a port; the webhook warns of those that the packet rules close.
const SCRAPERS: &str = "prometheus.io/";

/// An `AgentIdentity`, or the metadata of one that cannot be read.
pub type GuardedIdentity = DeserializeGuard<AgentIdentity>;
/// A `ScopeCatalog`, or the metadata of one that cannot be read.
pub type GuardedCatalog = DeserializeGuard<ScopeCatalog>;
/// An `IdentityProvider`, or the metadata of one that cannot be read.
pub type GuardedProvider = DeserializeGuard<IdentityProvider>;

/// What happened to an object: what it was and what it is now.
#[derive(Debug)]
pub enum Change {
    /// A copy was filled anew: anything may have changed.
    Everything,
    /// An identity.
    Identity(Was<GuardedIdentity>),
    /// A catalogue.
    Catalog(Was<GuardedCatalog>),
    /// A provider.
    Provider(Was<GuardedProvider>),
    /// A namespace.
    Namespace(Was<Namespace>),
    /// A pod with our label.
    Pod(Was<Pod>),
    /// A bundle.
    Bundle(Was<ConfigMap>),
    /// A Service.
    Service(Was<Service>),
    /// Endpoints of a Service.
    Slice(Was<EndpointSlice>),
    /// Something was learnt of the pods of an identity that no object says: by a report of theirs or by a trial.
    Learnt {
        /// Namespace of the identity.
        namespace: String,
        /// Its name.
        name: String,
    },
}

/// An object before and after; at least one is there.
#[derive(Debug)]
pub struct Was<K> {
    /// Before; none if it is new.
    pub old: Option<Arc<K>>,
    /// After; none if it is gone.
    pub new: Option<Arc<K>>,
}

impl<K> Was<K> {
    /// Both, as far as they are there.
    pub fn both(&self) -> impl Iterator<Item = &K> {
        self.old.iter().chain(&self.new).map(AsRef::as_ref)
    }
}

/// The copies.
#[derive(Clone)]
pub struct Caches {
    /// All identities.
    pub identities: Store<GuardedIdentity>,
    /// All catalogues.
    pub catalogs: Store<GuardedCatalog>,
    /// All providers.
    pub providers: Store<GuardedProvider>,
    /// All namespaces.
    pub namespaces: Store<Namespace>,
    /// Pods that carry our label.
    pub pods: Store<Pod>,
    /// Bundles.
    pub bundles: Store<ConfigMap>,
    /// All Services, with selector, ports and the annotations of scrapers.
    pub services: Store<Service>,
    /// All endpoints of Services, with addresses, readiness and ports.
    pub slices: Store<EndpointSlice>,
    /// Whether each of them was filled once. A [`Store`] wakes only the last of those that wait for it, so one task waits
    /// there, and everybody else here.
    pub ready: watch::Receiver<bool>,
}

/// The ends at which [`Caches`] are filled.
pub struct Writers {
    identities: Writer<GuardedIdentity>,
    catalogs: Writer<GuardedCatalog>,
    providers: Writer<GuardedProvider>,
    namespaces: Writer<Namespace>,
    pods: Writer<Pod>,
    bundles: Writer<ConfigMap>,
    services: Writer<Service>,
    slices: Writer<EndpointSlice>,
    ready: watch::Sender<bool>,
}

impl Caches {
    /// Empty copies and the ends at which they are filled.
    #[must_use]
    pub fn new() -> (Self, Writers) {
        let (identities, to_identities) = store();
        let (catalogs, to_catalogs) = store();
        let (providers, to_providers) = store();
        let (namespaces, to_namespaces) = store();
        let (pods, to_pods) = store();
        let (bundles, to_bundles) = store();
        let (services, to_services) = store();
        let (slices, to_slices) = store();
        let (to_ready, ready) = watch::channel(false);
        (
            Self { identities, catalogs, providers, namespaces, pods, bundles, services, slices, ready },
            Writers {
                identities: to_identities,
                catalogs: to_catalogs,
                providers: to_providers,
                namespaces: to_namespaces,
                pods: to_pods,
                bundles: to_bundles,
                services: to_services,
                slices: to_slices,
                ready: to_ready,
            },
        )
    }

    /// Waits until every copy was filled once.
    ///
    /// # Errors
    /// A watch ended; the process is about to end too.
    pub async fn filled(&self) -> Result<(), RecvError> {
        self.ready.clone().wait_for(|ready| *ready).await.map(drop)
    }

    /// Whether every copy was filled once.
    #[must_use]
    pub fn are_filled(&self) -> bool {
        *self.ready.borrow()
    }

    /// The one wait for all of them.
    async fn each_filled(&self) -> Result<(), WriterDropped> {
        let Self { identities, catalogs, providers, namespaces, pods, bundles, services, slices, ready: _ } =
            self;
        identities.wait_until_ready().await?;
        catalogs.wait_until_ready().await?;
        providers.wait_until_ready().await?;
        namespaces.wait_until_ready().await?;
        pods.wait_until_ready().await?;
        bundles.wait_until_ready().await?;
        services.wait_until_ready().await?;
        slices.wait_until_ready().await
    }
}

impl Writers {
    /// Starts the watches, each a task that ends with `stop`. `changes` gets word of every change; none: nobody asks.
    pub fn watch(
        self,
        client: &Client,
        caches: &Caches,
        changes: Option<mpsc::Sender<Change>>,
        metrics: &Arc<Metrics>,
        stop: &CancellationToken,
        tasks: &mut JoinSet<()>,
    ) {
        let Self { identities, catalogs, providers, namespaces, pods, bundles, services, slices, ready } =
            self;
        let (copies, end) = (caches.clone(), stop.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = end.cancelled() => return,
                filled = copies.each_filled() => if filled.is_err() { return },
            }
            ready.send_replace(true);
            end.cancelled().await;
        });
        let all = Config::default();
        let labelled = all.clone().labels(names::LABEL_AGENT_IDENTITY);
        let ours = all.clone().labels(&bundle_object::selector());
        let watch =
            Watch { client: client.clone(), changes, metrics: Arc::clone(metrics), stop: stop.clone() };
        let copy = caches.clone();
        let mut start = Start { watch, tasks };
        start.watch(&all, whole, identities, copy.identities, Change::Identity);
        start.watch(&all, whole, catalogs, copy.catalogs, Change::Catalog);
        start.watch(&all, whole, providers, copy.providers, Change::Provider);
        start.watch(&all, whole, namespaces, copy.namespaces, Change::Namespace);
        start.watch(&labelled, whole, pods, copy.pods, Change::Pod);
        start.watch(&ours, whole, bundles, copy.bundles, Change::Bundle);
        start.watch(&all, trim_service, services, copy.services, Change::Service);
        start.watch(&all, trim_slice, slices, copy.slices, Change::Slice);
    }
}

/// What every watch is made of, and where its task goes.
struct Start<'a> {
    watch: Watch,
    tasks: &'a mut JoinSet<()>,
}

impl Start<'_> {
    /// Of the objects that `which` selects, `trim` leaves what is kept.
    fn watch<K>(
        &mut self,
        which: &Config,
        trim: fn(&mut K),
        writer: Writer<K>,
        store: Store<K>,
        change: fn(Was<K>) -> Change,
    ) where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    {
        self.tasks.spawn(self.watch.clone().run(which.clone(), writer, store, change, trim));
    }
}

/// What all watches share.
#[derive(Clone)]
struct Watch {
    client: Client,
    changes: Option<mpsc::Sender<Change>>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
}

impl Watch {
    /// Keeps one copy current. A watch that fails is started again, with increasing pauses.
    async fn run<K>(
        self,
        config: Config,
        mut writer: Writer<K>,
        store: Store<K>,
        change: fn(Was<K>) -> Change,
        trim: fn(&mut K),
    ) where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    {
        let events = watcher(Api::<K>::all(self.client.clone()), config).default_backoff();
        let mut events = std::pin::pin!(events);
        loop {
            let event = tokio::select! {
                () = self.stop.cancelled() => return,
                event = events.next() => event,
            };
            match event {
                None => return,
                Some(Ok(event)) => {
                    // Who owns which field is of no interest here and makes up half of an object.
                    let event = event.modify(|object| {
                        object.managed_fields_mut().clear();
                        trim(object);
                    });
                    let word = update(&event, &mut writer, &store, change);
                    if let (Some(word), Some(changes)) = (word, &self.changes)
                        && changes.send(word).await.is_err()
                    {
                        return;
                    }
                }
                Some(Err(error)) => {
                    self.metrics.watch_failures.inc();
                    tracing::warn!(kind = %K::kind(&()), error = %error, "cannot watch");
                }
            }
        }
    }
}

/// Objects of which everything is kept.
fn whole<K>(_: &mut K) {}

/// Of the Services of a whole cluster, what says whom they lead where.
fn trim_service(service: &mut Service) {
    service.metadata = identified(&service.metadata);
    service.metadata.annotations = service.metadata.annotations.take().map(|mut annotations| {
        annotations.retain(|key, _| key.starts_with(SCRAPERS));
        annotations
    });
    let spec = service.spec.take().unwrap_or_default();
    service.spec = Some(ServiceSpec { selector: spec.selector, ports: spec.ports, ..ServiceSpec::default() });
    service.status = None;
}

/// Of the endpoints of a whole cluster, what says where a Service leads.
fn trim_slice(slice: &mut EndpointSlice) {
    slice.metadata = identified(&slice.metadata);
    slice.metadata.annotations = None;
    for endpoint in &mut slice.endpoints {
        let Endpoint { addresses, conditions, target_ref, .. } = std::mem::take(endpoint);
        *endpoint = Endpoint { addresses, conditions, target_ref, ..Endpoint::default() };
    }
}

/// The metadata by which an object is found.
fn identified(metadata: &ObjectMeta) -> ObjectMeta {
    ObjectMeta {
        name: metadata.name.clone(),
        namespace: metadata.namespace.clone(),
        labels: metadata.labels.as_ref().and_then(|labels| {
            let (key, value) = labels.get_key_value(LABEL_SERVICE)?;
            Some([(key.clone(), value.clone())].into())
        }),
        annotations: metadata.annotations.clone(),
        uid: metadata.uid.clone(),
        resource_version: metadata.resource_version.clone(),
        ..ObjectMeta::default()
    }
}

/// Updates the copy, and only then says what changed: whoever hears of it finds it there.
fn update<K>(
    event: &Event<K>,
    writer: &mut Writer<K>,
    store: &Store<K>,
    change: fn(Was<K>) -> Change,
) -> Option<Change>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    let (Event::Apply(object) | Event::Delete(object)) = event else {
        writer.apply_watcher_event(event);
        return matches!(event, Event::InitDone).then_some(Change::Everything);
    };
    let key = ObjectRef::from_obj(object);
    let old = store.get(&key);
    writer.apply_watcher_event(event);
    let new = store.get(&key);
    let old = if old.is_none() && new.is_none() { Some(Arc::new(object.clone())) } else { old };
    Some(change(Was { old, new }))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    use super::*;

    fn namespace(name: &str, version: &str) -> Namespace {
        let metadata = ObjectMeta {
            name: Some(name.into()),
            resource_version: Some(version.into()),
            ..ObjectMeta::default()
        };
        Namespace { metadata, ..Namespace::default() }
    }

    fn versions(change: Option<Change>) -> (Option<String>, Option<String>) {
        let Some(Change::Namespace(was)) = change else { panic!("{change:?}") };
        let version = |it: Option<Arc<Namespace>>| it.and_then(|it| it.metadata.resource_version.clone());
        (version(was.old), version(was.new))
    }

    #[test]
    fn word_of_a_change_comes_with_before_and_after_and_the_copy_is_current_by_then() {
        let (store, mut writer) = store::<Namespace>();
        let mut put = |event| update(&event, &mut writer, &store, Change::Namespace);
        assert!(put(Event::Init).is_none());
        assert!(put(Event::InitApply(namespace("hr", "1"))).is_none());
        assert!(matches!(put(Event::InitDone), Some(Change::Everything)));
        assert_eq!(versions(put(Event::Apply(namespace("hr", "2")))), (Some("1".into()), Some("2".into())));
        assert_eq!(versions(put(Event::Apply(namespace("it", "3")))), (None, Some("3".into())));
        assert_eq!(versions(put(Event::Delete(namespace("hr", "4")))), (Some("2".into()), None));
        assert_eq!(versions(put(Event::Delete(namespace("no", "5")))), (Some("5".into()), None));
        assert_eq!(store.len(), 1);
    }
}
