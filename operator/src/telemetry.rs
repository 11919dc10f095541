//! Logs: one line per event on standard error, as text or JSON.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

/// The shape of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For programs.
    Json,
    /// For people.
    Text,
}

/// Why logging did not start.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is not one.
    #[error("cannot read the log filter (such as info or behalf_operator=debug)")]
    Filter(#[from] ParseError),
    /// Logging was started before.
    #[error("logging was started twice")]
    Twice,
}

/// Starts logging for the process.
///
/// # Errors
/// The filter cannot be read, or logging was started before.
pub fn start(filter: &str, format: LogFormat) -> Result<(), TelemetryError> {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_new(filter)?)
        .with_writer(std::io::stderr)
        .with_ansi(false);
    let started = match format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Text => builder.try_init(),
    };
    started.map_err(|_| TelemetryError::Twice)
}
