//! The generated definitions: the committed files are what the types give, and nothing in them is unbounded or unsaid.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests read their data and fail by panicking"
)]

use std::path::Path;

use behalf_crds::crd_yaml;
use serde_json::{Value, json};

fn definitions() -> Vec<Value> {
    crd_yaml().unwrap().into_iter().map(|(_, yaml)| serde_saphyr::from_str(&yaml).unwrap()).collect()
}

fn version(definition: &Value) -> &Value {
    let versions = definition["spec"]["versions"].as_array().unwrap();
    assert_eq!(versions.len(), 1);
    &versions[0]
}

#[test]
fn the_chart_holds_what_the_types_give() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/behalf-crds/templates");
    let mut files = Vec::new();
    for (name, yaml) in crd_yaml().unwrap() {
        let committed = std::fs::read_to_string(folder.join(&name)).unwrap_or_default();
        assert!(
            committed == yaml,
            "{name} is stale: cargo run -p behalf-crds --bin crdgen -- --out charts/behalf-crds/templates"
        );
        files.push(name);
    }
    assert_eq!(
        files,
        [
            "behalf.dev_agentidentities.yaml",
            "behalf.dev_identityproviders.yaml",
            "behalf.dev_scopecatalogs.yaml"
        ]
    );
}

#[test]
fn nothing_is_unbounded_untyped_or_undescribed() {
    let mut faults = Vec::new();
    for definition in definitions() {
        let kind = definition["spec"]["names"]["kind"].as_str().unwrap().to_owned();
        check(&version(&definition)["schema"]["openAPIV3Schema"], &kind, true, &mut faults);
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// What API conventions and the cost budget of the rules ask of one node. `described`: the node is a field.
fn check(schema: &Value, path: &str, described: bool, faults: &mut Vec<String>) {
    let mut fault = |what: &str| faults.push(format!("{path}: {what}"));
    if described && schema["description"].as_str().is_none_or(|text| text.len() < 4) {
        fault("no description");
    }
    for bad in ["anyOf", "oneOf", "allOf", "not", "x-kubernetes-preserve-unknown-fields"] {
        if !schema[bad].is_null() {
            fault(bad);
        }
    }
    match schema["type"].as_str() {
        Some("string") => {
            let closed = schema["enum"].is_array();
            if !closed && !schema["maxLength"].is_u64() {
                fault("no maxLength");
            }
            for choice in schema["enum"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                if !choice.starts_with(|c: char| c.is_ascii_uppercase())
                    || !choice.chars().all(|c| c.is_ascii_alphanumeric())
                {
                    fault("an enumeration value is not CamelCase");
                }
            }
        }
        Some("integer") => {
            if !schema["minimum"].is_i64() || !schema["maximum"].is_i64() {
                fault("no bounds");
            }
            if schema["format"] != "int64" {
                fault("not int64");
            }
        }
        Some("array") => {
            if !schema["maxItems"].is_u64() {
                fault("no maxItems");
            }
            let objects = schema["items"]["type"] == "object";
            match schema["x-kubernetes-list-type"].as_str() {
                Some("map") if objects => {}
                Some("set") if !objects => {}
                // What has one writer is written as a whole.
                Some("atomic")
                    if [".selector.", ".status.decisions.", ".tokenProfile."]
                        .iter()
                        .any(|at| path.contains(at)) => {}
                _ => fault("the list type does not fit"),
            }
            check(&schema["items"], &format!("{path}[]"), objects, faults);
        }
        Some("object") => {
            for (name, property) in schema["properties"].as_object().into_iter().flatten() {
                if !name.starts_with(|c: char| c.is_ascii_lowercase())
                    || !name.chars().all(|c| c.is_ascii_alphanumeric())
                {
                    faults.push(format!("{path}.{name}: not camelCase"));
                }
                check(property, &format!("{path}.{name}"), true, faults);
            }
            if let Some(values) = schema.get("additionalProperties") {
                if !schema["maxProperties"].is_u64() {
                    faults.push(format!("{path}: no maxProperties"));
                }
                check(values, &format!("{path}{{}}"), false, faults);
            } else if schema["properties"].is_null() {
                faults.push(format!("{path}: an object without properties"));
            }
        }
        // A fact that cannot grow a third value.
        Some("boolean") if path.ends_with(".status.decisions.complete") => {}
        // What a claim is compared with is one of the things that JSON has.
        Some("boolean") if path.ends_with(".requiredClaims[].boolean") => {}
        other => fault(&format!("type {other:?}")),
    }
}

#[test]
fn lists_of_objects_are_keyed_by_name() {
    fn lists(schema: &Value, path: &str, found: &mut Vec<(String, Value)>) {
        if schema["x-kubernetes-list-type"] == "map" {
            found.push((path.to_owned(), schema["x-kubernetes-list-map-keys"].clone()));
        }
        if schema["items"].is_object() {
            lists(&schema["items"], path, found);
        }
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            lists(property, &format!("{path}.{name}"), found);
        }
    }
    for definition in definitions() {
        let mut found = Vec::new();
        lists(&version(&definition)["schema"]["openAPIV3Schema"], "", &mut found);
        assert!(!found.is_empty());
        for (path, keys) in found {
            let expected = match path.as_str() {
                ".status.conditions" => json!(["type"]),
                ".spec.servers.interception.extraPorts" => json!(["port", "protocol"]),
                _ => json!(["name"]),
            };
            assert_eq!(keys, expected, "{path}");
        }
    }
}

#[test]
fn names_columns_and_subresources() {
    let shape = |kind: &str| {
        let definition =
            definitions().into_iter().find(|definition| definition["spec"]["names"]["kind"] == kind).unwrap();
        let version = version(&definition).clone();
        let columns: Vec<_> = version["additionalPrinterColumns"]
            .as_array()
            .unwrap()
            .iter()
            .map(|column| column["name"].clone())
            .collect();
        assert_eq!(definition["metadata"]["annotations"]["helm.sh/resource-policy"], "keep");
        assert_eq!(definition["spec"]["group"], "behalf.dev");
        assert_eq!(definition["spec"]["names"]["categories"], json!(["behalf"]));
        assert_eq!(definition.get("status"), None);
        assert_eq!(version["name"], "v1alpha1");
        assert_eq!(version["subresources"], json!({"status": {}}));
        let selectable = version["selectableFields"].as_array().cloned().unwrap_or_default();
        let selectable: Vec<_> = selectable.into_iter().map(|field| field["jsonPath"].clone()).collect();
        (
            definition["spec"]["names"]["shortNames"].clone(),
            definition["spec"]["scope"].clone(),
            Value::from(columns),
            Value::from(selectable),
        )
    };
    assert_eq!(
        shape("IdentityProvider"),
        (
            json!(["idp"]),
            json!("Cluster"),
            json!(["Issuer", "Flavor", "Accepted", "Reason", "Age"]),
            json!([])
        )
    );
    assert_eq!(
        shape("ScopeCatalog"),
        (
            json!(["scat"]),
            json!("Cluster"),
            json!(["Accepted", "Reason", "Scopes", "Tools", "Age"]),
            json!([])
        )
    );
    assert_eq!(
        shape("AgentIdentity"),
        (
            json!(["aid"]),
            json!("Namespaced"),
            json!(["Stage", "Ready", "Reason", "Pods", "Current", "Would-Deny", "Denied", "Injected", "Age"]),
            json!([".spec.catalogRef.name", ".spec.serviceAccountName"])
        )
    );
}

#[test]
fn group_version_and_category_are_those_of_the_names() {
    use behalf_crds::names;
    for definition in definitions() {
        assert_eq!(definition["spec"]["group"], names::GROUP);
        assert_eq!(definition["spec"]["names"]["categories"][0], names::CATEGORY);
        assert_eq!(version(&definition)["name"], names::VERSION);
    }
}

#[test]
fn names_in_rules_are_those_of_the_names() {
    use behalf_crds::names;
    let rule = |index: usize| {
        definitions()[index]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["x-kubernetes-validations"]
            [0]["rule"]
            .to_string()
    };
    assert!(rule(0).contains(&format!("size() <= {} ", names::MAX_AGENT_IDENTITY_NAME)));
    assert!(rule(1).contains(&format!("size() <= {} ", names::MAX_IDENTITY_PROVIDER_NAME)));
}
