//! The composition root: chooses the parts, binds the sockets, and ends them in order.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::admin::{self, Block, Prober, ProberError, Probes, Readiness};
use crate::audit::{self, Audit, AuditError, ExportError, Exporter, LastWritten, Started};
use crate::bundle_source::{BundleSource, Bundles, DenySource, Expected, Source as _};
use crate::clock::Clock;
use crate::config::Config;
use crate::dpop::Proofs;
use crate::drain::Drain;
use crate::exchange::Exchanger;
use crate::feed::{self, Facts, Feed, NoRandom, Prover};
use crate::handles::Handles;
use crate::inbound::{self, Inbound};
use crate::limits::Limits;
use crate::listeners;
use crate::metrics::Metrics;
use crate::outbound::{self, Outbound};
use crate::provider::Providers;
use crate::provider::address::AddressPolicy;
use crate::provider::dial::{DialError, Network};
use crate::provider::http::HttpClient;
use crate::sockets::{Socket, Tell};
use crate::tls::{CertificateDirectory, HANDSHAKE_WITHIN, Tls};
use crate::token::Verifier;

/// Port of name servers.
const DNS: u16 = 53;
/// How much longer than the drain the last report may take.
const LAST_REPORT: Duration = Duration::from_secs(2);
/// How long the last records may take to a collector.
const LAST_EXPORT: Duration = Duration::from_secs(2);

