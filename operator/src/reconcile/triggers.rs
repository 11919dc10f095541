//! Which objects a change concerns. Too many is a waste, too few is a fault.

use std::collections::BTreeSet;
use std::fmt;

use behalf_crds::names;
use behalf_crds::v1alpha1::{
    AcceptedReason, AgentIdentity, ConditionReason as _, ConditionType, find_condition,
};
use behalf_plan::provider::token_audience;
use behalf_plan::{bundle_object, bypass};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource, ResourceExt as _};

use crate::kube_io::caches::{Caches, Change, GuardedIdentity, GuardedProvider, Was};

/// An object to reconcile, whether it is still there or not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// An `AgentIdentity`.
    Identity {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// A `ScopeCatalog`.
    Catalog {
        /// Its name.
        name: String,
    },
    /// An `IdentityProvider`.
    Provider {
        /// Its name.
        name: String,
    },
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Identity { namespace, name } => write!(f, "AgentIdentity {namespace}/{name}"),
            Self::Catalog { name } => write!(f, "ScopeCatalog {name}"),
            Self::Provider { name } => write!(f, "IdentityProvider {name}"),
        }
    }
}

impl Key {
    fn identity(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self::Identity { namespace: namespace.into(), name: name.into() }
    }

    fn of_identity<K: Resource>(object: &K) -> Self {
        Self::identity(object.namespace().unwrap_or_default(), object.name_any())
    }
}

/// What a change concerns, given the copies after it.
#[must_use]
pub fn keys(caches: &Caches, change: &Change) -> BTreeSet<Key> {
    match change {
        Change::Everything => everything(caches),
        Change::Identity(was) => of_identity(caches, was),
        Change::Catalog(was) => {
            let names: BTreeSet<_> = was.both().map(kube::ResourceExt::name_any).collect();
            let users = identities(caches, |it| names.contains(&it.spec.catalog_ref.name));
            names.iter().map(|name| Key::Catalog { name: name.clone() }).chain(users).collect()
        }
        Change::Provider(was) => of_provider(caches, was),
        Change::Namespace(was) => {
            // Its labels say whether it is enrolled and what is open to it; one annotation, who needs no identity.
            let says = |it: Option<&k8s_openapi::api::core::v1::Namespace>| {
                it.map(|it| (it.labels().clone(), it.annotations().get(names::ANNOTATION_EXEMPT).cloned()))
            };
            if says(was.old.as_deref()) == says(was.new.as_deref()) {
                return BTreeSet::new();
            }
            let names: BTreeSet<_> = was.both().map(kube::ResourceExt::name_any).collect();
            let within = |it: &GuardedIdentity| it.namespace().is_some_and(|it| names.contains(&it));
            caches.identities.state_filter(within).iter().map(|it| Key::of_identity(&**it)).collect()
        }
        Change::Pod(was) => of_pod(caches, was),
        Change::Bundle(was) => was
            .both()
            .filter_map(|it| Some(Key::identity(it.namespace()?, bundle_object::identity_of(it)?)))
            .collect(),
        Change::Service(was) => of_service(caches, was),
        Change::Slice(was) => of_slice(caches, was),
        Change::Learnt { namespace, name } => [Key::identity(namespace, name)].into(),
    }
}

/// The provider itself, those that take tokens for an audience it has or had, and whoever names one of them.
fn of_provider(caches: &Caches, was: &Was<GuardedProvider>) -> BTreeSet<Key> {
    let mut names: BTreeSet<_> = was.both().map(kube::ResourceExt::name_any).collect();
    let audience = |it: &GuardedProvider| it.0.as_ref().ok().and_then(token_audience).map(str::to_owned);
    let age = |it: &GuardedProvider| it.meta().creation_timestamp.clone();
    let claim = |it: Option<&GuardedProvider>| it.map(|it| (audience(it), age(it)));
    if claim(was.old.as_deref()) != claim(was.new.as_deref()) {
        let audiences: BTreeSet<_> = was.both().filter_map(audience).collect();
        let same = |it: &GuardedProvider| audience(it).is_some_and(|it| audiences.contains(&it));
        names.extend(caches.providers.state_filter(same).iter().map(|it| it.name_any()));
    }
    let users = identities(caches, |it| it.spec.identity_providers.iter().any(|it| names.contains(&it.name)));
    names.iter().map(|name| Key::Provider { name: name.clone() }).chain(users).collect()
}

/// Every object, and every bundle: one whose identity went while nobody looked becomes a tombstone.
fn everything(caches: &Caches) -> BTreeSet<Key> {
    let identities = caches.identities.state();
    let (catalogs, providers) = (caches.catalogs.state(), caches.providers.state());
    let bundles = caches.bundles.state();
    let left =
        bundles.iter().filter_map(|it| Some(Key::identity(it.namespace()?, bundle_object::identity_of(it)?)));
    identities
        .iter()
        .map(|it| Key::of_identity(&**it))
        .chain(catalogs.iter().map(|it| Key::Catalog { name: it.name_any() }))
        .chain(providers.iter().map(|it| Key::Provider { name: it.name_any() }))
        .chain(left)
        .collect()
}

/// The identity itself, and those that wait for the URL or the account it has or had.
fn of_identity(caches: &Caches, was: &Was<GuardedIdentity>) -> BTreeSet<Key> {
    let itself = was.both().map(Key::of_identity);
    if was.old.as_deref().map(claims) == was.new.as_deref().map(claims) {
        return itself.collect();
    }
    itself.chain(identities(caches, waits)).collect()
}

