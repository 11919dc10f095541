//! Trials from outside against listeners of our own, and what becomes of what they find.

#[path = "bypass/endpoints.rs"]
mod endpoints;
#[path = "bypass/stand.rs"]
mod stand;

use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use behalf_operator::bypass::{Asker, Findings, Patience, Subject, Trials, trial};
use behalf_operator::kube_io::caches::Change;
use behalf_operator::kube_io::lease::Leadership;
use behalf_operator::reconcile;
use behalf_plan::bypass::{Answer, Standing, Trial};
use behalf_policy::feed::{Listener, ProofKey, Protocol, Report};
use serde_json::{Value, json};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::stand::{LOOPBACK, Stand, nobody, ok, proof_key, stand};
use crate::world::{IDENTITY, World, identity, key, pod, writes};

const POD: &str = "/api/v1/namespaces/hr/pods/hr-1";
/// No test waits longer.
const DEADLINE: Duration = Duration::from_mins(1);

fn subject(server_port: u16) -> Subject {
    Subject {
        namespace: "hr".into(),
        identity: "hr-tools".into(),
        pod: "hr-1".into(),
        uid: "u1".into(),
        addresses: [LOOPBACK].into(),
        revision: None,
        server_port,
        extra_ports: [].into(),
        boot: "b".repeat(22),
        listeners: [].into(),
        squatted: [].into(),
        proof_key: Some(proof_key()),
    }
}

fn asker(control_port: u16) -> Asker {
    Asker::new(control_port, Patience::default())
}

async fn ask(port: u16) -> Answer {
    asker(0).tcp((LOOPBACK, port).into(), &proof_key()).await.unwrap()
}

