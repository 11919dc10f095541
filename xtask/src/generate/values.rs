//! What may be set in the chart `behalf`: its `values.yaml` in types, from which helm's schema of it is made.
use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::File;

const PATH: &str = "charts/behalf/values.schema.json";

/// Values of the chart behalf.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Values {
    /// The operator: reconciler and admission webhook.
    pub operator: Operator,
    /// The sidecar that the webhook injects.
    pub sidecar: Sidecar,
    /// What the sidecar resolves names with.
    pub dns: Dns,
    /// Secrets to pull both images with, by name.
    #[schemars(
        length(max = 16),
        inner(length(min = 1, max = 253), regex(pattern = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))
    )]
    pub image_pull_secrets: Vec<String>,
    /// Namespaces that are never enrolled, besides kube-system and the namespace of the release.
    #[schemars(
        length(max = 256),
        inner(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))
    )]
    pub excluded_namespaces: Vec<String>,
    /// Roles for people.
    pub roles: Roles,
    /// Who may reach the operator, and whom it may reach.
    pub network_policy: NetworkPolicy,
}

/// Roles for people.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Roles {
    /// Whether the cluster's own roles view, edit and admin gather those for AgentIdentities.
    pub aggregation: Mode,
}

/// The operator: reconciler and admission webhook.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Operator {
    /// Its image.
    pub image: Image,
    /// Replicas. Webhook and feed serve on all of them; the one that holds the Lease writes.
    #[schemars(range(min = 1, max = 16))]
    pub replicas: i32,
    /// What a replica asks for and may use.
    pub resources: Resources,
    /// How much the operator logs.
    pub log_level: LogLevel,
}

/// One of our images.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Image {
    /// The image without tag and digest.
    #[schemars(length(min = 1, max = 255), regex(pattern = "^[^@\\s]+$"))]
    pub repository: String,
    /// The tag; with a digest only for people.
    #[schemars(regex(pattern = "^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$"))]
    pub tag: String,
    /// The digest, or empty.
    #[schemars(regex(pattern = "^(sha256:[0-9a-f]{64})?$"))]
    pub digest: String,
    /// When kubelet pulls it.
    pub pull_policy: PullPolicy,
}

/// When kubelet pulls an image.
#[derive(Debug, Deserialize, JsonSchema)]
pub enum PullPolicy {
    /// At each start.
    Always,
    /// When the node lacks it.
    IfNotPresent,
    /// Never: it must be on the node.
    Never,
}

/// How much is logged.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// What needs a person.
    Error,
    /// And what may soon.
    Warn,
    /// And what changed.
    Info,
    /// And why.
    Debug,
}

/// The sidecar that the webhook injects.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Sidecar {
    /// Image of the sidecar.
    pub image: Image,
    /// Further images that admission still accepts, while pods of the previous release run. Full references.
    #[schemars(
        length(max = 16),
        inner(
            length(max = 512),
            regex(pattern = "^[^@\\s]+(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}|@sha256:[0-9a-f]{64})$")
        )
    )]
    pub previous_images: Vec<String>,
    /// Where all sidecars write their decision records. Pods follow when they are made anew.
    pub records: Records,
}

/// Where decision records go, and what they are held to.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Records {
    /// What a record is held to before a request goes on.
    pub mode: RecordMode,
    /// Whether they go to standard output. Disabled only with a file.
    pub stdout: Mode,
    /// A file on a volume that only the sidecar mounts, and that ends with its pod.
    pub file: RecordFile,
    /// A copy as OTLP logs.
    pub otlp: Otlp,
}

/// What records are held to.
#[derive(Debug, Deserialize, JsonSchema)]
pub enum RecordMode {
    /// A record is handed to the writer before the answer goes out.
    Relaxed,
    /// An intent is durable before anything leaves, and a record before the answer goes out.
    Strict,
}

