//! Names, addresses and paths of the local cluster.
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::cache;

/// The network namespace of the node, and the name of its parent cgroup.
pub const NAMESPACE: &str = "behalf";
/// The machine's end of the veth pair that joins it with the node.
pub const LINK: &str = "behalf0";
/// The node's name in the API.
pub const NODE: &str = "node1";
/// The node's address. 198.18.0.0/15 is set aside for tests (RFC 2544).
pub const NODE_IP: &str = "198.18.0.2";
/// The node's IPv6 address.
pub const NODE_IP6: &str = "fd00:198:18::2";
/// The machine's addresses on the veth pair, with their prefix lengths.
pub const MACHINE: [&str; 2] = ["198.18.0.1/24", "fd00:198:18::1/64"];
/// Service addresses, IPv4 and IPv6.
pub const SERVICES: [&str; 2] = ["10.96.0.0/16", "fd00:10:96::/112"];
/// Pod addresses, IPv4 and IPv6.
pub const PODS: [&str; 2] = ["10.244.0.0/24", "fd00:10:244::/64"];
/// The Service of the API server.
pub const API_SERVICE: &str = "10.96.0.1";
/// The Service of the cluster's DNS.
pub const DNS_SERVICE: &str = "10.96.0.10";
/// The cluster's DNS domain.
pub const DOMAIN: &str = "cluster.local";

/// Where things of the local cluster lie.
#[derive(Clone)]
pub struct Layout {
    /// Everything that is kept between runs.
    pub cache: PathBuf,
    /// The run of the cluster: keys, logs, sockets, data. Removed by `down`.
    pub run: PathBuf,
}

impl Layout {
    /// The layout under [`cache::root`].
    ///
    /// # Errors
    /// There is no home directory.
    pub fn find() -> Result<Self> {
        let cache = cache::root()?;
        Ok(Self { run: cache.join("run"), cache })
    }

    /// The administrator's kubeconfig.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.run.join("admin.conf")
    }

    /// The socket of the node's containerd.
    #[must_use]
    pub fn containerd(&self) -> PathBuf {
        self.run.join("containerd.sock")
    }

    /// The file by which the node's network namespace is entered.
    #[must_use]
    pub fn netns() -> &'static Path {
        Path::new("/run/netns/behalf")
    }
}
