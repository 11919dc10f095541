//! Steps that are one run of cargo. Its output goes to the terminal: warnings are read as they stand.
use anyhow::Result;

use super::Gate;
use crate::command::Run as _;

/// The end-to-end crate: its tests need a cluster.
const E2E: &str = "behalf-e2e";
/// Crates that must build with the features that they ask for themselves, and not only with those of their neighbours.
const ALONE: &[&str] = &["behalf-crds", "behalf-policy", "behalf-plan", "behalf-sidecar"];

pub(super) fn fmt(gate: &Gate<'_>) -> Result<()> {
    passes(gate, &["fmt", "--all", "--", "--check", "-l"])
}

pub(super) fn clippy(gate: &Gate<'_>) -> Result<()> {
    passes(
        gate,
        &["clippy", "--locked", "--keep-going", "--workspace", "--all-targets", "--", "-D", "warnings"],
    )
}

pub(super) fn docs(gate: &Gate<'_>) -> Result<()> {
    gate.cargo(&["doc", "--locked", "--keep-going", "--workspace", "--no-deps"])
        .env("RUSTDOCFLAGS", "-D warnings")
        .show()
}

/// The end-to-end tests are compiled by clippy and run by `cargo xtask test`.
pub(super) fn tests(gate: &Gate<'_>) -> Result<()> {
    passes(gate, &["test", "--locked", "--workspace", "--exclude", E2E, "--no-fail-fast"])
}

pub(super) fn alone(gate: &Gate<'_>) -> Result<()> {
    let mut failed = Vec::new();
    for name in ALONE {
        if gate.steps.run(name, "2 s", || gate.cargo(&["check", "--locked", "-p", name]).show()).is_err() {
            failed.push((*name).to_owned());
        }
    }
    super::verdict(&failed, "these crates do not build alone:")
}

fn passes(gate: &Gate<'_>, arguments: &[&str]) -> Result<()> {
    gate.cargo(arguments).show()
}
