//! The certificate that is served with: how it is replaced, and what happens when it is no good, missing or past its end.

use std::time::Duration;

use http_body_util::BodyExt as _;
use rcgen::date_time_ymd;
use serde_json::json;

use super::{challenged, counted, ignored, search};
use crate::support::client_tls::{
    Authority, Connection, Secured, client_config, handshake, mount, mount_leaf,
};
use crate::support::{World, eventually};

/// The certificate that is handed out now.
async fn served(secured: &Secured) -> Vec<u8> {
    let config = secured.client(None, &[b"http/1.1"]);
    let stream = handshake(secured.world.app.addresses.inbound, config).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

#[tokio::test]
async fn a_renewed_certificate_is_served_to_who_comes_and_no_call_is_lost() {
    let secured = Secured::start(ignored(), "").await;
    let token = secured.world.alice();
    let dir = secured.world.dir.join("tls");
    let first = served(&secured).await;
    let mut before = secured.connect(None).await;
    let mut open = secured.connect_h2(None).await;
    let streams = secured.world.server.stream_next();
    secured.world.count_one();
    let answer = open.try_start(search(&token)).await.unwrap();
    assert_eq!(answer.status(), 200);
    let events = streams.recv().unwrap();

    let renewed = secured.authority.leaf(|params| params.not_after = date_time_ymd(2999, 1, 1));
    mount_leaf(&dir, &renewed, "");
    eventually("the new one is served", async || {
        assert_eq!(secured.send(&mut before, search(&token)).await.status, 200);
        (served(&secured).await == renewed.certificate.der().as_ref()).then_some(())
    })
    .await;
    assert_ne!(first, renewed.certificate.der().as_ref());
    // 2999-01-01.
    counted(&secured.world, "tls_certificate_not_after_seconds 32472144000").await;
    assert_eq!(secured.send(&mut before, search(&token)).await.status, 200, "its connection goes on");
    assert_eq!(secured.send(&mut open, search(&token)).await.status, 200);
    drop(events);
    answer.into_body().collect().await.unwrap();
    secured.world.stop().await;
}

#[tokio::test]
async fn a_pair_that_cannot_be_served_with_leaves_the_last_good_one_and_is_told() {
    let secured = Secured::start(ignored(), "").await;
    let dir = secured.world.dir.join("tls");
    let first = served(&secured).await;
    let next = secured.authority.leaf(|_| {});
    let (certificate, key) = (next.pem(), next.key_pem());
    let old_key = std::fs::read_to_string(dir.join("tls.key")).unwrap();
    let half = &certificate[..certificate.len() / 2];
    let rows: [(&str, &[(&str, &str)]); 9] = [
        ("CertificateKeyMismatch", &[("tls.crt", &certificate), ("tls.key", &old_key)]),
        ("CertificateMissing", &[("tls.crt", ""), ("tls.key", &key)]),
        ("CertificateMissing", &[("tls.crt", &certificate), ("tls.key", " \n")]),
        ("CertificateMissing", &[("tls.crt", &certificate)]),
        ("CertificateUnreadable", &[("tls.crt", half), ("tls.key", &key)]),
        ("CertificateUnreadable", &[("tls.crt", "certificate"), ("tls.key", &key)]),
        ("CertificateUnreadable", &[("tls.crt", &key), ("tls.key", &key)]),
        ("CertificateKeyUnreadable", &[("tls.crt", &certificate), ("tls.key", &certificate)]),
        (
            "CertificateAuthoritiesUnreadable",
            &[("tls.crt", &certificate), ("tls.key", &key), ("ca.crt", "authority")],
        ),
    ];
    let mut seen = std::collections::BTreeMap::new();
    for (reason, files) in rows {
        mount(&dir, files);
        let count = seen.entry(reason).and_modify(|count| *count += 1).or_insert(1);
        let line = format!("tls_certificate_rejections_total{{reason=\"{reason}\"}} {count}");
        counted(&secured.world, &line).await;
        assert_eq!(secured.world.ready().await, (200, format!("tls: {reason}\nready\n")));
        assert_eq!(served(&secured).await, first, "{reason}");
    }
    let mut over = secured.connect(None).await;
    assert_eq!(secured.send(&mut over, search(&secured.world.alice())).await.status, 200);
    mount_leaf(&dir, &next, "");
    eventually("it is served", async || {
        (served(&secured).await == next.certificate.der().as_ref()).then_some(())
    })
    .await;
    eventually("all is well", async || (secured.world.ready().await.1 == "ready\n").then_some(())).await;
    secured.world.stop().await;
}

/// As with an optional volume whose Secret comes later.
#[tokio::test]
async fn without_a_certificate_the_sidecar_is_unready_and_takes_no_call_until_there_is_one() {
    let authority = Authority::new();
    let world = World::configured(|config| config.tls_dir = Some(config.bundle_dir.join("tls"))).await;
    let mut document = crate::support::bundle::document(1, &world.issuer, world.server.port);
    document["serve"]["servers"][0]["tls"] = ignored();
    world.publish(&document).await;
    let pending = (503, "pending: tls (CertificateMissing)\n".to_owned());
    assert_eq!(world.ready().await, pending);
    let to = world.app.addresses.inbound;
    let config = client_config(&authority.pem(), None, &[b"http/1.1"]);
    assert!(handshake(to, config.clone()).await.is_err());
    counted(&world, "tls_handshakes_total{outcome=\"NoCertificate\"} 1").await;
    // Who answers here can be found out all the same.
    assert!(challenged(to).await.starts_with("HTTP/1.1 200 "));

    let dir = world.dir.join("tls");
    mount(&dir, &[("tls.crt", "x"), ("tls.key", "y")]);
    let unreadable = "pending: tls (CertificateUnreadable)\n";
    eventually("it is told", async || (world.ready().await.1 == unreadable).then_some(())).await;
    mount_leaf(&dir, &authority.leaf(|_| {}), "");
    eventually("it is ready", async || (world.ready().await.0 == 200).then_some(())).await;
    let mut over = Connection::over(handshake(to, config).await.unwrap()).await;
    world.count_one();
    assert_eq!(over.send(search(&world.alice())).await.status, 200);
    world.stop().await;
}

#[tokio::test]
async fn a_certificate_that_has_ended_is_served_on_and_told() {
    let secured = Secured::start(ignored(), "").await;
    // Far enough for this client, which has the machine's clock.
    let soon = crate::support::issuer::now() + 36_000;
    let leaf = secured.authority.leaf(|params| {
        params.not_after = date_time_ymd(1970, 1, 1) + Duration::from_secs(soon.cast_unsigned());
    });
    mount_leaf(&secured.world.dir.join("tls"), &leaf, "");
    counted(&secured.world, &format!("tls_certificate_not_after_seconds {soon}")).await;
    assert_eq!(secured.world.ready().await, (200, "ready\n".to_owned()));
    secured.world.clock.advance(36_001);
    counted(&secured.world, "tls_certificate_expired 1\n").await;
    assert_eq!(secured.world.ready().await, (200, "tls: CertificateExpired\nready\n".to_owned()));
    // By this client's clock it has not: whether it is taken is the caller's to judge.
    let token = secured.world.token(|claims| claims["exp"] = json!(soon + 300));
    let mut over = secured.connect(None).await;
    assert_eq!(secured.send(&mut over, search(&token)).await.status, 200);
    mount_leaf(&secured.world.dir.join("tls"), &secured.authority.leaf(|_| {}), "");
    eventually("all is well", async || (secured.world.ready().await.1 == "ready\n").then_some(())).await;
    counted(&secured.world, "tls_certificate_expired 0\n").await;
    secured.world.stop().await;
}
