//! Exchange answers: what a careless provider may send back, and what catches it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "the whole crate is a test")]

mod support;

use behalf_policy::answer::{ACCESS_TOKEN_TYPE, AnswerRefusal, check_response, check_token};
use behalf_policy::bundle::Provider;
use behalf_policy::decide::{Operation, decide};
use behalf_policy::decision::{Decision, ExchangeOrder};
use behalf_policy::ids::Timestamp;
use serde_json::{Map, Value, json};
use support::*;

const SUBJECT_TOKEN: &str = "the.subject.token";

fn order() -> ExchangeOrder {
    let caller = alice(&["hr:read", "hr:salary:read"]);
    match decide(&bundle(policy_document()), &caller, Operation::CallTool("salary.get"), NOW) {
        Decision::Permit(permit) => permit.order(&name("payroll")).unwrap(),
        other => panic!("{other:?}"),
    }
}

fn provider() -> Provider {
    let bundle = bundle(policy_document());
    policy(&bundle).providers["corp"].clone()
}

fn object(value: Value) -> Map<String, Value> {
    serde_json::from_value(value).unwrap()
}

fn good_response() -> Value {
    json!({"access_token": "a.b.c", "issued_token_type": ACCESS_TOKEN_TYPE, "token_type": "Bearer", "expires_in": 300, "scope": "payroll:read"})
}

fn good_claims() -> Value {
    json!({"iss": ISSUER, "aud": "payroll", "sub": "alice", "azp": URL, "typ": "Bearer", "scope": "payroll:read", "iat": NOW.0, "exp": NOW.0 + 300})
}

fn with(mut value: Value, member: &str, new: Value) -> Value {
    value[member] = new;
    value
}

fn without(value: Value, member: &str) -> Value {
    let mut map = object(value);
    map.remove(member);
    Value::Object(map)
}

fn response(value: Value) -> Result<(), AnswerRefusal> {
    check_response(&object(value), &order(), &provider(), SUBJECT_TOKEN).map(|_| ())
}

fn token(claims: Value) -> Result<Timestamp, AnswerRefusal> {
    token_at(claims, good_response(), NOW)
}

fn token_at(claims: Value, answer: Value, now: Timestamp) -> Result<Timestamp, AnswerRefusal> {
    let answer = object(answer);
    let response = check_response(&answer, &order(), &provider(), SUBJECT_TOKEN)?;
    check_token(&object(claims), response, &order(), &provider(), now)
}

#[test]
fn b3_an_answer_is_an_access_token_of_type_bearer() {
    response(good_response()).unwrap();
    response(with(good_response(), "token_type", json!("bEaReR"))).unwrap();
    for (member, value, refusal) in [
        (
            "issued_token_type",
            json!("urn:ietf:params:oauth:token-type:id_token"),
            AnswerRefusal::WrongTokenType,
        ),
        (
            "issued_token_type",
            json!("urn:ietf:params:oauth:token-type:refresh_token"),
            AnswerRefusal::WrongTokenType,
        ),
        ("issued_token_type", json!(1), AnswerRefusal::Malformed),
        ("token_type", json!("N_A"), AnswerRefusal::NotBearer),
        ("token_type", json!("DPoP"), AnswerRefusal::NotBearer),
        ("token_type", json!(null), AnswerRefusal::Malformed),
        ("access_token", json!(""), AnswerRefusal::Malformed),
        ("access_token", json!({}), AnswerRefusal::Malformed),
        ("access_token", json!("x".repeat(17_000)), AnswerRefusal::Malformed),
        ("access_token", json!(SUBJECT_TOKEN), AnswerRefusal::SubjectTokenEchoed),
        ("expires_in", json!("300"), AnswerRefusal::Malformed),
        ("expires_in", json!(-1), AnswerRefusal::Malformed),
        ("expires_in", json!(1e30), AnswerRefusal::Malformed),
        ("scope", json!(["payroll:read"]), AnswerRefusal::Malformed),
    ] {
        assert_eq!(response(with(good_response(), member, value.clone())), Err(refusal), "{member} {value}");
    }
    for (member, refusal) in [
        ("access_token", AnswerRefusal::Malformed),
        ("issued_token_type", AnswerRefusal::WrongTokenType),
        ("token_type", AnswerRefusal::NotBearer),
    ] {
        assert_eq!(response(without(good_response(), member)), Err(refusal), "{member}");
    }
    response(without(good_response(), "scope")).unwrap();
    response(without(good_response(), "expires_in")).unwrap();
}

