//! Flags, each with its twin in the environment.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use behalf_crds::names;
use behalf_plan::Records;
use behalf_policy::wire::{FEED_PORT, feed_token_file};
use clap::{Parser, Subcommand, ValueEnum};

use crate::telemetry::LogFormat;

/// The Behalf operator.
#[derive(Debug, Parser)]
#[command(name = "behalf-operator", version, about)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the operator.
    Run(Box<RunArgs>),
    /// Check from inside the cluster that Behalf is installed and answers (the chart's test).
    Check(CheckArgs),
}

/// What a process of the operator does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Write bundles, statuses and the parameters of the admission policies. As many as you like: one of them holds the
    /// Lease and writes, the others wait for it.
    Reconcile,
    /// Answer the API server. As many as you like.
    Webhook,
    /// Answer the sidecars. As many as you like.
    Feed,
}

/// Flags of `run`.
#[derive(Clone, Debug, Parser)]
pub struct RunArgs {
    /// The operator's own namespace.
    #[arg(long, env = "POD_NAMESPACE", default_value = names::SYSTEM_NAMESPACE)]
    pub namespace: String,
    /// Name of the operator's pod, for Events.
    #[arg(long, env = "POD_NAME")]
    pub pod_name: Option<String>,
    /// Address of the operator's pod, by which other replicas reach the one that leads.
    #[arg(long, env = "POD_IP")]
    pub pod_ip: Option<IpAddr>,
    /// What this process does.
    #[arg(long, env = "BEHALF_ROLES", value_delimiter = ',', default_values = ["reconcile", "webhook", "feed"])]
    pub roles: Vec<Role>,

    /// Image of the sidecar, best by digest.
    #[arg(long, env = "BEHALF_SIDECAR_IMAGE")]
    pub sidecar_image: String,
    /// imagePullPolicy of the sidecar.
    #[arg(long, env = "BEHALF_SIDECAR_PULL_POLICY", default_value = "IfNotPresent")]
    pub sidecar_pull_policy: String,
    /// A further image that pods may still be made with, such as the previous one during an upgrade (repeat it for more).
    #[arg(long, env = "BEHALF_PREVIOUS_SIDECAR_IMAGE", value_delimiter = ',')]
    pub previous_sidecar_image: Vec<String>,
    /// CPU the sidecar asks for.
    #[arg(long, env = "BEHALF_SIDECAR_CPU_REQUEST", default_value = "10m")]
    pub sidecar_cpu_request: String,
    /// Memory the sidecar asks for.
    #[arg(long, env = "BEHALF_SIDECAR_MEMORY_REQUEST", default_value = "32Mi")]
    pub sidecar_memory_request: String,
    /// Memory the sidecar may use at most.
    #[arg(long, env = "BEHALF_SIDECAR_MEMORY_LIMIT", default_value = "128Mi")]
    pub sidecar_memory_limit: String,
    /// Where the sidecars write their decision records: the value sidecar.records of the chart, as JSON; absent: to standard
    /// output, relaxed.
    #[arg(long, env = "BEHALF_SIDECAR_RECORDS", value_parser = records)]
    pub sidecar_records: Option<Records>,
    /// A nameserver for the sidecars (repeat it for more); absent: those of the operator's own pod.
    #[arg(long, env = "BEHALF_NAMESERVER", value_delimiter = ',')]
    pub nameserver: Vec<String>,
    /// Domain of the cluster; absent: that of the operator's own pod.
    #[arg(long, env = "BEHALF_CLUSTER_DOMAIN")]
    pub cluster_domain: Option<String>,
    /// Where the operator's own pod has its nameservers and search list.
    #[arg(long, env = "BEHALF_RESOLV_CONF", default_value = "/etc/resolv.conf")]
    pub resolv_conf: PathBuf,

