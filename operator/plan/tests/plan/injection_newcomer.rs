//! The chart that somebody has already, labelled and nothing else: it runs, or one line is named that must change.

use behalf_plan::{Injection, plan_injection};
use k8s_openapi::api::core::v1::Service;
use serde_json::{Value, json};

use crate::fixtures::*;

/// A pod as common charts make it: root, default capabilities, the `default` account, a metrics port, a probe by name.
fn stock(changes: Value) -> Value {
    let mut value = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "generateName": "hr-", "namespace": "hr",
            "labels": {"app.kubernetes.io/name": "hr", "behalf.dev/agent-identity": "hr-tools"},
            "annotations": {"prometheus.io/scrape": "true", "prometheus.io/port": "9090"},
        },
        "spec": {
            "serviceAccountName": "default", "automountServiceAccountToken": true, "enableServiceLinks": true,
            "securityContext": {},
            "containers": [{
                "name": "hr", "image": "hr:1", "securityContext": {},
                "ports": [{"name": "http", "containerPort": 8000}, {"name": "metrics", "containerPort": 9090}],
                "livenessProbe": {"httpGet": {"path": "/", "port": "http"}},
                "readinessProbe": {"httpGet": {"path": "/", "port": 8000}},
                "volumeMounts": [{"name": "kube-api-access-x", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": true}],
            }],
            "volumes": [{"name": "kube-api-access-x", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}],
        },
    });
    json_patch::merge(&mut value, &changes);
    value
}

fn service() -> Service {
    object(json!({
        "metadata": {"name": "hr", "namespace": "hr"},
        "spec": {
            "selector": {"app.kubernetes.io/name": "hr"},
            "ports": [{"name": "http", "port": 80, "targetPort": "http"}, {"name": "metrics", "port": 9090, "targetPort": "metrics"}],
        },
    }))
}

fn ask(value: &Value) -> Injection {
    let identity = object(accepted_identity_value());
    let all = providers(vec![provider_value("corp")]);
    plan_injection(&pod(value.clone()), &namespace(), Some(&identity), &all, &[service()], &settings())
}

fn refusal(value: &Value) -> String {
    match ask(value) {
        Injection::Refuse(refusals) if refusals.len() == 1 => refusals[0].message.clone(),
        other => panic!("not one refusal: {other:?}"),
    }
}

#[test]
fn a_stock_chart_is_refused_with_the_one_line_to_change_and_then_runs() {
    let message = refusal(&stock(json!({})));
    assert!(message.ends_with("set in the pod template: serviceAccountName: hr-mcp"), "{message}");
    let changed = stock(json!({"spec": {"serviceAccountName": "hr-mcp"}}));
    let Injection::Plan(plan) = ask(&changed) else { panic!("{:?}", ask(&changed)) };
    assert_eq!(plan.drop_net_raw, ["hr"], "the rest of the default capabilities stays");
    assert_eq!(plan.probes.keys().collect::<Vec<_>>(), ["hr/liveness", "hr/readiness"]);
    assert_eq!(plan.warnings.len(), 1, "{:?}", plan.warnings);
    let warning = &plan.warnings[0].message;
    assert!(
        warning.ends_with("spec.servers[0].interception.extraPorts: - {port: 9090, protocol: TCP}"),
        "{warning}"
    );
    let after = serde_json::to_value(plan.apply(&pod(changed))).unwrap();
    let container = &after["spec"]["containers"][0];
    assert_eq!(container["securityContext"], json!({"capabilities": {"drop": ["NET_RAW"]}}), "root it stays");
    assert_eq!(container["ports"][0]["name"], "http", "a Service finds it by its name as before");
}

/// What else charts bring with them; each refusal ends with what to write or to take out.
#[test]
fn whatever_keeps_a_stock_chart_out_is_one_line_of_yaml() {
    let ports = |ports: Value| {
        let mut value = stock(json!({"spec": {"serviceAccountName": "hr-mcp"}}));
        value["spec"]["containers"][0]["ports"] = ports;
        for probe in ["livenessProbe", "readinessProbe"] {
            value["spec"]["containers"][0][probe] = Value::Null;
        }
        value
    };
    let container = |change: Value| {
        let mut value = stock(json!({"spec": {"serviceAccountName": "hr-mcp"}}));
        json_patch::merge(&mut value["spec"]["containers"][0], &change);
        value
    };
    let spec = |change: Value| {
        let mut value = stock(json!({"spec": {"serviceAccountName": "hr-mcp"}}));
        json_patch::merge(&mut value["spec"], &change);
        value
    };
    for (value, line) in [
        (stock(json!({"spec": {"serviceAccountName": null}})), "serviceAccountName: hr-mcp"),
        (stock(json!({"spec": {"serviceAccountName": "hr"}})), "serviceAccountName: hr-mcp"),
        (ports(Value::Null), "ports: - {containerPort: 8000}"),
        (ports(json!([{"name": "http", "containerPort": 8080}])), "ports: - {containerPort: 8000}"),
        (ports(json!([{"containerPort": 8000}, {"containerPort": 15101}])), "port 15101"),
        (
            container(json!({"livenessProbe": {"httpGet": {"path": "/", "port": "web"}}})),
            "declare it under ports",
        ),
        (
            container(json!({"readinessProbe": {"httpGet": {"port": 8000, "host": "127.0.0.1"}}})),
            "remove host",
        ),
        (
            container(json!({"lifecycle": {"preStop": {"httpGet": {"port": 8000, "host": "x"}}}})),
            "remove host",
        ),
        (container(json!({"securityContext": {"runAsUser": 15001}})), "runAsUser"),
        (spec(json!({"hostNetwork": true})), "hostNetwork is true"),
        (spec(json!({"shareProcessNamespace": true})), "shareProcessNamespace is true"),
    ] {
        let message = refusal(&value);
        assert!(message.contains(line), "{message}");
    }
}
