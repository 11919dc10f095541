//! A server whose sidecar terminates TLS: a real call by https, and its certificate replaced while it runs.
use anyhow::{Result, ensure};
use behalf_e2e::{World, keycloak, until};
use serde_json::Value;

use super::tls_scene::{FIRST, SECOND, SOON, Scene, call, search};

/// What the identity's summary says for this reason, as soon as it does.
fn ready(scene: &Scene<'_>, reason: &str) -> Result<String> {
    until(reason, SOON, || {
        let identity = scene.object(&["aid", "hr-tls"])?;
        let conditions = identity["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let ready = conditions.iter().find(|it| it["type"] == "Ready" && it["reason"] == reason);
        Ok(ready.and_then(|it| it["message"].as_str()).map(str::to_owned))
    })
}

#[test]
fn a_server_is_called_by_https_and_its_certificate_is_replaced_without_a_restart() -> Result<()> {
    let world = World::get()?;
    let scene = Scene::deploy(world, "e2e-tls", "Ignored")?;
    let pod = scene.pod()?;

    // Its Secret is not there yet: the pod starts all the same, says why it is not ready, and takes no call.
    let said = until("the sidecar says what is missing", SOON, || {
        Ok(scene.readiness(&pod).ok().filter(|it| it.body.contains("CertificateMissing")))
    })?;
    ensure!(said.status == 503 && said.body.contains("pending: tls (CertificateMissing)"), "{said:?}");
    // And the identity says so where its team looks, with what to do.
    let said = ready(&scene, "CertificateNotUsable")?;
    ensure!(said.contains("In 1 of 1 pods") && said.contains(&pod.name), "{said}");
    ensure!(said.contains("CertificateMissing") && said.contains("describe secret hr-tls"), "{said}");
    until("an Event says it", SOON, || {
        let events = scene.object(&["events", "--field-selector", "reason=CertificateNotUsable"])?;
        let warning = |it: &Value| it["type"] == "Warning" && it["message"] == said;
        Ok(events["items"].as_array().into_iter().flatten().any(warning).then_some(()))
    })?;
    let token = keycloak::login(world, "agent-test", "alice", "hr:read")?.text;
    let by = |name| call(&pod, &token, name).send(world);
    ensure!(by(FIRST).is_err(), "a call was taken without a certificate");

    scene.certificate(FIRST)?;
    let answer = scene.serves(&pod, &token, FIRST)?;
    ensure!(answer.tool().is_some() || answer.body.contains("result"), "{answer:?}");
    ensure!(by(SECOND).is_err(), "another name was believed");
    let plain = search(&token).at(&format!("http://{}:8000/mcp", pod.address)).send(world)?;
    ensure!((plain.status, plain.reason().as_deref()) == (400, Some("TLSRequired")), "{plain:?}");

    // The operator tries the port as it tries all others.
    let closed = until("the trial from outside", SOON, || {
        let identity = scene.object(&["aid", "hr-tls"])?;
        let conditions = identity["status"]["conditions"].as_array().cloned().unwrap_or_default();
        Ok(conditions.into_iter().find(|it| it["type"] == "BypassClosed" && it["status"] != "Unknown"))
    })?;
    ensure!(closed["status"] == "True", "{closed}");
    ready(&scene, "Ready")?;

    scene.certificate(SECOND)?;
    until("the new certificate is served", SOON, || {
        scene.nudge(&pod)?;
        Ok(by(SECOND).ok().filter(|answer| answer.status == 200))
    })?;
    ensure!(by(FIRST).is_err(), "the old certificate is served as well");
    let after = scene.object(&["pod", &pod.name])?;
    let restarts = |list: &Value| -> u64 {
        list.as_array().into_iter().flatten().filter_map(|it| it["restartCount"].as_u64()).sum()
    };
    let status = &after["status"];
    ensure!(
        restarts(&status["initContainerStatuses"]) + restarts(&status["containerStatuses"]) == 0,
        "{status}"
    );
    Ok(())
}
