//! TLS at the sidecar: what is compiled, what is mounted and where, and what is not accepted.

use behalf_crds::v1alpha1::{AcceptedReason, AgentIdentity};
use behalf_plan::inject::revision;
use behalf_plan::{Injection, RefusalReason, plan_injection};
use behalf_policy::bundle::{ClientCertificates, ClientValidation, TlsRules};
use behalf_policy::challenge::metadata;
use serde_json::{Value, json};

use crate::fixtures::*;
use crate::injection::{pod_with, reasons};

fn secret() -> Value {
    json!({"certificate": {"secretName": "hr-tls"}})
}

fn csi() -> Value {
    json!({"certificate": {"csi": {"driver": "spiffe.csi.cert-manager.io", "volumeAttributes": {"a/fs-group": "15001"}}}})
}

fn with_tls(mut identity: Value, tls: Value) -> Value {
    identity["spec"]["servers"][0]["tls"] = tls;
    identity
}

fn inject(tls: Value, pod_value: &Value) -> Injection {
    let identity = object(with_tls(accepted_identity_value(), tls));
    let all = providers(vec![provider_value("corp")]);
    plan_injection(&pod(pod_value.clone()), &namespace(), Some(&identity), &all, &[], &settings())
}

fn applied(tls: Value, value: &Value) -> Value {
    let Injection::Plan(plan) = inject(tls, value) else { panic!("refused") };
    serde_json::to_value(plan.apply(&pod(value.clone()))).unwrap()
}

fn named<'a>(list: &'a Value, name: &str) -> Vec<&'a Value> {
    list.as_array().into_iter().flatten().filter(|entry| entry["name"] == name).collect()
}

#[test]
fn a_certificate_is_mounted_into_the_sidecar_alone_and_its_absence_keeps_no_pod_from_starting() {
    let items = ["tls.crt", "tls.key", "ca.crt"]
        .map(|key| json!({"key": key, "path": key}))
        .into_iter()
        .collect::<Vec<_>>();
    let secret_volume = json!({
        "name": "behalf-tls",
        "secret": {"secretName": "hr-tls", "defaultMode": 0o444, "optional": true, "items": items},
    });
    let csi_volume = json!({
        "name": "behalf-tls",
        "csi": {"driver": "spiffe.csi.cert-manager.io", "readOnly": true, "volumeAttributes": {"a/fs-group": "15001"}},
    });
    for (tls, expected) in [(secret(), secret_volume), (csi(), csi_volume)] {
        let once = applied(tls.clone(), &pod_value());
        assert_eq!(named(&once["spec"]["volumes"], "behalf-tls"), [&expected]);
        for (at, container) in once["spec"]["initContainers"].as_array().unwrap().iter().enumerate() {
            let mounts = named(&container["volumeMounts"], "behalf-tls");
            let expected = json!({"name": "behalf-tls", "mountPath": "/etc/behalf/tls", "readOnly": true});
            assert_eq!(mounts, [&expected; 1][..at]);
            let says = container["args"].as_array().unwrap().contains(&json!("--tls-dir=/etc/behalf/tls"));
            assert_eq!(says, at == 1);
        }
        assert!(once["spec"]["containers"][0]["volumeMounts"].is_null());
        assert_eq!(applied(tls, &once), once, "twice is once");
    }
    let plain = crate::injection::applied(pod_value());
    assert!(!plain.to_string().contains("tls"), "nothing of it without tls");
}

#[test]
fn d37_nobody_else_has_a_volume_of_that_name_or_mounts_ours() {
    let good = applied(secret(), &pod_value());
    for (pointer, value) in [
        ("/spec/volumes", json!([{"name": "behalf-tls", "secret": {"secretName": "mine"}}])),
        ("/spec/volumes", json!([{"name": "behalf-tls", "emptyDir": {}}])),
    ] {
        let mut pod = pod_value();
        pod["spec"]["volumes"] = value;
        assert_eq!(reasons(&inject(secret(), &pod)), [RefusalReason::ReservedName], "{pointer}");
        assert_eq!(reasons(&crate::injection::inject(pod)), [RefusalReason::ReservedName], "without tls too");
    }
    let borrowed = pod_with(json!({"containers": [{
        "name": "server", "image": "hr:1", "ports": [{"containerPort": 8000}],
        "volumeMounts": [{"name": "behalf-tls", "mountPath": "/x"}],
    }]}));
    assert_eq!(reasons(&inject(secret(), &borrowed)), [RefusalReason::ReservedName]);
    // Of an identity with a certificate, by another identity's word, and the other way round.
    assert_eq!(reasons(&inject(csi(), &good))[0], RefusalReason::ReservedName);
    let mut optional = good.clone();
    let volumes = optional["spec"]["volumes"].as_array_mut().unwrap();
    let volume = volumes.iter_mut().find(|volume| volume["name"] == "behalf-tls").unwrap();
    volume["secret"]["secretName"] = json!("other");
    assert_eq!(reasons(&inject(secret(), &optional)), [RefusalReason::ReservedName]);
    // The same Secret elsewhere in the pod is the pod's own business.
    let own = pod_with(json!({"volumes": [{"name": "own", "secret": {"secretName": "hr-tls"}}]}));
    assert!(matches!(inject(secret(), &own), Injection::Plan(_)));
}

