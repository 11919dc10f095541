//! The composition root: chooses which parts exist and connects them.

mod parameters;
mod roles;
mod served;
mod settings;

use std::future::Future;
use std::pin::{Pin, pin};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use behalf_crds::names;
use kube::Client;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::roles::Parts;
use self::served::{Probes, Scrapes};
use self::settings::{lifetimes, settings};
use crate::args::{Args, Command, Role, RunArgs};
use crate::certs::serving::provider;
use crate::check;
use crate::clock::{Clock, Monotonic};
use crate::feed::board::Board;
use crate::feed::desk::Desk;
use crate::health::{Pending, Readiness};
use crate::http_server::Server;
use crate::kube_io::apply::Apply;
use crate::kube_io::caches::Caches;
use crate::kube_io::gather::Gather;
use crate::kube_io::lease::{self, Candidate, Election, Leadership};
use crate::kube_io::secrets::Secrets;
use crate::metrics::Metrics;
use crate::signing::keep::{self, Around, Keeper};
use crate::signing::rotate::Rules;
use crate::telemetry;

/// Changes that may wait for the reconciler before the watches wait for it.
const CHANGES: usize = 1024;
/// How long everything may take to end by itself; kubelet waits longer.
const DRAIN: Duration = Duration::from_secs(15);

/// Does what the command line says.
///
/// # Errors
/// It cannot be done; the message says why and what to change.
pub fn main(args: Args) -> anyhow::Result<ExitCode> {
    // Only the first call counts, and there is only one.
    let _ = provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match args.command {
        Command::Run(args) => {
            telemetry::start(&args.log_level, args.log_format)?;
            runtime.block_on(async {
                let client = connect().await?;
                run(*args, client, terminated()?).await.map(|()| ExitCode::SUCCESS)
            })
        }
        Command::Check(args) => runtime.block_on(async {
            let all_well = check::check(&args, connect().await?).await;
            Ok(if all_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }),
    }
}

async fn connect() -> anyhow::Result<Client> {
    Client::try_default()
        .await
        .context("cannot connect to the API server (in-cluster configuration or KUBECONFIG)")
}

fn terminated() -> anyhow::Result<impl Future<Output = ()>> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    })
}

/// Runs the operator until `end`.
///
/// # Errors
/// It cannot start, or a part of it ended by itself.
pub async fn run(args: RunArgs, client: Client, end: impl Future<Output = ()>) -> anyhow::Result<()> {
    let (metrics, readiness) = (Arc::new(Metrics::default()), Readiness::default());
    let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
    let health = Server::bind(args.health_address).await.context("cannot listen for probes")?;
    let scrapes = Server::bind(args.metrics_address).await.context("cannot listen for metrics scrapes")?;
    tasks.spawn(health.serve(Probes(readiness.clone()), stop.clone()));
    tasks.spawn(scrapes.serve(Scrapes(Arc::clone(&metrics)), stop.clone()));

    let (settings, life) = (settings(&args)?, lifetimes(&args)?);
    let mut end = pin!(end);
    let secrets = Secrets::new(client.clone(), &args.namespace, names::MANAGER_BUNDLE);
    let pending = readiness.wait_for("signing keys");
    let loaded = tokio::select! {
        loaded = keep::load_patiently(&secrets, Clock::System) => loaded,
        () = &mut end => return Ok(()),
    };
    tracing::info!(keys = ?loaded, "loaded the signing keys");
    drop(pending);
    let reconciles = args.roles.contains(&Role::Reconcile);
    let (election, leadership) = election(&args, &client, &metrics, reconciles)?;
    let (sender, changes) = mpsc::channel(CHANGES);
    let (word, words) = mpsc::channel(CHANGES);
    let (watched, board) = (reconciles.then_some(sender), Arc::new(Board::default()));
    let (caches, writers) = Caches::new();
    let around = Around {
        secrets,
        apply: Apply::new(client.clone(), leadership.clone(), Arc::clone(&metrics)),
        namespace: args.namespace.clone(),
        caches: caches.clone(),
        leadership: leadership.clone(),
        rules: Rules { max_age: args.signing_key_max_age, overlap: args.signing_key_overlap },
        clock: Clock::System,
        monotonic: Monotonic::System,
        changes: watched.clone(),
        metrics: Arc::clone(&metrics),
    };
    let (keeper, keys, settings) = Keeper::new(around, loaded, settings);
    tasks.spawn(keeper.keep(stop.clone()));
    let gather = Gather::new(client.clone(), caches.clone(), keys.clone());
    let desk = Arc::new(Desk::new(Duration::from_secs(args.counts_interval_seconds)));
    let parts = Parts { args, client, metrics, readiness, stop, settings, gather, keys, leadership, desk };

    writers.watch(&parts.client, &caches, Some(word), &parts.metrics, &parts.stop, &mut tasks);
    tasks.spawn(Arc::clone(&board).follow(words, watched.clone(), parts.stop.clone()));
    tasks.spawn(filled(caches, parts.readiness.wait_for("caches"), parts.stop.clone()));
    let certified = parts.certificates(life, &mut tasks);
    if let Some(changed) = watched.clone() {
        parts.reconcile(changes, changed, certified.feed.clone(), &mut tasks);
    }
    if parts.args.roles.contains(&Role::Webhook) {
        parts.webhook(&certified, &mut tasks).await?;
    }
    if parts.args.roles.contains(&Role::Feed) {
        parts.feed(&certified, board, watched, &mut tasks).await?;
    }
    supervise(tasks, parts.stop, election, end).await
}

