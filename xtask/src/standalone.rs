//! The demo without Kubernetes: the same provider, server, downstream and agents as processes on loopback.
//!
//! The bundle is compiled from the same objects as in the cluster; only addresses are replaced, and the
//! client authenticates by a secret in a file because there is no kubelet to project a token.
mod bundle;
mod process;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use self::process::{Process, wait_http, wait_tcp};
use crate::cache::{self, Part, digest, write_whole};
use crate::cluster::packages;
use crate::command::Run as _;
use crate::demo::{PEOPLE, Pki, Session, keycloak_distribution, parse_session};
use crate::images::workspace;
use crate::progress::Steps;

/// Where each part listens, on 127.0.0.1.
pub(crate) mod port {
    pub(crate) const KEYCLOAK: u16 = 17443;
    pub(crate) const KEYCLOAK_MANAGEMENT: u16 = 17900;
    pub(crate) const PAYROLL: u16 = 17444;
    pub(crate) const PAYROLL_SEEN: u16 = 17445;
    pub(crate) const SERVER: u16 = 17001;
    pub(crate) const INBOUND: u16 = 17000;
    pub(crate) const EGRESS: u16 = 17002;
    pub(crate) const PROBE: u16 = 17003;
    pub(crate) const METRICS: u16 = 17004;
}

/// The running parts; they end when this is dropped.
pub struct Standalone {
    dir: PathBuf,
    venv: PathBuf,
    // In the order in which they are stopped.
    _parts: Vec<Process>,
}

impl Standalone {
    /// Starts all parts. `stateless` is how the MCP server keeps its sessions: not at all, or in its memory.
    ///
    /// # Errors
    /// A part cannot be had or does not start; the message holds the end of its log.
    pub fn start(steps: &Steps, stateless: bool) -> Result<Self> {
        let dir = cache::root()?.join("standalone");
        fs::create_dir_all(&dir)?;
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
        let venv = steps.run("Python packages", "1 to 2 min the first time", || venv(steps))?;
        let dist = keycloak_distribution(steps)?;
        let secret = steps.run("Keycloak's database with the realm", "1 min the first time", || {
            snapshot(steps, &dir, &dist)
        })?;
        let sidecar = steps.run("build the sidecar", "2 to 5 min the first time", build_sidecar)?;
        let mut parts = Vec::new();
        steps.run("Keycloak", "10 to 20 s", || {
            parts.push(keycloak(&dir, &dist)?);
            wait_http(&parts[0], port::KEYCLOAK_MANAGEMENT, "/health/ready")
        })?;
        steps.run("payroll, the MCP server, the sidecar", "2 to 5 s", || {
            parts.push(payroll(&dir, &venv)?);
            parts.push(server(&dir, &venv, stateless)?);
            let keys = bundle::write(&dir, &pki.authority, &secret)?;
            parts.push(start_sidecar(&dir, &sidecar, &keys)?);
            for (part, at) in [(1, port::PAYROLL), (2, port::SERVER)] {
                wait_tcp(&parts[part], at)?;
            }
            wait_http(&parts[3], port::PROBE, "/readyz")
        })?;
        parts.reverse();
        Ok(Self { dir, venv, _parts: parts })
    }

