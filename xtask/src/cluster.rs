//! `cargo xtask cluster`: a real one-node Kubernetes from packages, or a cluster that the user names.
mod cgroup;
mod files;
pub mod layout;
mod lock;
mod node;
pub mod packages;
mod pki;
mod process;
pub mod programs;
mod selftest;
mod status;
mod sweep;

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::Subcommand;

use self::layout::Layout;
use self::lock::lock;
use crate::command::{Run as _, which};
use crate::images::{self, Image};
use crate::progress::Steps;

/// `cargo xtask cluster`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    target: Target,
    #[command(subcommand)]
    action: Action,
}

/// Which cluster is meant. Another one than the local one is used only when it is named.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct Target {
    /// A cluster you have, by its kubeconfig context; without it, the local one
    #[arg(long, env = "E2E_CONTEXT", global = true)]
    pub context: Option<String>,
    /// Agree that the named cluster is used and changed
    #[arg(long, global = true)]
    pub yes: bool,
}

#[derive(Subcommand)]
enum Action {
    /// Build what is missing and start the cluster
    Up,
    /// Stop the cluster and leave nothing of it, also after a crash
    Down,
    /// What runs, and whether it is healthy
    Status,
    /// The end of a program's log, or of all
    Logs {
        /// etcd, containerd, apiserver, controller-manager, scheduler, kubelet, proxy, coredns or audit
        program: Option<String>,
        /// How many lines
        #[arg(short = 'n', default_value_t = 40)]
        lines: usize,
    },
    /// Put an image where pods find it: an OCI or docker archive, or the name of an image built here
    LoadImage {
        /// The archive or name
        image: String,
    },
    /// kubectl against the cluster
    #[command(trailing_var_arg = true, allow_hyphen_values = true)]
    Kubectl {
        /// Its arguments
        arguments: Vec<String>,
    },
    /// helm against the cluster
    #[command(trailing_var_arg = true, allow_hyphen_values = true)]
    Helm {
        /// Its arguments
        arguments: Vec<String>,
    },
    /// A shell (or a command) inside the node's network namespace, from where pods and services are reached
    #[command(trailing_var_arg = true, allow_hyphen_values = true)]
    Shell {
        /// The command
        command: Vec<String>,
    },
    /// Show that `up` and `down` keep their promises, by breaking runs on purpose (no cluster may run)
    Selftest,
    #[command(hide = true)]
    Remains,
}

/// Runs `cargo xtask cluster`.
///
/// # Errors
/// What was asked for cannot be done.
pub fn run(args: &Args) -> Result<()> {
    let foreign = args.target.context.is_some();
    match &args.action {
        Action::Up => {
            let steps = Steps::new("cargo xtask cluster up");
            let cluster = Cluster::up(&steps, &args.target)?;
            steps.table();
            println!("{}", cluster.how_to_reach());
        }
        Action::Down if foreign => {
            bail!("`down` stops the local cluster only; the cluster you named is not ours to stop")
        }
        Action::Down => {
            let steps = Steps::new("cargo xtask cluster down");
            down(&steps)?;
            steps.table();
        }
        Action::Status => status::status(&args.target)?,
        Action::Logs { program, lines } => status::logs(&Layout::find()?, program.as_deref(), *lines)?,
        Action::LoadImage { image } => {
            let steps = Steps::new("cargo xtask cluster load-image");
            let cluster = Cluster::running(&args.target)?;
            let image = images::find(&steps, image)?;
            cluster.load(&steps, &image)?;
            println!("{}\n{}", image.reference(), image.pinned());
        }
        Action::Kubectl { arguments } => {
            let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
            Cluster::running(&args.target)?.kubectl(&words).show()?;
        }
        Action::Helm { arguments } => {
            let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
            Cluster::running(&args.target)?.helm(&words).show()?;
        }
        Action::Shell { command } => {
            let cluster = Cluster::running(&args.target)?;
            let (program, rest) =
                command.split_first().map_or(("bash", &[][..]), |(first, rest)| (first.as_str(), rest));
            cluster.in_netns(program)?.args(rest).show()?;
        }
        Action::Selftest if foreign => bail!("the self-test breaks clusters: it runs on the local one only"),
        Action::Selftest => selftest::run()?,
        Action::Remains => print!("{}", selftest::Snapshot::take()),
    }
    Ok(())
}

