//! `cargo xtask suites`: other people's tests of what we promise. The official conformance suite, real clients and a
//! scanner of authorization, against the real sidecar with tokens of a real provider; no Kubernetes.
mod checks;
mod clients;
mod conformance;
mod parts;
mod posture;
mod shim;

use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::cache;
use crate::cluster::packages;
use crate::images::workspace;
use crate::progress::Steps;
use crate::standalone::{self, Standalone};

/// What the suites need beside what a standalone run needs.
const PACKAGES: &[packages::Package] = &[packages::Package { name: "curl", brings: "curl" }];

/// `cargo xtask suites`.
#[derive(clap::Args)]
pub struct Args {
    /// Only this one
    name: Option<Suite>,
    /// Of the conformance suite, only the legs whose name holds this
    #[arg(long)]
    leg: Option<String>,
    /// This sidecar instead of the workspace's
    #[arg(long)]
    sidecar: Option<PathBuf>,
}

/// One kind of tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Suite {
    /// The official conformance suite: through the sidecar as without it
    Conformance,
    /// Real clients log in by our challenges, call tools and step up
    Clients,
    /// A scanner of MCP servers' authorization
    Posture,
}

/// Runs `cargo xtask suites`.
///
/// # Errors
/// A part cannot be had, or a suite finds something.
pub fn run(args: &Args) -> Result<()> {
    let steps = Steps::new("cargo xtask suites");
    let done = some(&steps, args);
    steps.table();
    for line in done? {
        println!("{line}");
    }
    Ok(())
}

/// All suites, as a step of `cargo xtask test`.
///
/// # Errors
/// As [`run`].
pub fn all(steps: &Steps) -> Result<()> {
    for line in some(steps, &Args { name: None, leg: None, sidecar: None })? {
        steps.say(&line);
    }
    Ok(())
}

/// Runs the suites asked for, all of them even when one finds something, and gives what they found in lines.
fn some(steps: &Steps, args: &Args) -> Result<Vec<String>> {
    packages::ensure(steps, PACKAGES)?;
    let sidecar = match &args.sidecar {
        Some(program) => program.clone(),
        None => steps.run("build the sidecar", "2 to 5 min the first time", standalone::build_sidecar)?,
    };
    let wanted = |suite| args.name.is_none_or(|only| only == suite);
    let mut said = Vec::new();
    let mut failed = Vec::new();
    let mut note = |name: &str, done: Result<Vec<String>>| match done {
        Ok(lines) => said.extend(lines),
        Err(error) => {
            steps.say(&format!("{error:#}"));
            failed.push(name.to_owned());
        }
    };
    let demo = Standalone::with_sidecar(steps, &sidecar, false)?;
    if wanted(Suite::Clients) {
        note("clients", steps.run("real clients", "30 s", || clients::run(steps, &demo)));
    }
    if wanted(Suite::Posture) {
        note("posture", steps.run("mcp-posture", "5 s", || posture::run(steps, &demo)));
    }
    let venv = demo.venv().to_owned();
    let provider = demo.into_provider();
    if wanted(Suite::Conformance) {
        let stage = conformance::Stage { provider: &provider, sidecar: &sidecar, venv: &venv };
        note(
            "conformance",
            steps.run("conformance", "60 s", || conformance::run(steps, &stage, args.leg.as_deref())),
        );
    }
    if failed.is_empty() {
        return Ok(said);
    }
    for line in &said {
        steps.say(line);
    }
    bail!("of the suites, these found something: {}", failed.join(", "))
}

/// The fixtures that are ours.
fn fixtures() -> Result<PathBuf> {
    Ok(workspace()?.join("e2e/suites"))
}

/// Where results are left.
fn results() -> Result<PathBuf> {
    Ok(cache::root()?.join("suites/results"))
}
