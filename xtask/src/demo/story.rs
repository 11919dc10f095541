//! The story: each person's agent logs in and calls tools; what it saw is read from its log.
use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::{Images, PEOPLE, deploy};
use crate::cluster::Cluster;
use crate::command::Run as _;
use crate::progress::Steps;

/// What one person's agent did and saw.
#[derive(Debug, Clone)]
pub struct Session {
    /// The person.
    pub user: String,
    /// Tools that `tools/list` showed.
    pub tools: Vec<String>,
    /// The calls, in order.
    pub calls: Vec<Call>,
    /// Every line the agent printed.
    pub lines: Vec<Value>,
}

/// One tool call as the agent saw it.
#[derive(Debug, Clone)]
pub struct Call {
    /// The tool.
    pub tool: String,
    /// `allowed`, `denied` or `failed`.
    pub outcome: String,
    /// The closed reason in the last refusal the agent got for this call, stepped up from or final.
    pub reason: Option<String>,
    /// Whether a refusal led to a login with more scopes.
    pub stepped_up: bool,
    /// What payroll says it saw.
    pub saw: Option<Value>,
    /// The agent's whole line.
    pub line: Value,
}

/// Runs the agents of all people, one after the other.
///
/// # Errors
/// An agent does not get through, which is not the same as being refused.
pub fn play(steps: &Steps, cluster: &Cluster, images: &Images) -> Result<Vec<Session>> {
    PEOPLE
        .iter()
        .map(|user| {
            steps.run(&format!("{user}'s agent"), "10 to 25 s", || play_as(cluster, images, user, &[]))
        })
        .collect()
}

/// Runs one person's agent as a Job; `more` are further arguments of `agent.py`, put before its calls.
///
/// # Errors
/// The Job does not run, or its agent could not connect.
pub fn play_as(cluster: &Cluster, images: &Images, user: &str, more: &[&str]) -> Result<Session> {
    let mut manifest = deploy::manifest("agent/agent-job.yaml", images)?.replace("alice", user);
    for word in more {
        manifest =
            manifest.replace("        - --calls\n", &format!("        - '{word}'\n        - --calls\n"));
    }
    let job = format!("agent-{user}");
    cluster.kubectl(&["-n", "agents", "delete", "job", &job, "--ignore-not-found", "--wait=true"]).run()?;
    cluster.apply(&manifest)?;
    let log = finished_log(cluster, &job)?;
    parse(user, &log)
}

/// Waits for the Job's end, however it ends, and gives its log.
fn finished_log(cluster: &Cluster, job: &str) -> Result<String> {
    let name = format!("job/{job}");
    let ended = "--for=jsonpath={.status.conditions[0].status}=True";
    let waited = cluster.kubectl(&["-n", "agents", "wait", &name, ended, "--timeout=150s"]).run();
    let log = cluster.kubectl(&["-n", "agents", "logs", &name]).text().unwrap_or_default();
    waited.with_context(|| format!("{name} did not end; its log:\n{}", crate::command::tail(&log, 30)))?;
    Ok(log)
}

/// Reads what an agent printed.
///
/// # Errors
/// It could not connect.
pub fn parse(user: &str, log: &str) -> Result<Session> {
    let lines: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let of = |event: &'static str| lines.iter().filter(move |line| line["event"] == event);
    if of("connected").next().is_none() {
        bail!("{user}'s agent could not connect:\n{}", crate::command::tail(log, 30));
    }
    let tools = of("tools").next_back().map(|line| texts(&line["names"])).unwrap_or_default();
    let calls = of("call").map(call).collect();
    Ok(Session { user: user.to_owned(), tools, calls, lines })
}

fn call(line: &Value) -> Call {
    let answers = line["http"].as_array().cloned().unwrap_or_default();
    let refusal = answers.iter().rev().find(|answer| answer["status"].as_u64().is_some_and(|s| s >= 400));
    let outcome = line["outcome"].as_str().unwrap_or("failed").to_owned();
    Call {
        tool: line["tool"].as_str().unwrap_or_default().to_owned(),
        stepped_up: refusal.is_some() && outcome == "allowed",
        reason: refusal.and_then(|answer| reason(&answer["body"])),
        saw: find(&line["result"], "saw").cloned(),
        outcome,
        line: line.clone(),
    }
}

/// The closed reason in a refusal's body, given as JSON or as its text.
fn reason(body: &Value) -> Option<String> {
    let parsed = body.as_str().and_then(|text| serde_json::from_str(text).ok());
    find(parsed.as_ref().unwrap_or(body), "reason").and_then(Value::as_str).map(str::to_owned)
}

/// The first member of that name, at any depth.
fn find<'a>(value: &'a Value, member: &str) -> Option<&'a Value> {
    match value {
        Value::Object(map) => map.get(member).or_else(|| map.values().find_map(|v| find(v, member))),
        Value::Array(items) => items.iter().find_map(|v| find(v, member)),
        _ => None,
    }
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect()
}

/// The decision records of the demo's sidecar, one JSON object per line.
///
/// # Errors
/// The log cannot be read.
pub fn records(cluster: &Cluster) -> Result<Vec<Value>> {
    let words = ["-n", "hr", "logs", "deploy/hr-tools", "-c", "behalf-sidecar", "--tail=-1"];
    let log = cluster.kubectl(&words).text()?;
    Ok(log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|line| line["schema"].as_str().is_some_and(|s| s.starts_with("behalf.dev/record/")))
        .collect())
}
