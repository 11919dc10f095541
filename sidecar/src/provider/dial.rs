//! From a URL's authority to a TCP connection: resolve once with the configured nameservers, judge every
//! address of the answer, connect to one of the very addresses that were judged.
//!
//! A name with one address that may not be connected to is refused as a whole, though another address of
//! it might do: no honest name of a downstream has one, and trying the rest would hide who answers for the
//! name and leave the outcome to the order of an answer. The name is not resolved again between judging
//! and connecting, so that DNS which changes its mind changes nothing.
//!
//! A root sibling can write the pod's `/etc/hosts` and `/etc/resolv.conf`, so neither is read.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower::Service;

use super::address::{AddressPolicy, AddressRefusal};

/// How the network is reached. From the sidecar's own arguments, never from files of the pod.
#[derive(Debug, Clone)]
pub struct Network {
    /// Nameservers, asked in order.
    pub nameservers: Vec<SocketAddr>,
    /// Domain of the cluster's services (`cluster.local`): names that end in `.svc` are below it.
    pub cluster_domain: String,
    /// Which addresses may be connected to.
    pub addresses: AddressPolicy,
    /// How long resolving and connecting may take.
    pub connect_timeout: Duration,
    /// How long a request to a provider may take in all.
    pub total_timeout: Duration,
}

impl Network {
    /// The network of a pod with the usual time limits: 3 s to connect, 10 s in all.
    #[must_use]
    pub fn new(nameservers: Vec<SocketAddr>, cluster_domain: String, addresses: AddressPolicy) -> Self {
        Self {
            nameservers,
            cluster_domain,
            addresses,
            connect_timeout: Duration::from_secs(3),
            total_timeout: Duration::from_secs(10),
        }
    }
}

/// Why there is no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// The URL has no host, or one that is no name.
    #[error("the URL has no usable host")]
    Host,
    /// The name did not resolve.
    #[error("the name does not resolve")]
    NotResolved,
    /// It resolved to an address that may not be connected to.
    #[error("the name resolves to an address that is not allowed: {0}")]
    AddressRefused(AddressRefusal),
    /// No address took the connection.
    #[error("no address took the connection")]
    NotConnected,
    /// It took too long.
    #[error("connecting took too long")]
    Timeout,
}

/// Opens TCP connections by the rules above. A cheap clone shares the resolver and its cache.
#[derive(Clone)]
pub(super) struct Dialer(Arc<Inner>);

struct Inner {
    resolver: Option<TokioResolver>,
    cluster_domain: String,
    addresses: AddressPolicy,
    timeout: Duration,
}

impl Dialer {
    pub(super) fn new(network: &Network) -> Result<Self, DialError> {
        Ok(Self(Arc::new(Inner {
            resolver: resolver(network)?,
            cluster_domain: network.cluster_domain.trim_matches('.').to_ascii_lowercase(),
            addresses: network.addresses.clone(),
            timeout: network.connect_timeout,
        })))
    }

    async fn connect(self, uri: Uri) -> Result<TokioIo<TcpStream>, DialError> {
        let connected = tokio::time::timeout(self.0.timeout, self.0.connect(&uri)).await;
        let stream = connected.map_err(|_| DialError::Timeout)??;
        // Small requests wait for nothing; a socket that cannot be told so still works.
        let _ = stream.set_nodelay(true);
        Ok(TokioIo::new(stream))
    }
}

impl Inner {
    async fn connect(&self, uri: &Uri) -> Result<TcpStream, DialError> {
        let host = uri.host().ok_or(DialError::Host)?;
        let port = uri.port_u16().unwrap_or(443);
        let addresses = self.resolve(host).await?;
        for address in &addresses {
            self.addresses.judge(*address).map_err(DialError::AddressRefused)?;
        }
        for address in addresses {
            if let Ok(stream) = TcpStream::connect(SocketAddr::new(address, port)).await {
                return Ok(stream);
            }
        }
        Err(DialError::NotConnected)
    }

    async fn resolve(&self, host: &str) -> Result<Vec<IpAddr>, DialError> {
        let literal = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        if let Ok(address) = literal.parse::<IpAddr>() {
            return Ok(vec![address]);
        }
        let name = host.trim_end_matches('.').to_ascii_lowercase();
        if name == "localhost" || name.ends_with(".localhost") {
            // RFC 6761 §6.3; in a pod, no downstream or provider is there.
            return if self.addresses.resolves_localhost() {
                Ok(vec![IpAddr::V4(Ipv4Addr::LOCALHOST)])
            } else {
                Err(DialError::AddressRefused(AddressRefusal::Loopback))
            };
        }
        let resolver = self.resolver.as_ref().ok_or(DialError::NotResolved)?;
        let found = resolver
            .lookup_ip(absolute(&name, &self.cluster_domain).as_str())
            .await
            .map_err(|_| DialError::NotResolved)?;
        let addresses: Vec<IpAddr> = found.iter().collect();
        if addresses.is_empty() { Err(DialError::NotResolved) } else { Ok(addresses) }
    }
}

/// The one absolute name to ask for. There is no search list: `idp.example.com` must never be answered
/// by a service `example` of a namespace `com`.
fn absolute(name: &str, cluster_domain: &str) -> String {
    if !cluster_domain.is_empty() && name.rsplit_once('.').is_some_and(|(_, last)| last == "svc") {
        format!("{name}.{cluster_domain}.")
    } else {
        format!("{name}.")
    }
}

fn resolver(network: &Network) -> Result<Option<TokioResolver>, DialError> {
    if network.nameservers.is_empty() {
        return Ok(None);
    }
    let servers = network.nameservers.iter().map(|server| {
        let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
            connection.port = server.port();
            connection
        });
        NameServerConfig::new(server.ip(), true, connections.into())
    });
    let config = ResolverConfig::from_parts(None, Vec::new(), servers.collect());
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    let options = builder.options_mut();
    options.use_hosts_file = ResolveHosts::Never;
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.timeout = Duration::from_secs(1);
    options.attempts = 2;
    builder.build().map(Some).map_err(|_| DialError::NotResolved)
}

impl Service<Uri> for Dialer {
    type Response = TokioIo<TcpStream>;
    type Error = DialError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, DialError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), DialError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_absolute_and_only_svc_names_are_below_the_cluster_domain() {
        for (name, asked) in [
            ("payroll.hr.svc", "payroll.hr.svc.cluster.local."),
            ("payroll.hr.svc.cluster.local", "payroll.hr.svc.cluster.local."),
            ("idp.example.com", "idp.example.com."),
            ("svc", "svc."),
        ] {
            assert_eq!(absolute(name, "cluster.local"), asked);
        }
    }
}
