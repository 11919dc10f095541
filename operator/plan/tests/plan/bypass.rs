//! `BypassClosed`: every reason, in which order, and what the status says of it.

mod endpoints;

use std::collections::BTreeMap;
use std::net::IpAddr;

use behalf_crds::v1alpha1::{
    AgentIdentity, BypassClosedReason, ConditionReason as _, ConditionType, find_condition,
};
use behalf_plan::bypass::{
    Answer, Facts, Life, PodReach, Reached, Standing, Told, Trial, declared, pod_reach, verdict,
};
use behalf_plan::{Applied, BundleFacts, ConditionIntent, Gathered, identity_status};
use behalf_policy::feed::{Listener, Protocol};
use serde_json::{Value, json};

use self::endpoints::with_stranger;
use crate::fixtures::*;

type Intent = ConditionIntent<BypassClosedReason>;

const ADDRESS: &str = "10.0.0.1";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn tcp(port: u16) -> Listener {
    Listener { protocol: Protocol::Tcp, port }
}

fn reached(control: Answer, server: Answer) -> Reached {
    Reached { control, server, open: [].into() }
}

fn trial(reached: Reached) -> Trial {
    Trial { addresses: [(ip(ADDRESS), reached)].into(), untried: [].into() }
}

/// A pod that runs, was heard and tried, and answers as it should.
fn good() -> PodReach {
    PodReach {
        name: "hr-1".into(),
        uid: "u1".into(),
        labels: [("app".to_owned(), "hr".to_owned())].into(),
        addresses: [ip(ADDRESS)].into(),
        ports: [("mcp".to_owned(), 8000)].into(),
        life: Life::Running,
        standing: Standing {
            told: Some(Told::default()),
            trial: Some(trial(reached(Answer::Behalf, Answer::Behalf))),
        },
    }
}

fn tried(trial: Trial) -> PodReach {
    PodReach { standing: Standing { trial: Some(trial), ..good().standing }, ..good() }
}

fn answering(control: Answer, server: Answer) -> PodReach {
    tried(trial(reached(control, server)))
}

fn told(told: Told) -> PodReach {
    PodReach { standing: Standing { told: Some(told), ..good().standing }, ..good() }
}

fn identity() -> AgentIdentity {
    object(identity_value())
}

fn judge(facts: &Facts) -> Intent {
    verdict(&identity(), facts, &settings())
}

fn of(pods: Vec<PodReach>) -> Intent {
    judge(&Facts { pods, ..Facts::default() })
}

fn reason(intent: &Intent) -> &'static str {
    intent.reason.as_str()
}

/// Ways in which a pod can stand, for the golden conditions.
pub(crate) fn states() -> Vec<(&'static str, Facts)> {
    let of = |pod| Facts { pods: vec![pod], ..Facts::default() };
    let open = Reached { open: [tcp(9090)].into(), ..reached(Answer::Behalf, Answer::Behalf) };
    vec![
        ("bypass-closed", of(good())),
        ("bypass-not-tried-yet", of(PodReach { standing: Standing::default(), ..good() })),
        ("bypass-port-squatted", of(told(Told { squatted: [15101].into(), more_listeners: false }))),
        ("bypass-server-reachable", of(answering(Answer::Behalf, Answer::Other))),
        ("bypass-listener-reachable", of(tried(trial(open)))),
        ("bypass-foreign-endpoint", with_stranger(vec![good()])),
        ("bypass-not-reached", of(answering(Answer::Nothing, Answer::Nothing))),
        ("bypass-address-translated", of(answering(Answer::OtherProof, Answer::OtherProof))),
        ("bypass-no-word", of(answering(Answer::Behalf, Answer::Silent))),
    ]
}

#[test]
fn all_is_closed_when_everything_was_tried() {
    for server in [Answer::Behalf, Answer::Nothing] {
        let closed = of(vec![answering(Answer::Behalf, server)]);
        assert_eq!(reason(&closed), "Closed");
        assert!(closed.is_true() && closed.message.contains("port 8000"), "{}", closed.message);
    }
}

