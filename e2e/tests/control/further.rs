//! Further rows of the table: pods that are changed, and pods that nobody joined to anything.
use behalf_e2e::ISSUER;
use serde_json::{Value, json};

use super::pods::{Change, main, push, redirect, sidecar};
use super::rows::{NOT_OURS, Row, row};

/// The audience of tokens that pods show to the operator.
const FEED: &str = "behalf.dev/feed";
const EXACTLY: &str = "let the webhook add them";
const TAKE_OUT: &str = "let the webhook add it";
const ADD: &str = "let the webhook add";

fn digest(container: &mut Value, digest: &str) {
    let image = container["image"].as_str().unwrap();
    let name = image.split('@').next().unwrap();
    container["image"] = json!(format!("{name}{digest}"));
}

fn projected(name: &str, audience: &str) -> Value {
    json!({"name": name, "projected": {"sources": [{"serviceAccountToken": {"audience": audience, "path": "token"}}]}})
}

/// A volume of ours that another container mounts.
fn borrow(pod: &mut Value, volume: &str) {
    push(&mut main(pod)["volumeMounts"], json!({"name": volume, "mountPath": "/x", "readOnly": true}));
}

fn ours(pod: &mut Value, volume: &str, change: impl FnOnce(&mut Value)) {
    let volumes = pod["spec"]["volumes"].as_array_mut().unwrap();
    change(volumes.iter_mut().find(|one| one["name"] == volume).unwrap());
}