/// The file of records.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RecordFile {
    /// Whether there is one.
    pub mode: Mode,
    /// Size at which it gets another name: a whole number of Ki, Mi, Gi or Ti.
    #[schemars(regex(pattern = "^[1-9][0-9]{0,9}[KMGT]i$"))]
    pub max_bytes: String,
    /// How many of those are kept.
    #[schemars(range(min = 1, max = 999))]
    pub max_files: i32,
    /// Held behind its end: on a full disk refusals are recorded there.
    #[schemars(regex(pattern = "^[1-9][0-9]{0,9}[KMGT]i$"))]
    pub reserve_bytes: String,
    /// Where it lies.
    pub volume: RecordVolume,
}

/// A volume that begins and ends with its pod.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RecordVolume {
    /// On the node's disk, or a claim of each pod's own.
    #[serde(rename = "type")]
    pub type_: RecordVolumeType,
    /// How much it holds: maxBytes * (maxFiles + 1) + 2 * reserveBytes at least.
    #[schemars(regex(pattern = "^[1-9][0-9]{0,9}[KMGT]i$"))]
    pub size: String,
    /// Class of a claim; empty: the cluster's default.
    #[schemars(length(max = 253), regex(pattern = "^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$"))]
    pub storage_class_name: String,
}

/// Kinds of volumes for records.
#[derive(Debug, Deserialize, JsonSchema)]
pub enum RecordVolumeType {
    /// On the node's disk.
    EmptyDir,
    /// A claim of each pod's own; the pods need an fsGroup.
    Ephemeral,
}

/// A collector of OTLP logs.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Otlp {
    /// Its https URL, such as `https://collector.example.com:4318/v1/logs`; empty: none.
    #[schemars(length(max = 2048), regex(pattern = "^(https://[!#%-;=?-~]+)?$"))]
    pub url: String,
    /// PEM of the authorities its certificate may be from; empty: the public ones.
    #[schemars(length(max = 65536))]
    pub ca_bundle: String,
}

/// What a container asks for and may use, by resource.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Resources {
    /// What is set aside for it.
    #[serde(default)]
    pub requests: BTreeMap<String, Quantity>,
    /// What it may not exceed.
    #[serde(default)]
    pub limits: BTreeMap<String, Quantity>,
}

/// A quantity of Kubernetes, such as 20m, 48Mi or 1.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Quantity {
    /// A plain number.
    Number(f64),
    /// With a suffix.
    Text(#[schemars(regex(pattern = "^[0-9]+([.][0-9]+)?([eE][0-9]+|[mkMGTPE]|[KMGTPE]i)?$"))] String),
}

/// What the sidecar resolves names with. It never reads the resolver settings of its pod.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Dns {
    /// Addresses; empty: those of the operator's own pod.
    #[schemars(length(max = 3), inner(regex(pattern = "^[0-9a-fA-F:.]{2,45}$")))]
    pub nameservers: Vec<String>,
    /// The cluster's domain; empty: that of the operator's own pod.
    #[schemars(
        length(max = 253),
        regex(pattern = "^([a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*)?$")
    )]
    pub cluster_domain: String,
}

/// Who may reach the operator, and whom it may reach.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NetworkPolicy {
    /// Whether there is one.
    pub mode: Mode,
    /// The API server's address block, for the operator's way out; empty: any address on its port.
    #[serde(rename = "apiServerCIDR")]
    #[schemars(regex(pattern = "^([0-9a-fA-F:.]{2,45}/[0-9]{1,3})?$"))]
    pub api_server_cidr: String,
    /// The API server's port.
    #[schemars(range(min = 1, max = 65535))]
    pub api_server_port: i32,
}

/// Enabled or Disabled.
#[derive(Debug, Deserialize, JsonSchema)]
pub enum Mode {
    /// It is so.
    Enabled,
    /// It is not.
    Disabled,
}

