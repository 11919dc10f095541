//! The chart as rendered says what the code says: the policies compare with the names that the plan writes, and the
//! operator's role is this table.

#![expect(clippy::disallowed_methods, reason = "tests read the rendered chart")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use behalf_crds::names;
use behalf_policy::wire;
use serde::Deserialize as _;
use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Every object of the chart with its default values.
fn rendered() -> Vec<Value> {
    rendered_with("default")
}

/// Every object of the chart with one set of values.
fn rendered_with(values: &str) -> Vec<Value> {
    let path = root().join("charts/behalf/tests/snapshots").join(values).with_extension("yaml");
    let text = std::fs::read_to_string(path).unwrap();
    let objects = text.split("\n---\n").map(|object| serde_saphyr::from_str::<Value>(object).unwrap());
    objects.filter(Value::is_object).collect()
}

fn named<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let found = objects.iter().find(|it| it["kind"] == kind && it["metadata"]["name"] == name);
    found.unwrap_or_else(|| panic!("the chart has no {kind} {name}"))
}

#[test]
fn the_policies_compare_with_the_names_that_the_plan_writes() {
    let objects = rendered();
    let quoted = |text: &str| format!("'{text}'");
    let expected = [
        (
            "behalf-containers",
            vec![
                quoted(names::CONTAINER_REDIRECT),
                quoted(names::CONTAINER_SIDECAR),
                quoted(names::RESERVED_PREFIX),
                quoted(names::LABEL_AGENT_IDENTITY),
                quoted(names::VOLUME_BUNDLE),
                quoted(names::VOLUME_FEED),
                quoted(names::VOLUME_DENY),
                quoted(names::VOLUME_NO_TOKEN),
                quoted(names::VOLUME_RECORDS),
                quoted(wire::RECORDS_DIR),
                quoted("recordArguments"),
                quoted("recordVolume"),
                quoted("recordVolumeSize"),
                quoted("recordVolumeClass"),
                quoted(names::VOLUME_IDP_PREFIX),
                quoted(names::CONFIGMAP_BUNDLE_PREFIX),
                quoted(names::CONFIGMAP_DENY),
                quoted(wire::BUNDLE_DIR),
                quoted(wire::FEED_DIR),
                quoted(wire::DENY_DIR),
                quoted(&format!("{}/", wire::CREDENTIALS_DIR)),
                quoted(wire::TOKEN_FILE),
                quoted(names::VOLUME_TLS),
                quoted(wire::TLS_DIR),
                quoted(&format!("--tls-dir={}", wire::TLS_DIR)),
                [wire::TLS_CERTIFICATE, wire::TLS_KEY, wire::TLS_AUTHORITIES].map(quoted).join(", "),
                format!("== {})", wire::FEED_TOKEN_SECONDS),
                format!("[{}, {}, {}]", wire::INBOUND_PORT, wire::PROBE_PORT, wire::METRICS_PORT),
                format!("runAsUser.orValue(-1) == {}", wire::SIDECAR_UID),
                format!("runAsGroup.orValue(-1) == {}", wire::SIDECAR_UID),
            ],
        ),
        ("behalf-neighbours", vec![quoted(names::RESERVED_PREFIX), format!("!= {}", wire::SIDECAR_UID)]),
        (
            "behalf-accounts",
            vec![
                quoted(names::VOLUME_IDP_PREFIX),
                quoted(names::LABEL_AGENT_IDENTITY),
                quoted(names::VOLUME_TLS),
            ],
        ),
        ("behalf-feed-pods", vec![quoted(wire::FEED_AUDIENCE), quoted(names::VOLUME_FEED)]),
        ("behalf-feed-tokens", vec![quoted(wire::FEED_AUDIENCE)]),
        ("behalf-namespaces", vec![quoted(names::LABEL_INJECTION), quoted(names::ANNOTATION_EXEMPT)]),
        ("behalf-required", vec![quoted(names::LABEL_AGENT_IDENTITY), quoted(names::ANNOTATION_EXEMPT)]),
        ("behalf-exempt", vec![quoted(names::ANNOTATION_EXEMPT)]),
        ("behalf-updates", vec![quoted(names::ANNOTATION_INJECTED), format!("!= {}", wire::SIDECAR_UID)]),
        (
            "behalf-bundles",
            vec![quoted(names::CONFIGMAP_BUNDLE_PREFIX), quoted(names::CONFIGMAP_COUNTS_PREFIX)],
        ),
        (
            "behalf-operator-configmaps",
            vec![
                quoted(names::CONFIGMAP_BUNDLE_PREFIX),
                quoted(names::CONFIGMAP_COUNTS_PREFIX),
                quoted(names::CONFIGMAP_TRUST),
                quoted(names::MANAGED_BY),
            ],
        ),
        ("behalf-operator-events", vec![quoted(names::EVENT_CONTROLLER)]),
        ("behalf-operator-webhook", vec![quoted(names::WEBHOOK_CONFIGURATION)]),
        (
            "behalf-operator-rest",
            vec![
                quoted(names::LEASE),
                quoted(names::SECRET_SIGNING_KEYS),
                quoted(names::SECRET_WEBHOOK_CERTS),
            ],
        ),
    ];
    for (policy, words) in expected {
        let text = named(&objects, "ValidatingAdmissionPolicy", policy)["spec"].to_string();
        for word in words {
            assert!(text.contains(&word), "{policy} does not say {word}");
        }
    }
    let trust = &named(&objects, "ValidatingAdmissionPolicyBinding", "behalf-containers")["spec"]["paramRef"];
    assert_eq!(trust["name"], names::CONFIGMAP_TRUST);
    let open = &named(&objects, "NetworkPolicy", names::OPERATOR)["spec"]["ingress"][0]["ports"];
    assert!(open.as_array().unwrap().iter().any(|port| port["port"] == wire::FEED_PORT), "{open}");
    let nobody_enters: Vec<_> = objects.iter().filter(|it| it["spec"]["failurePolicy"] == "Ignore").collect();
    assert!(nobody_enters.is_empty(), "a policy that fails refuses: {nobody_enters:?}");
}

