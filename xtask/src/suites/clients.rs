//! Real clients against the demo's sidecar.
use anyhow::Result;

use crate::progress::Steps;
use crate::standalone::Standalone;

pub(super) fn run(_steps: &Steps, _demo: &Standalone) -> Result<Vec<String>> {
    Ok(Vec::new())
}
