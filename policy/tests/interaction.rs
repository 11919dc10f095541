//! What providers and downstreams want of callers: what is taken of their words, and what is made of it.

#![cfg(test)]

mod support;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use behalf_policy::challenge::{self, Beside};
use behalf_policy::claims::Scheme;
use behalf_policy::interaction::{Interaction, MAX_CLAIMS};
use serde_json::{Value, json};

/// Of Entra ID, with members in another order than ours and white space.
const CLAIMS: &str =
    r#"{"id_token": {"x": null},  "access_token":{"acrs":{"values":["c1"],"essential":true}}}"#;
const CANONICAL: &str =
    r#"{"access_token":{"acrs":{"essential":true,"values":["c1"]}},"id_token":{"x":null}}"#;

fn wants(answer: &Value) -> Option<String> {
    let interaction = Interaction::of_error(answer.as_object().unwrap())?;
    assert!(!format!("{interaction:?}").contains("acrs"), "a30");
    Some(told(&interaction))
}

fn told(interaction: &Interaction) -> String {
    let bundle = support::bundle(support::policy_document());
    let challenge = challenge::interaction(bundle.policy().unwrap(), interaction);
    let rest = challenge.strip_prefix("Bearer error=\"").unwrap().to_owned();
    assert!(rest.contains("resource_metadata=\"https://"), "{rest}");
    assert!(rest.bytes().all(|b| (b' '..=b'~').contains(&b)), "{rest}");
    rest
}

fn claims_in(challenge: &str) -> String {
    assert!(challenge.starts_with("insufficient_claims\""), "{challenge}");
    let claims = challenge.split("claims=\"").nth(1).unwrap().strip_suffix('"').unwrap();
    String::from_utf8(STANDARD.decode(claims).unwrap()).unwrap()
}

#[test]
fn b6_claims_of_a_provider_are_written_anew() {
    for error in ["interaction_required", "invalid_grant", "login_required", "insufficient_claims"] {
        let answer = json!({"error": error, "error_description": "AADSTS50076: secret \" text", "claims": CLAIMS,
            "suberror": "basic_action", "trace_id": "trace", "correlation_id": "x"});
        let challenge = wants(&answer).unwrap();
        assert_eq!(claims_in(&challenge), CANONICAL, "{error}");
        assert!(!challenge.contains("AADSTS") && !challenge.contains("trace"), "nothing else of it");
    }
}

#[test]
fn b6_claims_that_are_no_bounded_json_object_are_not_passed_on() {
    let long = json!({"access_token": "x".repeat(MAX_CLAIMS)}).to_string();
    let bad = [
        "",
        "{}",
        "[]",
        "null",
        "\"text\"",
        "{\"a\":1",
        "{\"a\":1}x",
        r#"{"a":1,"a":2}"#,
        r#"{"a":{"b":1,"\u0062":2}}"#,
        long.as_str(),
    ];
    for claims in bad {
        let bare = wants(&json!({"error": "interaction_required", "claims": claims})).unwrap();
        assert!(
            bare.starts_with("insufficient_user_authentication\"") && !bare.contains("claims="),
            "{bare}"
        );
        assert_eq!(wants(&json!({"error": "invalid_grant", "claims": claims})), None, "{claims}");
    }
    for claims in [json!({"access_token": {}}), json!(7), json!(null)] {
        assert_eq!(wants(&json!({"error": "invalid_grant", "claims": claims})), None);
    }
    let fits = json!({"a": "x".repeat(MAX_CLAIMS - 8)}).to_string();
    assert_eq!(fits.len(), MAX_CLAIMS);
    assert_eq!(claims_in(&wants(&json!({"error": "invalid_grant", "claims": fits})).unwrap()), fits);
}

#[test]
fn a17_logins_and_consent_of_a_provider_become_the_challenge_of_rfc_9470() {
    let answer =
        json!({"error": "insufficient_user_authentication", "acr_values": "gold silver", "max_age": 60});
    let challenge = wants(&answer).unwrap();
    assert!(challenge.starts_with("insufficient_user_authentication\""), "{challenge}");
    assert!(challenge.contains("acr_values=\"gold silver\", max_age=\"60\""), "{challenge}");
    let bare = |answer: Value| {
        let challenge = wants(&answer).unwrap();
        assert!(challenge.starts_with("insufficient_user_authentication\""), "{challenge}");
        assert!(!challenge.contains("acr_values") && !challenge.contains("max_age"), "{challenge}");
        challenge
    };
    for error in ["interaction_required", "login_required"] {
        assert!(bare(json!({"error": error})).contains("log in"));
    }
    assert!(bare(json!({"error": "consent_required"})).contains("consent"));
    assert!(bare(json!({"error": "invalid_grant", "suberror": "consent_required"})).contains("consent"));
    let quote = "go\"ld";
    let many = "a ".repeat(8) + "a";
    let long = "x".repeat(129);
    for acr in [
        json!(quote),
        json!("a\\b"),
        json!(""),
        json!("a  b"),
        json!("gö"),
        json!(many),
        json!(long),
        json!(1),
    ] {
        bare(json!({"error": "insufficient_user_authentication", "acr_values": acr}));
    }
    for age in
        [json!("-1"), json!(-1), json!("1e3"), json!(1.5), json!("99999999999"), json!([60]), json!("")]
    {
        bare(json!({"error": "insufficient_user_authentication", "max_age": age}));
    }
}

