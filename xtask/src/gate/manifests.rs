//! Our manifests, judged by a real API server: it knows every field and compiles every expression. Nothing stays there.
use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{Gate, read, verdict};
use crate::cluster::{Cluster, Target};
use crate::command::Run as _;
use crate::generate;
use crate::images;
use crate::progress::Steps;

pub(super) fn step(gate: &Gate<'_>) -> Result<()> {
    manifests(gate.steps, &Cluster::running(&Target::default())?)
}

pub(super) fn missing(_: &Gate<'_>) -> Option<String> {
    let how = "`cargo xtask test` runs it; or `cargo xtask cluster up`, then `cargo xtask check manifests`";
    let Ok(cluster) = Cluster::running(&Target::default()) else {
        return Some(format!("no cluster of ours is up: {how}"));
    };
    let answers = cluster.kubectl(&["get", "--raw", "/readyz", "--request-timeout=10s"]).succeeds();
    (!answers).then(|| format!("the local cluster does not answer: {how}"))
}

/// Has the API server judge the kinds, the rendered charts and the examples, as a strict dry run. A kind that the cluster lacks is
/// created for that time and removed again; an object of a namespace that it lacks is judged in `default`.
///
/// # Errors
/// The API server refuses a manifest; all such are named, by file.
pub fn manifests(steps: &Steps, cluster: &Cluster) -> Result<()> {
    let root = images::workspace()?;
    let sources = sources(steps, &root)?;
    let mut borrowed = Borrowed { cluster, created: Vec::new() };
    let judged = borrowed.lend(&root).and_then(|()| judge(steps, cluster, &sources));
    let returned = borrowed.give_back();
    judged?;
    returned
}

/// YAML by where it came from, in the order in which a person would apply it.
fn sources(steps: &Steps, root: &Path) -> Result<Vec<(String, String)>> {
    let mut found = vec![("charts/behalf".to_owned(), generate::render(steps, root, None)?)];
    for folder in ["charts/behalf-crds/templates", "charts/behalf/tests/snapshots"] {
        found.extend(yaml_files(root, folder)?);
    }
    let mut topics: Vec<_> = std::fs::read_dir(root.join("examples"))
        .context("cannot read examples")?
        .collect::<std::io::Result<Vec<_>>>()?
        .into_iter()
        .filter(|entry| entry.path().is_dir())
        .map(|entry| format!("examples/{}", entry.file_name().display()))
        .collect();
    topics.sort();
    for topic in topics {
        found.extend(yaml_files(root, &topic)?);
    }
    Ok(found)
}

/// Where the examples leave room for the certificate of whoever tries them, in a double-quoted string.
const PLACE_OF_CA: &str = "@DEMO_CA@";
/// No certificate, but the form of one, which is all that the API server sees.
const ANY_CA: &str = r"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";

fn yaml_files(root: &Path, folder: &str) -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root.join(folder)).with_context(|| format!("cannot read {folder}"))? {
        let name = entry?.file_name().display().to_string();
        if Path::new(&name).extension().is_some_and(|ending| ending == "yaml") {
            let path = format!("{folder}/{name}");
            let text = read(&root.join(&path))?.replace(PLACE_OF_CA, ANY_CA);
            found.push((path, text));
        }
    }
    found.sort();
    Ok(found)
}

fn judge(steps: &Steps, cluster: &Cluster, sources: &[(String, String)]) -> Result<()> {
    let there = cluster.kubectl(&["get", "namespaces", "-o", "jsonpath={.items[*].metadata.name}"]).text()?;
    let there: BTreeSet<&str> = there.split_whitespace().collect();
    let mut refused = Vec::new();
    for (path, text) in sources {
        let text = placed(text, &there).with_context(|| format!("cannot read {path}"))?;
        if let Err(error) = cluster.kubectl(DRY_RUN).feed(&text) {
            let said = complaint(&error.root_cause().to_string());
            if !said.is_empty() {
                refused.push(format!("{path}: {said}"));
            }
        }
    }
    steps.say(&format!("{} of {} files accepted", sources.len() - refused.len(), sources.len()));
    verdict(&refused, "manifests that the API server refuses:")
}

/// What kubectl said without its command and without the objects that passed. An object that is there already was judged
/// before the server looked for its name.
fn complaint(said: &str) -> String {
    let passed = |line: &&str| {
        line.trim().is_empty()
            || line.ends_with("(server dry run)")
            || line.starts_with("Error from server (AlreadyExists)")
    };
    let refused: Vec<_> = said.lines().skip(1).filter(|line| !passed(line)).collect();
    if refused.is_empty() && !said.contains("(AlreadyExists)") {
        return said.to_owned();
    }
    refused.join("; ")
}

const DRY_RUN: &[&str] =
    &["create", "--dry-run=server", "--validate=strict", "--field-manager=behalf-gate", "-f", "-"];

