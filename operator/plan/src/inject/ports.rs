//! Ports that somebody counts on and that the packet rules close, each with the line that opens it.

use behalf_crds::v1alpha1::{AgentIdentity, ExtraPort, TransportProtocol};
use behalf_policy::wire;
use k8s_openapi::api::core::v1::{Pod, PodSpec, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{Warning, served};

const TCP: &str = "TCP";
/// Where Prometheus configurations commonly look for the port to scrape, on pods and on Services.
const ANNOTATION_SCRAPE_PORT: &str = "prometheus.io/port";
/// Says with `false` that nobody is to scrape.
const ANNOTATION_SCRAPE: &str = "prometheus.io/scrape";

/// A port that somebody counts on.
struct Wanted {
    number: i32,
    protocol: String,
    /// Who, for a person.
    by: Vec<String>,
}

/// One warning for each port that the pod declares, that a Service selecting the pod targets or that a scrape annotation
/// names, and that is neither the server's, nor one of the identity's `extraPorts`, nor ours.
pub(super) fn closed(pod: &Pod, identity: &AgentIdentity, services: &[Service]) -> Vec<Warning> {
    let nothing = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&nothing);
    let mut wanted: Vec<Wanted> = Vec::new();
    let mut want = |number: i32, protocol: &str, by: String| match wanted
        .iter_mut()
        .find(|it| it.number == number && it.protocol == protocol)
    {
        Some(known) => known.by.push(by),
        None => wanted.push(Wanted { number, protocol: protocol.to_owned(), by: vec![by] }),
    };
    for container in served(spec) {
        for port in container.ports.iter().flatten() {
            let protocol = port.protocol.as_deref().unwrap_or(TCP);
            want(port.container_port, protocol, format!("declared by container {}", container.name));
        }
    }
    for service in services.iter().filter(|service| selects(service, pod)) {
        let name = service.metadata.name.as_deref().unwrap_or_default();
        for port in service.spec.iter().flat_map(|spec| spec.ports.iter().flatten()) {
            for number in targets(port, spec) {
                want(number, port.protocol.as_deref().unwrap_or(TCP), format!("targeted by Service {name}"));
            }
        }
        if let Some(number) = scraped(&service.metadata) {
            want(number, TCP, format!("named by annotation {ANNOTATION_SCRAPE_PORT} of Service {name}"));
        }
    }
    if let Some(number) = scraped(&pod.metadata) {
        want(number, TCP, format!("named by annotation {ANNOTATION_SCRAPE_PORT}"));
    }
    let name = identity.metadata.name.as_deref().unwrap_or_default();
    let closed = wanted.into_iter().filter(|it| !stays_open(it.number, &it.protocol, identity));
    closed
        .map(|Wanted { number, protocol, by }| Warning {
            message: format!(
                "port {number}/{protocol} ({}) is closed to everything outside the pod; to leave it open, and not behind Behalf, add to AgentIdentity {name}: spec.servers[0].interception.extraPorts: - {{port: {number}, protocol: {protocol}}}",
                by.join(", ")
            ),
        })
        .collect()
}

/// Whether the Service's selector picks the pod. One without a selector picks none.
fn selects(service: &Service, pod: &Pod) -> bool {
    let same_namespace = match (&service.metadata.namespace, &pod.metadata.namespace) {
        (Some(of_service), Some(of_pod)) => of_service == of_pod,
        // A pod made from a template has none yet; the caller asks for one namespace.
        _ => true,
    };
    let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    let labels = pod.metadata.labels.as_ref();
    let has = |(key, value): (&String, &String)| labels.and_then(|labels| labels.get(key)) == Some(value);
    same_namespace && selector.is_some_and(|selector| !selector.is_empty() && selector.iter().all(has))
}

/// The pod's ports that a Service port leads to: a name may stand for none, as endpoints are made.
fn targets(port: &ServicePort, spec: &PodSpec) -> Vec<i32> {
    let protocol = port.protocol.as_deref().unwrap_or(TCP);
    match &port.target_port {
        None | Some(IntOrString::Int(0)) => vec![port.port],
        Some(IntOrString::Int(number)) => vec![*number],
        Some(IntOrString::String(name)) => {
            let declared = served(spec).flat_map(|container| container.ports.iter().flatten());
            let named = declared.filter(|it| {
                it.name.as_ref() == Some(name) && it.protocol.as_deref().unwrap_or(TCP) == protocol
            });
            named.map(|it| it.container_port).take(1).collect()
        }
    }
}

fn scraped(metadata: &ObjectMeta) -> Option<i32> {
    let annotations = metadata.annotations.as_ref()?;
    if annotations.get(ANNOTATION_SCRAPE).is_some_and(|value| value == "false") {
        return None;
    }
    annotations.get(ANNOTATION_SCRAPE_PORT)?.parse().ok().filter(|number| (1..=65_535).contains(number))
}

fn stays_open(number: i32, protocol: &str, identity: &AgentIdentity) -> bool {
    // The egress port is loopback's only, and no line opens it.
    let ours = wire::INBOUND_PORT..=wire::METRICS_PORT;
    if protocol == TCP && u16::try_from(number).is_ok_and(|number| ours.contains(&number)) {
        return true;
    }
    let number = i64::from(number);
    let same = |extra: &ExtraPort| {
        let declared = match extra.protocol {
            TransportProtocol::Tcp => TCP,
            TransportProtocol::Udp => "UDP",
            TransportProtocol::Sctp => "SCTP",
        };
        extra.port == number && declared == protocol
    };
    identity.spec.servers.iter().any(|server| {
        (server.port == number && protocol == TCP) || server.interception.extra_ports.iter().any(same)
    })
}