/// The Lease. A process that does not reconcile only looks who leads.
fn election(
    args: &RunArgs,
    client: &Client,
    metrics: &Arc<Metrics>,
    candidate: bool,
) -> anyhow::Result<(Election, Leadership)> {
    let name = args.pod_name.clone().map_or_else(unique_name, Ok)?;
    let who = Candidate {
        holder: lease::holder(&name, args.pod_ip),
        candidate,
        wall: Clock::System,
        clock: Monotonic::System,
    };
    Ok(Election::new(client.clone(), &args.namespace, who, Arc::clone(metrics)))
}

/// Of a process outside a pod: two of them must not take themselves for one.
fn unique_name() -> anyhow::Result<String> {
    let mut bytes = [0; 8];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| anyhow!("the system gives no randomness"))?;
    Ok(format!("behalf-operator-{:016x}", u64::from_be_bytes(bytes)))
}

/// Waits for the end, or for a part that ends by itself: then the process ends, and is started again whole. The Lease is
/// kept until nothing else is left that writes, then given back.
async fn supervise(
    mut tasks: JoinSet<()>,
    stop: CancellationToken,
    election: Election,
    end: Pin<&mut impl Future<Output = ()>>,
) -> anyhow::Result<()> {
    let resign = CancellationToken::new();
    let mut election = tokio::spawn(election.keep(resign.clone()));
    let ended = tokio::select! {
        () = end => None,
        ended = tasks.join_next() => ended,
        ended = &mut election => Some(ended),
    };
    tracing::info!("stopping");
    stop.cancel();
    let drained = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN, drained).await.is_err() {
        tracing::warn!("broke off what does not end, such as a request that the API server does not answer");
        tasks.shutdown().await;
    }
    resign.cancel();
    if !election.is_finished() {
        // It says itself what went wrong.
        let _ = election.await;
    }
    match ended {
        None => Ok(()),
        Some(Ok(())) => bail!("a part of the operator ended"),
        Some(Err(error)) => Err(error).context("a part of the operator broke off"),
    }
}

async fn filled(caches: Caches, pending: Pending, stop: CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => return,
        filled = caches.filled() => if filled.is_err() { return },
    }
    drop(pending);
    stop.cancelled().await;
}