#[test]
fn every_fault_has_its_reason_and_a_next_step() {
    let open = Reached { open: [tcp(9090)].into(), ..reached(Answer::Behalf, Answer::Behalf) };
    let sctp = Listener { protocol: Protocol::Sctp, port: 3868 };
    let starting = PodReach { life: Life::Starting, standing: Standing::default(), ..good() };
    let leaving = PodReach { life: Life::Leaving, ..good() };
    for (pods, expected, next) in [
        (vec![], "NoPods", "nothing to try"),
        (vec![leaving], "NoPods", "nothing to try"),
        (
            vec![told(Told { squatted: [15103].into(), more_listeners: false })],
            "PortSquatted",
            "kubectl -n hr delete pod hr-1",
        ),
        (vec![answering(Answer::Behalf, Answer::Other)], "ServerReachable", "(10.0.0.1:8000)"),
        (vec![answering(Answer::Nothing, Answer::Other)], "ServerReachable", "kubectl -n hr delete pod hr-1"),
        (vec![answering(Answer::OtherProof, Answer::Other)], "ServerReachable", "packet rules"),
        (vec![answering(Answer::Behalf, Answer::OtherProof)], "ServerReachable", "hr-1"),
        (vec![answering(Answer::Behalf, Answer::Silent)], "NoControl", "takes connections"),
        (vec![answering(Answer::Behalf, Answer::Busy)], "NoControl", "takes connections"),
        (vec![answering(Answer::Busy, Answer::Behalf)], "NoControl", "behalf-sidecar"),
        (
            vec![tried(trial(open))],
            "ListenerReachable",
            "add to AgentIdentity hr-tools: spec.servers[0].interception.extraPorts: - {port: 9090, protocol: TCP}",
        ),
        (vec![answering(Answer::Nothing, Answer::Nothing)], "NoControl", "kubectl -n hr get networkpolicy"),
        (vec![answering(Answer::OtherProof, Answer::OtherProof)], "NoControl", "address translation"),
        (
            vec![answering(Answer::Other, Answer::Nothing)],
            "NoControl",
            "kubectl -n hr logs hr-1 -c behalf-sidecar",
        ),
        (vec![answering(Answer::Silent, Answer::Silent)], "NoControl", "behalf-sidecar"),
        (
            vec![tried(Trial { untried: [sctp].into(), ..trial(reached(Answer::Behalf, Answer::Behalf)) })],
            "NoControl",
            "{port: 3868, protocol: SCTP}",
        ),
        (
            vec![told(Told { squatted: [].into(), more_listeners: true })],
            "NoControl",
            "more ports than can be named",
        ),
        (vec![PodReach { standing: Standing::default(), ..good() }], "Pending", "hr-1"),
        (
            vec![PodReach { standing: Standing { trial: None, ..good().standing }, ..good() }],
            "Pending",
            "hr-1",
        ),
        (
            vec![PodReach { standing: Standing { told: None, ..good().standing }, ..good() }],
            "Pending",
            "hr-1",
        ),
        (vec![PodReach { addresses: [].into(), ..good() }], "Pending", "1 of 1 pods"),
        (vec![starting], "Pending", "No pod runs yet"),
    ] {
        let found = of(pods.clone());
        assert_eq!(reason(&found), expected, "{pods:?}");
        assert!(found.message.contains(next), "{expected}: {}", found.message);
    }
    let found = judge(&with_stranger(vec![good()]));
    assert_eq!(reason(&found), "ForeignEndpoint");
    for part in [
        "Service hr",
        "10.0.0.9 (pod stray)",
        "kubectl -n hr get endpointslices -l kubernetes.io/service-name=hr",
        "behalf.dev/agent-identity: hr-tools",
    ] {
        assert!(found.message.contains(part), "{part}: {}", found.message);
    }
}