#[test]
fn every_policy_denies_and_says_why() {
    let objects = rendered();
    let policies: Vec<_> = objects.iter().filter(|it| it["kind"] == "ValidatingAdmissionPolicy").collect();
    assert!(policies.len() >= 19, "{}", policies.len());
    for policy in policies {
        let name = policy["metadata"]["name"].as_str().unwrap();
        assert_eq!(policy["spec"]["failurePolicy"], "Fail", "{name}");
        let binding = &named(&objects, "ValidatingAdmissionPolicyBinding", name)["spec"];
        assert_eq!(
            (&binding["policyName"], &binding["validationActions"][0]),
            (&name.into(), &"Deny".into())
        );
        for validation in policy["spec"]["validations"].as_array().unwrap() {
            let said = validation.get("message").or_else(|| validation.get("messageExpression"));
            assert!(said.is_some_and(|said| said.as_str().unwrap().len() > 40), "{name}: {validation}");
        }
    }
}

/// A rule as `group/resource verbs`, with the names it is held to.
fn rule(group: &str, resource: &str, names: &[&str], verbs: &[&str]) -> String {
    let sorted = |words: &[&str]| {
        let words: BTreeSet<_> = words.iter().copied().collect();
        words.into_iter().collect::<Vec<_>>().join(",")
    };
    format!("{group}/{resource} [{}] {}", sorted(names), sorted(verbs))
}

fn rules(object: &Value) -> Vec<String> {
    fn words(value: &Value) -> Vec<&str> {
        Vec::<&str>::deserialize(value).unwrap_or_default()
    }
    let mut found = Vec::new();
    for entry in object["rules"].as_array().unwrap() {
        for group in words(&entry["apiGroups"]) {
            for resource in words(&entry["resources"]) {
                found.push(rule(group, resource, &words(&entry["resourceNames"]), &words(&entry["verbs"])));
            }
        }
    }
    found.sort();
    found
}

type Row =
    (&'static str, &'static str, &'static [&'static str], &'static [&'static str], &'static [&'static str]);

