//! What Keycloak's exchange does not guard, shown by asking it wrongly on purpose, and what catches each: the decision,
//! or the check of the answer, fed with what Keycloak really said.
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use behalf_e2e::{ALL_SCOPES, Token, World, keycloak, mcp, payroll};
use behalf_policy::answer::{AnswerRefusal, check_response, check_token};
use behalf_policy::bundle::{Bundle, Policy, Provider};
use behalf_policy::claims::{Caller, check_claims, select_provider};
use behalf_policy::decide::{Operation, decide};
use behalf_policy::decision::{Decision, ExchangeOrder, Reason};
use behalf_policy::ids::{EntryName, Timestamp};
use serde_json::{Map, Value, json};

/// The bundle that the running sidecar follows, after `change`.
fn bundle(world: &World, change: impl FnOnce(&mut Value)) -> Result<Bundle> {
    let map = world.object(&["-n", "hr", "get", "configmap", "behalf-bundle-hr-tools"])?;
    let signed: Value = serde_json::from_str(map["data"]["bundle.json"].as_str().context("bundle.json")?)?;
    let payload = STANDARD.decode(signed["payload"].as_str().context("payload")?)?;
    let mut document: Value = serde_json::from_slice(&payload)?;
    change(&mut document);
    Ok(Bundle::load(serde_json::from_value(document)?, "sha256:test".to_owned())?)
}

fn now() -> Result<Timestamp> {
    Ok(Timestamp(i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())?))
}

/// Who calls with this token, by this policy.
fn caller<'a>(policy: &'a Policy, token: &Token, now: Timestamp) -> Result<(&'a Provider, Caller)> {
    let claims = token.claims()?;
    let (name, provider) = select_provider(policy, &claims)?;
    Ok((provider, check_claims(policy, name, provider, &claims, now)?))
}

/// The order that a permitted call of a tool gives.
fn order(bundle: &Bundle, caller: &Caller, tool: &str, now: Timestamp) -> Result<ExchangeOrder> {
    match decide(bundle, caller, Operation::CallTool(tool), now) {
        Decision::Permit(permit) => permit.order(&EntryName::new("payroll")?).context("no order"),
        other => anyhow::bail!("{other:?}"),
    }
}

fn policy(bundle: &Bundle) -> Result<&Policy> {
    bundle.policy().map_err(|reason| anyhow::anyhow!("{reason:?}"))
}

/// What Keycloak said, and the claims of the token in it. It must have said yes: else there is no hazard.
fn said(world: &World, subject: &Token, more: &[(&str, &str)]) -> Result<(Map<String, Value>, Map<String, Value>)> {
    let answer = keycloak::exchange(world, &subject.text, more)?;
    let body = answer.json()?.as_object().cloned().context("an object")?;
    ensure!(answer.status == 200, "Keycloak refuses this now: {} {}", answer.status, body["error_description"]);
    let token = Token { text: body["access_token"].as_str().context("access_token")?.to_owned(), id: None };
    let claims = token.claims()?;
    Ok((body, claims))
}

/// What the sidecar makes of such an answer.
fn judged(
    answer: &Map<String, Value>,
    claims: &Map<String, Value>,
    order: &ExchangeOrder,
    provider: &Provider,
    subject: &Token,
    now: Timestamp,
) -> Result<Timestamp, AnswerRefusal> {
    let response = check_response(answer, order, provider, &subject.text)?;
    check_token(claims, response, order, provider, now)
}

/// The same answer, whose envelope says nothing of the scope: the token itself has to.
fn silent(answer: &Map<String, Value>) -> Map<String, Value> {
    let mut answer = answer.clone();
    answer.remove("scope");
    answer
}

#[test]
fn the_right_question_gets_an_answer_that_passes() -> Result<()> {
    let world = World::get()?;
    let bundle = bundle(world, |_| ())?;
    let alice = keycloak::login(world, "agent-test", "alice", ALL_SCOPES)?;
    let now = now()?;
    let (provider, caller) = caller(policy(&bundle)?, &alice, now)?;
    let order = order(&bundle, &caller, "salary.get", now)?;
    let (answer, claims) = said(world, &alice, &[("audience", "payroll"), ("scope", "payroll:read")])?;
    let until = judged(&answer, &claims, &order, provider, &alice, now)?;
    assert!(until <= caller.expires, "used longer than its subject lives");
    Ok(())
}

