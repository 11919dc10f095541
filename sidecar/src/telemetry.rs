//! Logs of the sidecar: to standard error, so that standard output holds decision records only.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

/// Starts logging at `filter` (`info`, `behalf_sidecar=debug`, …).
///
/// # Errors
/// When the filter cannot be parsed.
pub fn start(filter: &str) -> Result<(), ParseError> {
    let filter = EnvFilter::try_new(filter)?;
    let subscriber =
        tracing_subscriber::fmt().json().with_env_filter(filter).with_writer(std::io::stderr).finish();
    // A second subscriber in one process (a test) is not an error: the first one stays.
    let _ = tracing::subscriber::set_global_default(subscriber);
    Ok(())
}
