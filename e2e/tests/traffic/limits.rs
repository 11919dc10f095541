//! Rate limits, from the object to the answer.
use anyhow::{Context as _, Result};
use behalf_e2e::world::FOLLOWED;
use behalf_e2e::{ALL_SCOPES, Undo, World, keycloak, mcp, until};
use serde_json::{Value, json};

#[test]
fn a_burst_over_a_limit_is_refused_with_the_time_to_wait_and_another_subject_is_not() -> Result<()> {
    let world = World::get()?;
    let pod = world.pod()?;
    let set = |limits: Value| world.patch("hr", "aid/hr-tools", &json!({"spec": {"rateLimits": limits}}));
    let alice = keycloak::login(world, "agent-test", "alice", ALL_SCOPES)?;
    let bob = keycloak::login(world, "agent-test", "bob", ALL_SCOPES)?;
    let search =
        |token: &str| mcp::call("directory.search", &json!({"query": "a"})).bearer(token).send(world);
    assert_eq!(search(&alice.text)?.status, 200);

    let undo = Undo::new(move || set(Value::Null));
    set(
        json!([{"name": "e2e", "per": "Subject", "requests": 4, "period": "1h", "tools": ["directory.search"]}]),
    )?;
    let refused = until("alice has no call left", FOLLOWED, || {
        let answer = search(&alice.text)?;
        Ok((answer.status == 429).then_some(answer))
    })?;
    let seconds: u32 = refused.header("retry-after").context("Retry-After")?.parse()?;
    assert!((1..=3600).contains(&seconds), "{seconds}");
    let body = refused.json()?;
    assert_eq!((&body["id"], &body["error"]["data"]["reason"]), (&json!(1), &json!("RateLimited")));
    let record = pod.record_of(&refused)?;
    assert_eq!((&record["decision"], &record["reason"]), (&json!("Refuse"), &json!("RateLimited")));
    assert_eq!((&record["status"], &record["subject"]), (&json!(429), &json!(alice.subject()?)));
    assert_eq!(record["rateLimit"], json!({"name": "e2e", "per": "Subject"}));

    assert_eq!(search(&bob.text)?.status, 200, "another subject");
    assert_eq!(mcp::salary(&alice.text, "bob").send(world)?.status, 200, "another tool");
    undo.now()?;
    until("the limit is gone", FOLLOWED, || Ok((search(&alice.text)?.status == 200).then_some(())))
}
