//! How objects point at each other, and which namespaces may use a cluster-wide one.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::bounds;

/// A reference by name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NameRef {
    /// Name of the referenced object.
    #[schemars(schema_with = "bounds::text::<bounds::Label>")]
    pub name: String,
}

/// Which namespaces may use a cluster-wide object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum NamespaceSource {
    /// Every namespace.
    All,
    /// Those that the selector selects.
    Selector,
    /// None (the default: nothing is shared by accident).
    #[default]
    None,
}

/// Which namespaces may use this object.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(self.from == 'Selector') == has(self.selector)")
    .message("selector must be set if, and only if, from is Selector")
    .field_path(".selector").reason(Reason::FieldValueInvalid))]
pub struct NamespaceAccess {
    /// All, Selector or None. None, the default, lets no namespace in.
    #[serde(default)]
    pub from: NamespaceSource,
    /// Selects namespaces by their labels; set if, and only if, from is Selector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "bounds::label_selector")]
    pub selector: Option<LabelSelector>,
}

impl NamespaceAccess {
    /// Whether a namespace with these labels may use the object. Anything unclear is a no.
    #[must_use]
    pub fn admits(&self, labels: &BTreeMap<String, String>) -> bool {
        match (self.from, &self.selector) {
            (NamespaceSource::All, None) => true,
            (NamespaceSource::Selector, Some(selector)) => selects(selector, labels),
            _ => false,
        }
    }
}

/// A selector that says nothing selects nothing here: the schema refuses it, and so do we.
fn selects(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    let exact = selector.match_labels.iter().flatten();
    let expressions = selector.match_expressions.iter().flatten();
    let mut requirements = 0_usize;
    let all = exact
        .map(|(key, value)| labels.get(key) == Some(value))
        .chain(expressions.map(|requirement| holds(requirement, labels)))
        .all(|holds| {
            requirements = requirements.saturating_add(1);
            holds
        });
    all && requirements > 0
}

fn holds(requirement: &LabelSelectorRequirement, labels: &BTreeMap<String, String>) -> bool {
    let found = labels.get(&requirement.key);
    let values = requirement.values.as_deref().unwrap_or_default();
    match (requirement.operator.as_str(), values.is_empty()) {
        ("In", false) => found.is_some_and(|value| values.contains(value)),
        // Kubernetes: a namespace without the label satisfies NotIn.
        ("NotIn", false) => found.is_none_or(|value| !values.contains(value)),
        ("Exists", true) => found.is_some(),
        ("DoesNotExist", true) => found.is_none(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn access(value: serde_json::Value) -> NamespaceAccess {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn nothing_said_admits_nobody() {
        assert!(!NamespaceAccess::default().admits(&labels(&[("tier", "prod")])));
        assert!(!access(serde_json::json!({})).admits(&labels(&[])));
    }

    #[test]
    fn contradictions_admit_nobody() {
        let prod = labels(&[("tier", "prod")]);
        for value in [
            serde_json::json!({"from": "Selector"}),
            serde_json::json!({"from": "Selector", "selector": {}}),
            serde_json::json!({"from": "All", "selector": {"matchLabels": {"tier": "prod"}}}),
            serde_json::json!({"from": "None", "selector": {"matchLabels": {"tier": "prod"}}}),
            serde_json::json!({"from": "Selector", "selector": {"matchExpressions": [{"key": "tier", "operator": "In"}]}}),
            serde_json::json!({"from": "Selector", "selector": {"matchExpressions": [{"key": "tier", "operator": "Exists", "values": ["prod"]}]}}),
            serde_json::json!({"from": "Selector", "selector": {"matchExpressions": [{"key": "tier", "operator": "Like", "values": ["prod"]}]}}),
        ] {
            assert!(!access(value.clone()).admits(&prod), "{value}");
        }
    }

    #[test]
    fn selectors_mean_what_kubernetes_means() {
        let expression = |operator: &str, values: &[&str]| {
            access(
                serde_json::json!({"from": "Selector", "selector": {"matchExpressions": [{"key": "tier", "operator": operator, "values": values}]}}),
            )
        };
        let (prod, dev, bare) = (labels(&[("tier", "prod")]), labels(&[("tier", "dev")]), labels(&[]));
        for (access, admitted, refused) in [
            (expression("In", &["prod"]), vec![&prod], vec![&dev, &bare]),
            (expression("NotIn", &["prod"]), vec![&dev, &bare], vec![&prod]),
            (expression("Exists", &[]), vec![&prod, &dev], vec![&bare]),
            (expression("DoesNotExist", &[]), vec![&bare], vec![&prod, &dev]),
            (
                access(
                    serde_json::json!({"from": "Selector", "selector": {"matchLabels": {"tier": "prod"}}}),
                ),
                vec![&prod],
                vec![&dev, &bare],
            ),
            (access(serde_json::json!({"from": "All"})), vec![&prod, &dev, &bare], vec![]),
        ] {
            assert!(admitted.iter().all(|labels| access.admits(labels)), "{access:?}");
            assert!(!refused.iter().any(|labels| access.admits(labels)), "{access:?}");
        }
    }
}
