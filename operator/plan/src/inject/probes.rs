//! Probes and hooks over the network, moved to the sidecar, which performs exactly the declared one.
//!
//! A pod that was planned already asks our probe port; what it had declared then stands in the sidecar's argument and is
//! read back from there, so that planning twice changes nothing.

use behalf_crds::names;
use behalf_policy::probe::{self, Kind, Probe as Declared, Probes, Scheme};
use behalf_policy::wire;
use k8s_openapi::api::core::v1::{
    Container, GRPCAction, HTTPGetAction, LifecycleHandler, PodSpec, Probe, TCPSocketAction,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::refuse::{Refusal, RefusalReason};
use super::served;
use crate::compile::RESERVED_PORTS;

const ARGUMENT: &str = "--probes=";

/// The sidecar's argument with the declared probes.
///
/// Kubelet expands `$(NAME)` in arguments; a doubled dollar stands for itself.
pub(super) fn argument(declared: &Probes) -> String {
    let json = serde_json::to_string(declared).unwrap_or_else(|_| "{}".to_owned());
    format!("{ARGUMENT}{}", json.replace('$', "$$"))
}

/// What an earlier plan moved; nothing, if there was none or it cannot be read.
fn moved_before(spec: &PodSpec) -> Probes {
    let sidecar =
        spec.init_containers.iter().flatten().find(|container| container.name == names::CONTAINER_SIDECAR);
    let argument =
        sidecar.and_then(|sidecar| sidecar.args.iter().flatten().find_map(|a| a.strip_prefix(ARGUMENT)));
    argument.and_then(|json| serde_json::from_str(&json.replace("$$", "$")).ok()).unwrap_or_default()
}

/// Everything the pod declares that goes over the network.
pub(super) fn collect(spec: &PodSpec) -> Result<Probes, Vec<Refusal>> {
    let before = moved_before(spec);
    let mut declared = Probes::new();
    let mut refusals = Vec::new();
    for container in served(spec) {
        for (kind, handler) in handlers(container) {
            match read(container, kind, &handler, &before) {
                Ok(probe) => {
                    declared.insert(probe::key(&container.name, kind), probe);
                }
                Err(refusal) => refusals.push(refusal),
            }
        }
    }
    if refusals.is_empty() { Ok(declared) } else { Err(refusals) }
}

/// A declared way to ask over the network.
enum Handler<'a> {
    Http(&'a HTTPGetAction),
    Tcp(&'a TCPSocketAction),
    Grpc(&'a GRPCAction),
}

fn handlers(container: &Container) -> Vec<(Kind, Handler<'_>)> {
    let probes = [
        (Kind::Startup, &container.startup_probe),
        (Kind::Readiness, &container.readiness_probe),
        (Kind::Liveness, &container.liveness_probe),
    ];
    let lifecycle = container.lifecycle.as_ref();
    let hooks = [
        (Kind::PostStart, lifecycle.and_then(|lifecycle| lifecycle.post_start.as_ref())),
        (Kind::PreStop, lifecycle.and_then(|lifecycle| lifecycle.pre_stop.as_ref())),
    ];
    let probes = probes.into_iter().filter_map(|(kind, probe)| Some((kind, of_probe(probe.as_ref()?)?)));
    // Kubelet runs exec and sleep hooks by itself, and fails a tcpSocket hook wherever it points: they stay as they are.
    let hooks =
        hooks.into_iter().filter_map(|(kind, hook)| Some((kind, Handler::Http(hook?.http_get.as_ref()?))));
    probes.chain(hooks).collect()
}

fn of_probe(probe: &Probe) -> Option<Handler<'_>> {
    let http = probe.http_get.as_ref().map(Handler::Http);
    let tcp = probe.tcp_socket.as_ref().map(Handler::Tcp);
    http.or(tcp).or_else(|| probe.grpc.as_ref().map(Handler::Grpc))
}

fn read(
    container: &Container,
    kind: Kind,
    handler: &Handler<'_>,
    before: &Probes,
) -> Result<Declared, Refusal> {
    let who = format!("{} of container {}", kind.as_str(), container.name);
    let refuse = |cause: &str, next: &str| Refusal {
        reason: RefusalReason::ProbeNotSupported,
        message: format!("the {who} {cause}; {next}"),
    };
    let declared = match handler {
        Handler::Grpc(action) => Declared::Grpc {
            port: port_of(container, &IntOrString::Int(action.port), &who)?,
            service: action.service.clone().unwrap_or_default(),
        },
        Handler::Http(action) if **action == moved(&container.name, kind) => {
            let key = probe::key(&container.name, kind);
            before.get(&key).cloned().ok_or_else(|| {
                refuse("asks Behalf's own port", "ask a port of the container itself, and Behalf moves it")
            })?
        }
        Handler::Http(action) => {
            if action.host.as_deref().is_some_and(|host| !host.is_empty()) {
                return Err(refuse("has a host of its own", "remove host: what is probed is this container"));
            }
            Declared::Http {
                port: port_of(container, &action.port, &who)?,
                path: action.path.clone().filter(|path| !path.is_empty()).unwrap_or_else(|| "/".to_owned()),
                scheme: match action.scheme.as_deref() {
                    Some("HTTPS") => Scheme::Https,
                    _ => Scheme::Http,
                },
                headers: action
                    .http_headers
                    .iter()
                    .flatten()
                    .map(|header| (header.name.clone(), header.value.clone()))
                    .collect(),
            }
        }
        Handler::Tcp(action) => {
            if action.host.as_deref().is_some_and(|host| !host.is_empty()) {
                return Err(refuse("has a host of its own", "remove host: what is probed is this container"));
            }
            Declared::Tcp { port: port_of(container, &action.port, &who)? }
        }
    };
    if RESERVED_PORTS.contains(&declared.port()) {
        return Err(refuse("asks a port of Behalf's own", "ask a port of the container itself"));
    }
    Ok(declared)
}

/// A named port is one that the same container declares, as kubelet reads it.
fn port_of(container: &Container, port: &IntOrString, who: &str) -> Result<u16, Refusal> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => container
            .ports
            .iter()
            .flatten()
            .find(|declared| declared.name.as_ref() == Some(name))
            .map(|declared| declared.container_port),
    };
    let number = number.and_then(|number| u16::try_from(number).ok()).filter(|number| *number > 0);
    number.ok_or_else(|| {
        let declared: Vec<_> =
            container.ports.iter().flatten().filter_map(|declared| declared.name.as_deref()).collect();
        let asked = match port {
            IntOrString::Int(number) => number.to_string(),
            IntOrString::String(name) => name.clone(),
        };
        Refusal {
            reason: RefusalReason::PortNotFound,
            message: format!(
                "the {who} asks port {asked}, which the container does not declare (named ports: {}); declare it under ports, or correct the probe",
                if declared.is_empty() { "none".to_owned() } else { declared.join(", ") }
            ),
        }
    })
}

