//! The charts: helm's own strict lint, values that explain themselves, and the version of what they install.
use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{Gate, verdict};
use crate::command::Run as _;
use crate::generate::{CHARTS, helm};

/// Values that do not go together, and what is said then. Single values are the schema's.
const REFUSED: &[(&str, &str)] = &[
    ("sidecar.records.stdout=Disabled", "set stdout or file.mode to Enabled"),
    ("sidecar.records.file.volume.size=327Mi", "the files may take 343932928 bytes"),
    ("sidecar.records.file.maxBytes=63Ki", "are at least 64Ki"),
    ("sidecar.records.file.reserveBytes=2Gi", "at most 1Gi"),
    ("sidecar.records.file.volume.storageClassName=fast", "storageClassName is for type Ephemeral"),
    ("sidecar.records.otlp.caBundle=x", "caBundle is set and url is not"),
    ("sidecar.records.otlp.url=http://collector/v1/logs", "does not match pattern"),
    ("sidecar.records.mode=strict", "'Relaxed', 'Strict'"),
];

pub(super) fn charts(gate: &Gate<'_>) -> Result<()> {
    let mut findings: Vec<String> = uncommented(&gate.read("charts/behalf/values.yaml")?)
        .into_iter()
        .map(|key| format!("charts/behalf/values.yaml: no comment above {key}"))
        .collect();
    for chart in CHARTS {
        let path = format!("{chart}/Chart.yaml");
        findings
            .extend(versions(&gate.read(&path)?)?.into_iter().map(|finding| format!("{path}: {finding}")));
        let linted = helm(gate.steps)?.current_dir(&gate.root).args(["lint", "--strict", chart]).text();
        if let Err(error) = linted {
            findings.push(format!("{chart}: {}", error.root_cause()));
        }
    }
    for (set, said) in REFUSED {
        let words = ["template", "behalf", "charts/behalf", "--kube-version", "1.33.0", "--set", set];
        match helm(gate.steps)?.current_dir(&gate.root).args(words).text() {
            Err(error) if format!("{error:#}").contains(said) => {}
            Err(error) => findings.push(format!("--set {set}: {said:?} was expected: {error:#}")),
            Ok(_) => findings.push(format!("--set {set}: not refused")),
        }
    }
    verdict(&findings, "charts that do not pass:")
}

/// Crates and charts are released together.
fn versions(chart: &str) -> Result<Vec<String>> {
    let chart: Value = serde_saphyr::from_str(chart).context("a Chart.yaml is no YAML")?;
    let ours = env!("CARGO_PKG_VERSION");
    let other = |key: &&str| chart[*key] != ours;
    Ok(["version", "appVersion"]
        .iter()
        .filter(|key| other(key))
        .map(|key| format!("{key} is {} and that of the workspace {ours}", chart[*key]))
        .collect())
}

/// Keys of the first two levels without a comment on the line above. What is deeper is spoken for by its parent.
fn uncommented(values: &str) -> Vec<String> {
    let (mut missing, mut parent, mut above) = (Vec::new(), String::new(), "");
    for line in values.lines() {
        let depth = line.len() - line.trim_start().len();
        let text = line.trim_start();
        let key =
            text.split_once(':').map(|(key, _)| key).filter(|key| key.chars().all(char::is_alphanumeric));
        if let Some(key) = key {
            if depth == 0 {
                key.clone_into(&mut parent);
            }
            if depth <= 2 && !above.starts_with('#') {
                missing.push(if depth == 0 { key.to_owned() } else { format!("{parent}.{key}") });
            }
        }
        above = text;
    }
    missing
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_has_the_version_of_the_workspace() {
        let ours = env!("CARGO_PKG_VERSION");
        assert_eq!(
            versions(&format!("version: {ours}\nappVersion: {ours}\n")).unwrap(),
            Vec::<String>::new()
        );
        let found = versions(&format!("version: {ours}\nappVersion: 9.9.9\n")).unwrap();
        assert_eq!(found, [format!("appVersion is \"9.9.9\" and that of the workspace {ours}")]);
        assert_eq!(versions("name: x\n").unwrap().len(), 2);
        assert!(versions("a: [").is_err());
    }

    #[test]
    fn keys_of_two_levels_need_a_comment() {
        let values = "# Top: a.\na:\n  # Of b.\n  b: 1\n  c:\n    d: 2\n\ne: []\n";
        assert_eq!(uncommented(values), ["a.c", "e"]);
        assert_eq!(uncommented("# A.\na: {b: 1}\n# C: d.\nc: \"\"\n"), Vec::<String>::new());
    }
}
