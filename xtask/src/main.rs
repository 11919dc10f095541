//! `cargo xtask`: one subcommand per module of the library beside this file.
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Builds, checks and runs Behalf")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// A real Kubernetes cluster to try things on
    Cluster(xtask::cluster::Args),
    /// Container images from ordinary Dockerfiles
    Image(xtask::images::Args),
    /// The gate: everything that must hold before a change is taken
    Check(xtask::gate::Args),
    /// Decision records
    Audit(xtask::audit::Args),
    /// Known vulnerabilities of what is built (needs the advisory database from the network)
    Advisories,
    /// Write the files that are generated from others
    Gen,
    /// One tool call on behalf of a human, on real parts, ending in a table
    Demo(xtask::demo::Args),
    /// Other people's tests: conformance, real clients, a scanner
    Suites(xtask::suites::Args),
    /// Everything: the gate, the cluster tool, Behalf on a real cluster
    Test(xtask::test::Args),
}

fn main() -> ExitCode {
    let done = match Cli::parse().task {
        Task::Cluster(args) => xtask::cluster::run(&args),
        Task::Image(args) => xtask::images::run(&args),
        Task::Check(args) => xtask::gate::run(&args),
        Task::Audit(args) => xtask::audit::run(&args),
        Task::Advisories => xtask::gate::advisories(),
        Task::Gen => xtask::generate::run(),
        Task::Demo(args) => xtask::demo::run(&args),
        Task::Suites(args) => xtask::suites::run(&args),
        Task::Test(args) => xtask::test::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