/// Hazard 1: the scope of the answer can be wider than what the subject token warrants. Keycloak would give it; nobody asks.
#[test]
fn hazard_1_keycloak_lets_scope_grow_and_decide_does_not_ask() -> Result<()> {
    let world = World::get()?;
    let bundle = bundle(world, |_| ())?;
    for (user, scope, reason) in [
        ("alice", "hr:read", Reason::InsufficientScope),
        ("bob", ALL_SCOPES, Reason::NotEntitled),
        ("carol", ALL_SCOPES, Reason::NotEntitled),
    ] {
        let token = keycloak::login(world, "agent-test", user, scope)?;
        let (answer, claims) = said(world, &token, &[("audience", "payroll"), ("scope", "payroll:read")])?;
        assert_eq!((&answer["scope"], &claims["aud"]), (&json!("payroll:read"), &json!("payroll")), "{user}");

        let now = now()?;
        let (_, caller) = caller(policy(&bundle)?, &token, now)?;
        match decide(&bundle, &caller, Operation::CallTool("salary.get"), now) {
            Decision::Refuse(refusal) => assert_eq!(refusal.reason, reason, "{user}"),
            other => anyhow::bail!("{user}: {other:?}"),
        }
        let before = (keycloak::exchanges(world)?, payroll::seen(world)?.len());
        assert_eq!(mcp::salary(&token.text, "bob").send(world)?.status, 403, "{user}");
        assert_eq!((keycloak::exchanges(world)?, payroll::seen(world)?.len()), before, "{user}: it was asked");
    }
    Ok(())
}

/// Hazard 2: `audience` narrows `aud` and nothing else.
#[test]
fn hazard_2_scopes_of_another_audience_are_refused_in_the_answer() -> Result<()> {
    let world = World::get()?;
    let bundle = bundle(world, |_| ())?;
    let alice = keycloak::login(world, "agent-test", "alice", ALL_SCOPES)?;
    let now = now()?;
    let (provider, caller) = caller(policy(&bundle)?, &alice, now)?;
    let order = order(&bundle, &caller, "salary.get", now)?;
    let both = [("audience", "payroll"), ("scope", "payroll:read ledger:read")];
    let (answer, claims) = said(world, &alice, &both)?;
    assert_eq!(claims["aud"], "payroll", "the audience is right");
    assert!(claims["scope"].as_str().is_some_and(|s| s.contains("ledger:read")), "{}", claims["scope"]);
    let beyond = Err(AnswerRefusal::ScopeBeyondAsked);
    assert_eq!(judged(&answer, &claims, &order, provider, &alice, now), beyond);
    assert_eq!(judged(&silent(&answer), &claims, &order, provider, &alice, now), beyond);
    Ok(())
}

/// Hazard 3: a scope that the person may not have is dropped in silence, and without an audience nothing else says so.
#[test]
fn hazard_3_a_dropped_scope_and_a_missing_audience_are_refused_in_the_answer() -> Result<()> {
    let world = World::get()?;
    // A catalogue that warrants what the provider does not give to bob.
    let bundle = bundle(world, |document| {
        let policy = &mut document["serve"];
        policy["optionalScopes"] = json!(["hr:leave:read", "hr:salary:read", "hr:salary:write"]);
        for scope in policy["scopes"].as_array_mut().into_iter().flatten() {
            scope["groups"] = json!(["managers", "staff"]);
        }
    })?;
    let bob = keycloak::login(world, "agent-test", "bob", ALL_SCOPES)?;
    let now = now()?;
    let (provider, caller) = caller(policy(&bundle)?, &bob, now)?;
    let order = order(&bundle, &caller, "salary.update", now)?;
    let (answer, claims) = said(world, &bob, &[("scope", "payroll:write")])?;
    assert_eq!(claims.get("aud"), None, "a token for everybody");
    assert_eq!(judged(&answer, &claims, &order, provider, &bob, now), Err(AnswerRefusal::ScopeNarrower));
    assert_eq!(judged(&silent(&answer), &claims, &order, provider, &bob, now), Err(AnswerRefusal::WrongAudience));
    // Asked as the sidecar asks, the provider says no by itself.
    let right = keycloak::exchange(world, &bob.text, &[("audience", "payroll"), ("scope", "payroll:write")])?;
    assert_eq!(right.status, 400, "{}", right.body);
    Ok(())
}