/// What kubelet asks instead.
fn moved(container: &str, kind: Kind) -> HTTPGetAction {
    HTTPGetAction {
        host: None,
        http_headers: None,
        path: Some(probe::path(container, kind)),
        port: IntOrString::Int(i32::from(wire::PROBE_PORT)),
        scheme: Some("HTTP".to_owned()),
    }
}

/// Points the probes and hooks that were collected at the sidecar; their timing stays.
pub(super) fn apply(container: &mut Container, declared: &Probes) {
    let name = container.name.clone();
    let ours = |kind: Kind| declared.contains_key(&probe::key(&name, kind)).then(|| moved(&name, kind));
    let probes = [
        (Kind::Startup, &mut container.startup_probe),
        (Kind::Readiness, &mut container.readiness_probe),
        (Kind::Liveness, &mut container.liveness_probe),
    ];
    for (kind, probe) in probes {
        if let (Some(probe), Some(action)) = (probe.as_mut(), ours(kind)) {
            probe.tcp_socket = None;
            probe.grpc = None;
            probe.http_get = Some(action);
        }
    }
    if let Some(lifecycle) = container.lifecycle.as_mut() {
        for (kind, hook) in
            [(Kind::PostStart, &mut lifecycle.post_start), (Kind::PreStop, &mut lifecycle.pre_stop)]
        {
            if let (Some(LifecycleHandler { http_get: Some(http_get), .. }), Some(action)) =
                (hook.as_mut(), ours(kind))
            {
                *http_get = action;
            }
        }
    }
}