/// A cluster that can be used.
#[derive(Clone)]
pub struct Cluster {
    kind: Kind,
}

#[derive(Clone)]
enum Kind {
    Local(Layout),
    Named(String),
}

impl Cluster {
    /// The cluster meant by `target`; the local one is brought up if it is not, of a named one it is only seen that it answers.
    ///
    /// # Errors
    /// It cannot be brought up, or does not answer, or was named without `--yes`.
    pub fn up(steps: &Steps, target: &Target) -> Result<Self> {
        if target.context.is_some() {
            return Self::running(target);
        }
        let layout = Layout::find()?;
        let _lock = lock(&layout, "up")?;
        match node::up(steps, &layout)? {
            node::Started::Already => steps.say("the local cluster is up and healthy; nothing to do"),
            node::Started::Now => steps.say("the local cluster is up"),
        }
        Ok(Self::local(&layout))
    }

    /// The cluster meant by `target`, which must run already.
    ///
    /// # Errors
    /// It does not run, or was named without `--yes`.
    pub fn running(target: &Target) -> Result<Self> {
        let Some(context) = &target.context else {
            let layout = Layout::find()?;
            if !layout.kubeconfig().exists() {
                bail!("the local cluster is not up: run `cargo xtask cluster up`");
            }
            return Ok(Self::local(&layout));
        };
        let cluster = Self { kind: Kind::Named(context.clone()) };
        eprintln!("using the cluster of the kubeconfig context \"{context}\"");
        if !target.yes {
            bail!("\"{context}\" is not a cluster made here: add --yes if it may be used and changed");
        }
        cluster
            .kubectl(&["get", "--raw", "/readyz", "--request-timeout=10s"])
            .run()
            .with_context(|| format!("the cluster \"{context}\" does not answer"))?;
        Ok(cluster)
    }

    fn local(layout: &Layout) -> Self {
        Self { kind: Kind::Local(layout.clone()) }
    }

    /// The layout of the local cluster; none for a named one.
    #[must_use]
    pub fn layout(&self) -> Option<&Layout> {
        match &self.kind {
            Kind::Local(layout) => Some(layout),
            Kind::Named(_) => None,
        }
    }

    /// kubectl with these arguments, to be run by [`crate::command::Run`].
    #[must_use]
    pub fn kubectl(&self, arguments: &[&str]) -> Command {
        let mut command = match &self.kind {
            Kind::Local(layout) => {
                let mut command = Command::new(programs::path(&layout.cache, "kubectl"));
                command.env("KUBECONFIG", layout.kubeconfig());
                command
            }
            Kind::Named(context) => {
                let mut command = Command::new(tool("kubectl"));
                command.args(["--context", context]);
                command
            }
        };
        command.args(arguments);
        command
    }

    /// helm with these arguments.
    #[must_use]
    pub fn helm(&self, arguments: &[&str]) -> Command {
        let mut command = match &self.kind {
            Kind::Local(layout) => {
                let mut command = Command::new(programs::path(&layout.cache, "helm"));
                // Its own caches and plugins: what a user has set up at home changes nothing here.
                command
                    .env("KUBECONFIG", layout.kubeconfig())
                    .env("HELM_CACHE_HOME", layout.cache.join("helm-home"));
                command
            }
            Kind::Named(context) => {
                let mut command = Command::new(tool("helm"));
                command.args(["--kube-context", context]);
                command
            }
        };
        command.args(arguments);
        command
    }

    /// Applies manifests (server-side, so that the object is judged as it is).
    ///
    /// # Errors
    /// The API server refuses one.
    pub fn apply(&self, manifests: &str) -> Result<String> {
        self.kubectl(&["apply", "--server-side", "--force-conflicts", "-f", "-"]).feed(manifests)
    }

