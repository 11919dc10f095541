//! Where records go: what the platform's setting becomes, and which settings and pods are refused.

use behalf_plan::{Injection, Records, RefusalReason, Settings, inject, plan_injection};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use crate::fixtures::*;

fn settings_with(change: &Value) -> Settings {
    Settings { records: records_with(change), ..settings() }
}

fn in_a_file() -> Value {
    json!({"file": {"mode": "Enabled"}})
}

fn server(change: &Value) -> Pod {
    let mut value = json!({
        "metadata": {"name": "hr-1", "namespace": "hr", "labels": {"behalf.dev/agent-identity": "hr-tools"}},
        "spec": {
            "serviceAccountName": "hr-mcp",
            "containers": [{"name": "server", "image": "hr:1", "ports": [{"containerPort": 8000}]}],
        },
    });
    json_patch::merge(&mut value, change);
    pod(value)
}

fn planned(pod: &Pod, settings: &Settings) -> Injection {
    let identity = object(accepted_identity_value());
    plan_injection(
        pod,
        &namespace(),
        Some(&identity),
        &providers(vec![provider_value("corp")]),
        &[],
        settings,
    )
}

fn refused(pod: &Pod, settings: &Settings) -> Vec<(RefusalReason, String)> {
    match planned(pod, settings) {
        Injection::Refuse(refusals) => refusals.into_iter().map(|it| (it.reason, it.message)).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_chart_s_own_values_are_the_default_and_add_nothing() {
    let records = records_with(&json!({}));
    assert_eq!(records, Records::default());
    assert_eq!(records.arguments(), [""; 0]);
    assert_eq!(records.volume(), None);
    assert_eq!(records.check(), Ok(()));
    for (_, value) in &records.parameters()[..2] {
        assert_eq!(value, "");
    }
}

#[test]
fn what_cannot_be_followed_is_refused_with_what_to_change() {
    let ca = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
    let good = json!({"otlp": {"url": "https://c:4318/v1/logs", "caBundle": ca}});
    assert_eq!(records_with(&good).check(), Ok(()));
    let rows = [
        ("NoSink", json!({"stdout": "Disabled"})),
        ("NoSink", json!({"stdout": "Disabled", "otlp": {"url": "https://c/v1/logs"}})),
        ("Bounds", json!({"file": {"maxBytes": "63Ki"}})),
        ("Bounds", json!({"file": {"reserveBytes": "63Ki"}})),
        ("Bounds", json!({"file": {"reserveBytes": "2Gi"}})),
        ("Bounds", json!({"file": {"maxFiles": 0}})),
        ("Bounds", json!({"file": {"maxFiles": 1000}})),
        ("VolumeTooSmall", json!({"file": {"volume": {"size": "327Mi"}}})),
        ("VolumeTooSmall", json!({"file": {"maxFiles": 999}})),
        ("StorageClass", json!({"file": {"volume": {"storageClassName": "fast"}}})),
        ("Url", json!({"otlp": {"url": "http://c/v1/logs"}})),
        ("Url", json!({"otlp": {"url": "https://"}})),
        ("Url", json!({"otlp": {"url": "https://u:p@c/"}})),
        ("Url", json!({"otlp": {"url": "https://c/#x"}})),
        ("Url", json!({"otlp": {"url": "https://c/$(POD_NAME)"}})),
        ("Url", json!({"otlp": {"url": "https://c/ x"}})),
        ("Url", json!({"otlp": {"url": "https://c/\n--allow-loopback-destinations"}})),
        ("CaBundle", json!({"otlp": {"url": "https://c/", "caBundle": "corp root"}})),
        ("CaBundle", json!({"otlp": {"url": "https://c/", "caBundle": ca.repeat(2000)}})),
        ("NoUrl", json!({"otlp": {"caBundle": ca}})),
    ];
    for (reason, change) in rows {
        let error = records_with(&change).check().expect_err(reason);
        assert_eq!(error.reason(), reason, "{change}");
        assert!(error.to_string().len() > 20);
    }
    assert_eq!(records_with(&json!({"file": {"volume": {"size": "328Mi"}}})).check(), Ok(()));
}

#[test]
fn other_words_and_other_sizes_are_no_values() {
    let value = serde_json::to_value(json!({
        "mode": "Relaxed", "stdout": "Enabled",
        "file": {"mode": "Disabled", "maxBytes": "64Mi", "maxFiles": 4, "reserveBytes": "4Mi",
                 "volume": {"type": "EmptyDir", "size": "512Mi", "storageClassName": ""}},
        "otlp": {"url": "", "caBundle": ""},
    }))
    .unwrap();
    assert!(serde_json::from_value::<Records>(value.clone()).is_ok());
    for change in [
        json!({"mode": "strict"}),
        json!({"mode": null}),
        json!({"stdout": true}),
        json!({"stout": "Enabled"}),
        json!({"file": {"mode": "On"}}),
        json!({"file": {"maxBytes": "64M"}}),
        json!({"file": {"maxBytes": "0Mi"}}),
        json!({"file": {"maxBytes": "+1Mi"}}),
        json!({"file": {"maxBytes": "1.5Mi"}}),
        json!({"file": {"maxBytes": "-1Mi"}}),
        json!({"file": {"maxBytes": "18446744073709551615Ti"}}),
        json!({"file": {"maxBytes": 65536}}),
        json!({"file": {"volume": {"type": "HostPath"}}}),
        json!({"file": {"volume": {"medium": "Memory"}}}),
        json!({"otlp": {"headers": {}}}),
    ] {
        let mut changed = value.clone();
        json_patch::merge(&mut changed, &change);
        assert!(serde_json::from_value::<Records>(changed).is_err(), "{change}");
    }
}

#[test]
fn every_setting_moves_the_revision_so_that_pods_are_outdated() {
    let identity = object(accepted_identity_value());
    let revision = |change: Value| {
        inject::revision(&identity, &providers(vec![provider_value("corp")]), &settings_with(&change))
    };
    let mut all = vec![
        revision(json!({})),
        revision(json!({"mode": "Strict"})),
        revision(in_a_file()),
        revision(json!({"file": {"mode": "Enabled", "maxFiles": 3}})),
        revision(json!({"file": {"mode": "Enabled", "reserveBytes": "1Mi"}})),
        revision(json!({"file": {"mode": "Enabled", "volume": {"size": "1Gi"}}})),
        revision(json!({"file": {"mode": "Enabled", "volume": {"type": "Ephemeral"}}})),
        revision(json!({"otlp": {"url": "https://c/"}})),
    ];
    let moved = all.len();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), moved);
    // What is of no account moves nothing: a file that is not written.
    assert_eq!(revision(json!({"file": {"maxFiles": 3}})), revision(json!({})));
}

