//! The schema and its rules, run without an API server: the same verdict, before anything is sent.
//!
//! Called by the operator (an object that came in under an older schema), by tests and by whatever checks manifests.
//! Whatever cannot be checked is a violation.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::LazyLock;

use kube::CustomResourceExt;
use kube::core::cel::{CompiledSchema, Validator, apply_defaults, compile_schema};
use regex::Regex;
use serde::Serialize;
use serde_json::Value;

use crate::v1alpha1::{AgentIdentity, IdentityProvider, ScopeCatalog};

/// What an object breaks, as the API server would say it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    /// Path of the field, such as `spec.servers[0].url`.
    pub field: String,
    /// What is asked of it.
    pub message: String,
    /// The kind of violation.
    pub reason: ViolationReason,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

/// The kinds of violation (those of the API server).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ViolationReason {
    /// The value may not be.
    Invalid,
    /// The value is well formed and not allowed.
    Forbidden,
    /// Something is missing.
    Required,
    /// Something is there twice.
    Duplicate,
    /// The field does not exist.
    Unknown,
}

impl ViolationReason {
    /// The word for counts and records.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "FieldValueInvalid",
            Self::Forbidden => "FieldValueForbidden",
            Self::Required => "FieldValueRequired",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Unknown => "FieldUnknown",
        }
    }

    fn of_rule(word: Option<&str>) -> Self {
        match word {
            Some("FieldValueForbidden") => Self::Forbidden,
            Some("FieldValueRequired") => Self::Required,
            Some("FieldValueDuplicate") => Self::Duplicate,
            _ => Self::Invalid,
        }
    }
}

/// A kind whose schema can be run locally.
pub trait Validate: Serialize + Sized {
    /// The schema of the kind.
    fn schema() -> &'static KindSchema;

    /// What the API server would refuse on creation.
    ///
    /// # Errors
    /// Every violation, in order of field.
    fn validate(&self) -> Result<(), Vec<Violation>> {
        Self::schema().check(&to_value(self)?, None)
    }

    /// What the API server would refuse on an update of `old`.
    ///
    /// # Errors
    /// Every violation, in order of field.
    fn validate_update(&self, old: &Self) -> Result<(), Vec<Violation>> {
        Self::schema().check(&to_value(self)?, Some(&to_value(old)?))
    }
}

fn to_value<T: Serialize>(object: &T) -> Result<Value, Vec<Violation>> {
    serde_json::to_value(object).map_err(|error| {
        vec![Violation {
            field: String::new(),
            message: format!("cannot be written as JSON: {error}"),
            reason: ViolationReason::Invalid,
        }]
    })
}

macro_rules! kinds {
    ($($kind:ident),*) => {
        $(impl Validate for $kind {
            fn schema() -> &'static KindSchema {
                static SCHEMA: LazyLock<KindSchema> = LazyLock::new(KindSchema::of::<$kind>);
                &SCHEMA
            }
        })*

        /// Checks a manifest of any of our kinds, by its `kind`, unknown fields included.
        ///
        /// # Errors
        /// Every violation, in order of field; also if the kind is not ours.
        pub fn validate_manifest(manifest: &Value) -> Result<(), Vec<Violation>> {
            match (manifest["apiVersion"].as_str(), manifest["kind"].as_str()) {
                $((Some("behalf.dev/v1alpha1"), Some(stringify!($kind))) => $kind::schema().check(manifest, None),)*
                _ => Err(vec![Violation {
                    field: "kind".to_owned(),
                    message: "is not a kind of behalf.dev/v1alpha1".to_owned(),
                    reason: ViolationReason::Invalid,
                }]),
            }
        }
    };
}

kinds!(IdentityProvider, ScopeCatalog, AgentIdentity);

/// The schema of one kind, compiled once.
pub struct KindSchema {
    schema: Value,
    rules: CompiledSchema,
    patterns: BTreeMap<String, Regex>,
}

impl fmt::Debug for KindSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KindSchema").finish_non_exhaustive()
    }
}

impl KindSchema {
    fn of<T: CustomResourceExt>() -> Self {
        let crd = T::crd();
        let schema = crd.spec.versions.first().and_then(|version| version.schema.as_ref());
        let schema = schema.and_then(|schema| serde_json::to_value(&schema.open_api_v3_schema).ok());
        let schema = schema.unwrap_or_default();
        let mut patterns = BTreeMap::new();
        collect_patterns(&schema, &mut patterns);
        Self { rules: compile_schema(&schema), patterns, schema }
    }

    /// The schema as the API server gets it.
    #[must_use]
    pub const fn json(&self) -> &Value {
        &self.schema
    }

    /// Checks an object, or an update of `old`.
    ///
    /// # Errors
    /// Every violation, in order of field.
    pub fn check(&self, object: &Value, old: Option<&Value>) -> Result<(), Vec<Violation>> {
        let mut found = Vec::new();
        if self.schema["properties"]["spec"].is_null() {
            found.push(violation("", "the schema is missing".to_owned(), ViolationReason::Invalid));
        }
        for (part, schema) in self.schema["properties"].as_object().into_iter().flatten() {
            let value = &object[part];
            if !value.is_null() {
                self.walk(schema, &apply_defaults(schema, value), part, &mut found);
            } else if part == "spec" {
                found.push(violation("spec", "is required".to_owned(), ViolationReason::Required));
            }
        }
        if let Err(errors) = Validator::new().validate_compiled(&self.rules, object, old) {
            found.extend(errors.into_iter().map(|error| Violation {
                field: error.field_path,
                message: error.message,
                reason: ViolationReason::of_rule(error.reason.as_deref()),
            }));
        }
        found.sort();
        if found.is_empty() { Ok(()) } else { Err(found) }
    }

