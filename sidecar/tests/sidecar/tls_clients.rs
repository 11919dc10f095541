//! Clients' certificates: proved by the connection, bound to tokens, vouched for where the bundle asks for that.

use std::time::Duration;

use http::HeaderMap;
use http_body_util::BodyExt as _;
use rcgen::{ExtendedKeyUsagePurpose, date_time_ymd};
use serde_json::{Value, json};

use crate::support::client_tls::{Authority, Connection, Leaf, Secured, mount_leaf};
use crate::support::{Answer, Call, World, eventually};

const METADATA: &str = "/.well-known/oauth-protected-resource";

fn search(token: &str) -> Call {
    Call::tool("directory.search").token(token)
}

async fn recorded(secured: &Secured) -> Value {
    secured.world.last_record().await["reason"].clone()
}

/// The answer to a call with this token, and the reason in its record.
async fn told(secured: &Secured, over: &mut Connection, token: &str) -> (u16, Value) {
    let answer = secured.send(over, search(token)).await;
    (answer.status, recorded(secured).await)
}

fn requested() -> Value {
    json!({"clientCertificates": "Requested"})
}

#[tokio::test]
async fn a27_a_bound_token_needs_its_certificate_on_the_very_connection() {
    let secured = Secured::start(requested(), "").await;
    let (mine, other) = (Leaf::self_signed(), Leaf::self_signed());
    let (bound, free) = (secured.bound_to(&mine), secured.world.alice());
    for h2 in [false, true] {
        let dial = async |client| {
            if h2 { secured.connect_h2(client).await } else { secured.connect(client).await }
        };
        let mut right = dial(Some(&mine)).await;
        let mut wrong = dial(Some(&other)).await;
        let mut none = dial(None).await;
        // The token is remembered from the first call on; that it is bound is asked with each.
        for _ in 0..2 {
            assert_eq!(told(&secured, &mut right, &bound).await, (200, Value::Null));
            assert_eq!(told(&secured, &mut wrong, &bound).await, (401, json!("BoundToOtherCertificate")));
            assert_eq!(told(&secured, &mut none, &bound).await, (401, json!("BoundToken")));
        }
        // Nobody is asked more than the token says.
        for over in [&mut right, &mut wrong, &mut none] {
            assert_eq!(told(&secured, over, &free).await, (200, Value::Null));
        }
    }
    assert!(secured.world.metrics().await.contains("tls_handshakes_total{outcome=\"Secured\"} 6"));
    let refused = secured.send(&mut secured.connect(Some(&other)).await, search(&bound)).await;
    let challenge = refused.headers["www-authenticate"].to_str().unwrap();
    assert!(challenge.contains("error=\"invalid_token\"") && challenge.contains(METADATA), "{challenge}");
    assert_eq!(refused.reason(), "InvalidToken", "which it was is for the record alone");
    secured.world.stop().await;
}

/// What proxies write, with the thumbprint, the certificate and every spelling of them.
fn forged(call: Call, leaf: &Leaf) -> Call {
    let der = format!(
        ":{}:",
        base64::Engine::encode(&base64::engine::general_purpose::STANDARD, leaf.certificate.der())
    );
    let (pem, hash) = (leaf.pem().replace('\n', "%0A"), leaf.thumbprint());
    call.header("x-forwarded-client-cert", &format!("Hash={hash};Cert=\"{pem}\""))
        .header("client-cert", &der)
        .header("client-cert-chain", &der)
        .header("x-ssl-client-cert", &pem)
        .header("ssl-client-cert", &pem)
        .header("x-client-cert", &pem)
        .header("x-client-cert-sha256", &hash)
        .header("x-forwarded-tls-client-cert", &pem)
}

fn says_certificate(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| name.as_str().contains("cert"))
}

