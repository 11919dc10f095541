//! The serving certificate, from the Secret to a TLS handshake.

use std::sync::Arc;

use behalf_operator::args::CheckArgs;
use behalf_operator::certs::serving::Serving;
use behalf_operator::certs::{CertificateError, Certificates, service_names};
use behalf_operator::check;
use behalf_operator::clock::Clock;
use behalf_operator::health::Readiness;
use behalf_operator::http_server;
use behalf_operator::kube_io::secrets::Secrets;
use behalf_operator::live::Live;
use behalf_operator::metrics::Metrics;
use behalf_operator::webhook::mutate::Mutate;
use behalf_operator::webhook::server::Webhook;
use http::Method;
use k8s_openapi::jiff::Timestamp;
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::server::Server;
use crate::world::{World, writes};

const SECRET: &str = "/api/v1/namespaces/behalf-system/secrets/behalf-webhook-certs";
const SECRETS: &str = "/api/v1/namespaces/behalf-system/secrets";
const DAY: i64 = 86_400;

/// One replica.
fn replica(server: &Server, now: i64) -> (Certificates, watch::Receiver<Option<String>>) {
    let (authorities, trusted) = watch::channel(None);
    let certificates = Certificates {
        secrets: Secrets::new(server.client(), "behalf-system", "test"),
        secret: "behalf-webhook-certs".into(),
        names: service_names("behalf-webhook", "behalf-system", "cluster.local"),
        clock: Clock::Fixed(Timestamp::from_second(now).unwrap()),
        serving: Arc::new(Serving::default()),
        authorities,
        metrics: Arc::new(Metrics::default()),
    };
    (certificates, trusted)
}

fn now() -> i64 {
    Timestamp::now().as_second()
}

#[tokio::test]
async fn two_replicas_that_start_at_once_agree() {
    let server = Server::default();
    let ((a, at), (b, bt)) = (replica(&server, now()), replica(&server, now()));
    let (a, b) = tokio::join!(a.ensure(), b.ensure());
    a.unwrap();
    b.unwrap();
    let (a, b) = (at.borrow().clone(), bt.borrow().clone());
    assert!(a.is_some());
    assert_eq!(a, b);
}

#[tokio::test]
async fn made_once_then_only_read_then_renewed_in_time() {
    let server = Server::default();
    let (first, trusted) = replica(&server, now());
    first.ensure().await.unwrap();
    assert_eq!(writes(&server.calls()), [format!("POST {SECRETS}")]);
    let authority = trusted.borrow().clone();
    first.ensure().await.unwrap();
    replica(&server, now() + 5 * DAY).0.ensure().await.unwrap();
    assert_eq!(writes(&server.calls()), [""; 0]);
    let (later, trusted) = replica(&server, now() + 25 * DAY);
    later.ensure().await.unwrap();
    assert_eq!(writes(&server.calls()), [format!("PUT {SECRET}")]);
    assert_eq!(*trusted.borrow(), authority, "the authority is older than its certificates");
    let (much_later, trusted) = replica(&server, now() + 300 * DAY);
    much_later.ensure().await.unwrap();
    let both = trusted.borrow().clone().unwrap();
    assert!(both.contains(authority.as_deref().unwrap()) && both.len() > authority.unwrap().len());
}

#[tokio::test]
async fn who_comes_second_takes_what_the_first_one_wrote() {
    let server = Server::default();
    replica(&server, now()).0.ensure().await.unwrap();
    let (late, _) = replica(&server, now() + 25 * DAY);
    server.fail(Method::PUT, SECRET, 409);
    late.ensure().await.unwrap();
    let calls: Vec<_> = server.calls().iter().map(crate::server::Call::brief).collect();
    let (get, put) = (format!("GET {SECRET}"), format!("PUT {SECRET}"));
    assert_eq!(calls[calls.len() - 4..], [get.clone(), put.clone(), get, put]);
}

#[tokio::test]
async fn rubbish_in_the_secret_is_replaced() {
    for data in [
        json!({}),
        json!({"tls.crt": "AAAA"}),
        json!({"ca.crt": "", "ca.key": "", "tls.crt": "", "tls.key": ""}),
    ] {
        let server = Server::default();
        server.put(SECRET, json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "behalf-webhook-certs"}, "data": data}));
        replica(&server, now()).0.ensure().await.unwrap();
        assert_eq!(writes(&server.calls()), [format!("PUT {SECRET}")]);
    }
}

