//! Licences, bans and sources of what is built, by cargo-deny, which is built once; and known vulnerabilities apart.
use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::Gate;
use crate::cache::{self, Part};
use crate::command::Run as _;
use crate::images;
use crate::progress::Steps;

const VERSION: &str = "0.20.2";
/// cargo-deny's own release profile (fat LTO in one unit, full optimisation) takes three times as long to build and saves nothing here.
const PROFILE: &[(&str, &str)] = &[
    ("CARGO_PROFILE_RELEASE_LTO", "off"),
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16"),
    ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1"),
];

pub(super) fn deny(gate: &Gate<'_>) -> Result<()> {
    cargo_deny(gate)?.args(["check", "bans", "licenses", "sources"]).show()
}

/// Runs `cargo xtask advisories`: known vulnerabilities of what is built. Apart from the gate, so that one made public today does
/// not stop an unrelated change, and because it needs the advisory database from the network.
///
/// # Errors
/// There is an advisory, or the database cannot be had.
pub fn advisories() -> Result<()> {
    let steps = Steps::new("cargo xtask advisories");
    let gate = Gate { steps: &steps, root: images::workspace()? };
    let done = steps.run("advisories", "10 s; 3 to 6 min the first time", || {
        cargo_deny(&gate)?
            .args(["check", "advisories"])
            .show()
            .context("there are advisories, or their database (a git repository) cannot be had: nothing is known about vulnerabilities")
    });
    steps.table();
    done
}

/// cargo-deny on this workspace; installed first, if it is not.
fn cargo_deny(gate: &Gate<'_>) -> Result<Command> {
    let root = cache::root()?;
    let tools = root.join("tools");
    fs::create_dir_all(&tools).with_context(|| format!("cannot make {}", tools.display()))?;
    let lock = fs::File::create(root.join("tools.lock")).context("cannot open the lock of the tools")?;
    // Another check may be installing it just now.
    lock.lock().context("cannot lock the tools")?;
    let recipe: Vec<String> = PROFILE.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let part =
        Part::new(&tools, &format!("cargo-deny-{VERSION}"), &format!("{VERSION}\n{}", recipe.join("\n")));
    if !part.ready(gate.steps, &["bin/cargo-deny"])? {
        gate.steps.run(&format!("install cargo-deny {VERSION}"), "2 to 4 min on two idle cores", || {
            let build = part.dir.join("build");
            Command::new("cargo")
                .args([
                    "install",
                    "--locked",
                    "cargo-deny",
                    "--version",
                    &format!("={VERSION}"),
                    "--no-track",
                    "--root",
                ])
                .arg(&part.dir)
                .arg("--target-dir")
                .arg(&build)
                .envs(PROFILE.iter().copied())
                .show()?;
            fs::remove_dir_all(&build).with_context(|| format!("cannot remove {}", build.display()))?;
            part.seal()
        })?;
    }
    let mut command = Command::new(part.dir.join("bin/cargo-deny"));
    command.current_dir(&gate.root).args(["--workspace", "--locked"]);
    Ok(command)
}
