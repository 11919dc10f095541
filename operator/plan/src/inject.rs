//! What the webhook does to a pod: a plan, a refusal with cause and next step, or nothing.
//!
//! Pure and idempotent: planning what a plan made changes nothing. What a plan does not list stays as it was.

mod containers;
mod env;
mod ports;
mod probes;
mod refuse;
mod volumes;

use std::collections::{BTreeMap, BTreeSet};

use behalf_crds::names;
use behalf_crds::v1alpha1::{AgentIdentity, IdentityProvider};
use behalf_policy::probe::Probes;
use k8s_openapi::api::core::v1::{Container, EnvVar, Namespace, Pod, PodSpec, Service, Volume};

use crate::digest;
use crate::gathered::Settings;

pub use refuse::{Refusal, RefusalReason};

/// What is to become of a pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Injection {
    /// Change it so.
    Plan(Box<Plan>),
    /// Do not let it in.
    Refuse(Vec<Refusal>),
    /// It is none of ours.
    Skip(SkipReason),
}

/// Why a pod is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SkipReason {
    /// It does not carry the label.
    NotLabelled,
    /// It does not carry the label, and the platform has exempted its service account.
    Exempt,
}

impl SkipReason {
    /// Stable name, for logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotLabelled => "NotLabelled",
            Self::Exempt => "Exempt",
        }
    }
}

/// What is added to a pod and what is changed in it.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Our init containers, in front of all others: the redirect, then the sidecar.
    pub init_containers: Vec<Container>,
    /// Our volumes, behind all others.
    pub volumes: Vec<Volume>,
    /// Variables that every app container and restartable init container gets.
    pub env: Vec<EnvVar>,
    /// Variables of that name that the pod declared otherwise, as `<container>/<name>`.
    pub replaced: Vec<String>,
    /// Probes and hooks that now ask the sidecar, and what they declared.
    pub probes: Probes,
    /// Containers that lose `NET_RAW`, which nobody asked to keep.
    pub drop_net_raw: Vec<String>,
    /// Revision of what is injected, for the pod's annotation.
    pub revision: String,
    /// What the pod's author should know.
    pub warnings: Vec<Warning>,
}

/// Something the pod's author should know; the pod starts all the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// Cause and next step.
    pub message: String,
}

/// Plans the injection of one pod.
///
/// `services` are those of the pod's namespace; whether one selects the pod is found here. They decide nothing but which
/// closed ports are warned of.
#[must_use]
pub fn plan_injection(
    pod: &Pod,
    namespace: &Namespace,
    identity: Option<&AgentIdentity>,
    providers: &BTreeMap<String, IdentityProvider>,
    services: &[Service],
    settings: &Settings,
) -> Injection {
    let labels = pod.metadata.labels.as_ref();
    let Some(label) = labels.and_then(|labels| labels.get(names::LABEL_AGENT_IDENTITY)) else {
        let exempt = is_exempt(namespace, account(pod.spec.as_ref()));
        return Injection::Skip(if exempt { SkipReason::Exempt } else { SkipReason::NotLabelled });
    };
    let identity = match refuse::enrolment(label, namespace, identity) {
        Ok(identity) => identity,
        Err(refusal) => return Injection::Refuse(vec![refusal]),
    };
    let spec = pod.spec.clone().unwrap_or_default();
    let mut refusals = refuse::pod(&spec, identity, providers);
    refusals.extend(refuse::records(&spec, settings));
    refusals.extend(refuse::exempt(&spec, namespace));
    refusals.extend(refuse::pod_security(namespace));
    let declared = match probes::collect(&spec) {
        Ok(declared) => declared,
        Err(found) => {
            refusals.extend(found);
            Probes::new()
        }
    };
    let mut plan = draw(&spec, identity, providers, settings, declared);
    plan.warnings = ports::closed(pod, identity, services);
    refusals.extend(refuse::pretenders(&spec, &plan));
    if refusals.is_empty() { Injection::Plan(Box::new(plan)) } else { Injection::Refuse(refusals) }
}

/// Whether the platform has exempted the account from having an identity; see [`names::ANNOTATION_EXEMPT`].
#[must_use]
pub fn is_exempt(namespace: &Namespace, service_account: &str) -> bool {
    let annotations = namespace.metadata.annotations.as_ref();
    let list = annotations.and_then(|it| it.get(names::ANNOTATION_EXEMPT)).map_or("", String::as_str);
    names::exempt_service_accounts(list).any(|name| name == service_account)
}