    /// A command inside the node's network namespace, from where pods and services are reached. It also sees the cluster's DNS only by address
    /// (`10.96.0.10`). KUBECONFIG and PATH are set.
    ///
    /// # Errors
    /// The cluster is not the local one.
    pub fn in_netns(&self, program: &str) -> Result<Command> {
        let Kind::Local(layout) = &self.kind else {
            bail!("only the local cluster has a network namespace on this machine; use kubectl port-forward");
        };
        let mut command = node::in_netns(program);
        let own = ["kubectl", "helm"]
            .map(|name| programs::path(&layout.cache, name).parent().map(PathBuf::from).unwrap_or_default());
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths(own.into_iter().chain(std::env::split_paths(&path)))?;
        command.env("KUBECONFIG", layout.kubeconfig()).env("PATH", path);
        Ok(command)
    }

    /// Puts an image where pods find it, by tag and by digest (`imagePullPolicy` must not be `Always`); does nothing when it is there.
    ///
    /// # Errors
    /// The cluster is not the local one, or containerd refuses the image.
    pub fn load(&self, steps: &Steps, image: &Image) -> Result<()> {
        let Kind::Local(layout) = &self.kind else {
            bail!(
                "images get into the cluster you named by its own registry: push {} there",
                image.reference()
            );
        };
        let ctr = |words: &[&str]| {
            let mut command = Command::new("ctr");
            command.arg("-a").arg(layout.containerd()).args(["-n", "k8s.io", "images"]).args(words);
            command
        };
        let (tagged, pinned) = (image.reference(), image.pinned());
        let there = ctr(&["ls", "-q"]).text()?;
        if [&tagged, &pinned].iter().all(|name| there.lines().any(|line| line == name.as_str())) {
            steps.say(&format!("{tagged} is loaded already"));
            return Ok(());
        }
        steps.run(&format!("load {tagged}"), "1 to 15 s", || {
            let archive = image.archive.to_string_lossy();
            ctr(&["import", "--base-name", &image.name, &archive]).run()?;
            let names = ctr(&["ls"]).text()?;
            let line = names.lines().find(|line| line.starts_with(&format!("{tagged} ")));
            let digest =
                line.and_then(|line| line.split_whitespace().find(|word| word.starts_with("sha256:")));
            if digest != Some(&image.digest) {
                bail!("{tagged} was imported as {} and not as {}", digest.unwrap_or("nothing"), image.digest);
            }
            // kubelet looks a reference by digest up by its name.
            ctr(&["tag", "--force", &tagged, &pinned]).run()
        })
    }

    /// How a person reaches it.
    #[must_use]
    pub fn how_to_reach(&self) -> String {
        match &self.kind {
            Kind::Local(layout) => format!(
                "export KUBECONFIG={}\ncargo xtask cluster kubectl get pods -A\ncargo xtask cluster shell   # pods and services are reached from in there\ncargo xtask cluster down",
                layout.kubeconfig().display()
            ),
            Kind::Named(context) => format!("kubectl --context {context} get pods -A"),
        }
    }
}

/// A client of the user's own, else one that was built for the local cluster.
fn tool(name: &str) -> PathBuf {
    let built =
        || Layout::find().map(|layout| programs::path(&layout.cache, name)).ok().filter(|path| path.exists());
    which(name).or_else(built).unwrap_or_else(|| PathBuf::from(name))
}

/// Builds the programs of the local cluster, helm and kubectl among them, and starts nothing.
///
/// # Errors
/// They cannot be built, or an `up` is under way.
pub fn build(steps: &Steps) -> Result<()> {
    let layout = Layout::find()?;
    let _lock = lock(&layout, "build")?;
    programs::ensure(steps, &layout.cache)
}

/// Shows that `up` and `down` keep their promises, by breaking runs on purpose. No cluster may be up.
///
/// # Errors
/// A promise is not kept.
pub fn selftest() -> Result<()> {
    selftest::run()
}

/// Stops the local cluster and removes every trace; nothing there is no error.
///
/// # Errors
/// Something does not go, or an `up` is under way.
pub fn down(steps: &Steps) -> Result<()> {
    let layout = Layout::find()?;
    let _lock = lock(&layout, "down")?;
    let found = sweep::leftovers(&layout);
    if found.is_empty() {
        steps.say("there is nothing of a local cluster");
        return Ok(());
    }
    steps.say(&format!("found {}", found.join(", ")));
    steps.run("stop the local cluster", "1 to 5 s", || sweep::sweep(steps, &layout))
}
