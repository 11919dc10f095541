//! The serving certificate, from the Secret to a TLS handshake.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use behalf_operator::args::CheckArgs;
use behalf_operator::certs::issue::Lifetimes;
use behalf_operator::certs::serving::Serving;
use behalf_operator::certs::{CertificateError, Certificates, Known, service_names};
use behalf_operator::check;
use behalf_operator::clock::{Clock, Monotonic};
use behalf_operator::health::Readiness;
use behalf_operator::http_server;
use behalf_operator::kube_io::secrets::Secrets;
use behalf_operator::kube_io::webhook_config::WebhookConfiguration;
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

/// One replica. It knows nothing of the webhook configuration.
fn replica(server: &Server, now: i64) -> (Certificates, watch::Receiver<Option<String>>) {
    let (certificates, trusted, _) = informed(server, now);
    (certificates, trusted)
}

/// One replica, and the end at which it is told what the API server trusts.
fn informed(
    server: &Server,
    now: i64,
) -> (Certificates, watch::Receiver<Option<String>>, watch::Sender<Option<String>>) {
    let (authorities, trusted) = watch::channel(None);
    let (installed, read_back) = watch::channel(None);
    let certificates = Certificates {
        secrets: Secrets::new(server.client(), "behalf-system", "test"),
        secret: "behalf-webhook-certs".into(),
        names: service_names("behalf-webhook", "behalf-system", "cluster.local"),
        life: Lifetimes::default(),
        clock: Clock::Fixed(Timestamp::from_second(now).unwrap()),
        monotonic: Monotonic::System,
        serving: Arc::new(Serving::default()),
        authorities,
        installed: read_back,
        metrics: Arc::new(Metrics::default()),
    };
    (certificates, trusted, installed)
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
    assert_eq!(calls[calls.len() - 5..], [get.clone(), put.clone(), get.clone(), put, get]);
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
    for _ in 0..8 {
        server.fail(Method::POST, SECRETS, 409);
    }
    let (replica, trusted) = replica(&server, now());
    assert!(matches!(replica.ensure().await, Err(CertificateError::Contended)));
    assert!(trusted.borrow().is_none());
}

/// The webhook of one replica, as the API server reaches it.
struct Webhooks {
    world: World,
    stop: CancellationToken,
    tasks: tokio::task::JoinSet<()>,
}

impl Webhooks {
    async fn new() -> Self {
        let world = World::new();
        world.settle().await;
        Self { world, stop: CancellationToken::new(), tasks: tokio::task::JoinSet::new() }
    }

    async fn serve(&mut self, certificates: &Certificates) -> SocketAddr {
        let metrics = Arc::new(Metrics::default());
        let settings = Live::fixed(Arc::clone(&self.world.settings));
        let webhook = Webhook {
            mutate: Mutate::new(self.world.gather().await, settings, Arc::clone(&metrics)),
            readiness: Readiness::default(),
            metrics,
        };
        let server = http_server::Server::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = server.address().unwrap();
        let server = server.with_tls(certificates.serving.server_config().unwrap());
        self.tasks.spawn(server.serve(webhook, self.stop.clone()));
        address
    }

    /// Whether the API server, trusting what the webhook configuration says, gets through to all of them.
    async fn reached(&self, addresses: &[SocketAddr]) -> bool {
        for address in addresses {
            let args = CheckArgs {
                namespace: "behalf-system".into(),
                webhook_service: "behalf-webhook".into(),
                webhook_address: Some(*address),
                webhook_configuration: "behalf-injector".into(),
                wait_seconds: 0,
            };
            if !check::check(&args, self.world.server.client()).await {
                return false;
            }
        }
        true
    }