#[test]
fn scopes_are_exactly_what_was_asked_or_declared_as_ignored() {
    response(with(good_response(), "scope", json!("profile payroll:read"))).unwrap();
    token(with(good_claims(), "scope", json!("profile payroll:read"))).unwrap();
    for scope in [
        "payroll:read hr:salary:read",
        "payroll:read payroll:write",
        "payroll:read groups",
        "payroll:read PROFILE",
    ] {
        assert_eq!(
            response(with(good_response(), "scope", json!(scope))),
            Err(AnswerRefusal::ScopeBeyondAsked),
            "{scope}"
        );
        assert_eq!(
            token(with(good_claims(), "scope", json!(scope))),
            Err(AnswerRefusal::ScopeBeyondAsked),
            "{scope}"
        );
    }
    for scope in ["", "profile"] {
        assert_eq!(
            response(with(good_response(), "scope", json!(scope))),
            Err(AnswerRefusal::ScopeNarrower),
            "{scope}"
        );
        assert_eq!(
            token(with(good_claims(), "scope", json!(scope))),
            Err(AnswerRefusal::ScopeNarrower),
            "{scope}"
        );
    }
    assert_eq!(
        token(without(good_claims(), "scope")),
        Err(AnswerRefusal::ScopeNarrower),
        "the response alone is no proof"
    );
}

#[test]
fn b4_a_token_without_or_with_another_audience_is_discarded() {
    token(with(good_claims(), "aud", json!(["payroll"]))).unwrap();
    for aud in [
        json!("ledger"),
        json!(["payroll", "ledger"]),
        json!([]),
        json!(["ledger"]),
        json!(1),
        json!(null),
        json!("PAYROLL"),
        json!("payroll "),
    ] {
        assert_eq!(
            token(with(good_claims(), "aud", aud.clone())),
            Err(AnswerRefusal::WrongAudience),
            "{aud}"
        );
    }
    assert_eq!(token(without(good_claims(), "aud")), Err(AnswerRefusal::WrongAudience));
}

#[test]
fn b4_a_token_of_another_issuer_subject_or_client_is_discarded() {
    for (member, value, refusal) in [
        ("iss", json!("https://evil.example.com"), AnswerRefusal::WrongIssuer),
        ("iss", json!(1), AnswerRefusal::Malformed),
        ("sub", json!("bob"), AnswerRefusal::WrongSubject),
        ("sub", json!("Alice"), AnswerRefusal::WrongSubject),
        ("sub", json!([]), AnswerRefusal::Malformed),
        ("azp", json!("agent-ui"), AnswerRefusal::WrongClient),
        ("client_id", json!("agent-ui"), AnswerRefusal::WrongClient),
        ("cnf", json!({"jkt": "x"}), AnswerRefusal::UnexpectedBinding),
        ("typ", json!("ID"), AnswerRefusal::NotVerified),
        ("nonce", json!("n"), AnswerRefusal::NotVerified),
    ] {
        assert_eq!(token(with(good_claims(), member, value.clone())), Err(refusal), "{member} {value}");
    }
    for (member, refusal) in [("iss", AnswerRefusal::WrongIssuer), ("sub", AnswerRefusal::WrongSubject)] {
        assert_eq!(token(without(good_claims(), member)), Err(refusal), "{member}");
    }
}

#[test]
fn b30_a_token_is_used_no_longer_than_its_subject_lives() {
    let until = token(with(good_claims(), "exp", json!(NOW.0 + 320))).unwrap();
    assert_eq!(until, NOW.plus(295), "the subject ends at +300, less the margin");
    let until = token_at(good_claims(), with(good_response(), "expires_in", json!(60)), NOW).unwrap();
    assert_eq!(until, NOW.plus(55));
}

#[test]
fn a_token_that_lives_beyond_the_absolute_bound_is_refused() {
    token(with(good_claims(), "exp", json!(NOW.0 + 330))).unwrap();
    assert_eq!(token(with(good_claims(), "exp", json!(NOW.0 + 331))), Err(AnswerRefusal::LivesTooLong));
    assert_eq!(token(with(good_claims(), "exp", json!(NOW.0 + 86_400))), Err(AnswerRefusal::LivesTooLong));
}

#[test]
fn a_token_without_a_usable_life_is_refused() {
    assert_eq!(token(with(good_claims(), "exp", json!(NOW.0 + 5))), Err(AnswerRefusal::Expired));
    assert_eq!(token(with(good_claims(), "exp", json!(NOW.0 - 10))), Err(AnswerRefusal::Expired));
    assert_eq!(token(with(good_claims(), "nbf", json!(NOW.0 + 100))), Err(AnswerRefusal::NotYetValid));
    assert_eq!(token(with(good_claims(), "iat", json!(NOW.0 + 100))), Err(AnswerRefusal::NotYetValid));
    assert_eq!(token_at(good_claims(), good_response(), NOW.plus(296)), Err(AnswerRefusal::Expired));
    for exp in [json!("x"), json!(-1), json!(1.5), json!(null)] {
        assert_eq!(token(with(good_claims(), "exp", exp.clone())), Err(AnswerRefusal::Malformed), "{exp}");
    }
    assert_eq!(token(without(good_claims(), "exp")), Err(AnswerRefusal::Malformed));
}
