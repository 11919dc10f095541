//! `cargo xtask test`: everything. The gate, other people's tests, then the cluster tool's promises, then the whole of
//! Behalf on a real cluster with a real identity provider, then the same without a cluster.
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::cluster::{self, Cluster, Target};
use crate::command::Run as _;
use crate::demo::{self, Images};
use crate::gate;
use crate::images::workspace;
use crate::progress::Steps;
use crate::requirements;
use crate::suites;

/// `cargo xtask test`.
#[derive(clap::Args)]
pub struct Args {
    /// Only the end-to-end tests, on the cluster and deployment that are up
    #[arg(long)]
    only_e2e: bool,
    /// Only print which numbered requirement is shown by which tests
    #[arg(long)]
    list_requirements: bool,
    /// Leave the cluster up, to look at
    #[arg(long)]
    keep: bool,
    /// Of the end-to-end tests, those whose name holds this
    filter: Option<String>,
}

/// Runs `cargo xtask test`.
///
/// # Errors
/// Something does not pass; the first failing step is named.
pub fn run(args: &Args) -> Result<()> {
    if args.list_requirements {
        return requirements::print(&workspace()?);
    }
    let steps = Steps::new("cargo xtask test");
    let done = all(&steps, args);
    steps.table();
    done
}

fn all(steps: &Steps, args: &Args) -> Result<()> {
    if args.only_e2e {
        let cluster = Cluster::up(steps, &Target::default())?;
        let images = Images::build(steps)?;
        // What is up is left as it is: the test that takes everything away is for a whole run.
        let some = ["--test=control", "--test=traffic"];
        return steps
            .run("end to end", "24 min", || end_to_end(&cluster, &images, &some, args.filter.as_deref()));
    }
    steps.run("the gate: cargo xtask check", "6 min, 20 min cold", || gate::check(steps, &[]))?;
    steps.run("suites: conformance, real clients, a scanner", "2 min, 10 min cold", || suites::all(steps))?;
    steps.run("a cluster that is up is taken down", "2 s", || cluster::down(steps))?;
    steps.run("cluster self-test: nothing is left behind", "2 min, 15 min cold", cluster::selftest)?;
    let cluster = steps.run("cluster", "15 s", || Cluster::up(steps, &Target::default()))?;
    steps.run("manifests are what the API server takes", "10 s", || gate::manifests(steps, &cluster))?;
    let images = steps.run("images", "10 s, 15 min cold", || Images::build(steps))?;
    steps.run("deploy", "2 min", || demo::deploy(steps, &cluster, &images))?;
    let tested =
        steps.run("end to end", "24 min", || end_to_end(&cluster, &images, &[], args.filter.as_deref()));
    if args.keep {
        steps.say(&cluster.how_to_reach());
    } else {
        steps.run("cluster down", "2 s", || cluster::down(steps))?;
    }
    tested
}

/// The tests of the crate `e2e`, one after the other: they share one cluster, one provider and one MCP server.
fn end_to_end(cluster: &Cluster, images: &Images, targets: &[&str], filter: Option<&str>) -> Result<()> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(workspace()?).args(["test", "-p", "behalf-e2e", "--no-fail-fast"]).args(targets);
    cargo.args(["--", "--test-threads=1"]);
    cargo.args(filter);
    cargo.env("BEHALF_E2E_IMAGES", serde_json::to_string(images).context("images")?);
    if let Some(layout) = cluster.layout() {
        cargo.env("KUBECONFIG", layout.kubeconfig());
    }
    cargo.show()
}
