//! Where records go and what they are held to, as arguments.

use std::path::PathBuf;

use behalf_policy::record::Mode;
use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use clap::{ArgAction, Args};

const MIB: u64 = 1024 * 1024;

/// The arguments that are about records.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// `strict`: a request leaves only when the intent is durable, and an answer only when its record is
    #[arg(
        long = "record-mode",
        default_value = "relaxed",
        value_parser = PossibleValuesParser::new(["relaxed", "strict"]).map(|word| mode(&word)),
    )]
    pub mode: Mode,
    /// Whether records go to standard output
    #[arg(long = "record-stdout", default_value_t = true, action = ArgAction::Set)]
    pub stdout: bool,
    /// File that records are appended to; made with mode 0600
    #[arg(long = "record-file")]
    pub file: Option<PathBuf>,
    /// Bytes after which the file is renamed and another begun
    #[arg(
        long = "record-file-bytes",
        default_value_t = 64 * MIB,
        value_parser = clap::value_parser!(u64).range(64 * 1024..),
    )]
    pub file_bytes: u64,
    /// How many renamed files are kept
    #[arg(long = "record-files", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=999))]
    pub files: u16,
    /// Bytes held behind the end of the file for decisions that are made while the disk is full
    #[arg(
        long = "record-reserve-bytes",
        default_value_t = 4 * MIB,
        value_parser = clap::value_parser!(u64).range(64 * 1024..=1024 * MIB),
    )]
    pub reserve_bytes: u64,
    /// Where records are sent as OTLP logs (OTLP/HTTP, JSON): an https URL, such as `https://collector:4318/v1/logs`
    #[arg(long = "record-otlp-url")]
    pub otlp_url: Option<String>,
    /// PEM file of the authorities its certificate may be from; the public ones without it
    #[arg(long = "record-otlp-ca-file")]
    pub otlp_ca_file: Option<PathBuf>,
    /// The same PEM text as base64, for where there is no file
    #[arg(long = "record-otlp-ca", conflicts_with = "otlp_ca_file")]
    pub otlp_ca: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            mode: Mode::Relaxed,
            stdout: true,
            file: None,
            file_bytes: 64 * MIB,
            files: 4,
            reserve_bytes: 4 * MIB,
            otlp_url: None,
            otlp_ca_file: None,
            otlp_ca: None,
        }
    }
}

fn mode(word: &str) -> Mode {
    if word == "strict" { Mode::Strict } else { Mode::Relaxed }
}
