//! The demo's certificates, by the names of their files: of https servers, and of clients that show one (RFC 8705).
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

/// A client's. Keycloak knows who vouches for it.
pub const AGENT: &str = "agent";
/// Another client's, of the same authority.
pub const OTHER_AGENT: &str = "other-agent";

/// Where a certificate or its key lies: `kind` is `crt` or `key`.
///
/// # Errors
/// There is no cache.
pub fn file(name: &str, kind: &str) -> Result<PathBuf> {
    Ok(xtask::cache::root()?.join("demo-pki").join(format!("{name}.{kind}")))
}

/// The text of [`file()`], PEM.
///
/// # Errors
/// It is not there.
pub fn text(name: &str, kind: &str) -> Result<String> {
    let file = file(name, kind)?;
    std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))
}

/// What a token that is bound to this certificate says in `cnf["x5t#S256"]` (RFC 8705 §3.1).
///
/// # Errors
/// It is not there.
pub fn thumbprint(name: &str) -> Result<String> {
    let pem = text(name, "crt")?;
    let body: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    Ok(URL_SAFE_NO_PAD.encode(digest(&SHA256, &STANDARD.decode(body)?)))
}