#[tokio::test]
async fn what_is_not_stored_is_not_served() {
    let server = Server::default();
    for code in [403, 500] {
        server.fail(Method::POST, SECRETS, code);
        let (replica, trusted) = replica(&server, now());
        assert!(matches!(replica.ensure().await, Err(CertificateError::Secret(_))));
        assert!(trusted.borrow().is_none());
    }
    for _ in 0..5 {
        server.fail(Method::POST, SECRETS, 409);
    }
    let (replica, trusted) = replica(&server, now());
    assert!(matches!(replica.ensure().await, Err(CertificateError::Contended)));
    assert!(trusted.borrow().is_none());
}

/// The webhook on loopback, found well by the chart's test, and not well with another authority or while not ready.
#[tokio::test]
async fn the_charts_test_sees_what_the_api_server_sees() {
    let world = World::new();
    world.settle().await;
    let (certificates, trusted) = replica(&world.server, now());
    let (readiness, metrics, stop) =
        (Readiness::default(), Arc::new(Metrics::default()), CancellationToken::new());
    let webhook = Webhook {
        mutate: Mutate::new(
            world.gather().await,
            Live::fixed(Arc::clone(&world.settings)),
            Arc::clone(&metrics),
        ),
        readiness: readiness.clone(),
        metrics,
    };
    let server = http_server::Server::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = server.address().unwrap();
    let serving = Arc::clone(&certificates.serving);
    let task = tokio::spawn(server.with_tls(serving.server_config().unwrap()).serve(webhook, stop.clone()));
    install(&world.server, "not an authority");
    let args = CheckArgs {
        namespace: "behalf-system".into(),
        webhook_service: "behalf-webhook".into(),
        webhook_address: Some(address),
        webhook_configuration: "behalf-injector".into(),
        wait_seconds: 0,
    };
    assert!(!check::check(&args, world.server.client()).await, "no certificate, no authority");
    certificates.ensure().await.unwrap();
    let authorities = trusted.borrow().clone().unwrap();
    install(&world.server, &authorities);
    assert!(check::check(&args, world.server.client()).await);

    let other = Server::default();
    let (foreign, trusted) = replica(&other, now());
    foreign.ensure().await.unwrap();
    install(&world.server, &trusted.borrow().clone().unwrap());
    assert!(!check::check(&args, world.server.client()).await, "another authority");
    install(&world.server, &authorities);
    let elsewhere = CheckArgs { namespace: "elsewhere".into(), ..args.clone() };
    assert!(!check::check(&elsewhere, world.server.client()).await, "another name");
    let pending = readiness.wait_for("something");
    assert!(!check::check(&args, world.server.client()).await, "not ready");
    drop(pending);
    assert!(check::check(&args, world.server.client()).await);
    world.server.remove("/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings/p");
    assert!(!check::check(&args, world.server.client()).await, "a policy without a binding");
    stop.cancel();
    task.await.unwrap();
}

fn install(server: &Server, authorities: &str) {
    use base64::Engine as _;
    let ca = base64::engine::general_purpose::STANDARD.encode(authorities);
    let group = "/apis/admissionregistration.k8s.io/v1";
    server.put(
        &format!("{group}/mutatingwebhookconfigurations/behalf-injector"),
        json!({"metadata": {"name": "behalf-injector"}, "webhooks": [{"name": "inject.behalf.dev",
            "admissionReviewVersions": ["v1"], "sideEffects": "None", "clientConfig": {"caBundle": ca}}]}),
    );
    server.put(&format!("{group}/validatingadmissionpolicies/p"), json!({"metadata": {"name": "p"}}));
    server.put(
        &format!("{group}/validatingadmissionpolicybindings/p"),
        json!({"metadata": {"name": "p"}, "spec": {"policyName": "p"}}),
    );
    let kind = |kind: &str, plural: &str| json!({"name": plural, "singularName": "", "namespaced": true, "kind": kind, "verbs": ["get"]});
    server.put(
        "/apis/behalf.dev/v1alpha1",
        json!({"kind": "APIResourceList", "groupVersion": "behalf.dev/v1alpha1", "resources": [
            kind("AgentIdentity", "agentidentities"), kind("IdentityProvider", "identityproviders"), kind("ScopeCatalog", "scopecatalogs")]}),
    );
}