/// Why the sidecar does not start.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// An address is not ours to listen on. One that is taken is no reason to end: see [`crate::sockets`].
    #[error("{socket} cannot listen on {address}")]
    Bind {
        /// Which of our sockets.
        socket: &'static str,
        /// Where.
        address: SocketAddr,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// None of a socket's addresses is of a family that this machine has.
    #[error("{0} has no address to listen on")]
    NoAddress(&'static str),
    /// Records cannot be written.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// Records cannot be exported.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// There is no key for proofs.
    #[error(transparent)]
    NoRandom(#[from] NoRandom),
    /// The moved probes cannot be performed.
    #[error(transparent)]
    Probes(#[from] ProberError),
    /// TLS cannot be set up.
    #[error("TLS of the inbound port cannot be set up")]
    Tls(#[from] rustls::Error),
    /// Providers and downstreams cannot be reached.
    #[error("the network client cannot be set up")]
    Network(#[from] DialError),
}

/// Where a running sidecar listens: the first address of each socket.
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
    feed: Feed,
    exporter: Option<Exporter>,
    last: LastWritten,
    egress: Vec<JoinHandle<()>>,
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
    /// A port of ours that somebody else holds keeps the sidecar unready and is told; it does not end it.
    ///
    /// # Errors
    /// When a socket cannot be bound or a part cannot be set up; then nothing was served.
    pub async fn start(
        config: Config,
        sink: impl Write + Send + 'static,
        clock: Clock,
    ) -> Result<Self, AppError> {
        let readiness = Readiness::new();
        let starting = readiness.block("start");
        let metrics = Arc::new(Metrics::new());
        let Started { audit, last, export } = Audit::with(
            &config.records,
            sink,
            &config.namespace,
            &config.identity,
            clock.clone(),
            Arc::clone(&metrics),
        )?;
        let prover = Arc::new(Prover::new(Arc::clone(&metrics))?);
        let moved = Prober::new(&config.probes)?;

        let facts = Facts::new();
        let tell = Tell { readiness: readiness.clone(), facts: facts.clone() };
        let sockets = Sockets::bind(&config, &tell)?;
        let addresses = sockets.addresses()?;
        let ours = sockets.ports();

        let reach = if config.allow_loopback_destinations {
            AddressPolicy::local_run()
        } else {
            AddressPolicy::cluster(config.pod_addresses)
        };
        let nameservers = config.nameservers.into_iter().map(|ip| SocketAddr::new(ip, DNS)).collect();
        let http = HttpClient::new(&Network::new(nameservers, config.cluster_domain, reach))?;
        let exporter = match (export, &config.records.otlp_url) {
            (Some(lines), Some(url)) => {
                let ca = audit::authorities(&config.records)?;
                let who = [config.namespace.as_str(), &config.identity, audit.boot()];
                Some(Exporter::start(lines, url, ca, who, http.clone(), Arc::clone(&metrics))?)
            }
            _ => None,
        };
        let providers = Providers::new(http.clone(), Arc::clone(&metrics));
        let exchanger = Exchanger::new(providers.clone(), clock.clone(), Arc::clone(&metrics));
        let (handles, limits, bundles) = (Handles::new(), Limits::new(), Bundles::empty());

        let identity = config.identity.clone();
        let expected =
            Expected { namespace: config.namespace, identity: config.identity, keys: config.bundle_keys };
        let pending = readiness.block("bundle");
        let dir = &config.bundle_dir;
        let mut source = BundleSource::new(dir, expected, bundles.clone(), Arc::clone(&metrics), pending);
        let mut deny = DenySource::new(&config.deny_dir, &identity, source.intake());
        deny.look().await;
        source.look().await;

        // Before the first report, which would else say that nothing is wrong.
        let (tls, certificate) =
            tls(config.tls_dir, &bundles, &metrics, clock.clone(), &readiness, &facts).await?;
        let drain = Drain::new();
        let verifier = Verifier::new(providers, Arc::clone(&metrics));
        let feed = Feed::start(feed::Parts {
            audit: audit.clone(),
            token_file: config.feed_token_file,
            http: http.clone(),
            intake: source.intake(),
            facts: facts.clone(),
            metrics: Arc::clone(&metrics),
            prover: Arc::clone(&prover),
            limits: limits.clone(),
        });
        let outbound =
            Outbound::new(bundles.clone(), handles.clone(), exchanger, http, audit.clone(), clock.clone());
        let inbound = Inbound::new(
            bundles.clone(),
            audit.clone(),
            Arc::clone(&metrics),
            clock,
            handles.clone(),
            limits,
            (verifier, Proofs::new(config.proofs)?),
        );
        let probes = Probes {
            tls: tls.clone(),
            readiness: readiness.clone(),
            bundles: bundles.clone(),
            prober: moved,
            prover: Arc::clone(&prover),
        };
        let watching = [
            tokio::spawn(source.run()),
            tokio::spawn(deny.run()),
            tokio::spawn(feed::watch_credentials(facts.clone(), bundles)),
            tokio::spawn(listeners::watch(facts, ours)),
        ];
        let serving = sockets.serve(inbound.with_tls(tls), outbound, probes, &metrics, &prover, &drain);
        let tasks = watching.into_iter().chain(certificate).chain(serving.others).collect();
        drop(starting);
        Ok(Self {
            addresses,
            readiness,
            audit,
            handles,
            drain,
            feed,
            exporter,
            last,
            egress: serving.egress,
            tasks,
        })
    }

    /// How many handles could be redeemed now.
    #[must_use]
    pub fn open_handles(&self) -> usize {
        self.handles.len()
    }

    /// Ends in order: not ready, nothing new accepted, open calls waited for up to `deadline`, records
    /// written, the last report sent. The way out stays open until then, because open calls need it. False when calls
    /// were still open at the deadline.
    pub async fn drain(self, deadline: Duration) -> bool {
        self.end(deadline).await.0
    }

    /// The same. Also gives what tells when the last record is written: calls that are still open leave theirs when
    /// the runtime ends.
    pub async fn end(self, deadline: Duration) -> (bool, LastWritten) {
        let Self { addresses: _, readiness, audit, handles: _, drain, feed, exporter, last, egress, tasks } =
            self;
        let started = Instant::now();
        let _draining: Block = readiness.block("draining");
        let whole = drain.drain(deadline).await;
        if !whole {
            tracing::warn!("calls were still open when the drain ended");
        }
        if whole {
            // Nothing that counts is under way any more; what is cut off here leaves its record before the end.
            for task in egress {
                task.abort();
                // It was cancelled, which is no news.
                let _ = task.await;
            }
            audit.end().await;
        } else {
            audit.flush().await;
        }
        feed.end(whole, deadline.saturating_sub(started.elapsed()).saturating_add(LAST_REPORT)).await;
        if let Some(exporter) = exporter {
            exporter.end(LAST_EXPORT).await;
        }
        for task in tasks {
            task.abort();
        }
        (whole, last)
    }
}

/// TLS of the inbound port, where there is a directory for its certificate, and what looks after that.
async fn tls(
    dir: Option<PathBuf>,
    bundles: &Bundles,
    metrics: &Arc<Metrics>,
    clock: Clock,
    readiness: &Readiness,
    facts: &Facts,
) -> Result<(Option<Tls>, Option<JoinHandle<()>>), AppError> {
    let Some(dir) = dir else { return Ok((None, None)) };
    let tls = Tls::new(bundles.clone(), Arc::clone(metrics), HANDSHAKE_WITHIN)?;
    let mut certificate =
        CertificateDirectory::new(&dir, tls.clone(), clock, readiness.clone(), facts.clone());
    certificate.look().await;
    Ok((Some(tls), Some(tokio::spawn(certificate.run()))))
}

/// Our sockets by what they are for.
struct Sockets {
    inbound: Vec<Socket>,
    egress: Vec<Socket>,
    probe: Vec<Socket>,
    metrics: Vec<Socket>,
}

impl Sockets {
    fn bind(config: &Config, tell: &Tell) -> Result<Self, AppError> {
        Ok(Self {
            inbound: bind("inbound", &config.inbound_addresses, tell)?,
            egress: bind("egress", &config.egress_addresses, tell)?,
            probe: bind("probe", &config.probe_addresses, tell)?,
            metrics: bind("metrics", &config.metrics_addresses, tell)?,
        })
    }

    fn addresses(&self) -> Result<Addresses, AppError> {
        Ok(Addresses {
            inbound: first("inbound", &self.inbound)?,
            egress: first("egress", &self.egress)?,
            probe: first("probe", &self.probe)?,
            metrics: first("metrics", &self.metrics)?,
        })
    }

    fn ports(&self) -> BTreeSet<u16> {
        let all = [&self.inbound, &self.egress, &self.probe, &self.metrics];
        all.into_iter().flatten().map(|socket| socket.address().port()).collect()
    }

    /// Serves each socket as soon as it is ours.
    fn serve(
        self,
        inbound: Inbound,
        outbound: Outbound,
        probes: Probes,
        metrics: &Arc<Metrics>,
        prover: &Arc<Prover>,
        drain: &Drain,
    ) -> Serving {
        let (inbound, outbound, probes) = (Arc::new(inbound), Arc::new(outbound), Arc::new(probes));
        let (mut tasks, mut egress) = (Vec::new(), Vec::new());
        for socket in self.probe {
            let probes = Arc::clone(&probes);
            tasks.push(tokio::spawn(async move {
                admin::serve_probes(socket.listener().await, probes).await;
            }));
        }
        for socket in self.metrics {
            let metrics = Arc::clone(metrics);
            tasks.push(tokio::spawn(async move {
                admin::serve_metrics(socket.listener().await, metrics).await;
            }));
        }
        for socket in self.egress {
            let outbound = Arc::clone(&outbound);
            egress.push(tokio::spawn(async move {
                outbound::serve(socket.listener().await, outbound).await;
            }));
        }
        for socket in self.inbound {
            let (inbound, prover) = (Arc::clone(&inbound), Arc::clone(prover));
            let (mut draining, serving) = (drain.watch(), drain.watch());
            tasks.push(tokio::spawn(async move {
                let listener = tokio::select! {
                    listener = socket.listener() => listener,
                    () = draining.started() => return,
                };
                drop(draining);
                inbound::serve(listener, inbound, prover, serving).await;
            }));
        }
        Serving { egress, others: tasks }
    }
}

/// Tasks that serve our sockets.
struct Serving {
    egress: Vec<JoinHandle<()>>,
    others: Vec<JoinHandle<()>>,
}

fn bind(name: &'static str, addresses: &[SocketAddr], tell: &Tell) -> Result<Vec<Socket>, AppError> {
    let mut sockets = Vec::new();
    for address in addresses {
        let bound = Socket::bind(name, *address, tell);
        sockets.extend(bound.map_err(|source| AppError::Bind { socket: name, address: *address, source })?);
    }
    Ok(sockets)
}

fn first(name: &'static str, sockets: &[Socket]) -> Result<SocketAddr, AppError> {
    sockets.first().map(Socket::address).ok_or(AppError::NoAddress(name))
}
