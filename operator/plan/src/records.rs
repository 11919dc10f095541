//! Where the sidecars of all pods write their decision records: one setting of the platform, which becomes arguments of the
//! sidecar, a volume of its own, and what admission compares them with.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use behalf_crds::names;
use behalf_policy::record::Mode;
use behalf_policy::wire;
use k8s_openapi::api::core::v1::{
    EmptyDirVolumeSource, EphemeralVolumeSource, PersistentVolumeClaimSpec, PersistentVolumeClaimTemplate,
    Volume, VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use url::Url;

use crate::pem;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
/// The sidecar takes no smaller file and no smaller reserve.
const LEAST: u64 = 64 * KIB;
/// Nor a larger reserve.
const LARGEST_RESERVE: u64 = 1024 * MIB;
/// An argument that Linux still takes is 128 KiB long; this becomes a third longer in one.
const LARGEST_CA: usize = 64 * 1024;

/// The value `sidecar.records` of the chart.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Records {
    /// What a record is held to before a request goes on.
    #[serde(deserialize_with = "mode")]
    pub mode: Mode,
    /// Whether they go to standard output.
    pub stdout: Switch,
    /// The file that they go to.
    pub file: File,
    /// Where a copy is sent.
    pub otlp: Otlp,
}

/// `Enabled` or `Disabled`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Switch {
    /// It is so.
    Enabled,
    /// It is not.
    Disabled,
}

/// A file on a volume that only the sidecar mounts.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct File {
    /// Whether there is one.
    pub mode: Switch,
    /// Size at which it is renamed and another begun.
    pub max_bytes: Size,
    /// How many renamed ones are kept.
    pub max_files: u16,
    /// What is held behind its end for decisions on a full disk.
    pub reserve_bytes: Size,
    /// Where it lies.
    pub volume: RecordVolume,
}

/// A volume that begins and ends with its pod.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RecordVolume {
    /// Of which kind.
    #[serde(rename = "type")]
    pub type_: VolumeType,
    /// How much it holds.
    pub size: Size,
    /// Class of a claim; empty: the cluster's default.
    pub storage_class_name: String,
}

/// Kinds of volumes for records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum VolumeType {
    /// On the node's disk.
    EmptyDir,
    /// A `PersistentVolumeClaim` of the pod's own.
    Ephemeral,
}

/// A collector of OTLP logs.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Otlp {
    /// Its URL; empty: none.
    pub url: String,
    /// PEM of the authorities that its certificate may be from; empty: the public ones.
    pub ca_bundle: String,
}

/// Bytes, written as a whole number of Ki, Mi, Gi or Ti.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Size(u64);

/// Why a setting of records cannot be followed. The text says what to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordsError {
    /// Nothing would be recorded.
    #[error("records go neither to standard output nor to a file: set stdout or file.mode to Enabled")]
    NoSink,
    /// The sidecar takes no such size.
    #[error(
        "file.maxBytes and file.reserveBytes are at least 64Ki, file.reserveBytes at most 1Gi, and file.maxFiles is 1 to 999"
    )]
    Bounds,
    /// The files would outgrow it.
    #[error(
        "file.volume.size is less than file.maxBytes times file.maxFiles + 1, and twice file.reserveBytes: make it larger"
    )]
    VolumeTooSmall,
    /// Only claims have a class.
    #[error("file.volume.storageClassName is for a volume of type Ephemeral: remove it")]
    StorageClass,
    /// No URL that the sidecar would send to.
    #[error("otlp.url is no https URL with a host, without user info, fragment, spaces and $")]
    Url,
    /// No authorities.
    #[error("otlp.caBundle holds no PEM certificates of at most 64 KiB")]
    CaBundle,
    /// They would be for nothing.
    #[error("otlp.caBundle is set and otlp.url is not")]
    NoUrl,
}