/// Everywhere: group, resource, names, verbs, and the files of the operator that call.
const EVERYWHERE: &[Row] = &[
    ("behalf.dev", "agentidentities", &[], READ, &["kube_io/caches.rs", "kube_io/gather.rs"]),
    ("behalf.dev", "identityproviders", &[], READ, &["kube_io/caches.rs", "kube_io/gather.rs"]),
    ("behalf.dev", "scopecatalogs", &[], READ, &["kube_io/caches.rs", "kube_io/gather.rs"]),
    ("behalf.dev", "agentidentities/status", &[], &["patch"], &["kube_io/status.rs"]),
    ("behalf.dev", "identityproviders/status", &[], &["patch"], &["kube_io/status.rs"]),
    ("behalf.dev", "scopecatalogs/status", &[], &["patch"], &["kube_io/status.rs"]),
    ("", "namespaces", &[], READ, &["kube_io/caches.rs", "kube_io/gather.rs"]),
    ("", "pods", &[], &["list", "watch"], &["kube_io/caches.rs", "kube_io/gather.rs"]),
    ("", "services", &[], &["list", "watch"], &["kube_io/caches.rs"]),
    ("discovery.k8s.io", "endpointslices", &[], &["list", "watch"], &["kube_io/caches.rs"]),
    ("", "serviceaccounts", &[], &["get"], &["kube_io/gather.rs"]),
    (
        "",
        "configmaps",
        &[],
        &["get", "list", "watch", "create", "patch"],
        &["kube_io/caches.rs", "kube_io/apply.rs", "kube_io/counts.rs"],
    ),
    ("events.k8s.io", "events", &[], &["create", "patch"], &["kube_io/events.rs"]),
    ("authentication.k8s.io", "tokenreviews", &[], &["create"], &["kube_io/tokens.rs"]),
    (
        "admissionregistration.k8s.io",
        "mutatingwebhookconfigurations",
        &[names::WEBHOOK_CONFIGURATION],
        &["get", "list", "watch", "patch"],
        &["kube_io/webhook_config.rs", "kube_io/installed.rs"],
    ),
    (
        "admissionregistration.k8s.io",
        "validatingadmissionpolicies",
        &[],
        &["list"],
        &["kube_io/installed.rs"],
    ),
    (
        "admissionregistration.k8s.io",
        "validatingadmissionpolicybindings",
        &[],
        &["list"],
        &["kube_io/installed.rs"],
    ),
];

/// In the operator's own namespace.
const AT_HOME: &[Row] = &[
    ("", "secrets", &[], &["create"], &["kube_io/secrets.rs"]),
    (
        "",
        "secrets",
        &[names::SECRET_SIGNING_KEYS, names::SECRET_WEBHOOK_CERTS],
        &["get", "list", "watch", "update"],
        &["kube_io/secrets.rs"],
    ),
    ("coordination.k8s.io", "leases", &[], &["create"], &["kube_io/lease.rs"]),
    ("coordination.k8s.io", "leases", &[names::LEASE], &["get", "update"], &["kube_io/lease.rs"]),
];

const READ: &[&str] = &["get", "list", "watch"];

#[test]
fn the_operators_roles_are_this_table_and_each_rule_has_its_caller() {
    let objects = rendered();
    for (kind, table) in [("ClusterRole", EVERYWHERE), ("Role", AT_HOME)] {
        let mut expected: Vec<_> = table
            .iter()
            .map(|(group, resource, names, verbs, _)| rule(group, resource, names, verbs))
            .collect();
        expected.sort();
        assert_eq!(rules(named(&objects, kind, names::OPERATOR)), expected, "{kind}");
        for (_, resource, _, _, callers) in table {
            for caller in *callers {
                assert!(root().join("operator/src").join(caller).is_file(), "{resource}: no {caller}");
            }
        }
    }
    let roles = objects.iter().filter(|it| matches!(it["kind"].as_str(), Some("ClusterRole" | "Role")));
    assert_eq!(roles.count(), 2 + PEOPLE.len(), "and there is no other");
    let bound = |kind: &str| &named(&objects, kind, names::OPERATOR)["subjects"];
    for kind in ["ClusterRoleBinding", "RoleBinding"] {
        assert_eq!(bound(kind).as_array().unwrap().len(), 1);
        assert_eq!(bound(kind)[0]["name"], names::OPERATOR);
    }
}

