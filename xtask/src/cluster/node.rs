//! Starting the node: a network namespace without a way out, the programs in it, and the wait until pods can run.
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::layout::{LINK, Layout, MACHINE, NAMESPACE, NODE, NODE_IP, NODE_IP6, SERVICES};
use super::{Cluster, cgroup, files, packages, pki, process, programs, sweep};
use crate::command::{Run as _, tail};
use crate::images;
use crate::progress::Steps;

/// What an `up` found.
pub(super) enum Started {
    /// A healthy run, left as it was.
    Already,
    /// Nothing, or remains that were cleared: it started a new run.
    Now,
}

/// Brings the local cluster up.
///
/// # Errors
/// Something needed cannot be had, or does not become ready in its time; the message holds the end of the log concerned.
pub(super) fn up(steps: &Steps, layout: &Layout) -> Result<Started> {
    check_machine(layout)?;
    if healthy(layout).is_ok() {
        return Ok(Started::Already);
    }
    packages::ensure(steps, packages::NODE)?;
    packages::ensure(steps, packages::IMAGES)?;
    programs::ensure(steps, &layout.cache)?;
    let left = sweep::leftovers(layout);
    if !left.is_empty() {
        let why = healthy(layout).err().map(|error| format!(" ({error})")).unwrap_or_default();
        steps.say(&format!("an earlier run is not whole{why} and is cleared first: {}", left.join(", ")));
        steps.run("clear the earlier run", "1 to 5 s", || sweep::sweep(steps, layout))?;
    }
    let pause = images::pause(steps)?;
    steps.run("start the node", "15 to 30 s", || {
        sweep::remember(layout)?;
        fs::create_dir_all(layout.run.join("log/pods"))?;
        fs::create_dir_all(layout.run.join("pids"))?;
        cgroup::make()?;
        network()?;
        pki::write(&layout.run)?;
        files::write(layout, &pause.reference())?;
        start(layout, "etcd")?;
        start(layout, "containerd")?;
        start(layout, "apiserver")?;
        let cluster = Cluster::local(layout);
        wait(steps, layout, "apiserver", "the API server", 120, || ready(&cluster))?;
        start(layout, "controller-manager")?;
        start(layout, "scheduler")?;
        wait(steps, layout, "containerd", "containerd", 30, || {
            if layout.containerd().exists() { Ok(()) } else { bail!("no socket") }
        })?;
        cluster.load(steps, &pause)?;
        start(layout, "kubelet")?;
        start(layout, "proxy")?;
        start(layout, "coredns")?;
        let objects = files::dns_objects();
        cluster.kubectl(&["apply", "--server-side", "-f", "-"]).feed(&objects)?;
        wait(steps, layout, "kubelet", "the node", 120, || node_ready(&cluster))?;
        wait(steps, layout, "coredns", "the cluster's DNS", 60, dns_ready)?;
        wait(steps, layout, "controller-manager", "the default service account", 60, || {
            cluster.kubectl(&["get", "serviceaccount", "default", "-n", "default"]).run()
        })
    })?;
    Ok(Started::Now)
}

/// Whether every program runs and the node takes pods.
///
/// # Errors
/// The first thing that is not so.
pub(super) fn healthy(layout: &Layout) -> Result<()> {
    for name in process::NAMES {
        if !process::recorded(layout, name).with_context(|| format!("{name} was not started"))?.alive() {
            bail!("{name} is not running");
        }
    }
    let cluster = Cluster::local(layout);
    ready(&cluster).context("the API server is not ready")?;
    node_ready(&cluster).context("the node is not ready")?;
    dns_ready().context("DNS is not ready")
}

fn check_machine(layout: &Layout) -> Result<()> {
    if !cfg!(target_os = "linux") || !rustix::process::getuid().is_root() {
        bail!(
            "the local cluster needs Linux and root: run this as root, or name a cluster you have with --context"
        );
    }
    let run = layout.run.to_string_lossy();
    // kubelet puts sockets below, whose paths may have 107 bytes.
    if run.len() > 60 || run.contains(char::is_whitespace) {
        bail!(
            "the path {run} must have no white space and at most 60 bytes: set BEHALF_CACHE to another directory"
        );
    }
    Ok(())
}

