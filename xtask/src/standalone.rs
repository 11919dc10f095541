//! The demo without Kubernetes: the same provider, server, downstream and agents as processes on loopback.
//!
//! The bundle is compiled from the same objects as in the cluster; only addresses are replaced, and the
//! client authenticates by a secret in a file because there is no kubelet to project a token.
mod bundle;
mod process;
mod provider;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

pub(crate) use self::bundle::{Objects, write as write_bundle};
pub(crate) use self::process::{Process, wait_http, wait_tcp};
pub(crate) use self::provider::{Provider, issuer};
use crate::cache::{self, Part};
use crate::cluster::packages;
use crate::command::Run as _;
use crate::demo::{PEOPLE, Session, parse_session};
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

/// The URL of the server's identity, which is the audience of its tokens.
pub(crate) fn url() -> String {
    format!("http://127.0.0.1:{}/mcp", port::INBOUND)
}

/// The running parts; they end when this is dropped.
pub struct Standalone {
    dir: PathBuf,
    venv: PathBuf,
    // In the order in which they are stopped; the provider is the last.
    _parts: Vec<Process>,
    provider: Provider,
}

impl Standalone {
    /// Starts all parts. `stateless` is how the MCP server keeps its sessions: not at all, or in its memory.
    ///
    /// # Errors
    /// A part cannot be had or does not start; the message holds the end of its log.
    pub fn start(steps: &Steps, stateless: bool) -> Result<Self> {
        let sidecar = steps.run("build the sidecar", "2 to 5 min the first time", build_sidecar)?;
        Self::with_sidecar(steps, &sidecar, stateless)
    }

    /// As [`Standalone::start`], with a sidecar that was built before.
    pub(crate) fn with_sidecar(steps: &Steps, sidecar: &Path, stateless: bool) -> Result<Self> {
        let venv = steps.run("Python packages", "1 to 2 min the first time", || venv(steps))?;
        let provider = Provider::start(steps, &cache::root()?.join("standalone"))?;
        let dir = provider.dir.clone();
        let parts = steps.run("payroll, the MCP server, the sidecar", "2 to 5 s", || {
            let mut parts = vec![payroll(&dir, &venv)?, server(&dir, &venv, stateless)?];
            let served = bundle::write(&dir, &Objects::of_the_demo()?, port::SERVER, &provider)?;
            parts.push(start_sidecar(&dir, sidecar, &served, port::INBOUND)?);
            for (part, at) in [(0, port::PAYROLL), (1, port::SERVER)] {
                wait_tcp(&parts[part], at)?;
            }
            wait_http(&parts[2], port::PROBE, "/readyz")?;
            parts.reverse();
            Ok(parts)
        })?;
        Ok(Self { dir, venv, _parts: parts, provider })
    }

    /// Stops all but the provider.
    pub(crate) fn into_provider(self) -> Provider {
        self.provider
    }

    /// The provider, for tokens.
    pub(crate) fn provider(&self) -> &Provider {
        &self.provider
    }

    /// The virtual environment of the examples.
    pub(crate) fn venv(&self) -> &Path {
        &self.venv
    }

    /// Runs one person's agent.
    ///
    /// # Errors
    /// It cannot connect, which is not the same as being refused.
    pub fn play_as(&self, user: &str) -> Result<Session> {
        let agent = workspace()?.join("examples/agent/agent.py");
        let server = url();
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
pub(crate) fn venv(steps: &Steps) -> Result<PathBuf> {
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

/// Builds the sidecar of this workspace and gives its program.
pub(crate) fn build_sidecar() -> Result<PathBuf> {
    let root = workspace()?;
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--quiet", "-p", "behalf-sidecar"])
        .current_dir(&root)
        .show()?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    Ok(target.join("debug/behalf-sidecar"))
}

fn payroll(dir: &Path, venv: &Path) -> Result<Process> {
    let mut command = Command::new(venv.join("bin/python"));
    command
        .arg(workspace()?.join("examples/payroll/payroll.py"))
        .env("PAYROLL_ISSUER", issuer())
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

/// Starts the sidecar on the bundle that was written to `dir`, with its inbound side at a port of its own choice.
pub(crate) fn start_sidecar(
    dir: &Path,
    program: &Path,
    served: &bundle::Written,
    inbound: u16,
) -> Result<Process> {
    let at = |port: u16| format!("127.0.0.1:{port}");
    let mut command = Command::new(program);
    command
        .args(["run", "--allow-loopback-destinations"])
        .arg(format!("--namespace={}", served.namespace))
        .arg(format!("--identity={}", served.identity))
        .arg(format!("--bundle-dir={}", dir.join("bundle").display()))
        .arg(format!("--inbound-address={}", at(inbound)))
        .arg(format!("--egress-address={}", at(port::EGRESS)))
        .arg(format!("--probe-address={}", at(port::PROBE)))
        .arg(format!("--metrics-address={}", at(port::METRICS)))
        .arg(format!("--bundle-key={}", served.key));
    Process::start("sidecar", dir, command, &[inbound, port::EGRESS, port::PROBE, port::METRICS])
}
