//! Which addresses may be connected to, judged after the name was resolved and before the connect (D9).
//!
//! A catalogue row or a provider names a host; who answers for that name in DNS is not the platform team
//! alone. So what a name resolves to is judged, not the name: never the pod itself, its node, or the
//! services that cloud machines find at fixed addresses, however the address is written. Private networks
//! are allowed, because that is where the services of a cluster live.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Which addresses may be connected to.
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

/// Why an address is not connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressRefusal {
    /// 127.0.0.0/8, `::1`.
    #[error("the address is loopback")]
    Loopback,
    /// 169.254.0.0/16, `fe80::/10`, `fec0::/10`.
    #[error("the address is link-local")]
    LinkLocal,
    /// A fixed address at which clouds serve their machines' credentials.
    #[error("the address is that of a metadata service")]
    Metadata,
    /// 0.0.0.0/8, `::`.
    #[error("the address is unspecified")]
    Unspecified,
    /// 224.0.0.0/4, 240.0.0.0/4 with broadcast, `ff00::/8`.
    #[error("the address is no host's")]
    NoHost,
    /// One of the pod itself.
    #[error("the address is the pod's own")]
    Own,
    /// Of a kind that holds an IPv4 address which cannot be told (RFC 4380, RFC 8215, RFC 5214).
    #[error("the address stands for another that cannot be told")]
    Opaque,
}

impl AddressPolicy {
    /// In a pod: see [`AddressRefusal`].
    #[must_use]
    pub fn cluster(own: Vec<IpAddr>) -> Self {
        Self { reach: Reach::Cluster, own }
    }

    /// A run of local processes without Kubernetes: loopback is allowed, and `localhost` resolves to it.
    #[must_use]
    pub fn local_run() -> Self {
        Self { reach: Reach::LocalRun, own: Vec::new() }
    }

    /// Adds addresses of the pod itself.
    #[must_use]
    pub fn with_own(mut self, own: impl IntoIterator<Item = IpAddr>) -> Self {
        self.own.extend(own);
        self
    }

    /// True when `localhost` may stand for 127.0.0.1.
    #[must_use]
    pub fn resolves_localhost(&self) -> bool {
        self.reach == Reach::LocalRun
    }

    /// Whether to connect there.
    ///
    /// # Errors
    /// Why not. An IPv6 address that stands for an IPv4 one is judged as that.
    pub fn judge(&self, address: IpAddr) -> Result<(), AddressRefusal> {
        let address = embedded(address)?;
        if self.own.iter().any(|own| embedded(*own) == Ok(address)) {
            return Err(AddressRefusal::Own);
        }
        if address.is_loopback() && self.reach == Reach::LocalRun {
            return Ok(());
        }
        match address {
            IpAddr::V4(v4) => judge_v4(v4),
            IpAddr::V6(v6) => judge_v6(v6),
        }
    }
}

