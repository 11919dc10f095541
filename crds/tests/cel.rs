//! The rules of the schema, without a cluster: each file under `data/invalid` breaks one rule and says which, each under
//! `data/valid` breaks none. The same files go to a real API server in the cluster tests.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests read their data and fail by panicking"
)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use behalf_crds::v1alpha1::{AgentIdentity, IdentityProvider, ScopeCatalog};
use behalf_crds::{Validate, Violation, ViolationReason, validate_manifest};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

fn files(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(folder);
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn manifest(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap()
}

/// The typed verdict on a manifest; `None` if it is no object of its kind at all.
fn typed(manifest: &Value) -> Option<Result<(), Vec<Violation>>> {
    fn verdict<T: DeserializeOwned + Validate>(manifest: &Value) -> Option<Result<(), Vec<Violation>>> {
        serde_json::from_value::<T>(manifest.clone()).ok().map(|object| object.validate())
    }
    match manifest["kind"].as_str() {
        Some("IdentityProvider") => verdict::<IdentityProvider>(manifest),
        Some("ScopeCatalog") => verdict::<ScopeCatalog>(manifest),
        Some("AgentIdentity") => verdict::<AgentIdentity>(manifest),
        other => panic!("{other:?}"),
    }
}

#[test]
fn valid_manifests_pass() {
    let files = files("valid");
    assert!(files.len() >= 6);
    for file in files {
        let manifest = manifest(&std::fs::read_to_string(&file).unwrap());
        assert_eq!(validate_manifest(&manifest), Ok(()), "{}", file.display());
        assert_eq!(typed(&manifest), Some(Ok(())), "{}", file.display());
    }
}

#[test]
fn objects_of_our_kinds_in_the_examples_are_valid() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let mut folders = vec![examples];
    let mut checked = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            if path.extension().is_none_or(|extension| extension != "yaml") {
                continue;
            }
            // The demo writes its own authority there.
            let authority = r"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
            let text = std::fs::read_to_string(&path).unwrap().replace("@DEMO_CA@", authority);
            for document in
                text.split("\n---").filter(|document| document.contains("apiVersion: behalf.dev/"))
            {
                assert_eq!(validate_manifest(&manifest(document)), Ok(()), "{}", path.display());
                checked += 1;
            }
        }
    }
    assert!(checked >= 3, "{checked}");
}

#[test]
fn each_invalid_manifest_is_refused_where_and_as_it_says() {
    let mut wrong = Vec::new();
    for file in files("invalid") {
        let text = std::fs::read_to_string(&file).unwrap();
        let expected = |key: &str| {
            let prefix = format!("# {key}:");
            let line = text.lines().find_map(|line| line.strip_prefix(&prefix));
            line.unwrap_or_else(|| panic!("{} does not say its {key}", file.display())).trim().to_owned()
        };
        let (field, message) = (expected("field"), expected("message"));
        let manifest = manifest(&text);
        let found = validate_manifest(&manifest).err().unwrap_or_default();
        let named = found.iter().any(|violation| {
            violation.field == field && message.split('|').any(|part| violation.message.contains(part))
        });
        if !named {
            wrong.push(format!("{}: wants {field}: {message}; got {found:?}", file.display()));
        }
        // What a typed reader makes of it is never softer, unknown fields apart, which the API server drops.
        let unknown = found.iter().all(|violation| violation.reason == ViolationReason::Unknown);
        if !unknown && typed(&manifest).is_some_and(|verdict| verdict.is_ok()) {
            wrong.push(format!("{}: its type takes it", file.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_rule_is_broken_by_some_invalid_manifest() {
    fn rules(schema: &Value, found: &mut BTreeSet<String>) {
        match schema {
            Value::Object(members) => {
                for rule in
                    members.get("x-kubernetes-validations").and_then(Value::as_array).into_iter().flatten()
                {
                    // Transition rules have tests of their own below.
                    if !rule["rule"].as_str().unwrap().contains("oldSelf") {
                        found.insert(rule["message"].as_str().unwrap().to_owned());
                    }
                    assert!(rule["reason"].is_string(), "{rule}");
                    // For FieldValueDuplicate the API server leaves the message out.
                    assert_ne!(rule["reason"], "FieldValueDuplicate", "{rule}");
                }
                members.values().for_each(|member| rules(member, found));
            }
            Value::Array(items) => items.iter().for_each(|item| rules(item, found)),
            _ => {}
        }
    }
    let mut all = BTreeSet::new();
    for schema in [IdentityProvider::schema(), ScopeCatalog::schema(), AgentIdentity::schema()] {
        rules(schema.json(), &mut all);
    }
    let mut broken = BTreeSet::new();
    for file in files("invalid") {
        let manifest = manifest(&std::fs::read_to_string(&file).unwrap());
        let found = validate_manifest(&manifest).err().unwrap_or_default();
        broken.extend(found.into_iter().map(|violation| violation.message));
    }
    let untested: Vec<_> = all.difference(&broken).collect();
    assert!(all.len() >= 20, "{all:?}");
    assert!(untested.is_empty(), "{untested:#?}");
}

fn refused(result: Result<(), Vec<Violation>>) -> Vec<(String, ViolationReason)> {
    result
        .err()
        .unwrap_or_default()
        .into_iter()
        .map(|violation| (violation.field, violation.reason))
        .collect()
}

#[test]
fn an_issuer_cannot_be_changed() {
    let provider = |issuer: &str| -> IdentityProvider {
        serde_json::from_value(json!({
            "apiVersion": "behalf.dev/v1alpha1", "kind": "IdentityProvider", "metadata": {"name": "corp"},
            "spec": {"issuer": issuer},
        }))
        .unwrap()
    };
    let old = provider("https://idp.example.com/realms/a");
    let new = provider("https://idp.example.com/realms/b");
    assert_eq!(refused(new.validate_update(&old)), [("spec.issuer".to_owned(), ViolationReason::Forbidden)]);
    assert_eq!(old.validate_update(&old), Ok(()));
    assert_eq!(new.validate(), Ok(()));
}

#[test]
fn a_service_account_cannot_be_changed() {
    let text = include_str!("data/valid/agent-identity.yaml");
    let old: AgentIdentity = serde_json::from_value(manifest(text)).unwrap();
    let mut new = old.clone();
    new.spec.service_account_name = "other".to_owned();
    assert_eq!(
        refused(new.validate_update(&old)),
        [("spec.serviceAccountName".to_owned(), ViolationReason::Forbidden)]
    );
    // Everything else may change.
    let mut new = old.clone();
    new.spec.servers[0].url = "https://hr.example.com/other".to_owned();
    new.spec.servers[0].port = 9000;
    new.spec.catalog_ref.name = "other".to_owned();
    assert_eq!(new.validate_update(&old), Ok(()));
}

#[test]
fn foreign_kinds_and_versions_are_refused() {
    for manifest in [
        json!({}),
        json!(null),
        json!({"kind": "AgentIdentity", "spec": {}}),
        json!({"apiVersion": "behalf.dev/v1", "kind": "AgentIdentity", "spec": {}}),
        json!({"apiVersion": "v1", "kind": "ConfigMap"}),
    ] {
        assert!(validate_manifest(&manifest).is_err(), "{manifest}");
    }
}
