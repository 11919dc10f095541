//! Taking Behalf away in the documented order. Its name puts it behind all other tests: nothing of the demo is left.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::time::Duration;

use behalf_e2e::{World, until};
use serde_json::{Value, json};
use xtask::command::Run as _;

fn pods(world: &World) -> Vec<Value> {
    world.object(&["get", "pods", "--all-namespaces"]).unwrap()["items"]
        .as_array()
        .cloned()
        .unwrap_or_default()
}

fn pod(world: &World, namespace: &str, name: &str, command: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {"behalf.dev/agent-identity": "hr-tools"}},
        "spec": {
            "automountServiceAccountToken": false, "terminationGracePeriodSeconds": 1, "restartPolicy": "Never",
            "containers": [{
                "name": "main", "image": world.images.hr_tools.reference(), "imagePullPolicy": "IfNotPresent",
                "command": ["/opt/venv/bin/python", "-c", command],
            }],
        },
    })
}

#[test]
fn zz_uninstalled_in_the_documented_order_no_pod_is_left_that_cannot_start() {
    let world = World::get().unwrap();
    xtask::demo::uninstall(&world.cluster).unwrap();

    for pod in pods(world) {
        let phase = &pod["status"]["phase"];
        assert!(phase == "Running" || phase == "Succeeded", "{} is {phase}", pod["metadata"]["name"]);
        assert!(
            !pod.to_string().contains("behalf-sidecar"),
            "{} still has a sidecar",
            pod["metadata"]["name"]
        );
    }
    let kinds = [
        "validatingadmissionpolicies",
        "validatingadmissionpolicybindings",
        "mutatingwebhookconfigurations",
        "clusterroles",
        "clusterrolebindings",
        "namespaces",
    ];
    for kind in kinds {
        let names = world.kubectl(&["get", kind, "-o", "name"]).unwrap();
        let left: Vec<_> = names
            .lines()
            .filter(|name| name.contains("/behalf") && *name != "namespace/behalf-system")
            .collect();
        assert_eq!(left, [] as [&str; 0], "{kind}");
    }
    // Who forgot a label on a namespace or a template is not kept from starting: nobody judges any more.
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "e2e-after", "labels": {"behalf.dev/injection": "Required"}}});
    world.cluster.apply(&namespace.to_string()).unwrap();
    let ready = || world.kubectl(&["-n", "e2e-after", "get", "serviceaccount", "default"]).map(Some);
    until("the namespace has its account", Duration::from_secs(30), ready).unwrap();
    let manifest = pod(world, "e2e-after", "forgotten", "print('done')").to_string();
    world.cluster.kubectl(&["create", "-f", "-"]).feed(&manifest).unwrap();
    let ended = [
        "-n",
        "e2e-after",
        "wait",
        "pod/forgotten",
        "--for=jsonpath={.status.phase}=Succeeded",
        "--timeout=60s",
    ];
    world.kubectl(&ended).unwrap();
    world.kubectl(&["delete", "namespace", "e2e-after", "--wait=true", "--timeout=60s"]).unwrap();
}
