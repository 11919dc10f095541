//! Pods and conditions as files: `<case>.in.yaml` is what comes, `<case>.out.yaml` what becomes of it.
//!
//! `UPDATE_GOLDEN=1` writes the outputs anew; the difference is then read by a person.

#![expect(clippy::disallowed_methods, reason = "tests read and write their golden files")]

use std::path::{Path, PathBuf};

use behalf_plan::{Applied, BundleIntent, Injection, identity_status, plan_injection};
use behalf_policy::bundle::Serve;
use serde_json::{Value, json};

use crate::fixtures::*;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn compare(name: &str, found: &Value) {
    let path = folder().join(format!("{name}.out.yaml"));
    let text = serde_saphyr::to_string(found).unwrap();
    if std::env::var("UPDATE_GOLDEN").is_ok_and(|value| value == "1") {
        std::fs::write(&path, &text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, expected, "{name}: run with UPDATE_GOLDEN=1 and read the difference");
}

fn injected(name: &str) {
    let text = std::fs::read_to_string(folder().join(format!("{name}.in.yaml"))).unwrap();
    let input: Value = serde_saphyr::from_str(&text).unwrap();
    let mut identity = accepted_identity_value();
    json_patch::merge(&mut identity, input.get("identity").unwrap_or(&json!({})));
    let mut all = vec![provider_value("corp")];
    all.extend(input["providers"].as_array().into_iter().flatten().map(|provider| {
        let mut value = provider_value(provider["metadata"]["name"].as_str().unwrap());
        json_patch::merge(&mut value, provider);
        value
    }));
    let mut settings = settings();
    if let Some(records) = input.get("records") {
        settings.records = records_with(records);
    }
    let before = pod(input["pod"].clone());
    let found = match plan_injection(
        &before,
        &namespace(),
        Some(&object(identity)),
        &providers(all),
        &[],
        &settings,
    ) {
        Injection::Plan(plan) => json!({
            "pod": plan.apply(&before),
            "replaced": plan.replaced,
            "warnings": plan.warnings.iter().map(|warning| &warning.message).collect::<Vec<_>>(),
        }),
        Injection::Refuse(refusals) => json!({
            "refused": refusals.iter().map(|refusal| json!({"reason": refusal.reason.as_str(), "message": refusal.message})).collect::<Vec<_>>(),
        }),
        Injection::Skip(reason) => json!({"skipped": reason.as_str()}),
    };
    compare(name, &found);
}

macro_rules! injected {
    ($($name:ident),* $(,)?) => {$(
        #[test]
        fn $name() {
            injected(&stringify!($name).replace('_', "-"));
        }
    )*};
}

injected!(
    plain,
    named_ports,
    probes_and_hooks,
    init_containers,
    two_providers,
    extra_ports,
    replaced_env,
    records,
    records_on_a_claim,
    refused,
    tls
);

#[test]
fn every_input_is_tested() {
    let files =
        std::fs::read_dir(folder()).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    let inputs = files.filter(|name| name.ends_with(".in.yaml")).count();
    assert_eq!(inputs, 11);
}

/// What people read: one entry for each way an identity can stand.
#[test]
fn conditions() {
    let mut found = serde_json::Map::new();
    let mut say = |case: &str, change: &dyn Fn(&mut behalf_plan::Gathered)| {
        let mut gathered = gathered();
        gathered.pods[0].revision = Some(plan(&gathered).injection_revision);
        change(&mut gathered);
        let desired = plan(&gathered);
        let applied = Applied { bundle: Some(last_good().facts()), failure: None };
        let status = identity_status(&desired, &applied, None, &at(1));
        let bundle = match &desired.bundle {
            BundleIntent::Keep => "kept".to_owned(),
            BundleIntent::Write(Serve::Policy(_)) => "policy".to_owned(),
            BundleIntent::Write(Serve::RefuseAll { reason }) => format!("refuse all: {}", reason.as_str()),
        };
        let conditions: Vec<_> = status
            .conditions
            .iter()
            .map(|c| json!({"type": c.type_, "status": c.status, "reason": c.reason, "message": c.message}))
            .collect();
        found.insert(case.to_owned(), json!({"bundle": bundle, "conditions": conditions}));
    };
    let keep = |gathered: &mut behalf_plan::Gathered| {
        gathered.last_bundle = Some(last_good());
        gathered.identity.status =
            object::<behalf_crds::v1alpha1::AgentIdentity>(accepted_identity_value()).status;
    };
    say("healthy", &|_| {});
    say("plain-http", &|g| {
        "http://hr-tools.hr.svc.cluster.local:8000/mcp".clone_into(&mut g.identity.spec.servers[0].url);
    });
    say("tls-elsewhere", &|g| {
        "https://hr-tools.hr.svc.cluster.local/mcp".clone_into(&mut g.identity.spec.servers[0].url);
    });
    say("suspended", &|g| g.identity.spec.state = behalf_crds::v1alpha1::State::Suspended);
    say("no-pods", &|g| g.pods.clear());
    say("pod-without-sidecar", &|g| g.pods.push(pod_facts("hr-2", false)));
    say("catalog-gone", &|g| g.catalog = None);
    say("catalog-gone-with-a-good-bundle", &|g| {
        g.catalog = None;
        keep(g);
    });
    say("catalog-invalid-with-a-good-bundle", &|g| {
        g.catalog.as_mut().unwrap().spec.tool_sets[0].tools[0].scopes = vec!["hr:typo".to_owned()];
        keep(g);
    });
    say("provider-gone", &|g| g.providers.clear());
    say("provider-invalid-with-a-good-bundle", &|g| {
        g.providers.get_mut("corp").unwrap().spec.ca_bundle = Some("corp".to_owned());
        keep(g);
    });
    say("namespace-not-allowed", &|g| {
        g.catalog.as_mut().unwrap().spec.allowed_namespaces =
            behalf_crds::v1alpha1::NamespaceAccess::default();
    });
    say("scope-not-in-catalog", &|g| g.identity.spec.scopes.optional.push("hr:admin".to_owned()));
    say("tool-set-not-found", &|g| "finance".clone_into(&mut g.identity.spec.servers[0].tool_set));
    say("downstream-not-found", &|g| "crm".clone_into(&mut g.identity.spec.downstreams[0].name));
    say("tool-not-found", &|g| {
        g.identity.spec.rate_limits = object(
            json!([{"name": "burst", "per": "Subject", "requests": 60, "period": "1m", "tools": ["salary.gte"]}]),
        );
    });
    say("service-account-not-found", &|g| g.service_account = None);
    say("insecure-url", &|g| "http://hr.example.com/mcp".clone_into(&mut g.identity.spec.servers[0].url));
    say("audience-taken", &|g| {
        let mut older = identity_value();
        older["metadata"] =
            json!({"name": "hr", "namespace": "people", "creationTimestamp": "2025-12-01T00:00:00Z"});
        g.siblings = vec![object(older)];
    });
    for (case, tls, reason, served) in crate::certificate::states() {
        say(case, &|g| {
            g.identity.spec.servers[0].tls = Some(object(tls.clone()));
            g.pods[0].revision = Some(plan(g).injection_revision);
            g.reports.pods.insert("uid-hr-1".to_owned(), crate::certificate::says(reason, served));
        });
    }
    for (case, facts) in crate::bypass::states() {
        say(case, &|g| g.bypass = facts.clone());
    }
    compare("conditions", &Value::Object(found));
}
