//! Real clients against the demo's sidecar: they know its URL, and learn the rest from its challenges.
//!
//! What differs between them stays here: the product does not know any of them.
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::parts::{self, NodeProgram};
use super::{fixtures, results};
use crate::command::Run as _;
use crate::images::workspace;
use crate::progress::Steps;
use crate::standalone::{self, Standalone};

/// A tool that the first login's scopes are enough for.
const PLAIN: &str = "directory.search";
/// A tool that needs one more.
const STEP_UP: &str = "leave.list";
/// A tool that needs one more and leads on to payroll.
const DOWNSTREAM: &str = "salary.get";

/// What the Inspector exits with when it is told to log in and may not (`auth_required`).
const AUTH_REQUIRED: i32 = 3;

/// Where the Inspector waits for the browser to come back.
const INSPECTOR_CALLBACK: &str = "http://127.0.0.1:6276/oauth/callback";

/// Runs every client.
///
/// # Errors
/// One cannot be had, or does not do what it does with any server of the specification.
pub(super) fn run(steps: &Steps, demo: &Standalone) -> Result<Vec<String>> {
    let old = parts::python_sdk_1(steps)?;
    let inspector = parts::inspector(steps)?;
    let mut said = Vec::new();
    for (era, protocol) in [("legacy", "2025-11-25"), ("modern", "2026-07-28")] {
        let what = format!("Python SDK 2.x, {era}");
        let client = || python_2(demo, era).and_then(|lines| story(&lines, protocol));
        said.push(format!("{what}: {}", steps.run(&what, "3 s", client).context(what.clone())?));
    }
    let client = || python_1(demo, &old).and_then(|lines| story(&lines, "2025-11-25"));
    said.push(format!("Python SDK 1.x: {}", steps.run("Python SDK 1.x", "3 s", client)?));
    for era in ["legacy", "modern"] {
        let what = format!("MCP Inspector, {era}");
        said.push(format!("{what}: {}", steps.run(&what, "6 s", || inspect(demo, &inspector, era))?));
    }
    Ok(said)
}

