//! What a URL in an object may be: where a token or a call could be led astray, it is refused here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use behalf_policy::raw_path;
use url::{Host, Url};

/// Names that cloud metadata services answer to.
const METADATA_NAMES: [&str; 4] = ["metadata", "metadata.goog", "metadata.google.internal", "instance-data"];
/// Addresses of cloud metadata services outside the link-local range.
const METADATA_V4: [Ipv4Addr; 2] = [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(168, 63, 129, 16)];
/// The same, IPv6.
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

/// Why a URL is not taken, as the end of a sentence that begins with the URL.
pub(crate) type Cause = &'static str;

/// An http or https URL with nothing but host, port and path.
pub(crate) fn plain(text: &str) -> Result<Url, Cause> {
    let url = Url::parse(text).map_err(|_| "is not a URL")?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err("is not an http or https URL");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("holds a user or a password");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("holds a query or a fragment");
    }
    Ok(url)
}

/// An https URL that leads out of the pod, never to itself, its node or a metadata service.
pub(crate) fn destination(text: &str) -> Result<Url, Cause> {
    let url = plain(text)?;
    if url.scheme() != "https" {
        return Err("is not https");
    }
    if leads_back(&url) {
        return Err("is a loopback, link-local or metadata address");
    }
    // The parser resolves dot segments; what was written is what a person reviewed.
    let path = text.splitn(4, '/').nth(3).map_or_else(|| "/".to_owned(), |path| format!("/{path}"));
    raw_path::check(&path).map_err(|_| "has a path that could be read as another one")?;
    Ok(url)
}

/// What a host under the cluster's `svc` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ServiceHost<'a> {
    /// `<service>.<namespace>.svc`, with or without the domain; a pod's own name in front of it too.
    Of {
        /// The Service's namespace.
        namespace: &'a str,
    },
    /// It names no Service.
    Malformed,
}

/// What a URL says of this cluster's Services; none if its host is not under `svc` there, whatever else it looks like.
pub(crate) fn service_host<'a>(url: &'a Url, cluster_domain: &str) -> Option<ServiceHost<'a>> {
    // In lower case, without escapes: the parser saw to that.
    let Some(Host::Domain(host)) = url.host() else { return None };
    let host = host.strip_suffix('.').unwrap_or(host);
    let domain = cluster_domain.trim_matches('.').to_ascii_lowercase();
    let bare = host.strip_suffix(domain.as_str()).and_then(|rest| rest.strip_suffix('.')).unwrap_or(host);
    let name = bare.strip_suffix(".svc")?;
    let labels: Vec<_> = name.split('.').collect();
    match labels.as_slice() {
        [_, .., namespace] if labels.iter().all(|label| !label.is_empty()) => {
            Some(ServiceHost::Of { namespace })
        }
        _ => Some(ServiceHost::Malformed),
    }
}

/// Whether a URL's host is a Service of this cluster by its form: `<service>.<namespace>.svc`, with or without the domain.
pub(crate) fn is_cluster_local(url: &Url, cluster_domain: &str) -> bool {
    matches!(service_host(url, cluster_domain), Some(ServiceHost::Of { .. }))
}

/// One spelling for all URLs that mean one server: default port gone, no slash at the end.
pub(crate) fn canonical(text: &str) -> Option<String> {
    let url = plain(text).ok()?;
    Some(format!("{}{}", url.origin().ascii_serialization(), url.path().trim_end_matches('/')))
}

fn leads_back(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            name == "localhost" || name.ends_with(".localhost") || METADATA_NAMES.contains(&name.as_str())
        }
        Some(Host::Ipv4(address)) => v4_leads_back(address),
        Some(Host::Ipv6(address)) => v6_leads_back(address),
        None => true,
    }
}

fn v4_leads_back(address: Ipv4Addr) -> bool {
    let [first, ..] = address.octets();
    first == 0
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_broadcast()
        || METADATA_V4.contains(&address)
}

fn v6_leads_back(address: Ipv6Addr) -> bool {
    embedded_v4(address).is_some_and(v4_leads_back)
        || address.is_loopback()
        || address.is_unspecified()
        || address.is_unicast_link_local()
        || IpAddr::V6(address).is_multicast()
        || address == METADATA_V6
}

