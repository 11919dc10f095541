//! Whether anything but Behalf answers from outside for an identity's pods: what trials, reports and endpoints mean.
//!
//! The operator makes the trials; the outcome of one is a [`Trial`]. Only what was seen counts: a pod of which nothing
//! is known makes the condition `Unknown`, never `True`.

mod endpoints;
mod messages;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use behalf_crds::v1alpha1::{
    AgentIdentity, BypassClosedReason, ConditionReason as _, ReadyReason, TransportProtocol, find_condition,
};
use behalf_policy::feed::{Listener, Protocol};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::conditions::ConditionIntent;
use crate::gathered::{Settings, pod_facts};

pub use endpoints::{LABEL_SERVICE, holds, selects};

/// What the verdict depends on beside the identity.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// The identity's pods with Behalf inside, but for those that ended.
    pub pods: Vec<PodReach>,
    /// Services of the namespace. Those of other namespaces are not asked: their authors have no say here.
    pub services: Vec<Arc<Service>>,
    /// Endpoints of the namespace.
    pub slices: Vec<Arc<EndpointSlice>>,
}

/// A pod as it is seen from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodReach {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Its labels, by which Services select it.
    pub labels: BTreeMap<String, String>,
    /// Its addresses.
    pub addresses: BTreeSet<IpAddr>,
    /// Its TCP ports by name.
    pub ports: BTreeMap<String, u16>,
    /// Where it stands in its life.
    pub life: Life,
    /// What was learnt of it.
    pub standing: Standing,
}

/// Where a pod stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// Its containers do not run yet.
    Starting,
    /// They do.
    Running,
    /// It is about to end. It still answers, so its address still counts as the identity's.
    Leaving,
}

/// What was learnt of a pod. Nothing, at first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// What its sidecar told last.
    pub told: Option<Told>,
    /// What the last trial gave.
    pub trial: Option<Trial>,
}

/// What a sidecar told of its pod, as far as no trial shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Ports of ours that somebody else holds.
    pub squatted: BTreeSet<u16>,
    /// There are more listeners than it named.
    pub more_listeners: bool,
}

/// What a trial from outside gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trial {
    /// By address of the pod.
    pub addresses: BTreeMap<IpAddr, Reached>,
    /// Listeners that cannot be tried from here (SCTP).
    pub untried: BTreeSet<Listener>,
}

/// What one address of a pod gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reached {
    /// Who answers on the probe port. Unless it is Behalf, silence elsewhere proves nothing.
    pub control: Answer,
    /// Who answers on the server's port.
    pub server: Answer,
    /// Undeclared listeners that were reached, and it was not Behalf that answered.
    pub open: BTreeSet<Listener>,
}

/// Who answers on a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The sidecar, to us: the proof is right for our own address and port.
    Behalf,
    /// Something of the form of a proof that is none for us: fetched through somebody else, or our address was translated.
    OtherProof,
    /// Something else, be it that it hangs up without a word.
    Other,
    /// Something that says it is asked too much: the sidecar may, to bound what trials cost it.
    Busy,
    /// A connection on which nobody said anything in time: the sidecar may, while it has all the connections it takes.
    Silent,
    /// Nobody: no connection.
    Nothing,
}

impl Trial {
    /// Whether everything was reached that must be, and nothing that must not.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.addresses.values().all(|it| {
            it.control == Answer::Behalf
                && matches!(it.server, Answer::Behalf | Answer::Nothing)
                && it.open.is_empty()
        })
    }
}

/// How `pod` is seen from outside, if it is a pod of `identity` with Behalf inside that did not end.
#[must_use]
pub fn pod_reach(pod: &Pod, identity: &AgentIdentity) -> Option<PodReach> {
    let facts = pod_facts(pod, identity);
    let same_namespace = pod.metadata.namespace == identity.metadata.namespace;
    if !(facts.labelled && facts.injected && same_namespace) {
        return None;
    }
    let status = pod.status.as_ref();
    let life = match status.and_then(|status| status.phase.as_deref()) {
        Some("Succeeded" | "Failed") => return None,
        _ if pod.metadata.deletion_timestamp.is_some() => Life::Leaving,
        Some("Running") => Life::Running,
        _ => Life::Starting,
    };
    Some(PodReach {
        name: facts.name,
        uid: pod.metadata.uid.clone().unwrap_or_default(),
        labels: pod.metadata.labels.clone().unwrap_or_default(),
        addresses: addresses(pod),
        ports: named_ports(pod),
        life,
        standing: Standing::default(),
    })
}