/// The account a pod runs as.
pub(crate) fn account(spec: Option<&PodSpec>) -> &str {
    let named = spec.and_then(|spec| spec.service_account_name.as_deref());
    named.filter(|name| !name.is_empty()).unwrap_or("default")
}

/// Revision of what pods of an identity are given: it moves when they need a restart to follow.
#[must_use]
pub fn revision(
    identity: &AgentIdentity,
    providers: &BTreeMap<String, IdentityProvider>,
    settings: &Settings,
) -> String {
    let bare = draw(&PodSpec::default(), identity, providers, settings, Probes::new());
    bare.revision
}

/// The keys that the sidecar of a pod pins, each as [`Settings::bundle_keys`] has it; none if there is no sidecar.
#[must_use]
pub fn pinned_keys(pod: &Pod) -> Option<BTreeSet<String>> {
    let containers = pod.spec.as_ref()?.init_containers.as_ref()?;
    let sidecar = containers.iter().find(|it| it.name == names::CONTAINER_SIDECAR)?;
    let keys = sidecar.args.iter().flatten().filter_map(|it| it.strip_prefix(containers::KEY_ARGUMENT));
    Some(keys.map(str::to_owned).collect())
}

/// The sidecar's argument that says whose it is.
#[must_use]
pub fn identity_argument(identity: &str) -> String {
    format!("--identity={identity}")
}

fn draw(
    spec: &PodSpec,
    identity: &AgentIdentity,
    providers: &BTreeMap<String, IdentityProvider>,
    settings: &Settings,
    probes: Probes,
) -> Plan {
    let env = env::variables(identity);
    let volumes = volumes::volumes(identity, providers, settings);
    // The pod's own probes are not part of it: they change with its template, which restarts it anyway. Of the keys only
    // the newest is: a pod that does not pin it has to be restarted, but not once more when an older one is dropped.
    let newest = settings.bundle_keys.iter().take(1).cloned().collect();
    let newest = Settings { bundle_keys: newest, ..settings.clone() };
    let bare = containers::ours(identity, &newest, &Probes::new());
    Plan {
        revision: digest::short(&(&bare, &volumes, &env)),
        init_containers: containers::ours(identity, settings, &probes),
        replaced: env::replaced(spec, &env),
        drop_net_raw: containers::keeping_net_raw(spec),
        warnings: Vec::new(),
        probes,
        volumes,
        env,
    }
}

impl Plan {
    /// The pod as the plan wants it.
    #[must_use]
    pub fn apply(&self, pod: &Pod) -> Pod {
        let mut pod = pod.clone();
        let annotations = pod.metadata.annotations.get_or_insert_default();
        annotations.insert(names::ANNOTATION_INJECTED.to_owned(), self.revision.clone());
        let spec = pod.spec.get_or_insert_default();
        for container in served_mut(spec) {
            env::apply(container, &self.env);
            probes::apply(container, &self.probes);
        }
        for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
            if self.drop_net_raw.contains(&container.name) {
                containers::drop_net_raw(container);
            }
        }
        containers::apply(spec, &self.init_containers);
        volumes::apply(spec, &self.volumes);
        pod
    }
}

/// Containers that run beside the server: all of the app's, and init containers that stay.
pub(crate) fn served(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    let stays = |container: &&Container| is_restartable(container) && !is_ours(&container.name);
    spec.init_containers.iter().flatten().filter(stays).chain(&spec.containers)
}

fn served_mut(spec: &mut PodSpec) -> impl Iterator<Item = &mut Container> {
    let stays = |container: &&mut Container| is_restartable(container) && !is_ours(&container.name);
    spec.init_containers.iter_mut().flatten().filter(stays).chain(&mut spec.containers)
}

/// All containers but ours.
pub(crate) fn others(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    let init = spec.init_containers.iter().flatten().filter(|container| !is_ours(&container.name));
    init.chain(&spec.containers)
}

pub(crate) fn is_restartable(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

pub(crate) fn is_ours(name: &str) -> bool {
    name == names::CONTAINER_REDIRECT || name == names::CONTAINER_SIDECAR
}