impl RecordsError {
    /// Stable name.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::NoSink => "NoSink",
            Self::Bounds => "Bounds",
            Self::VolumeTooSmall => "VolumeTooSmall",
            Self::StorageClass => "StorageClass",
            Self::Url => "Url",
            Self::CaBundle => "CaBundle",
            Self::NoUrl => "NoUrl",
        }
    }
}

impl Default for Records {
    fn default() -> Self {
        Self {
            mode: Mode::Relaxed,
            stdout: Switch::Enabled,
            file: File {
                mode: Switch::Disabled,
                max_bytes: Size(64 * MIB),
                max_files: 4,
                reserve_bytes: Size(4 * MIB),
                volume: RecordVolume {
                    type_: VolumeType::EmptyDir,
                    size: Size(512 * MIB),
                    storage_class_name: String::new(),
                },
            },
            otlp: Otlp { url: String::new(), ca_bundle: String::new() },
        }
    }
}

impl Records {
    /// Whether a sidecar can follow it.
    ///
    /// # Errors
    /// It cannot, or nothing would be recorded.
    pub fn check(&self) -> Result<(), RecordsError> {
        let Self { mode: _, stdout, file, otlp } = self;
        if *stdout == Switch::Disabled && file.mode == Switch::Disabled {
            return Err(RecordsError::NoSink);
        }
        let (bytes, reserve) = (file.max_bytes.0, file.reserve_bytes.0);
        if bytes < LEAST
            || !(LEAST..=LARGEST_RESERVE).contains(&reserve)
            || !(1..=999).contains(&file.max_files)
        {
            return Err(RecordsError::Bounds);
        }
        // While a file is replaced there are two with a reserve.
        let files = u64::from(file.max_files).saturating_add(1).saturating_mul(bytes);
        if file.volume.size.0 < files.saturating_add(reserve.saturating_mul(2)) {
            return Err(RecordsError::VolumeTooSmall);
        }
        if file.volume.type_ == VolumeType::EmptyDir && !file.volume.storage_class_name.is_empty() {
            return Err(RecordsError::StorageClass);
        }
        if !otlp.url.is_empty() && !is_usable(&otlp.url) {
            return Err(RecordsError::Url);
        }
        if otlp.ca_bundle.is_empty() {
            return Ok(());
        }
        if otlp.url.is_empty() {
            return Err(RecordsError::NoUrl);
        }
        let fits = otlp.ca_bundle.len() <= LARGEST_CA;
        if fits && pem::check(&otlp.ca_bundle).is_ok() { Ok(()) } else { Err(RecordsError::CaBundle) }
    }

    /// Arguments of the sidecar; none for what it does anyway.
    #[must_use]
    pub fn arguments(&self) -> Vec<String> {
        let mut arguments = Vec::new();
        if self.mode == Mode::Strict {
            arguments.push("--record-mode=strict".to_owned());
        }
        if self.stdout == Switch::Disabled {
            arguments.push("--record-stdout=false".to_owned());
        }
        if self.file.mode == Switch::Enabled {
            arguments.extend([
                format!("--record-file={}/{}", wire::RECORDS_DIR, wire::RECORDS_FILE),
                format!("--record-file-bytes={}", self.file.max_bytes.0),
                format!("--record-files={}", self.file.max_files),
                format!("--record-reserve-bytes={}", self.file.reserve_bytes.0),
            ]);
        }
        if !self.otlp.url.is_empty() {
            arguments.push(format!("--record-otlp-url={}", self.otlp.url));
        }
        if !self.otlp.ca_bundle.is_empty() {
            arguments.push(format!("--record-otlp-ca={}", STANDARD.encode(&self.otlp.ca_bundle)));
        }
        arguments
    }

