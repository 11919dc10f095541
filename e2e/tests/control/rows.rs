//! The table, what is ours: one change to an injected pod per row, and what the refusal must tell its author to do.
use serde_json::{Value, json};

use super::pods::{Change, argument, push, redirect, sidecar};

/// A refused pod.
pub struct Row {
    pub name: &'static str,
    pub change: Change,
    /// What the policy's message says, cause and next step; it speaks when the operator is away.
    pub policy: &'static str,
    /// What the refusal says while the operator is there, if it is the webhook that speaks first.
    pub webhook: Option<&'static str>,
}

pub const fn row(
    name: &'static str,
    change: Change,
    policy: &'static str,
    webhook: Option<&'static str>,
) -> Row {
    Row { name, change, policy, webhook }
}

pub const NOT_OURS: Option<&str> = Some("remove it from the pod template, Behalf adds its own");
const EXACTLY: &str = "let the webhook add them";
const TAKE_OUT: &str = "let the webhook add it";

/// The pod as it would be with a server that has TLS, but for the source of its certificate.
fn with_certificate(pod: &mut Value, source: Value) {
    push(&mut sidecar(pod)["args"], json!("--tls-dir=/etc/behalf/tls"));
    let mount = json!({"name": "behalf-tls", "mountPath": "/etc/behalf/tls", "readOnly": true});
    push(&mut sidecar(pod)["volumeMounts"], mount);
    let mut volume = source;
    volume["name"] = json!("behalf-tls");
    push(&mut pod["spec"]["volumes"], volume);
}