/// The addresses of a pod; none while it has none.
#[must_use]
pub fn addresses(pod: &Pod) -> BTreeSet<IpAddr> {
    let status = pod.status.as_ref();
    let listed = status.iter().flat_map(|status| status.pod_ips.iter().flatten()).map(|it| it.ip.as_str());
    let first = status.and_then(|status| status.pod_ip.as_deref());
    listed.chain(first).filter_map(|ip| ip.parse().ok()).collect()
}

/// Of two ports of one name the first counts, as for endpoints.
fn named_ports(pod: &Pod) -> BTreeMap<String, u16> {
    let mut named = BTreeMap::new();
    let spec = pod.spec.iter();
    let containers =
        spec.flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()));
    for port in containers.flat_map(|container| container.ports.iter().flatten()) {
        let tcp = port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP");
        if let (true, Some(name), Ok(number)) = (tcp, &port.name, u16::try_from(port.container_port)) {
            named.entry(name.clone()).or_insert(number);
        }
    }
    named
}

/// The port of the identity's server; none if the identity lists none.
#[must_use]
pub fn server_port(identity: &AgentIdentity) -> Option<u16> {
    identity.spec.servers.first().and_then(|server| u16::try_from(server.port).ok())
}

/// What the identity says may be reached without Behalf.
#[must_use]
pub fn declared(identity: &AgentIdentity) -> BTreeSet<Listener> {
    let servers = identity.spec.servers.iter();
    let extra = servers.flat_map(|server| &server.interception.extra_ports);
    extra
        .filter_map(|extra| {
            let protocol = match extra.protocol {
                TransportProtocol::Tcp => Protocol::Tcp,
                TransportProtocol::Udp => Protocol::Udp,
                TransportProtocol::Sctp => Protocol::Sctp,
            };
            Some(Listener { protocol, port: u16::try_from(extra.port).ok()? })
        })
        .collect()
}

/// What the condition says, and for the summary the rest.
struct Case<'a> {
    namespace: &'a str,
    identity: &'a str,
    system_namespace: &'a str,
    server_port: u16,
    /// Those that serve or will, by name.
    pods: Vec<&'a PodReach>,
    facts: &'a Facts,
}

type Intent = ConditionIntent<BypassClosedReason>;
type Check = fn(&Case<'_>) -> Option<Intent>;

/// In this order: what is known to be open never hides behind what is not known.
const CHECKS: [Check; 7] =
    [no_pods, port_squatted, server_reachable, listener_reachable, foreign_endpoint, no_control, pending];

/// Whether nothing but Behalf answers from outside.
#[must_use]
pub fn verdict(identity: &AgentIdentity, facts: &Facts, settings: &Settings) -> Intent {
    let mut pods: Vec<_> = facts.pods.iter().filter(|pod| pod.life != Life::Leaving).collect();
    pods.sort_by(|a, b| a.name.cmp(&b.name));
    let case = Case {
        namespace: identity.metadata.namespace.as_deref().unwrap_or_default(),
        identity: identity.metadata.name.as_deref().unwrap_or_default(),
        system_namespace: &settings.system_namespace,
        server_port: server_port(identity).unwrap_or_default(),
        pods,
        facts,
    };
    CHECKS.iter().find_map(|check| check(&case)).unwrap_or_else(|| messages::closed(&case))
}

/// The verdict to be told. Who has just begun to listen and to try (`settling`) takes what was found before for what it is.
#[must_use]
pub fn settled(verdict: &Intent, settling: bool, previous: &[Condition]) -> Intent {
    let awaited = settling && verdict.reason == BypassClosedReason::Pending;
    let before = find_condition(previous, BypassClosedReason::TYPE).filter(|_| awaited);
    let kept = before.and_then(|before| {
        let reason = BypassClosedReason::ALL.iter().copied().find(|it| it.as_str() == before.reason)?;
        Some(Intent::new(reason, before.message.clone()))
    });
    kept.unwrap_or_else(|| verdict.clone())
}

/// What `Ready` says of the verdict, if something is open.
#[must_use]
pub fn ready_problem(verdict: &Intent) -> Option<ConditionIntent<ReadyReason>> {
    let reason = match verdict.reason {
        BypassClosedReason::PortSquatted => ReadyReason::PortSquatted,
        _ => ReadyReason::BypassOpen,
    };
    verdict.is_false().then(|| {
        let message = format!("{} See the condition {}.", verdict.message, BypassClosedReason::TYPE.as_str());
        ConditionIntent::new(reason, message)
    })
}

fn no_pods(case: &Case<'_>) -> Option<Intent> {
    case.pods.is_empty().then(|| {
        let message = "No pod with Behalf inside runs, so there is nothing to try.";
        Intent::new(BypassClosedReason::NoPods, message)
    })
}

fn port_squatted(case: &Case<'_>) -> Option<Intent> {
    let squatted = |pod: &&PodReach| pod.standing.told.as_ref()?.squatted.first().copied();
    let (pod, port) = case.pods.iter().find_map(|pod| Some((*pod, squatted(pod)?)))?;
    Some(messages::squatted(case, pod, port))
}

/// What trials gave, address by address.
fn reached<'a>(case: &'a Case<'_>) -> impl Iterator<Item = (&'a PodReach, IpAddr, &'a Reached)> {
    let current = case.pods.iter().filter_map(|pod| Some((*pod, pod.standing.trial.as_ref()?)));
    current.flat_map(|(pod, trial)| {
        // An address that the pod no longer has may be anybody's.
        let held = trial.addresses.iter().filter(|(address, _)| pod.addresses.contains(*address));
        held.map(move |(address, reached)| (pod, *address, reached))
    })
}

