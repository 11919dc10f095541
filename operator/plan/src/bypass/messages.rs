//! The sentences of the verdict: cause and next step.

use std::net::{IpAddr, SocketAddr};

use behalf_crds::names;
use behalf_crds::v1alpha1::BypassClosedReason as Reason;
use behalf_policy::feed::Listener;
use behalf_policy::wire::{INBOUND_PORT, METRICS_PORT, PROBE_PORT};

use super::endpoints::{Foreign, LABEL_SERVICE};
use super::{Answer, Case, Intent, PodReach};

/// Pods that are named one by one.
const MOST: usize = 8;

pub(super) fn squatted(case: &Case<'_>, pod: &PodReach, port: u16) -> Intent {
    let (Case { namespace, .. }, name) = (case, &pod.name);
    Intent::new(
        Reason::PortSquatted,
        format!(
            "In pod {name} something else than Behalf holds port {port}, which is Behalf's ({INBOUND_PORT} to {METRICS_PORT} are). Let the pod's containers use other ports, then: kubectl -n {namespace} delete pod {name}"
        ),
    )
}

pub(super) fn server(case: &Case<'_>, pod: &PodReach, address: IpAddr) -> Intent {
    let (Case { namespace, server_port, .. }, name) = (case, &pod.name);
    let at = SocketAddr::new(address, *server_port);
    Intent::new(
        Reason::ServerReachable,
        format!(
            "The server's port of pod {name} ({at}) is answered by something else than Behalf: callers get in unchecked. The pod's packet rules are not in force, or calls are led elsewhere before they reach it. Let the pod come back with its rules: kubectl -n {namespace} delete pod {name}. If that does not help, see what else leads packets there (the network plugin, another proxy in the pod)."
        ),
    )
}

pub(super) fn listener(case: &Case<'_>, pod: &PodReach, address: IpAddr, listener: Listener) -> Intent {
    let (Case { namespace, identity, .. }, name) = (case, &pod.name);
    let Listener { protocol, port } = listener;
    let (at, protocol) = (SocketAddr::new(address, port), protocol.as_str());
    Intent::new(
        Reason::ListenerReachable,
        format!(
            "Pod {name} is reachable from outside, without Behalf, on a port that the identity does not declare: {at} {protocol}. If that is meant, add to AgentIdentity {identity}: spec.servers[0].interception.extraPorts: - {{port: {port}, protocol: {protocol}}}. If not, let the pod come back with the rules as they are now: kubectl -n {namespace} delete pod {name}"
        ),
    )
}

pub(super) fn foreign(case: &Case<'_>, foreign: &Foreign<'_>) -> Intent {
    let (Case { namespace, identity, .. }, Foreign { service, address, pod }) = (case, foreign);
    let whose = pod.map_or_else(|| "no pod".to_owned(), |pod| format!("pod {pod}"));
    Intent::new(
        Reason::ForeignEndpoint,
        format!(
            "Service {service}, which is in front of the server, also leads to {address} ({whose}), which is not behind Behalf for this identity. Let it lead only to pods made with the label {}: {identity}, by its selector for example. To see where it leads: kubectl -n {namespace} get endpointslices -l {LABEL_SERVICE}={service} -o wide",
            names::LABEL_AGENT_IDENTITY
        ),
    )
}

pub(super) fn no_control(case: &Case<'_>, pod: &PodReach, address: IpAddr, control: Answer) -> Intent {
    let (Case { namespace, system_namespace, server_port, .. }, name) = (case, &pod.name);
    let at = SocketAddr::new(address, PROBE_PORT);
    let message = match control {
        Answer::OtherProof => format!(
            "The sidecar of pod {name} answered at {at}, but not to the operator's address: address translation between the operator and the pod is a possible cause. So nobody can tell who answers on other ports. Let the operator, in namespace {system_namespace}, reach pods without translation."
        ),
        Answer::Nothing => format!(
            "The operator cannot reach the sidecar of pod {name} at {at}, so that silence on other ports shows nothing. A NetworkPolicy is a possible cause: kubectl -n {namespace} get networkpolicy. Let pods of namespace {system_namespace} in on TCP ports {PROBE_PORT} and {server_port}."
        ),
        Answer::Behalf | Answer::Other | Answer::Busy | Answer::Silent => format!(
            "The sidecar of pod {name} does not prove at {at} that it is the one who answers, so that silence on other ports shows nothing. See what it says: kubectl -n {namespace} logs {name} -c {}",
            names::CONTAINER_SIDECAR
        ),
    };
    Intent::new(Reason::NoControl, message)
}

pub(super) fn undecided(case: &Case<'_>, pod: &PodReach, address: IpAddr) -> Intent {
    let (Case { namespace, server_port, .. }, name) = (case, &pod.name);
    let at = SocketAddr::new(address, *server_port);
    Intent::new(
        Reason::NoControl,
        format!(
            "The server's port of pod {name} ({at}) takes connections, but does not say whose it is: the sidecar may have all the calls it takes, or something else may stand there. It is tried again. See what the sidecar says: kubectl -n {namespace} logs {name} -c {}",
            names::CONTAINER_SIDECAR
        ),
    )
}

pub(super) fn untried(case: &Case<'_>, pod: &PodReach, listener: Listener) -> Intent {
    let (Case { identity, .. }, name) = (case, &pod.name);
    let Listener { protocol, port } = listener;
    let protocol = protocol.as_str();
    Intent::new(
        Reason::NoControl,
        format!(
            "Pod {name} listens on port {port} of {protocol}, which the operator cannot try from outside; the pod's packet rules close it. End that listener, or if it is meant to be reached, add to AgentIdentity {identity}: spec.servers[0].interception.extraPorts: - {{port: {port}, protocol: {protocol}}}"
        ),
    )
}

pub(super) fn crowded(pod: &PodReach) -> Intent {
    Intent::new(
        Reason::NoControl,
        format!(
            "Pod {} listens on more ports than can be named, so not all of them were tried. Let its containers listen on loopback where nobody outside is meant to call.",
            pod.name
        ),
    )
}

pub(super) fn pending(case: &Case<'_>, untried: &[&str]) -> Intent {
    let message = if untried.is_empty() {
        "No pod runs yet; each is tried when its sidecar has reported.".to_owned()
    } else {
        let rest = if untried.len() > MOST { " …" } else { "" };
        let named = untried.iter().take(MOST).copied().collect::<Vec<_>>().join(" ");
        format!(
            "Not tried yet, {} of {} pods: {named}{rest}. A pod is tried when its sidecar has reported; if that takes longer than seconds, see Programmed.",
            untried.len(),
            case.pods.len()
        )
    };
    Intent::new(Reason::Pending, message)
}

pub(super) fn closed(case: &Case<'_>) -> Intent {
    Intent::new(
        Reason::Closed,
        format!(
            "Tried from outside: on port {} nothing but Behalf answers, no undeclared port of a pod can be reached, and every Service in front of the server leads to pods behind Behalf alone.",
            case.server_port
        ),
    )
}
