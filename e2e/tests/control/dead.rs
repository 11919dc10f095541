//! Every pod of ours dead: what runs goes on, what would run bare does not start, the rest does not notice.
use behalf_e2e::keycloak::login;
use behalf_e2e::{ALL_SCOPES, mcp};
use serde_json::json;

use super::api::{Api, eventually};
use super::pods::{plain, server};
use super::scene::{ENROLLED, PLAIN, as_editor, enrolled, injecting, namespace, without_operator};

#[test]
fn with_every_pod_of_ours_dead_calls_go_on_and_no_enrolled_pod_starts_bare() {
    let api = Api::open();
    let _scene = enrolled(&api);
    let _plain = namespace(&api, PLAIN, None);
    injecting(&api);
    let away = without_operator(&api);

    let alice = login(api.world, "agent-test", "alice", ALL_SCOPES).unwrap();
    let answer = mcp::salary(&alice.text, "bob").send(api.world).unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.saw().unwrap()["aud"], json!("payroll"), "an exchange that was made just now");
    let bob = login(api.world, "agent-test", "bob", ALL_SCOPES).unwrap();
    let answer = mcp::salary(&bob.text, "bob").send(api.world).unwrap();
    assert_eq!((answer.status, answer.reason().as_deref()), (403, Some("NotEntitled")));

    // By hand, and by a controller, whose owner has to read it in an Event.
    let said = as_editor(&api, ENROLLED, &["create", "-f", "-"], &server(&api).to_string()).unwrap_err();
    for part in ["was not injected", "kubectl -n behalf-system get pods", "create the pod again"] {
        assert!(said.contains(part), "{said}");
    }
    let pod = server(&api);
    let template = json!({"metadata": {"labels": pod["metadata"]["labels"]}, "spec": pod["spec"]});
    let set = json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "servers", "namespace": ENROLLED},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "server"}}, "template": template},
    });
    as_editor(&api, ENROLLED, &["create", "-f", "-"], &set.to_string()).unwrap();
    eventually("the ReplicaSet says why it has no pod", 30, || {
        let told = api.kubectl(&["-n", ENROLLED, "describe", "replicaset", "servers"]);
        if told.contains("was not injected") { Ok(()) } else { Err(told) }
    });
    assert_eq!(api.pods(ENROLLED, "app=server"), [], "no pod starts bare");

    // A pod without the label in an enrolled namespace, and one in a namespace that knows nothing of us.
    for namespace in [ENROLLED, PLAIN] {
        let pod = plain(&api, namespace, "unrelated").to_string();
        as_editor(&api, namespace, &["create", "-f", "-"], &pod).unwrap();
        let ended = [
            "-n",
            namespace,
            "wait",
            "pod/unrelated",
            "--for=jsonpath={.status.phase}=Succeeded",
            "--timeout=60s",
        ];
        api.kubectl(&ended);
    }

    drop(away);
    // What the message promised: the controller gets its pod.
    eventually("the pod is made, with everything of ours", 120, || {
        let list = api.get(&["pods", "-n", ENROLLED, "-l", "app=server"]);
        let ready = list["items"][0]["status"]["conditions"].as_array().into_iter().flatten();
        let ready = ready.into_iter().any(|it| it["type"] == "Ready" && it["status"] == "True");
        let injected = list["items"][0]["spec"]["initContainers"][1]["name"] == "behalf-sidecar";
        if ready && injected { Ok(()) } else { Err(list["items"][0]["status"].to_string()) }
    });
}
