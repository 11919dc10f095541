//! `cargo xtask demo`: one tool call on behalf of a human, on real parts, ending in a table.
mod deploy;
mod parts;
mod pki;
mod story;
mod table;

use anyhow::Result;

pub use self::deploy::{World, deploy, example, manifest, uninstall, with_authority};
pub use self::parts::{Images, keycloak_distribution};
pub use self::pki::Pki;
pub use self::story::{Call, Session, parse as parse_session, play, play_as, records};
use crate::cluster::{Cluster, Target};
use crate::command::Run as _;
use crate::progress::Steps;
use crate::standalone::Standalone;

/// People of the demo, in the order in which they call.
pub const PEOPLE: [&str; 3] = ["alice", "bob", "carol"];

/// `cargo xtask demo`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    target: Target,
    /// Without Kubernetes: the same parts as processes on this machine
    #[arg(long)]
    standalone: bool,
}

/// Runs `cargo xtask demo`.
///
/// # Errors
/// A part cannot be had, does not start, or the story does not end as it should.
pub fn run(args: &Args) -> Result<()> {
    if args.standalone {
        return alone();
    }
    let steps = Steps::new("cargo xtask demo");
    let done = in_cluster(&steps, &args.target);
    steps.table();
    let (cluster, sessions) = done?;
    show(&cluster, &sessions)
}

fn alone() -> Result<()> {
    let steps = Steps::new("cargo xtask demo --standalone");
    let done = (|| {
        let parts = Standalone::start(&steps, true)?;
        let sessions = steps.run("alice, bob and carol call tools", "20 s", || parts.play(&steps))?;
        Ok::<_, anyhow::Error>((sessions, parts.records()?, parts.logs().to_owned()))
    })();
    steps.table();
    let (sessions, records, logs) = done?;
    println!("\n{}", table::calls(&sessions));
    println!("Three decision records of the sidecar:");
    let records = records.lines().filter_map(|line| serde_json::from_str(line).ok());
    let records: Vec<serde_json::Value> = records.collect();
    println!("{}", table::three_records(&records));
    println!("\nEverything has been stopped. Logs: {}", logs.display());
    Ok(())
}

fn in_cluster(steps: &Steps, target: &Target) -> Result<(Cluster, Vec<Session>)> {
    let cluster = steps
        .run("cluster", "10 to 25 min the first time, 30 s after that", || Cluster::up(steps, target))?;
    let images =
        steps.run("images", "8 to 15 min the first time, 10 s after that", || Images::build(steps))?;
    steps.run("deploy", "1 to 2 min", || deploy(steps, &cluster, &images))?;
    let sessions =
        steps.run("alice, bob and carol call tools", "about 1 min", || play(steps, &cluster, &images))?;
    Ok((cluster, sessions))
}

fn show(cluster: &Cluster, sessions: &[Session]) -> Result<()> {
    println!("\n{}", table::calls(sessions));
    println!("$ kubectl get aid,idp,scat --all-namespaces");
    println!("{}\n", cluster.kubectl(&["get", "aid,idp,scat", "--all-namespaces"]).text()?);
    println!("$ kubectl -n hr get events --field-selector involvedObject.kind=AgentIdentity");
    let events = ["-n", "hr", "get", "events", "--field-selector", "involvedObject.kind=AgentIdentity"];
    println!("{}\n", cluster.kubectl(&events).text()?);
    println!("Three decision records of the sidecar (kubectl -n hr logs deploy/hr-tools -c behalf-sidecar):");
    println!("{}", table::three_records(&story::records(cluster)?));
    println!("\nGo on by hand:\n{}", cluster.how_to_reach());
    println!(
        "kubectl -n hr describe aid hr-tools\nkubectl edit scat corp            # a changed row is followed without a restart"
    );
    println!(
        "sed 's/agent-alice/agent-again/' examples/agent/agent-job.yaml   # another call, see examples/agent"
    );
    println!(
        "Tear down: cargo xtask cluster down   (or, on your own cluster, the order that `helm status behalf` prints)"
    );
    Ok(())
}
