//! Our manifests, judged by a real API server: it knows every field and compiles every expression. Nothing stays there.
use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
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

/// Has the API server judge the kinds, the rendered charts and the examples, as a strict dry run. Kinds and namespaces that objects need
/// and the cluster lacks are created for that time and removed again.
///
/// # Errors
/// The API server refuses a manifest; all such are named, by file.
pub fn manifests(steps: &Steps, cluster: &Cluster) -> Result<()> {
    let root = images::workspace()?;
    let sources = sources(steps, &root)?;
    let mut borrowed = Borrowed { cluster, created: Vec::new() };
    let judged = borrowed.lend(&root, &sources).and_then(|()| judge(cluster, &sources));
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

fn yaml_files(root: &Path, folder: &str) -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root.join(folder)).with_context(|| format!("cannot read {folder}"))? {
        let name = entry?.file_name().display().to_string();
        if Path::new(&name).extension().is_some_and(|ending| ending == "yaml") {
            let path = format!("{folder}/{name}");
            let text = read(&root.join(&path))?;
            found.push((path, text));
        }
    }
    found.sort();
    Ok(found)
}

fn judge(cluster: &Cluster, sources: &[(String, String)]) -> Result<()> {
    let mut refused = Vec::new();
    for (path, text) in sources {
        let arguments = [
            "apply",
            "--server-side",
            "--force-conflicts",
            "--dry-run=server",
            "--validate=strict",
            "--field-manager=behalf-gate",
            "-f",
            "-",
        ];
        if let Err(error) = cluster.kubectl(&arguments).feed(text) {
            refused.push(format!("{path}: {}", error.root_cause()));
        }
    }
    verdict(&refused, "manifests that the API server refuses:")
}

/// What the cluster lacks and the dry run needs: an object is judged only where its kind and its namespace are.
struct Borrowed<'a> {
    cluster: &'a Cluster,
    created: Vec<(&'static str, String)>,
}

impl Borrowed<'_> {
    fn lend(&mut self, root: &Path, sources: &[(String, String)]) -> Result<()> {
        for (path, text) in yaml_files(root, "charts/behalf-crds/templates")? {
            for name in kinds(&text)? {
                self.create("crd", name, &text).with_context(|| format!("{path} is refused"))?;
            }
        }
        for name in namespaces(sources)? {
            let text =
                serde_json::json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
                    .to_string();
            self.create("namespace", name, &text)?;
        }
        for (kind, name) in &self.created {
            if *kind == "crd" {
                let object = format!("crd/{name}");
                self.cluster
                    .kubectl(&["wait", "--for=condition=Established", "--timeout=60s", &object])
                    .run()?;
            }
        }
        Ok(())
    }

    fn create(&mut self, kind: &'static str, name: String, text: &str) -> Result<()> {
        if self.cluster.kubectl(&["get", kind, &name]).succeeds() {
            return Ok(());
        }
        self.cluster.kubectl(&["create", "--validate=strict", "-f", "-"]).feed(text)?;
        self.created.push((kind, name));
        Ok(())
    }

    fn give_back(self) -> Result<()> {
        let mut left = Vec::new();
        for (kind, name) in self.created.iter().rev() {
            if let Err(error) = self.cluster.kubectl(&["delete", kind, name, "--timeout=120s"]).run() {
                left.push(format!("{kind}/{name}: {}", error.root_cause()));
            }
        }
        if left.is_empty() {
            return Ok(());
        }
        bail!("what the dry run had created could not be removed:\n  {}", left.join("\n  "))
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

/// Every namespace that an object of `sources` is in.
fn namespaces(sources: &[(String, String)]) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for (path, text) in sources {
        let documents = documents(text).with_context(|| format!("cannot read {path}"))?;
        found.extend(
            documents
                .iter()
                .filter_map(|document| document["metadata"]["namespace"].as_str())
                .map(str::to_owned),
        );
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_namespaces_of_objects_are_known_by_the_objects() {
        let text = "kind: A\nmetadata: {name: a, namespace: hr}\n---\n# nothing\n---\nkind: Namespace\nmetadata: {name: other}\n";
        let sources = [
            ("x.yaml".to_owned(), text.to_owned()),
            ("y.yaml".to_owned(), "kind: B\nmetadata: {namespace: hr}".to_owned()),
        ];
        assert_eq!(namespaces(&sources).unwrap(), BTreeSet::from(["hr".to_owned()]));
        assert!(namespaces(&[("z.yaml".to_owned(), "a: [".to_owned())]).is_err());
    }

    #[test]
    fn only_definitions_are_kinds() {
        let text = "kind: CustomResourceDefinition\nmetadata: {name: things.behalf.dev}\n---\nkind: Role\nmetadata: {name: r}\n";
        assert_eq!(kinds(text).unwrap(), ["things.behalf.dev"]);
    }
}