#[test]
fn b6_other_errors_want_nothing_of_the_caller() {
    for answer in [
        json!({}),
        json!({"error": 7}),
        json!({"error": "invalid_grant"}),
        json!({"error": "invalid_grant", "suberror": "bad_token"}),
        json!({"error": "invalid_request", "claims": CLAIMS}),
        json!({"error": "access_denied", "claims": CLAIMS}),
        json!({"error": "server_error", "suberror": "consent_required"}),
        json!({"error": "Interaction_Required"}),
    ] {
        assert_eq!(wants(&answer), None, "{answer}");
    }
}

#[test]
fn b6_a_downstreams_challenge_is_read_by_its_grammar() {
    let base64 = STANDARD.encode(CLAIMS);
    let url = URL_SAFE_NO_PAD.encode(r#"{"access_token":{"x":"???>>>"}}"#);
    let claims = [
        format!(
            "Bearer realm=\"\", authorization_uri=\"https://login.test/a,b\", error=\"insufficient_claims\", claims=\"{base64}\""
        ),
        format!("Negotiate, Basic realm=\"x \\\" y\", bearer error=insufficient_claims,claims=\"{base64}\""),
        format!(
            "Negotiate dG9rZW4=, DPoP algs=\"ES256\" , error = \"insufficient_claims\", claims= \"{base64}\""
        ),
        format!("Bearer error=\"insufficient_claims\", claims=\"{}\"", base64.trim_end_matches('=')),
    ];
    for line in claims {
        let interaction = Interaction::of_challenges([line.as_str()]).unwrap_or_else(|| panic!("{line}"));
        assert_eq!(claims_in(&told(&interaction)), CANONICAL);
    }
    let line = format!("Bearer error=\"insufficient_claims\", claims=\"{url}\"");
    let interaction = Interaction::of_challenges(["Basic realm=\"x\"", line.as_str()]).unwrap();
    assert_eq!(claims_in(&told(&interaction)), r#"{"access_token":{"x":"???>>>"}}"#);
    let line = "Bearer error=\"insufficient_user_authentication\", acr_values=\"gold\", max_age=\"5\"";
    let interaction = Interaction::of_challenges([line]).unwrap();
    assert!(told(&interaction).contains("acr_values=\"gold\", max_age=\"5\""));
}

#[test]
fn b6_a_downstreams_challenge_that_cannot_be_read_is_none() {
    let base64 = STANDARD.encode(CLAIMS);
    for line in [
        String::new(),
        "Bearer".to_owned(),
        "Bearer error=\"invalid_token\"".to_owned(),
        format!("Basic error=\"insufficient_claims\", claims=\"{base64}\""),
        format!("Bearer error=\"invalid_token\", claims=\"{base64}\""),
        "Bearer error=\"insufficient_claims\"".to_owned(),
        "Bearer error=\"insufficient_claims\", claims=\"e30=\"".to_owned(),
        "Bearer error=\"insufficient_claims\", claims=\"!!\"".to_owned(),
        format!("Bearer error=\"insufficient_claims\", claims=\"{base64}"),
        format!("Bearer error=\"insufficient_claims\", claims=\"{base64}\" x"),
        format!("Bearer error=\"insufficient_claims\", claims=\"{base64}\", claims=\"{base64}\""),
        format!("Bearer error=\"insufficient_claims\", error=\"x\", claims=\"{base64}\""),
        format!("error=\"insufficient_claims\", claims=\"{base64}\""),
        format!("Bearer error=\"insufficient_claims\"; claims=\"{base64}\""),
        "Bearer error=\"insufficient_user_authentication\", max_age=\"soon\"".to_owned(),
        format!("Bearer x=\"{}\", error=\"insufficient_user_authentication\"", "y".repeat(16 * 1024)),
        format!("{}Bearer error=\"insufficient_user_authentication\"", "Basic, ".repeat(64)),
    ] {
        assert!(Interaction::of_challenges([line.as_str()]).is_none(), "{line}");
    }
    // One line that cannot be read makes the others worth nothing.
    let good = "Bearer error=\"insufficient_user_authentication\"";
    assert!(Interaction::of_challenges([good]).is_some());
    assert!(Interaction::of_challenges([good, "Bearer error=\""]).is_none());
}

#[test]
fn a25_a17_a_bound_token_is_challenged_in_its_own_scheme() {
    let bundle = support::bundle(support::policy_document());
    let policy = bundle.policy().unwrap();
    let answer = json!({"error": "interaction_required", "claims": CLAIMS});
    let wanted = Interaction::of_error(answer.as_object().unwrap()).unwrap();
    let bearer = challenge::interaction(policy, &wanted);
    let lines = challenge::schemes(policy, Some(Scheme::Dpop), &bearer, Beside::Nothing);
    let [line] = lines.as_slice() else { panic!("{lines:?}") };
    assert!(line.starts_with("DPoP error=\"insufficient_claims\""), "{line}");
    assert_eq!(Interaction::of_challenges([line.as_str()]), Some(wanted));
}
