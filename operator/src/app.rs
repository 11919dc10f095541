//! The composition root: chooses which parts exist and connects them.

mod parameters;
mod served;
mod settings;

use std::future::Future;
use std::pin::{Pin, pin};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use behalf_crds::names;
use behalf_plan::Settings;
use behalf_policy::bundle::document::FeedDocument;
use kube::Client;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::parameters::{Parameters, parameters};
use self::served::{Probes, Scrapes};
use self::settings::{lifetimes, settings};
use crate::args::{Args, Command, Role, RunArgs};
use crate::bypass::{Asker, Trials};
use crate::certs::issue::Lifetimes;
use crate::certs::serving::{Serving, provider};
use crate::certs::{Certificates, service_names};
use crate::check;
use crate::clock::{Clock, Monotonic};
use crate::feed;
use crate::feed::board::Board;
use crate::feed::desk::Desk;
use crate::feed::held::Held;
use crate::feed::relay::{MAX_RELAY_BYTES, Relay};
use crate::feed::server::{Feed, HOLD};
use crate::health::{Pending, Readiness};
use crate::http_server::{Limits, Server};
use crate::kube_io::apply::Apply;
use crate::kube_io::caches::{Caches, Change};
use crate::kube_io::counts::Counts;
use crate::kube_io::events::Events;
use crate::kube_io::gather::Gather;
use crate::kube_io::lease::{self, Candidate, Election, Leadership};
use crate::kube_io::secrets::Secrets;
use crate::kube_io::status::Statuses;
use crate::kube_io::tokens::Tokens;
use crate::kube_io::webhook_config::WebhookConfiguration;
use crate::live::Live;
use crate::metrics::Metrics;
use crate::reconcile::{self, Context};
use crate::signing::SigningKeys;
use crate::signing::keep::{self, Around, Keeper};
use crate::signing::rotate::Rules;
use crate::telemetry;
use crate::webhook::mutate::Mutate;
use crate::webhook::server::Webhook;

/// Changes that may wait for the reconciler before the watches wait for it.
const CHANGES: usize = 1024;
/// Sidecars that may be connected to this replica at a time; each holds one connection.
const FEED_CONNECTIONS: usize = 32 * 1024;
/// How long everything may take to end by itself; kubelet waits longer.
const DRAIN: Duration = Duration::from_secs(15);
/// How long the writer may take to stop after the Lease was lost: nobody else has it before.
const STOP_WRITING: Duration = Duration::from_secs(5);

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

/// What the roles are made of.
struct Parts {
    args: RunArgs,
    client: Client,
    metrics: Arc<Metrics>,
    readiness: Readiness,
    stop: CancellationToken,
    settings: Live<Settings>,
    gather: Gather,
    keys: Live<SigningKeys>,
    leadership: Leadership,
    desk: Arc<Desk>,
}

/// The certificate that the webhook and the feed serve with.
struct Certified {
    serving: Arc<Serving>,
    secrets: Secrets,
    trusted: watch::Receiver<Option<String>>,
    /// The authorities as the API server trusts them.
    installed: watch::Sender<Option<String>>,
    feed: watch::Receiver<Option<FeedDocument>>,
}

impl Parts {
    fn reconcile(
        &self,
        changes: mpsc::Receiver<Change>,
        word: mpsc::Sender<Change>,
        feed: watch::Receiver<Option<FeedDocument>>,
        tasks: &mut JoinSet<()>,
    ) {
        let desk = Arc::clone(&self.desk);
        let trials = Trials::new(
            self.gather.caches().clone(),
            move |pod_uid: &str| desk.last(pod_uid),
            self.gather.findings().clone(),
            Asker::default(),
            word.clone(),
        );
        tasks.spawn(trials.lead(self.leadership.clone(), self.stop.clone()));
        tasks.spawn(Arc::clone(&self.desk).listen(word, self.stop.clone()));
        let leadership = self.leadership.clone();
        let apply = Apply::new(self.client.clone(), leadership.clone(), Arc::clone(&self.metrics));
        let parameters = Parameters {
            apply: apply.clone(),
            namespace: self.args.namespace.clone(),
            fixed: parameters(&self.args, &self.settings.current()),
            keys: self.keys.clone(),
            leadership: leadership.clone(),
        };
        tasks.spawn(parameters.keep(self.stop.clone()));
        let context = Context {
            gather: self.gather.clone(),
            apply,
            counts: Counts::new(self.client.clone(), leadership.clone(), Arc::clone(&self.metrics)),
            statuses: Statuses::new(self.client.clone(), leadership.clone(), Arc::clone(&self.metrics)),
            events: Events::new(self.client.clone(), self.args.pod_name.clone(), Arc::clone(&self.metrics))
                .led(leadership.clone()),
            keys: self.keys.clone(),
            settings: self.settings.clone(),
            desk: Arc::clone(&self.desk),
            feed,
            leadership: leadership.clone(),
            clock: Clock::System,
            metrics: Arc::clone(&self.metrics),
        };
        tasks.spawn(lead(Arc::new(context), changes, leadership, self.stop.clone()));
    }