/// The IPv4 address that an IPv6 one stands for: mapped, compatible, translated, NAT64 or 6to4.
fn embedded(address: IpAddr) -> Result<IpAddr, AddressRefusal> {
    let IpAddr::V6(v6) = address else { return Ok(address) };
    if v6.is_loopback() || v6.is_unspecified() {
        return Ok(address);
    }
    let octets = v6.octets();
    let v4 = |at: usize| match octets.get(at..).and_then(|rest| rest.first_chunk::<4>()) {
        Some(octets) => IpAddr::V4(Ipv4Addr::from(*octets)),
        None => address,
    };
    match v6.segments() {
        // Compatible, mapped (RFC 4291 §2.5.5), translated (RFC 2765 §2.1), NAT64 (RFC 6052 §2.1).
        [0, 0, 0, 0, 0, 0 | 0xffff, ..] | [0, 0, 0, 0, 0xffff, 0, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => {
            Ok(v4(12))
        }
        // 6to4 (RFC 3056 §2).
        [0x2002, ..] => Ok(v4(2)),
        // Teredo, whose relay chooses; NAT64 prefixes of the network's own, whose length only it knows;
        // ISATAP, under any prefix; and what else begins as NAT64 does.
        [0x2001, 0, ..] | [0x64, 0xff9b, ..] | [_, _, _, _, 0 | 0x200, 0x5efe, ..] => {
            Err(AddressRefusal::Opaque)
        }
        _ => Ok(address),
    }
}

fn judge_v4(address: Ipv4Addr) -> Result<(), AddressRefusal> {
    /// Metadata services outside of the link-local network.
    const METADATA: [Ipv4Addr; 3] =
        [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(168, 63, 129, 16), Ipv4Addr::new(192, 0, 0, 192)];
    match address.octets() {
        [127, ..] => Err(AddressRefusal::Loopback),
        [169, 254, ..] => Err(AddressRefusal::LinkLocal),
        [0, ..] => Err(AddressRefusal::Unspecified),
        [224..=255, ..] => Err(AddressRefusal::NoHost),
        _ if METADATA.contains(&address) => Err(AddressRefusal::Metadata),
        _ => Ok(()),
    }
}

fn judge_v6(address: Ipv6Addr) -> Result<(), AddressRefusal> {
    /// Metadata services at unique local addresses.
    const METADATA: [Ipv6Addr; 3] = [
        Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
        Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
        Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42),
    ];
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 1] => Err(AddressRefusal::Loopback),
        [0, 0, 0, 0, 0, 0, 0, 0] => Err(AddressRefusal::Unspecified),
        // The upper half is the site-local network of old (RFC 3879).
        [0xfe80..=0xfeff, ..] => Err(AddressRefusal::LinkLocal),
        [0xff00..=0xffff, ..] => Err(AddressRefusal::NoHost),
        _ if METADATA.contains(&address) => Err(AddressRefusal::Metadata),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(policy: &AddressPolicy, address: &str) -> Result<(), AddressRefusal> {
        policy.judge(address.parse().unwrap())
    }

    #[test]
    fn d9_addresses_of_the_pod_the_node_and_the_cloud_are_refused_however_they_are_written() {
        use AddressRefusal::{LinkLocal, Loopback, Metadata, NoHost, Opaque, Own, Unspecified};
        let policy = AddressPolicy::cluster(vec![
            "10.1.2.3".parse().unwrap(),
            "fd12::3".parse().unwrap(),
            "::ffff:10.1.2.4".parse().unwrap(),
        ]);
        for (address, why) in [
            ("127.0.0.1", Loopback),
            ("127.9.9.9", Loopback),
            ("127.255.255.255", Loopback),
            ("::1", Loopback),
            ("::ffff:127.0.0.1", Loopback),
            ("::ffff:0:127.0.0.1", Loopback),
            ("::127.0.0.1", Loopback),
            ("64:ff9b::7f00:1", Loopback),
            ("2002:7f00:1::", Loopback),
            ("2002:7f00:1:1:2:3:4:5", Loopback),
            ("169.254.0.1", LinkLocal),
            ("169.254.169.254", LinkLocal),
            ("::ffff:169.254.169.254", LinkLocal),
            ("64:ff9b::a9fe:a9fe", LinkLocal),
            ("2002:a9fe:a9fe::1", LinkLocal),
            ("::169.254.169.254", LinkLocal),
            ("fe80::1", LinkLocal),
            ("febf::1", LinkLocal),
            ("fec0::1", LinkLocal),
            ("100.100.100.200", Metadata),
            ("168.63.129.16", Metadata),
            ("192.0.0.192", Metadata),
            ("::ffff:100.100.100.200", Metadata),
            ("fd00:ec2::254", Metadata),
            ("fd20:ce::254", Metadata),
            ("fd00:42::42", Metadata),
            ("0.0.0.0", Unspecified),
            ("0.1.2.3", Unspecified),
            ("::", Unspecified),
            ("::ffff:0.0.0.0", Unspecified),
            ("64:ff9b::", Unspecified),
            ("2002::1", Unspecified),
            ("224.0.0.1", NoHost),
            ("239.255.255.255", NoHost),
            ("240.0.0.1", NoHost),
            ("255.255.255.255", NoHost),
            ("::ffff:255.255.255.255", NoHost),
            ("ff02::1", NoHost),
            ("ff05::2", NoHost),
            ("10.1.2.3", Own),
            ("::ffff:10.1.2.3", Own),
            ("64:ff9b::a01:203", Own),
            ("2002:a01:203::1", Own),
            ("10.1.2.4", Own),
            ("fd12::3", Own),
            ("2001::1", Opaque),
            ("2001:0:7f00:1:0:0:80ff:fefe", Opaque),
            ("64:ff9b:1::7f00:1", Opaque),
            ("64:ff9b:1:7f00:0:100::", Opaque),
            ("64:ff9b:1::a00:1", Opaque),
            ("64:ff9b:0:1::7f00:1", Opaque),
            ("2001:db8::5efe:7f00:1", Opaque),
            ("fe80::200:5efe:7f00:1", Opaque),
        ] {
            assert_eq!(judge(&policy, address), Err(why), "{address}");
        }
        for address in [
            "10.96.0.1",
            "10.1.2.5",
            "172.16.0.1",
            "192.168.1.1",
            "100.64.0.1",
            "203.0.113.7",
            "2001:db8::1",
            "fd12::1",
            "64:ff9b::a60:1",
            "2002:cb00:7107::1",
            "::ffff:10.96.0.1",
        ] {
            assert_eq!(judge(&policy, address), Ok(()), "{address}");
        }
    }

    #[test]
    fn a_local_run_adds_loopback_and_nothing_else() {
        let policy = AddressPolicy::local_run().with_own(["127.0.0.9".parse().unwrap()]);
        for allowed in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(judge(&policy, allowed), Ok(()), "{allowed}");
        }
        for refused in ["169.254.169.254", "0.0.0.0", "fe80::1", "224.0.0.1", "127.0.0.9", "::ffff:127.0.0.9"]
        {
            assert!(judge(&policy, refused).is_err(), "{refused}");
        }
    }
}
