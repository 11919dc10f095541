//! The cluster's nameservers and domain, as kubelet wrote them for the operator's own pod.
//!
//! Sidecars must not read `resolv.conf` (a root sibling could rewrite it), so they get these as arguments.

use std::net::IpAddr;

/// What a `resolv.conf` says of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolvConf {
    /// The nameservers, in order.
    pub nameservers: Vec<String>,
    /// The cluster's domain: what follows `svc.` in the search list.
    pub cluster_domain: Option<String>,
}

/// Reads the text of a `resolv.conf` (resolv.conf(5)). What is no address is left out.
#[must_use]
pub fn parse(text: &str) -> ResolvConf {
    let mut found = ResolvConf::default();
    for line in text.lines() {
        let line = line.split(['#', ';']).next().unwrap_or_default();
        let mut words = line.split_ascii_whitespace();
        match words.next() {
            Some("nameserver") => {
                let address = words.next().filter(|it| it.parse::<IpAddr>().is_ok());
                found.nameservers.extend(address.map(str::to_owned));
            }
            // The last search line counts.
            Some("search") => {
                found.cluster_domain = words
                    .find_map(|domain| domain.trim_end_matches('.').strip_prefix("svc."))
                    .filter(|domain| !domain.is_empty())
                    .map(str::to_ascii_lowercase);
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kubelet_writes_is_understood() {
        let text = "search behalf-system.svc.cluster.local svc.cluster.local cluster.local example.com\nnameserver 10.96.0.10\nnameserver fd00::a\noptions ndots:5\n";
        let found = parse(text);
        assert_eq!(found.nameservers, ["10.96.0.10", "fd00::a"]);
        assert_eq!(found.cluster_domain.as_deref(), Some("cluster.local"));
    }

    #[test]
    fn what_is_not_there_is_not_made_up() {
        for text in [
            "",
            "nameserver",
            "nameserver example.com\nsearch example.com",
            "# nameserver 10.0.0.1",
            "search svc.",
        ] {
            assert_eq!(parse(text), ResolvConf::default(), "{text:?}");
        }
    }
}
