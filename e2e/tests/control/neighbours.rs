//! The table, what is everybody else's in the pod.
use behalf_e2e::ISSUER;
use serde_json::json;

use super::pods::{main, push};
use super::rows::{NOT_OURS, Row, row};

/// Changes of everything else in the pod.
pub const OTHERS: &[Row] = &[
    row(
        "our volume in another container",
        |pod| {
            push(&mut main(pod)["volumeMounts"], json!({"name": "behalf-idp-corp", "mountPath": "/x"}));
        },
        "remove the volumeMounts that name them",
        Some("remove the mount"),
    ),
    row(
        "our uid in another container",
        |pod| {
            main(pod)["securityContext"]["runAsUser"] = json!(15001);
        },
        "set another securityContext.runAsUser",
        Some("choose another runAsUser"),
    ),
    row(
        "our uid for the whole pod",
        |pod| {
            pod["spec"]["securityContext"]["runAsUser"] = json!(15001);
        },
        "set another securityContext.runAsUser",
        Some("choose another runAsUser"),
    ),
    row(
        "NET_RAW asked for",
        |pod| {
            main(pod)["securityContext"]["capabilities"] = json!({"add": ["NET_RAW"]});
        },
        "its securityContext.capabilities.",
        None,
    ),
    row(
        "NET_RAW not dropped",
        |pod| {
            main(pod)["securityContext"]["capabilities"] = json!({"add": ["NET_RAW"], "drop": ["MKNOD"]});
        },
        "its securityContext.capabilities.",
        None,
    ),
    row(
        "NET_ADMIN added",
        |pod| {
            main(pod)["securityContext"]["capabilities"] = json!({"add": ["NET_ADMIN"], "drop": ["ALL"]});
        },
        "remove the others from its securityContext.capabilities.add",
        None,
    ),
    row(
        "privileged",
        |pod| {
            main(pod)["securityContext"]["privileged"] = json!(true);
        },
        "remove privileged from its securityContext",
        None,
    ),
    row(
        "hostNetwork",
        |pod| pod["spec"]["hostNetwork"] = json!(true),
        "hostNetwork",
        Some("remove it from the pod template"),
    ),
    row(
        "hostPID",
        |pod| pod["spec"]["hostPID"] = json!(true),
        "hostPID",
        Some("remove it from the pod template"),
    ),
    row("hostIPC", |pod| pod["spec"]["hostIPC"] = json!(true), "hostIPC; remove it", None),
    row(
        "shareProcessNamespace",
        |pod| {
            pod["spec"]["shareProcessNamespace"] = json!(true);
        },
        "may not use shareProcessNamespace; remove it",
        Some("remove it from the pod template"),
    ),
    row(
        "hostAliases",
        |pod| {
            pod["spec"]["hostAliases"] = json!([{"ip": "192.0.2.1", "hostnames": ["payroll"]}]);
        },
        "may not set hostAliases or dnsConfig; remove it",
        None,
    ),
    row(
        "dnsConfig",
        |pod| {
            pod["spec"]["dnsConfig"] = json!({"nameservers": ["192.0.2.1"]});
        },
        "may not set hostAliases or dnsConfig; remove it",
        None,
    ),
    row(
        "hostPath",
        |pod| {
            push(&mut pod["spec"]["volumes"], json!({"name": "node", "hostPath": {"path": "/"}}));
        },
        "use another kind of volume",
        None,
    ),
    row(
        "hostPort",
        |pod| {
            main(pod)["ports"][0]["hostPort"] = json!(8000);
        },
        "use a Service",
        None,
    ),
    row(
        "procMount",
        |pod| {
            pod["spec"]["hostUsers"] = json!(false);
            main(pod)["securityContext"]["procMount"] = json!("Unmasked");
        },
        "remove procMount",
        None,
    ),
    row(
        "unconfined",
        |pod| {
            main(pod)["securityContext"]["seccompProfile"] = json!({"type": "Unconfined"});
        },
        "set the profile's type to RuntimeDefault",
        None,
    ),
    row(
        "SELinux type",
        |pod| {
            main(pod)["securityContext"]["seLinuxOptions"] = json!({"type": "spc_t"});
        },
        "remove seLinuxOptions",
        None,
    ),
    row(
        "an unsafe sysctl",
        |pod| {
            pod["spec"]["securityContext"]["sysctls"] = json!([{"name": "kernel.msgmax", "value": "1"}]);
        },
        "set safe sysctls only",
        None,
    ),
    row(
        "a token for the provider in another container",
        |pod| {
            push(
                &mut pod["spec"]["volumes"],
                json!({
                    "name": "mine", "projected": {"sources": [{"serviceAccountToken": {"audience": ISSUER, "path": "token"}}]},
                }),
            );
        },
        "remove the projected volume",
        None,
    ),
    row(
        "another audience in our volume",
        |pod| {
            let volumes = pod["spec"]["volumes"].as_array_mut().unwrap();
            let ours = volumes.iter_mut().find(|volume| volume["name"] == "behalf-idp-corp").unwrap();
            ours["projected"]["sources"][0]["serviceAccountToken"]["audience"] =
                json!("https://elsewhere.example.com");
        },
        "remove it and let the webhook add it",
        NOT_OURS,
    ),
    row(
        "another account",
        |pod| {
            pod["spec"]["serviceAccountName"] = json!("other");
        },
        "set serviceAccountName: tools in the pod template",
        Some("serviceAccountName: tools"),
    ),
    row(
        "the identity's account without its label",
        |pod| {
            pod["metadata"]["labels"] = json!({"app": "server"});
            pod["spec"]["initContainers"].take();
            pod["spec"]["volumes"].take();
        },
        "label the pod template behalf.dev/agent-identity: tools",
        None,
    ),
    row(
        "an unknown identity",
        |pod| {
            pod["metadata"]["labels"]["behalf.dev/agent-identity"] = json!("nobody");
            pod["spec"]["serviceAccountName"] = json!("other");
        },
        "let the webhook add it",
        Some("there is no AgentIdentity nobody"),
    ),
    row(
        "not injected at all, under a foreign label value",
        |pod| {
            pod["metadata"]["labels"]["behalf.dev/agent-identity"] = json!("nobody");
            pod["spec"]["serviceAccountName"] = json!("other");
            pod["spec"]["initContainers"] = json!([]);
        },
        "create the pod again; or remove the label",
        Some("there is no AgentIdentity nobody"),
    ),
];
