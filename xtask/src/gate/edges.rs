//! Which crate of the workspace may know which, and what none of its dependencies may bring in.
use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use serde::Deserialize;

use super::{Gate, verdict};
use crate::command::Run as _;

/// What one crate of the workspace may have.
struct Rule {
    name: &'static str,
    /// The crates of the workspace that it may depend on; none: any.
    knows: Option<&'static [&'static str]>,
    /// Crates that must not be among what it is built with; a final `*` stands for any ending.
    never: &'static [&'static str],
    because: &'static str,
}

/// What does I/O, reads clocks or randomness.
const WORLD: &[&str] = &[
    "aws-lc-rs",
    "getrandom",
    "hyper",
    "hyper-util",
    "kube-client",
    "kube-runtime",
    "rand",
    "reqwest",
    "rustls",
    "tokio",
    "tokio-*",
    "tracing",
    "tracing-*",
];
const PURE: &str = "a pure crate does no I/O and knows no runtime";

const RULES: &[Rule] = &[
    Rule { name: "behalf-crds", knows: Some(&[]), never: WORLD, because: PURE },
    Rule { name: "behalf-policy", knows: Some(&[]), never: WORLD, because: PURE },
    Rule { name: "behalf-plan", knows: Some(&["behalf-crds", "behalf-policy"]), never: WORLD, because: PURE },
    Rule {
        name: "behalf-operator",
        knows: Some(&["behalf-plan", "behalf-crds", "behalf-policy"]),
        never: &[],
        because: "",
    },
    Rule {
        name: "behalf-sidecar",
        knows: Some(&["behalf-policy"]),
        never: &["kube", "kube-*", "k8s-openapi"],
        because: "the bundle is all that the sidecar knows of Kubernetes",
    },
    Rule {
        name: "behalf-fuzz",
        knows: Some(&["behalf-policy", "behalf-sidecar"]),
        never: &["kube", "kube-*", "k8s-openapi"],
        because: "it tries what reads the bytes of strangers",
    },
    Rule { name: "behalf-e2e", knows: None, never: &[], because: "" },
    Rule { name: "xtask", knows: None, never: &[], because: "" },
];

/// `policy` stands beside the kinds, not above them.
const POLICY_NEVER: &[&str] = &["kube", "kube-*", "k8s-openapi", "schemars"];

pub(super) fn edges(gate: &Gate<'_>) -> Result<()> {
    let metadata = gate.cargo(&["metadata", "--locked", "--no-deps", "--format-version=1"]).text()?;
    let metadata: Metadata =
        serde_json::from_str(&metadata).context("cargo metadata says something unknown")?;
    let mut findings = internal(&metadata);
    for rule in RULES.iter().filter(|rule| !rule.never.is_empty()) {
        // By package: so that features are those this crate asks for, not what its neighbours add.
        let tree = gate
            .cargo(&["tree", "--locked", "-p", rule.name, "-e", "normal", "--target", "all", "--prefix=none"])
            .text()?;
        findings.extend(external(rule.name, &tree));
    }
    verdict(&findings, "dependencies against the rules:")
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_members: Vec<String>,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    dependencies: Vec<Dependency>,
}

/// A declared dependency of any kind; a renamed one has its true name here.
#[derive(Deserialize)]
struct Dependency {
    name: String,
}

/// Every edge inside of the workspace that no rule allows, and every crate without a rule.
fn internal(metadata: &Metadata) -> Vec<String> {
    let members: BTreeMap<&str, &Package> = metadata
        .packages
        .iter()
        .filter(|package| metadata.workspace_members.contains(&package.id))
        .map(|package| (package.name.as_str(), package))
        .collect();
    let mut findings = Vec::new();
    for (name, package) in &members {
        let Some(rule) = RULES.iter().find(|rule| rule.name == *name) else {
            findings.push(format!("{name} is a new crate: say in xtask/src/gate/edges.rs what it may know"));
            continue;
        };
        let Some(knows) = rule.knows else { continue };
        let inside: BTreeSet<&str> = package
            .dependencies
            .iter()
            .map(|dependency| dependency.name.as_str())
            .filter(|other| members.contains_key(other) && !knows.contains(other))
            .collect();
        let may = if knows.is_empty() { "no other crate of ours".to_owned() } else { knows.join(", ") };
        findings.extend(inside.iter().map(|other| format!("{name} → {other}: {name} may know {may}")));
    }
    findings
}

/// What `name` may not be built with, of the crates that `tree` (`cargo tree --prefix=none`) lists.
fn external(name: &str, tree: &str) -> Vec<String> {
    let Some(rule) = RULES.iter().find(|rule| rule.name == name) else { return Vec::new() };
    let also: &[&str] = if name == "behalf-policy" { POLICY_NEVER } else { &[] };
    let found: BTreeSet<&str> = tree
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|word| *word != name && rule.never.iter().chain(also).any(|pattern| matches(pattern, word)))
        .collect();
    found
        .iter()
        .map(|other| {
            format!(
                "{name} is built with {other} ({}); see `cargo tree -p {name} -e normal -i {other}`",
                rule.because
            )
        })
        .collect()
}

