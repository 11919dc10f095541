//! The operator's binary: `behalf-operator run` and `behalf-operator check`.

use std::process::ExitCode;

use behalf_operator::app;
use behalf_operator::args::Args;
use clap::Parser as _;

fn main() -> ExitCode {
    match app::main(Args::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("behalf-operator: {error:#}");
            ExitCode::FAILURE
        }
    }
}
