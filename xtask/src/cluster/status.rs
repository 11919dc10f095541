//! What is said of the cluster when somebody asks: which of its programs run, whether it is healthy, what they logged.
use std::fs;

use anyhow::{Context as _, Result, bail};

use super::layout::Layout;
use super::{Cluster, Target, node, process, programs, sweep};
use crate::command::{Run as _, tail};

/// Prints what runs and how the cluster is reached; fails when it is not healthy.
pub(super) fn status(target: &Target) -> Result<()> {
    if target.context.is_some() {
        return Cluster::running(target)?.kubectl(&["get", "nodes", "-o", "wide"]).show();
    }
    let layout = Layout::find()?;
    let left = sweep::leftovers(&layout);
    if left.is_empty() {
        println!("no local cluster");
        return Ok(());
    }
    println!("Kubernetes {}, CoreDNS {}, helm {}", programs::KUBERNETES, programs::COREDNS, programs::HELM);
    for name in process::NAMES {
        let state = match process::recorded(&layout, name) {
            Some(process) if process.alive() => format!("running, pid {}", process.pid),
            Some(process) => format!("DEAD, was pid {} (see `cargo xtask cluster logs {name}`)", process.pid),
            None => "not started".to_owned(),
        };
        println!("{name:<20} {state}");
    }
    match node::healthy(&layout) {
        Ok(()) => {
            let cluster = Cluster::local(&layout);
            println!("healthy\n{}", cluster.how_to_reach());
            cluster.kubectl(&["get", "nodes,pods", "-A", "-o", "wide"]).show()
        }
        Err(error) => bail!(
            "not healthy: {error:#}\n`cargo xtask cluster up` clears it and starts a new one; there are {}",
            left.join(", ")
        ),
    }
}

/// Prints the last lines of a program's log, or of all: of this run, or of the last one.
pub(super) fn logs(layout: &Layout, program: Option<&str>, lines: usize) -> Result<()> {
    let last = layout.cache.join("last-run-log");
    let dir = if layout.run.join("log").exists() { layout.run.join("log") } else { last };
    let names: Vec<&str> = program.map_or_else(|| process::NAMES.to_vec(), |name| vec![name]);
    println!("from {}", dir.display());
    for name in names {
        let path = dir.join(format!("{name}.log"));
        let text = fs::read(&path).with_context(|| format!("no log {}", path.display()))?;
        println!("--- {name}\n{}", tail(&String::from_utf8_lossy(&text), lines));
    }
    Ok(())
}
