//! What Keycloak's exchange does not guard, shown by asking it wrongly on purpose, and what catches each: the decision,
//! or the check of the answer, fed with what Keycloak really said. In a run without a cluster, where the client has a
//! secret: in a cluster nobody but the sidecar can authenticate as it, not even an administrator.
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use behalf_e2e::{ALL_SCOPES, Answer, Request, Token, keycloak};
use behalf_policy::answer::{AnswerRefusal, EXPIRY_MARGIN, check_response, check_token};
use behalf_policy::bundle::{Bundle, Policy, Provider};
use behalf_policy::claims::{Caller, check_claims, select_provider};
use behalf_policy::decide::{Operation, decide};
use behalf_policy::decision::{Decision, ExchangeOrder, Reason};
use behalf_policy::ids::{EntryName, Timestamp};
use serde_json::{Map, Value, json};
use xtask::progress::Steps;
use xtask::standalone::Standalone;

/// Keycloak's token endpoint in a run without a cluster.
const TOKENS: &str = "https://127.0.0.1:17443/realms/corp/protocol/openid-connect/token";
/// The MCP server's URL there, and its client id.
const CLIENT: &str = "http://127.0.0.1:17000/mcp";
/// What payroll saw, there.
const SEEN: &str = "http://127.0.0.1:17445/_seen";

/// The bundle that the running sidecar follows, after `change`.
fn bundle(parts: &Standalone, change: impl FnOnce(&mut Value)) -> Result<Bundle> {
    let signed = fs::read_to_string(parts.logs().join("bundle").join("bundle.json"))?;
    let signed: Value = serde_json::from_str(&signed)?;
    let payload = STANDARD.decode(signed["payload"].as_str().context("payload")?)?;
    let mut document: Value = serde_json::from_slice(&payload)?;
    change(&mut document);
    Ok(Bundle::load(serde_json::from_value(document)?, "sha256:test".to_owned())?)
}

fn login(client: &str, user: &str, scope: &str) -> Result<Token> {
    keycloak::token(
        &keycloak::password_grant(TOKENS, client, user, &format!("{user}-pw"), scope).send_here()?,
    )
}

/// Asks for an exchange as the MCP server's client does, with these further fields: right or wrong.
fn exchange(parts: &Standalone, subject: &Token, more: &[(&str, &str)]) -> Result<Answer> {
    let secret = fs::read_to_string(parts.logs().join("snapshot").join("client-secret"))?;
    let mut fields = vec![
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("subject_token", &*subject.text),
        ("subject_token_type", "urn:ietf:params:oauth:token-type:access_token"),
        ("client_id", CLIENT),
        ("client_secret", secret.trim()),
    ];
    fields.extend(more);
    Request::form(TOKENS, &fields).send_here()
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
fn said(
    parts: &Standalone,
    subject: &Token,
    more: &[(&str, &str)],
) -> Result<(Map<String, Value>, Map<String, Value>)> {
    let answer = exchange(parts, subject, more)?;
    let body = answer.json()?.as_object().cloned().context("an object")?;
    ensure!(
        answer.status == 200,
        "Keycloak refuses this now: {} {}",
        answer.status,
        body["error_description"]
    );
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

fn the_right_question_gets_an_answer_that_passes(parts: &Standalone) -> Result<()> {
    let bundle = bundle(parts, |_| ())?;
    let alice = login("agent-test", "alice", ALL_SCOPES)?;
    let now = now()?;
    let (provider, caller) = caller(policy(&bundle)?, &alice, now)?;
    let order = order(&bundle, &caller, "salary.get", now)?;
    let (answer, claims) = said(parts, &alice, &[("audience", "payroll"), ("scope", "payroll:read")])?;
    let until = judged(&answer, &claims, &order, provider, &alice, now)?;
    assert!(until <= caller.expires, "used longer than its subject lives");
    Ok(())
}

/// How many exchanges Keycloak's log tells of, and how many requests payroll saw.
fn asked(parts: &Standalone) -> Result<(usize, usize)> {
    let log = fs::read_to_string(parts.logs().join("keycloak.out"))?;
    let exchanges = log.lines().filter(|line| line.contains("type=\"TOKEN_EXCHANGE")).count();
    ensure!(exchanges > 0, "Keycloak's log tells of no exchange");
    Ok((exchanges, Request::get(SEEN).send_here()?.json()?.as_array().map_or(0, Vec::len)))
}

/// Hazard 1: the scope of the answer can be wider than what the subject token warrants. Keycloak would give it; nobody asks.
fn hazard_1_keycloak_lets_scope_grow_and_decide_does_not_ask(parts: &Standalone) -> Result<()> {
    let bundle = bundle(parts, |_| ())?;
    for (user, scope, reason) in [
        ("alice", "hr:read", Reason::InsufficientScope),
        ("bob", ALL_SCOPES, Reason::NotEntitled),
        ("carol", ALL_SCOPES, Reason::NotEntitled),
    ] {
        let token = login("agent-test", user, scope)?;
        let (answer, claims) = said(parts, &token, &[("audience", "payroll"), ("scope", "payroll:read")])?;
        assert_eq!((&answer["scope"], &claims["aud"]), (&json!("payroll:read"), &json!("payroll")), "{user}");

        let now = now()?;
        let (_, caller) = caller(policy(&bundle)?, &token, now)?;
        match decide(&bundle, &caller, Operation::CallTool("salary.get"), now) {
            Decision::Refuse(refusal) => assert_eq!(refusal.reason, reason, "{user}"),
            other => anyhow::bail!("{user}: {other:?}"),
        }
        let before = asked(parts)?;
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
            "params": {"name": "salary.get", "arguments": {"employee": "bob"}}});
        let call = Request::post(CLIENT, &body).header("Accept", "application/json, text/event-stream");
        assert_eq!(call.bearer(&token.text).send_here()?.status, 403, "{user}");
        assert_eq!(asked(parts)?, before, "{user}: something was asked of the provider or of payroll");
    }
    Ok(())
}