    /// Runs one person's agent.
    ///
    /// # Errors
    /// It cannot connect, which is not the same as being refused.
    pub fn play_as(&self, user: &str) -> Result<Session> {
        let agent = workspace()?.join("examples/agent/agent.py");
        let server = format!("http://127.0.0.1:{}/mcp", port::INBOUND);
        let log = Command::new(self.venv.join("bin/python"))
            .arg(agent)
            .args(["--server", &server, "--user", user, "--ca"])
            .arg(self.dir.join("ca.crt"))
            .args(["--hashes", "--calls", r#"directory.search:{"query":"platform"}"#, "leave.list:{}"])
            .args([r#"salary.get:{"employee":"bob"}"#, r#"salary.update:{"employee":"bob","amount":65000}"#])
            .text()?;
        parse_session(user, &log)
    }

    /// Runs the agents of all people, one after the other.
    ///
    /// # Errors
    /// One of them cannot connect.
    pub fn play(&self, steps: &Steps) -> Result<Vec<Session>> {
        let one = |user: &&str| steps.run(&format!("{user}'s agent"), "5 to 10 s", || self.play_as(user));
        PEOPLE.iter().map(one).collect()
    }

    /// The sidecar's decision records, one JSON object a line.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn records(&self) -> Result<String> {
        let file = self.dir.join("sidecar.out");
        fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))
    }

    /// Where the logs of all parts lie.
    #[must_use]
    pub fn logs(&self) -> &Path {
        &self.dir
    }
}

/// A virtual environment with what the examples need, made once.
fn venv(steps: &Steps) -> Result<PathBuf> {
    packages::ensure(steps, packages::PYTHON)?;
    let examples = workspace()?.join("examples");
    let files = ["hr-tools", "payroll", "agent"].map(|name| examples.join(name).join("requirements.txt"));
    let mut recipe = "venv 1".to_owned();
    for file in &files {
        recipe.push_str(&fs::read_to_string(file)?);
    }
    let part = Part::new(&cache::root()?, "venv-demo", &recipe);
    if !part.ready(steps, &["bin/python"])? {
        Command::new("/usr/bin/python3").args(["-m", "venv"]).arg(&part.dir).run()?;
        let mut pip = Command::new(part.dir.join("bin/pip"));
        pip.args(["install", "--quiet", "--disable-pip-version-check"]);
        for file in &files {
            pip.arg("-r").arg(file);
        }
        pip.run()?;
        part.seal()?;
    }
    Ok(part.dir)
}

/// Imports the realm for loopback addresses and gives the client's secret, which is in no file but its own.
fn snapshot(steps: &Steps, dir: &Path, dist: &Path) -> Result<PathBuf> {
    let examples = workspace()?.join("examples/keycloak");
    let realm = fs::read(examples.join("realm-corp.json"))?;
    let script = fs::read(examples.join("keycloak.sh"))?;
    let url = format!("http://127.0.0.1:{}/mcp", port::INBOUND);
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

fn build_sidecar() -> Result<PathBuf> {
    let root = workspace()?;
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--quiet", "-p", "behalf-sidecar"])
        .current_dir(&root)
        .show()?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    Ok(target.join("debug/behalf-sidecar"))
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

fn payroll(dir: &Path, venv: &Path) -> Result<Process> {
    let mut command = Command::new(venv.join("bin/python"));
    command
        .arg(workspace()?.join("examples/payroll/payroll.py"))
        .env("PAYROLL_ISSUER", bundle::issuer())
        .env("PAYROLL_CA_FILE", dir.join("ca.crt"))
        .env("PAYROLL_HOST", "127.0.0.1")
        .env("PAYROLL_PORT", port::PAYROLL.to_string())
        .env("PAYROLL_SEEN_PORT", port::PAYROLL_SEEN.to_string())
        .env("PAYROLL_TLS_CERT", dir.join("payroll.crt"))
        .env("PAYROLL_TLS_KEY", dir.join("payroll.key"));
    Process::start("payroll", dir, command, &[port::PAYROLL, port::PAYROLL_SEEN])
}

fn server(dir: &Path, venv: &Path, stateless: bool) -> Result<Process> {
    let mut command = Command::new(venv.join("bin/python"));
    command
        .arg(workspace()?.join("examples/hr-tools/server.py"))
        .env("PYTHONUNBUFFERED", "1")
        .env("HR_HOST", "127.0.0.1")
        .env("HR_PORT", port::SERVER.to_string())
        .env("HR_STATELESS", stateless.to_string())
        .env("PAYROLL_URL", format!("http://127.0.0.1:{}/payroll", port::EGRESS));
    Process::start("hr-tools", dir, command, &[port::SERVER])
}

fn start_sidecar(dir: &Path, program: &Path, keys: &[String]) -> Result<Process> {
    let at = |port: u16| format!("127.0.0.1:{port}");
    let mut command = Command::new(program);
    command
        .args(["run", "--namespace=hr", "--identity=hr-tools", "--allow-loopback-destinations"])
        .arg(format!("--bundle-dir={}", dir.join("bundle").display()))
        .arg(format!("--inbound-address={}", at(port::INBOUND)))
        .arg(format!("--egress-address={}", at(port::EGRESS)))
        .arg(format!("--probe-address={}", at(port::PROBE)))
        .arg(format!("--metrics-address={}", at(port::METRICS)));
    for key in keys {
        command.arg(format!("--bundle-key={key}"));
    }
    Process::start("sidecar", dir, command, &[port::INBOUND, port::EGRESS, port::PROBE, port::METRICS])
}