fn matches(pattern: &str, name: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == name, |start| name.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workspace(crates: &[(&str, &[&str])]) -> Metadata {
        let packages: Vec<_> = crates
            .iter()
            .map(|(name, needs)| {
                let needs: Vec<_> = needs.iter().map(|need| serde_json::json!({"name": need, "kind": null})).collect();
                serde_json::json!({"id": format!("path+file:///x#{name}@0.1.0"), "name": name, "dependencies": needs})
            })
            .collect();
        let members: Vec<_> = packages.iter().map(|package| package["id"].clone()).collect();
        serde_json::from_value(serde_json::json!({"packages": packages, "workspace_members": members}))
            .unwrap()
    }

    #[test]
    fn the_frame_of_the_project_is_allowed() {
        let metadata = workspace(&[
            ("behalf-crds", &["kube", "serde"]),
            ("behalf-policy", &["serde"]),
            ("behalf-plan", &["behalf-crds", "behalf-policy"]),
            ("behalf-operator", &["behalf-plan", "behalf-crds", "behalf-policy", "tokio"]),
            ("behalf-sidecar", &["behalf-policy", "tokio"]),
            ("behalf-e2e", &["behalf-crds", "behalf-sidecar", "xtask"]),
            ("xtask", &["behalf-crds"]),
        ]);
        assert_eq!(internal(&metadata), Vec::<String>::new());
    }

    #[test]
    fn an_edge_that_no_rule_allows_is_refused_with_the_rule() {
        let all =
            ["behalf-crds", "behalf-policy", "behalf-plan", "behalf-operator", "behalf-sidecar", "xtask"];
        let refused = [
            ("behalf-sidecar", "behalf-crds"),
            ("behalf-sidecar", "behalf-plan"),
            ("behalf-policy", "behalf-crds"),
            ("behalf-crds", "behalf-policy"),
            ("behalf-plan", "behalf-operator"),
            ("behalf-operator", "behalf-sidecar"),
            ("behalf-operator", "xtask"),
        ];
        for (from, to) in refused {
            let needs = [to];
            let crates: Vec<(&str, &[&str])> =
                all.iter().map(|name| (*name, if *name == from { &needs[..] } else { &[] })).collect();
            let findings = internal(&workspace(&crates));
            assert_eq!(findings.len(), 1, "{from} -> {to}: {findings:?}");
            assert!(findings[0].starts_with(&format!("{from} → {to}: {from} may know ")), "{findings:?}");
        }
    }

    #[test]
    fn a_development_dependency_is_an_edge_too() {
        let mut metadata = serde_json::json!({
            "packages": [
                {"id": "a", "name": "behalf-policy", "dependencies": [{"name": "behalf-crds", "kind": "dev", "rename": "k"}]},
                {"id": "b", "name": "behalf-crds", "dependencies": []},
            ],
            "workspace_members": ["a", "b"],
        });
        let read = |value: &serde_json::Value| serde_json::from_value::<Metadata>(value.clone()).unwrap();
        assert_eq!(
            internal(&read(&metadata)),
            ["behalf-policy → behalf-crds: behalf-policy may know no other crate of ours"]
        );
        // The name alone makes no crate one of ours.
        metadata["workspace_members"] = serde_json::json!(["a"]);
        assert_eq!(internal(&read(&metadata)), Vec::<String>::new());
    }

    #[test]
    fn a_crate_without_a_rule_is_refused() {
        let findings = internal(&workspace(&[("behalf-shared", &[])]));
        assert_eq!(
            findings,
            ["behalf-shared is a new crate: say in xtask/src/gate/edges.rs what it may know"]
        );
    }

    #[test]
    fn what_a_crate_must_not_be_built_with_is_found_at_any_depth() {
        let tree = "behalf-policy v0.1.0 (/x)\nserde v1.0.2\ntokio-util v0.7.1\nkube-core v5.0.0\ntokio-util v0.7.1 (*)\n";
        let findings = external("behalf-policy", tree);
        assert_eq!(findings.len(), 2, "{findings:?}");
        assert!(
            findings[1].starts_with("behalf-policy is built with tokio-util (a pure crate"),
            "{findings:?}"
        );
        assert_eq!(
            external("behalf-crds", "behalf-crds v0.1.0\nkube v5.0.0\nkube-core v5.0.0"),
            Vec::<String>::new()
        );
        assert_eq!(external("behalf-crds", "kube v5.0.0\nkube-client v5.0.0").len(), 1);
        assert_eq!(external("behalf-sidecar", "tokio v1\nhyper v1"), Vec::<String>::new());
        assert_eq!(external("behalf-sidecar", "tokio v1\nk8s-openapi v0.29.0\nkube-derive v5.0.0").len(), 2);
    }
}