/// The IPv4 address that a mapped (RFC 4291 §2.5.5) or translated (RFC 6052) address stands for.
fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    if let [0x64, 0xff9b, 0, 0, 0, 0, high, low] = address.segments() {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        return Some(Ipv4Addr::new(a, b, c, d));
    }
    address.to_ipv4()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_lead_out_of_the_pod_by_https() {
        for text in [
            "https://payroll.hr.svc",
            "https://api.example.com/v1",
            "https://10.0.0.7:8443/x",
            "https://[fd00::7]/",
        ] {
            assert!(destination(text).is_ok(), "{text}");
        }
        for text in [
            "http://payroll.hr.svc",
            "ftp://payroll.hr.svc",
            "payroll.hr.svc",
            "https://user@payroll.hr.svc",
            "https://payroll.hr.svc/?a=b",
            "https://payroll.hr.svc/#a",
            "https://localhost/",
            "https://localhost./",
            "https://x.localhost/",
            "https://127.0.0.1/",
            "https://127.9.9.9/",
            "https://2130706433/",
            "https://0.0.0.0/",
            "https://169.254.169.254/latest",
            "https://100.100.100.200/",
            "https://168.63.129.16/",
            "https://metadata.google.internal/",
            "https://[::1]/",
            "https://[::]/",
            "https://[::ffff:127.0.0.1]/",
            "https://[::ffff:169.254.169.254]/",
            "https://[64:ff9b::a9fe:a9fe]/",
            "https://[fe80::1]/",
            "https://[fd00:ec2::254]/",
            "https://[ff02::1]/",
            "https://api.example.com/v1/../admin",
            "https://api.example.com//v1",
            "https://api.example.com/v1;x",
            "https://api.example.com/%2e%2e/v1",
        ] {
            assert!(destination(text).is_err(), "{text}");
        }
    }

    #[test]
    fn cluster_local_is_a_service_of_this_cluster() {
        let local = |text: &str| is_cluster_local(&plain(text).unwrap(), "cluster.local");
        for text in ["http://hr.hr.svc/mcp", "http://hr.hr.svc.cluster.local:80/mcp", "http://a.b.c.svc"] {
            assert!(local(text), "{text}");
        }
        for text in [
            "http://svc/",
            "http://hr.svc/",
            "http://hr/",
            "http://hr.example.com/",
            "http://hr.hr.svc.example.com/",
            "http://hr.hr.svcx/",
            "http://hr.hr.svc.xcluster.local/",
            "http://.hr.svc/",
            "http://10.0.0.1/",
        ] {
            assert!(!local(text), "{text}");
        }
    }

    #[test]
    fn the_namespace_of_a_service_is_the_label_before_svc_however_it_is_written() {
        let of = |text: &str| match service_host(&plain(text).unwrap(), "cluster.local") {
            Some(ServiceHost::Of { namespace }) => namespace.to_owned(),
            Some(ServiceHost::Malformed) => "malformed".to_owned(),
            None => "outside".to_owned(),
        };
        for (text, expected) in [
            ("https://tools.hr.svc/mcp", "hr"),
            ("https://tools.hr.svc.cluster.local/mcp", "hr"),
            ("https://TOOLS.HR.SVC.Cluster.Local:8443/mcp", "hr"),
            ("https://tools.hr.svc./mcp", "hr"),
            ("https://tools.hr.svc.cluster.local./mcp", "hr"),
            ("https://tools%2Ehr%2Esvc/mcp", "hr"),
            ("https://tools\u{3002}hr\u{ff0e}svc/mcp", "hr"),
            ("https://pod-0.tools.hr.svc/mcp", "hr"),
            ("https://tools.finance.hr.svc/mcp", "hr"),
            ("https://hr.svc/mcp", "malformed"),
            ("https://hr.svc.cluster.local/mcp", "malformed"),
            ("https://tools..svc/mcp", "malformed"),
            ("https://svc/mcp", "outside"),
            ("https://svc.cluster.local/mcp", "outside"),
            ("https://tools.hr.svc.example.com/mcp", "outside"),
            ("https://svc.hr.example.com/mcp", "outside"),
            ("https://tools.hr.mysvc/mcp", "outside"),
            ("https://tools.hr.svc.cluster.local.example.com/mcp", "outside"),
            ("https://tools.hr.svc.evilcluster.local/mcp", "outside"),
            ("https://tools.hr/mcp", "outside"),
            ("https://10.0.0.1/mcp", "outside"),
            ("https://[fd00::1]/mcp", "outside"),
        ] {
            assert_eq!(of(text), expected, "{text}");
        }
        let other = |text| service_host(&plain(text).unwrap(), "Corp.Example.").is_some();
        assert!(
            other("https://tools.hr.svc.corp.example/mcp") && !other("https://tools.hr.svc.cluster.local/")
        );
    }

    #[test]
    fn spellings_of_one_server_are_one() {
        for text in
            ["https://hr.example.com/mcp", "https://hr.example.com:443/mcp", "https://hr.example.com/mcp/"]
        {
            assert_eq!(canonical(text).as_deref(), Some("https://hr.example.com/mcp"), "{text}");
        }
        assert_ne!(canonical("https://hr.example.com/mcp"), canonical("https://hr.example.com/MCP"));
        assert_ne!(canonical("https://hr.example.com/mcp"), canonical("http://hr.example.com/mcp"));
    }
}
