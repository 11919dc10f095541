//! A small company: one namespace, one catalogue, one provider, one identity.

use std::sync::Arc;
use std::time::Duration;

use behalf_operator::clock::Clock;
use behalf_operator::feed;
use behalf_operator::feed::desk::Desk;
use behalf_operator::kube_io::apply::Apply;
use behalf_operator::kube_io::caches::Caches;
use behalf_operator::kube_io::counts::Counts;
use behalf_operator::kube_io::events::Events;
use behalf_operator::kube_io::gather::Gather;
use behalf_operator::kube_io::lease::Leadership;
use behalf_operator::kube_io::status::Statuses;
use behalf_operator::live::Live;
use behalf_operator::metrics::Metrics;
use behalf_operator::reconcile::queue::Next;
use behalf_operator::reconcile::triggers::{self, Key};
use behalf_operator::reconcile::{self, Context};
use behalf_operator::signing::SigningKeys;
use behalf_plan::Settings;
use behalf_policy::bundle::Document;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::server::{Call, Server};

pub const IDENTITY: &str = "/apis/behalf.dev/v1alpha1/namespaces/hr/agentidentities/hr-tools";
pub const CATALOG: &str = "/apis/behalf.dev/v1alpha1/scopecatalogs/corp";
pub const PROVIDER: &str = "/apis/behalf.dev/v1alpha1/identityproviders/corp";
pub const NAMESPACE: &str = "/api/v1/namespaces/hr";
pub const ACCOUNT: &str = "/api/v1/namespaces/hr/serviceaccounts/hr-mcp";
pub const BUNDLE: &str = "/api/v1/namespaces/hr/configmaps/behalf-bundle-hr-tools";
pub const BUNDLES: &str = "/api/v1/namespaces/hr/configmaps";
pub const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/hr/events";
/// What is left to do for an identity at rest: to look for pods outside that run as its account.
pub const REST: Next = Next::After(Duration::from_mins(10));
/// When all of this happens, in seconds since 1970.
pub const NOW: i64 = 1_790_000_000;

pub struct World {
    pub server: Server,
    pub keys: Arc<SigningKeys>,
    pub settings: Arc<Settings>,
    pub desk: Arc<Desk>,
    pub authorities: &'static str,
    pub now: i64,
}

impl World {
    /// Everything is there and nothing was reconciled yet.
    pub fn new() -> Self {
        let (server, keys) = (Server::default(), Arc::new(SigningKeys::generate().unwrap()));
        server.put(NAMESPACE, namespace());
        server.put(ACCOUNT, json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "hr-mcp", "namespace": "hr"}}));
        server.put(CATALOG, catalog());
        server.put(PROVIDER, provider());
        server.put(IDENTITY, identity());
        let settings = Arc::new(Settings {
            sidecar_image: "registry.test/sidecar@sha256:00".into(),
            sidecar_pull_policy: "IfNotPresent".into(),
            bundle_keys: keys.public_arguments(),
            nameservers: vec!["10.96.0.10".into()],
            cluster_domain: "cluster.local".into(),
            system_namespace: "behalf-system".into(),
            resources: k8s_openapi::api::core::v1::ResourceRequirements::default(),
            records: behalf_plan::Records::default(),
        });
        let desk = Arc::new(Desk::new(Duration::from_secs(5)));
        Self { server, keys, settings, desk, authorities: "an authority", now: NOW }
    }

    /// Reads what the server holds, as a process that just started.
    pub async fn gather(&self) -> Gather {
        let (caches, writers) = Caches::new();
        let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
        let metrics = Arc::new(Metrics::default());
        writers.watch(&self.server.client(), &caches, None, &metrics, &stop, &mut tasks);
        caches.filled().await.unwrap();
        stop.cancel();
        while tasks.join_next().await.is_some() {}
        Gather::new(self.server.client(), caches, Live::fixed(Arc::clone(&self.keys)))
    }

    pub fn context(&self, gather: Gather) -> Context {
        let (client, metrics) = (self.server.client(), Arc::new(Metrics::default()));
        Context {
            gather,
            apply: Apply::new(client.clone(), Leadership::always(), Arc::clone(&metrics)),
            counts: Counts::new(client.clone(), Leadership::always(), Arc::clone(&metrics)),
            statuses: Statuses::new(client.clone(), Leadership::always(), Arc::clone(&metrics)),
            events: Events::new(client, Some("operator-0".into()), Arc::clone(&metrics)),
            keys: Live::fixed(Arc::clone(&self.keys)),
            settings: Live::fixed(Arc::clone(&self.settings)),
            desk: Arc::clone(&self.desk),
            feed: watch::channel(Some(feed::document("behalf-system", self.authorities))).1,
            leadership: Leadership::always(),
            clock: Clock::Fixed(Timestamp::from_second(self.now).unwrap()),
            metrics,
        }
    }

    /// One pass over one object, with copies as fresh as can be.
    pub async fn pass(&self, key: &Key) -> (Next, Vec<Call>) {
        let context = self.context(self.gather().await);
        self.server.calls();
        let next = reconcile::pass(&context, key).await;
        (next, self.server.calls())
    }

    /// The same for the identity.
    pub async fn identity(&self) -> (Next, Vec<Call>) {
        self.pass(&key()).await
    }

    /// Passes over everything until nothing is written any more.
    pub async fn settle(&self) {
        for _ in 0..5 {
            let gather = self.gather().await;
            let keys = triggers::keys(gather.caches(), &behalf_operator::kube_io::caches::Change::Everything);
            let context = self.context(gather);
            self.server.calls();
            for key in keys {
                reconcile::pass(&context, &key).await;
            }
            if writes(&self.server.calls()).is_empty() {
                return;
            }
        }
        panic!("still writing after five rounds");
    }

    /// The bundle that is there.
    pub fn bundle(&self) -> Document {
        let object = self.server.get(BUNDLE).unwrap();
        self.keys.open(object["data"]["bundle.json"].as_str().unwrap()).unwrap().1
    }

    /// Reason of a condition of the identity.
    pub fn reason(&self, type_: &str) -> String {
        reason(&self.server.get(IDENTITY).unwrap(), type_)
    }
}

