//! Why a pod may not join, with what to change.

use std::collections::BTreeMap;

use behalf_crds::names;
use behalf_crds::v1alpha1::{
    AgentIdentity, ConditionStatus, ConditionType, IdentityProvider, find_condition, is_true,
};
use behalf_policy::wire;
use k8s_openapi::api::core::v1::{Namespace, PodSpec};

use super::{Plan, containers, others, served};
use crate::compile::RESERVED_PORTS;
use crate::gathered::Settings;

/// Why a pod is not let in, for a person and for counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The closed reason.
    pub reason: RefusalReason,
    /// Cause and next step.
    pub message: String,
}

/// The closed reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RefusalReason {
    /// The namespace does not carry the label that enrols it.
    NamespaceNotEnrolled,
    /// There is no identity of that name in the namespace.
    IdentityNotFound,
    /// The identity is not accepted, or not yet.
    IdentityNotAccepted,
    /// A provider of the identity is gone, so its token cannot be asked for.
    IdentityProviderNotFound,
    /// The pod runs as another account than the identity's.
    ServiceAccountMismatch,
    /// The pod runs as an account that the platform has exempted from having an identity.
    ServiceAccountExempt,
    /// A port that is needed is declared by no container.
    PortNotFound,
    /// A container declares a port that Behalf uses.
    PortReserved,
    /// The namespace's PodSecurity level does not admit the container that loads the packet rules.
    InterceptionNotAllowed,
    /// The pod shares a namespace with its node, or its processes among its containers.
    SharedNamespace,
    /// A container or volume has a name that only Behalf may use.
    ReservedName,
    /// A container runs as the sidecar's user.
    ReservedUser,
    /// A probe or hook cannot be moved.
    ProbeNotSupported,
    /// The sidecar could not write its records.
    RecordsNotWritable,
    /// The pod is not for Linux.
    OperatingSystem,
}

impl RefusalReason {
    /// Stable name, for metrics, logs and Events.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NamespaceNotEnrolled => "NamespaceNotEnrolled",
            Self::IdentityNotFound => "IdentityNotFound",
            Self::IdentityNotAccepted => "IdentityNotAccepted",
            Self::IdentityProviderNotFound => "IdentityProviderNotFound",
            Self::ServiceAccountMismatch => "ServiceAccountMismatch",
            Self::ServiceAccountExempt => "ServiceAccountExempt",
            Self::PortNotFound => "PortNotFound",
            Self::PortReserved => "PortReserved",
            Self::InterceptionNotAllowed => "InterceptionNotAllowed",
            Self::SharedNamespace => "SharedNamespace",
            Self::ReservedName => "ReservedName",
            Self::ReservedUser => "ReservedUser",
            Self::ProbeNotSupported => "ProbeNotSupported",
            Self::RecordsNotWritable => "RecordsNotWritable",
            Self::OperatingSystem => "OperatingSystem",
        }
    }
}

fn refusal(reason: RefusalReason, message: String) -> Refusal {
    Refusal { reason, message }
}

/// The identity a pod with this label joins, if the namespace is enrolled and the identity is accepted as it stands.
pub(super) fn enrolment<'a>(
    label: &str,
    namespace: &Namespace,
    identity: Option<&'a AgentIdentity>,
) -> Result<&'a AgentIdentity, Refusal> {
    let place = namespace.metadata.name.as_deref().unwrap_or_default();
    let labels = namespace.metadata.labels.as_ref();
    let enrolled = labels.and_then(|labels| labels.get(names::LABEL_INJECTION));
    if enrolled.and_then(|value| names::Injection::parse(value)).is_none() {
        return Err(refusal(
            RefusalReason::NamespaceNotEnrolled,
            format!(
                "namespace {place} is not enrolled: its label {key} is neither Optional nor Required; the platform team runs: kubectl label --overwrite namespace {place} {key}=Optional",
                key = names::LABEL_INJECTION
            ),
        ));
    }
    let own = |identity: &&AgentIdentity| {
        identity.metadata.name.as_deref() == Some(label)
            && identity.metadata.namespace.as_deref() == Some(place)
    };
    let Some(identity) = identity.filter(own) else {
        return Err(refusal(
            RefusalReason::IdentityNotFound,
            format!(
                "there is no AgentIdentity {label} in namespace {place}; create it, or let the label {} name one of: kubectl -n {place} get aid",
                names::LABEL_AGENT_IDENTITY
            ),
        ));
    };
    accepted(identity, label, place)
}