    /// The volume of the file, if there is one.
    #[must_use]
    pub fn volume(&self) -> Option<Volume> {
        let volume = &self.file.volume;
        let size = Quantity(volume.size.canonical());
        let mut made = Volume { name: names::VOLUME_RECORDS.to_owned(), ..Volume::default() };
        match (self.file.mode, volume.type_) {
            (Switch::Disabled, _) => return None,
            (Switch::Enabled, VolumeType::EmptyDir) => {
                made.empty_dir = Some(EmptyDirVolumeSource { size_limit: Some(size), medium: None });
            }
            (Switch::Enabled, VolumeType::Ephemeral) => {
                let class = &volume.storage_class_name;
                // What the API server would fill in is written out, here as in our containers.
                let spec = PersistentVolumeClaimSpec {
                    access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
                    storage_class_name: (!class.is_empty()).then(|| class.clone()),
                    resources: Some(VolumeResourceRequirements {
                        requests: Some([("storage".to_owned(), size)].into()),
                        limits: None,
                    }),
                    volume_mode: Some("Filesystem".to_owned()),
                    ..PersistentVolumeClaimSpec::default()
                };
                let metadata = Some(ObjectMeta::default());
                let template = PersistentVolumeClaimTemplate { metadata, spec };
                made.ephemeral = Some(EphemeralVolumeSource { volume_claim_template: Some(template) });
            }
        }
        Some(made)
    }

    /// Whether the volume belongs to root alone, unless the pod has an `fsGroup`.
    #[must_use]
    pub(crate) fn needs_fs_group(&self) -> bool {
        self.file.mode == Switch::Enabled && self.file.volume.type_ == VolumeType::Ephemeral
    }

    /// What admission compares pods with: keys of its parameters, and their values.
    #[must_use]
    pub fn parameters(&self) -> [(&'static str, String); 4] {
        let volume = &self.file.volume;
        let kind = match (self.file.mode, volume.type_) {
            (Switch::Disabled, _) => "",
            (Switch::Enabled, VolumeType::EmptyDir) => "EmptyDir",
            (Switch::Enabled, VolumeType::Ephemeral) => "Ephemeral",
        };
        [
            ("recordArguments", self.arguments().join("\n")),
            ("recordVolume", kind.to_owned()),
            ("recordVolumeSize", volume.size.canonical()),
            ("recordVolumeClass", volume.storage_class_name.clone()),
        ]
    }
}

impl Size {
    /// As the API server writes it.
    fn canonical(self) -> String {
        let (mut number, mut unit) = (self.0 / KIB, 0);
        while number > 0 && number % KIB == 0 && unit < 3 {
            number /= KIB;
            unit += 1;
        }
        format!("{number}{}", ["Ki", "Mi", "Gi", "Ti"][unit])
    }
}

impl TryFrom<String> for Size {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let units = [("Ki", KIB), ("Mi", MIB), ("Gi", 1024 * MIB), ("Ti", 1024 * 1024 * MIB)];
        units
            .iter()
            .find_map(|(unit, bytes)| Some((text.strip_suffix(unit)?, bytes)))
            .filter(|(number, _)| !number.starts_with(['0', '+']))
            .and_then(|(number, bytes)| number.parse::<u64>().ok()?.checked_mul(*bytes))
            .map(Self)
            .ok_or("a size is a whole number of Ki, Mi, Gi or Ti, such as 512Mi")
    }
}

/// The sidecar's own rule (it sends nowhere else), and nothing that kubelet would expand in an argument.
fn is_usable(url: &str) -> bool {
    let plain = url.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'$');
    let parsed = Url::parse(url).ok().filter(|parsed| {
        let nobody = parsed.username().is_empty() && parsed.password().is_none();
        parsed.scheme() == "https" && parsed.has_host() && nobody && parsed.fragment().is_none()
    });
    plain && parsed.is_some()
}

fn mode<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Mode, D::Error> {
    match String::deserialize(from)?.as_str() {
        "Relaxed" => Ok(Mode::Relaxed),
        "Strict" => Ok(Mode::Strict),
        _ => Err(serde::de::Error::custom("mode is Relaxed or Strict")),
    }
}
