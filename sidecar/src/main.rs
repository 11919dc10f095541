//! The `behalf-sidecar` program.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use behalf_sidecar::app::App;
use behalf_sidecar::clock::Clock;
use behalf_sidecar::config::Config;
use behalf_sidecar::{drain, redirect, telemetry};
use clap::{Parser, Subcommand};

/// How long the last records may take to be written.
const LAST_RECORDS: Duration = Duration::from_secs(2);
/// Exit code of a program that was called wrongly (`EX_USAGE`).
const USAGE: u8 = 64;

#[derive(Parser)]
#[command(
    name = "behalf-sidecar",
    version,
    about = "Checks inbound calls of an MCP server and calls on behalf of their caller"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run as the sidecar of a pod
    Run(Box<Config>),
    /// Load the rules that send the server's traffic through the sidecar
    Redirect(redirect::Args),
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let wrong = error.use_stderr();
            // Nothing can be done about a terminal that takes no text.
            let _ = error.print();
            return if wrong { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
        }
    };
    let ended = match arguments.command {
        Command::Run(config) => run(*config),
        Command::Redirect(arguments) => redirect::run(arguments).context("redirect"),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("behalf-sidecar: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(config: Config) -> anyhow::Result<()> {
    telemetry::start(&config.log).context("--log")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let last = runtime.block_on(async {
        // No argument is a secret: keys are public, and credentials come as files.
        tracing::info!(?config, version = env!("CARGO_PKG_VERSION"), "starting");
        let deadline = Duration::from_secs(config.drain_seconds);
        let app = App::start(config, std::io::stdout(), Clock::system()).await?;
        tracing::info!(addresses = ?app.addresses, "serving");
        drain::asked_to_end().await?;
        tracing::info!("draining");
        let (_, last) = app.end(deadline).await;
        anyhow::Ok(last)
    })?;
    // Calls that were still open end here, and leave their records.
    drop(runtime);
    last.wait(LAST_RECORDS);
    Ok(())
}