fn accepted<'a>(identity: &'a AgentIdentity, name: &str, place: &str) -> Result<&'a AgentIdentity, Refusal> {
    let conditions = identity.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    if is_true(conditions, ConditionType::Accepted, identity.metadata.generation) {
        return Ok(identity);
    }
    let found = find_condition(conditions, ConditionType::Accepted)
        .filter(|found| found.observed_generation == identity.metadata.generation)
        .filter(|found| found.status == ConditionStatus::False.as_str());
    let cause = match found {
        Some(found) => format!("AgentIdentity {name} is not accepted ({}): {}", found.reason, found.message),
        None => {
            format!("AgentIdentity {name} was not judged yet as it stands now, so try again; if that lasts")
        }
    };
    Err(refusal(
        RefusalReason::IdentityNotAccepted,
        format!("{cause} See: kubectl -n {place} describe aid {name}"),
    ))
}

/// `NET_ADMIN`, which the packet rules need, is admitted at the level privileged alone. Without a label the cluster's own
/// default decides, which is not seen from here.
pub(super) fn pod_security(namespace: &Namespace) -> Option<Refusal> {
    const ENFORCE: &str = "pod-security.kubernetes.io/enforce";
    let place = namespace.metadata.name.as_deref().unwrap_or_default();
    let level = namespace.metadata.labels.as_ref()?.get(ENFORCE)?;
    matches!(level.as_str(), "baseline" | "restricted").then(|| {
        refusal(
            RefusalReason::InterceptionNotAllowed,
            format!(
                "namespace {place} enforces the PodSecurity level {level}, which does not admit the first init container of interception Redirect (NET_ADMIN); the platform team runs, and Behalf's own policies then hold the namespace to baseline: kubectl label --overwrite namespace {place} {ENFORCE}=privileged"
            ),
        )
    })
}

/// Everything about the pod itself that keeps it from joining.
pub(super) fn pod(
    spec: &PodSpec,
    identity: &AgentIdentity,
    providers: &BTreeMap<String, IdentityProvider>,
) -> Vec<Refusal> {
    let mut found = Vec::new();
    found.extend(missing_providers(identity, providers));
    found.extend(account(spec, identity));
    found.extend(shared_namespaces(spec));
    found.extend(server_port(spec, identity));
    found.extend(reserved_ports(spec));
    found.extend(reserved_user(spec));
    if spec.os.as_ref().is_some_and(|os| os.name != "linux") {
        let message = "the pod is not for Linux, where Behalf runs; remove spec.os, or the label".to_owned();
        found.push(refusal(RefusalReason::OperatingSystem, message));
    }
    found
}

fn missing_providers(
    identity: &AgentIdentity,
    providers: &BTreeMap<String, IdentityProvider>,
) -> Option<Refusal> {
    let gone =
        identity.spec.identity_providers.iter().find(|client| !providers.contains_key(&client.name))?;
    Some(refusal(
        RefusalReason::IdentityProviderNotFound,
        format!(
            "there is no IdentityProvider {}, which the identity names; ask the platform team: kubectl get idp",
            gone.name
        ),
    ))
}

fn account(spec: &PodSpec, identity: &AgentIdentity) -> Option<Refusal> {
    let own = &identity.spec.service_account_name;
    let runs_as = super::account(Some(spec));
    (runs_as != own).then(|| {
        refusal(
            RefusalReason::ServiceAccountMismatch,
            format!("the pod runs as ServiceAccount {runs_as}, and its identity's is {own}; set in the pod template: serviceAccountName: {own}"),
        )
    })
}

/// A claim's file system is root's, and the sidecar is not root; with an `fsGroup` kubelet lets the pod's groups write it.
pub(super) fn records(spec: &PodSpec, settings: &Settings) -> Option<Refusal> {
    let group = spec.security_context.as_ref().and_then(|security| security.fs_group);
    (settings.records.needs_fs_group() && group.is_none()).then(|| {
        refusal(
            RefusalReason::RecordsNotWritable,
            format!(
                "the platform keeps decision records on a claim of each pod's own, which the sidecar can write only if the pod has an fsGroup; set in the pod template: securityContext: {{fsGroup: {}}}, or any other group",
                wire::SIDECAR_UID
            ),
        )
    })
}

/// Exempt or joined, never both: what is exempt is not behind Behalf.
pub(super) fn exempt(spec: &PodSpec, namespace: &Namespace) -> Option<Refusal> {
    let account = super::account(Some(spec));
    let place = namespace.metadata.name.as_deref().unwrap_or_default();
    super::is_exempt(namespace, account).then(|| {
        refusal(
            RefusalReason::ServiceAccountExempt,
            format!(
                "ServiceAccount {account} is exempt in namespace {place}, so its pods join no identity; remove the label {} from the pod template, or let the platform team take {account} out of the namespace's annotation {}",
                names::LABEL_AGENT_IDENTITY,
                names::ANNOTATION_EXEMPT
            ),
        )
    })
}