    /// Where the webhook listens (HTTPS).
    #[arg(long, env = "BEHALF_WEBHOOK_ADDRESS", default_value = "0.0.0.0:9443")]
    pub webhook_address: SocketAddr,
    /// Where the probes are answered (HTTP).
    #[arg(long, env = "BEHALF_HEALTH_ADDRESS", default_value = "0.0.0.0:8081")]
    pub health_address: SocketAddr,
    /// Where metrics are served (HTTP).
    #[arg(long, env = "BEHALF_METRICS_ADDRESS", default_value = "0.0.0.0:8080")]
    pub metrics_address: SocketAddr,
    /// Service in front of the webhook.
    #[arg(long, env = "BEHALF_WEBHOOK_SERVICE", default_value = names::WEBHOOK_SERVICE)]
    pub webhook_service: String,
    /// A further name or address under which the API server reaches the webhook (repeat it for more).
    #[arg(long, env = "BEHALF_WEBHOOK_HOST", value_delimiter = ',')]
    pub webhook_host: Vec<String>,
    /// The `MutatingWebhookConfiguration` to keep the authority in.
    #[arg(long, env = "BEHALF_WEBHOOK_CONFIGURATION", default_value = names::WEBHOOK_CONFIGURATION)]
    pub webhook_configuration: String,

    /// How old the newest signing key gets before a new one is made beside it, such as 2160h or 90d.
    #[arg(long, env = "BEHALF_SIGNING_KEY_MAX_AGE", value_parser = duration, default_value = "2160h")]
    pub signing_key_max_age: Duration,
    /// How long a new signing key has to be there before pods stop to pin the one before, and how long that one signs on at
    /// least. No key is dropped while a running pod pins only it.
    #[arg(long, env = "BEHALF_SIGNING_KEY_OVERLAP", value_parser = duration, default_value = "10m")]
    pub signing_key_overlap: Duration,
    /// How long a serving certificate lives; it is renewed when a third of that is left.
    #[arg(long, env = "BEHALF_CERTIFICATE_LIFETIME", value_parser = duration, default_value = "720h")]
    pub certificate_lifetime: Duration,
    /// How long the authority of the serving certificates lives; the next one is prepared when a quarter of that is left.
    /// At least twice as long as a certificate.
    #[arg(long, env = "BEHALF_AUTHORITY_LIFETIME", value_parser = duration, default_value = "8760h")]
    pub authority_lifetime: Duration,

    /// Where the feed listens (HTTPS).
    #[arg(long, env = "BEHALF_FEED_ADDRESS", default_value_t = SocketAddr::from(([0, 0, 0, 0], FEED_PORT)))]
    pub feed_address: SocketAddr,
    /// The operator's own projected token for the feed, with which replicas hand on reports to the one that leads.
    #[arg(long, env = "BEHALF_FEED_TOKEN_FILE", default_value_os_t = PathBuf::from(feed_token_file()))]
    pub feed_token_file: PathBuf,
    /// Counts that merely move are written no more often than this, in seconds.
    #[arg(long, env = "BEHALF_COUNTS_INTERVAL_SECONDS", default_value_t = 5)]
    pub counts_interval_seconds: u64,

    /// What is logged: error, warn, info, debug, or a filter such as `behalf_operator=debug,info`.
    #[arg(long, env = "BEHALF_LOG_LEVEL", default_value = "info")]
    pub log_level: String,
    /// How it is logged.
    #[arg(long, env = "BEHALF_LOG_FORMAT", value_enum, default_value_t = LogFormat::Json)]
    pub log_format: LogFormat,
}

/// Flags of `check`.
#[derive(Clone, Debug, Parser)]
pub struct CheckArgs {
    /// The operator's namespace.
    #[arg(long, env = "POD_NAMESPACE", default_value = names::SYSTEM_NAMESPACE)]
    pub namespace: String,
    /// Service in front of the webhook.
    #[arg(long, env = "BEHALF_WEBHOOK_SERVICE", default_value = names::WEBHOOK_SERVICE)]
    pub webhook_service: String,
    /// Where to reach it, if not at port 443 of the Service.
    #[arg(long, env = "BEHALF_WEBHOOK_ADDRESS")]
    pub webhook_address: Option<SocketAddr>,
    /// The `MutatingWebhookConfiguration`.
    #[arg(long, env = "BEHALF_WEBHOOK_CONFIGURATION", default_value = names::WEBHOOK_CONFIGURATION)]
    pub webhook_configuration: String,
    /// How long the operator may take to become reachable, in seconds: a fresh Service leads nowhere for a moment.
    #[arg(long, default_value_t = 30)]
    pub wait_seconds: u64,
}

