//! Who is let in, who is not and why, and what is not obvious about the plan.

use std::collections::BTreeMap;

use behalf_plan::inject::revision;
use behalf_plan::{Injection, Plan, RefusalReason, SkipReason, plan_injection};
use behalf_policy::probe::Probe;
use serde_json::{Value, json};

use crate::fixtures::*;

pub(crate) fn inject(pod_value: Value) -> Injection {
    let identity = object(accepted_identity_value());
    plan_injection(
        &pod(pod_value),
        &namespace(),
        Some(&identity),
        &providers(vec![provider_value("corp")]),
        &[],
        &settings(),
    )
}

pub(crate) fn planned(pod_value: Value) -> Plan {
    match inject(pod_value) {
        Injection::Plan(plan) => *plan,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn reasons(injection: &Injection) -> Vec<RefusalReason> {
    match injection {
        Injection::Refuse(refusals) => refusals.iter().map(|refusal| refusal.reason).collect(),
        _ => Vec::new(),
    }
}

/// The fixture's pod with one thing merged into its spec.
pub(crate) fn pod_with(spec: Value) -> Value {
    let mut value = pod_value();
    json_patch::merge(&mut value["spec"], &spec);
    value
}

pub(crate) fn container_with(fields: Value) -> Value {
    let mut value = pod_value();
    json_patch::merge(&mut value["spec"]["containers"][0], &fields);
    value
}

pub(crate) fn applied(value: Value) -> Value {
    serde_json::to_value(planned(value.clone()).apply(&pod(value))).unwrap()
}

#[test]
fn a_pod_without_the_label_is_none_of_ours() {
    let mut value = pod_value();
    value["metadata"]["labels"] = json!({"app": "hr"});
    value["spec"]["hostNetwork"] = json!(true);
    assert_eq!(inject(value), Injection::Skip(SkipReason::NotLabelled));
}

#[test]
fn a_pod_of_an_exempted_account_is_left_alone_or_refused_but_never_injected() {
    let ask = |pod_value: Value, list: &str| {
        let namespace = object(json!({"metadata": {
            "name": "hr", "labels": {"behalf.dev/injection": "Required"},
            "annotations": {"behalf.dev/exempt-service-accounts": list},
        }}));
        let identity = object(accepted_identity_value());
        let all = providers(vec![provider_value("corp")]);
        plan_injection(&pod(pod_value), &namespace, Some(&identity), &all, &[], &settings())
    };
    let unlabelled = |account: Value| {
        let mut value = pod_value();
        value["metadata"]["labels"] = json!({"app": "hr"});
        value["spec"]["serviceAccountName"] = account;
        value
    };
    for (account, list, skip) in [
        (json!("batch"), "batch", SkipReason::Exempt),
        (json!("batch"), "legacy , batch", SkipReason::Exempt),
        (Value::Null, "default", SkipReason::Exempt),
        (json!("batch"), "", SkipReason::NotLabelled),
        (json!("batch"), "batches,bat,batch legacy", SkipReason::NotLabelled),
        (json!("batch"), "*", SkipReason::NotLabelled),
        (Value::Null, "batch", SkipReason::NotLabelled),
    ] {
        assert_eq!(ask(unlabelled(account), list), Injection::Skip(skip), "{list}");
    }
    // With the label it would be behind Behalf and not, at once.
    let injection = ask(pod_value(), "batch,hr-mcp");
    assert_eq!(reasons(&injection), [RefusalReason::ServiceAccountExempt]);
    let Injection::Refuse(refusals) = injection else { panic!("{injection:?}") };
    assert!(refusals[0].message.contains("remove the label behalf.dev/agent-identity"), "{refusals:?}");
    assert!(matches!(ask(pod_value(), "batch"), Injection::Plan(_)));
}

#[test]
fn whoever_may_not_join_is_refused_with_cause_and_next_step() {
    use RefusalReason as R;
    let cases = [
        (
            pod_with(json!({"serviceAccountName": "default"})),
            R::ServiceAccountMismatch,
            "serviceAccountName: hr-mcp",
        ),
        (
            pod_with(json!({"serviceAccountName": null})),
            R::ServiceAccountMismatch,
            "runs as ServiceAccount default",
        ),
        (pod_with(json!({"hostNetwork": true})), R::SharedNamespace, "hostNetwork"),
        (pod_with(json!({"hostPID": true})), R::SharedNamespace, "hostPID"),
        (pod_with(json!({"shareProcessNamespace": true})), R::SharedNamespace, "shareProcessNamespace"),
        (pod_with(json!({"os": {"name": "windows"}})), R::OperatingSystem, "Linux"),
        (pod_with(json!({"securityContext": {"runAsUser": 15001}})), R::ReservedUser, "15001"),
        (container_with(json!({"securityContext": {"runAsUser": 15001}})), R::ReservedUser, "server"),
        (container_with(json!({"ports": null})), R::PortNotFound, "declared: none"),
        (container_with(json!({"ports": [{"containerPort": 9000}]})), R::PortNotFound, "9000/TCP"),
        (
            container_with(json!({"ports": [{"containerPort": 8000, "protocol": "UDP"}]})),
            R::PortNotFound,
            "8000/UDP",
        ),
        (
            container_with(json!({"ports": [{"containerPort": 8000}, {"containerPort": 15102}]})),
            R::PortReserved,
            "15102",
        ),
        (container_with(json!({"livenessProbe": {"grpc": {"port": 0}}})), R::PortNotFound, "port 0"),
        (
            container_with(json!({"livenessProbe": {"grpc": {"port": 15104}}})),
            R::ProbeNotSupported,
            "Behalf's own",
        ),
        (
            container_with(json!({"livenessProbe": {"httpGet": {"port": 8000, "host": "10.0.0.1"}}})),
            R::ProbeNotSupported,
            "host",
        ),
        (
            container_with(json!({"readinessProbe": {"tcpSocket": {"port": 8000, "host": "10.0.0.1"}}})),
            R::ProbeNotSupported,
            "host",
        ),
        (
            container_with(json!({"lifecycle": {"preStop": {"httpGet": {"port": 8000, "host": "a"}}}})),
            R::ProbeNotSupported,
            "pre-stop",
        ),
        (
            container_with(json!({"livenessProbe": {"httpGet": {"port": "admin"}}})),
            R::PortNotFound,
            "named ports: mcp",
        ),
        (container_with(json!({"livenessProbe": {"httpGet": {"port": 0}}})), R::PortNotFound, "port 0"),
        (
            container_with(json!({"livenessProbe": {"httpGet": {"port": 15102}}})),
            R::ProbeNotSupported,
            "Behalf's own",
        ),
        (
            container_with(
                json!({"livenessProbe": {"httpGet": {"port": 15103, "path": "/probe/server/liveness", "scheme": "HTTP"}}}),
            ),
            R::ProbeNotSupported,
            "Behalf's own port",
        ),
    ];
    for (value, reason, named) in cases {
        let injection = inject(value.clone());
        assert_eq!(reasons(&injection), [reason], "{value}");
        let Injection::Refuse(refusals) = injection else { unreachable!() };
        assert!(refusals[0].message.contains(named), "{}", refusals[0].message);
    }
}

#[test]
fn all_causes_are_said_at_once() {
    let injection =
        inject(pod_with(json!({"hostNetwork": true, "hostPID": true, "serviceAccountName": "x"})));
    assert_eq!(reasons(&injection).len(), 3);
}

#[test]
fn a_labelled_pod_joins_only_what_is_there_enrolled_and_accepted() {
    use RefusalReason as R;
    let ask = |identity: Option<Value>, labels: Value, providers: BTreeMap<_, _>| {
        let identity = identity.map(object);
        let namespace = object(json!({"metadata": {"name": "hr", "labels": labels}}));
        let injection =
            plan_injection(&pod(pod_value()), &namespace, identity.as_ref(), &providers, &[], &settings());
        let Injection::Refuse(refusals) = injection else { panic!("{injection:?}") };
        refusals[0].clone()
    };
    let enrolled = json!({"behalf.dev/injection": "Required"});
    let all = || providers(vec![provider_value("corp")]);
    let good = accepted_identity_value;

    for labels in [json!({}), json!({"behalf.dev/injection": "enabled"})] {
        let refusal = ask(Some(good()), labels, all());
        assert_eq!(refusal.reason, R::NamespaceNotEnrolled);
        assert!(
            refusal.message.contains("kubectl label --overwrite namespace hr behalf.dev/injection=Optional")
        );
    }
    assert_eq!(ask(None, enrolled.clone(), all()).reason, R::IdentityNotFound);
    let mut elsewhere = good();
    elsewhere["metadata"]["namespace"] = json!("finance");
    assert_eq!(ask(Some(elsewhere), enrolled.clone(), all()).reason, R::IdentityNotFound);
    let mut other = good();
    other["metadata"]["name"] = json!("other");
    assert_eq!(ask(Some(other), enrolled.clone(), all()).reason, R::IdentityNotFound);

    assert_eq!(ask(Some(identity_value()), enrolled.clone(), all()).reason, R::IdentityNotAccepted);
    let mut changed = good();
    changed["metadata"]["generation"] = json!(5);
    let refusal = ask(Some(changed), enrolled.clone(), all());
    assert_eq!(refusal.reason, R::IdentityNotAccepted);
    assert!(refusal.message.contains("try again"), "{}", refusal.message);
    let mut refused = good();
    refused["status"]["conditions"][0]["status"] = json!("False");
    refused["status"]["conditions"][0]["reason"] = json!("AudienceTaken");
    let refusal = ask(Some(refused), enrolled.clone(), all());
    assert!(refusal.message.contains("AudienceTaken"), "{}", refusal.message);

    assert_eq!(ask(Some(good()), enrolled, BTreeMap::new()).reason, R::IdentityProviderNotFound);
}

#[test]
fn a_grpc_probe_is_moved_with_its_service() {
    let value = container_with(
        json!({"readinessProbe": {"grpc": {"port": 8000, "service": "hr"}, "timeoutSeconds": 3},
        "livenessProbe": {"grpc": {"port": 9000}}}),
    );
    let plan = planned(value.clone());
    let declared = |kind: &str| plan.probes.get(&format!("server/{kind}")).cloned();
    assert_eq!(declared("readiness"), Some(Probe::Grpc { port: 8000, service: "hr".to_owned() }));
    assert_eq!(declared("liveness"), Some(Probe::Grpc { port: 9000, service: String::new() }));
    let once = applied(value);
    let probe = &once["spec"]["containers"][0]["readinessProbe"];
    assert!(probe["grpc"].is_null());
    assert_eq!(probe["httpGet"]["path"], "/probe/server/readiness");
    assert_eq!(probe["timeoutSeconds"], 3, "kubelet's own bound stays");
    assert_eq!(applied(once.clone()), once, "read back and written again");
}

#[test]
fn hooks_that_do_not_go_over_http_stay_as_they_are() {
    for hook in [
        json!({"tcpSocket": {"port": 8000}}),
        json!({"tcpSocket": {"port": 8000, "host": "10.0.0.1"}}),
        json!({"sleep": {"seconds": 3}}),
        json!({"exec": {"command": ["true"]}}),
    ] {
        let value = container_with(json!({"lifecycle": {"postStart": hook, "preStop": hook}}));
        assert!(planned(value.clone()).probes.is_empty());
        assert_eq!(
            applied(value)["spec"]["containers"][0]["lifecycle"],
            json!({"postStart": hook, "preStop": hook})
        );
    }
}

#[test]
fn ours_come_back_to_the_front_when_another_webhook_stepped_before_them() {
    let mut value = applied(pod_value());
    let init = value["spec"]["initContainers"].as_array_mut().unwrap();
    init.insert(0, json!({"name": "mesh-init", "image": "mesh:1"}));
    let names = |value: &Value| -> Vec<String> {
        let init = value["spec"]["initContainers"].as_array().unwrap();
        init.iter().map(|container| container["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&applied(value)), ["behalf-redirect", "behalf-sidecar", "mesh-init"]);
}

#[test]
fn a_declared_probe_is_kept_exactly_and_dollars_survive_kubelet() {
    let value = container_with(json!({"livenessProbe": {"periodSeconds": 7, "httpGet": {
        "port": "mcp", "path": "/health?x=$(POD_NAME)&y=$$", "scheme": "HTTPS", "httpHeaders": [{"name": "Host", "value": "hr"}]}}}));
    let plan = planned(value.clone());
    let Some(Probe::Http { port, path, headers, .. }) = plan.probes.get("server/liveness") else {
        panic!("{:?}", plan.probes)
    };
    assert_eq!((*port, path.as_str(), headers.len()), (8000, "/health?x=$(POD_NAME)&y=$$", 1));
    let once = applied(value);
    let argument =
        once["spec"]["initContainers"][1]["args"].as_array().unwrap().last().unwrap().as_str().unwrap();
    assert!(argument.contains("$$(POD_NAME)&y=$$$$"), "{argument}");
    assert_eq!(once["spec"]["containers"][0]["livenessProbe"]["periodSeconds"], 7);
    assert_eq!(applied(once.clone()), once, "read back and written again");
}

#[test]
fn exec_probes_and_containers_that_end_are_not_touched() {
    let mut value = container_with(
        json!({"livenessProbe": {"exec": {"command": ["true"]}}, "lifecycle": {"preStop": {"exec": {"command": ["true"]}}}}),
    );
    value["spec"]["initContainers"] = json!([
        {"name": "migrate", "image": "m:1", "env": [{"name": "PAYROLL_URL", "value": "own"}]},
        {"name": "logs", "image": "l:1", "restartPolicy": "Always", "livenessProbe": {"tcpSocket": {"port": 9}}},
    ]);
    let plan = planned(value.clone());
    assert_eq!(plan.probes.keys().collect::<Vec<_>>(), ["logs/liveness"]);
    let once = applied(value);
    assert_eq!(once["spec"]["initContainers"][2]["env"], json!([{"name": "PAYROLL_URL", "value": "own"}]));
    assert_eq!(once["spec"]["initContainers"][3]["env"][0]["value"], "http://127.0.0.1:15102/payroll");
    assert_eq!(once["spec"]["containers"][0]["livenessProbe"], json!({"exec": {"command": ["true"]}}));
}

#[test]
fn a_variable_that_means_something_else_is_replaced_in_place_and_said() {
    let value = container_with(json!({"env": [
        {"name": "A", "value": "1"},
        {"name": "PAYROLL_URL", "valueFrom": {"configMapKeyRef": {"name": "x", "key": "y"}}},
        {"name": "B", "value": "$(PAYROLL_URL)/b"},
        {"name": "PAYROLL_URL", "value": "https://elsewhere"},
    ]}));
    assert_eq!(planned(value.clone()).replaced, ["server/PAYROLL_URL", "server/PAYROLL_URL"]);
    let once = applied(value);
    let env = once["spec"]["containers"][0]["env"].as_array().unwrap();
    let names: Vec<_> = env.iter().map(|variable| variable["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["A", "PAYROLL_URL", "B"]);
    assert!(planned(once).replaced.is_empty());
}

#[test]
fn net_raw_is_dropped_where_nobody_asked_for_it() {
    for (security, drop) in [
        (Value::Null, json!(["NET_RAW"])),
        (json!({"capabilities": {"drop": ["MKNOD"]}}), json!(["MKNOD", "NET_RAW"])),
        (json!({"capabilities": {"drop": ["ALL"]}}), json!(["ALL"])),
        (json!({"capabilities": {"drop": ["NET_RAW"]}}), json!(["NET_RAW"])),
        (json!({"capabilities": {"add": ["NET_RAW"]}}), Value::Null),
        (json!({"capabilities": {"add": ["cap_net_raw"]}}), Value::Null),
        (json!({"privileged": true}), Value::Null),
    ] {
        let once = applied(container_with(json!({"securityContext": security})));
        assert_eq!(
            once["spec"]["containers"][0]["securityContext"]["capabilities"]["drop"], drop,
            "{security}"
        );
    }
}

#[test]
fn the_revision_moves_with_what_needs_a_restart_and_only_with_it() {
    let all = providers(vec![provider_value("corp")]);
    let of = |value: Value, settings: &behalf_plan::Settings| revision(&object(value), &all, settings);
    let base = of(identity_value(), &settings());
    let change = |pointer: &str, value: Value| {
        let mut identity = identity_value();
        let (parent, member) = pointer.rsplit_once('/').unwrap();
        identity.pointer_mut(parent).unwrap()[member] = value;
        of(identity, &settings())
    };
    assert_ne!(change("/spec/servers/0/port", json!(8001)), base);
    assert_ne!(change("/spec/downstreams/0/env", json!({"baseURL": "OTHER_URL"})), base);
    assert_ne!(change("/spec/servers/0/interception", json!({"extraPorts": [{"port": 9090}]})), base);
    assert_eq!(change("/spec/scopes", json!({})), base);
    assert_eq!(change("/spec/rollout", json!({"stage": "Audit"})), base);
    assert_eq!(change("/spec/state", json!("Suspended")), base);
    let mut newer = settings();
    newer.sidecar_image = "other".to_owned();
    assert_ne!(of(identity_value(), &newer), base);
    let mut provider = provider_value("corp");
    provider["spec"]["clientAuthentication"] = json!({"serviceAccountToken": {"audience": "sts"}});
    assert_ne!(revision(&object(identity_value()), &providers(vec![provider]), &settings()), base);
    let with_probe = container_with(json!({"livenessProbe": {"tcpSocket": {"port": 8000}}}));
    assert_eq!(planned(with_probe).revision, base, "what a template changes restarts pods by itself");
    assert_eq!(plan(&gathered()).injection_revision, base);
}

#[test]
fn a_level_that_admits_no_packet_rules_is_said_before_the_api_server_says_it() {
    let identity = object(accepted_identity_value());
    for (level, refused) in [("baseline", true), ("restricted", true), ("privileged", false)] {
        let labels = json!({"behalf.dev/injection": "Optional", "pod-security.kubernetes.io/enforce": level});
        let namespace = object(json!({"metadata": {"name": "hr", "labels": labels}}));
        let all = providers(vec![provider_value("corp")]);
        let found =
            reasons(&plan_injection(&pod(pod_value()), &namespace, Some(&identity), &all, &[], &settings()));
        assert_eq!(found.contains(&RefusalReason::InterceptionNotAllowed), refused, "{level}");
    }
}
