//! The way out in stage `Audit`: what would be refused goes as it came, is recorded, and buys nothing.

use serde_json::{Value, json};

use crate::world::World;

#[tokio::test]
async fn audit_lets_a_bare_request_go_as_it_came_and_records_it() {
    let world = World::with(|d| d["serve"]["stage"] = json!("Audit")).await;
    let own =
        world.ask("GET /payroll/x?a=b", "Authorization: Bearer own-key\r\nAccept-Encoding: gzip\r\n").await;
    let saw = own.json();
    assert_eq!((own.status, &saw["own"], &saw["claims"]), (200, &json!("Bearer own-key"), &Value::Null));
    assert_eq!(saw["headers"]["accept-encoding"], "gzip");
    let record = world.last().await;
    assert_eq!(
        (&record["decision"], &record["reason"], &record["stage"]),
        (&json!("WouldDeny"), &json!("NoHandle"), &json!("Audit"))
    );
    let dead = world.open("alice").as_str().to_owned();
    for headers in [format!("Authorization: Bearer {dead}\r\n"), format!("behalf_handle: {dead}\r\n")] {
        let saw = world.ask("GET /payroll/x", &headers).await.json();
        assert_eq!((&saw["own"], &saw["claims"]), (&Value::Null, &Value::Null), "a dead handle is removed");
        assert!(!saw.to_string().contains(&dead));
        assert_eq!(world.last().await["reason"], "UnknownHandle");
    }
    assert_eq!(world.idp.exchanges(), 0);
    let live = world.open("alice");
    assert_eq!(world.get("/payroll/x", live.as_str()).await.json()["claims"]["sub"], "alice");
    assert_eq!(world.ask("GET /nowhere", "").await.status, 404, "only origins of the catalogue");
    assert_eq!(world.ask("GET /payroll/../x", "").await.status, 400);
}

#[tokio::test]
async fn audit_mints_nothing_that_policy_forbids() {
    let mut world = World::with(|d| d["serve"]["stage"] = json!("Audit")).await;
    let alice = world.open("alice");
    world
        .publish(|d| {
            d["serve"]["stage"] = json!("Audit");
            d["serve"]["scopes"][1]["groups"] = json!(["directors"]);
        })
        .await;
    let saw = world.get("/payroll/x", alice.as_str()).await.json();
    assert_eq!((&saw["own"], &saw["claims"]), (&Value::Null, &Value::Null));
    let record = world.last().await;
    assert_eq!((&record["decision"], &record["reason"]), (&json!("WouldDeny"), &json!("NotEntitled")));
    assert_eq!(world.idp.exchanges(), 0);
}