/// Hazard 2: `audience` narrows `aud` and nothing else.
fn hazard_2_scopes_of_another_audience_are_refused_in_the_answer(parts: &Standalone) -> Result<()> {
    let bundle = bundle(parts, |_| ())?;
    let alice = login("agent-test", "alice", ALL_SCOPES)?;
    let now = now()?;
    let (provider, caller) = caller(policy(&bundle)?, &alice, now)?;
    let order = order(&bundle, &caller, "salary.get", now)?;
    let both = [("audience", "payroll"), ("scope", "payroll:read ledger:read")];
    let (answer, claims) = said(parts, &alice, &both)?;
    assert_eq!(claims["aud"], "payroll", "the audience is right");
    assert!(claims["scope"].as_str().is_some_and(|s| s.contains("ledger:read")), "{}", claims["scope"]);
    let beyond = Err(AnswerRefusal::ScopeBeyondAsked);
    assert_eq!(judged(&answer, &claims, &order, provider, &alice, now), beyond);
    assert_eq!(judged(&silent(&answer), &claims, &order, provider, &alice, now), beyond);
    Ok(())
}

/// Hazard 3: a scope that the person may not have is dropped in silence, and without an audience nothing else says so.
fn hazard_3_a_dropped_scope_and_a_missing_audience_are_refused_in_the_answer(
    parts: &Standalone,
) -> Result<()> {
    // A catalogue that warrants what the provider does not give to bob.
    let bundle = bundle(parts, |document| {
        let policy = &mut document["serve"];
        policy["optionalScopes"] = json!(["hr:leave:read", "hr:salary:read", "hr:salary:write"]);
        for scope in policy["scopes"].as_array_mut().into_iter().flatten() {
            scope["groups"] = json!(["managers", "staff"]);
        }
    })?;
    let bob = login("agent-test", "bob", ALL_SCOPES)?;
    let now = now()?;
    let (provider, caller) = caller(policy(&bundle)?, &bob, now)?;
    let order = order(&bundle, &caller, "salary.update", now)?;
    let (answer, claims) = said(parts, &bob, &[("scope", "payroll:write")])?;
    assert_eq!(claims.get("aud"), None, "a token for everybody");
    assert_eq!(judged(&answer, &claims, &order, provider, &bob, now), Err(AnswerRefusal::ScopeNarrower));
    assert_eq!(
        judged(&silent(&answer), &claims, &order, provider, &bob, now),
        Err(AnswerRefusal::WrongAudience)
    );
    // Asked as the sidecar asks, the provider says no by itself.
    let right = exchange(parts, &bob, &[("audience", "payroll"), ("scope", "payroll:write")])?;
    assert_eq!(right.status, 400, "{}", right.body);
    Ok(())
}

