//! The identity provider of a standalone run: a real Keycloak with the demo's realm, on loopback.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::port;
use super::process::{Process, wait_http};
use crate::cache::{self, Part, digest, write_whole};
use crate::command::Run as _;
use crate::demo::{Pki, keycloak_distribution};
use crate::images::workspace;
use crate::progress::Steps;

/// Keycloak's issuer on loopback.
pub(crate) fn issuer() -> String {
    format!("https://127.0.0.1:{}/realms/corp", port::KEYCLOAK)
}

/// The running provider; it ends when this is dropped.
pub(crate) struct Provider {
    /// Where its files and the certificates of the run lie.
    pub(crate) dir: PathBuf,
    /// The authority that its certificate is from, PEM.
    pub(crate) authority: String,
    /// The file with the secret of the server's client there.
    pub(crate) secret: PathBuf,
    _process: Process,
}

impl Provider {
    /// Starts it, with its files in `dir`.
    ///
    /// # Errors
    /// It cannot be had or does not start.
    pub(crate) fn start(steps: &Steps, dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let pki = Pki::ensure()?;
        for (name, text) in [
            ("ca.crt", &pki.authority),
            ("keycloak.crt", &pki.keycloak.certificate),
            ("keycloak.key", &pki.keycloak.key),
            ("payroll.crt", &pki.payroll.certificate),
            ("payroll.key", &pki.payroll.key),
        ] {
            write_whole(&dir.join(name), text)?;
        }
        let dist = keycloak_distribution(steps)?;
        let secret = steps.run("Keycloak's database with the realm", "1 min the first time", || {
            snapshot(steps, dir, &dist)
        })?;
        let process = steps.run("Keycloak", "10 to 20 s", || {
            let process = keycloak(dir, &dist)?;
            wait_http(&process, port::KEYCLOAK_MANAGEMENT, "/health/ready")?;
            Ok(process)
        })?;
        Ok(Self { dir: dir.to_owned(), authority: pki.authority, secret, _process: process })
    }

    /// The certificate of the authority, for whoever talks to the provider.
    pub(crate) fn authority_file(&self) -> PathBuf {
        self.dir.join("ca.crt")
    }

    /// Logs a person of the demo in by the password grant of the realm's test client.
    ///
    /// # Errors
    /// The provider refuses, or does not answer.
    pub(crate) fn token(&self, user: &str, scope: &str) -> Result<String> {
        let answer = Command::new("curl")
            .args(["--silent", "--show-error", "--max-time", "20", "--cacert"])
            .arg(self.authority_file())
            .args(["--data", "grant_type=password", "--data", "client_id=agent-test"])
            .args(["--data-urlencode", &format!("username={user}")])
            .args(["--data-urlencode", &format!("password={user}-pw")])
            .args(["--data-urlencode", &format!("scope={scope}")])
            .arg(format!("{}/protocol/openid-connect/token", issuer()))
            .text()?;
        let answer: serde_json::Value = serde_json::from_str(&answer).context("the provider's answer")?;
        let token = answer["access_token"].as_str();
        Ok(token.with_context(|| format!("no login of {user}: {}", answer["error"]))?.to_owned())
    }
}

/// Imports the realm for loopback addresses and gives the client's secret, which is in no file but its own.
fn snapshot(steps: &Steps, dir: &Path, dist: &Path) -> Result<PathBuf> {
    let examples = workspace()?.join("examples/keycloak");
    let realm = fs::read(examples.join("realm-corp.json"))?;
    let script = fs::read(examples.join("keycloak.sh"))?;
    let url = super::url();
    let part = Part::new(dir, "snapshot", &digest(&[&realm, &script, url.as_bytes()]));
    let secret = part.dir.join("client-secret");
    if !part.ready(steps, &["client-secret", "database/keycloakdb.mv.db"])? {
        let text = random_hex()?;
        Command::new("bash")
            .arg(examples.join("keycloak.sh"))
            .arg("snapshot")
            .arg(dist)
            .arg(part.dir.join("database"))
            .env("HR_TOOLS_URL", &url)
            .env("HR_TOOLS_AUTHENTICATOR", "client-secret")
            .env("HR_TOOLS_SECRET", &text)
            .run()?;
        write_whole(&secret, &text)?;
        part.seal()?;
    }
    Ok(secret)
}

fn random_hex() -> Result<String> {
    use std::io::Read as _;
    let mut bytes = [0_u8; 24];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(cache::hex(&bytes))
}

fn keycloak(dir: &Path, dist: &Path) -> Result<Process> {
    let data = dir.join("keycloak-data");
    let _ = fs::remove_dir_all(&data);
    fs::create_dir_all(&data)?;
    let mut command = Command::new("bash");
    command
        .arg(workspace()?.join("examples/keycloak/keycloak.sh"))
        .arg("run")
        .arg(dist)
        .arg(dir.join("snapshot/database"))
        .env("KC_DATA", &data)
        .env("KC_HOSTNAME", format!("https://127.0.0.1:{}", port::KEYCLOAK))
        .env("KC_HTTP_HOST", "127.0.0.1")
        .env("KC_HTTPS_PORT", port::KEYCLOAK.to_string())
        .env("KC_HTTPS_CERTIFICATE_FILE", dir.join("keycloak.crt"))
        .env("KC_HTTPS_CERTIFICATE_KEY_FILE", dir.join("keycloak.key"))
        .env("KC_HTTP_MANAGEMENT_HOST", "127.0.0.1")
        .env("KC_HTTP_MANAGEMENT_SCHEME", "http")
        .env("KC_HTTP_MANAGEMENT_PORT", port::KEYCLOAK_MANAGEMENT.to_string());
    Process::start("keycloak", dir, command, &[port::KEYCLOAK, port::KEYCLOAK_MANAGEMENT])
}