fn records(text: &str) -> Result<Records, String> {
    let records: Records = serde_json::from_str(text).map_err(|error| error.to_string())?;
    records.check().map_err(|error| error.to_string())?;
    Ok(records)
}

/// A whole number and its unit: s, m, h or d.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no duration such as 90s, 10m, 720h or 30d");
    let (unit, number) =
        text.char_indices().next_back().map(|(at, unit)| (unit, &text[..at])).ok_or_else(wrong)?;
    let seconds: u64 = match unit {
        's' => 1,
        'm' => 60,
        'h' => 60 * 60,
        'd' => 24 * 60 * 60,
        _ => return Err(wrong()),
    };
    let number: u32 = number.parse().ok().filter(|it| *it > 0).ok_or_else(wrong)?;
    let all =
        u64::from(number).checked_mul(seconds).filter(|it| *it <= 100 * 365 * 86_400).ok_or_else(wrong)?;
    Ok(Duration::from_secs(all))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn flags_are_well_formed() {
        Args::command().debug_assert();
    }

    #[test]
    fn every_flag_of_run_has_a_twin() {
        let command = Args::command();
        let run = command.find_subcommand("run").unwrap();
        for flag in run.get_arguments().filter(|it| !["help", "version"].contains(&it.get_id().as_str())) {
            let twin = flag.get_env().map(|it| it.to_string_lossy().into_owned());
            let expected = match flag.get_id().as_str() {
                "namespace" => "POD_NAMESPACE".to_owned(),
                "pod_name" => "POD_NAME".to_owned(),
                "pod_ip" => "POD_IP".to_owned(),
                id => format!("BEHALF_{}", id.to_uppercase()),
            };
            assert_eq!(twin, Some(expected));
        }
    }

    #[test]
    fn durations_have_a_unit_and_are_not_nothing() {
        for (text, seconds) in [("90s", 90), ("10m", 600), ("720h", 2_592_000), ("30d", 2_592_000)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)));
        }
        for text in ["", "s", "0s", "10", "-1h", "1.5h", "1w", "1h30m", "4294967295d", "ä", "101d0"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn where_records_go_is_json_of_the_chart_and_makes_sense() {
        let good = r#"{"mode":"Strict","stdout":"Disabled","file":{"mode":"Enabled","maxBytes":"64Mi","maxFiles":4,"reserveBytes":"4Mi","volume":{"type":"EmptyDir","size":"512Mi","storageClassName":""}},"otlp":{"url":"","caBundle":""}}"#;
        assert_eq!(records(good).unwrap().arguments().len(), 6);
        let said = records(&good.replace("\"mode\":\"Enabled\"", "\"mode\":\"Disabled\"")).unwrap_err();
        assert!(said.contains("set stdout or file.mode to Enabled"), "{said}");
        for bad in ["", "{}", "Strict", &good.replace("Strict", "strict"), &good.replace("maxFiles", "files")]
        {
            assert!(records(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn lists_are_split_and_all_roles_are_the_default() {
        let parse = |more: &[&str]| {
            let base = ["behalf-operator", "run", "--sidecar-image", "x@sha256:0"];
            match Args::parse_from(base.iter().chain(more)).command {
                Command::Run(run) => run,
                Command::Check(_) => panic!(),
            }
        };
        assert_eq!(parse(&[]).roles, [Role::Reconcile, Role::Webhook, Role::Feed]);
        assert_eq!(parse(&["--roles", "webhook"]).roles, [Role::Webhook]);
        assert_eq!(
            parse(&["--nameserver", "10.0.0.1", "--nameserver=10.0.0.2,10.0.0.3"]).nameserver.len(),
            3
        );
        assert!(Args::try_parse_from(["behalf-operator", "run"]).is_err(), "an image is needed");
        assert!(
            Args::try_parse_from(["behalf-operator", "run", "--sidecar-image", "x", "--roles", "boss"])
                .is_err()
        );
    }
}