#[test]
fn what_is_open_never_hides_behind_what_is_not_known() {
    let named = |name: &str, pod: PodReach| PodReach { name: name.into(), uid: name.into(), ..pod };
    let squatted = named("b", told(Told { squatted: [15101].into(), more_listeners: false }));
    let server = named("c", answering(Answer::Behalf, Answer::Other));
    let open = Reached { open: [tcp(9090)].into(), ..reached(Answer::Nothing, Answer::Nothing) };
    let listener = named("d", tried(trial(open)));
    let stranger = good();
    let control = named("a", answering(Answer::Nothing, Answer::Nothing));
    let pending = named("0", PodReach { standing: Standing::default(), ..good() });
    let mut pods = vec![stranger, pending, control, listener, server, squatted];
    let mut found = Vec::new();
    while pods.len() > 1 {
        found.push(reason(&judge(&with_stranger(pods.clone()))));
        pods.pop();
    }
    assert_eq!(
        found,
        ["PortSquatted", "ServerReachable", "ListenerReachable", "ForeignEndpoint", "ForeignEndpoint"]
    );
    let pending = PodReach { name: "0".into(), standing: Standing::default(), ..good() };
    let control = answering(Answer::Nothing, Answer::Nothing);
    assert_eq!(reason(&of(vec![pending.clone(), control])), "NoControl");
    assert_eq!(reason(&of(vec![pending, good()])), "Pending");
}

#[test]
fn a_pod_that_starts_takes_nothing_from_what_the_others_have_shown() {
    let starting =
        PodReach { name: "hr-2".into(), life: Life::Starting, standing: Standing::default(), ..good() };
    assert_eq!(reason(&of(vec![good(), starting])), "Closed");
}

#[test]
fn each_address_is_tried_and_an_older_address_counts_no_more() {
    let (old, new) = (ip(ADDRESS), ip("fd00::1"));
    let both = PodReach { addresses: [old, new].into(), ..good() };
    assert_eq!(reason(&of(vec![both.clone()])), "Pending", "one of two");
    let clean = reached(Answer::Behalf, Answer::Behalf);
    let other = reached(Answer::Behalf, Answer::Other);
    let with = |trial: Trial, pod: PodReach| PodReach {
        standing: Standing { trial: Some(trial), ..good().standing },
        ..pod
    };
    let pair = |first: &Reached, second: &Reached| Trial {
        addresses: [(old, first.clone()), (new, second.clone())].into(),
        untried: [].into(),
    };
    assert_eq!(reason(&of(vec![with(pair(&clean, &clean), both.clone())])), "Closed");
    let found = of(vec![with(pair(&clean, &other), both)]);
    assert_eq!(reason(&found), "ServerReachable");
    assert!(found.message.contains("[fd00::1]:8000"), "{}", found.message);
    assert_eq!(reason(&of(vec![with(pair(&clean, &other), good())])), "Closed", "it is somebody else's now");
}

