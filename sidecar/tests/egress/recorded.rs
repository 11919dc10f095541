//! The way out in strict mode: nothing leaves before it is written that it will.

use behalf_policy::record::Mode;
use serde_json::{Value, json};

use crate::idp::network;
use crate::world::World;

fn lines(world: &World) -> Vec<Value> {
    let text = String::from_utf8(world.lines.0.lock().unwrap().clone()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn r1_a_call_that_goes_out_has_an_intent_and_one_that_is_refused_has_none() {
    let world = World::recorded(&network(), Mode::Strict, usize::MAX, |_| {}).await;
    let alice = world.open("alice");
    assert_eq!(world.get("/payroll/x", alice.as_str()).await.status, 200);
    assert_eq!(world.get("/payroll/x", "nobodys").await.status, 403);
    assert_eq!(world.get("/unknown/x", alice.as_str()).await.status, 404);
    let lines = lines(&world);
    let kinds: Vec<_> = lines.iter().map(|line| line["kind"].as_str().unwrap_or("")).collect();
    assert_eq!(kinds, ["Start", "Intent", "", "", ""]);
    let (intent, outcome) = (&lines[1], &lines[2]);
    assert_eq!((&intent["decision"], &intent["direction"]), (&json!("Permit"), &json!("Outbound")));
    assert_eq!((&intent["downstream"], &intent["subject"]), (&json!("payroll"), &json!("alice")));
    assert_eq!((&intent["exchange"], &intent["status"]), (&Value::Null, &Value::Null));
    assert_eq!((&outcome["intent"], &outcome["exchange"]), (&json!(1), &json!("Made")));
    assert!(lines[3..].iter().all(|line| line["intent"].is_null() && line["decision"] == "Refuse"));
}

#[tokio::test]
async fn r1_without_its_intent_nothing_leaves() {
    // The start is written, and nothing after it.
    let world = World::recorded(&network(), Mode::Strict, 1, |_| {}).await;
    let alice = world.open("alice");
    for _ in 0..2 {
        let answer = world.get("/payroll/x", alice.as_str()).await;
        assert_eq!((answer.status, answer.head.as_str()), (0, ""), "no answer without a record");
    }
    assert_eq!(world.idp.exchanges(), 0, "no exchange");
    assert_eq!(lines(&world).len(), 1);
}