#[tokio::test]
async fn a27_no_header_stands_for_a_certificate_and_none_reaches_the_server() {
    let secured = Secured::start(requested(), "").await;
    let (mine, other) = (Leaf::self_signed(), Leaf::self_signed());
    let bound = secured.bound_to(&mine);
    for client in [None, Some(&other)] {
        let mut over = secured.connect(client).await;
        let answer = secured.send(&mut over, forged(search(&bound), &mine)).await;
        assert_eq!(answer.status, 401);
    }
    let mut over = secured.connect(Some(&mine)).await;
    assert_eq!(secured.send(&mut over, forged(search(&bound), &other)).await.status, 200);
    assert!(!says_certificate(&secured.world.server.seen()[0].headers));
    secured.world.stop().await;

    // Where something in front of the pod terminates TLS its word is not taken either: there is no such setting.
    let world = World::start().await;
    let hash = mine.thumbprint();
    let bound = world.token(|claims| claims["cnf"] = json!({"x5t#S256": hash}));
    for call in [search(&bound), forged(search(&bound), &mine)] {
        let answer: Answer = world.send(call).await;
        assert_eq!((answer.status, world.last_record().await["reason"].clone()), (401, json!("BoundToken")));
    }
    assert_eq!(world.send(forged(search(&world.alice()), &mine)).await.status, 200);
    assert!(!says_certificate(&world.server.seen()[0].headers));
    world.stop().await;
}

#[tokio::test]
async fn a27_a_required_certificate_is_one_that_somebody_vouches_for() {
    let (clients, others) = (Authority::new(), Authority::new());
    let validation = json!({"caBundle": clients.pem()});
    // What stands beside the sidecar's own certificate does not count where the bundle names the authorities.
    let tls = json!({"clientCertificates": "Required", "clientValidation": validation});
    let secured = Secured::start(tls, &others.pem()).await;
    let token = secured.world.alice();
    let good = clients.leaf(|_| {});
    let ended = clients.leaf(|params| params.not_after = date_time_ymd(2001, 1, 1));
    let early = clients.leaf(|params| params.not_before = date_time_ymd(2999, 1, 1));
    let server = clients.leaf(|params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    let client = clients.leaf(|params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    });
    let (own, foreign) = (Leaf::self_signed(), others.leaf(|_| {}));
    for (what, leaf, reason) in [
        ("right", Some(&good), None),
        ("for clients", Some(&client), None),
        ("none", None, Some("ClientCertificateMissing")),
        ("of nobody", Some(&own), Some("ClientCertificateUntrusted")),
        ("of another authority", Some(&foreign), Some("ClientCertificateUntrusted")),
        ("ended", Some(&ended), Some("ClientCertificateExpired")),
        ("not yet", Some(&early), Some("ClientCertificateUntrusted")),
        ("for servers", Some(&server), Some("ClientCertificateUntrusted")),
    ] {
        let mut over = secured.connect(leaf).await;
        for _ in 0..2 {
            let answer = secured.send(&mut over, search(&token)).await;
            assert_eq!(recorded(&secured).await, json!(reason), "{what}");
            assert_eq!(answer.status, if reason.is_some() { 403 } else { 200 }, "{what}");
            if let Some(reason) = reason {
                assert_eq!((answer.reason().as_str(), answer.challenge()), (reason, None), "{what}");
            }
        }
        // A bound token helps nobody whose certificate is not taken.
        if let (Some(leaf), Some(reason)) = (leaf, reason) {
            assert_eq!(
                told(&secured, &mut over, &secured.bound_to(leaf)).await,
                (403, json!(reason)),
                "{what}"
            );
        }
        // The way to a token is everybody's.
        let metadata = secured.send(&mut over, Call::get(METADATA)).await;
        assert_eq!(metadata.status, 200, "{what}");
        assert_eq!(metadata.json()["tls_client_certificate_bound_access_tokens"], true);
    }
    assert_eq!(secured.world.server.seen().len(), 4);
    secured.world.stop().await;
}