#[test]
fn only_an_injected_pod_of_the_identity_that_has_not_ended_is_seen() {
    let identity = identity();
    let mut value = pod_value();
    value["metadata"]["name"] = json!("hr-1");
    value["metadata"]["uid"] = json!("u1");
    value["metadata"]["annotations"] = json!({"behalf.dev/injected": "r1"});
    value["spec"]["initContainers"] = json!([{"name": "behalf-redirect"},
        {"name": "behalf-sidecar", "restartPolicy": "Always", "args": ["run", "--identity=hr-tools"]}]);
    value["status"] =
        json!({"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]});
    let seen = pod_reach(&pod(value.clone()), &identity).unwrap();
    assert_eq!(seen.addresses, [ip("10.0.0.1"), ip("fd00::1")].into());
    assert_eq!(seen.ports, BTreeMap::from([("mcp".to_owned(), 8000)]));
    assert_eq!((seen.life, seen.uid.as_str(), seen.standing), (Life::Running, "u1", Standing::default()));
    let with = |change: &dyn Fn(&mut Value)| {
        let mut value = value.clone();
        change(&mut value);
        pod_reach(&pod(value), &identity).map(|it| it.life)
    };
    assert_eq!(with(&|it| it["status"] = json!({})), Some(Life::Starting));
    let at = json!("2026-01-01T00:00:00Z");
    assert_eq!(with(&|it| it["metadata"]["deletionTimestamp"] = at.clone()), Some(Life::Leaving));
    for change in [
        &(|it: &mut Value| it["status"]["phase"] = json!("Failed")) as &dyn Fn(&mut Value),
        &|it| it["status"]["phase"] = json!("Succeeded"),
        &|it| it["metadata"]["annotations"] = json!({}),
        &|it| it["metadata"]["labels"]["behalf.dev/agent-identity"] = json!("other"),
        &|it| it["metadata"]["namespace"] = json!("it"),
        &|it| it["spec"]["initContainers"] = json!([]),
    ] {
        assert_eq!(with(change), None);
    }
}

#[test]
fn what_the_identity_declares_may_be_reached() {
    let mut value = identity_value();
    value["spec"]["servers"][0]["interception"] =
        json!({"extraPorts": [{"port": 9090}, {"port": 53, "protocol": "UDP"}]});
    let udp = Listener { protocol: Protocol::Udp, port: 53 };
    assert_eq!(declared(&object(value)), [tcp(9090), udp].into());
    assert!(declared(&identity()).is_empty());
}

fn gathered_of(pods: Vec<PodReach>) -> Gathered {
    Gathered { bypass: Facts { pods, ..Facts::default() }, ..gathered() }
}

fn applied() -> Applied {
    Applied { bundle: Some(BundleFacts { digest: "sha256:0a".to_owned(), serial: 7 }), failure: None }
}

#[test]
fn the_status_carries_the_condition_and_ready_follows_what_is_open() {
    let of = |pods| {
        let status = identity_status(&plan(&gathered_of(pods)), &applied(), None, &at(1));
        let of = |type_| {
            let it = find_condition(&status.conditions, type_).unwrap();
            (it.status.clone(), it.reason.clone())
        };
        (of(ConditionType::BypassClosed), of(ConditionType::Ready))
    };
    let (closed, ready) = of(vec![good()]);
    assert_eq!((closed.0.as_str(), closed.1.as_str(), ready.1.as_str()), ("True", "Closed", "Ready"));
    let (closed, ready) = of(vec![answering(Answer::Nothing, Answer::Nothing)]);
    assert_eq!((closed.0.as_str(), closed.1.as_str(), ready.1.as_str()), ("Unknown", "NoControl", "Ready"));
    let (closed, ready) = of(vec![answering(Answer::Behalf, Answer::Other)]);
    assert_eq!((closed.0.as_str(), closed.1.as_str()), ("False", "ServerReachable"));
    assert_eq!((ready.0.as_str(), ready.1.as_str()), ("False", "BypassOpen"));
    let squatted = told(Told { squatted: [15101].into(), more_listeners: false });
    let (closed, ready) = of(vec![squatted]);
    assert_eq!((closed.1.as_str(), ready.1.as_str()), ("PortSquatted", "PortSquatted"));
}

#[test]
fn who_has_just_begun_to_try_takes_nothing_back() {
    let found = |pods| identity_status(&plan(&gathered_of(pods)), &applied(), None, &at(1));
    let untried = || PodReach { standing: Standing::default(), ..good() };
    for (before, reason) in
        [(vec![good()], "Closed"), (vec![answering(Answer::Behalf, Answer::Other)], "ServerReachable")]
    {
        let before = found(before);
        let again = |settling, pod| {
            let mut gathered = gathered_of(vec![pod]);
            gathered.reports.settling = settling;
            let status = identity_status(&plan(&gathered), &applied(), Some(&before), &at(2));
            find_condition(&status.conditions, ConditionType::BypassClosed).unwrap().reason.clone()
        };
        assert_eq!(again(true, untried()), reason);
        assert_eq!(again(false, untried()), "Pending");
        assert_eq!(
            again(true, answering(Answer::Nothing, Answer::Nothing)),
            "NoControl",
            "what is known counts"
        );
    }
}
