//! Tokens that the real provider bound to the certificate of whoever logged in (RFC 8705 §3).
use anyhow::{Result, ensure};
use behalf_e2e::certificates::{AGENT, OTHER_AGENT, thumbprint};
use behalf_e2e::{Answer, ISSUER, METADATA, Request, World, keycloak};
use serde_json::{Value, json};

use super::tls_scene::{FIRST, Scene, call, search};

/// alice logs in with a client of the realm whose tokens are bound to the certificate of its connection.
fn log_in(world: &World, certificate: Option<&'static str>) -> Result<Answer> {
    let endpoint = format!("{ISSUER}/protocol/openid-connect/token");
    let request = keycloak::password_grant(&endpoint, "agent-certified", "alice", "alice-pw", "hr:read");
    certificate.into_iter().fold(request, Request::certified).send(world)
}

/// One challenge, which leads to the metadata and does not say which it was: that is for the record.
fn refused(what: &str, answer: &Answer) {
    assert_eq!(
        (answer.status, answer.reason().as_deref()),
        (401, Some("InvalidToken")),
        "{what}: {answer:?}"
    );
    let challenge = answer.header("www-authenticate").unwrap_or_default();
    assert!(challenge.starts_with("Bearer error=\"invalid_token\""), "{what}: {challenge}");
    assert!(challenge.contains("/.well-known/oauth-protected-resource"), "{what}: {challenge}");
}

#[test]
fn a27_a_token_bound_by_keycloak_is_taken_over_a_connection_of_its_certificate_and_never_else() -> Result<()>
{
    let world = World::get()?;
    let unbound = log_in(world, None)?;
    ensure!((unbound.status, &unbound.json()?["error"]) == (400, &json!("invalid_request")), "{unbound:?}");
    let token = keycloak::token(&log_in(world, Some(AGENT))?)?;
    assert_eq!(token.claims()?["cnf"], json!({"x5t#S256": thumbprint(AGENT)?}));
    let free = keycloak::login(world, "agent-test", "alice", "hr:read")?;

    let scene = Scene::deploy(world, "e2e-tls-bound", "Requested")?;
    scene.certificate(FIRST)?;
    let pod = scene.pod()?;
    scene.serves(&pod, &free.text, FIRST)?;
    let bound = || call(&pod, &token.text, FIRST);

    let permitted = || -> Result<Value> {
        let answer = bound().certified(AGENT).send(world)?;
        ensure!(answer.status == 200 && answer.tool().is_some(), "{answer:?}");
        pod.record_of(&answer)
    };
    let record = permitted()?;
    assert_eq!((&record["decision"], &record["tokenBoundTo"]), (&json!("Permit"), &json!(["Certificate"])));
    assert_eq!(record["subject"], json!(token.subject()?));

    let forged = format!("Hash={}", thumbprint(AGENT)?);
    for (what, request, reason) in [
        ("with another's certificate", bound().certified(OTHER_AGENT), "BoundToOtherCertificate"),
        ("without one", bound(), "BoundToken"),
        ("with a header for it", bound().header("X-Forwarded-Client-Cert", &forged), "BoundToken"),
    ] {
        let answer = request.send(world)?;
        refused(what, &answer);
        let record = pod.record_of(&answer)?;
        assert_eq!(
            (&record["decision"], &record["reason"]),
            (&json!("Refuse"), &json!(reason)),
            "{what}: {record}"
        );
        ensure!(record["subject"].is_null(), "{what}: {record}");
    }
    // A connection in the clear proves nothing, at the port that terminates TLS and where no sidecar does.
    let clear = bound().at(&format!("http://{}:8000/mcp", pod.address)).certified(AGENT).send(world)?;
    assert_eq!((clear.status, clear.reason().as_deref()), (400, Some("TLSRequired")), "{clear:?}");
    assert_eq!(pod.record_of(&clear)?["reason"], "TLSRequired");
    let plain = search(&token.text).certified(AGENT).send(world)?;
    refused("in the clear", &plain);
    let record = world.pod()?.record_of(&plain)?;
    assert_eq!(
        (&record["decision"], &record["reason"]),
        (&json!("Refuse"), &json!("BoundToken")),
        "{record}"
    );

    permitted()?;
    // A token that is bound to nothing is asked nothing more.
    for request in [call(&pod, &free.text, FIRST), call(&pod, &free.text, FIRST).certified(OTHER_AGENT)] {
        assert_eq!(request.send(world)?.status, 200);
    }
    let said = |request: Request| -> Result<Value> {
        Ok(request.send(world)?.json()?["tls_client_certificate_bound_access_tokens"].take())
    };
    let metadata = METADATA.replace("http://hr-tools.hr.", &format!("https://{FIRST}.{FIRST}."));
    assert_eq!(said(Request::get(&metadata).to(&pod.address))?, json!(true));
    assert_eq!(said(Request::get(METADATA))?, Value::Null);
    Ok(())
}