#[tokio::test]
async fn a27_a_certificate_that_ends_takes_its_connection_with_it() {
    let clients = Authority::new();
    let tls = json!({"clientCertificates": "Required", "clientValidation": {"caBundle": clients.pem()}});
    let secured = Secured::start(tls, "").await;
    let now = crate::support::issuer::now();
    let soon = clients.leaf(|params| {
        params.not_after = date_time_ymd(1970, 1, 1) + Duration::from_secs((now + 100).cast_unsigned());
    });
    let token = secured.world.alice();
    let mut over = secured.connect(Some(&soon)).await;
    assert_eq!(told(&secured, &mut over, &token).await, (200, Value::Null));
    let mut stream = secured.connect_h2(Some(&soon)).await;
    let streams = secured.world.server.stream_next();
    secured.world.count_one();
    let open = stream.try_start(search(&token)).await.unwrap();
    let _events = streams.recv().unwrap();
    secured.world.clock.advance(101);
    // A stream that is cut leaves a record of its own.
    secured.world.count_one();
    let ended = tokio::time::timeout(Duration::from_secs(20), open.into_body().collect()).await;
    ended.expect("the stream ends").unwrap();
    let ends = eventually("its end is recorded", async || {
        let records = secured.world.records().await;
        records.into_iter().find(|record| record["reason"] == "ClientCertificateExpired")
    });
    ends.await;
    assert_eq!(told(&secured, &mut over, &token).await, (403, json!("ClientCertificateExpired")));
    secured.world.stop().await;
}

#[tokio::test]
async fn a27_a_spiffe_client_is_one_id_of_the_trust_domain() {
    let domain = Authority::new();
    let validation = json!({"spiffeTrustDomain": "example.org"});
    let tls = json!({"clientCertificates": "Required", "clientValidation": validation});
    let secured = Secured::start(tls, &domain.pem()).await;
    let token = secured.world.alice();
    let wrong = "ClientCertificateOfOtherTrustDomain";
    for (uris, reason) in [
        (&["spiffe://example.org/ns/agents/sa/ui"][..], None),
        (&["spiffe://example.com/ns/agents/sa/ui"], Some(wrong)),
        (&["spiffe://example.org/ns/agents/sa/ui", "spiffe://example.org/ns/agents/sa/ui"], Some(wrong)),
        (&["spiffe://example.org/ns/agents/sa/ui", "https://example.org"], Some(wrong)),
        (&["https://example.org/ns/agents/sa/ui"], Some(wrong)),
        (&["spiffe://example.org"], Some(wrong)),
        // Envoy CVE-2025-66220: what stands behind a NUL counts as well.
        (&["spiffe://example.org/ns\0/x"], Some(wrong)),
        (&["spiffe://example.org\0.example.com/ns"], Some(wrong)),
        (&[], Some(wrong)),
    ] {
        let leaf = domain.with_uris(uris);
        let mut over = secured.connect(Some(&leaf)).await;
        let status = if reason.is_some() { 403 } else { 200 };
        assert_eq!(told(&secured, &mut over, &token).await, (status, json!(reason)), "{uris:?}");
    }
    let forged = Authority::new().with_uris(&["spiffe://example.org/ns/agents/sa/ui"]);
    let mut over = secured.connect(Some(&forged)).await;
    let untrusted = json!("ClientCertificateUntrusted");
    assert_eq!(told(&secured, &mut over, &token).await, (403, untrusted));
    secured.world.stop().await;
}

/// The authorities beside the sidecar's own certificate come and go with it.
#[tokio::test]
async fn a27_other_authorities_are_asked_on_connections_from_before_too() {
    let (first, second) = (Authority::new(), Authority::new());
    let tls = json!({"clientCertificates": "Requested", "clientValidation": {}});
    let secured = Secured::start(tls, &first.pem()).await;
    let token = secured.world.alice();
    let leaf = first.leaf(|_| {});
    let (mut with, mut without) = (secured.connect(Some(&leaf)).await, secured.connect(None).await);
    assert_eq!(told(&secured, &mut with, &token).await, (200, Value::Null));
    let dir = secured.world.dir.join("tls");
    let own = secured.authority.leaf(|_| {});
    for (beside, reason) in
        [(second.pem(), "ClientCertificateUntrusted"), (String::new(), "ClientAuthoritiesMissing")]
    {
        mount_leaf(&dir, &own, &beside);
        eventually("the authorities are others", async || {
            let (status, found) = told(&secured, &mut with, &token).await;
            (status == 403 && found == json!(reason)).then_some(())
        })
        .await;
        assert_eq!(told(&secured, &mut without, &token).await, (200, Value::Null), "none is required");
    }
    mount_leaf(&dir, &own, &format!("{}{}", second.pem(), first.pem()));
    eventually("it is vouched for again", async || {
        (told(&secured, &mut with, &token).await.0 == 200).then_some(())
    })
    .await;
    secured.world.stop().await;
}

