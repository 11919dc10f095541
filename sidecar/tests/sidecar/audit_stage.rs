//! Stage `Audit`: what would be refused reaches the server with no authority of ours, and is recorded.

use crate::support::{Call, World};

#[tokio::test]
async fn audit_lets_bobs_salary_call_through_without_a_handle() {
    let world = World::with(|policy| policy["stage"] = "Audit".into()).await;
    let answer = world.send(Call::tool("salary.get").token(&world.bob())).await;
    assert_eq!(answer.status, 200);
    let seen = world.server.last();
    assert_eq!(seen.header("authorization"), None);
    assert!(!String::from_utf8_lossy(&seen.body).contains("behalf"));
    let record = world.last_record().await;
    assert_eq!(record["decision"], "WouldDeny");
    assert_eq!(record["reason"], "NotEntitled");
    assert_eq!(record["status"], 200);
    assert_eq!(record["subject"], "bob");

    let answer = world.send(Call::tool("salary.get").token(&world.alice())).await;
    assert_eq!(answer.status, 200);
    assert!(world.server.last().header("authorization").is_some(), "what is permitted is served as ever");
    assert_eq!(world.last_record().await["decision"], "Permit");
    world.stop().await;
}

#[tokio::test]
async fn audit_shows_every_tool() {
    let world = World::with(|policy| policy["stage"] = "Audit".into()).await;
    let answer = world.send(Call::list().token(&world.bob())).await;
    assert_eq!(answer.json()["result"]["tools"].as_array().unwrap().len(), 6);
    world.stop().await;
}

#[tokio::test]
async fn authentication_stays_enforced_in_stage_audit() {
    let world = World::with(|policy| policy["stage"] = "Audit".into()).await;
    assert_eq!(world.send(Call::tool("salary.get")).await.status, 401);
    assert!(world.server.seen().is_empty());
    world.stop().await;
}

#[tokio::test]
async fn audited_authentication_forwards_without_the_callers_credentials() {
    let world = World::with(|policy| policy["authentication"] = "Audit".into()).await;
    let bad = world.token(|c| c["aud"] = "payroll".into());
    for (call, reason) in [
        (Call::tool("salary.get"), "NoCredentials"),
        (Call::tool("salary.get").token(&bad), "WrongAudience"),
        (Call::tool("salary.get").header("authorization", "Basic YTpi"), "SchemeNotSupported"),
    ] {
        assert_eq!(world.send(call).await.status, 200, "{reason}");
        let seen = world.server.last();
        assert_eq!(seen.header("authorization"), None, "{reason}");
        assert!(!String::from_utf8_lossy(&seen.body).contains("behalf"), "{reason}");
        let record = world.last_record().await;
        assert_eq!(record["decision"], "WouldDeny");
        assert_eq!(record["reason"], reason);
        assert_eq!(record.get("subject"), None);
    }
    // A proved caller is still held to an enforced policy.
    assert_eq!(world.send(Call::tool("salary.get").token(&world.bob())).await.status, 403);
    world.stop().await;
}
