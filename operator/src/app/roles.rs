//! The roles of a process, each put together from its parts: to reconcile, to admit pods, to hear the feed. The latter two
//! serve with one certificate.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use behalf_crds::names;
use behalf_plan::Settings;
use behalf_policy::bundle::document::FeedDocument;
use kube::Client;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::parameters::{Parameters, parameters};
use crate::args::RunArgs;
use crate::bypass::{Asker, Trials};
use crate::certs::issue::Lifetimes;
use crate::certs::serving::Serving;
use crate::certs::{Certificates, service_names};
use crate::clock::{Clock, Monotonic};
use crate::feed;
use crate::feed::board::Board;
use crate::feed::desk::Desk;
use crate::feed::held::Held;
use crate::feed::relay::{MAX_RELAY_BYTES, Relay};
use crate::feed::server::{Feed, HOLD};
use crate::health::Readiness;
use crate::http_server::{Limits, Server};
use crate::kube_io::apply::Apply;
use crate::kube_io::caches::Change;
use crate::kube_io::counts::Counts;
use crate::kube_io::events::Events;
use crate::kube_io::gather::Gather;
use crate::kube_io::lease::Leadership;
use crate::kube_io::secrets::Secrets;
use crate::kube_io::status::Statuses;
use crate::kube_io::tokens::Tokens;
use crate::kube_io::webhook_config::WebhookConfiguration;
use crate::live::Live;
use crate::metrics::Metrics;
use crate::reconcile::{self, Context};
use crate::signing::SigningKeys;
use crate::webhook::mutate::Mutate;
use crate::webhook::server::Webhook;

/// Sidecars that may be connected to this replica at a time; each holds one connection.
const FEED_CONNECTIONS: usize = 32 * 1024;
/// How long the writer may take to stop after the Lease was lost: nobody else has it before.
const STOP_WRITING: Duration = Duration::from_secs(5);

/// What the roles are made of.
pub(super) struct Parts {
    pub(super) args: RunArgs,
    pub(super) client: Client,
    pub(super) metrics: Arc<Metrics>,
    pub(super) readiness: Readiness,
    pub(super) stop: CancellationToken,
    pub(super) settings: Live<Settings>,
    pub(super) gather: Gather,
    pub(super) keys: Live<SigningKeys>,
    pub(super) leadership: Leadership,
    pub(super) desk: Arc<Desk>,
}

/// The certificate that the webhook and the feed serve with.
pub(super) struct Certified {
    serving: Arc<Serving>,
    secrets: Secrets,
    trusted: watch::Receiver<Option<String>>,
    /// The authorities as the API server trusts them.
    installed: watch::Sender<Option<String>>,
    pub(super) feed: watch::Receiver<Option<FeedDocument>>,
}

impl Parts {
    pub(super) fn reconcile(
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
    pub(super) fn certificates(&self, life: Lifetimes, tasks: &mut JoinSet<()>) -> Certified {
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

    pub(super) async fn feed(
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

    pub(super) async fn webhook(&self, certified: &Certified, tasks: &mut JoinSet<()>) -> anyhow::Result<()> {
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
