//! Processes of the node, for tests that stop or end them.
pub use behalf_e2e::host::Process;

use super::api::Api;

/// What runs in a container of a pod, now.
pub fn in_container(api: &Api, namespace: &str, pod: &str, container: &str) -> Process {
    Process::in_container(api.world, namespace, pod, container).unwrap()
}

/// A program of the node: `apiserver`, `kubelet`.
pub fn of_node(api: &Api, name: &str) -> Process {
    Process::of_node(api.world, name).unwrap()
}
