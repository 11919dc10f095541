//! What a plan needs, read: from the copies where they are good enough, from the API server where they are not.

use std::collections::BTreeMap;
use std::sync::Arc;

use behalf_crds::names;
use behalf_crds::v1alpha1::{AgentIdentity, IdentityProvider};
use behalf_plan::provider::token_audience;
use behalf_plan::{Gathered, LastBundle, PodFacts, Reports, Stand, bundle_object, pod_facts};
use behalf_policy::bundle::signed::SignedBundle;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Service, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Api, ApiResource, DynamicObject, ListParams};
use kube::core::DeserializeGuard;
use kube::runtime::reflector::ObjectRef;
use kube::{Client, Error, Resource};
use serde::Deserialize;

use super::caches::{Caches, GuardedCatalog, GuardedIdentity, GuardedProvider};
use crate::bypass::{self, Findings};
use crate::live::Live;
use crate::signing::{SigningKeys, payload_digest};

/// Reads.
#[derive(Clone)]
pub struct Gather {
    client: Client,
    caches: Caches,
    keys: Live<SigningKeys>,
    findings: Findings,
}

/// The bundle object of an identity, as far as it can be read.
#[derive(Clone, Debug, Default)]
pub struct SeenBundle {
    /// The object; none if there is none.
    pub object: Option<Arc<ConfigMap>>,
    /// What it says, if one of our keys signed it.
    pub last: Option<LastBundle>,
    /// Whether nothing but its content could call for writing it again: every key we sign with signed it, and it carries
    /// the labels by which it is found.
    pub intact: bool,
    /// A serial that was reached already without our signature to show for it: what an unverified content says, or the
    /// status. The next one has to be greater all the same: it may be ours from before the keys or the object were lost.
    pub passed_serial: Option<u64>,
}

impl SeenBundle {
    /// The same, knowing that `serial` was reached already.
    #[must_use]
    pub fn after(self, serial: Option<u64>) -> Self {
        Self { passed_serial: self.passed_serial.max(serial), ..self }
    }
}

impl Gather {
    /// Reads from `caches`, and with `client` what they do not hold. Bundles are verified with `keys`.
    #[must_use]
    pub fn new(client: Client, caches: Caches, keys: Live<SigningKeys>) -> Self {
        Self { client, caches, keys, findings: Findings::default() }
    }

    /// What trials from outside found, to be filled by whoever makes them.
    #[must_use]
    pub fn findings(&self) -> &Findings {
        &self.findings
    }

    /// The Services of a namespace.
    #[must_use]
    pub fn services(&self, namespace: &str) -> Vec<Service> {
        let within = |it: &Service| it.metadata.namespace.as_deref() == Some(namespace);
        self.caches.services.state_filter(within).iter().map(|it| it.as_ref().clone()).collect()
    }

    /// The copies.
    #[must_use]
    pub fn caches(&self) -> &Caches {
        &self.caches
    }

    /// An identity, or what is left of one that cannot be read.
    #[must_use]
    pub fn identity(&self, namespace: &str, name: &str) -> Option<Arc<GuardedIdentity>> {
        self.caches.identities.get(&ObjectRef::new(name).within(namespace))
    }

    /// A catalogue, or what is left of one that cannot be read.
    #[must_use]
    pub fn catalog(&self, name: &str) -> Option<Arc<GuardedCatalog>> {
        self.caches.catalogs.get(&ObjectRef::new(name))
    }

    /// A provider, or what is left of one that cannot be read.
    #[must_use]
    pub fn provider(&self, name: &str) -> Option<Arc<GuardedProvider>> {
        self.caches.providers.get(&ObjectRef::new(name))
    }

    /// The bundle object of an identity, read.
    #[must_use]
    pub fn bundle(&self, namespace: &str, name: &str) -> SeenBundle {
        self.see(self.bundle_object(namespace, name))
    }

    /// The bundle object of an identity, as it is.
    #[must_use]
    pub fn bundle_object(&self, namespace: &str, name: &str) -> Option<Arc<ConfigMap>> {
        self.caches.bundles.get(&ObjectRef::new(&names::bundle_configmap(name)).within(namespace))
    }

    /// Reads a bundle object.
    #[must_use]
    pub fn see(&self, object: Option<Arc<ConfigMap>>) -> SeenBundle {
        let Some(text) = object.as_deref().and_then(bundle_object::signed) else {
            return SeenBundle { object, ..SeenBundle::default() };
        };
        let keys = self.keys.current();
        let last = keys
            .open(text)
            .ok()
            .map(|(payload, document)| LastBundle { document, digest: payload_digest(&payload) });
        let passed_serial = if last.is_none() { unverified_serial(text) } else { None };
        let intact = last.is_some() && keys.all_signed(text) && object.as_deref().is_some_and(is_labelled);
        SeenBundle { object, last, intact, passed_serial }
    }

