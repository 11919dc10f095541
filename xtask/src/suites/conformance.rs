//! The official conformance suite against a server, without the sidecar and through it, compared check for check.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::checks::{Accepted, Checks, Difference};
use super::parts::{self, NodeProgram};
use super::shim::Shim;
use super::{fixtures, results};
use crate::command::Run as _;
use crate::progress::Steps;
use crate::standalone::{self, Objects, Process, Provider, port, wait_http, wait_tcp};

/// Where the sidecar listens; at the identity's own address stands what adds the token.
const INBOUND: u16 = 17010;

/// What is there before the suite starts.
pub(super) struct Stage<'a> {
    /// Real tokens.
    pub(super) provider: &'a Provider,
    /// The program under test.
    pub(super) sidecar: &'a Path,
    /// A Python with FastMCP.
    pub(super) venv: &'a Path,
}

/// The server behind the sidecar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Server {
    /// The Go SDK's own fixture: through the sidecar everything is as without it.
    Go { stateless: bool },
    /// An ordinary `FastMCP` server: nothing gets worse.
    FastMcp { stateless: bool },
}

/// One run of one suite against one server.
struct Leg {
    name: &'static str,
    server: Server,
    stable: bool,
    arguments: &'static [&'static str],
}

const LEGS: &[Leg] = &[
    Leg {
        name: "go-2025-11-25",
        server: Server::Go { stateless: false },
        stable: false,
        arguments: &["--requirements", "2025-11-25"],
    },
    Leg {
        name: "go-2026-07-28",
        server: Server::Go { stateless: true },
        stable: false,
        arguments: &["--requirements", "2026-07-28"],
    },
    Leg {
        name: "go-0.1.16",
        server: Server::Go { stateless: false },
        stable: true,
        arguments: &["--suite", "all"],
    },
    Leg {
        name: "fastmcp-2025-11-25",
        server: Server::FastMcp { stateless: false },
        stable: false,
        arguments: &["--requirements", "2025-11-25"],
    },
    Leg {
        name: "fastmcp-2026-07-28",
        server: Server::FastMcp { stateless: true },
        stable: false,
        arguments: &["--requirements", "2026-07-28"],
    },
    Leg {
        name: "fastmcp-0.1.16",
        server: Server::FastMcp { stateless: false },
        stable: true,
        arguments: &["--suite", "all"],
    },
];

/// Runs every leg whose name holds `only`.
///
/// # Errors
/// A part cannot be had, or something comes out otherwise than it should; the message holds each difference.
pub(super) fn run(steps: &Steps, stage: &Stage<'_>, only: Option<&str>) -> Result<Vec<String>> {
    let (newest, stable) = (parts::conformance(steps)?, parts::conformance_stable(steps)?);
    let go = parts::go_fixture(steps)?;
    let accepted = Accepted::read(&fs::read_to_string(fixtures()?.join("differences.tsv"))?)?;
    let (mut said, mut wrong) = (Vec::new(), Vec::new());
    for leg in LEGS.iter().filter(|leg| only.is_none_or(|only| leg.name.contains(only))) {
        let suite = if leg.stable { &stable } else { &newest };
        let (line, mut findings) = steps.run(leg.name, "10 s", || one(stage, &go, suite, leg, &accepted))?;
        said.push(line);
        wrong.append(&mut findings);
    }
    if said.is_empty() {
        bail!("no leg has such a name");
    }
    if wrong.is_empty() {
        return Ok(said);
    }
    bail!("{}\n{}", said.join("\n"), wrong.join("\n"))
}