fn server_reachable(case: &Case<'_>) -> Option<Intent> {
    let open = |it: &Reached| match it.server {
        // The sidecar never answers so.
        Answer::Other => true,
        // It does if our address was translated: then the control shows the same.
        Answer::OtherProof => it.control == Answer::Behalf,
        Answer::Behalf | Answer::Busy | Answer::Silent | Answer::Nothing => false,
    };
    let (pod, address, _) = reached(case).find(|(_, _, it)| open(it))?;
    Some(messages::server(case, pod, address))
}

fn listener_reachable(case: &Case<'_>) -> Option<Intent> {
    let (pod, address, listener) =
        reached(case).find_map(|(pod, address, it)| Some((pod, address, *it.open.first()?)))?;
    Some(messages::listener(case, pod, address, listener))
}

fn foreign_endpoint(case: &Case<'_>) -> Option<Intent> {
    let foreign = endpoints::foreign(case.server_port, case.facts)?;
    Some(messages::foreign(case, &foreign))
}

fn no_control(case: &Case<'_>) -> Option<Intent> {
    if let Some((pod, address, it)) = reached(case).find(|(_, _, it)| it.control != Answer::Behalf) {
        return Some(messages::no_control(case, pod, address, it.control));
    }
    let undecided = |it: &Reached| matches!(it.server, Answer::Busy | Answer::Silent);
    if let Some((pod, address, _)) = reached(case).find(|(_, _, it)| undecided(it)) {
        return Some(messages::undecided(case, pod, address));
    }
    let untried = |pod: &&PodReach| pod.standing.trial.as_ref()?.untried.first().copied();
    if let Some((pod, listener)) = case.pods.iter().find_map(|pod| Some((*pod, untried(pod)?))) {
        return Some(messages::untried(case, pod, listener));
    }
    let crowded = |pod: &&&PodReach| pod.standing.told.as_ref().is_some_and(|told| told.more_listeners);
    case.pods.iter().find(crowded).map(|pod| messages::crowded(pod))
}

fn pending(case: &Case<'_>) -> Option<Intent> {
    let running = case.pods.iter().filter(|pod| pod.life == Life::Running);
    let tried = |pod: &PodReach| {
        let trial = pod.standing.trial.as_ref();
        let covers =
            |trial: &Trial| pod.addresses.iter().all(|address| trial.addresses.contains_key(address));
        pod.standing.told.is_some() && !pod.addresses.is_empty() && trial.is_some_and(covers)
    };
    let untried: Vec<_> = running.clone().filter(|pod| !tried(pod)).map(|pod| pod.name.as_str()).collect();
    // Pods that only start are tried once they run, and take nothing from what the others have shown.
    (!untried.is_empty() || running.count() == 0).then(|| messages::pending(case, &untried))
}