#[test]
fn planning_twice_is_planning_once_also_after_the_api_server_wrote_the_sizes_its_way() {
    for (change, size) in [
        (json!({"file": {"mode": "Enabled", "volume": {"size": "524288Ki"}}}), "512Mi"),
        (json!({"file": {"mode": "Enabled", "volume": {"size": "1024Mi"}}}), "1Gi"),
        (json!({"file": {"mode": "Enabled", "volume": {"size": "1536Mi"}}}), "1536Mi"),
    ] {
        let settings = settings_with(&change);
        let before = server(&json!({}));
        let Injection::Plan(plan) = planned(&before, &settings) else { panic!("it is let in") };
        let once = plan.apply(&before);
        let volumes = once.spec.as_ref().unwrap().volumes.clone().unwrap();
        let volume = volumes.iter().find(|volume| volume.name == "behalf-records").unwrap();
        assert_eq!(volume.empty_dir.as_ref().unwrap().size_limit.as_ref().unwrap().0, size);
        let Injection::Plan(plan) = planned(&once, &settings) else { panic!("it is let in again") };
        assert_eq!(plan.apply(&once), once);
    }
}

#[test]
fn the_volume_is_the_sidecar_s_alone() {
    let settings = settings_with(&in_a_file());
    let mount = json!([{"name": "behalf-records", "mountPath": "/records"}]);
    let containers = json!([{
        "name": "server", "image": "hr:1", "ports": [{"containerPort": 8000}], "volumeMounts": mount,
    }]);
    let borrowing = server(&json!({"spec": {"containers": containers}}));
    assert_eq!(refused(&borrowing, &settings)[0].0, RefusalReason::ReservedName);
    // One of that name that is not what the platform set, or set for nobody.
    let own = json!({"spec": {"volumes": [{"name": "behalf-records", "emptyDir": {"sizeLimit": "1Mi"}}]}});
    for settings in [settings, settings_with(&json!({}))] {
        assert_eq!(refused(&server(&own), &settings)[0].0, RefusalReason::ReservedName);
    }
}

#[test]
fn a_claim_needs_an_fs_group_by_which_the_sidecar_can_write_it() {
    let claim = json!({"file": {"mode": "Enabled", "volume": {"type": "Ephemeral"}}});
    let settings = settings_with(&claim);
    let (reason, message) = refused(&server(&json!({})), &settings).remove(0);
    assert_eq!(reason, RefusalReason::RecordsNotWritable);
    assert!(message.contains("set in the pod template: securityContext: {fsGroup: 15001}"), "{message}");
    let grouped = server(&json!({"spec": {"securityContext": {"fsGroup": 1000}}}));
    assert!(matches!(planned(&grouped, &settings), Injection::Plan(_)));
    // An emptyDir is everybody's, and only the sidecar mounts it.
    assert!(matches!(planned(&server(&json!({})), &settings_with(&in_a_file())), Injection::Plan(_)));
}