/// Changes of an injected pod of `tools`; `second` is an identity beside it, with an account of its own.
pub const MORE: &[Row] = &[
    row(
        "a wrong digest of the sidecar",
        |pod| digest(sidecar(pod), &format!("@sha256:{}", "0".repeat(64))),
        EXACTLY,
        NOT_OURS,
    ),
    row("the sidecar by tag", |pod| digest(sidecar(pod), ":latest"), EXACTLY, NOT_OURS),
    row(
        "a wrong digest of the redirect",
        |pod| digest(redirect(pod), &format!("@sha256:{}", "f".repeat(64))),
        EXACTLY,
        NOT_OURS,
    ),
    row(
        "a command beside the arguments of the redirect",
        |pod| redirect(pod)["command"] = json!(["/bin/true"]),
        EXACTLY,
        NOT_OURS,
    ),
    row("stdin of the sidecar", |pod| sidecar(pod)["stdin"] = json!(true), EXACTLY, NOT_OURS),
    row(
        "the redirect as another user",
        |pod| redirect(pod)["securityContext"]["runAsUser"] = json!(10_001),
        TAKE_OUT,
        NOT_OURS,
    ),
    row(
        "no rules",
        |pod| {
            redirect(pod)["securityContext"]["capabilities"].as_object_mut().unwrap().remove("add");
        },
        TAKE_OUT,
        NOT_OURS,
    ),
    row(
        "the redirect kept running",
        |pod| redirect(pod)["restartPolicy"] = json!("Always"),
        TAKE_OUT,
        NOT_OURS,
    ),
    row(
        "an environment variable of the redirect",
        |pod| redirect(pod)["env"] = json!([{"name": "LD_PRELOAD", "value": "/x"}]),
        TAKE_OUT,
        NOT_OURS,
    ),
    row(
        "the bundle in another container",
        |pod| borrow(pod, "behalf-bundle"),
        "volumeMounts",
        Some("remove the mount"),
    ),
    row(
        "the feed's token in another container",
        |pod| borrow(pod, "behalf-feed"),
        "volumeMounts",
        Some("remove the mount"),
    ),
    row(
        "the deny list in another container",
        |pod| borrow(pod, "behalf-deny"),
        "volumeMounts",
        Some("remove the mount"),
    ),
    row(
        "our volume in an init container",
        |pod| {
            let early = json!({
                "name": "early", "image": "localhost/x:1", "securityContext": {"capabilities": {"drop": ["ALL"]}},
                "volumeMounts": [{"name": "behalf-idp-corp", "mountPath": "/x"}],
            });
            push(&mut pod["spec"]["initContainers"], early);
        },
        "volumeMounts",
        Some("remove the mount"),
    ),
    row(
        "a token for the feed in another container",
        |pod| push(&mut pod["spec"]["volumes"], projected("mine", FEED)),
        "remove the projected volume",
        None,
    ),
    row(
        "a token for the provider among others",
        |pod| {
            let mut volume = projected("mine", "vault");
            push(
                &mut volume["projected"]["sources"],
                json!({"serviceAccountToken": {"audience": ISSUER, "path": "second"}}),
            );
            push(&mut pod["spec"]["volumes"], volume);
        },
        "remove the projected volume",
        None,
    ),
    row(
        "another audience in the feed's volume",
        |pod| {
            ours(pod, "behalf-feed", |volume| {
                volume["projected"]["sources"][0]["serviceAccountToken"]["audience"] = json!("elsewhere");
            });
        },
        ADD,
        NOT_OURS,
    ),
    row(
        "a second source in the provider's volume",
        |pod| {
            ours(pod, "behalf-idp-corp", |volume| {
                push(&mut volume["projected"]["sources"], json!({"configMap": {"name": "mine"}}));
            });
        },
        ADD,
        NOT_OURS,
    ),
    row(
        "the bundle left out",
        |pod| ours(pod, "behalf-bundle", |volume| volume["configMap"]["optional"] = json!(true)),
        "must be exactly what the operator injects",
        NOT_OURS,
    ),
    row(
        "the deny list of another name",
        |pod| ours(pod, "behalf-deny", |volume| volume["configMap"]["name"] = json!("mine")),
        "must be exactly what the operator injects",
        NOT_OURS,
    ),
    row(
        "the feed left out",
        |pod| {
            pod["spec"]["volumes"].as_array_mut().unwrap().retain(|volume| volume["name"] != "behalf-feed");
            sidecar(pod)["volumeMounts"]
                .as_array_mut()
                .unwrap()
                .retain(|mount| mount["name"] != "behalf-feed");
        },
        ADD,
        NOT_OURS,
    ),
    row(
        "the deny list left out",
        |pod| {
            pod["spec"]["volumes"].as_array_mut().unwrap().retain(|volume| volume["name"] != "behalf-deny");
            sidecar(pod)["volumeMounts"]
                .as_array_mut()
                .unwrap()
                .retain(|mount| mount["name"] != "behalf-deny");
        },
        ADD,
        NOT_OURS,
    ),
    row(
        "no readiness of the sidecar",
        |pod| drop(sidecar(pod).as_object_mut().unwrap().remove("readinessProbe")),
        "let the webhook add",
        NOT_OURS,
    ),
    row(
        "readiness of the sidecar by its liveness",
        |pod| sidecar(pod)["readinessProbe"]["httpGet"]["path"] = json!("/livez"),
        EXACTLY,
        NOT_OURS,
    ),
    row(
        "the sidecar in another group",
        |pod| sidecar(pod)["securityContext"]["runAsGroup"] = json!(0),
        TAKE_OUT,
        NOT_OURS,
    ),
    row(
        "the sidecar bound to elsewhere",
        |pod| push(&mut sidecar(pod)["args"], json!("--inbound-address=127.0.0.1:15101")),
        "identity, pinned keys, nameservers",
        NOT_OURS,
    ),
    row(
        "dnsPolicy None",
        |pod| {
            pod["spec"]["dnsPolicy"] = json!("None");
            pod["spec"]["dnsConfig"] = json!({"nameservers": ["192.0.2.1"]});
        },
        "may not set hostAliases or dnsConfig",
        None,
    ),
    row(
        "our uid in an init container",
        |pod| {
            let early = json!({
                "name": "early", "image": "localhost/x:1",
                "securityContext": {"runAsUser": 15001, "capabilities": {"drop": ["ALL"]}},
            });
            push(&mut pod["spec"]["initContainers"], early);
        },
        "set another securityContext.runAsUser",
        Some("choose another runAsUser"),
    ),
    row(
        "NET_ADMIN in an init container",
        |pod| {
            let early = json!({
                "name": "early", "image": "localhost/x:1",
                "securityContext": {"capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]}},
            });
            push(&mut pod["spec"]["initContainers"], early);
        },
        "remove the others from its securityContext.capabilities.add",
        None,
    ),
    row(
        "every capability",
        |pod| {
            main(pod)["securityContext"]["capabilities"] = json!({"add": ["ALL"], "drop": ["NET_RAW"]});
        },
        "its securityContext.capabilities.",
        None,
    ),
    row(
        "SYS_PTRACE",
        |pod| {
            main(pod)["securityContext"]["capabilities"] =
                json!({"add": ["SYS_PTRACE"], "drop": ["NET_RAW"]});
        },
        "remove the others from its securityContext.capabilities.add",
        None,
    ),
    row(
        "another identity's account",
        |pod| pod["spec"]["serviceAccountName"] = json!("second"),
        // Each of the two identities holds something against it; which one speaks is not said.
        "in the pod template|label the pod template behalf.dev/agent-identity: second",
        Some("serviceAccountName: tools"),
    ),
    row(
        "another identity's label",
        |pod| pod["metadata"]["labels"]["behalf.dev/agent-identity"] = json!("second"),
        "agent-identity: tools|in the pod template|let the webhook add it",
        Some("serviceAccountName: second"),
    ),
];

/// What the webhook sets right while it is there, and nobody when it is not.
pub const ALONE: &[Row] = &[
    row(
        "without the redirect",
        |pod| drop(pod["spec"]["initContainers"].as_array_mut().unwrap().remove(0)),
        "was not injected",
        None,
    ),
    row(
        "without the sidecar",
        |pod| drop(pod["spec"]["initContainers"].as_array_mut().unwrap().remove(1)),
        "was not injected",
        None,
    ),
    row(
        "the sidecar first",
        |pod| pod["spec"]["initContainers"].as_array_mut().unwrap().swap(0, 1),
        "was not injected",
        None,
    ),
    row(
        "NET_RAW kept",
        |pod| drop(main(pod).as_object_mut().unwrap().remove("securityContext")),
        "must not keep NET_RAW",
        None,
    ),
];

/// A pod that nobody joined to anything, in an enrolled namespace: held to baseline, and not to be given what is ours.
pub const UNLABELLED: &[(&str, Change, &str)] = &[
    ("hostNetwork", |pod| pod["spec"]["hostNetwork"] = json!(true), "may not use hostNetwork"),
    ("hostPID", |pod| pod["spec"]["hostPID"] = json!(true), "may not use hostNetwork, hostPID"),
    ("hostIPC", |pod| pod["spec"]["hostIPC"] = json!(true), "hostIPC; remove it"),
    (
        "hostPath",
        |pod| push(&mut pod["spec"]["volumes"], json!({"name": "node", "hostPath": {"path": "/"}})),
        "may not mount a hostPath",
    ),
    ("privileged", |pod| main(pod)["securityContext"] = json!({"privileged": true}), "remove privileged"),
    (
        "NET_ADMIN",
        |pod| main(pod)["securityContext"] = json!({"capabilities": {"add": ["NET_ADMIN"]}}),
        "capabilities.add",
    ),
    (
        "NET_RAW",
        |pod| main(pod)["securityContext"] = json!({"capabilities": {"add": ["NET_RAW"]}}),
        "capabilities.add",
    ),
    (
        "a container with our name",
        |pod| {
            main(pod)["name"] = json!("behalf-sidecar");
            main(pod)["securityContext"] = json!({"privileged": true});
        },
        "remove privileged",
    ),
    (
        "hostPort",
        |pod| main(pod)["ports"] = json!([{"containerPort": 8000, "hostPort": 8000}]),
        "may not use a hostPort",
    ),
    (
        "unconfined",
        |pod| main(pod)["securityContext"] = json!({"seccompProfile": {"type": "Unconfined"}}),
        "set the profile's type to RuntimeDefault",
    ),
    (
        "an unsafe sysctl",
        |pod| pod["spec"]["securityContext"]["sysctls"] = json!([{"name": "kernel.msgmax", "value": "1"}]),
        "safe sysctls only",
    ),
    (
        "the identity's account",
        |pod| pod["spec"]["serviceAccountName"] = json!("tools"),
        "label the pod template behalf.dev/agent-identity: tools",
    ),
    (
        "a token for the provider",
        |pod| push(&mut pod["spec"]["volumes"], projected("mine", ISSUER)),
        "remove the projected volume",
    ),
    (
        "a token for the provider under our name",
        |pod| push(&mut pod["spec"]["volumes"], projected("behalf-idp-corp", ISSUER)),
        "remove the projected volume",
    ),
    (
        "a token for the feed",
        |pod| push(&mut pod["spec"]["volumes"], projected("mine", FEED)),
        "remove the projected volume",
    ),
    (
        "a token for the feed under our name",
        |pod| push(&mut pod["spec"]["volumes"], projected("behalf-feed", FEED)),
        "remove the projected volume",
    ),
];
