//! Objects to start from: the HR server of the documentation, its catalogue and its provider.

use std::collections::BTreeMap;

use behalf_crds::v1alpha1::{AgentIdentity, IdentityProvider, ScopeCatalog};
use behalf_plan::{BundleIntent, Desired, Gathered, LastBundle, PodFacts, Reports, Settings, Stand};
use behalf_policy::bundle::document::PolicyDocument;
use behalf_policy::bundle::{Bundle, Document, RefuseAllReason, Serve};
use behalf_policy::feed::Report;
use k8s_openapi::api::core::v1::{Namespace, Pod, ResourceRequirements, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

pub(crate) const PEM: &str = "-----BEGIN CERTIFICATE-----\nMAMBAgM=\n-----END CERTIFICATE-----\n";

pub(crate) fn object<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("the fixture has the kind's form")
}

pub(crate) fn at(second: u32) -> Time {
    object(json!(format!("2026-01-01T00:00:{second:02}Z")))
}

pub(crate) fn catalog_value() -> Value {
    json!({
        "apiVersion": "behalf.dev/v1alpha1", "kind": "ScopeCatalog",
        "metadata": {"name": "corp", "generation": 3},
        "spec": {
            "allowedNamespaces": {"from": "Selector", "selector": {"matchLabels": {"tier": "prod"}}},
            "scopes": [
                {"name": "hr:read", "holders": {"groups": ["staff", "managers"]}, "accessClass": "Read"},
                {"name": "hr:salary:read", "holders": {"groups": ["managers"]}, "implies": ["hr:read"], "accessClass": "Read"},
                {"name": "hr:salary:write", "holders": {"groups": ["managers"]}, "accessClass": "Write"},
                {"name": "crm:read", "holders": {"groups": ["sales"]}, "accessClass": "Read"},
            ],
            "toolSets": [
                {"name": "hr-server", "tools": [
                    {"name": "directory.search", "scopes": ["hr:read"]},
                    {"name": "salary.get", "scopes": ["hr:salary:read"], "denial": "Explain",
                     "downstreams": [{"name": "payroll", "scopes": ["payroll:read"]}, {"name": "ledger", "scopes": ["ledger:read"]}]},
                    {"name": "salary.update", "scopes": ["hr:salary:write"], "denial": "Hide",
                     "downstreams": [{"name": "payroll", "scopes": ["payroll:write"]}]},
                ]},
                {"name": "crm-server", "tools": [{"name": "lead.list", "scopes": ["crm:read"]}]},
            ],
            "downstreams": [
                {"name": "payroll", "type": "HTTP", "http": {"origin": "https://payroll.hr.svc/v1"}, "audiences": ["payroll"],
                 "scopes": ["payroll:read", "payroll:write"], "maxTokenLifetime": "10m"},
                {"name": "ledger", "type": "HTTP", "http": {"origin": "https://ledger.hr.svc", "caBundle": PEM}, "audiences": ["ledger"]},
            ],
        },
    })
}

pub(crate) fn provider_value(name: &str) -> Value {
    json!({
        "apiVersion": "behalf.dev/v1alpha1", "kind": "IdentityProvider",
        "metadata": {"name": name, "generation": 1},
        "spec": {
            "issuer": format!("https://idp.example.com/realms/{name}"),
            "caBundle": PEM,
            "flavor": "Keycloak",
            "tokenProfile": {"type": "Relaxed", "algorithms": ["RS256"], "clockSkew": "10s"},
            "exchange": {"maxTokenLifetime": "5m", "ignoredScopes": ["profile"]},
            "allowedNamespaces": {"from": "All"},
        },
    })
}

