//! The story of the demo, to the letter: real agents with their own OAuth client log in and call tools.
use anyhow::{Context as _, Result};
use behalf_e2e::{ALL_SCOPES, SERVER, World, keycloak, payroll};
use serde_json::{Value, json};
use xtask::demo::{Call, Session, play_as};

fn call<'a>(session: &'a Session, tool: &str) -> Result<&'a Call> {
    session.calls.iter().find(|call| call.tool == tool).with_context(|| format!("no call of {tool}"))
}

fn answers(call: &Call) -> Vec<(u64, &Value)> {
    let list = call.line["http"].as_array();
    list.into_iter().flatten().map(|a| (a["status"].as_u64().unwrap_or_default(), &a["challenge"])).collect()
}

/// Hashes of every token that the agent ever held.
fn held(session: &Session) -> Vec<String> {
    let lines = session.lines.iter().filter(|line| line["event"] == "tokens");
    lines.filter_map(|line| line["sha256"].as_object()).flat_map(|map| map.keys().cloned()).collect()
}

#[test]
fn alice_reaches_payroll_as_herself_after_stepping_up() -> Result<()> {
    let world = World::get()?;
    let herself = keycloak::login(world, "agent-test", "alice", "")?.subject()?;
    let session = play_as(&world.cluster, &world.images, "alice", &[])?;

    assert_eq!(
        session.tools,
        ["directory.search", "leave.list", "salary.get"],
        "salary.update is not offered"
    );
    let search = call(&session, "directory.search")?;
    assert_eq!(
        (search.outcome.as_str(), search.stepped_up),
        ("allowed", false),
        "the first login is enough for it"
    );

    // A16: the challenge names every scope of the operation, and the agent comes back with them.
    let get = call(&session, "salary.get")?;
    assert_eq!((get.outcome.as_str(), get.reason.as_deref()), ("allowed", Some("InsufficientScope")));
    let [(403, challenge), (200, _)] = answers(get)[..] else { anyhow::bail!("{:?}", answers(get)) };
    assert_eq!(challenge["error"], "insufficient_scope");
    assert_eq!(challenge["scope"], "hr:read hr:salary:read");

    let saw = get.saw.as_ref().context("payroll saw nothing")?;
    assert_eq!(saw["sub"], json!(herself));
    assert_eq!(saw["aud"], "payroll");
    assert_eq!(saw["scope"], "payroll:read");
    assert_eq!(saw["azp"], SERVER);
    let held = held(&session);
    assert!(held.len() >= 3, "she stepped up twice: {held:?}");
    let used = saw["token_sha256"].as_str().context("token_sha256")?;
    assert!(!held.iter().any(|hash| hash == used), "payroll got a token that alice's agent held");

    let update = call(&session, "salary.update")?;
    assert_eq!((update.outcome.as_str(), update.reason.as_deref()), ("denied", Some("ScopeNotOffered")));
    assert_eq!(answers(update), [(403, &Value::Null)], "nothing she could ask for would help");
    Ok(())
}

#[test]
fn d32_bob_is_told_of_no_scope_that_he_could_not_get() -> Result<()> {
    let world = World::get()?;
    let before = payroll::seen(world)?.len();
    let session = play_as(&world.cluster, &world.images, "bob", &[])?;
    assert_eq!(session.tools, ["directory.search", "leave.list"], "tools/list lacks what he may not call");
    for tool in ["directory.search", "leave.list"] {
        assert_eq!(call(&session, tool)?.outcome, "allowed", "{tool}");
    }
    let get = call(&session, "salary.get")?;
    assert_eq!((get.outcome.as_str(), get.reason.as_deref()), ("denied", Some("NotEntitled")));
    assert_eq!(answers(get), [(403, &Value::Null)], "no scope challenge");
    assert_eq!(call(&session, "salary.update")?.reason.as_deref(), Some("ScopeNotOffered"));

    // The same with every scope presented, and to the letter.
    let token = keycloak::login(world, "agent-test", "bob", ALL_SCOPES)?;
    let answer = behalf_e2e::mcp::salary(&token.text, "bob").send(world)?;
    assert_eq!((answer.status, answer.reason().as_deref()), (403, Some("NotEntitled")));
    assert_eq!(answer.header("www-authenticate"), None);
    assert_eq!(payroll::seen(world)?.len(), before, "payroll saw something of bob");
    Ok(())
}

#[test]
fn carol_sees_nothing_and_may_call_nothing() -> Result<()> {
    let world = World::get()?;
    let before = payroll::seen(world)?.len();
    let session = play_as(&world.cluster, &world.images, "carol", &[])?;
    assert!(session.tools.is_empty(), "{:?}", session.tools);
    assert_eq!(session.calls.len(), 4);
    for call in &session.calls {
        assert_eq!(call.outcome, "denied", "{}", call.tool);
        assert_eq!(answers(call), [(403, &Value::Null)], "{}", call.tool);
    }
    assert_eq!(payroll::seen(world)?.len(), before);
    Ok(())
}

/// A16 by hand: what the challenge says is what helps.
#[test]
fn a16_alice_with_hr_read_alone_is_told_what_is_missing() -> Result<()> {
    let world = World::get()?;
    let pod = world.pod()?;
    let narrow = keycloak::login(world, "agent-test", "alice", "hr:read")?;
    let refused = behalf_e2e::mcp::salary(&narrow.text, "bob").send(world)?;
    assert_eq!((refused.status, refused.reason().as_deref()), (403, Some("InsufficientScope")));
    let challenge = refused.header("www-authenticate").context("no challenge")?;
    for part in [
        "Bearer ",
        "error=\"insufficient_scope\"",
        "scope=\"hr:read hr:salary:read\"",
        "resource_metadata=\"",
    ] {
        assert!(challenge.contains(part), "{part} is not in {challenge}");
    }
    let record = pod.record_of(&refused)?;
    assert_eq!((&record["decision"], &record["reason"]), (&json!("Refuse"), &json!("InsufficientScope")));
    assert_eq!(record["scopesMissing"], json!(["hr:salary:read"]));

    let wide = keycloak::login(world, "agent-test", "alice", "hr:read hr:salary:read")?;
    let answer = behalf_e2e::mcp::salary(&wide.text, "bob").send(world)?;
    assert_eq!(answer.saw().context("payroll saw nothing")?["sub"], json!(wide.subject()?));
    let [inbound, outbound] = &pod.records_of(&answer)?[..] else { anyhow::bail!("not two records") };
    for record in [inbound, outbound] {
        assert_eq!((&record["decision"], &record["subject"]), (&json!("Permit"), &json!(wide.subject()?)));
    }
    assert_eq!((&outbound["direction"], &outbound["downstream"]), (&json!("Outbound"), &json!("payroll")));
    Ok(())
}
