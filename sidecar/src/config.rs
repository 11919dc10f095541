//! What the injector writes into the sidecar's arguments. Nothing else configures it but the bundle:
//! admission pins these arguments, so that nobody in the pod's namespace can widen them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use behalf_policy::bundle::signed::PublicKey;
use behalf_policy::probe::Probes;
use behalf_policy::wire;
use clap::Args;

use crate::audit::Options;
use crate::dpop::Capacity;

/// The arguments of `behalf-sidecar run`.
#[derive(Debug, Clone, Args)]
pub struct Config {
    /// Namespace of the `AgentIdentity`
    #[arg(long, value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub namespace: String,
    /// Name of the `AgentIdentity`
    #[arg(long, value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub identity: String,
    /// Name of the pod, for logs
    #[arg(long, default_value = "")]
    pub pod_name: String,
    /// Addresses of the pod itself, never connected to (may be repeated or separated by commas)
    #[arg(long = "pod-address", value_delimiter = ',')]
    pub pod_addresses: Vec<IpAddr>,
    /// Directory that holds the signed bundle
    #[arg(long, default_value = wire::BUNDLE_DIR)]
    pub bundle_dir: PathBuf,
    /// Directory that holds the namespace's deny list, if there is one
    #[arg(long, default_value = wire::DENY_DIR)]
    pub deny_dir: PathBuf,
    /// Directory that holds the server's certificate (tls.crt, tls.key, ca.crt); without it, inbound calls are plain HTTP
    #[arg(long)]
    pub tls_dir: Option<PathBuf>,
    /// File of the token for the operator's feed
    #[arg(long, default_value_os_t = PathBuf::from(wire::feed_token_file()))]
    pub feed_token_file: PathBuf,
    /// Public key that may sign the bundle, as id=base64 (may be repeated)
    #[arg(long = "bundle-key", required = true, value_parser = parse_key)]
    pub bundle_keys: Vec<PublicKey>,
    /// Name server to ask (may be repeated); the pod's resolv.conf is never read
    #[arg(long = "nameserver")]
    pub nameservers: Vec<IpAddr>,
    /// Domain of the cluster, for names that end in .svc
    #[arg(long, default_value = "cluster.local")]
    pub cluster_domain: String,
    /// Probes moved here from the pod's containers, as one JSON object
    #[arg(long, default_value = "{}", value_parser = parse_probes)]
    pub probes: ProbeTable,
    /// Where inbound calls are taken (may be repeated, as all addresses)
    #[arg(long = "inbound-address", default_values_t = any(wire::INBOUND_PORT))]
    pub inbound_addresses: Vec<SocketAddr>,
    /// Where the server finds its downstreams; loopback only
    #[arg(long = "egress-address", default_values_t = loopback(wire::EGRESS_PORT), value_parser = parse_loopback)]
    pub egress_addresses: Vec<SocketAddr>,
    /// Where readiness and moved probes are answered
    #[arg(long = "probe-address", default_values_t = any(wire::PROBE_PORT))]
    pub probe_addresses: Vec<SocketAddr>,
    /// Where metrics are served
    #[arg(long = "metrics-address", default_values_t = any(wire::METRICS_PORT))]
    pub metrics_addresses: Vec<SocketAddr>,
    /// Where records go and what they are held to
    #[command(flatten)]
    pub records: Options,
    /// How many proofs of possession are remembered; no argument, so that nobody in a pod has to choose it
    #[arg(skip)]
    pub proofs: Capacity,
    /// Seconds that open calls get to end after SIGTERM
    #[arg(long, default_value_t = 25, value_parser = clap::value_parser!(u64).range(0..=600))]
    pub drain_seconds: u64,
    /// Take providers and downstreams on loopback; for runs on one machine, never in a pod
    #[arg(long)]
    pub allow_loopback_destinations: bool,
    /// What is logged
    #[arg(long, default_value = "info")]
    pub log: String,
}

/// The declared probes, parsed once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProbeTable(pub Probes);

fn any(port: u16) -> [SocketAddr; 2] {
    both(Ipv4Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED, port)
}

fn loopback(port: u16) -> [SocketAddr; 2] {
    both(Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST, port)
}

fn both(v4: Ipv4Addr, v6: Ipv6Addr, port: u16) -> [SocketAddr; 2] {
    [(v4, port).into(), (v6, port).into()]
}

fn parse_key(text: &str) -> Result<PublicKey, String> {
    PublicKey::parse(text).map_err(|e| e.to_string())
}

fn parse_probes(text: &str) -> Result<ProbeTable, String> {
    serde_json::from_str(text).map(ProbeTable).map_err(|e| e.to_string())
}

fn parse_loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text.parse().map_err(|_| "not an address with a port".to_owned())?;
    if address.ip().is_loopback() { Ok(address) } else { Err("not a loopback address".to_owned()) }
}
