//! Which addresses may be connected to, judged after the name was resolved and before the connect.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Which addresses may be connected to (D9). The full table, with the allow-list of the cluster's own
/// networks, comes with the guardrail.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddressPolicy {
    reach: Reach,
    own: Vec<IpAddr>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Reach {
    #[default]
    Cluster,
    LocalRun,
}

impl AddressPolicy {
    /// In a pod: never loopback, link-local, metadata, multicast or unspecified addresses, nor those of
    /// the pod itself.
    #[must_use]
    pub fn cluster(own: Vec<IpAddr>) -> Self {
        Self { reach: Reach::Cluster, own }
    }

    /// A run of local processes without Kubernetes: loopback is allowed, and `localhost` resolves to it.
    #[must_use]
    pub fn local_run() -> Self {
        Self { reach: Reach::LocalRun, own: Vec::new() }
    }

    /// True when `localhost` may stand for 127.0.0.1.
    #[must_use]
    pub fn resolves_localhost(&self) -> bool {
        self.reach == Reach::LocalRun
    }

    /// Whether to connect there.
    #[must_use]
    pub fn allows(&self, address: IpAddr) -> bool {
        let address = embedded(address);
        if address.is_loopback() {
            return self.reach == Reach::LocalRun;
        }
        let refused = match address {
            IpAddr::V4(v4) => refuses_v4(v4),
            IpAddr::V6(v6) => refuses_v6(v6),
        };
        !refused && !self.own.iter().any(|own| embedded(*own) == address)
    }
}

/// The IPv4 address that an IPv6 one stands for: mapped, compatible, NAT64 or 6to4.
fn embedded(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    if v6.is_loopback() || v6.is_unspecified() {
        return address;
    }
    let octets = v6.octets();
    let v4 = |at: usize| match octets.get(at..).and_then(|rest| rest.first_chunk::<4>()) {
        Some(octets) => IpAddr::V4(Ipv4Addr::from(*octets)),
        None => address,
    };
    match v6.segments() {
        [0, 0, 0, 0, 0, 0 | 0xffff, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => v4(12),
        [0x2002, ..] => v4(2),
        _ => address,
    }
}

fn refuses_v4(address: Ipv4Addr) -> bool {
    address.is_link_local()
        || address.is_unspecified()
        || address.is_multicast()
        || address.is_broadcast()
        || address.octets()[0] == 0
        || address.octets()[0] >= 240
}

fn refuses_v6(address: Ipv6Addr) -> bool {
    /// The metadata service of one cloud, at a unique local address.
    const METADATA: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
    address.is_unspecified()
        || address.is_multicast()
        || address.is_unicast_link_local()
        || address == METADATA
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d9_addresses_of_the_pod_and_the_node_are_refused() {
        let policy = AddressPolicy::cluster(vec!["10.1.2.3".parse().unwrap()]);
        for refused in [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "169.254.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "240.0.0.1",
            "10.1.2.3",
            "::1",
            "::",
            "fe80::1",
            "ff02::1",
            "fd00:ec2::254",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "2002:7f00:1::",
            "::127.0.0.1",
            "::ffff:10.1.2.3",
        ] {
            assert!(!policy.allows(refused.parse().unwrap()), "{refused}");
        }
        for allowed in ["10.96.0.1", "192.168.1.1", "203.0.113.7", "2001:db8::1", "fd12::1"] {
            assert!(policy.allows(allowed.parse().unwrap()), "{allowed}");
        }
    }

    #[test]
    fn a_local_run_adds_loopback_and_nothing_else() {
        let policy = AddressPolicy::local_run();
        for allowed in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            assert!(policy.allows(allowed.parse().unwrap()), "{allowed}");
        }
        for refused in ["169.254.169.254", "0.0.0.0", "fe80::1", "224.0.0.1"] {
            assert!(!policy.allows(refused.parse().unwrap()), "{refused}");
        }
    }
}
