//! Where the Services in front of a server lead.

use std::collections::BTreeSet;
use std::net::IpAddr;

use behalf_policy::wire::INBOUND_PORT;
use k8s_openapi::api::core::v1::{ObjectReference, Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{Facts, PodReach};

/// Label of an `EndpointSlice`: the Service it belongs to.
pub const LABEL_SERVICE: &str = "kubernetes.io/service-name";
/// Stands for every port, where a Service without ports leads. No port has this name.
const EVERY_PORT: &str = "*";

/// A ready endpoint of a Service in front of the server that is not behind Behalf for the identity.
pub(super) struct Foreign<'a> {
    pub(super) service: &'a str,
    pub(super) address: &'a str,
    /// The pod it is said to be, if it is said to be one.
    pub(super) pod: Option<&'a str>,
}

/// The first such endpoint, by name of Service.
pub(super) fn foreign(server_port: u16, facts: &Facts) -> Option<Foreign<'_>> {
    let services: BTreeSet<_> = facts.slices.iter().filter_map(|slice| service_of(slice)).collect();
    services.into_iter().find_map(|name| {
        let slices: Vec<_> =
            facts.slices.iter().map(AsRef::as_ref).filter(|slice| service_of(slice) == Some(name)).collect();
        let service = facts.services.iter().find(|service| service.metadata.name.as_deref() == Some(name));
        let front = front(service.map(AsRef::as_ref), &slices, &facts.pods, server_port);
        let leading = slices.iter().filter(|slice| port_names(slice).any(|name| front.contains(name)));
        let mut strangers: Vec<_> = leading
            .flat_map(|slice| slice.endpoints.iter().filter(|endpoint| is_ready(endpoint)))
            .flat_map(|endpoint| endpoint.addresses.iter().map(move |address| (endpoint, address)))
            .filter(|(endpoint, address)| !is_ours(address, endpoint.target_ref.as_ref(), &facts.pods))
            .map(|(endpoint, address)| Foreign {
                service: name,
                address,
                pod: pod_of(endpoint.target_ref.as_ref()),
            })
            .collect();
        // Always the same one, as long as it is there: the order of endpoints is nobody's.
        strangers.sort_by(|a, b| a.address.cmp(b.address));
        strangers.into_iter().next()
    })
}

/// Whether the Service's selector picks what has these labels. One without a selector picks nothing.
#[must_use]
pub fn selects(service: &Service, labels: &std::collections::BTreeMap<String, String>) -> bool {
    let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    let has = |(key, value): (&String, &String)| labels.get(key) == Some(value);
    selector.is_some_and(|selector| !selector.is_empty() && selector.iter().all(has))
}

/// Whether the slice leads to one of these addresses, ready or not.
#[must_use]
pub fn holds(slice: &EndpointSlice, addresses: &BTreeSet<IpAddr>) -> bool {
    let mut held = slice.endpoints.iter().flat_map(|endpoint| &endpoint.addresses);
    held.any(|address| address.parse().is_ok_and(|address| addresses.contains(&address)))
}

fn service_of(slice: &EndpointSlice) -> Option<&str> {
    Some(slice.metadata.labels.as_ref()?.get(LABEL_SERVICE)?.as_str())
}

/// The names of the Service's ports that are in front of the server: those that say so, and those that do so.
fn front<'a>(
    service: Option<&'a Service>,
    slices: &[&'a EndpointSlice],
    pods: &[PodReach],
    server_port: u16,
) -> BTreeSet<&'a str> {
    let is_server = |number: i32| number == i32::from(server_port) || number == i32::from(INBOUND_PORT);
    let selected: Vec<_> =
        pods.iter().filter(|pod| service.is_some_and(|service| selects(service, &pod.labels))).collect();
    let stated = |port: &ServicePort| {
        is_tcp(port.protocol.as_deref())
            && match &port.target_port {
                None | Some(IntOrString::Int(0)) => is_server(port.port),
                Some(IntOrString::Int(number)) => is_server(*number),
                Some(IntOrString::String(name)) => {
                    selected.iter().any(|pod| pod.ports.get(name).is_some_and(|it| is_server((*it).into())))
                }
            }
    };
    let mut front = BTreeSet::new();
    if let Some(spec) = service.and_then(|service| service.spec.as_ref()).filter(|_| !selected.is_empty()) {
        let ports = spec.ports.as_deref().unwrap_or_default();
        front.extend(ports.iter().filter(|port| stated(port)).map(|port| name(port.name.as_deref())));
        front.extend(ports.is_empty().then_some(EVERY_PORT));
    }
    let shown = |port: &EndpointPort| is_tcp(port.protocol.as_deref()) && port.port.is_none_or(is_server);
    for slice in slices.iter().filter(|slice| pods.iter().any(|pod| holds(slice, &pod.addresses))) {
        let ports = slice.ports.as_deref().unwrap_or_default();
        front.extend(ports.iter().filter(|port| shown(port)).map(|port| name(port.name.as_deref())));
        front.extend(ports.is_empty().then_some(EVERY_PORT));
    }
    front
}

fn port_names(slice: &EndpointSlice) -> impl Iterator<Item = &str> {
    let ports = slice.ports.as_deref().unwrap_or_default();
    let named = ports.iter().filter(|port| is_tcp(port.protocol.as_deref()));
    named.map(|port| name(port.name.as_deref())).chain(ports.is_empty().then_some(EVERY_PORT))
}

/// A Service's only port may have no name, or an empty one.
fn name(name: Option<&str>) -> &str {
    name.unwrap_or_default()
}

fn is_tcp(protocol: Option<&str>) -> bool {
    protocol.is_none_or(|protocol| protocol == "TCP")
}

/// Unknown counts as ready, as the API says.
fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true)
}

/// The address decides, since that is where calls go; a reference may be anybody's word, and must at least not say otherwise.
fn is_ours(address: &str, target: Option<&ObjectReference>, pods: &[PodReach]) -> bool {
    let Ok(address) = address.parse::<IpAddr>() else { return false };
    let named = |pod: &PodReach| pod_of(target).is_none_or(|name| name == pod.name);
    pods.iter().any(|pod| pod.addresses.contains(&address) && named(pod))
}

fn pod_of(target: Option<&ObjectReference>) -> Option<&str> {
    target.filter(|target| target.kind.as_deref() == Some("Pod"))?.name.as_deref()
}
