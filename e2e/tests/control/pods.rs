//! Pods as JSON, and single changes to them.
use serde_json::{Value, json};

use super::api::Api;
use super::scene::ENROLLED;

/// An MCP server's pod as its team would write it, joined to the identity `tools`.
pub fn server(api: &Api) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": "server", "namespace": ENROLLED, "labels": {"app": "server", "behalf.dev/agent-identity": "tools"},
        },
        "spec": {
            "serviceAccountName": "tools", "automountServiceAccountToken": false, "enableServiceLinks": false,
            "terminationGracePeriodSeconds": 1,
            "securityContext": {"runAsNonRoot": true, "runAsUser": 10001},
            "containers": [{
                "name": "server", "image": api.world.images.hr_tools.reference(), "imagePullPolicy": "IfNotPresent",
                "command": ["/opt/venv/bin/python", "-m", "http.server", "8000"],
                "workingDir": "/tmp",
                "ports": [{"name": "mcp", "containerPort": 8000}],
                "readinessProbe": {"httpGet": {"path": "/", "port": "mcp"}, "periodSeconds": 1},
            }],
        },
    })
}

/// A pod that has nothing to do with Behalf.
pub fn plain(api: &Api, namespace: &str, name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "automountServiceAccountToken": false, "restartPolicy": "Never", "terminationGracePeriodSeconds": 1,
            "containers": [{
                "name": "main", "image": api.world.images.hr_tools.reference(), "imagePullPolicy": "IfNotPresent",
                "command": ["/opt/venv/bin/python", "-c", "print('done')"],
            }],
        },
    })
}

/// What the webhook made of a pod, as an author could write it down: without what the server set.
pub fn written(made: &Value) -> Value {
    let mut pod = made.clone();
    pod["status"].take();
    let metadata = pod["metadata"].as_object_mut().unwrap();
    for field in ["uid", "creationTimestamp", "resourceVersion", "generation", "managedFields"] {
        metadata.remove(field);
    }
    for field in ["nodeName", "priority", "preemptionPolicy", "tolerations", "serviceAccount"] {
        pod["spec"].as_object_mut().unwrap().remove(field);
    }
    pod.as_object_mut().unwrap().remove("status");
    pod
}

/// The change that a row of the table makes.
pub type Change = fn(&mut Value);

/// The redirect of an injected pod.
pub fn redirect(pod: &mut Value) -> &mut Value {
    &mut pod["spec"]["initContainers"][0]
}

/// The sidecar of an injected pod.
pub fn sidecar(pod: &mut Value) -> &mut Value {
    &mut pod["spec"]["initContainers"][1]
}

/// The server's container.
pub fn main(pod: &mut Value) -> &mut Value {
    &mut pod["spec"]["containers"][0]
}

/// Adds to a list that may not be there.
pub fn push(list: &mut Value, item: Value) {
    if list.is_null() {
        *list = json!([]);
    }
    list.as_array_mut().unwrap().push(item);
}

/// Changes the argument that starts so.
pub fn argument(container: &mut Value, start: &str, becomes: Option<&str>) {
    let args = container["args"].as_array_mut().unwrap();
    let place = args.iter().position(|arg| arg.as_str().is_some_and(|arg| arg.starts_with(start))).unwrap();
    match becomes {
        Some(other) => args[place] = json!(other),
        None => drop(args.remove(place)),
    }
}
