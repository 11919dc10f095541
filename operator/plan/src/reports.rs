//! What an identity's pods tell of themselves, and what is made of it: what is known of each pod, and one ledger of all
//! they have counted.

mod ledger;

use std::collections::BTreeMap;
use std::sync::Arc;

use behalf_crds::names;
use behalf_crds::v1alpha1::DecisionCounts;
use behalf_policy::feed::Report;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

pub use ledger::{Absorbed, Ledger, LedgerError};

/// A pod that was not heard for longer than this does not say what it runs by, seconds: six times what an answer is
/// held, so that neither a lost connection nor a new leader counts as silence.
pub const REPORT_MAX_AGE_SECONDS: u64 = 6 * behalf_policy::feed::HOLD_SECONDS;

/// A pod that was not heard at all since somebody listens is given longer, seconds: sidecars that found nobody come back
/// after up to half a minute.
pub const FIRST_REPORT_SECONDS: u64 = REPORT_MAX_AGE_SECONDS + 3 * behalf_policy::feed::HOLD_SECONDS;

/// Value of the component label on the objects with counts.
pub const COMPONENT: &str = "counts";
/// Key of the ledger in its `ConfigMap`.
const KEY: &str = "counts.json";

/// What is known of an identity's pods by their own word.
#[derive(Clone, Debug, Default)]
pub struct Reports {
    /// By UID of the pod. One that is missing was not listened for yet.
    pub pods: BTreeMap<String, Told>,
    /// Nobody listened for long enough yet: of a pod that was not heard, what was known before still counts.
    pub settling: bool,
    /// What all of them have decided; none while nothing was told.
    pub decisions: Option<DecisionCounts>,
}

/// What one pod told.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// Nothing was heard of it for longer than [`REPORT_MAX_AGE_SECONDS`].
    pub silent: bool,
    /// What it said last; none: nothing yet.
    pub report: Option<Arc<Report>>,
}

/// The object that carries the ledger of the identity `name`. It has no owner, like the bundle.
#[must_use]
pub fn config_map(namespace: &str, name: &str, ledger: String) -> ConfigMap {
    let labels = [
        (names::LABEL_PART_OF, names::PART_OF),
        (names::LABEL_MANAGED_BY, names::MANAGED_BY),
        (names::LABEL_COMPONENT, COMPONENT),
        (names::LABEL_AGENT_IDENTITY, name),
    ];
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(names::counts_configmap(name)),
            namespace: Some(namespace.to_owned()),
            labels: Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([(KEY.to_owned(), ledger)])),
        ..ConfigMap::default()
    }
}

/// The ledger in the object, as it was written; not read yet.
#[must_use]
pub fn text(object: &ConfigMap) -> Option<&str> {
    object.data.as_ref()?.get(KEY).map(String::as_str)
}
