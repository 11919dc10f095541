//! Names that the operator and the sidecar must agree on: ports, files, headers, user ids.
//!
//! Kubernetes names (labels, annotations, containers, volumes) live in the `crds` crate.

/// Where the sidecar takes inbound calls; the redirect rules send the server's port here.
pub const INBOUND_PORT: u16 = 15101;
/// Where the server finds its downstreams, on loopback only.
pub const EGRESS_PORT: u16 = 15102;
/// Readiness of the sidecar and the rewritten probes of the pod's own containers.
pub const PROBE_PORT: u16 = 15103;
/// Prometheus metrics of the sidecar.
pub const METRICS_PORT: u16 = 15104;

/// Where the operator listens for the feed; the Service in front of it has port 443.
pub const FEED_PORT: u16 = 9444;
/// Path of the one exchange of the feed, see [`crate::feed`].
pub const FEED_PATH: &str = "/v1/feed";
/// Audience of the projected token a pod shows to the feed. Reserved: no other container of the pod may have one.
pub const FEED_AUDIENCE: &str = "behalf.dev/feed";
/// Directory at which that token is mounted in the sidecar; the file is [`TOKEN_FILE`].
pub const FEED_DIR: &str = "/var/run/secrets/behalf.dev/feed";
/// How long a feed token lives, seconds; kubelet renews it in time.
pub const FEED_TOKEN_SECONDS: i64 = 3600;
/// Path below which the sidecar proves, on its inbound and its probe port, that it is the one who answers: `<path><challenge>`.
pub const CHALLENGE_PATH_PREFIX: &str = "/.well-known/behalf/challenge/";

/// Directory at which the namespace's deny-only `ConfigMap` is mounted, if there is one; see [`crate::deny`].
pub const DENY_DIR: &str = "/etc/behalf/deny";

/// Directory at which the certificate of a server with `tls` is mounted in the sidecar.
pub const TLS_DIR: &str = "/etc/behalf/tls";
/// File of that certificate and its chain, PEM, end entity first (`kubernetes.io/tls`).
pub const TLS_CERTIFICATE: &str = "tls.crt";
/// File of its private key, PEM.
pub const TLS_KEY: &str = "tls.key";
/// File of the authorities that stand beside it, PEM, if there is one.
pub const TLS_AUTHORITIES: &str = "ca.crt";

/// Directory at which the volume for decision records is mounted in the sidecar, if there is one.
pub const RECORDS_DIR: &str = "/var/lib/behalf/records";
/// File of decision records in it.
pub const RECORDS_FILE: &str = "records.jsonl";

/// User id of the sidecar; no other container of an injected pod may run as it.
pub const SIDECAR_UID: i64 = 15001;

/// Directory at which the bundle's ConfigMap is mounted in the sidecar.
pub const BUNDLE_DIR: &str = "/etc/behalf/bundle";
/// Key of the signed bundle in its ConfigMap, hence its file name.
pub const BUNDLE_KEY: &str = "bundle.json";
/// Directory under which the projected token of each provider is mounted: `<dir>/<provider>/token`.
pub const CREDENTIALS_DIR: &str = "/var/run/secrets/behalf.dev/identity-providers";
/// File name of a projected service-account token below its provider's directory.
pub const TOKEN_FILE: &str = "token";
/// Path prefix on [`PROBE_PORT`] of the probes the webhook moved there; see [`crate::probe`].
pub const PROBE_PATH_PREFIX: &str = "/probe/";

/// Key under `params._meta` in which the sidecar hands the one-call handle to the server.
pub const META_HANDLE: &str = "behalf.dev/handle";
/// The plain header in which the sidecar hands the one-call handle to the server, and takes it back on the way out.
pub const HANDLE_HEADER: &str = "behalf-handle";
/// Every `_meta` key and header that starts with this is ours; a caller's is removed in every spelling.
pub const META_PREFIX: &str = "behalf.dev/";
/// Header names of ours, lower case; a caller's are removed in every spelling.
pub const HEADER_PREFIX: &str = "behalf-";

/// `typ` of the signed bundle, so that no other Ed25519 signature of the same key can be taken for one.
pub const BUNDLE_SIGNATURE_CONTEXT: &str = "behalf.dev/bundle/v1";

/// File of the projected token for the feed.
#[must_use]
pub fn feed_token_file() -> String {
    format!("{FEED_DIR}/{TOKEN_FILE}")
}

/// File of the projected token for a provider.
#[must_use]
pub fn token_file(provider: &str) -> String {
    format!("{CREDENTIALS_DIR}/{provider}/{TOKEN_FILE}")
}
