//! The `ConfigMap` that carries a signed bundle: its name, labels and content, built and read in one place.

use std::collections::BTreeMap;

use behalf_crds::names;
use behalf_policy::wire;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// Value of the component label on bundle objects.
pub const COMPONENT: &str = "bundle";

/// The object that carries `signed`, the JSON of a signed bundle, for the identity `name`.
///
/// It has no owner: the tombstone must outlive the identity.
#[must_use]
pub fn config_map(namespace: &str, name: &str, signed: String) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(names::bundle_configmap(name)),
            namespace: Some(namespace.to_owned()),
            labels: Some(labels(name)),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([(wire::BUNDLE_KEY.to_owned(), signed)])),
        ..ConfigMap::default()
    }
}

/// Labels of the object, by which it is also found again once its identity is gone.
#[must_use]
pub fn labels(name: &str) -> BTreeMap<String, String> {
    [
        (names::LABEL_PART_OF, names::PART_OF),
        (names::LABEL_MANAGED_BY, names::MANAGED_BY),
        (names::LABEL_COMPONENT, COMPONENT),
        (names::LABEL_AGENT_IDENTITY, name),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .collect()
}

/// Label selector of every bundle object.
#[must_use]
pub fn selector() -> String {
    format!("{}={},{}={COMPONENT}", names::LABEL_MANAGED_BY, names::MANAGED_BY, names::LABEL_COMPONENT)
}

/// The signed bundle in the object, as it was written; not verified.
#[must_use]
pub fn signed(object: &ConfigMap) -> Option<&str> {
    object.data.as_ref()?.get(wire::BUNDLE_KEY).map(String::as_str)
}

/// The identity an object belongs to, if it is a bundle object under its right name.
#[must_use]
pub fn identity_of(object: &ConfigMap) -> Option<&str> {
    object.metadata.name.as_deref()?.strip_prefix(names::CONFIGMAP_BUNDLE_PREFIX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let object = config_map("hr", "hr-tools", "{}".to_owned());
        assert_eq!(signed(&object), Some("{}"));
        assert_eq!(identity_of(&object), Some("hr-tools"));
        assert_eq!(object.metadata.name.as_deref(), Some("behalf-bundle-hr-tools"));
        assert!(object.metadata.owner_references.is_none());
    }

    #[test]
    fn another_object_is_nobodys_bundle() {
        let mut object = config_map("hr", "hr-tools", "{}".to_owned());
        object.metadata.name = Some("settings".to_owned());
        object.data = None;
        assert_eq!((signed(&object), identity_of(&object)), (None, None));
    }
}
