//! One exchange for one token, and nobody's for another.
use anyhow::{Context as _, Result};
use behalf_e2e::{ALL_SCOPES, Answer, Pod, World, keycloak, mcp};
use serde_json::{Value, json};

/// How the downstream token of a call came about, from its record of the way out.
fn exchange(pod: &Pod<'_>, answer: &Answer) -> Result<Value> {
    let records = pod.records_of(answer)?;
    assert_eq!(records.len(), 2, "{records:?}");
    Ok(records[1]["exchange"].clone())
}

fn used(answer: &Answer) -> Result<Value> {
    Ok(answer.saw().context("payroll saw nothing")?["token_sha256"].take())
}

#[test]
fn two_calls_with_one_token_make_one_exchange() -> Result<()> {
    let world = World::get()?;
    let pod = world.pod()?;
    let token = keycloak::login(world, "agent-test", "alice", ALL_SCOPES)?;
    let before = keycloak::exchanges(world)?;
    let calls =
        [mcp::salary(&token.text, "bob").send(world)?, mcp::salary(&token.text, "carol").send(world)?];
    assert_eq!(keycloak::exchanges(world)? - before, 1);
    assert_eq!(exchange(&pod, &calls[0])?, json!("Made"));
    assert_eq!(exchange(&pod, &calls[1])?, json!("Cached"));
    assert_eq!(used(&calls[0])?, used(&calls[1])?);
    Ok(())
}

#[test]
fn another_token_of_the_same_person_is_exchanged_for_itself() -> Result<()> {
    let world = World::get()?;
    let pod = world.pod()?;
    let before = keycloak::exchanges(world)?;
    let mut calls = Vec::new();
    for _ in 0..2 {
        let token = keycloak::login(world, "agent-test", "alice", ALL_SCOPES)?;
        calls.push(mcp::salary(&token.text, "bob").send(world)?);
    }
    assert_eq!(keycloak::exchanges(world)? - before, 2);
    for call in &calls {
        assert_eq!(exchange(&pod, call)?, json!("Made"));
    }
    assert_ne!(used(&calls[0])?, used(&calls[1])?);
    Ok(())
}

#[test]
fn many_calls_at_once_with_one_token_make_one_exchange() -> Result<()> {
    let world = World::get()?;
    let token = keycloak::login(world, "agent-test", "alice", ALL_SCOPES)?;
    let before = keycloak::exchanges(world)?;
    let sent: Vec<_> =
        (0..12).map(|_| mcp::salary(&token.text, "bob").start(world)).collect::<Result<_>>()?;
    let mut hashes = Vec::new();
    for sent in sent {
        hashes.push(used(&sent.answer()?)?.to_string());
    }
    hashes.dedup();
    assert_eq!(hashes.len(), 1, "{hashes:?}");
    assert_eq!(keycloak::exchanges(world)? - before, 1);
    Ok(())
}

#[test]
fn a_refused_call_makes_no_exchange_even_when_one_is_cached() -> Result<()> {
    let world = World::get()?;
    let alice = keycloak::login(world, "agent-test", "alice", ALL_SCOPES)?;
    assert_eq!(mcp::salary(&alice.text, "bob").send(world)?.status, 200);
    let before = (keycloak::exchanges(world)?, behalf_e2e::payroll::seen(world)?.len());
    for (user, scope) in [("bob", ALL_SCOPES), ("carol", ALL_SCOPES), ("alice", "hr:read")] {
        let token = keycloak::login(world, "agent-test", user, scope)?;
        assert_eq!(mcp::salary(&token.text, "bob").send(world)?.status, 403, "{user}");
    }
    let update = mcp::call("salary.update", &json!({"employee": "bob", "amount": 1}));
    assert_eq!(update.bearer(&alice.text).send(world)?.status, 403);
    assert_eq!((keycloak::exchanges(world)?, behalf_e2e::payroll::seen(world)?.len()), before);
    Ok(())
}