fn start(layout: &Layout, name: &str) -> Result<()> {
    let program = match name {
        "etcd" | "containerd" => PathBuf::from(name),
        "coredns" => programs::path(&layout.cache, name),
        "kubelet" => programs::path(&layout.cache, "kubelet"),
        _ => programs::path(&layout.cache, &format!("kube-{name}")),
    };
    process::start(layout, name, &program, &files::arguments(layout, name))
}

/// The namespace, joined to the machine by one pair of links and to nothing else.
fn network() -> Result<()> {
    let [machine4, machine6] = MACHINE;
    let [services4, services6] = SERVICES;
    let (node4, node6) = (format!("{NODE_IP}/24"), format!("{NODE_IP6}/64"));
    let inside = |words: &[&str]| Command::new("ip").args(["-n", NAMESPACE]).args(words).run();
    let outside = |words: &[&str]| Command::new("ip").args(words).run();
    outside(&["netns", "add", NAMESPACE])?;
    outside(&["link", "add", LINK, "type", "veth", "peer", "name", "eth0", "netns", NAMESPACE])?;
    outside(&["addr", "add", machine4, "dev", LINK])?;
    outside(&["-6", "addr", "add", machine6, "dev", LINK, "nodad"])?;
    outside(&["link", "set", LINK, "up"])?;
    inside(&["addr", "add", &node4, "dev", "eth0"])?;
    inside(&["-6", "addr", "add", &node6, "dev", "eth0", "nodad"])?;
    inside(&["link", "set", "eth0", "up"])?;
    inside(&["link", "set", "lo", "up"])?;
    // A packet to a service address that nobody serves dies on an idle bridge.
    inside(&["link", "add", "sink0", "type", "bridge"])?;
    inside(&["link", "set", "sink0", "up"])?;
    inside(&["route", "add", services4, "dev", "sink0"])?;
    inside(&["-6", "route", "add", services6, "dev", "sink0"])?;
    in_netns("sh")
        .args(["-c", "for f in ipv4/ip_forward ipv6/conf/all/forwarding; do echo 1 >/proc/sys/net/$f; done"])
        .run()
}

/// A command that runs inside the node's network namespace, from where pods and services are reached.
#[must_use]
pub(super) fn in_netns(program: &str) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", Layout::netns().display())).arg(program);
    command
}

fn ready(cluster: &Cluster) -> Result<()> {
    cluster.kubectl(&["get", "--raw", "/readyz", "--request-timeout=5s"]).run()
}

fn node_ready(cluster: &Cluster) -> Result<()> {
    let path = "jsonpath={.status.conditions[?(@.type==\"Ready\")].status}";
    let status = cluster.kubectl(&["get", "node", NODE, "-o", path, "--request-timeout=5s"]).text()?;
    if status != "True" {
        bail!("the node says Ready={status}");
    }
    Ok(())
}

fn dns_ready() -> Result<()> {
    let address: SocketAddr = format!("{NODE_IP}:8181").parse()?;
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(b"GET /ready HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if answer.split_whitespace().nth(1) != Some("200") {
        bail!("CoreDNS is not ready yet");
    }
    Ok(())
}

/// Waits until `check` passes, at most `seconds`; fails at once when the program has ended.
fn wait(
    steps: &Steps,
    layout: &Layout,
    program: &str,
    what: &str,
    seconds: u64,
    check: impl Fn() -> Result<()>,
) -> Result<()> {
    let began = Instant::now();
    loop {
        let Err(error) = check() else { return Ok(()) };
        let log = || {
            let text = fs::read_to_string(layout.run.join(format!("log/{program}.log"))).unwrap_or_default();
            format!("the end of log/{program}.log:\n{}", tail(&text, 15))
        };
        if !process::recorded(layout, program).is_some_and(|process| process.alive()) {
            bail!("{program} ended while it was waited for; {}", log());
        }
        if began.elapsed() > Duration::from_secs(seconds) {
            return Err(error).with_context(|| format!("{what} was not ready after {seconds} s; {}", log()));
        }
        steps.live(&format!("waiting for {what}"));
        std::thread::sleep(Duration::from_millis(200));
    }
}
