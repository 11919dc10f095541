//! Tokens that the real provider bound to the key of whoever logged in (RFC 9449).
use anyhow::{Result, bail, ensure};
use behalf_e2e::dpop::Holder;
use behalf_e2e::{ALL_SCOPES, ISSUER, METADATA, Request, SERVER, Token, World, keycloak, mcp, payroll};
use serde_json::json;

/// alice logs in with a client that shows a key: a public client of the realm needs no setting for it.
fn log_in(world: &World, holder: &Holder) -> Result<Token> {
    let endpoint = format!("{ISSUER}/protocol/openid-connect/token");
    let request = keycloak::password_grant(&endpoint, "agent-test", "alice", "alice-pw", ALL_SCOPES);
    let answer = request.header("DPoP", &holder.proof(&endpoint, None)?).send(world)?;
    ensure!(answer.json()?["token_type"] == "DPoP", "the provider bound nothing");
    keycloak::token(&answer)
}

#[test]
fn a23_a24_a26_a_token_bound_by_keycloak_is_taken_with_a_proof_made_for_the_request_and_never_else()
-> Result<()> {
    let world = World::get()?;
    let pod = world.pod()?;
    let holder = Holder::new()?;
    let token = log_in(world, &holder)?;
    assert_eq!(token.claims()?["cnf"]["jkt"], json!(holder.thumbprint()));

    let search = || mcp::call("directory.search", &json!({"query": "bob"}));
    let proof = holder.proof(SERVER, Some(&token.text))?;
    let answer = search().proved(&token.text, &proof).send(world)?;
    assert_eq!(answer.status, 200, "{answer:?}");
    let record = pod.record_of(&answer)?;
    assert_eq!((&record["decision"], &record["tokenBoundTo"]), (&json!("Permit"), &json!(["Key"])));
    assert_eq!(record["subject"], json!(token.subject()?));

    let thief = Holder::new()?;
    let own = holder.proof(SERVER, Some(&token.text))?;
    let elsewhere = holder.proof("http://payroll.payroll.svc.cluster.local:8081/", Some(&token.text))?;
    for (what, request, scheme, error, reason) in [
        ("as a bearer token", search().bearer(&token.text), "Bearer", "invalid_token", "BoundToken"),
        ("again", search().proved(&token.text, &proof), "DPoP", "invalid_dpop_proof", "ProofReplayed"),
        (
            "by a thief",
            search().proved(&token.text, &thief.proof(SERVER, Some(&token.text))?),
            "DPoP",
            "invalid_token",
            "BoundToOtherKey",
        ),
        (
            "for another server",
            search().proved(&token.text, &elsewhere),
            "DPoP",
            "invalid_dpop_proof",
            "ProofOfAnotherTarget",
        ),
        (
            "with two proofs",
            search().proved(&token.text, &own).header("DPoP", &own),
            "DPoP",
            "invalid_dpop_proof",
            "SeveralProofs",
        ),
    ] {
        let answer = request.send(world)?;
        assert_eq!(answer.status, 401, "{what}: {answer:?}");
        let challenge = answer.header("www-authenticate").unwrap_or_default();
        assert!(challenge.starts_with(&format!("{scheme} error=\"{error}\"")), "{what}: {challenge}");
        assert!(challenge.contains(METADATA), "{what}: {challenge}");
        assert_eq!(pod.record_of(&answer)?["reason"], json!(reason), "{what}");
    }
    assert_eq!(
        search().proved(&token.text, &own).send(world)?.status,
        200,
        "none of it used up a good proof"
    );
    let metadata = Request::get(METADATA).send(world)?.json()?;
    assert_eq!(metadata["dpop_signing_alg_values_supported"][0], "ES256");
    Ok(())
}

/// The provider exchanges a bound token for the client it was issued to and for no other, so that a chain ends here.
#[test]
fn a24_b6_a_bound_token_leads_no_further_and_the_record_says_why() -> Result<()> {
    let world = World::get()?;
    let before = payroll::seen(world)?.len();
    let holder = Holder::new()?;
    let token = log_in(world, &holder)?;
    let call = mcp::call("salary.get", &json!({"employee": "bob"}));
    let answer = call.proved(&token.text, &holder.proof(SERVER, Some(&token.text))?).send(world)?;
    assert!(answer.saw().is_none(), "{answer:?}");
    let [inbound, outbound] = &world.pod()?.records_of(&answer)?[..] else { bail!("not two records") };
    assert_eq!(inbound["decision"], "Permit");
    assert_eq!(outbound["reason"], "BoundTokenNotExchanged", "{outbound}");
    assert_eq!(outbound["tokenBoundTo"], json!(["Key"]));
    assert_eq!(payroll::seen(world)?.len(), before, "payroll saw something of it");
    Ok(())
}
