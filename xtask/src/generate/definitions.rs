//! The kinds as YAML for their chart.
use anyhow::{Context as _, Result, bail};

use super::File;

pub(super) const FOLDER: &str = "charts/behalf-crds/templates";

pub(super) fn files() -> Result<Vec<File>> {
    let written = behalf_crds::crd_yaml().context("a kind cannot be written as YAML")?;
    if written.is_empty() {
        bail!("there is no kind");
    }
    Ok(written.into_iter().map(|(name, text)| File { path: format!("{FOLDER}/{name}"), text }).collect())
}