pub(crate) fn identity_value() -> Value {
    json!({
        "apiVersion": "behalf.dev/v1alpha1", "kind": "AgentIdentity",
        "metadata": {"name": "hr-tools", "namespace": "hr", "generation": 4, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {
            "catalogRef": {"name": "corp"},
            "serviceAccountName": "hr-mcp",
            "servers": [{"name": "mcp", "url": "https://hr.example.com/mcp", "port": 8000, "toolSet": "hr-server"}],
            "identityProviders": [{"name": "corp", "client": {"id": "https://hr.example.com/mcp", "authentication": {"type": "ServiceAccountToken"}}}],
            "callers": {"kinds": ["User"], "actors": {"allowed": ["agent-ui"], "maxDepth": 3}},
            "scopes": {"required": ["hr:read"], "optional": ["hr:salary:read"]},
            "downstreams": [{"name": "payroll", "identityProvider": "corp", "env": {"baseURL": "PAYROLL_URL"}}],
            "rollout": {"stage": "Enforce"},
        },
    })
}

/// The same identity, accepted as it stands.
pub(crate) fn accepted_identity_value() -> Value {
    let mut identity = identity_value();
    identity["status"] = json!({
        "observedGeneration": 4,
        "conditions": [{"type": "Accepted", "status": "True", "reason": "Accepted", "message": "Valid.",
                        "observedGeneration": 4, "lastTransitionTime": "2026-01-01T00:00:00Z"}],
    });
    identity
}

pub(crate) fn namespace() -> Namespace {
    object(
        json!({"metadata": {"name": "hr", "labels": {"tier": "prod", "behalf.dev/injection": "Optional"}}}),
    )
}

pub(crate) fn settings() -> Settings {
    Settings {
        sidecar_image: "registry.example.com/behalf/sidecar@sha256:00".to_owned(),
        sidecar_pull_policy: "IfNotPresent".to_owned(),
        bundle_keys: vec!["k1=AAAA".to_owned()],
        nameservers: vec!["10.96.0.10".to_owned()],
        cluster_domain: "cluster.local".to_owned(),
        system_namespace: "behalf-system".to_owned(),
        resources: object::<ResourceRequirements>(json!({"requests": {"cpu": "10m", "memory": "32Mi"}})),
        records: behalf_plan::Records::default(),
    }
}

/// The chart's values of records, with a change.
pub(crate) fn records_with(change: &Value) -> behalf_plan::Records {
    let mut value = json!({
        "mode": "Relaxed",
        "stdout": "Enabled",
        "file": {
            "mode": "Disabled", "maxBytes": "64Mi", "maxFiles": 4, "reserveBytes": "4Mi",
            "volume": {"type": "EmptyDir", "size": "512Mi", "storageClassName": ""},
        },
        "otlp": {"url": "", "caBundle": ""},
    });
    json_patch::merge(&mut value, change);
    serde_json::from_value(value).unwrap()
}

pub(crate) fn catalog(value: Value) -> ScopeCatalog {
    object(value)
}

pub(crate) fn providers(values: Vec<Value>) -> BTreeMap<String, IdentityProvider> {
    values
        .into_iter()
        .map(object::<IdentityProvider>)
        .map(|provider| (provider.metadata.name.clone().unwrap_or_default(), provider))
        .collect()
}

/// All is well: one injected pod, everything resolves.
pub(crate) fn gathered() -> Gathered {
    gathered_with(identity_value(), catalog_value(), provider_value("corp"))
}

pub(crate) fn gathered_with(identity: Value, catalog: Value, provider: Value) -> Gathered {
    Gathered {
        identity: object::<AgentIdentity>(identity),
        namespace: namespace(),
        catalog: Some(object(catalog)),
        providers: providers(vec![provider]),
        rival_providers: Vec::new(),
        siblings: Vec::new(),
        service_account: Some(object::<ServiceAccount>(
            json!({"metadata": {"name": "hr-mcp", "namespace": "hr"}}),
        )),
        pods: vec![pod_facts("hr-1", true)],
        last_bundle: None,
        reports: Reports::default(),
        bypass: behalf_plan::bypass::Facts::default(),
    }
}

/// The fixture with one thing changed by a JSON pointer.
pub(crate) fn changed(object: &str, pointer: &str, value: Value) -> Gathered {
    let (mut identity, mut catalog, mut provider) =
        (identity_value(), catalog_value(), provider_value("corp"));
    let target = match object {
        "identity" => &mut identity,
        "catalog" => &mut catalog,
        _ => &mut provider,
    };
    let (parent, member) = pointer.rsplit_once('/').unwrap();
    let parent = target.pointer_mut(parent).unwrap_or_else(|| panic!("{pointer}"));
    match parent {
        Value::Array(items) => items[member.parse::<usize>().unwrap()] = value,
        Value::Object(members) => drop(members.insert(member.to_owned(), value)),
        _ => panic!("{pointer}"),
    }
    gathered_with(identity, catalog, provider)
}

pub(crate) fn pod_facts(name: &str, injected: bool) -> PodFacts {
    PodFacts {
        name: name.to_owned(),
        uid: format!("uid-{name}"),
        labelled: true,
        injected,
        service_account: "hr-mcp".to_owned(),
        revision: None,
        stand: Stand::Running,
    }
}

pub(crate) fn plan(gathered: &Gathered) -> Desired {
    behalf_plan::identity(gathered, &settings())
}

pub(crate) fn document(serve: Serve, serial: u64) -> Document {
    behalf_plan::next_document("hr", "hr-tools", serve, None, None, None, serial)
        .expect("a first document is always new")
}

pub(crate) fn load(serve: Serve) -> Bundle {
    Bundle::load(document(serve, 1), "sha256:00".to_owned()).expect("what is written loads")
}

/// The policy that is written; fails if anything else is.
pub(crate) fn written(desired: &Desired) -> PolicyDocument {
    match &desired.bundle {
        BundleIntent::Write(Serve::Policy(policy)) => *policy.clone(),
        other => panic!("{other:?} {:?} {:?}", desired.accepted, desired.resolved_refs),
    }
}

pub(crate) fn refused(desired: &Desired) -> Option<RefuseAllReason> {
    match &desired.bundle {
        BundleIntent::Write(Serve::RefuseAll { reason }) => Some(*reason),
        _ => None,
    }
}

/// What stands in the `ConfigMap` once all was well, at serial 7.
pub(crate) fn last_good() -> LastBundle {
    let policy = written(&plan(&gathered()));
    LastBundle { document: document(Serve::Policy(Box::new(policy)), 7), digest: "sha256:0a".to_owned() }
}

pub(crate) fn pod(value: Value) -> Pod {
    object(value)
}

/// A pod as a Deployment makes it.
pub(crate) fn pod_value() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"generateName": "hr-tools-", "namespace": "hr", "labels": {"app": "hr", "behalf.dev/agent-identity": "hr-tools"}},
        "spec": {
            "serviceAccountName": "hr-mcp",
            "containers": [{"name": "server", "image": "hr:1", "ports": [{"name": "mcp", "containerPort": 8000, "protocol": "TCP"}]}],
        },
    })
}

/// What a sidecar says that runs by `digest`, one `sha256:…` byte repeated.
pub(crate) fn report(boot: &str, digest: &str) -> Report {
    object(json!({
        "format": 1, "boot": boot, "sequence": 1, "ended": false,
        "bundle": {"digest": digest, "serial": 7}, "rejected": null, "squatted": [], "listeners": [],
        "moreListeners": false, "credentialsMissing": [],
        "decisions": {"allowed": 0, "denied": 0, "wouldDeny": 0, "tallies": []},
        "scopesUsed": {}, "proofKey": "k".repeat(43),
    }))
}
