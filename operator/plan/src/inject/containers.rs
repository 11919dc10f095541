//! Our two init containers, and what changes in the security of the others.

use behalf_crds::names;
use behalf_crds::v1alpha1::{AgentIdentity, ExtraPort, TransportProtocol};
use behalf_policy::probe::Probes;
use behalf_policy::wire;
use k8s_openapi::api::core::v1::{
    Capabilities, Container, ContainerPort, EnvVar, EnvVarSource, HTTPGetAction, ObjectFieldSelector,
    PodSpec, Probe, SeccompProfile, SecurityContext,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{identity_argument, is_ours, others, probes, volumes};
use crate::gathered::Settings;

/// The one capability nobody needs without asking: forging packets of other pods.
const NET_RAW: &str = "NET_RAW";
const ALL: &str = "ALL";
pub(super) const KEY_ARGUMENT: &str = "--bundle-key=";

/// The redirect and the sidecar, in the order in which they run.
pub(super) fn ours(identity: &AgentIdentity, settings: &Settings, declared: &Probes) -> Vec<Container> {
    vec![redirect(identity, settings), sidecar(identity, settings, declared)]
}

/// Loads the packet rules and ends. It is the only one with a privilege, and has that one alone.
fn redirect(identity: &AgentIdentity, settings: &Settings) -> Container {
    let mut args = vec!["redirect".to_owned()];
    for server in &identity.spec.servers {
        args.push(format!("--server-port={}", server.port));
        let mut extra: Vec<_> = server.interception.extra_ports.iter().map(extra_port).collect();
        extra.sort();
        args.extend(extra);
    }
    Container {
        name: names::CONTAINER_REDIRECT.to_owned(),
        args: Some(args),
        security_context: Some(SecurityContext {
            run_as_user: Some(0),
            run_as_group: Some(0),
            run_as_non_root: Some(false),
            capabilities: Some(Capabilities {
                add: Some(vec!["NET_ADMIN".to_owned()]),
                drop: Some(vec![ALL.to_owned()]),
            }),
            ..locked()
        }),
        volume_mounts: Some(vec![volumes::no_token_mount()]),
        ..common(settings)
    }
}

fn extra_port(extra: &ExtraPort) -> String {
    let protocol = match extra.protocol {
        TransportProtocol::Tcp => "tcp",
        TransportProtocol::Udp => "udp",
        TransportProtocol::Sctp => "sctp",
    };
    format!("--extra-port={protocol}/{}", extra.port)
}

fn sidecar(identity: &AgentIdentity, settings: &Settings, declared: &Probes) -> Container {
    let metadata = &identity.metadata;
    let mut args = vec![
        "run".to_owned(),
        format!("--namespace={}", metadata.namespace.as_deref().unwrap_or_default()),
        identity_argument(metadata.name.as_deref().unwrap_or_default()),
    ];
    args.extend(settings.bundle_keys.iter().map(|key| format!("{KEY_ARGUMENT}{key}")));
    args.extend(settings.nameservers.iter().map(|server| format!("--nameserver={server}")));
    args.push(format!("--cluster-domain={}", settings.cluster_domain));
    args.extend(settings.records.arguments());
    args.push("--pod-name=$(POD_NAME)".to_owned());
    // Never a downstream: the pod's own address would lead past the sidecar.
    args.push("--pod-address=$(POD_IPS)".to_owned());
    if volumes::tls(identity).is_some() {
        args.push(format!("--tls-dir={}", wire::TLS_DIR));
    }
    args.push(probes::argument(declared));
    Container {
        name: names::CONTAINER_SIDECAR.to_owned(),
        restart_policy: Some("Always".to_owned()),
        args: Some(args),
        env: Some(vec![from_pod("POD_NAME", "metadata.name"), from_pod("POD_IPS", "status.podIPs")]),
        ports: Some(vec![
            port("behalf-inbound", wire::INBOUND_PORT),
            port("behalf-probe", wire::PROBE_PORT),
            port("behalf-metrics", wire::METRICS_PORT),
        ]),
        // The server starts only when the sidecar has its bundle, and gets no call when it has not.
        startup_probe: Some(probe("/readyz", 1, 300)),
        readiness_probe: Some(probe("/readyz", 5, 2)),
        liveness_probe: Some(probe("/livez", 10, 3)),
        security_context: Some(SecurityContext {
            run_as_user: Some(wire::SIDECAR_UID),
            run_as_group: Some(wire::SIDECAR_UID),
            run_as_non_root: Some(true),
            capabilities: Some(Capabilities { add: None, drop: Some(vec![ALL.to_owned()]) }),
            ..locked()
        }),
        volume_mounts: Some(volumes::sidecar_mounts(identity, settings)),
        ..common(settings)
    }
}

/// What the API server would fill in is written out, so that what comes back equals what was planned.
fn common(settings: &Settings) -> Container {
    Container {
        image: Some(settings.sidecar_image.clone()),
        image_pull_policy: Some(settings.sidecar_pull_policy.clone()),
        resources: Some(settings.resources.clone()),
        termination_message_path: Some("/dev/termination-log".to_owned()),
        termination_message_policy: Some("File".to_owned()),
        ..Container::default()
    }
}

fn locked() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        privileged: Some(false),
        read_only_root_filesystem: Some(true),
        seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
        ..SecurityContext::default()
    }
}