/// Hazard 4: the life of the answer is not bounded by that of its subject token.
#[test]
fn hazard_4_a_token_is_used_no_longer_than_its_subject_lives() -> Result<()> {
    let world = World::get()?;
    let whole = bundle(world, |_| ())?;
    let short = keycloak::login(world, "agent-short", "alice", ALL_SCOPES)?;
    let (answer, claims) = said(world, &short, &[("audience", "payroll"), ("scope", "payroll:read")])?;
    let of = |claims: &Map<String, Value>, name: &str| claims[name].as_i64().context("a date");
    let subject = short.claims()?;
    assert_eq!(of(&subject, "exp")? - of(&subject, "iat")?, 2);
    assert!(of(&claims, "exp")? - of(&claims, "iat")? >= 290, "Keycloak bounds it now");

    // At the moment at which the subject token was issued: what is left of it is less than the margin.
    let then = Timestamp(of(&subject, "iat")?);
    let (provider, who) = caller(policy(&whole)?, &short, then)?;
    let order_of = |bundle: &Bundle, who: &Caller, at| order(bundle, who, "salary.get", at);
    let ordered = order_of(&whole, &who, then)?;
    assert_eq!(judged(&answer, &claims, &ordered, provider, &short, then), Err(AnswerRefusal::Expired));
    // Earlier, the subject token would have had some life left: used so long and no longer.
    let earlier = then.minus(20);
    let ordered = order_of(&whole, &who, earlier)?;
    let usable = judged(&answer, &claims, &ordered, provider, &short, earlier)?;
    assert!(usable < Timestamp(of(&subject, "exp")?) && usable < Timestamp(of(&claims, "exp")?));

    // Beyond the absolute bound it is refused, whatever its subject.
    let bounded = bundle(world, |document| {
        for downstream in document["serve"]["downstreams"].as_array_mut().into_iter().flatten() {
            downstream["maxTokenLifetime"] = json!(60);
        }
    })?;
    let long = keycloak::login(world, "agent-test", "alice", ALL_SCOPES)?;
    let (answer, claims) = said(world, &long, &[("audience", "payroll"), ("scope", "payroll:read")])?;
    let now = now()?;
    let (provider, who) = caller(policy(&bounded)?, &long, now)?;
    let ordered = order_of(&bounded, &who, now)?;
    assert_eq!(judged(&answer, &claims, &ordered, provider, &long, now), Err(AnswerRefusal::LivesTooLong));
    Ok(())
}

/// What was made for one order is no answer to another.
#[test]
fn an_answer_for_somebody_else_or_something_else_is_refused() -> Result<()> {
    let world = World::get()?;
    let bundle = bundle(world, |_| ())?;
    let alice = keycloak::login(world, "agent-test", "alice", ALL_SCOPES)?;
    let bob = keycloak::login(world, "agent-test", "bob", ALL_SCOPES)?;
    let now = now()?;
    let (provider, caller) = caller(policy(&bundle)?, &alice, now)?;
    let order = order(&bundle, &caller, "salary.get", now)?;
    let (answer, claims) = said(world, &bob, &[("audience", "payroll"), ("scope", "payroll:read")])?;
    assert_eq!(judged(&answer, &claims, &order, provider, &alice, now), Err(AnswerRefusal::WrongSubject));
    let (answer, claims) = said(world, &alice, &[("audience", "ledger"), ("scope", "ledger:read")])?;
    assert_eq!(
        judged(&silent(&answer), &claims, &order, provider, &alice, now),
        Err(AnswerRefusal::WrongAudience)
    );
    let (mut answer, claims) = said(world, &alice, &[("audience", "payroll"), ("scope", "payroll:read")])?;
    answer.insert("access_token".to_owned(), json!(alice.text));
    assert_eq!(
        judged(&answer, &claims, &order, provider, &alice, now),
        Err(AnswerRefusal::SubjectTokenEchoed)
    );
    Ok(())
}
