//! The CRDs as YAML, for the chart. The same types give the same bytes, whatever else is built with them.

use kube::CustomResourceExt;
use serde_json::{Map, Value};

use crate::names;
use crate::v1alpha1::{AgentIdentity, IdentityProvider, ScopeCatalog};

/// Why the CRDs could not be written.
#[derive(Debug, thiserror::Error)]
pub enum YamlError {
    /// A definition is no JSON.
    #[error("cannot write the definition as JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// A definition is no YAML.
    #[error("cannot write the definition as YAML: {0}")]
    Yaml(#[from] serde_saphyr::ser::Error),
}

impl YamlError {
    /// Closed reason.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Json(_) => "Json",
            Self::Yaml(_) => "Yaml",
        }
    }
}

/// Every CRD as (file name, YAML), in order of file name.
///
/// # Errors
/// A definition cannot be serialised; none of ours.
pub fn crd_yaml() -> Result<Vec<(String, String)>, YamlError> {
    let definitions = [AgentIdentity::crd(), IdentityProvider::crd(), ScopeCatalog::crd()];
    let mut files = Vec::with_capacity(definitions.len());
    for definition in definitions {
        let name = format!("{}_{}.yaml", names::GROUP, definition.spec.names.plural);
        files.push((name, render(serde_json::to_value(definition)?)?));
    }
    Ok(files)
}

fn render(mut definition: Value) -> Result<String, YamlError> {
    if let Some(definition) = definition.as_object_mut() {
        definition.remove("status");
    }
    for version in definition["spec"]["versions"].as_array_mut().into_iter().flatten() {
        // The name of a Rust type: noise in a schema.
        if let Some(schema) = version["schema"]["openAPIV3Schema"].as_object_mut() {
            schema.remove("title");
        }
    }
    let metadata = &mut definition["metadata"];
    // An uninstalled chart must not take every object of these kinds with it.
    metadata["annotations"]["helm.sh/resource-policy"] = "keep".into();
    metadata["labels"][names::LABEL_PART_OF] = names::PART_OF.into();
    let yaml = serde_saphyr::to_string(&ordered(definition))?;
    Ok(format!("# Generated from the crate behalf-crds (crdgen); do not edit.\n{yaml}"))
}

/// Members in order of name, without nulls; text that was wrapped in the source as one line; whole numbers as such.
fn ordered(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let mut members: Vec<_> = members.into_iter().filter(|(_, member)| !member.is_null()).collect();
            members.sort_by(|(left, _), (right, _)| left.cmp(right));
            members.into_iter().map(|(name, member)| (name, ordered(member))).collect::<Map<_, _>>().into()
        }
        Value::Array(items) => items.into_iter().map(ordered).collect(),
        Value::String(text) => text.replace('\n', " ").into(),
        Value::Number(number) => whole(&number).map_or(Value::Number(number), Value::from),
        other @ (Value::Null | Value::Bool(_)) => other,
    }
}

/// Bounds are floating-point numbers in the definition's type; ours are whole.
fn whole(number: &serde_json::Number) -> Option<i64> {
    let digits = number.to_string();
    digits.strip_suffix(".0").unwrap_or(&digits).parse().ok()
}