    fn walk(&self, schema: &Value, value: &Value, path: &str, found: &mut Vec<Violation>) {
        let mut refuse = |message: String, reason| found.push(violation(path, message, reason));
        let right_type = match schema["type"].as_str() {
            Some("object") => value.is_object(),
            Some("array") => value.is_array(),
            Some("string") => value.is_string(),
            Some("integer") => value.is_i64(),
            Some("boolean") => value.is_boolean(),
            _ => false,
        };
        if !right_type {
            let wanted = schema["type"].as_str().unwrap_or("something else");
            refuse(format!("must be of type {wanted}"), ViolationReason::Invalid);
            return;
        }
        if schema["enum"].as_array().is_some_and(|choices| !choices.contains(value)) {
            refuse(format!("must be one of {}", schema["enum"]), ViolationReason::Invalid);
        }
        match value {
            Value::String(text) => self.walk_text(schema, text, path, found),
            Value::Array(items) => self.walk_list(schema, items, path, found),
            Value::Object(members) => self.walk_object(schema, members, path, found),
            Value::Number(number) => {
                // Compared as the API server does, in floating point; our bounds are exact in it.
                let number = number.as_f64();
                if number < schema["minimum"].as_f64() || number > schema["maximum"].as_f64() {
                    let bounds = format!("must be from {} to {}", schema["minimum"], schema["maximum"]);
                    refuse(bounds, ViolationReason::Invalid);
                }
            }
            Value::Null | Value::Bool(_) => {}
        }
    }

    fn walk_text(&self, schema: &Value, text: &str, path: &str, found: &mut Vec<Violation>) {
        let length = text.chars().count() as u64;
        if schema["maxLength"].as_u64().is_some_and(|most| length > most) {
            let message = format!("may not be longer than {}", schema["maxLength"]);
            found.push(violation(path, message, ViolationReason::Invalid));
        }
        if schema["minLength"].as_u64().is_some_and(|least| length < least) {
            let message = format!("must be at least {} long", schema["minLength"]);
            found.push(violation(path, message, ViolationReason::Invalid));
        }
        if let Some(pattern) = schema["pattern"].as_str()
            && !self.patterns.get(pattern).is_some_and(|compiled| compiled.is_match(text))
        {
            found.push(violation(path, format!("must match {pattern}"), ViolationReason::Invalid));
        }
    }

    fn walk_list(&self, schema: &Value, items: &[Value], path: &str, found: &mut Vec<Violation>) {
        let length = items.len() as u64;
        if schema["maxItems"].as_u64().is_some_and(|most| length > most) {
            let message = format!("must have at most {} items", schema["maxItems"]);
            found.push(violation(path, message, ViolationReason::Invalid));
        }
        if schema["minItems"].as_u64().is_some_and(|least| length < least) {
            let message = format!("must have at least {} items", schema["minItems"]);
            found.push(violation(path, message, ViolationReason::Required));
        }
        let keys = schema["x-kubernetes-list-map-keys"].as_array();
        let unique = schema["x-kubernetes-list-type"].as_str().is_some_and(|kind| kind != "atomic");
        let mut seen = BTreeSet::new();
        for (index, item) in items.iter().enumerate() {
            let here = format!("{path}[{index}]");
            let identity = match keys {
                Some(keys) => {
                    keys.iter().map(|key| &item[key.as_str().unwrap_or_default()]).cloned().collect()
                }
                None => item.clone(),
            };
            if unique && !seen.insert(identity.to_string()) {
                found.push(violation(&here, "is there twice".to_owned(), ViolationReason::Duplicate));
            }
            self.walk(&schema["items"], item, &here, found);
        }
    }

    fn walk_object(
        &self,
        schema: &Value,
        members: &serde_json::Map<String, Value>,
        path: &str,
        found: &mut Vec<Violation>,
    ) {
        if schema["maxProperties"].as_u64().is_some_and(|most| members.len() as u64 > most) {
            let message = format!("must have at most {} entries", schema["maxProperties"]);
            found.push(violation(path, message, ViolationReason::Invalid));
        }
        for required in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if !members.contains_key(required) {
                let field = format!("{path}.{required}");
                found.push(violation(&field, "is required".to_owned(), ViolationReason::Required));
            }
        }
        for (name, member) in members {
            let field = format!("{path}.{name}");
            let known = schema["properties"].get(name).or_else(|| schema.get("additionalProperties"));
            match known {
                Some(known) => self.walk(known, member, &field, found),
                None => {
                    found.push(violation(
                        &field,
                        "there is no such field".to_owned(),
                        ViolationReason::Unknown,
                    ));
                }
            }
        }
    }
}

fn violation(field: &str, message: String, reason: ViolationReason) -> Violation {
    Violation { field: field.to_owned(), message, reason }
}

/// A pattern that does not compile stays out, and then nothing matches it.
fn collect_patterns(schema: &Value, patterns: &mut BTreeMap<String, Regex>) {
    match schema {
        Value::Object(members) => {
            if let Some(Value::String(pattern)) = members.get("pattern")
                && let Ok(compiled) = Regex::new(pattern)
            {
                patterns.insert(pattern.clone(), compiled);
            }
            members.values().for_each(|member| collect_patterns(member, patterns));
        }
        Value::Array(items) => items.iter().for_each(|item| collect_patterns(item, patterns)),
        _ => {}
    }
}