/// Hazard 4: the life of the answer is not bounded by that of its subject token.
fn hazard_4_a_token_is_used_no_longer_than_its_subject_lives(parts: &Standalone) -> Result<()> {
    let whole = bundle(parts, |_| ())?;
    let short = login("agent-short", "alice", ALL_SCOPES)?;
    let (answer, claims) = said(parts, &short, &[("audience", "payroll"), ("scope", "payroll:read")])?;
    let of = |claims: &Map<String, Value>, name: &str| claims[name].as_i64().context("a date");
    let subject = short.claims()?;
    assert_eq!(of(&subject, "exp")? - of(&subject, "iat")?, 2);
    assert!(of(&claims, "exp")? - of(&claims, "iat")? >= 290, "Keycloak bounds it now");

    // The subject token ends at its `exp` and the clock difference that is tolerated. Just before, what is left of it is
    // less than the margin.
    let skew = select_provider(policy(&whole)?, &subject)?.1.clock_skew;
    let ends = Timestamp(of(&subject, "exp")?).plus(skew);
    let then = ends.minus(EXPIRY_MARGIN);
    let (provider, who) = caller(policy(&whole)?, &short, then)?;
    let order_of = |bundle: &Bundle, who: &Caller, at| order(bundle, who, "salary.get", at);
    let ordered = order_of(&whole, &who, then)?;
    assert_eq!(judged(&answer, &claims, &ordered, provider, &short, then), Err(AnswerRefusal::Expired));
    // Earlier, the subject token would have had some life left: used so long and no longer.
    let earlier = then.minus(20);
    let ordered = order_of(&whole, &who, earlier)?;
    let usable = judged(&answer, &claims, &ordered, provider, &short, earlier)?;
    assert!(usable < ends && usable < Timestamp(of(&claims, "exp")?));

    // Beyond the absolute bound it is refused, whatever its subject.
    let bounded = bundle(parts, |document| {
        for downstream in document["serve"]["downstreams"].as_array_mut().into_iter().flatten() {
            downstream["maxTokenLifetime"] = json!(60);
        }
    })?;
    let long = login("agent-test", "alice", ALL_SCOPES)?;
    let (answer, claims) = said(parts, &long, &[("audience", "payroll"), ("scope", "payroll:read")])?;
    let now = now()?;
    let (provider, who) = caller(policy(&bounded)?, &long, now)?;
    let ordered = order_of(&bounded, &who, now)?;
    assert_eq!(judged(&answer, &claims, &ordered, provider, &long, now), Err(AnswerRefusal::LivesTooLong));
    Ok(())
}

/// What was made for one order is no answer to another.
fn an_answer_for_somebody_else_or_something_else_is_refused(parts: &Standalone) -> Result<()> {
    let bundle = bundle(parts, |_| ())?;
    let alice = login("agent-test", "alice", ALL_SCOPES)?;
    let bob = login("agent-test", "bob", ALL_SCOPES)?;
    let now = now()?;
    let (provider, caller) = caller(policy(&bundle)?, &alice, now)?;
    let order = order(&bundle, &caller, "salary.get", now)?;
    let (answer, claims) = said(parts, &bob, &[("audience", "payroll"), ("scope", "payroll:read")])?;
    assert_eq!(judged(&answer, &claims, &order, provider, &alice, now), Err(AnswerRefusal::WrongSubject));
    let (answer, claims) = said(parts, &alice, &[("audience", "ledger"), ("scope", "ledger:read")])?;
    assert_eq!(
        judged(&silent(&answer), &claims, &order, provider, &alice, now),
        Err(AnswerRefusal::WrongAudience)
    );
    let (mut answer, claims) = said(parts, &alice, &[("audience", "payroll"), ("scope", "payroll:read")])?;
    answer.insert("access_token".to_owned(), json!(alice.text));
    assert_eq!(
        judged(&answer, &claims, &order, provider, &alice, now),
        Err(AnswerRefusal::SubjectTokenEchoed)
    );
    Ok(())
}

/// The ports of a run without a cluster are fixed: one run for all of them.
#[test]
fn standalone_what_the_providers_exchange_does_not_guard_is_caught() -> Result<()> {
    let parts = Standalone::start(&Steps::new("standalone"), true)?;
    the_right_question_gets_an_answer_that_passes(&parts).context("the right question")?;
    hazard_1_keycloak_lets_scope_grow_and_decide_does_not_ask(&parts).context("hazard 1")?;
    hazard_2_scopes_of_another_audience_are_refused_in_the_answer(&parts).context("hazard 2")?;
    hazard_3_a_dropped_scope_and_a_missing_audience_are_refused_in_the_answer(&parts).context("hazard 3")?;
    hazard_4_a_token_is_used_no_longer_than_its_subject_lives(&parts).context("hazard 4")?;
    an_answer_for_somebody_else_or_something_else_is_refused(&parts).context("an answer for somebody else")
}
