//! Which closed ports are warned of, and with which line.

use behalf_plan::{Injection, plan_injection};
use k8s_openapi::api::core::v1::Service;
use serde_json::{Value, json};

use crate::fixtures::*;

fn warnings_for(identity: Value, value: Value, services: Vec<Value>) -> Vec<String> {
    let identity = object(identity);
    let services: Vec<Service> = services.into_iter().map(object).collect();
    let all = providers(vec![provider_value("corp")]);
    match plan_injection(&pod(value), &namespace(), Some(&identity), &all, &services, &settings()) {
        Injection::Plan(plan) => plan.warnings.into_iter().map(|warning| warning.message).collect(),
        other => panic!("{other:?}"),
    }
}

fn warnings(value: Value, services: Vec<Value>) -> Vec<String> {
    warnings_for(accepted_identity_value(), value, services)
}

fn with_ports(ports: Value) -> Value {
    let mut value = pod_value();
    value["spec"]["containers"][0]["ports"] = ports;
    value
}

fn scraped(annotations: Value) -> Value {
    let mut value = pod_value();
    value["metadata"]["annotations"] = annotations;
    value
}

fn service(selector: Value, ports: Value) -> Value {
    json!({"metadata": {"name": "hr", "namespace": "hr"}, "spec": {"selector": selector, "ports": ports}})
}

#[test]
fn a_declared_port_that_the_rules_close_is_named_with_the_line_to_add() {
    let found = warnings(
        with_ports(json!([
            {"containerPort": 8000}, {"containerPort": 9090, "name": "metrics"}, {"containerPort": 8000, "protocol": "UDP"},
            {"containerPort": 3868, "protocol": "SCTP"}])),
        vec![],
    );
    let line = |port, protocol| {
        format!(
            "add to AgentIdentity hr-tools: spec.servers[0].interception.extraPorts: - {{port: {port}, protocol: {protocol}}}"
        )
    };
    assert_eq!(found.len(), 3);
    assert!(found[0].starts_with("port 9090/TCP (declared by container server) is closed"), "{}", found[0]);
    assert!(found[0].ends_with(&line(9090, "TCP")), "{}", found[0]);
    assert!(found[1].ends_with(&line(8000, "UDP")), "{}", found[1]);
    assert!(found[2].ends_with(&line(3868, "SCTP")), "{}", found[2]);
}

#[test]
fn a_port_that_only_a_service_targets_is_named() {
    let app = json!({"app": "hr"});
    let found = warnings(
        pod_value(),
        vec![service(
            app.clone(),
            json!([{"name": "mcp", "port": 80, "targetPort": "mcp"}, {"name": "m", "port": 9090}, {"name": "u", "port": 53, "targetPort": 5353, "protocol": "UDP"}]),
        )],
    );
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].starts_with("port 9090/TCP (targeted by Service hr) is closed"), "{}", found[0]);
    assert!(found[1].contains("- {port: 5353, protocol: UDP}"), "{}", found[1]);

    let mut annotated = service(app, json!([{"port": 80, "targetPort": 8000}]));
    annotated["metadata"]["annotations"] = json!({"prometheus.io/port": "9100"});
    let found = warnings(pod_value(), vec![annotated]);
    assert_eq!(found.len(), 1);
    assert!(found[0].contains("named by annotation prometheus.io/port of Service hr"), "{}", found[0]);
}

#[test]
fn a_port_that_is_only_scraped_is_named() {
    let found =
        warnings(scraped(json!({"prometheus.io/scrape": "true", "prometheus.io/port": "9090"})), vec![]);
    assert_eq!(found.len(), 1);
    assert!(found[0].contains("named by annotation prometheus.io/port) is closed"), "{}", found[0]);
}

#[test]
fn one_port_is_one_warning_that_names_all_who_count_on_it() {
    let mut value = with_ports(json!([{"containerPort": 8000}, {"name": "metrics", "containerPort": 9090}]));
    value["metadata"]["annotations"] = json!({"prometheus.io/port": "9090"});
    let services = vec![service(json!({"app": "hr"}), json!([{"port": 9090, "targetPort": "metrics"}]))];
    let found = warnings(value, services);
    assert_eq!(found.len(), 1);
    assert!(
        found[0].starts_with("port 9090/TCP (declared by container server, targeted by Service hr, named by annotation prometheus.io/port)"),
        "{}",
        found[0]
    );
}

#[test]
fn what_stays_open_and_what_nobody_counts_on_is_not_named() {
    for port in ["8000", "metrics", "", "0", "65536", "-1", "15104"] {
        assert!(warnings(scraped(json!({"prometheus.io/port": port})), vec![]).is_empty(), "{port}");
    }
    let off = json!({"prometheus.io/scrape": "false", "prometheus.io/port": "9090"});
    assert!(warnings(scraped(off), vec![]).is_empty());
    let app = json!({"app": "hr"});
    let metrics = json!([{"port": 9090}]);
    let elsewhere = json!({"metadata": {"name": "hr", "namespace": "it"}, "spec": {"selector": {"app": "hr"}, "ports": metrics}});
    for services in [
        // Other pods, no selector, another namespace.
        service(json!({"app": "crm"}), metrics.clone()),
        service(json!({"app": "hr", "tier": "web"}), metrics.clone()),
        service(json!({}), metrics.clone()),
        service(Value::Null, metrics.clone()),
        elsewhere,
        // The server, our own ports, a name that stands for nothing, the name of another protocol.
        service(app.clone(), json!([{"port": 80, "targetPort": "mcp"}, {"port": 8000}])),
        service(app.clone(), json!([{"port": 80, "targetPort": 15101}, {"port": 15104}])),
        service(app.clone(), json!([{"port": 80, "targetPort": "nothing"}])),
        service(app.clone(), json!([{"port": 80, "targetPort": "mcp", "protocol": "UDP"}])),
        service(app, Value::Null),
    ] {
        assert!(warnings(pod_value(), vec![services.clone()]).is_empty(), "{services}");
    }
    let mut open = accepted_identity_value();
    open["spec"]["servers"][0]["interception"] =
        json!({"extraPorts": [{"port": 9090}, {"port": 53, "protocol": "UDP"}]});
    let declared =
        json!([{"containerPort": 8000}, {"containerPort": 9090}, {"containerPort": 53, "protocol": "UDP"}]);
    assert!(warnings_for(open.clone(), with_ports(declared), vec![]).is_empty());
    let other_protocol = json!([{"containerPort": 8000}, {"containerPort": 9090, "protocol": "UDP"}]);
    assert_eq!(warnings_for(open, with_ports(other_protocol), vec![]).len(), 1);
}
