//! The server part of an `AgentIdentity`: what it speaks, where it listens, how calls reach it.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ServerTls;
use crate::v1alpha1::{Duration, bounds};

/// A server of the pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.interception.extraPorts) || self.interception.extraPorts.all(p, p.port != self.port || p.protocol != 'TCP')")
        .message("an extra port is reachable without Behalf, so it cannot be the server's own port")
        .field_path(".interception.extraPorts").reason(Reason::FieldValueForbidden),
    validation = Rule::new("!has(self.tls) || self.url.startsWith('https://')")
        .message("with tls the sidecar answers https alone; set an https url")
        .field_path(".url").reason(Reason::FieldValueInvalid)
)]
pub struct Server {
    /// Name of the server within the pod.
    #[schemars(schema_with = "bounds::text::<bounds::Label>")]
    pub name: String,
    /// What it speaks. MCP: streamable HTTP. HTTP: any other API, judged by the routes of its tool set.
    #[serde(default)]
    pub protocol: Protocol,
    /// The URL callers use: the audience of their tokens, unique in the cluster. http only for hosts inside the cluster.
    #[schemars(schema_with = "bounds::text::<bounds::Url>")]
    #[x_kube(validation = Rule::new(SERVER_URL_RULE).message(SERVER_URL_MESSAGE).reason(Reason::FieldValueInvalid))]
    pub url: String,
    /// The port the server listens on in the pod.
    #[schemars(schema_with = "bounds::port")]
    pub port: i64,
    /// The tool set of the catalogue that describes this server.
    #[schemars(schema_with = "bounds::text::<bounds::Label>")]
    pub tool_set: String,
    /// Origins of web pages whose scripts may call, besides the URL's own: scheme, host and port. A call that
    /// names any other is refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "bounds::texts::<bounds::Origin, 0, 16>")]
    pub allowed_origins: Vec<String>,
    /// How the sidecar terminates TLS, in front of the server's port. Absent: it takes plain HTTP, and whatever stands in
    /// front of the pod terminates TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "ServerTls")]
    pub tls: Option<ServerTls>,
    /// How long the server and its callers may take.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// How calls from outside are led through Behalf.
    #[serde(default)]
    pub interception: Interception,
    /// How the server receives the handle of a call.
    #[serde(default)]
    pub handle: Handle,
    /// The Host header the server sees. Loopback: 127.0.0.1 and its port. Keep: the caller's, after it was judged.
    #[serde(default)]
    pub host: HostHeader,
}

/// An http or https URL with lower-case scheme and host and nothing but host, port and path.
const SERVER_URL_RULE: &str = r"self.matches('^https?://([a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*|\\[[0-9a-f:.]+\\])(:[1-9][0-9]{0,4})?(/[-A-Za-z0-9._~!$&()*+,;=:@%/]*)?$')";
const SERVER_URL_MESSAGE: &str = "must be an http or https URL with lower-case scheme and host and without user, query or fragment, such as https://hr.example.com/mcp";

/// How long a server and its callers may take.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Timeouts {
    /// Until the body of a request has arrived: 1s to 10m.
    #[serde(default = "default_body")]
    #[x_kube(validation = Rule::new(TEN_MINUTES).message("body is between 1s and 10m").reason(Reason::FieldValueInvalid))]
    pub body: Duration,
    /// Until the server's answer begins: 1s to 10m.
    #[serde(default = "default_response")]
    #[x_kube(validation = Rule::new(TEN_MINUTES).message("response is between 1s and 10m").reason(Reason::FieldValueInvalid))]
    pub response: Duration,
    /// The longest silence of an event stream, at most 24h. Absent: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Duration")]
    #[x_kube(validation = Rule::new(ONE_DAY).message("streamIdle is between 1s and 24h").reason(Reason::FieldValueInvalid))]
    pub stream_idle: Option<Duration>,
    /// The longest life of an event stream, at most 24h. Absent: as long as its caller's token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Duration")]
    #[x_kube(validation = Rule::new(ONE_DAY).message("stream is between 1s and 24h").reason(Reason::FieldValueInvalid))]
    pub stream: Option<Duration>,
}

const TEN_MINUTES: &str = "duration(self) >= duration('1s') && duration(self) <= duration('10m')";
const ONE_DAY: &str = "duration(self) >= duration('1s') && duration(self) <= duration('24h')";

fn default_body() -> Duration {
    Duration::from_secs(30)
}

fn default_response() -> Duration {
    Duration::from_secs(600)
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { body: default_body(), response: default_response(), stream_idle: None, stream: None }
    }
}

/// What a server speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Protocol {
    /// Model Context Protocol over streamable HTTP.
    #[default]
    #[serde(rename = "MCP")]
    Mcp,
    /// A plain HTTP API.
    #[serde(rename = "HTTP")]
    Http,
}

/// How calls from outside are led through Behalf.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Interception {
    /// Redirect: packet rules in the pod lead the server's port to Behalf and close all others.
    #[serde(default, rename = "type")]
    pub type_: InterceptionType,
    /// Ports that stay reachable without Behalf, such as one for metrics.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "bounds::ports::<ExtraPort, 16>")]
    pub extra_ports: Vec<ExtraPort>,
}

/// How calls from outside are led through Behalf.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum InterceptionType {
    /// Packet rules in the pod.
    #[default]
    Redirect,
}

/// A port that stays reachable without Behalf.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExtraPort {
    /// Port number in the pod.
    #[schemars(schema_with = "bounds::port")]
    pub port: i64,
    /// TCP, UDP or SCTP.
    #[serde(default)]
    pub protocol: TransportProtocol,
}

/// A transport protocol.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum TransportProtocol {
    /// TCP.
    #[default]
    #[serde(rename = "TCP")]
    Tcp,
    /// UDP.
    #[serde(rename = "UDP")]
    Udp,
    /// SCTP.
    #[serde(rename = "SCTP")]
    Sctp,
}

/// How the server receives the handle of a call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Handle {
    /// Where the handle stands. Authorization: as bearer credential of the call. Meta: in params._meta.
    /// Header: in the header Behalf-Handle.
    #[serde(default = "default_carriers")]
    #[schemars(schema_with = "bounds::choices::<Carrier, 1, 8>")]
    pub carriers: Vec<Carrier>,
    /// How long the handle outlives the answer to its call, for servers that answer before they are done: at most 30s.
    /// Absent: it ends with the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Duration")]
    #[x_kube(validation = Rule::new("duration(self) <= duration('30s')").message("grace is at most 30s")
        .reason(Reason::FieldValueInvalid))]
    pub grace: Option<Duration>,
}

fn default_carriers() -> Vec<Carrier> {
    vec![Carrier::Authorization, Carrier::Meta]
}

impl Default for Handle {
    fn default() -> Self {
        Self { carriers: default_carriers(), grace: None }
    }
}

/// Where the handle of a call stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Carrier {
    /// The Authorization header.
    Authorization,
    /// `params._meta` of the MCP request.
    Meta,
    /// The Behalf-Handle header.
    Header,
}

/// The Host header the server sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum HostHeader {
    /// `127.0.0.1:<port>`.
    #[default]
    Loopback,
    /// The caller's.
    Keep,
}