/// `text` with every object of a namespace that is not `there` moved to `default`: the server looks at nothing else of it then.
fn placed(text: &str, there: &BTreeSet<&str>) -> Result<String> {
    let mut documents = documents(text)?;
    let mut moved = false;
    for document in &mut documents {
        let namespace = &mut document["metadata"]["namespace"];
        if namespace.as_str().is_some_and(|name| !there.contains(name)) {
            *namespace = "default".into();
            moved = true;
            templated(document);
        } else if namespace.is_null()
            && let Some(metadata) = document["metadata"].as_object_mut()
        {
            metadata.remove("namespace");
        }
    }
    if !moved {
        return Ok(text.to_owned());
    }
    Ok(serde_json::json!({"apiVersion": "v1", "kind": "List", "items": documents}).to_string())
}

/// A pod is admitted only where its service account is; the template of one has the same fields, and needs nothing beside it.
fn templated(document: &mut Value) {
    if document["kind"] == "Pod" {
        let template = serde_json::json!({"spec": document["spec"].take()});
        document["kind"] = "PodTemplate".into();
        document["template"] = template;
        if let Some(members) = document.as_object_mut() {
            members.remove("spec");
        }
    }
}

/// The kinds that the dry run needs and the cluster lacks: an object is judged only where its kind is known.
struct Borrowed<'a> {
    cluster: &'a Cluster,
    created: Vec<String>,
}

impl Borrowed<'_> {
    fn lend(&mut self, root: &Path) -> Result<()> {
        for (path, text) in yaml_files(root, "charts/behalf-crds/templates")? {
            for name in kinds(&text)? {
                let object = format!("crd/{name}");
                if self.cluster.kubectl(&["get", &object]).succeeds() {
                    continue;
                }
                let create = self.cluster.kubectl(&["create", "--validate=strict", "-f", "-"]).feed(&text);
                create.with_context(|| format!("{path} is refused"))?;
                self.created.push(object);
            }
        }
        for object in &self.created {
            self.cluster.kubectl(&["wait", "--for=condition=Established", "--timeout=60s", object]).run()?;
        }
        Ok(())
    }

    fn give_back(self) -> Result<()> {
        let mut left = Vec::new();
        for object in &self.created {
            if let Err(error) = self.cluster.kubectl(&["delete", object, "--timeout=120s"]).run() {
                left.push(format!("{object}: {}", error.root_cause()));
            }
        }
        verdict(&left, "kinds that were created for the dry run and could not be removed:")
    }
}

fn documents(text: &str) -> Result<Vec<Value>> {
    let read: Vec<Value> = serde_saphyr::from_multiple(text).context("no YAML")?;
    Ok(read.into_iter().filter(|document| !document.is_null()).collect())
}

/// Names of the definitions in `text`.
fn kinds(text: &str) -> Result<Vec<String>> {
    let named = |document: &Value| document["metadata"]["name"].as_str().map(str::to_owned);
    Ok(documents(text)?
        .iter()
        .filter(|document| document["kind"] == "CustomResourceDefinition")
        .filter_map(named)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_of_a_namespace_that_is_not_there_is_judged_in_another() {
        let text = "kind: A\nmetadata: {name: a, namespace: hr}\n---\n# nothing\n---\nkind: B\nmetadata: {name: b}\n";
        assert_eq!(placed(text, &BTreeSet::from(["hr"])).unwrap(), text);
        let moved: Value =
            serde_json::from_str(&placed(text, &BTreeSet::from(["default"])).unwrap()).unwrap();
        assert_eq!(moved["items"][0]["metadata"], serde_json::json!({"name": "a", "namespace": "default"}));
        assert_eq!(moved["items"][1], serde_json::json!({"kind": "B", "metadata": {"name": "b"}}));
        assert!(placed("a: [", &BTreeSet::new()).is_err());
        assert!(
            placed("a: 1\na: 2", &BTreeSet::new()).is_err(),
            "a key twice is refused here, since JSON would hide it"
        );
    }

    #[test]
    fn a_pod_that_is_moved_is_judged_as_a_template() {
        let text =
            "{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: hr}, spec: {serviceAccountName: s}}";
        let moved: Value = serde_json::from_str(&placed(text, &BTreeSet::new()).unwrap()).unwrap();
        let expected = serde_json::json!({
            "apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "a", "namespace": "default"},
            "template": {"spec": {"serviceAccountName": "s"}},
        });
        assert_eq!(moved["items"][0], expected);
        assert_eq!(placed(text, &BTreeSet::from(["hr"])).unwrap(), text);
    }

    #[test]
    fn a_complaint_is_what_was_refused() {
        let said = "`kubectl apply` ended with 1\nservice/a serverside-applied (server dry run)\nThe Thing \"b\" is invalid";
        assert_eq!(complaint(said), "The Thing \"b\" is invalid");
        assert_eq!(complaint("`kubectl` cannot be started"), "`kubectl` cannot be started");
        let there =
            "`kubectl create` ended with 1\nError from server (AlreadyExists): services \"a\" already exists";
        assert_eq!(complaint(there), "");
        assert_eq!(complaint(&format!("{there}\nThe Thing \"b\" is invalid")), "The Thing \"b\" is invalid");
    }

    #[test]
    fn only_definitions_are_kinds() {
        let text = "kind: CustomResourceDefinition\nmetadata: {name: things.behalf.dev}\n---\nkind: Role\nmetadata: {name: r}\n";
        assert_eq!(kinds(text).unwrap(), ["things.behalf.dev"]);
    }
}
