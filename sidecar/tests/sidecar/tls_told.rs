//! What is wrong with a certificate is told the operator, which may not look into Secrets.

use std::time::Duration;

use behalf_policy::feed::{CertificateConcern, CertificateReason, Report, ServedCertificate};
use rcgen::date_time_ymd;
use serde_json::json;

use crate::support::client_tls::{Authority, mount, mount_leaf};
use crate::support::{Feed, World};

fn says(report: &Report, reason: CertificateReason, served: ServedCertificate) -> bool {
    report.certificate == Some(CertificateConcern { reason, served })
}

#[tokio::test]
async fn a_sidecar_tells_what_is_wrong_with_its_certificate_unready_or_not_and_when_it_is_well_again() {
    use CertificateReason as Reason;
    use ServedCertificate as Served;
    let (feed, authority) = (Feed::start().await, Authority::new());
    let world = World::configured(|config| config.tls_dir = Some(config.bundle_dir.join("tls"))).await;
    let dir = world.dir.join("tls");
    world.give_feed_token("feed-token-1");
    let mut document = feed.document(1, &world);
    document["serve"]["servers"][0]["tls"] = json!({"clientCertificates": "Ignored"});
    world.publish(&document).await;

    let (leaf, other) = (authority.leaf(|_| {}), authority.leaf(|_| {}));
    let (certificate, key) = (leaf.pem(), leaf.key_pem());
    let rows: [(Reason, &[(&str, &str)]); 5] = [
        (Reason::Missing, &[]),
        (Reason::Unreadable, &[("tls.crt", "x"), ("tls.key", &key)]),
        (Reason::KeyUnreadable, &[("tls.crt", &certificate), ("tls.key", "x")]),
        (Reason::KeyMismatch, &[("tls.crt", &certificate), ("tls.key", &other.key_pem())]),
        (
            Reason::AuthoritiesUnreadable,
            &[("tls.crt", &certificate), ("tls.key", &key), ("ca.crt", "authority")],
        ),
    ];
    // None yet: it is not ready, and tells all the same, from its first word on.
    for (reason, files) in &rows {
        if !files.is_empty() {
            mount(&dir, files);
        }
        feed.says(reason.as_str(), |report| says(report, *reason, Served::Nothing)).await;
        assert_eq!(world.ready().await, (503, format!("pending: tls ({})\n", reason.as_str())));
    }
    assert!(feed.posts().iter().all(|post| post.report.certificate.is_some()), "never that all is well");

    mount_leaf(&dir, &leaf, "");
    feed.says("all is well", |report| report.certificate.is_none()).await;
    for (reason, files) in rows.iter().filter(|(_, files)| !files.is_empty()) {
        mount(&dir, files);
        feed.says(reason.as_str(), |report| says(report, *reason, Served::LastGood)).await;
    }
    mount(&dir, &[("tls.crt", ""), ("tls.key", "")]);
    feed.says("emptied", |report| says(report, Reason::Missing, Served::LastGood)).await;

    let soon = crate::support::issuer::now() + 36_000;
    let ends = authority.leaf(|params| {
        params.not_after = date_time_ymd(1970, 1, 1) + Duration::from_secs(soon.cast_unsigned());
    });
    mount_leaf(&dir, &ends, "");
    feed.says("another", |report| report.certificate.is_none()).await;
    world.clock.advance(36_001);
    feed.says("it has ended", |report| says(report, Reason::Expired, Served::Ended)).await;
    mount(&dir, &[("tls.crt", "x"), ("tls.key", &key)]);
    feed.says("and the next is none", |report| says(report, Reason::Unreadable, Served::Ended)).await;
    mount_leaf(&dir, &leaf, "");
    feed.says("all is well again", |report| report.certificate.is_none()).await;
    // A key and its certificate stay where they are.
    let said = serde_json::to_string(&feed.posts().into_iter().map(|post| post.report).collect::<Vec<_>>());
    assert!(!said.unwrap().contains("BEGIN"));
    world.stop().await;
}

#[tokio::test]
async fn where_tls_ends_elsewhere_nothing_is_said_of_a_certificate() {
    let feed = Feed::start().await;
    let world = World::with_feed(&feed).await;
    let report = feed.says("the bundle", |report| report.bundle.is_some()).await;
    assert!(!serde_json::to_string(&report).unwrap().contains("certificate"));
    world.stop().await;
}
