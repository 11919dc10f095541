//! The downstream, which tells what it saw.
use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::curl::Request;
use crate::world::World;

/// All requests that payroll got since it started, refused ones too, in their order.
///
/// # Errors
/// It does not answer.
pub fn seen(world: &World) -> Result<Vec<Value>> {
    let answer = Request::get("http://payroll.payroll.svc.cluster.local:8081/_seen").send(world)?;
    answer.json()?.as_array().cloned().context("payroll's list of what it saw")
}