    /// Everything the plan of an identity depends on, but for what its pods tell.
    ///
    /// # Errors
    /// The API server cannot be asked.
    pub async fn everything(
        &self,
        identity: &AgentIdentity,
        last_bundle: Option<LastBundle>,
    ) -> Result<Gathered, Error> {
        let namespace = identity.metadata.namespace.as_deref().unwrap_or_default();
        let account = &identity.spec.service_account_name;
        let accounts = Api::<ServiceAccount>::namespaced(self.client.clone(), namespace);
        let asked = tokio::try_join!(
            self.namespace(namespace),
            accounts.get_opt(account),
            self.strays(namespace, account)
        );
        let (namespace, service_account, strays) = asked?;
        let providers = self.providers(identity);
        let mut pods = self.pods(identity);
        let known = |uid: &str| pods.iter().any(|pod| pod.uid == uid);
        let strays: Vec<_> = strays.into_iter().filter(|stray| !known(&stray.uid)).collect();
        pods.extend(strays);
        Ok(Gathered {
            identity: identity.clone(),
            namespace: namespace.unwrap_or_default(),
            catalog: self.catalog(&identity.spec.catalog_ref.name).and_then(|it| readable(&it)),
            rival_providers: providers.values().flat_map(|it| self.rivals(it)).collect(),
            providers,
            siblings: self.siblings(identity),
            service_account,
            pods,
            last_bundle,
            reports: Reports::default(),
            bypass: bypass::facts(&self.caches, &self.findings, identity),
        })
    }

    /// The namespace: from the copies, else from the API server.
    ///
    /// # Errors
    /// The API server cannot be asked.
    pub async fn namespace(&self, name: &str) -> Result<Option<Namespace>, Error> {
        match self.caches.namespaces.get(&ObjectRef::new(name)) {
            Some(held) => Ok(Some(held.as_ref().clone())),
            None => self.namespace_now(name).await,
        }
    }

    /// The namespace as it is now.
    ///
    /// # Errors
    /// The API server cannot be asked.
    pub async fn namespace_now(&self, name: &str) -> Result<Option<Namespace>, Error> {
        Api::<Namespace>::all(self.client.clone()).get_opt(name).await
    }

    /// The identity as it is now; none if there is none. One that cannot be read counts as one that is there.
    ///
    /// # Errors
    /// The API server cannot be asked.
    pub async fn identity_now(&self, namespace: &str, name: &str) -> Result<Option<GuardedIdentity>, Error> {
        Api::<GuardedIdentity>::namespaced(self.client.clone(), namespace).get_opt(name).await
    }

    /// A provider as it is now.
    ///
    /// # Errors
    /// The API server cannot be asked.
    pub async fn provider_now(&self, name: &str) -> Result<Option<GuardedProvider>, Error> {
        Api::<GuardedProvider>::all(self.client.clone()).get_opt(name).await
    }

    /// The providers an identity names, as far as the copies hold them.
    #[must_use]
    pub fn providers(&self, identity: &AgentIdentity) -> BTreeMap<String, IdentityProvider> {
        let names = identity.spec.identity_providers.iter().map(|entry| entry.name.as_str());
        names.filter_map(|name| Some((name.to_owned(), readable(&*self.provider(name)?)?))).collect()
    }

    /// All providers that take tokens for the same audience as this one; itself too.
    #[must_use]
    pub fn rivals(&self, provider: &IdentityProvider) -> Vec<IdentityProvider> {
        let audience = token_audience(provider);
        let same = |it: &GuardedProvider| it.0.as_ref().is_ok_and(|it| token_audience(it) == audience);
        self.caches.providers.state_filter(same).iter().filter_map(|it| readable(it)).collect()
    }

    /// The conditions of an object that cannot be read, so that what does not change is not written again.
    ///
    /// # Errors
    /// The API server cannot be asked.
    pub async fn conditions<K>(&self, object: &K) -> Result<Vec<Condition>, Error>
    where
        K: Resource<DynamicType = ()>,
    {
        let (resource, meta) = (ApiResource::erase::<K>(&()), object.meta());
        let api: Api<DynamicObject> = match meta.namespace.as_deref() {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        };
        let found = api.get_opt(meta.name.as_deref().unwrap_or_default()).await?;
        let conditions = found.and_then(|found| found.data.pointer("/status/conditions").cloned());
        Ok(conditions.and_then(|it| serde_json::from_value(it).ok()).unwrap_or_default())
    }

