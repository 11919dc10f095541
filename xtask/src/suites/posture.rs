//! A scanner of MCP servers' authorization against the sidecar: with a token and without one.
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::{fixtures, parts, results};
use crate::command::Run as _;
use crate::progress::Steps;
use crate::standalone::{self, Standalone};

/// Scans the demo's sidecar.
///
/// # Errors
/// The scanner cannot be had, or finds something medium or worse that is not about the provider or about http.
pub(super) fn run(steps: &Steps, demo: &Standalone) -> Result<Vec<String>> {
    let program = parts::posture(steps)?;
    let dir = results()?;
    std::fs::create_dir_all(&dir)?;
    let mut said = Vec::new();
    for token in [None, Some(demo.provider().token("alice", "hr:read")?)] {
        let how = if token.is_some() { "with a token" } else { "without a token" };
        let report = dir.join(if token.is_some() { "posture-token.json" } else { "posture.json" });
        let mut command = Command::new(&program);
        command
            .args(["scan", &standalone::url(), "--allow-private", "--no-tls-probe", "--fail-on=medium"])
            .arg("--ignore-file")
            .arg(fixtures()?.join("mcp-posture-ignore"))
            .arg("--ca-bundle")
            .arg(demo.provider().authority_file())
            .arg("--json")
            .arg(&report);
        if let Some(token) = token {
            command.args(["--token-env", "MCP_TOKEN"]).env("MCP_TOKEN", token);
        }
        let scanned = command.text();
        let text = std::fs::read_to_string(&report).with_context(|| format!("{scanned:?}"))?;
        let report: Value = serde_json::from_str(&text)?;
        if let Err(error) = scanned {
            bail!("mcp-posture {how}: {error:#}");
        }
        said.push(format!("mcp-posture {how}: {}", summary(&report)));
    }
    Ok(said)
}

fn summary(report: &Value) -> String {
    report.get("summary").map_or_else(|| "no summary".to_owned(), Value::to_string)
}