fn from_pod(name: &str, field_path: &str) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                api_version: Some("v1".to_owned()),
                field_path: field_path.to_owned(),
            }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    }
}

fn port(name: &str, number: u16) -> ContainerPort {
    ContainerPort {
        name: Some(name.to_owned()),
        container_port: i32::from(number),
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    }
}

fn probe(path: &str, period: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::Int(i32::from(wire::PROBE_PORT)),
            scheme: Some("HTTP".to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period),
        timeout_seconds: Some(2),
        success_threshold: Some(1),
        failure_threshold: Some(failures),
        ..Probe::default()
    }
}

/// Puts ours in front. One that is there already and is ours stays as others left it.
pub(super) fn apply(spec: &mut PodSpec, planned: &[Container]) {
    let (mine, rest): (Vec<_>, Vec<_>) = spec
        .init_containers
        .take()
        .unwrap_or_default()
        .into_iter()
        .partition(|container| is_ours(&container.name));
    let kept = |planned: &Container| {
        mine.iter().find(|there| same(there, planned)).cloned().unwrap_or_else(|| planned.clone())
    };
    spec.init_containers = Some(planned.iter().map(kept).chain(rest).collect());
}

/// Whether two containers are the same but for what `LimitRanger` and `AlwaysPullImages` may have set, and but for trusted
/// keys that the one there does not pin: while keys change, another replica may still inject the older list.
pub(super) fn same(there: &Container, planned: &Container) -> bool {
    let bare = |container: &Container| Container {
        image_pull_policy: None,
        resources: None,
        args: container.args.as_ref().map(|args| args.iter().filter(|a| !is_key(a)).cloned().collect()),
        ..container.clone()
    };
    let keys = |container: &Container| -> Vec<String> {
        container.args.iter().flatten().filter(|a| is_key(a)).cloned().collect()
    };
    let (pinned, trusted) = (keys(there), keys(planned));
    let some_of_them =
        pinned == trusted || !pinned.is_empty() && pinned.iter().all(|key| trusted.contains(key));
    some_of_them && bare(there) == bare(planned)
}

fn is_key(argument: &str) -> bool {
    argument.starts_with(KEY_ARGUMENT)
}

/// Containers that may forge packets only because nobody said otherwise.
pub(super) fn keeping_net_raw(spec: &PodSpec) -> Vec<String> {
    others(spec)
        .filter(|container| keeps_net_raw(container))
        .map(|container| container.name.clone())
        .collect()
}

fn keeps_net_raw(container: &Container) -> bool {
    let Some(security) = &container.security_context else { return true };
    // A privileged container has everything, whatever it drops; admission judges it.
    if security.privileged == Some(true) {
        return false;
    }
    let Some(capabilities) = &security.capabilities else { return true };
    let added = capabilities.add.iter().flatten().any(|name| {
        let name = name.to_ascii_uppercase();
        matches!(name.strip_prefix("CAP_").unwrap_or(&name), ALL | NET_RAW)
    });
    // Any other spelling does not satisfy the admission policies, so the plain one is added beside it.
    let dropped = capabilities.drop.iter().flatten().any(|name| matches!(name.as_str(), ALL | NET_RAW));
    !added && !dropped
}

pub(super) fn drop_net_raw(container: &mut Container) {
    if keeps_net_raw(container) {
        let security = container.security_context.get_or_insert_default();
        let capabilities = security.capabilities.get_or_insert_default();
        capabilities.drop.get_or_insert_default().push(NET_RAW.to_owned());
    }
}
