//! From an empty cluster to everything running, in the order in which a platform team would do it.
use std::fs;

use anyhow::{Context as _, Result};

use super::{Images, pki::Pki};
use crate::cluster::Cluster;
use crate::command::Run as _;
use crate::images::{Image, workspace};
use crate::progress::Steps;

/// Namespace of the operator.
const SYSTEM: &str = "behalf-system";

/// What was deployed, for those who ask it something.
pub struct World {
    /// The demo's authority, PEM.
    pub authority: String,
}

/// Installs the charts and everything in `examples/`, and waits until it is ready. What is there already is brought up to date.
///
/// # Errors
/// Something is refused by the API server or does not become ready; the message holds what was seen.
pub fn deploy(steps: &Steps, cluster: &Cluster, images: &Images) -> Result<World> {
    for image in images.all() {
        cluster.load(steps, image)?;
    }
    steps.run("charts behalf-crds and behalf", "10 to 30 s", || charts(cluster, images))?;
    let pki = Pki::ensure()?;
    steps.run("Keycloak and payroll", "15 to 60 s", || systems(cluster, images, &pki))?;
    steps.run("IdentityProvider, ScopeCatalog, AgentIdentity", "2 s", || objects(cluster, &pki))?;
    steps.run("the MCP server, with its sidecar", "10 to 30 s", || server(cluster, images))?;
    Ok(World { authority: pki.authority })
}

/// Installs or upgrades both charts and runs the chart's own test.
fn charts(cluster: &Cluster, images: &Images) -> Result<()> {
    let charts = workspace()?.join("charts");
    let chart = |name: &str| charts.join(name).to_string_lossy().into_owned();
    cluster
        .helm(&[
            "upgrade",
            "--install",
            "behalf-crds",
            &chart("behalf-crds"),
            "--namespace",
            SYSTEM,
            "--create-namespace",
            "--wait",
        ])
        .run()?;
    let mut words = vec![
        "upgrade".to_owned(),
        "--install".to_owned(),
        "behalf".to_owned(),
        chart("behalf"),
        "--namespace".to_owned(),
        SYSTEM.to_owned(),
        "--wait".to_owned(),
        "--timeout=180s".to_owned(),
    ];
    for (part, image) in [("operator", &images.operator), ("sidecar", &images.sidecar)] {
        words.extend([
            "--set".to_owned(),
            format!(
                "{part}.image.repository={},{part}.image.tag={},{part}.image.digest={}",
                image.name, image.tag, image.digest
            ),
        ]);
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    cluster.helm(&words).run().with_context(|| dump(cluster, SYSTEM))?;
    cluster
        .helm(&["test", "behalf", "--namespace", SYSTEM, "--timeout=60s", "--logs"])
        .run()
        .with_context(|| dump(cluster, SYSTEM))
}

fn systems(cluster: &Cluster, images: &Images, pki: &Pki) -> Result<()> {
    for (name, pair) in [("keycloak", &pki.keycloak), ("payroll", &pki.payroll)] {
        cluster.apply(&namespace(name))?;
        cluster.apply(&tls_secret(name, &pair.certificate, &pair.key))?;
    }
    cluster.apply(&namespace("agents"))?;
    for name in ["payroll", "agents"] {
        cluster.apply(&config_map(name, "demo-ca", "ca.crt", &pki.authority))?;
    }
    cluster.apply(&config_map("keycloak", "client-ca", "ca.crt", &pki.client_authority))?;
    cluster.apply(&manifest("keycloak/keycloak.yaml", images)?)?;
    cluster.apply(&manifest("payroll/payroll.yaml", images)?)?;
    for name in ["keycloak", "payroll"] {
        rollout(cluster, name, name)?;
    }
    Ok(())
}

fn objects(cluster: &Cluster, pki: &Pki) -> Result<()> {
    cluster.apply(&example("hr-tools/namespace.yaml")?)?;
    for file in ["hr/identity-provider.yaml", "hr/scope-catalog.yaml", "hr/agent-identity.yaml"] {
        cluster.apply(&with_authority(&example(file)?, &pki.authority))?;
    }
    let accepted = ["-n", "hr", "wait", "aid/hr-tools", "--for=condition=ResolvedRefs", "--timeout=60s"];
    cluster.kubectl(&accepted).run().with_context(|| describe_identity(cluster))
}

fn server(cluster: &Cluster, images: &Images) -> Result<()> {
    cluster.apply(&manifest("hr-tools/hr-tools.yaml", images)?)?;
    rollout(cluster, "hr", "hr-tools")?;
    let ready = ["-n", "hr", "wait", "aid/hr-tools", "--for=condition=Ready", "--timeout=60s"];
    cluster.kubectl(&ready).run().with_context(|| describe_identity(cluster))?;
    // On a cluster that ran an earlier build: what is injected came with the pod.
    let outdated = "jsonpath={.status.pods.outdated}";
    let outdated = cluster.kubectl(&["-n", "hr", "get", "aid/hr-tools", "-o", outdated]).text()?;
    if matches!(outdated.as_str(), "" | "0") {
        return Ok(());
    }
    cluster.kubectl(&["-n", "hr", "rollout", "restart", "deployment/hr-tools"]).run()?;
    rollout(cluster, "hr", "hr-tools")
}

/// Takes everything away again, in the order that leaves no pod that cannot start.
///
/// # Errors
/// The cluster does not answer.
pub fn uninstall(cluster: &Cluster) -> Result<()> {
    cluster
        .kubectl(&[
            "delete",
            "namespace",
            "agents",
            "payroll",
            "keycloak",
            "--ignore-not-found",
            "--wait=true",
            "--timeout=120s",
        ])
        .run()?;
    cluster
        .kubectl(&["-n", "hr", "delete", "deployment", "hr-tools", "--ignore-not-found", "--wait=true"])
        .run()?;
    for kind in ["aid", "scat", "idp"] {
        cluster.kubectl(&["delete", kind, "--all", "--all-namespaces", "--ignore-not-found"]).run()?;
    }
    cluster.helm(&["uninstall", "behalf", "--namespace", SYSTEM, "--ignore-not-found", "--wait"]).run()?;
    cluster
        .kubectl(&["delete", "namespace", "hr", "--ignore-not-found", "--wait=true", "--timeout=120s"])
        .run()?;
    cluster.helm(&["uninstall", "behalf-crds", "--namespace", SYSTEM, "--ignore-not-found", "--wait"]).run()
}

/// A file of `examples/`.
///
/// # Errors
/// It is not there.
pub fn example(path: &str) -> Result<String> {
    let file = workspace()?.join("examples").join(path);
    fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))
}