/// The schema that helm holds values against, in the oldest draft that every helm 3 reads.
pub(super) fn schema_file() -> Result<File> {
    let settings = SchemaSettings::draft07().with(|settings| settings.inline_subschemas = true);
    let mut schema: Schema = settings.into_generator().into_root_schema_for::<Values>();
    plain_enums(schema.as_object_mut().context("values are no object")?);
    // A parent chart hands its global values down to every chart it holds; none is read here.
    let properties =
        schema.get_mut("properties").and_then(Value::as_object_mut).context("values are no object")?;
    let global = serde_json::json!({"description": "What a parent chart shares with all its parts; not read here.", "type": "object"});
    properties.insert("global".to_owned(), global);
    Ok(File { path: PATH.to_owned(), text: format!("{}\n", serde_json::to_string_pretty(&schema)?) })
}

/// Choices as one list of words: helm names all of a list when it refuses a value, of alternatives only the last.
fn plain_enums(schema: &mut Map<String, Value>) {
    let choices: Option<Vec<Value>> = schema
        .get("oneOf")
        .and_then(Value::as_array)
        .and_then(|choices| choices.iter().map(|choice| choice.get("const").cloned()).collect());
    if let Some(choices) = choices {
        schema.remove("oneOf");
        schema.insert("enum".to_owned(), choices.into());
    }
    for member in schema.values_mut().filter_map(Value::as_object_mut) {
        plain_enums(member);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(path: &str) -> String {
        let root = crate::images::workspace().unwrap();
        std::fs::read_to_string(root.join("charts/behalf").join(path)).unwrap()
    }

    fn schema() -> Value {
        serde_json::from_str(&schema_file().unwrap().text).unwrap()
    }

    /// Every key of a value, by path; items of lists and free maps are no keys.
    fn keys(value: &Value, at: &str, found: &mut Vec<String>) {
        for (key, member) in value.as_object().into_iter().flatten() {
            let path = format!("{at}.{key}");
            if !at.ends_with(".resources") {
                keys(member, &path, found);
            }
            found.push(path);
        }
        found.sort();
    }

    fn properties(schema: &Value, at: &str, found: &mut Vec<String>) {
        for (key, member) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{at}.{key}");
            properties(member, &path, found);
            found.push(path);
        }
        found.sort();
    }

    #[test]
    fn the_values_of_the_chart_are_exactly_these_types() {
        let values: Values = serde_saphyr::from_str(&chart("values.yaml")).unwrap();
        assert!(values.operator.replicas >= 1);
        let (mut have, mut want) = (Vec::new(), Vec::new());
        keys(&serde_saphyr::from_str(&chart("values.yaml")).unwrap(), "", &mut have);
        properties(&schema(), "", &mut want);
        want.retain(|path| path != ".global");
        assert_eq!(have, want);
    }

    #[test]
    fn no_object_of_the_schema_is_open_and_every_key_is_described() {
        fn walk(schema: &Value, at: &str) {
            for (key, member) in schema["properties"].as_object().into_iter().flatten() {
                let path = format!("{at}.{key}");
                assert!(member["description"].is_string(), "{path} is not described");
                if member["properties"].is_object() {
                    assert_eq!(member["additionalProperties"], false, "{path} is open");
                    walk(member, &path);
                }
            }
        }
        assert_eq!(schema()["additionalProperties"], false);
        walk(&schema(), "");
        let modes = &schema()["properties"]["networkPolicy"]["properties"]["mode"]["enum"];
        assert_eq!(*modes, serde_json::json!(["Enabled", "Disabled"]));
    }

    #[test]
    fn an_unknown_a_missing_and_a_wrong_value_are_refused() {
        let good = chart("values.yaml");
        let bad = [
            good.replace("logLevel:", "loglevel:"),
            good.replace("replicas: 2", "replicas: many"),
            good.replace("mode: Enabled", "mode: enabled"),
            good.replace("aggregation: Enabled", "aggregation: true"),
            good.replace("  clusterDomain: \"\"\n", ""),
            good.replace("pullPolicy: IfNotPresent", "pullPolicy: Sometimes"),
            good.replace("mode: Relaxed", "mode: strict"),
            good.replace("type: EmptyDir", "type: HostPath"),
            good.replace("maxFiles: 4", "maxFiles: four"),
        ];
        for text in bad {
            assert_ne!(text, good);
            assert!(serde_saphyr::from_str::<Values>(&text).is_err(), "{text}");
        }
    }
}