    async fn end(mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

/// A replica whose sense of how long something has been so is set by hand.
struct Patient {
    certificates: Certificates,
    known: Known,
    trusted: watch::Receiver<Option<String>>,
    installed: watch::Sender<Option<String>>,
    clock: Arc<AtomicU64>,
}

impl Patient {
    fn new(server: &Server) -> Self {
        let (mut certificates, trusted, installed) = informed(server, now());
        let clock = Arc::new(AtomicU64::new(0));
        certificates.monotonic = Monotonic::Manual(Arc::clone(&clock));
        Self { certificates, known: Known::default(), trusted, installed, clock }
    }

    /// Looks again after some time, in milliseconds.
    async fn look_after(&mut self, millis: u64) {
        self.clock.fetch_add(millis, Ordering::Release);
        self.certificates.look(&mut self.known).await.unwrap();
    }

    fn trusted(&self) -> String {
        self.trusted.borrow().clone().unwrap()
    }
}

#[tokio::test]
async fn an_authority_is_rolled_over_without_a_failed_admission() {
    let mut webhooks = Webhooks::new().await;
    let server = webhooks.world.server.clone();
    // Made ten months ago: it has two months left, its certificate none.
    let (first, trusted) = replica(&server, now() - 300 * DAY);
    first.ensure().await.unwrap();
    install(&server, &trusted.borrow().clone().unwrap());
    let (mut a, mut b) = (Patient::new(&server), Patient::new(&server));
    let both = [webhooks.serve(&a.certificates).await, webhooks.serve(&b.certificates).await];
    a.look_after(0).await;
    b.look_after(0).await;
    let staged = a.trusted();
    assert_eq!(staged.matches("BEGIN CERTIFICATE").count(), 2, "the next authority is announced");
    assert!(webhooks.reached(&both).await, "and nobody needs to trust it yet");
    let in_use = || server.get(SECRET).unwrap()["data"]["tls.crt"].clone();
    let before = in_use();
    let settle = u64::try_from(a.certificates.life.settle().whole_milliseconds()).unwrap();
    // However long the API server does not trust it.
    a.look_after(10 * settle).await;
    a.installed.send(Some(before.to_string())).unwrap();
    a.look_after(10 * settle).await;
    assert_eq!(in_use(), before);
    install(&server, &staged);
    a.installed.send(Some(staged.clone())).unwrap();
    a.look_after(0).await;
    a.look_after(settle - 1).await;
    assert_eq!(in_use(), before, "not at once either");
    assert!(webhooks.reached(&both).await);
    // Taken out by hand for a moment: the time starts anew.
    a.installed.send(None).unwrap();
    a.look_after(0).await;
    a.installed.send(Some(staged)).unwrap();
    a.look_after(1).await;
    assert_eq!(in_use(), before);
    a.look_after(settle).await;
    assert_ne!(in_use(), before);
    assert!(webhooks.reached(&both).await, "one serves under the new, one still under the old");
    b.look_after(0).await;
    assert!(webhooks.reached(&both).await);
    install(&server, &a.trusted());
    assert!(webhooks.reached(&both).await);
    server.calls();
    a.look_after(0).await;
    assert_eq!(writes(&server.calls()), [""; 0]);
    webhooks.end().await;
}

#[tokio::test]
async fn what_expired_while_nobody_was_there_is_repaired_at_the_start() {
    let mut webhooks = Webhooks::new().await;
    let server = webhooks.world.server.clone();
    for (days, authorities) in [(40, 1), (300, 2), (400, 1)] {
        server.remove(SECRET);
        let (old, trusted) = replica(&server, now() - days * DAY);
        old.ensure().await.unwrap();
        install(&server, &trusted.borrow().clone().unwrap());
        let (fresh, trusted) = replica(&server, now());
        fresh.ensure().await.unwrap();
        let trusted = trusted.borrow().clone().unwrap();
        assert_eq!(trusted.matches("BEGIN CERTIFICATE").count(), authorities, "{days}");
        let address = [webhooks.serve(&fresh).await];
        // As long as its authority lives, nobody has to be told.
        assert_eq!(webhooks.reached(&address).await, days < 365, "{days}");
        install(&server, &trusted);
        assert!(webhooks.reached(&address).await, "{days}");
    }
    webhooks.end().await;
}

#[tokio::test]
async fn a_ca_bundle_that_is_wrong_is_repaired_and_told_of() {
    let server = Server::default();
    let (certificates, trusted) = replica(&server, now());
    certificates.ensure().await.unwrap();
    let right = trusted.borrow().clone();
    install(&server, "not an authority");
    let secrets = Secrets::new(server.client(), "behalf-system", "test");
    let ours = WebhookConfiguration::new(server.client(), "behalf-injector", secrets, Arc::default());
    let ((installed, mut read_back), stop) = (watch::channel(None), CancellationToken::new());
    let task = tokio::spawn(ours.keep(trusted, installed, stop.clone()));
    let path = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/behalf-injector";
    read_back.wait_for(|seen| seen.as_deref() == Some("not an authority")).await.unwrap();
    let repaired = async {
        use base64::Engine as _;
        let wanted = base64::engine::general_purpose::STANDARD.encode(right.as_deref().unwrap());
        while server.get(path).unwrap()["webhooks"][0]["clientConfig"]["caBundle"] != wanted {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), repaired).await.unwrap();
    stop.cancel();
    task.await.unwrap();
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
    server.put(
        &format!("{group}/validatingadmissionpolicies/p"),
        json!({"metadata": {"name": "p", "labels": {"app.kubernetes.io/part-of": "behalf"}}}),
    );
    server.put(
        &format!("{group}/validatingadmissionpolicybindings/p"),
        json!({"metadata": {"name": "p", "labels": {"app.kubernetes.io/part-of": "behalf"}}, "spec": {"policyName": "p"}}),
    );
    let kind = |kind: &str, plural: &str| json!({"name": plural, "singularName": "", "namespaced": true, "kind": kind, "verbs": ["get"]});
    server.put(
        "/apis/behalf.dev/v1alpha1",
        json!({"kind": "APIResourceList", "groupVersion": "behalf.dev/v1alpha1", "resources": [
            kind("AgentIdentity", "agentidentities"), kind("IdentityProvider", "identityproviders"), kind("ScopeCatalog", "scopecatalogs")]}),
    );
}