/// A manifest of `examples/` with the images that were built.
///
/// # Errors
/// It is not there.
pub fn manifest(path: &str, images: &Images) -> Result<String> {
    Ok(with_images(&example(path)?, &images.by_example_name()))
}

fn with_images(text: &str, images: &[(&str, &Image)]) -> String {
    images.iter().fold(text.to_owned(), |text, (name, image)| text.replace(name, &image.reference()))
}

/// Puts the authority's certificate where `@DEMO_CA@` stands in a double-quoted YAML string.
#[must_use]
pub fn with_authority(text: &str, pem: &str) -> String {
    text.replace("@DEMO_CA@", &pem.replace('\n', "\\n"))
}

fn rollout(cluster: &Cluster, namespace: &str, deployment: &str) -> Result<()> {
    let words = ["-n", namespace, "rollout", "status", &format!("deployment/{deployment}"), "--timeout=240s"];
    cluster.kubectl(&words).run().with_context(|| dump(cluster, namespace))
}

fn namespace(name: &str) -> String {
    format!("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}\n")
}

fn tls_secret(namespace: &str, certificate: &str, key: &str) -> String {
    let [certificate, key] = [certificate, key].map(indented);
    format!(
        "apiVersion: v1\nkind: Secret\ntype: kubernetes.io/tls\nmetadata: {{name: {namespace}-tls, namespace: {namespace}}}\nstringData:\n  tls.crt: |\n{certificate}\n  tls.key: |\n{key}\n"
    )
}

fn config_map(namespace: &str, name: &str, key: &str, value: &str) -> String {
    let value = indented(value);
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: {namespace}}}\ndata:\n  {key}: |\n{value}\n"
    )
}

fn indented(text: &str) -> String {
    text.trim_end().lines().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

fn describe_identity(cluster: &Cluster) -> String {
    let seen = cluster.kubectl(&["-n", "hr", "describe", "aid", "hr-tools"]).text();
    format!("{}\n{}", seen.unwrap_or_default(), dump(cluster, "hr"))
}

/// What a person would look at first when something does not become ready.
fn dump(cluster: &Cluster, namespace: &str) -> String {
    let asked: [&[&str]; 3] = [
        &["-n", namespace, "get", "pods", "-o", "wide"],
        &["-n", namespace, "get", "events", "--sort-by=.lastTimestamp"],
        &[
            "-n",
            namespace,
            "logs",
            "--all-containers",
            "--prefix",
            "--tail=15",
            "-l",
            "app.kubernetes.io/name",
        ],
    ];
    asked
        .iter()
        .map(|words| {
            let said = cluster.kubectl(words).text().unwrap_or_else(|error| format!("{error:#}"));
            format!("$ kubectl {}\n{}", words.join(" "), crate::command::tail(&said, 25))
        })
        .collect::<Vec<_>>()
        .join("\n")
}
