//! What an identity must be by itself and among its siblings, whatever its catalogue says.

use behalf_crds::v1alpha1::{AcceptedReason, AgentIdentity, Server};
use behalf_policy::wire;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::Case;
use crate::catalog::{invalid, twice};
use crate::conditions::ConditionIntent;
use crate::gathered::Settings;
use crate::inject;
use crate::net::{self, ServiceHost};
use crate::pem;

type Problem = ConditionIntent<AcceptedReason>;

/// Ports that Behalf uses in the pod.
pub(crate) const RESERVED_PORTS: [u16; 4] =
    [wire::INBOUND_PORT, wire::EGRESS_PORT, wire::PROBE_PORT, wire::METRICS_PORT];

/// In this order.
pub(super) const CHECKS: &[fn(&Case<'_>) -> Option<Problem>] = &[
    one_server,
    names_once,
    ports_free,
    someone_may_call,
    url_usable,
    tls_usable,
    host_own,
    audience_free,
    account_own,
    account_free,
    account_not_exempt,
];

/// Whether the server is called by plain http inside the cluster, which is allowed and said.
#[must_use]
pub fn is_plain_http(identity: &AgentIdentity, settings: &Settings) -> bool {
    let plain = |server: &Server| {
        net::plain(&server.url)
            .is_ok_and(|url| url.scheme() == "http" && net::is_cluster_local(&url, &settings.cluster_domain))
    };
    identity.spec.servers.iter().any(plain)
}

/// Whether the server is called by https inside the cluster and something else than the sidecar has to terminate it.
#[must_use]
pub fn is_tls_elsewhere(identity: &AgentIdentity, settings: &Settings) -> bool {
    let elsewhere = |server: &Server| {
        server.tls.is_none()
            && net::plain(&server.url).is_ok_and(|url| {
                url.scheme() == "https" && net::is_cluster_local(&url, &settings.cluster_domain)
            })
    };
    identity.spec.servers.iter().any(elsewhere)
}

fn one_server(case: &Case<'_>) -> Option<Problem> {
    let count = case.identity().spec.servers.len();
    (count != 1)
        .then(|| invalid(format!("spec.servers has {count} entries. An identity has exactly one server.")))
}

fn names_once(case: &Case<'_>) -> Option<Problem> {
    let spec = &case.identity().spec;
    let doubled = |names: Vec<&str>| {
        let mut seen = std::collections::BTreeSet::new();
        names.into_iter().find(|name| !seen.insert(*name)).map(str::to_owned)
    };
    let lists = [
        ("spec.identityProviders", spec.identity_providers.iter().map(|entry| entry.name.as_str()).collect()),
        ("spec.downstreams", spec.downstreams.iter().map(|entry| entry.name.as_str()).collect()),
        ("spec.rateLimits", spec.rate_limits.iter().map(|entry| entry.name.as_str()).collect()),
    ];
    lists.into_iter().find_map(|(at, names)| doubled(names).map(|name| twice(at, &name)))
}

fn ports_free(case: &Case<'_>) -> Option<Problem> {
    let server = case.identity().spec.servers.first()?;
    let extra = server.interception.extra_ports.iter().map(|extra| extra.port);
    let reserved = |port: &i64| RESERVED_PORTS.iter().any(|taken| i64::from(*taken) == *port);
    if let Some(port) = [server.port].into_iter().chain(extra).find(reserved) {
        return Some(Problem::new(
            AcceptedReason::PortReserved,
            format!(
                "Port {port} of server {} is one that Behalf uses in the pod (15101 to 15104). Let the server listen on another.",
                server.name
            ),
        ));
    }
    (!(1..=65_535).contains(&server.port))
        .then(|| invalid(format!("Port {} of server {} is no port.", server.port, server.name)))
}

fn someone_may_call(case: &Case<'_>) -> Option<Problem> {
    case.identity().spec.callers.kinds.is_empty().then(|| {
        invalid("spec.callers.kinds is empty, so nobody may call. Name User, Workload or both.".to_owned())
    })
}

fn url_usable(case: &Case<'_>) -> Option<Problem> {
    let server = case.identity().spec.servers.first()?;
    let named = format!("The url of server {}", server.name);
    match net::plain(&server.url) {
        Err(why) => Some(invalid(format!("{named}: {} {why}. Set the URL that callers use.", server.url))),
        Ok(url) if url.scheme() == "https" || net::is_cluster_local(&url, &case.settings.cluster_domain) => {
            None
        }
        Ok(_) => Some(Problem::new(
            AcceptedReason::InsecureURL,
            format!(
                "{named} is plain http for a host outside the cluster ({}), so tokens could be read on the way. Use https, or the Service's own name: http://<service>.{}.svc/<path>",
                server.url,
                case.namespace()
            ),
        )),
    }
}

/// What the schema says of `tls`, and what it cannot say.
fn tls_usable(case: &Case<'_>) -> Option<Problem> {
    let server = case.identity().spec.servers.first()?;
    let tls = server.tls.as_ref()?;
    let at = format!("tls of server {}", server.name);
    if !server.url.starts_with("https://") {
        return Some(invalid(format!(
            "{at} stands beside a url that is not https ({}). Set an https url, or take tls away.",
            server.url
        )));
    }
    if tls.certificate.secret_name.is_some() == tls.certificate.csi.is_some() {
        return Some(invalid(format!("certificate in {at} names exactly one of secretName and csi.")));
    }
    let ca = tls.client_validation.as_ref().and_then(|validation| validation.ca_bundle.as_deref())?;
    let flaw = pem::check(ca).err()?;
    Some(Problem::new(
        AcceptedReason::InvalidCABundle,
        format!(
            "clientValidation.caBundle in {at} {flaw}. Give the certificates of the authorities of clients, in PEM."
        ),
    ))
}

/// The name of a Service belongs to the namespace it names: whoever is asked for that name is asked for what runs there.
fn host_own(case: &Case<'_>) -> Option<Problem> {
    let server = case.identity().spec.servers.first()?;
    let url = net::plain(&server.url).ok()?;
    let flaw = match net::service_host(&url, &case.settings.cluster_domain)? {
        ServiceHost::Of { namespace } if namespace == case.namespace() => return None,
        ServiceHost::Of { namespace } => format!("is that of a Service of namespace {namespace}"),
        ServiceHost::Malformed => "is under the cluster's svc and names no Service".to_owned(),
    };
    Some(Problem::new(
        AcceptedReason::HostNotOwned,
        format!(
            "The host of the url of server {} {flaw} ({}). Use a Service of the identity's own namespace, https://<service>.{}.svc/<path>, or a name outside the cluster.",
            server.name,
            server.url,
            case.namespace()
        ),
    ))
}

/// Two identities with one URL would take each other's tokens: the older keeps it.
fn audience_free(case: &Case<'_>) -> Option<Problem> {
    let own = net::canonical(&case.identity().spec.servers.first()?.url)?;
    let same = |sibling: &&AgentIdentity| {
        sibling.spec.servers.iter().any(|server| net::canonical(&server.url).as_ref() == Some(&own))
    };
    let holder = older_siblings(case).find(same)?;
    Some(Problem::new(
        AcceptedReason::AudienceTaken,
        format!(
            "AgentIdentity {}, which is older, has the url {own} already, and tokens are made for one server. Change the url of one of them, or delete one.",
            name_of(holder)
        ),
    ))
}

fn account_own(case: &Case<'_>) -> Option<Problem> {
    let account = &case.identity().spec.service_account_name;
    (account == "default" || account.is_empty()).then(|| {
        invalid(
            "spec.serviceAccountName is every pod's account. Give this server a ServiceAccount of its own."
                .to_owned(),
        )
    })
}

fn account_free(case: &Case<'_>) -> Option<Problem> {
    let account = &case.identity().spec.service_account_name;
    let same = |sibling: &&AgentIdentity| {
        sibling.metadata.namespace.as_deref() == Some(case.namespace())
            && sibling.spec.service_account_name == *account
    };
    let holder = older_siblings(case).find(same)?;
    Some(Problem::new(
        AcceptedReason::ServiceAccountTaken,
        format!(
            "AgentIdentity {}, which is older, runs as ServiceAccount {account} already. Make another AgentIdentity with a ServiceAccount of its own.",
            name_of(holder)
        ),
    ))
}

/// Pods of an exempted account are not injected, so no identity could be told by it.
fn account_not_exempt(case: &Case<'_>) -> Option<Problem> {
    let account = &case.identity().spec.service_account_name;
    inject::is_exempt(&case.gathered.namespace, account).then(|| {
        Problem::new(
            AcceptedReason::ServiceAccountExempt,
            format!(
                "The platform team exempted ServiceAccount {account} from having an identity, so its pods cannot have this one. Make another AgentIdentity with another account, or let the platform team take {account} out of the list: kubectl get namespace {namespace} -o jsonpath='{{.metadata.annotations}}'",
                namespace = case.namespace()
            ),
        )
    })
}

/// All other identities that came before this one, oldest first.
fn older_siblings<'a>(case: &'a Case<'_>) -> impl Iterator<Item = &'a AgentIdentity> {
    let own = age(case.identity());
    let mut older: Vec<_> = case.gathered.siblings.iter().filter(|sibling| age(sibling) < own).collect();
    older.sort_by(|a, b| age(a).cmp(&age(b)));
    older.into_iter()
}

/// Order of age; an object without a time is the youngest. Namespace and name settle a tie.
fn age(identity: &AgentIdentity) -> (bool, Option<&Time>, Option<&str>, Option<&str>) {
    let metadata = &identity.metadata;
    let created = metadata.creation_timestamp.as_ref();
    (created.is_none(), created, metadata.namespace.as_deref(), metadata.name.as_deref())
}

fn name_of(identity: &AgentIdentity) -> String {
    let metadata = &identity.metadata;
    format!(
        "{}/{}",
        metadata.namespace.as_deref().unwrap_or_default(),
        metadata.name.as_deref().unwrap_or_default()
    )
}
