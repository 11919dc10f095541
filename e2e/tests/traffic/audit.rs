//! Stage `Audit`: nothing is refused by policy, and nothing is minted that policy forbids.
use anyhow::{Context as _, Result};
use behalf_e2e::records::header;
use behalf_e2e::world::FOLLOWED;
use behalf_e2e::{ALL_SCOPES, Undo, World, keycloak, mcp, payroll, until};
use serde_json::{Value, json};

/// The identity in stage `Audit`, and the sidecar too.
fn audit(world: &World) -> Result<Undo<'_>> {
    let follows = |stage: &'static str| {
        until("the sidecar follows the stage", FOLLOWED, || {
            let token = keycloak::login(world, "agent-test", "carol", "")?;
            let answer = mcp::request("tools/list", &json!({})).bearer(&token.text).send(world)?;
            Ok((world.pod()?.record_of(&answer)?["stage"] == stage).then_some(()))
        })
    };
    let undo = world.stage("Audit")?;
    let undo = Undo::new(move || {
        undo.now()?;
        follows("Enforce")
    });
    follows("Audit")?;
    Ok(undo)
}

#[test]
fn audit_lets_a_call_through_that_policy_refuses_and_gives_it_nothing() -> Result<()> {
    let world = World::get()?;
    let _stage = audit(world)?;
    let pod = world.pod()?;
    let bob = keycloak::login(world, "agent-test", "bob", ALL_SCOPES)?;
    let mark = keycloak::sha256(&bob.text);
    let exchanges = keycloak::exchanges(world)?;
    let seen = payroll::seen(world)?.len();
    let before = pod.records()?.len();

    let answer = mcp::salary(&bob.text, "alice").header("X-E2e-Mark", &mark).send(world)?;
    assert_eq!(answer.status, 200, "{answer:?}");
    let requests = pod.requests()?;
    let reached: Vec<_> = requests.iter().filter(|r| header(r, "x-e2e-mark") == Some(&mark)).collect();
    assert_eq!(reached.len(), 1, "the call reached the server once");
    assert_eq!(header(reached[0], "authorization"), None, "without handle or token");
    assert!(!reached[0].to_string().contains("behalf_"), "{}", reached[0]);

    let record = pod.record_of(&answer)?;
    assert_eq!((&record["decision"], &record["reason"]), (&json!("WouldDeny"), &json!("NotEntitled")));
    assert_eq!((&record["stage"], &record["subject"]), (&json!("Audit"), &json!(bob.subject()?)));
    // What the server then asked of payroll had nothing either, which is a request and a record of its own.
    let records = pod.records()?;
    let outbound: Vec<_> = records[before..].iter().filter(|r| r["direction"] == "Outbound").collect();
    assert_eq!(outbound.len(), 1, "{outbound:?}");
    assert_eq!((&outbound[0]["decision"], &outbound[0]["reason"]), (&json!("WouldDeny"), &json!("NoHandle")));
    assert_eq!((&outbound[0]["exchange"], &outbound[0]["subject"]), (&Value::Null, &Value::Null));
    let saw = payroll::seen(world)?.split_off(seen);
    assert_eq!(saw.len(), 1, "{saw:?}");
    assert_eq!(
        (&saw[0]["authorizations"], &saw[0]["status"]),
        (&json!(0), &json!(401)),
        "nothing was attached"
    );
    assert_eq!(keycloak::exchanges(world)?, exchanges);

    // Authentication is not in audit, and what is permitted works as ever.
    assert_eq!(mcp::call("salary.get", &json!({"employee": "bob"})).send(world)?.status, 401);
    let alice = keycloak::login(world, "agent-test", "alice", ALL_SCOPES)?;
    let answer = mcp::salary(&alice.text, "bob").send(world)?;
    assert_eq!(answer.saw().context("payroll saw nothing")?["sub"], json!(alice.subject()?));
    Ok(())
}
