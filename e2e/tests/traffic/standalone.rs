//! The same story without Kubernetes: the parts as processes, the client authenticating by a secret in a file.
use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use xtask::demo::Session;
use xtask::progress::Steps;
use xtask::standalone::Standalone;

/// What became of each call.
fn outcomes(session: &Session) -> Vec<(&str, &str, Option<&str>, bool)> {
    let calls = session.calls.iter();
    calls.map(|c| (c.tool.as_str(), c.outcome.as_str(), c.reason.as_deref(), c.stepped_up)).collect()
}

/// The ports are fixed, so this is one test: it starts everything once.
#[test]
fn standalone_the_story_is_the_same_without_kubernetes() -> Result<()> {
    let parts = Standalone::start(&Steps::new("standalone"), true)?;
    let server = "http://127.0.0.1:17000/mcp";

    let alice = parts.play_as("alice")?;
    assert_eq!(alice.tools, ["directory.search", "leave.list", "salary.get"]);
    assert_eq!(
        outcomes(&alice),
        [
            ("directory.search", "allowed", None, false),
            ("leave.list", "allowed", Some("InsufficientScope"), true),
            ("salary.get", "allowed", Some("InsufficientScope"), true),
            ("salary.update", "denied", Some("ScopeNotOffered"), false),
        ]
    );
    let saw = alice.calls[2].saw.as_ref().context("payroll saw nothing")?;
    assert_eq!((&saw["preferred_username"], &saw["aud"]), (&json!("alice"), &json!("payroll")));
    assert_eq!((&saw["scope"], &saw["azp"]), (&json!("payroll:read"), &json!(server)));

    let bob = parts.play_as("bob")?;
    assert_eq!(bob.tools, ["directory.search", "leave.list"]);
    assert_eq!(
        outcomes(&bob)[2..],
        [
            ("salary.get", "denied", Some("NotEntitled"), false),
            ("salary.update", "denied", Some("ScopeNotOffered"), false),
        ]
    );
    let carol = parts.play_as("carol")?;
    assert!(carol.tools.is_empty());
    assert!(outcomes(&carol).iter().all(|(_, outcome, ..)| *outcome == "denied"));

    let records = parts.records()?;
    let records: Vec<Value> = records.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let out: Vec<_> = records.iter().filter(|r| r["direction"] == "Outbound").collect();
    assert_eq!(out.len(), 1, "one call got out: {out:?}");
    assert_eq!((&out[0]["decision"], &out[0]["exchange"]), (&json!("Permit"), &json!("Made")));
    assert_eq!(out[0]["subject"], saw["sub"]);
    let secret = std::fs::read_to_string(parts.logs().join("snapshot").join("client-secret"))?;
    for log in ["sidecar.out", "sidecar.log", "hr-tools.out", "hr-tools.log", "payroll.out", "payroll.log"] {
        let text = std::fs::read_to_string(parts.logs().join(log))?;
        assert!(!text.contains("eyJ"), "something that begins like a JWT is in {log}");
        assert!(!text.contains(secret.trim()), "the client's secret is in {log}");
    }
    Ok(())
}