#[tokio::test]
async fn a27_what_is_asked_of_clients_changes_without_a_restart() {
    let clients = Authority::new();
    let secured = Secured::start(json!({"clientCertificates": "Ignored"}), "").await;
    let leaf = clients.leaf(|_| {});
    let (bound, free) = (secured.bound_to(&leaf), secured.world.alice());
    let mut before = secured.connect(Some(&leaf)).await;
    assert_eq!(told(&secured, &mut before, &bound).await, (401, json!("BoundToken")), "it was not asked");
    assert_eq!(told(&secured, &mut before, &free).await, (200, Value::Null));
    let metadata = secured.send(&mut before, Call::get(METADATA)).await.json();
    assert_eq!(metadata["tls_client_certificate_bound_access_tokens"], Value::Null);

    // Who could not be asked any more has to come back.
    secured.publish(2, requested()).await;
    eventually("the connection ends", async || before.is_closed().then_some(())).await;
    let (mut with, mut without) = (secured.connect(Some(&leaf)).await, secured.connect(None).await);
    assert_eq!(told(&secured, &mut with, &bound).await, (200, Value::Null));
    assert_eq!(told(&secured, &mut without, &free).await, (200, Value::Null));

    // Who was asked and had none is refused at once.
    let required = json!({"clientCertificates": "Required", "clientValidation": {"caBundle": clients.pem()}});
    secured.publish(3, required).await;
    assert_eq!(told(&secured, &mut with, &bound).await, (200, Value::Null));
    assert_eq!(told(&secured, &mut without, &free).await, (403, json!("ClientCertificateMissing")));
    secured.world.stop().await;
}

/// An identity whose pods still have no certificate (they need a restart) does not let anybody in for that.
#[tokio::test]
async fn a27_a_required_certificate_is_missed_where_the_sidecar_does_not_terminate_tls() {
    let clients = Authority::new();
    let required = json!({"clientCertificates": "Required", "clientValidation": {"caBundle": clients.pem()}});
    let world = World::with(|serve| serve["servers"][0]["tls"] = required).await;
    assert_eq!(world.send(search(&world.alice())).await.status, 403);
    assert_eq!(world.last_record().await["reason"], "ClientCertificateMissing");
    world.stop().await;
}

/// While authentication is only watched, such a call is recorded and let through without any authority.
#[tokio::test]
async fn a27_in_audit_a_missing_certificate_is_a_would_deny() {
    let clients = Authority::new();
    let secured = Secured::start(requested(), "").await;
    let world = &secured.world;
    let mut document = crate::support::bundle::document(2, &world.issuer, world.server.port);
    document["serve"]["servers"][0]["tls"] =
        json!({"clientCertificates": "Required", "clientValidation": {"caBundle": clients.pem()}});
    document["serve"]["authentication"] = json!("Audit");
    world.publish(&document).await;
    let mut over = secured.connect(None).await;
    let answer = secured.send(&mut over, Call::tool("salary.get").token(&world.alice())).await;
    assert_eq!(answer.status, 200);
    let record = world.last_record().await;
    assert_eq!(
        (&record["decision"], &record["reason"]),
        (&json!("WouldDeny"), &json!("ClientCertificateMissing"))
    );
    assert!(record["subject"].is_null(), "{record}");
    assert_eq!(world.server.seen()[0].header("authorization"), None);
    secured.world.stop().await;
}
