//! The Kubernetes contract of Behalf: kinds, conditions and every Kubernetes name, each once.
//!
//! Who uses it: the operator and its plan (typed objects), the generator (CRD YAML), the tests (the rules of the schema
//! run without a cluster). It does no I/O and knows no other crate of the workspace.

pub mod names;
pub mod v1alpha1;
pub mod validate;
mod yaml;

pub use validate::{Validate, Violation, ViolationReason, validate_manifest};
pub use yaml::{YamlError, crd_yaml};
