//! The variables that tell a server where its downstreams are.

use behalf_crds::v1alpha1::AgentIdentity;
use behalf_policy::wire;
use k8s_openapi::api::core::v1::{Container, EnvVar, PodSpec};

use super::served;

/// One variable for each downstream that names one: its base URL, on loopback, through the sidecar.
pub(super) fn variables(identity: &AgentIdentity) -> Vec<EnvVar> {
    let mut variables: Vec<_> = identity
        .spec
        .downstreams
        .iter()
        .filter_map(|downstream| downstream.env.as_ref().map(|env| (&env.base_url, &downstream.name)))
        .map(|(variable, downstream)| EnvVar {
            name: variable.clone(),
            value: Some(format!("http://127.0.0.1:{}/{downstream}", wire::EGRESS_PORT)),
            value_from: None,
        })
        .collect();
    variables.sort_by(|a, b| a.name.cmp(&b.name));
    variables
}

/// Variables that the pod declares with another meaning, as `<container>/<name>`.
pub(super) fn replaced(spec: &PodSpec, variables: &[EnvVar]) -> Vec<String> {
    served(spec)
        .flat_map(|container| {
            let other = move |declared: &&EnvVar| {
                variables.iter().any(|ours| ours.name == declared.name && ours != *declared)
            };
            let declared = container.env.iter().flatten().filter(other);
            declared.map(move |declared| format!("{}/{}", container.name, declared.name))
        })
        .collect()
}

/// Sets the variables: where one is declared already, in its place; else behind the others.
pub(super) fn apply(container: &mut Container, variables: &[EnvVar]) {
    for ours in variables {
        let env = container.env.get_or_insert_default();
        let place = env.iter().position(|declared| declared.name == ours.name).unwrap_or(env.len());
        env.retain(|declared| declared.name != ours.name);
        env.insert(place.min(env.len()), ours.clone());
    }
}