fn shared_namespaces(spec: &PodSpec) -> Vec<Refusal> {
    let fields = [
        ("hostNetwork", spec.host_network, "the rules that lead calls through Behalf would be the node's"),
        ("hostPID", spec.host_pid, "the sidecar's memory would be open to the server"),
        (
            "shareProcessNamespace",
            spec.share_process_namespace,
            "the sidecar's memory would be open to the server",
        ),
    ];
    let set = fields.into_iter().filter(|(_, value, _)| *value == Some(true));
    set.map(|(field, _, why)| {
        refusal(
            RefusalReason::SharedNamespace,
            format!("{field} is true, and {why}; remove it from the pod template"),
        )
    })
    .collect()
}

fn server_port(spec: &PodSpec, identity: &AgentIdentity) -> Option<Refusal> {
    let server = identity.spec.servers.first()?;
    let declared: Vec<_> = served(spec).flat_map(|container| container.ports.iter().flatten()).collect();
    let tcp = |protocol: Option<&str>| protocol.is_none_or(|protocol| protocol == "TCP");
    let there = declared
        .iter()
        .any(|port| i64::from(port.container_port) == server.port && tcp(port.protocol.as_deref()));
    if there {
        return None;
    }
    let ports: Vec<_> = declared
        .iter()
        .map(|port| format!("{}/{}", port.container_port, port.protocol.as_deref().unwrap_or("TCP")))
        .collect();
    let ports = if ports.is_empty() { "none".to_owned() } else { ports.join(", ") };
    Some(refusal(
        RefusalReason::PortNotFound,
        format!(
            "no container declares port {port}/TCP, where the identity says the server listens (declared: {ports}); add to the container: ports: - {{containerPort: {port}}}, or correct spec.servers[0].port",
            port = server.port
        ),
    ))
}

fn reserved_ports(spec: &PodSpec) -> Option<Refusal> {
    let ports = others(spec)
        .flat_map(|container| container.ports.iter().flatten().map(move |port| (container, port)));
    let taken = |number: i32| RESERVED_PORTS.iter().any(|reserved| i32::from(*reserved) == number);
    let (container, port) = ports.into_iter().find(|(_, port)| taken(port.container_port))?;
    Some(refusal(
        RefusalReason::PortReserved,
        format!(
            "container {} declares port {}, which Behalf uses in the pod (15101 to 15104); let it listen on another",
            container.name, port.container_port
        ),
    ))
}

fn reserved_user(spec: &PodSpec) -> Option<Refusal> {
    let of_pod = spec.security_context.as_ref().and_then(|security| security.run_as_user);
    let same = |user: Option<i64>| user == Some(wire::SIDECAR_UID);
    let who = if same(of_pod) {
        "the pod's securityContext".to_owned()
    } else {
        let container = others(spec).find(|container| {
            same(container.security_context.as_ref().and_then(|security| security.run_as_user))
        })?;
        format!("container {}", container.name)
    };
    Some(refusal(
        RefusalReason::ReservedUser,
        format!(
            "{who} runs as user {}, which is the sidecar's own; choose another runAsUser in its securityContext",
            wire::SIDECAR_UID
        ),
    ))
}

/// Containers and volumes that bear our names and are not ours.
pub(super) fn pretenders(spec: &PodSpec, plan: &Plan) -> Vec<Refusal> {
    let reserved = |name: &str| name.starts_with(names::RESERVED_PREFIX);
    let init = spec.init_containers.iter().flatten().filter(|container| {
        reserved(&container.name)
            && !plan.init_containers.iter().any(|ours| containers::same(container, ours))
    });
    let app = spec.containers.iter().filter(|container| reserved(&container.name));
    let containers = init.chain(app).map(|container| ("container", container.name.as_str()));
    let volumes = spec.volumes.iter().flatten();
    let volumes = volumes.filter(|volume| reserved(&volume.name) && !plan.volumes.contains(volume));
    let volumes = volumes.map(|volume| ("volume", volume.name.as_str()));
    let ephemeral = spec.ephemeral_containers.iter().flatten().filter(|container| reserved(&container.name));
    let ephemeral = ephemeral.map(|container| ("container", container.name.as_str()));
    let named = containers.chain(ephemeral).chain(volumes);
    let mut found: Vec<_> = named
        .map(|(what, name)| {
            refusal(
                RefusalReason::ReservedName,
                format!("the pod declares a {what} {name} that is not the one Behalf would add; remove it from the pod template, Behalf adds its own"),
            )
        })
        .collect();
    found.extend(borrowed_volumes(spec));
    found
}

/// Our volumes hold what only our containers may read.
fn borrowed_volumes(spec: &PodSpec) -> Vec<Refusal> {
    let borrowed = others(spec).flat_map(|container| {
        let mounts = container.volume_mounts.iter().flatten();
        let ours = mounts.filter(|mount| mount.name.starts_with(names::RESERVED_PREFIX));
        ours.map(move |mount| (container.name.as_str(), mount.name.as_str()))
    });
    borrowed
        .map(|(container, volume)| {
            refusal(
                RefusalReason::ReservedName,
                format!("container {container} mounts {volume}, which only Behalf's own containers may; remove the mount"),
            )
        })
        .collect()
}
