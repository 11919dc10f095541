//! A Service in front of the server, and who is behind it besides the identity's pods.

use std::sync::Arc;

use behalf_plan::bypass::{Facts, Life, PodReach, Standing};
use serde_json::{Value, json};

use super::{ADDRESS, good, ip, judge, reason};
use crate::fixtures::*;

fn service(ports: Value) -> Value {
    json!({"metadata": {"name": "hr", "namespace": "hr"}, "spec": {"selector": {"app": "hr"}, "ports": ports}})
}

fn slice(ports: Value, endpoints: Value) -> Value {
    json!({"metadata": {"name": "hr-1", "namespace": "hr", "labels": {"kubernetes.io/service-name": "hr"}},
        "addressType": "IPv4", "ports": ports, "endpoints": endpoints})
}

fn to(address: &str, pod: &str) -> Value {
    json!({"addresses": [address], "conditions": {"ready": true}, "targetRef": {"kind": "Pod", "name": pod, "uid": "u"}})
}

fn ours() -> Value {
    to(ADDRESS, "hr-1")
}

fn facts(services: Vec<Value>, slices: Vec<Value>) -> Facts {
    Facts {
        pods: vec![good()],
        services: services.into_iter().map(|it| Arc::new(object(it))).collect(),
        slices: slices.into_iter().map(|it| Arc::new(object(it))).collect(),
    }
}

/// A stranger on the server's port behind the Service that is in front of it.
pub(super) fn with_stranger(pods: Vec<PodReach>) -> Facts {
    let ports = json!([{"name": "", "port": 8000, "protocol": "TCP"}]);
    let slices = vec![slice(ports, json!([ours(), to("10.0.0.9", "stray")]))];
    Facts { pods, ..facts(vec![service(json!([{"port": 80, "targetPort": 8000}]))], slices) }
}

#[test]
fn a_service_is_in_front_of_the_server_by_number_by_name_or_in_fact() {
    let stray = json!([ours(), to("10.0.0.9", "stray")]);
    let on = |name: &str, port: u16| json!([{"name": name, "port": port, "protocol": "TCP"}]);
    for (ports, slice_ports, in_front) in [
        (json!([{"port": 8000}]), on("", 8000), true),
        (json!([{"port": 80, "targetPort": 8000}]), on("", 8000), true),
        (json!([{"port": 80, "targetPort": "mcp"}]), on("", 8000), true),
        (
            json!([{"name": "mcp", "port": 80, "targetPort": 8000}, {"name": "m", "port": 9090}]),
            on("mcp", 8000),
            true,
        ),
        (json!([{"port": 80, "targetPort": 15101}]), on("", 15101), true),
        // Nothing but the endpoints say so.
        (json!([{"port": 80, "targetPort": "unknown"}]), on("", 8000), true),
        // A Service without ports leads to all of them.
        (json!([]), json!([]), true),
        // Extra ports, another protocol, another name.
        (json!([{"port": 9090}]), on("", 9090), false),
        (json!([{"port": 80, "targetPort": "metrics"}]), on("", 9090), false),
        (
            json!([{"port": 8000, "protocol": "UDP"}]),
            json!([{"name": "", "port": 8000, "protocol": "UDP"}]),
            false,
        ),
        (
            json!([{"name": "mcp", "port": 80, "targetPort": 8000}, {"name": "m", "port": 9090}]),
            on("m", 9090),
            false,
        ),
    ] {
        let found = judge(&facts(vec![service(ports.clone())], vec![slice(slice_ports, stray.clone())]));
        let expected = if in_front { "ForeignEndpoint" } else { "Closed" };
        assert_eq!(reason(&found), expected, "{ports}");
    }
}

#[test]
fn endpoints_of_one_port_may_stand_in_several_slices() {
    let ports = json!([{"name": "mcp", "port": 80, "targetPort": "mcp"}]);
    let ours = slice(json!([{"name": "mcp", "port": 8000}]), json!([ours()]));
    // The stranger's port of that name has another number.
    let theirs = slice(json!([{"name": "mcp", "port": 9000}]), json!([to("10.0.0.9", "stray")]));
    let found = judge(&facts(vec![service(ports.clone())], vec![ours.clone(), theirs.clone()]));
    assert_eq!(reason(&found), "ForeignEndpoint");
    // Without a selector, only the endpoints say where it leads.
    let mut bare = service(ports);
    bare["spec"]["selector"] = json!(null);
    assert_eq!(reason(&judge(&facts(vec![bare.clone()], vec![ours, theirs.clone()]))), "ForeignEndpoint");
    assert_eq!(reason(&judge(&facts(vec![bare], vec![theirs]))), "Closed", "no way to our pods");
}

#[test]
fn only_the_address_of_an_injected_pod_is_ours() {
    let ports = json!([{"port": 80, "targetPort": 8000}]);
    let with = |endpoint: Value| {
        let endpoints = json!([ours(), endpoint]);
        let slices = vec![slice(json!([{"name": "", "port": 8000}]), endpoints)];
        judge(&facts(vec![service(ports.clone())], slices))
    };
    for foreign in [
        to("10.0.0.9", "stray"),
        // A word that anybody may write, at an address that is not ours.
        to("10.0.0.9", "hr-1"),
        json!({"addresses": ["10.0.0.9"], "conditions": {"ready": true}}),
        json!({"addresses": ["10.0.0.9"], "conditions": {}}),
        json!({"addresses": ["10.0.0.9"]}),
        json!({"addresses": ["hr.example.com"]}),
        json!({"addresses": [ADDRESS, "10.0.0.9"]}),
        // Our address, said to be another pod's.
        to(ADDRESS, "stray"),
    ] {
        assert_eq!(reason(&with(foreign.clone())), "ForeignEndpoint", "{foreign}");
    }
    for fine in [
        json!({"addresses": [ADDRESS]}),
        json!({"addresses": ["10.0.0.9"], "conditions": {"ready": false}}),
        json!({"addresses": ["10.0.0.9"], "conditions": {"ready": false, "serving": true, "terminating": true}}),
    ] {
        assert_eq!(reason(&with(fine.clone())), "Closed", "{fine}");
    }
    let no_pod = with(json!({"addresses": ["10.0.0.9"]}));
    assert!(no_pod.message.contains("10.0.0.9 (no pod)"), "{}", no_pod.message);
}

#[test]
fn a_pod_that_leaves_is_still_the_identitys() {
    let mut facts = with_stranger(vec![good()]);
    let stray = PodReach {
        name: "stray".into(),
        addresses: [ip("10.0.0.9")].into(),
        life: Life::Leaving,
        standing: Standing::default(),
        ..good()
    };
    facts.pods.push(stray);
    assert_eq!(reason(&judge(&facts)), "Closed");
}

#[test]
fn a_service_elsewhere_or_of_nobody_is_not_asked() {
    let stray = json!([to("10.0.0.9", "stray")]);
    let ports = json!([{"name": "", "port": 8000}]);
    let mut other = service(json!([{"port": 8000}]));
    other["spec"]["selector"] = json!({"app": "crm"});
    assert_eq!(reason(&judge(&facts(vec![other], vec![slice(ports.clone(), stray.clone())]))), "Closed");
    let mut unnamed = slice(ports, stray);
    unnamed["metadata"]["labels"] = json!({});
    assert_eq!(reason(&judge(&facts(vec![service(json!([{"port": 8000}]))], vec![unnamed]))), "Closed");
}