/// A role for people: its name, its rules, the cluster's own roles that gather it, and who uses it for what.
type PeoplesRole = (&'static str, &'static [PeoplesRule], &'static [&'static str], &'static str);
/// Resource of our group, verbs.
type PeoplesRule = (&'static str, &'static [&'static str]);

/// Rule by rule. Nobody writes a status; nobody but the platform, by rights of its own, writes kinds of the whole cluster.
const PEOPLE: &[PeoplesRole] = &[
    (
        "behalf-view",
        &[("agentidentities", READ)],
        &["view", "edit", "admin"],
        "whoever may look at a namespace: kubectl get and describe aid",
    ),
    (
        "behalf-edit",
        &[("agentidentities", &["create", "update", "patch", "delete", "deletecollection"])],
        &["edit", "admin"],
        "the service team: kubectl apply and delete of its identities",
    ),
    (
        "behalf-catalog-view",
        &[("identityproviders", READ), ("scopecatalogs", READ)],
        &[],
        "a service team that the platform binds to it: kubectl get and describe idp, scat",
    ),
];

#[test]
fn the_roles_for_people_are_this_table_and_are_gathered_only_where_asked() {
    const GATHER: &str = "rbac.authorization.k8s.io/aggregate-to-";
    for (values, gathers) in [("default", true), ("pinned", true), ("bare", false)] {
        let objects = rendered_with(values);
        for (name, wanted, into, used_by) in PEOPLE {
            let role = named(&objects, "ClusterRole", name);
            let mut expected: Vec<_> =
                wanted.iter().map(|(resource, verbs)| rule("behalf.dev", resource, &[], verbs)).collect();
            expected.sort();
            assert_eq!(rules(role), expected, "{name}, for {used_by}");
            for into in *into {
                let label = &role["metadata"]["labels"][format!("{GATHER}{into}")];
                assert_eq!(label == "true", gathers, "{name} into {into} with {values}");
            }
        }
        // Of all roles of the chart none but these is gathered, and nobody is bound to one by the chart.
        let labels = |it: &Value| {
            it["metadata"]["labels"]
                .as_object()
                .into_iter()
                .flatten()
                .map(|(k, _)| k.clone())
                .collect::<Vec<_>>()
        };
        let gathered = objects.iter().flat_map(labels).filter(|label| label.starts_with(GATHER)).count();
        let listed: usize = PEOPLE.iter().map(|(_, _, into, _)| into.len()).sum();
        assert_eq!(gathered, if gathers { listed } else { 0 }, "{values}");
        let bound =
            objects.iter().filter(|it| it["kind"].as_str().is_some_and(|kind| kind.ends_with("RoleBinding")));
        assert!(bound.into_iter().all(|it| it["roleRef"]["name"] == names::OPERATOR), "{values}");
    }
    let written = |(_, rules, ..): &&PeoplesRole| {
        rules.iter().any(|(what, verbs)| *what != "agentidentities" && *verbs != READ)
    };
    assert!(PEOPLE.iter().find(written).is_none(), "kinds of the cluster and statuses are only read");
}

/// What helm takes, the operator takes: the same words, and the same rules of what goes together.
#[test]
fn the_setting_of_records_is_rendered_as_the_operator_reads_it() {
    for (values, arguments) in [("default", 0), ("bare", 0), ("pinned", 0), ("recorded", 8)] {
        let objects = rendered_with(values);
        let container =
            &named(&objects, "Deployment", names::OPERATOR)["spec"]["template"]["spec"]["containers"][0];
        let given = container["args"].as_array().unwrap().iter().filter_map(Value::as_str);
        let given: Vec<_> = given.filter_map(|it| it.strip_prefix("--sidecar-records=")).collect();
        assert_eq!(given.len(), 1, "{values}");
        let records: behalf_plan::Records = serde_json::from_str(given[0]).unwrap();
        assert_eq!(records.check(), Ok(()), "{values}");
        assert_eq!(records.arguments().len(), arguments, "{values}");
        assert_eq!(records == behalf_plan::Records::default(), arguments == 0, "{values}");
    }
}