#[test]
fn pods_need_a_restart_for_another_source_and_not_for_another_rule() {
    let all = providers(vec![provider_value("corp")]);
    let of = |tls: Option<Value>| {
        let value = tls.map_or(identity_value(), |tls| with_tls(identity_value(), tls));
        revision(&object(value), &all, &settings())
    };
    let base = of(Some(secret()));
    assert_ne!(of(None), base);
    assert_ne!(of(Some(csi())), base);
    assert_ne!(of(Some(json!({"certificate": {"secretName": "hr-tls-2"}}))), base);
    let mut rules = secret();
    rules["clientCertificates"] = json!("Required");
    rules["clientValidation"] = json!({"caBundle": PEM});
    assert_eq!(of(Some(rules)), base, "what is asked of clients stands in the bundle");
}

#[test]
fn a4_what_is_asked_of_clients_is_compiled_and_told_in_the_metadata() {
    let bundled = |tls: Value| {
        let identity = with_tls(identity_value(), tls);
        let policy = written(&plan(&gathered_with(identity, catalog_value(), provider_value("corp"))));
        let rules = policy.servers[0].tls.clone();
        let bundle = load(behalf_policy::bundle::Serve::Policy(Box::new(policy)));
        let told: Value = serde_json::from_slice(&metadata(bundle.policy().unwrap())).unwrap();
        (rules.unwrap(), told["tls_client_certificate_bound_access_tokens"].clone())
    };
    let rules = |client_certificates, client_validation| TlsRules { client_certificates, client_validation };
    assert_eq!(bundled(secret()), (rules(ClientCertificates::Ignored, None), Value::Null));
    let mut tls = secret();
    tls["clientCertificates"] = json!("Requested");
    assert_eq!(bundled(tls.clone()), (rules(ClientCertificates::Requested, None), json!(true)));
    tls["clientCertificates"] = json!("Required");
    tls["clientValidation"] = json!({"caBundle": PEM, "spiffeTrustDomain": "example.org"});
    let validation = ClientValidation {
        ca_bundle: Some(PEM.to_owned()),
        spiffe_trust_domain: Some("example.org".to_owned()),
    };
    assert_eq!(bundled(tls), (rules(ClientCertificates::Required, Some(validation)), json!(true)));
}

/// What the schema refuses is refused here as well: an object may be older than its schema.
#[test]
fn tls_that_cannot_be_meant_is_not_accepted() {
    let required = |validation: Value| json!({"certificate": {"secretName": "hr-tls"}, "clientCertificates": "Required", "clientValidation": validation});
    let mut unvouched = required(json!({}));
    unvouched.as_object_mut().unwrap().remove("clientValidation");
    for (tls, url, reason) in [
        (secret(), "http://tools.hr.svc/mcp", AcceptedReason::Invalid),
        (json!({"certificate": {}}), "https://tools.hr.svc/mcp", AcceptedReason::Invalid),
        (
            json!({"certificate": {"secretName": "a", "csi": {"driver": "b"}}}),
            "https://tools.hr.svc/mcp",
            AcceptedReason::Invalid,
        ),
        (required(json!({"caBundle": "corp"})), "https://tools.hr.svc/mcp", AcceptedReason::InvalidCABundle),
        (unvouched, "https://tools.hr.svc/mcp", AcceptedReason::Invalid),
        (
            required(json!({"spiffeTrustDomain": "spiffe://x"})),
            "https://tools.hr.svc/mcp",
            AcceptedReason::Invalid,
        ),
    ] {
        let mut identity = with_tls(identity_value(), tls.clone());
        identity["spec"]["servers"][0]["url"] = json!(url);
        let desired = plan(&gathered_with(identity, catalog_value(), provider_value("corp")));
        assert_eq!(desired.accepted.reason, reason, "{tls}: {}", desired.accepted.message);
        assert!(refused(&desired).is_some(), "{tls}");
    }
}

#[test]
fn https_inside_the_cluster_says_who_has_to_terminate_it() {
    let of = |url: &str, tls: Option<Value>| {
        let mut identity = tls.map_or(identity_value(), |tls| with_tls(identity_value(), tls));
        identity["spec"]["servers"][0]["url"] = json!(url);
        let _: AgentIdentity = object(identity.clone());
        plan(&gathered_with(identity, catalog_value(), provider_value("corp"))).accepted
    };
    for inside in ["https://tools.hr.svc/mcp", "https://tools.hr.svc.cluster.local:8443/mcp"] {
        let said = of(inside, None);
        assert_eq!(said.reason, AcceptedReason::AcceptedTLSElsewhere);
        assert!(
            said.message.contains(inside) && said.message.contains("spec.servers[0].tls"),
            "{}",
            said.message
        );
        assert_eq!(of(inside, Some(secret())).reason, AcceptedReason::Accepted);
    }
    assert_eq!(of("https://hr.example.com/mcp", None).reason, AcceptedReason::Accepted);
    assert_eq!(of("https://hr.example.com/mcp", Some(csi())).reason, AcceptedReason::Accepted);
    assert_eq!(of("http://tools.hr.svc/mcp", None).reason, AcceptedReason::AcceptedPlainHTTP);
}
