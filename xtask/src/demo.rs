//! `cargo xtask demo`: one tool call on behalf of a human, on real parts, ending in a table.
mod deploy;
mod parts;
mod pki;
mod story;
mod table;

use anyhow::Result;

pub use self::deploy::{World, deploy, uninstall};
pub use self::parts::Images;
pub use self::story::{Call, Session, play, play_as};
use crate::cluster::{Cluster, Target};
use crate::command::Run as _;
use crate::progress::Steps;

/// People of the demo, in the order in which they call.
pub const PEOPLE: [&str; 3] = ["alice", "bob", "carol"];

/// `cargo xtask demo`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    target: Target,
}

/// Runs `cargo xtask demo`.
///
/// # Errors
/// A part cannot be had, does not start, or the story does not end as it should.
pub fn run(args: &Args) -> Result<()> {
    let steps = Steps::new("cargo xtask demo");
    let done = in_cluster(&steps, &args.target);
    steps.table();
    let (cluster, sessions) = done?;
    show(&cluster, &sessions)
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
    for record in story::records(cluster)?.iter().filter(|r| table::worth_showing(r)).rev().take(3) {
        println!("{record}");
    }
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
