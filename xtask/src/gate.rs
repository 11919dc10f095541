//! `cargo xtask check`: everything that must hold before a change is taken. Each step runs, also after one failed.
mod build;
mod charts;
mod deny;
mod edges;
mod generated;
mod graph;
mod manifests;
mod requirements;
mod sizes;
mod words;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::builder::PossibleValuesParser;

use crate::command::Run as _;
use crate::images;
use crate::progress::Steps;

pub use deny::advisories;
pub use manifests::manifests;

/// `cargo xtask check`.
#[derive(clap::Args)]
pub struct Args {
    /// Only these steps; all, if none is named
    #[arg(value_parser = PossibleValuesParser::new(STEPS.iter().map(|step| step.name)))]
    only: Vec<String>,
}

/// One step of the gate.
struct Step {
    name: &'static str,
    expected: &'static str,
    /// Why nothing can be checked here, and what checks it; none, if the step can run.
    missing: fn(&Gate<'_>) -> Option<String>,
    run: fn(&Gate<'_>) -> Result<()>,
}

impl Step {
    const fn new(name: &'static str, expected: &'static str, run: fn(&Gate<'_>) -> Result<()>) -> Self {
        Self { name, expected, missing: |_| None, run }
    }

    const fn unless(mut self, missing: fn(&Gate<'_>) -> Option<String>) -> Self {
        self.missing = missing;
        self
    }
}

/// What the steps share.
struct Gate<'a> {
    steps: &'a Steps,
    root: PathBuf,
}

/// Cheap ones first: what they find is said before the long ones begin.
const STEPS: &[Step] = &[
    Step::new("fmt", "2 s", build::fmt),
    Step::new("sizes", "1 s", sizes::sizes),
    Step::new("words", "1 s", words::words),
    Step::new("requirements", "1 s", requirements::requirements),
    Step::new("edges", "2 s", edges::edges),
    Step::new("graph", "2 s", graph::graph),
    Step::new("alone", "5 s, 4 min cold", build::alone),
    Step::new("clippy", "20 s, 5 min cold", build::clippy),
    Step::new("docs", "15 s, 1 min cold", build::docs),
    Step::new("generated", "5 s; 20 min where helm must be built", generated::generated),
    Step::new("charts", "2 s", charts::charts),
    Step::new("deny", "3 s, 3 to 6 min the first time", deny::deny),
    Step::new("tests", "1 to 2 min, 7 min cold", build::tests),
    Step::new("manifests", "10 s, where a cluster is up", manifests::step).unless(manifests::missing),
];

/// Runs `cargo xtask check`.
///
/// # Errors
/// A step failed; all of them are named.
pub fn run(args: &Args) -> Result<()> {
    let steps = Steps::new("cargo xtask check");
    let done = check(&steps, &args.only);
    steps.table();
    done
}

/// Runs the steps named, or all.
///
/// # Errors
/// A step failed; all of them are named.
pub fn check(steps: &Steps, only: &[String]) -> Result<()> {
    let gate = Gate { steps, root: images::workspace()? };
    let chosen = |step: &&Step| only.is_empty() || only.iter().any(|name| name == step.name);
    let (mut failed, mut not_run, mut count) = (Vec::new(), Vec::new(), 0_usize);
    for step in STEPS.iter().filter(chosen) {
        count += 1;
        if let Some(why) = (step.missing)(&gate) {
            steps.say(&format!("– {}: NOT RUN, {why}", step.name));
            not_run.push((step.name, why));
        } else if let Err(error) = steps.run(step.name, step.expected, || (step.run)(&gate)) {
            failed.push((step.name, error));
        }
    }
    for (name, why) in &not_run {
        eprintln!("\nNOT RUN  {name}: {why}");
    }
    for (name, error) in &failed {
        eprintln!("\nFAILED  {name}: {}", error.root_cause());
    }
    if failed.is_empty() {
        eprintln!("\n{} of {count} steps passed", count - not_run.len());
        return Ok(());
    }
    let names: Vec<&str> = failed.iter().map(|(name, _)| *name).collect();
    bail!("{} of {count} steps failed: {}", names.len(), names.join(", "))
}

impl Gate<'_> {
    /// cargo in the workspace, as the toolchain pin has it.
    fn cargo(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("cargo");
        command.current_dir(&self.root).args(arguments);
        command
    }

    /// Files of the project, by path from its root: tracked, or new and not ignored.
    fn files(&self) -> Result<Vec<String>> {
        let listed = Command::new("git")
            .current_dir(&self.root)
            .args(["ls-files", "--cached", "--others", "--exclude-standard", "--deduplicate"])
            .text()
            .context("the files of the project are those that git knows")?;
        // A tracked file that was deleted is still listed.
        Ok(listed.lines().filter(|path| self.root.join(path).is_file()).map(str::to_owned).collect())
    }

    fn read(&self, path: &str) -> Result<String> {
        read(&self.root.join(path))
    }
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// No findings pass; else the step fails with all of them, one a line.
fn verdict(findings: &[String], rule: &str) -> Result<()> {
    if findings.is_empty() {
        return Ok(());
    }
    bail!("{rule}\n  {}", findings.join("\n  "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_fail_a_step_and_all_are_named() {
        let error = verdict(&["one".into(), "two".into()], "the rule").unwrap_err().to_string();
        assert_eq!(error, "the rule\n  one\n  two");
        assert!(verdict(&[], "the rule").is_ok());
    }

    #[test]
    fn every_step_has_a_name_of_its_own() {
        let mut names: Vec<&str> = STEPS.iter().map(|step| step.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), STEPS.len());
    }
}