/// What only one identity can have; nothing, if it cannot be read.
fn claims(identity: &GuardedIdentity) -> Option<(Vec<&str>, &str)> {
    let spec = &identity.0.as_ref().ok()?.spec;
    let urls = spec.servers.iter().map(|server| server.url.as_str()).collect();
    Some((urls, spec.service_account_name.as_str()))
}

/// Whether another identity stands in the way of this one.
fn waits(identity: &AgentIdentity) -> bool {
    let conditions = identity.status.as_ref().map(|it| it.conditions.as_slice()).unwrap_or_default();
    let taken = [AcceptedReason::AudienceTaken.as_str(), AcceptedReason::ServiceAccountTaken.as_str()];
    find_condition(conditions, ConditionType::Accepted).is_some_and(|it| taken.contains(&it.reason.as_str()))
}

fn identities(caches: &Caches, concerns: impl Fn(&AgentIdentity) -> bool) -> Vec<Key> {
    let held = caches.identities.state_filter(|it| it.0.as_ref().is_ok_and(&concerns));
    held.iter().map(|it| Key::of_identity(&**it)).collect()
}

/// The identities whose label the pod carries or carried, or whose account it runs as. Most changes of a pod are none to us.
fn of_pod(caches: &Caches, was: &Was<Pod>) -> BTreeSet<Key> {
    if was.old.as_deref().map(marks) == was.new.as_deref().map(marks) {
        return BTreeSet::new();
    }
    let joined = was.both().filter_map(|pod| {
        Some(Key::identity(pod.namespace()?, pod.labels().get(names::LABEL_AGENT_IDENTITY)?.clone()))
    });
    let account = |pod: &Pod| pod.spec.as_ref().and_then(|it| it.service_account_name.clone());
    let strays = identities(caches, |it| {
        was.both().any(|pod| {
            pod.metadata.namespace == it.metadata.namespace
                && account(pod).as_ref() == Some(&it.spec.service_account_name)
        })
    });
    joined.chain(strays).collect()
}

/// The identities of the pods in front of which the Service stands or stood.
fn of_service(caches: &Caches, was: &Was<Service>) -> BTreeSet<Key> {
    if was.old.as_deref().map(|it| &it.spec) == was.new.as_deref().map(|it| &it.spec) {
        return BTreeSet::new();
    }
    let selected = |pod: &Pod| was.both().any(|service| bypass::selects(service, pod.labels()));
    let Some(service) = was.both().next() else { return BTreeSet::new() };
    behind(caches, service.metadata.namespace.as_ref(), service.metadata.name.as_ref(), selected)
}

/// The same for endpoints of a Service, whichever of them changed.
fn of_slice(caches: &Caches, was: &Was<EndpointSlice>) -> BTreeSet<Key> {
    let content = |it: &EndpointSlice| (it.endpoints.clone(), it.ports.clone(), it.labels().clone());
    if was.old.as_deref().map(content) == was.new.as_deref().map(content) {
        return BTreeSet::new();
    }
    let held = |pod: &Pod| was.both().any(|slice| bypass::holds(slice, &bypass::addresses(pod)));
    let services: BTreeSet<_> = was.both().map(|it| it.labels().get(bypass::LABEL_SERVICE)).collect();
    let namespace = was.both().find_map(|it| it.metadata.namespace.as_ref());
    services.into_iter().flat_map(|service| behind(caches, namespace, service, held)).collect()
}

/// The identities of the pods to which a Service leads, by its selector or in fact, and of those that `also` picks.
fn behind(
    caches: &Caches,
    namespace: Option<&String>,
    service: Option<&String>,
    also: impl Fn(&Pod) -> bool,
) -> BTreeSet<Key> {
    let within = |meta: &ObjectMeta| meta.namespace.as_ref() == namespace;
    // Most Services of a cluster are in namespaces without a pod of ours.
    let pods = caches.pods.state_filter(|pod| within(&pod.metadata));
    if pods.is_empty() {
        return BTreeSet::new();
    }
    let services = caches
        .services
        .state_filter(|it| service.is_some() && within(&it.metadata) && it.metadata.name.as_ref() == service);
    let slices = caches.slices.state_filter(|it| {
        service.is_some() && within(&it.metadata) && it.labels().get(bypass::LABEL_SERVICE) == service
    });
    let led = |pod: &Pod| {
        services.iter().any(|service| bypass::selects(service, pod.labels()))
            || slices.iter().any(|slice| bypass::holds(slice, &bypass::addresses(pod)))
    };
    let concerned = pods.iter().filter(|pod| also(pod) || led(pod));
    let joined = concerned.filter_map(|pod| {
        Some(Key::identity(pod.namespace()?, pod.labels().get(names::LABEL_AGENT_IDENTITY)?.clone()))
    });
    joined.collect()
}

/// What of a pod can change and matters.
fn marks(pod: &Pod) -> (Option<&String>, Option<&String>, bool, Option<&str>) {
    let metadata = &pod.metadata;
    let label = metadata.labels.as_ref().and_then(|it| it.get(names::LABEL_AGENT_IDENTITY));
    let revision = metadata.annotations.as_ref().and_then(|it| it.get(names::ANNOTATION_INJECTED));
    let phase = pod.status.as_ref().and_then(|it| it.phase.as_deref());
    (label, revision, metadata.deletion_timestamp.is_some(), phase)
}