    /// Others that might have the same URL or account; the plan says whether they do.
    fn siblings(&self, identity: &AgentIdentity) -> Vec<AgentIdentity> {
        let own: Vec<_> = identity.spec.servers.iter().map(|server| host(&server.url)).collect();
        let is_own = |url: &str| own.iter().any(|own| own.eq_ignore_ascii_case(host(url)));
        let related = |other: &AgentIdentity| {
            let same_account = other.metadata.namespace == identity.metadata.namespace
                && other.spec.service_account_name == identity.spec.service_account_name;
            let same_host = other.spec.servers.iter().any(|server| is_own(&server.url));
            (same_account || same_host) && other.metadata.uid != identity.metadata.uid
        };
        let held = self.caches.identities.state_filter(|it| it.0.as_ref().is_ok_and(related));
        held.iter().filter_map(|it| readable(it)).collect()
    }

    /// The pods that run as an account without our label. Admission lets in none once it knows the identity, so they are
    /// few and old: asked for by pass, of the API server's own copy, and not watched with all other pods of the cluster.
    async fn strays(&self, namespace: &str, account: &str) -> Result<Vec<PodFacts>, Error> {
        let within =
            format!("spec.serviceAccountName={account},status.phase!=Succeeded,status.phase!=Failed");
        let without = format!("!{}", names::LABEL_AGENT_IDENTITY);
        let asked = ListParams::default().match_any().labels(&without).fields(&within);
        let found = Api::<Pod>::namespaced(self.client.clone(), namespace).list_metadata(&asked).await?;
        let facts = found.items.into_iter().map(|pod| PodFacts {
            name: pod.metadata.name.unwrap_or_default(),
            uid: pod.metadata.uid.unwrap_or_default(),
            labelled: false,
            injected: false,
            service_account: account.to_owned(),
            revision: None,
            stand: if pod.metadata.deletion_timestamp.is_some() { Stand::Leaving } else { Stand::Running },
        });
        Ok(facts.collect())
    }

    fn pods(&self, identity: &AgentIdentity) -> Vec<PodFacts> {
        let concerns = |pod: &Pod| {
            let facts = pod_facts(pod, identity);
            pod.metadata.namespace == identity.metadata.namespace
                && (facts.labelled || facts.service_account == identity.spec.service_account_name)
        };
        let held = self.caches.pods.state_filter(concerns);
        let mut facts: Vec<_> = held.iter().map(|pod| pod_facts(pod, identity)).collect();
        facts.sort_by(|a, b| a.name.cmp(&b.name));
        facts
    }
}

/// What a copy holds, if it can be read.
#[must_use]
pub fn readable<K: Clone>(guarded: &DeserializeGuard<K>) -> Option<K> {
    guarded.0.as_ref().ok().cloned()
}

/// Without these labels the object would not be seen by our watch.
fn is_labelled(object: &ConfigMap) -> bool {
    let wanted = bundle_object::labels(bundle_object::identity_of(object).unwrap_or_default());
    let held = object.metadata.labels.as_ref();
    wanted.iter().all(|(key, value)| held.and_then(|held| held.get(key)) == Some(value))
}

/// The host of a URL: two URLs that mean one server have one host.
fn host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or_default();
    match authority.split_once(']') {
        Some((address, _)) => address,
        None => authority.split(':').next().unwrap_or_default(),
    }
}

/// The serial in a bundle whose signature was not checked: good for nothing but to be greater.
fn unverified_serial(text: &str) -> Option<u64> {
    #[derive(Deserialize)]
    struct Serial {
        serial: u64,
    }
    use base64::Engine as _;
    let signed: SignedBundle = serde_json::from_str(text).ok()?;
    let payload = base64::engine::general_purpose::STANDARD.decode(signed.payload).ok()?;
    Some(serde_json::from_slice::<Serial>(&payload).ok()?.serial)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_one_server_have_one_host() {
        for (url, expected) in [
            ("https://hr.example.com/mcp", "hr.example.com"),
            ("https://hr.example.com:443/mcp/", "hr.example.com"),
            ("http://hr.hr.svc", "hr.hr.svc"),
            ("http://[fd00::1]:8000/mcp", "[fd00::1"),
            ("https://[fd00::1]/mcp", "[fd00::1"),
        ] {
            assert_eq!(host(url), expected);
        }
        assert_ne!(host("https://a.example.com"), host("https://b.example.com"));
    }
}