fn one(
    stage: &Stage<'_>,
    go: &Path,
    suite: &NodeProgram,
    leg: &Leg,
    accepted: &Accepted,
) -> Result<(String, Vec<String>)> {
    let dir = results()?.join(leg.name);
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir)?;
    // A server of its own for each run: what one leaves in it, the other does not see.
    let direct = {
        let _server = server(stage, go, leg.server, &dir.join("server-direct"))?;
        checks(suite, leg, port::SERVER, &dir.join("direct"))?
    };
    let through = {
        let _server = server(stage, go, leg.server, &dir.join("server-through"))?;
        let _sidecar = sidecar(stage)?;
        let token = stage.provider.token("alice", "hr:read")?;
        let _shim = Shim::start(port::INBOUND, INBOUND, &token)?;
        let through = checks(suite, leg, port::INBOUND, &dir.join("through"))?;
        fs::copy(stage.provider.dir.join("sidecar.out"), dir.join("records"))?;
        through
    };
    let differences = direct.against(&through);
    let ((passed, failed, all), (through_passed, through_failed, through_all)) =
        (direct.counts(), through.counts());
    let line = format!(
        "{:<20} direct {passed} passed, {failed} failed of {all}; through the sidecar {through_passed} passed, {through_failed} failed of {through_all}; {} differ",
        leg.name,
        differences.len()
    );
    let mut wrong: Vec<String> = differences.iter().filter_map(|d| judge(leg, d, accepted)).collect();
    let untrue = accepted.stale(leg.name, &differences);
    wrong.extend(untrue.into_iter().map(|row| format!("stale row, such a difference is no more: {row}")));
    Ok((line, wrong))
}

/// Why a difference may not be; none if it may.
fn judge(leg: &Leg, difference: &Difference, accepted: &Accepted) -> Option<String> {
    let what = match (leg.server, accepted.why(leg.name, difference)) {
        (Server::Go { .. }, _) => "differs",
        (Server::FastMcp { .. }, _) if difference.is_worse() => "is worse through the sidecar",
        (Server::FastMcp { .. }, None) => "differs and is explained by no row of differences.tsv",
        (Server::FastMcp { .. }, Some(_)) => return None,
    };
    Some(format!("{what}:\n{}\n{}", difference.row(leg.name), difference.messages()))
}

/// Runs the suite at a port and reads what it found. That checks fail is no error here.
fn checks(suite: &NodeProgram, leg: &Leg, at: u16, dir: &Path) -> Result<Checks> {
    let mut command = suite.command()?;
    command.args(["server", "--url", &format!("http://127.0.0.1:{at}/mcp"), "-o"]).arg(dir);
    command.args(leg.arguments);
    let said = match command.text() {
        Ok(said) => said,
        Err(error) => format!("{error:#}"),
    };
    fs::create_dir_all(dir)?;
    fs::write(dir.with_extension("txt"), &said)?;
    Checks::read(dir).with_context(|| crate::command::tail(&said, 30))
}

fn server(stage: &Stage<'_>, go: &Path, server: Server, dir: &Path) -> Result<Process> {
    fs::create_dir_all(dir)?;
    let mut command;
    match server {
        Server::Go { stateless } => {
            command = Command::new(go);
            command.arg(format!("-http=127.0.0.1:{}", port::SERVER)).arg(format!("-stateless={stateless}"));
        }
        Server::FastMcp { stateless } => {
            command = Command::new(stage.venv.join("bin/python"));
            command.arg(fixtures()?.join("fastmcp_server.py")).arg(port::SERVER.to_string());
            if stateless {
                command.arg("--stateless");
            }
        }
    }
    let process = Process::start("server", dir, command, &[port::SERVER])?;
    wait_tcp(&process, port::SERVER)?;
    Ok(process)
}

fn sidecar(stage: &Stage<'_>) -> Result<Process> {
    let dir = &stage.provider.dir;
    let folder: PathBuf = fixtures()?;
    let objects = Objects {
        identity: fs::read_to_string(folder.join("agent-identity.yaml"))?,
        catalog: fs::read_to_string(folder.join("scope-catalog.yaml"))?,
    };
    let served = standalone::write_bundle(dir, &objects, port::SERVER, stage.provider)?;
    let process = standalone::start_sidecar(dir, stage.sidecar, &served, INBOUND)?;
    wait_http(&process, port::PROBE, "/readyz")?;
    Ok(process)
}