    /// One certificate for all names under which this process is reached.
    fn certificates(&self, life: Lifetimes, tasks: &mut JoinSet<()>) -> Certified {
        let RunArgs { namespace, webhook_service, webhook_host, .. } = &self.args;
        let serving = Arc::new(Serving::default());
        let (authorities, trusted) = watch::channel(None);
        let (feed, document) = watch::channel(None);
        let (installed, read_back) = watch::channel(None);
        let secrets = Secrets::new(self.client.clone(), namespace, names::MANAGER_WEBHOOK_CERTS);
        let domain = &self.settings.current().cluster_domain;
        let mut hosts = service_names(webhook_service, namespace, domain);
        hosts.extend(service_names(names::FEED_SERVICE, namespace, domain));
        hosts.extend(webhook_host.iter().cloned());
        let certificates = Certificates {
            secrets: secrets.clone(),
            secret: names::SECRET_WEBHOOK_CERTS.to_owned(),
            names: hosts,
            life,
            clock: Clock::System,
            monotonic: Monotonic::System,
            serving: Arc::clone(&serving),
            authorities,
            installed: read_back,
            metrics: Arc::clone(&self.metrics),
        };
        tasks.spawn(certificates.keep(self.readiness.wait_for("certificate"), self.stop.clone()));
        tasks.spawn(tell_feed(trusted.clone(), feed, namespace.clone(), self.stop.clone()));
        Certified { serving, secrets, trusted, installed, feed: document }
    }

    async fn feed(
        &self,
        certified: &Certified,
        board: Arc<Board>,
        changes: Option<mpsc::Sender<Change>>,
        tasks: &mut JoinSet<()>,
    ) -> anyhow::Result<()> {
        let server = Server::bind(self.args.feed_address).await.context("cannot listen for reports")?;
        let server = server.with_tls(certified.serving.server_config()?);
        let server = server.with_limits(Limits { body: MAX_RELAY_BYTES, connections: FEED_CONNECTIONS });
        let namespace = &self.args.namespace;
        let (leadership, token) = (self.leadership.clone(), self.args.feed_token_file.clone());
        let port = self.args.feed_address.port();
        let feed = Feed {
            tokens: Tokens::new(self.client.clone()),
            gather: self.gather.clone(),
            desk: Arc::clone(&self.desk),
            board,
            held: Held::new(FEED_CONNECTIONS),
            leadership: leadership.clone(),
            relay: Arc::new(Relay::new(leadership, certified.feed.clone(), token, namespace, port)),
            changes,
            hold: HOLD,
            namespace: namespace.clone(),
            clock: Clock::System,
            metrics: Arc::clone(&self.metrics),
            stop: self.stop.clone(),
        };
        tasks.spawn(server.serve(feed, self.stop.clone()));
        Ok(())
    }

    async fn webhook(&self, certified: &Certified, tasks: &mut JoinSet<()>) -> anyhow::Result<()> {
        let server =
            Server::bind(self.args.webhook_address).await.context("cannot listen for admission reviews")?;
        let server = server.with_tls(certified.serving.server_config()?);
        let configuration = WebhookConfiguration::new(
            self.client.clone(),
            &self.args.webhook_configuration,
            certified.secrets.clone(),
            Arc::clone(&self.metrics),
        );
        tasks.spawn(configuration.keep(
            certified.trusted.clone(),
            certified.installed.clone(),
            self.stop.clone(),
        ));
        let webhook = Webhook {
            mutate: Mutate::new(self.gather.clone(), self.settings.clone(), Arc::clone(&self.metrics)),
            readiness: self.readiness.clone(),
            metrics: Arc::clone(&self.metrics),
        };
        tasks.spawn(server.serve(webhook, self.stop.clone()));
        Ok(())
    }
}

/// Turns the authorities into what bundles say of the feed.
async fn tell_feed(
    mut trusted: watch::Receiver<Option<String>>,
    feed: watch::Sender<Option<FeedDocument>>,
    namespace: String,
    stop: CancellationToken,
) {
    loop {
        let authorities = trusted.borrow_and_update().clone();
        let next = authorities.map(|authorities| feed::document(&namespace, &authorities));
        feed.send_if_modified(|held| {
            let changed = *held != next;
            *held = next;
            changed
        });
        tokio::select! {
            () = stop.cancelled() => return,
            changed = trusted.changed() => if changed.is_err() { return },
        }
    }
}

/// Reconciles while this replica leads. Word of changes is taken all along, since those who bring it wait for us; who
/// begins to lead looks at everything anyway. Ends when told to, or when the writer cannot be stopped: then the process
/// has to end.
async fn lead(
    context: Arc<Context>,
    mut changes: mpsc::Receiver<Change>,
    mut leadership: Leadership,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = leadership.gained() => {}
            change = changes.recv() => if change.is_none() { return } else { continue },
        }
        tracing::info!("leading: reconciling everything");
        let term = stop.child_token();
        let mut writer = pin!(reconcile::run(Arc::clone(&context), &mut changes, term.clone()));
        tokio::select! {
            () = &mut writer => return,
            () = leadership.lost() => {}
        }
        tracing::warn!("not leading any more: nothing is written from now on");
        term.cancel();
        if tokio::time::timeout(STOP_WRITING, writer).await.is_err() {
            tracing::error!("the writer cannot be stopped");
            return;
        }
    }
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