#[tokio::test]
async fn only_a_proof_for_our_own_connection_is_behalfs_answer() {
    let sidecar = stand(LOOPBACK, Stand::Sidecar(proof_key())).await;
    assert_eq!(ask(sidecar).await, Answer::Behalf);
    let other_key = Stand::Sidecar(ProofKey::new("l".repeat(43)));
    let long = [b"HTTP/1.1 200 OK\r\nx: ".to_vec(), vec![b'a'; 1 << 20]].concat();
    let proofless = "HTTP/1.1 404 Not Found\r\ncontent-length: 43\r\n\r\n".to_owned() + &"A".repeat(43);
    let not_enough = ok(&"A".repeat(42));
    for (stands, expected) in [
        (Stand::Relays((LOOPBACK, sidecar).into()), Answer::OtherProof),
        (other_key, Answer::OtherProof),
        (Stand::Says(ok(&"A".repeat(43))), Answer::OtherProof),
        (Stand::Says(ok(r#"{"jsonrpc":"2.0"}"#)), Answer::Other),
        (Stand::Says(ok(&"not in base64url, but long enough for a proof".repeat(2))), Answer::Other),
        (Stand::Says(not_enough), Answer::Other),
        (Stand::Says(proofless.into_bytes()), Answer::Other),
        (Stand::Says(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n".to_vec()), Answer::Other),
        (Stand::Says(b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1/\r\n\r\n".to_vec()), Answer::Other),
        (Stand::Says(b"HTTP/1.1 429 Too Many Requests\r\n\r\n".to_vec()), Answer::Busy),
        (Stand::Says(long), Answer::Other),
        (Stand::Greets(b"220 mail ready\r\n"), Answer::Other),
        (Stand::HangsUp, Answer::Other),
        (Stand::Silent, Answer::Silent),
    ] {
        let port = stand(LOOPBACK, stands).await;
        assert_eq!(ask(port).await, expected);
    }
    let (port, _kept) = nobody();
    assert_eq!(ask(port).await, Answer::Nothing);
}

#[tokio::test]
async fn six_is_asked_like_four() {
    let address: IpAddr = "::1".parse().unwrap();
    let port = stand(address, Stand::Sidecar(proof_key())).await;
    let answer = asker(0).tcp((address, port).into(), &proof_key()).await;
    assert_eq!(answer, Some(Answer::Behalf));
}

async fn try_it(control: Stand, server: Stand) -> Trial {
    let (control, server) = (stand(LOOPBACK, control).await, stand(LOOPBACK, server).await);
    trial(&asker(control), &subject(server)).await.unwrap()
}

#[tokio::test]
async fn a_trial_says_who_answers_with_and_without_control() {
    let sidecar = || Stand::Sidecar(proof_key());
    for (control, server, expected, clean) in [
        (sidecar(), sidecar(), (Answer::Behalf, Answer::Behalf), true),
        (sidecar(), Stand::Says(ok("hello")), (Answer::Behalf, Answer::Other), false),
        (Stand::Says(ok("hello")), sidecar(), (Answer::Other, Answer::Behalf), false),
    ] {
        let found = try_it(control, server).await;
        let reached = &found.addresses[&LOOPBACK];
        assert_eq!(((reached.control, reached.server), found.is_clean()), (expected, clean));
        assert!(reached.open.is_empty());
    }
    let control = stand(LOOPBACK, sidecar()).await;
    let relay = stand(LOOPBACK, Stand::Relays((LOOPBACK, control).into())).await;
    let found = trial(&asker(control), &subject(relay)).await.unwrap();
    let reached = &found.addresses[&LOOPBACK];
    assert_eq!((reached.control, reached.server), (Answer::Behalf, Answer::OtherProof));
    assert!(!found.is_clean(), "a proof that was fetched for somebody else");
    let (server, _kept) = nobody();
    let found = trial(&asker(control), &subject(server)).await.unwrap();
    assert_eq!(found.addresses[&LOOPBACK].server, Answer::Nothing);
    assert!(found.is_clean(), "nothing answers, and the control shows that this means something");
    let found = trial(&asker(server), &subject(control)).await.unwrap();
    assert_eq!(found.addresses[&LOOPBACK].control, Answer::Nothing);
    assert!(!found.is_clean());
}

#[tokio::test]
async fn undeclared_listeners_have_to_be_closed() {
    let control = stand(LOOPBACK, Stand::Sidecar(proof_key())).await;
    let tcp = |port| Listener { protocol: Protocol::Tcp, port };
    let udp = |port| Listener { protocol: Protocol::Udp, port };
    let open = stand(LOOPBACK, Stand::Silent).await;
    let talks = stand(LOOPBACK, Stand::Says(ok("metrics"))).await;
    let declared = stand(LOOPBACK, Stand::Says(ok("metrics"))).await;
    // A pod that was injected while the server had this port.
    let ours = stand(LOOPBACK, Stand::Sidecar(proof_key())).await;
    let (closed, _kept) = nobody();
    let (quiet, answers) =
        (UdpSocket::bind((LOOPBACK, 0)).await.unwrap(), UdpSocket::bind((LOOPBACK, 0)).await.unwrap());
    let (quiet_port, answers_port) =
        (quiet.local_addr().unwrap().port(), answers.local_addr().unwrap().port());
    tokio::spawn(async move {
        let mut asked = [0; 16];
        loop {
            let (_, from) = answers.recv_from(&mut asked).await.unwrap();
            answers.send_to(b"!", from).await.unwrap();
        }
    });
    let sctp = Listener { protocol: Protocol::Sctp, port: 3868 };
    let listeners = [
        tcp(open),
        tcp(talks),
        tcp(declared),
        tcp(ours),
        tcp(closed),
        udp(quiet_port),
        udp(answers_port),
        sctp,
    ];
    let subject = Subject {
        listeners: listeners.into_iter().chain([tcp(control)]).collect(),
        extra_ports: [tcp(declared)].into(),
        ..subject(control)
    };
    let found = trial(&asker(control), &subject).await.unwrap();
    let expected = [tcp(open), tcp(talks), udp(answers_port)].into();
    assert_eq!(found.addresses[&LOOPBACK].open, expected);
    assert_eq!(found.untried, [sctp].into());
    assert!(!found.is_clean());
    drop(quiet);
}

#[tokio::test]
async fn word_that_nobody_listens_shows_that_packets_get_through() {
    let socket = UdpSocket::bind((LOOPBACK, 0)).await.unwrap();
    let port = socket.local_addr().unwrap().port();
    assert_eq!(asker(0).udp((LOOPBACK, port).into()).await, Some(false));
    drop(socket);
    assert_eq!(asker(0).udp((LOOPBACK, port).into()).await, Some(true));
}

#[tokio::test]
async fn without_a_report_nothing_is_asked() {
    let port = stand(LOOPBACK, Stand::Sidecar(proof_key())).await;
    let subject = Subject { proof_key: None, ..subject(port) };
    assert_eq!(trial(&asker(port), &subject).await, None);
}

fn injected() -> Value {
    let mut pod = pod("hr-1");
    pod["metadata"]["labels"]["app"] = json!("hr");
    pod["metadata"]["annotations"] = json!({"behalf.dev/injected": "r1"});
    pod["spec"]["initContainers"] = json!([{"name": "behalf-redirect"},
        {"name": "behalf-sidecar", "restartPolicy": "Always", "args": ["run", "--identity=hr-tools"]}]);
    pod["status"] =
        json!({"phase": "Running", "podIP": LOOPBACK.to_string(), "podIPs": [{"ip": LOOPBACK.to_string()}]});
    pod
}

fn report(sequence: u64, listeners: &Value) -> Arc<Report> {
    let report = json!({
        "format": 1, "boot": "b".repeat(22), "sequence": sequence, "ended": false, "bundle": null, "rejected": null,
        "squatted": [], "listeners": listeners, "moreListeners": false, "credentialsMissing": [],
        "decisions": {"allowed": 0, "denied": 0, "wouldDeny": 0, "tallies": []}, "scopesUsed": {},
        "proofKey": "k".repeat(43),
    });
    Arc::new(Report::parse(report.to_string().as_bytes()).unwrap())
}

/// The identity with its server on `port`, and a pod that is there.
fn world(port: u16) -> World {
    let world = World::new();
    let mut object = identity();
    object["spec"]["servers"][0]["port"] = json!(port);
    world.server.put(IDENTITY, object);
    world.server.put(POD, injected());
    world
}

/// Waits until what is learnt of the identity satisfies `enough`.
async fn learn(changes: &mut mpsc::Receiver<Change>, enough: impl Fn() -> bool) {
    let learnt = async {
        while !enough() {
            let Some(Change::Learnt { namespace, name }) = changes.recv().await else { panic!("no word") };
            assert_eq!((namespace.as_str(), name.as_str()), ("hr", "hr-tools"));
        }
    };
    tokio::time::timeout(DEADLINE, learnt).await.unwrap();
}

#[tokio::test]
async fn a_pod_is_tried_when_it_reports_and_again_when_its_listeners_change() {
    let sidecar = stand(LOOPBACK, Stand::Sidecar(proof_key())).await;
    let world = world(sidecar);
    let gather = world.gather().await;
    let findings = gather.findings().clone();
    let uid = world.server.get(POD).unwrap()["metadata"]["uid"].as_str().unwrap().to_owned();
    let told = Arc::new(Mutex::new(None::<Arc<Report>>));
    let reports = {
        let (told, uid) = (Arc::clone(&told), uid.clone());
        move |asked: &str| told.lock().unwrap().clone().filter(|_| asked == uid)
    };
    let (sender, mut changes) = mpsc::channel(16);
    let trials = Trials::new(gather.caches().clone(), reports, findings.clone(), asker(sidecar), sender);
    let stop = CancellationToken::new();
    let running = tokio::spawn(trials.run(stop.clone()));
    // One pass with copies as they are now, and what was found.
    let pass = async || {
        let fresh = world.gather().await;
        let identity = ("hr".to_owned(), "hr-tools".to_owned());
        fresh.findings().replace([(uid.clone(), (identity, findings.of(&uid)))].into());
        let context = world.context(fresh);
        world.server.calls();
        reconcile::pass(&context, &key()).await;
        (world.reason("BypassClosed"), writes(&world.server.calls()))
    };

    assert!(changes.recv().await.is_some(), "a pod that runs is news, though nothing is known of it");
    assert_eq!(pass().await.0, "Pending");
    *told.lock().unwrap() = Some(report(1, &json!([])));
    learn(&mut changes, || findings.of(&uid).trial.is_some()).await;
    assert_eq!(pass().await.0, "Closed");
    assert_eq!(pass().await.1, [""; 0], "at rest nothing is written");

    let open = stand(LOOPBACK, Stand::Silent).await;
    *told.lock().unwrap() = Some(report(2, &json!([{"protocol": "TCP", "port": open}])));
    learn(&mut changes, || !findings.of(&uid).trial.is_some_and(|it| it.is_clean())).await;
    assert_eq!(pass().await.0, "ListenerReachable");
    assert_eq!(world.reason("Ready"), "BypassOpen");
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn what_was_found_in_an_earlier_term_is_forgotten() {
    let world = world(8000);
    let gather = world.gather().await;
    let findings = gather.findings().clone();
    findings.replace([("gone".into(), (("hr".into(), "hr-tools".into()), Standing::default()))].into());
    let (sender, mut changes) = mpsc::channel(16);
    let trials = Trials::new(gather.caches().clone(), |_: &str| None, findings.clone(), asker(0), sender);
    let stop = CancellationToken::new();
    let running = tokio::spawn(trials.run(stop.clone()));
    assert!(changes.recv().await.is_some());
    stop.cancel();
    running.await.unwrap();
    let all = findings.replace([].into());
    assert_eq!(all.len(), 1, "the pod that runs");
    assert_eq!(findings.of("gone"), Standing::default());
}

#[test]
fn what_is_known_already_is_no_change() {
    let findings = Findings::default();
    let identity = ("hr".to_owned(), "hr-tools".to_owned());
    let with = |trial| {
        let standing = Standing { told: None, trial };
        [("u1".to_owned(), (identity.clone(), standing))].into()
    };
    assert_eq!(findings.replace(with(None)), [identity.clone()].into());
    assert!(findings.replace(with(None)).is_empty());
    assert_eq!(findings.replace(with(Some(Trial::default()))), [identity.clone()].into());
    assert!(findings.replace(with(Some(Trial::default()))).is_empty());
    assert_eq!(findings.replace([].into()), [identity.clone()].into());
}

#[tokio::test]
async fn who_does_not_lead_tries_nobody() {
    let world = world(8000);
    let gather = world.gather().await;
    let (findings, stop) = (gather.findings().clone(), CancellationToken::new());
    findings.replace([("u0".into(), (("hr".into(), "hr-tools".into()), Standing::default()))].into());
    let trials = || {
        let (sender, changes) = mpsc::channel(16);
        let caches = gather.caches().clone();
        (Trials::new(caches, |_: &str| None, findings.clone(), asker(0), sender), changes)
    };
    let (others, mut silence) = trials();
    let (ours, mut told) = trials();
    let following = tokio::spawn(others.lead(Leadership::never(), stop.clone()));
    assert!(silence.try_recv().is_err());
    let leading = tokio::spawn(ours.lead(Leadership::always(), stop.clone()));
    assert!(told.recv().await.is_some());
    stop.cancel();
    following.await.unwrap();
    leading.await.unwrap();
    assert!(silence.recv().await.is_none(), "it ended without a word");
}