pub fn key() -> Key {
    Key::Identity { namespace: "hr".into(), name: "hr-tools".into() }
}

/// Reason of a condition.
pub fn reason(object: &Value, type_: &str) -> String {
    let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let found = conditions.iter().find(|it| it["type"] == type_);
    found.and_then(|it| it["reason"].as_str()).unwrap_or_default().to_owned()
}

/// Method and path of what changes something.
pub fn writes(calls: &[Call]) -> Vec<String> {
    calls.iter().filter(|call| call.method != http::Method::GET).map(Call::brief).collect()
}

pub fn namespace() -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "hr", "labels": {
        "tier": "prod", "behalf.dev/injection": "Optional", "kubernetes.io/metadata.name": "hr"}}})
}

pub fn catalog() -> Value {
    json!({"apiVersion": "behalf.dev/v1alpha1", "kind": "ScopeCatalog", "metadata": {"name": "corp", "generation": 1}, "spec": {
        "allowedNamespaces": {"from": "Selector", "selector": {"matchLabels": {"tier": "prod"}}},
        "scopes": [{"name": "hr:read", "holders": {"groups": ["staff"]}, "accessClass": "Read"}],
        "toolSets": [{"name": "hr-server", "tools": [{"name": "directory.search", "scopes": ["hr:read"]}]}],
    }})
}

pub fn provider() -> Value {
    json!({"apiVersion": "behalf.dev/v1alpha1", "kind": "IdentityProvider", "metadata": {"name": "corp", "generation": 1}, "spec": {
        "issuer": "https://idp.example.com/realms/corp",
        "clientAuthentication": {"allowed": ["ServiceAccountToken"]},
        "allowedNamespaces": {"from": "Selector", "selector": {"matchLabels": {"tier": "prod"}}},
    }})
}

pub fn identity() -> Value {
    json!({"apiVersion": "behalf.dev/v1alpha1", "kind": "AgentIdentity",
    "metadata": {"name": "hr-tools", "namespace": "hr", "generation": 1, "creationTimestamp": "2026-01-01T00:00:00Z"},
    "spec": {
        "catalogRef": {"name": "corp"}, "serviceAccountName": "hr-mcp",
        "servers": [{"name": "mcp", "url": "https://hr.example.com/mcp", "port": 8000, "toolSet": "hr-server"}],
        "identityProviders": [{"name": "corp", "client": {"id": "hr", "authentication": {"type": "ServiceAccountToken"}}}],
        "scopes": {"required": ["hr:read"]},
    }})
}

/// The same with Behalf inside, and running.
pub fn injected(name: &str) -> Value {
    let mut pod = pod(name);
    pod["metadata"]["annotations"] = json!({"behalf.dev/injected": "1"});
    pod["spec"]["initContainers"] = json!([
        {"name": "behalf-redirect", "image": "sidecar"},
        {"name": "behalf-sidecar", "image": "sidecar", "restartPolicy": "Always", "args": ["run", "--identity=hr-tools"]},
    ]);
    pod["status"] = json!({"phase": "Running"});
    pod
}

/// What its sidecar says.
pub fn report(boot: char, sequence: u64, digest: Option<&str>, allowed: u64) -> Value {
    json!({
        "format": 1, "boot": boot.to_string().repeat(22), "sequence": sequence, "ended": false,
        "bundle": digest.map(|digest| json!({"digest": digest, "serial": 1})), "rejected": null, "squatted": [],
        "listeners": [], "moreListeners": false, "credentialsMissing": [],
        "decisions": {"allowed": allowed, "denied": 0, "wouldDeny": 0, "tallies": []},
        "scopesUsed": {}, "proofKey": "k".repeat(43),
    })
}

pub fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "hr", "labels": {"behalf.dev/agent-identity": "hr-tools"}},
        "spec": {"serviceAccountName": "hr-mcp", "containers": [{"name": "server", "image": "server", "ports": [{"containerPort": 8000}]}]}})
}
