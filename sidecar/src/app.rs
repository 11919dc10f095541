//! The composition root: chooses the parts, binds the sockets, and ends them in order.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::admin::{self, Block, Prober, ProberError, Probes, Readiness};
use crate::audit::{Audit, AuditError};
use crate::bundle_source::{BundleSource, Bundles, Expected};
use crate::clock::Clock;
use crate::config::Config;
use crate::drain::Drain;
use crate::exchange::Exchanger;
use crate::handles::Handles;
use crate::inbound::{self, Inbound};
use crate::metrics::Metrics;
use crate::outbound::{self, Outbound};
use crate::provider::Providers;
use crate::provider::address::AddressPolicy;
use crate::provider::dial::{DialError, Network};
use crate::provider::http::HttpClient;
use crate::token::Verifier;

/// Port of name servers.
const DNS: u16 = 53;

/// Why the sidecar does not start.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// A port is taken (`PortSquatted`) or an address is not ours.
    #[error("PortSquatted: {socket} cannot listen on {address}")]
    Bind {
        /// Which of our sockets.
        socket: &'static str,
        /// Where.
        address: SocketAddr,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// Records cannot be written.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The moved probes cannot be performed.
    #[error(transparent)]
    Probes(#[from] ProberError),
    /// Providers and downstreams cannot be reached.
    #[error("the network client cannot be set up")]
    Network(#[from] DialError),
}

/// Where a running sidecar listens.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    /// For callers.
    pub inbound: SocketAddr,
    /// For the server behind us.
    pub egress: SocketAddr,
    /// For kubelet.
    pub probe: SocketAddr,
    /// For Prometheus.
    pub metrics: SocketAddr,
}

/// A running sidecar.
pub struct App {
    /// Where it listens.
    pub addresses: Addresses,
    readiness: Readiness,
    audit: Audit,
    handles: Handles,
    drain: Drain,
    tasks: Vec<JoinHandle<()>>,
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("App").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

impl App {
    /// Starts every part. `sink` gets the decision records.
    ///
    /// # Errors
    /// When a socket cannot be bound or a part cannot be set up; then nothing was served.
    pub async fn start(
        config: Config,
        sink: impl Write + Send + 'static,
        clock: Clock,
    ) -> Result<Self, AppError> {
        let Config {
            namespace,
            identity,
            pod_name: _,
            pod_addresses,
            bundle_dir,
            bundle_keys,
            nameservers,
            cluster_domain,
            probes,
            inbound_address,
            egress_address,
            probe_address,
            metrics_address,
            drain_seconds: _,
            allow_loopback_destinations,
            log: _,
        } = config;
        let readiness = Readiness::new();
        let starting = readiness.block("start");
        let metrics = Arc::new(Metrics::new());
        let audit = Audit::start(sink, &namespace, &identity, clock.clone(), Arc::clone(&metrics))?;

        let inbound_socket = bind("inbound", inbound_address).await?;
        let egress_socket = bind("egress", egress_address).await?;
        let probe_socket = bind("probe", probe_address).await?;
        let metrics_socket = bind("metrics", metrics_address).await?;
        let addresses = Addresses {
            inbound: local("inbound", inbound_address, &inbound_socket)?,
            egress: local("egress", egress_address, &egress_socket)?,
            probe: local("probe", probe_address, &probe_socket)?,
            metrics: local("metrics", metrics_address, &metrics_socket)?,
        };

        let reach = if allow_loopback_destinations {
            AddressPolicy::local_run()
        } else {
            AddressPolicy::cluster(pod_addresses)
        };
        let nameservers = nameservers.into_iter().map(|ip| SocketAddr::new(ip, DNS)).collect();
        let http = HttpClient::new(&Network::new(nameservers, cluster_domain, reach))?;
        let providers = Providers::new(http.clone(), Arc::clone(&metrics));
        let exchanger = Exchanger::new(providers.clone(), clock.clone(), Arc::clone(&metrics));
        let handles = Handles::new();
        let bundles = Bundles::empty();

        let expected = Expected { namespace, identity, keys: bundle_keys };
        let pending = readiness.block("bundle");
        let mut source =
            BundleSource::new(&bundle_dir, expected, bundles.clone(), Arc::clone(&metrics), pending);
        source.look().await;

        let drain = Drain::new();
        let verifier = Verifier::new(providers, Arc::clone(&metrics));
        let outbound =
            Outbound::new(bundles.clone(), handles.clone(), exchanger, http, audit.clone(), clock.clone());
        let inbound = Inbound::new(
            bundles.clone(),
            audit.clone(),
            Arc::clone(&metrics),
            clock,
            handles.clone(),
            verifier,
        );
        let probes = Probes { readiness: readiness.clone(), bundles, prober: Prober::new(&probes)? };
        let tasks = vec![
            tokio::spawn(source.run()),
            tokio::spawn(admin::serve_probes(probe_socket, Arc::new(probes))),
            tokio::spawn(admin::serve_metrics(metrics_socket, metrics)),
            tokio::spawn(outbound::serve(egress_socket, Arc::new(outbound))),
            tokio::spawn(inbound::serve(inbound_socket, Arc::new(inbound), drain.watch())),
        ];
        drop(starting);
        Ok(Self { addresses, readiness, audit, handles, drain, tasks })
    }

    /// How many handles could be redeemed now.
    #[must_use]
    pub fn open_handles(&self) -> usize {
        self.handles.len()
    }

    /// Ends in order: not ready, nothing new accepted, open calls waited for up to `deadline`, records
    /// written. The way out stays open until then, because open calls need it.
    pub async fn drain(self, deadline: Duration) {
        let Self { addresses: _, readiness, audit, handles: _, drain, tasks } = self;
        let _draining: Block = readiness.block("draining");
        if !drain.drain(deadline).await {
            tracing::warn!("calls were still open when the drain ended");
        }
        audit.flush().await;
        for task in tasks {
            task.abort();
        }
    }
}

async fn bind(socket: &'static str, address: SocketAddr) -> Result<TcpListener, AppError> {
    TcpListener::bind(address).await.map_err(|source| AppError::Bind { socket, address, source })
}

fn local(socket: &'static str, address: SocketAddr, listener: &TcpListener) -> Result<SocketAddr, AppError> {
    listener.local_addr().map_err(|source| AppError::Bind { socket, address, source })
}