/// Changes of our own containers and volumes.
pub const OURS: &[Row] = &[
    row("image of the sidecar", |pod| sidecar(pod)["image"] = json!("localhost/evil:1"), EXACTLY, NOT_OURS),
    row("image of the redirect", |pod| redirect(pod)["image"] = json!("localhost/evil:1"), EXACTLY, NOT_OURS),
    row("command", |pod| sidecar(pod)["command"] = json!(["/bin/sh"]), EXACTLY, NOT_OURS),
    row(
        "env from a ConfigMap",
        |pod| sidecar(pod)["envFrom"] = json!([{"configMapRef": {"name": "x"}}]),
        EXACTLY,
        NOT_OURS,
    ),
    row(
        "a hook",
        |pod| sidecar(pod)["lifecycle"] = json!({"preStop": {"exec": {"command": ["/x"]}}}),
        EXACTLY,
        NOT_OURS,
    ),
    row(
        "writable root",
        |pod| sidecar(pod)["securityContext"]["readOnlyRootFilesystem"] = json!(false),
        EXACTLY,
        NOT_OURS,
    ),
    row(
        "privileged sidecar",
        |pod| {
            sidecar(pod)["securityContext"]["privileged"] = json!(true);
            sidecar(pod)["securityContext"]["allowPrivilegeEscalation"] = json!(true);
        },
        EXACTLY,
        NOT_OURS,
    ),
    row(
        "a termination message elsewhere",
        |pod| sidecar(pod)["terminationMessagePath"] = json!("/etc/behalf/x"),
        EXACTLY,
        NOT_OURS,
    ),
    row("a host port of ours", |pod| sidecar(pod)["ports"][0]["hostPort"] = json!(15101), EXACTLY, NOT_OURS),
    row(
        "a probe that runs a command in ours",
        |pod| {
            sidecar(pod)["livenessProbe"] = json!({"exec": {"command": ["/behalf-sidecar", "--help"]}});
        },
        EXACTLY,
        NOT_OURS,
    ),
    row(
        "a capability more for the redirect",
        |pod| {
            push(&mut redirect(pod)["securityContext"]["capabilities"]["add"], json!("SYS_ADMIN"));
        },
        TAKE_OUT,
        NOT_OURS,
    ),
    row(
        "another uid for the sidecar",
        |pod| sidecar(pod)["securityContext"]["runAsUser"] = json!(10001),
        TAKE_OUT,
        NOT_OURS,
    ),
    row(
        "another identity in the arguments",
        |pod| {
            argument(sidecar(pod), "--identity=", Some("--identity=other"));
        },
        "identity, pinned keys, nameservers",
        NOT_OURS,
    ),
    row(
        "another namespace in the arguments",
        |pod| {
            argument(sidecar(pod), "--namespace=", Some("--namespace=hr"));
        },
        "identity, pinned keys, nameservers",
        NOT_OURS,
    ),
    row(
        "another pinned key",
        |pod| {
            argument(sidecar(pod), "--bundle-key=", Some("--bundle-key=evil=AAAA"));
        },
        "identity, pinned keys, nameservers",
        NOT_OURS,
    ),
    row(
        "no pinned key",
        |pod| {
            argument(sidecar(pod), "--bundle-key=", None);
        },
        "identity, pinned keys, nameservers",
        NOT_OURS,
    ),
    row(
        "another nameserver",
        |pod| {
            argument(sidecar(pod), "--nameserver=", Some("--nameserver=192.0.2.1"));
        },
        "identity, pinned keys, nameservers",
        NOT_OURS,
    ),
    row(
        "an argument more",
        |pod| {
            push(&mut sidecar(pod)["args"], json!("--allow-loopback-destinations"));
        },
        "identity, pinned keys, nameservers",
        NOT_OURS,
    ),
    row(
        "records in a file that the platform did not set",
        |pod| push(&mut sidecar(pod)["args"], json!("--record-file=/var/lib/behalf/records/records.jsonl")),
        "identity, pinned keys, nameservers, records",
        NOT_OURS,
    ),
    row(
        "no records on standard output",
        |pod| push(&mut sidecar(pod)["args"], json!("--record-stdout=false")),
        "identity, pinned keys, nameservers, records",
        NOT_OURS,
    ),
    row(
        "a volume for records that the platform did not set",
        |pod| push(&mut pod["spec"]["volumes"], json!({"name": "behalf-records", "emptyDir": {}})),
        "let the webhook add its own",
        NOT_OURS,
    ),
    row(
        "a certificate that the pod does not have",
        |pod| {
            push(&mut sidecar(pod)["args"], json!("--tls-dir=/etc/behalf/tls"));
        },
        "identity, pinned keys, nameservers",
        NOT_OURS,
    ),
    row(
        "a certificate from elsewhere in the pod",
        |pod| {
            with_certificate(pod, json!({"emptyDir": {}}));
        },
        // Two policies refuse it; which of them speaks is not said.
        "volumes named behalf-|is not the certificate of AgentIdentity tools",
        NOT_OURS,
    ),
    row(
        "a certificate that the identity does not name",
        |pod| {
            let items = ["tls.crt", "tls.key", "ca.crt"].map(|key| json!({"key": key, "path": key}));
            let secret = json!({"secretName": "own", "optional": true, "items": items});
            with_certificate(pod, json!({"secret": secret}));
        },
        "is not the certificate of AgentIdentity tools",
        NOT_OURS,
    ),
    row(
        "the server's port led past the sidecar",
        |pod| {
            argument(redirect(pod), "--server-port=", Some("--server-port=9999"));
            push(&mut redirect(pod)["args"], json!("--extra-port=tcp/8000"));
        },
        "not those of AgentIdentity tools",
        NOT_OURS,
    ),
    row(
        "a port opened that the identity does not list",
        |pod| {
            push(&mut redirect(pod)["args"], json!("--extra-port=tcp/9090"));
        },
        "not those of AgentIdentity tools",
        NOT_OURS,
    ),
    row(
        "another environment variable",
        |pod| {
            push(&mut sidecar(pod)["env"], json!({"name": "SSL_CERT_FILE", "value": "/tmp/x"}));
        },
        TAKE_OUT,
        NOT_OURS,
    ),
    row(
        "not a native sidecar",
        |pod| {
            sidecar(pod).as_object_mut().unwrap().remove("restartPolicy");
            for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
                sidecar(pod).as_object_mut().unwrap().remove(probe);
            }
        },
        // Its probes, which only a native sidecar has, are missed too.
        "let the webhook add",
        NOT_OURS,
    ),
    row(
        "a mount more for the sidecar",
        |pod| {
            push(&mut pod["spec"]["volumes"], json!({"name": "own", "emptyDir": {}}));
            push(
                &mut sidecar(pod)["volumeMounts"],
                json!({"name": "own", "mountPath": "/x", "readOnly": true}),
            );
        },
        TAKE_OUT,
        NOT_OURS,
    ),
    row(
        "the bundle from elsewhere",
        |pod| {
            let volumes = pod["spec"]["volumes"].as_array_mut().unwrap();
            let bundle = volumes.iter_mut().find(|volume| volume["name"] == "behalf-bundle").unwrap();
            bundle["configMap"]["name"] = json!("mine");
        },
        "must be exactly what the operator injects; rename yours",
        NOT_OURS,
    ),
    row(
        "a container with our prefix",
        |pod| {
            push(
                &mut pod["spec"]["containers"],
                json!({"name": "behalf-helper", "image": "localhost/x:1", "securityContext": {"capabilities": {"drop": ["ALL"]}}}),
            );
        },
        "must be its first two init containers",
        Some("remove it from the pod template"),
    ),
];

/// What the webhook sets right while it is there, and nobody when it is not.
pub const ALONE: &[Row] = &[row(
    "the wrong order",
    |pod| {
        pod["spec"]["initContainers"]
                .as_array_mut()
                .unwrap()
                .insert(0, json!({"name": "first", "image": "localhost/x:1", "securityContext": {"capabilities": {"drop": ["ALL"]}}}));
    },
    "must be its first two init containers",
    None,
)];