/// Calls that succeed as they are, after one step-up, and after another.
fn calls() -> [String; 3] {
    [
        format!(r#"{PLAIN}:{{"query":"platform"}}"#),
        format!("{STEP_UP}:{{}}"),
        format!(r#"{DOWNSTREAM}:{{"employee":"bob"}}"#),
    ]
}

fn python_2(demo: &Standalone, era: &str) -> Result<Vec<Value>> {
    let mut client = Command::new(demo.venv().join("bin/python"));
    client
        .arg(workspace()?.join("examples/agent/agent.py"))
        .args(["--server", &standalone::url(), "--user", "alice", "--era", era, "--ca"])
        .arg(demo.provider().authority_file())
        .arg("--calls")
        .args(calls());
    lines(&client.text()?)
}

fn python_1(demo: &Standalone, python: &Path) -> Result<Vec<Value>> {
    let mut client = Command::new(python);
    client
        .arg(fixtures()?.join("client_v1.py"))
        .args([&*standalone::url(), "alice"])
        .arg(demo.provider().authority_file())
        .args(calls());
    lines(&client.text()?)
}

fn lines(text: &str) -> Result<Vec<Value>> {
    text.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
}

/// One login by the 401's challenge, then one for each scope that a 403 names, and every call succeeds.
fn story(lines: &[Value], protocol: &str) -> Result<String> {
    let event = |name: &str| lines.iter().find(move |line| line["event"] == name);
    let said = || lines.iter().map(Value::to_string).collect::<Vec<_>>().join("\n");
    let connected = event("connected").with_context(said)?;
    ensure!(connected["protocol"] == protocol, "it speaks {}: {}", connected["protocol"], said());
    // In the stateless era connecting asks nothing of the server; the first request is told to log in.
    let first = lines.iter().flat_map(statuses).next();
    ensure!(first == Some(401), "it was not told to log in: {}", said());
    for tool in [PLAIN, STEP_UP, DOWNSTREAM] {
        let call = lines.iter().find(|line| line["event"] == "call" && line["tool"] == tool);
        let call = call.with_context(said)?;
        ensure!(call["outcome"] == "allowed", "{tool} is {}: {}", call["outcome"], said());
        let refused = statuses(call).iter().filter(|status| **status == 403).count();
        ensure!(refused == usize::from(tool != PLAIN), "{tool} was refused {refused} times: {}", said());
    }
    let asked = event("login").and_then(|line| line["scopes_asked"].as_array()).with_context(said)?;
    let asked: Vec<&str> = asked.iter().filter_map(Value::as_str).collect();
    ensure!(asked.len() == 3, "it logged in {} times: {asked:?}", asked.len());
    for (index, scope) in ["hr:read", "hr:leave:read", "hr:salary:read"].iter().enumerate() {
        let login = asked[index].split(' ').any(|asked| asked == *scope);
        ensure!(login, "login {index} did not ask {scope}: {asked:?}");
    }
    Ok(format!("{protocol}, logged in by the 401, stepped up twice by the 403s, 3 of 3 calls allowed"))
}

/// How the server answered each POST.
fn statuses(line: &Value) -> Vec<u64> {
    let list = |name: &str| line[name].as_array().cloned().unwrap_or_default();
    let own = list("statuses").into_iter().filter_map(|status| status.as_u64());
    own.chain(list("http").iter().filter_map(|answer| answer["status"].as_u64())).collect()
}

/// The Inspector with a token, without one, and with one that is not enough.
fn inspect(demo: &Standalone, program: &NodeProgram, era: &str) -> Result<String> {
    let enough = demo.provider().token("alice", "hr:read hr:leave:read")?;
    let little = demo.provider().token("alice", "hr:read")?;
    let listed = inspector(demo, program, era, Some(&enough), &["tools/list"])?;
    expect(&listed, 0, "tools/list")?;
    ensure!(listed.1.contains(STEP_UP), "the list lacks {STEP_UP}: {}", listed.1);
    expect(
        &inspector(demo, program, era, Some(&enough), &["tools/call", "--tool-name", STEP_UP])?,
        0,
        STEP_UP,
    )?;
    let refused = inspector(demo, program, era, None, &["tools/list"])?;
    expect(&refused, AUTH_REQUIRED, "tools/list without a token")?;
    let short = inspector(demo, program, era, Some(&little), &["tools/call", "--tool-name", STEP_UP])?;
    ensure!(short.0 != 0, "a call without the scope succeeded: {}", short.1);
    let logins = inspector_logs_in(demo, program, era)?;
    Ok(format!(
        "exit 0 with a token, {AUTH_REQUIRED} without one, {} with one that lacks a scope; by itself it calls {STEP_UP} after logging in for {}",
        short.0,
        logins.join(", then for ")
    ))
}

/// The Inspector at a terminal, with somebody who opens the addresses that it prints: told to log in, and in the stateless
/// era to log in for more. (In the other it asks everything that the metadata names from the start.)
fn inspector_logs_in(demo: &Standalone, program: &NodeProgram, era: &str) -> Result<Vec<String>> {
    let home = results()?.join(format!("inspector-{era}"));
    // What it stored the last time is not looked at.
    let _ = std::fs::remove_dir_all(&home);
    std::fs::create_dir_all(&home)?;
    let client = program.command()?;
    let mut command = Command::new(demo.venv().join("bin/python"));
    command
        .arg(fixtures()?.join("login_at_terminal.py"))
        .arg("alice")
        .arg(demo.provider().authority_file())
        .arg(INSPECTOR_CALLBACK)
        .arg(client.get_program())
        .args(client.get_args())
        .args(["--cli", &standalone::url(), "--transport", "http", "--protocol-era", era])
        .args(["--client-id", "agent-ui", "--format", "json", "--method", "tools/call"])
        .args(["--tool-name", STEP_UP])
        .env("HOME", &home)
        .env("NODE_EXTRA_CA_CERTS", demo.provider().authority_file());
    for (name, value) in client.get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    let said = command.text()?;
    ensure!(said.contains(r#""isError":false"#), "the call did not succeed: {said}");
    let last = said.lines().last().unwrap_or_default();
    let asked: Value = serde_json::from_str(last).with_context(|| said.clone())?;
    let asked: Vec<String> = serde_json::from_value(asked["scopes_asked"].clone())?;
    let wanted = if era == "modern" { 2 } else { 1 };
    ensure!(asked.len() == wanted, "it logged in for {asked:?}");
    Ok(asked)
}

fn expect(ended: &(i32, String), status: i32, what: &str) -> Result<()> {
    if ended.0 != status {
        bail!("{what} ended with {} instead of {status}: {}", ended.0, ended.1);
    }
    Ok(())
}

fn inspector(
    demo: &Standalone,
    program: &NodeProgram,
    era: &str,
    token: Option<&str>,
    method: &[&str],
) -> Result<(i32, String)> {
    // Nothing that somebody stored before, and nobody to open a browser.
    let home = results()?.join("inspector");
    std::fs::create_dir_all(&home)?;
    let mut command = program.command()?;
    command
        .args(["--cli", &standalone::url(), "--transport", "http", "--protocol-era", era])
        .args(["--format", "json", "--stored-auth-only", "--method"])
        .args(method)
        .env("HOME", &home)
        .env("NODE_EXTRA_CA_CERTS", demo.provider().authority_file())
        .stdin(Stdio::null());
    if let Some(token) = token {
        command.args(["--header", &format!("Authorization: Bearer {token}")]);
    }
    let output = command.output().context("cannot start the Inspector")?;
    let said = [output.stdout, output.stderr].concat();
    Ok((output.status.code().unwrap_or(-1), String::from_utf8_lossy(&said).trim().to_owned()))
}
