//! A server whose sidecar terminates TLS: a real call by https, and its certificate replaced while it runs.
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use behalf_e2e::{Answer, Request, SERVER, Undo, World, keycloak, mcp, until};
use serde_json::{Value, json};

const PLACE: &str = "e2e-tls";
const URL: &str = "https://hr-tls.e2e-tls.svc.cluster.local:8000/mcp";
/// Two certificates of the demo's authority, by the names that they hold: which one is served shows by who believes it.
const FIRST: &str = "payroll";
const SECOND: &str = "keycloak";
/// Something of the API server has reached kubelet, which was told to look.
const SOON: Duration = Duration::from_mins(3);

/// The demo's server once more, in a namespace of its own, by an identity with `tls`.
fn deploy(world: &World) -> Result<()> {
    let mut identity = world.object(&["-n", "hr", "get", "aid", "hr-tools"])?;
    identity["metadata"] = json!({"name": "hr-tls", "namespace": PLACE});
    identity["status"].take();
    let server = &mut identity["spec"]["servers"][0];
    server["url"] = json!(URL);
    server["tls"] = json!({"certificate": {"secretName": "hr-tls"}});
    // Its tokens are those of the demo's other server.
    identity["spec"]["identityProviders"][0]["audiences"] = json!([SERVER]);
    identity.as_object_mut().context("an object")?.remove("status");
    let mut deployment = world.object(&["-n", "hr", "get", "deployment", "hr-tools"])?;
    let labels = json!({"app.kubernetes.io/name": "hr-tls", "behalf.dev/agent-identity": "hr-tls"});
    deployment["metadata"] = json!({"name": "hr-tls", "namespace": PLACE});
    deployment["spec"]["selector"] = json!({"matchLabels": {"app.kubernetes.io/name": "hr-tls"}});
    deployment["spec"]["template"]["metadata"] = json!({"labels": labels});
    deployment.as_object_mut().context("an object")?.remove("status");
    let labels = json!({"tier": "prod", "behalf.dev/injection": "Optional", "pod-security.kubernetes.io/enforce": "privileged"});
    let apply = |object: &Value| world.cluster.apply(&object.to_string()).map(drop);
    apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": PLACE, "labels": labels}}))?;
    apply(
        &json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "hr-mcp", "namespace": PLACE}}),
    )?;
    apply(&identity)?;
    world.kubectl(&["-n", PLACE, "wait", "aid/hr-tls", "--for=condition=Accepted", "--timeout=60s"])?;
    apply(&deployment)
}

/// The one pod, by name and address, as soon as it has one.
fn pod(world: &World) -> Result<(String, String)> {
    until("the pod has an address", SOON, || {
        let pods = world.object(&["-n", PLACE, "get", "pods", "-l", "app.kubernetes.io/name=hr-tls"])?;
        let pod = &pods["items"][0];
        let named = pod["metadata"]["name"].as_str().zip(pod["status"]["podIP"].as_str());
        Ok(named.map(|(name, address)| (name.to_owned(), address.to_owned())))
    })
}

/// Puts a certificate of the demo into the Secret.
fn certificate(world: &World, name: &str) -> Result<()> {
    let dir = xtask::cache::root()?.join("demo-pki");
    let file = |kind: &str| std::fs::read_to_string(dir.join(format!("{name}.{kind}"))).context("demo-pki");
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": {"name": "hr-tls", "namespace": PLACE},
        "stringData": {"tls.crt": file("crt")?, "tls.key": file("key")?},
    });
    world.cluster.apply(&secret.to_string()).map(drop)
}

/// Kubelet looks at volumes about once a minute, and whenever the pod changes.
fn nudge(world: &World, pod: &str) -> Result<()> {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let note = format!("e2e/nudge={}", NEXT.fetch_add(1, Ordering::SeqCst));
    world.kubectl(&["-n", PLACE, "annotate", "--overwrite", "pod", pod, &note]).map(drop)
}

/// A call by somebody who believes that the pod is called so.
fn call(world: &World, token: &str, name: &str, address: &str) -> Result<Answer> {
    let call = mcp::call("directory.search", &json!({"query": "bob"})).bearer(token);
    call.at(&format!("https://{name}.{name}.svc.cluster.local:8000/mcp")).to(address).send(world)
}

fn readiness(world: &World, address: &str) -> Result<Answer> {
    Request::get(&format!("http://{address}:15103/readyz")).send(world)
}

#[test]
fn a_server_is_called_by_https_and_its_certificate_is_replaced_without_a_restart() -> Result<()> {
    let world = World::get()?;
    let audiences = |list: Value| {
        let patch = json!({"spec": {"tokenProfile": {"allowedAudiences": list}}});
        world.patch("default", "idp/corp", &patch)
    };
    let _audiences = Undo::new(|| audiences(json!([])));
    audiences(json!([SERVER]))?;
    let _place = Undo::new(|| {
        world.kubectl(&["delete", "namespace", PLACE, "--wait=false", "--ignore-not-found"]).map(drop)
    });
    deploy(world)?;
    let (name, address) = pod(world)?;

    // Its Secret is not there yet: the pod starts all the same, says why it is not ready, and takes no call.
    let said = until("the sidecar says what is missing", SOON, || {
        Ok(readiness(world, &address).ok().filter(|it| it.body.contains("CertificateMissing")))
    })?;
    ensure!(said.status == 503 && said.body.contains("pending: tls (CertificateMissing)"), "{said:?}");
    let token = keycloak::login(world, "agent-test", "alice", "hr:read")?.text;
    ensure!(call(world, &token, FIRST, &address).is_err(), "a call was taken without a certificate");

    certificate(world, FIRST)?;
    until("the sidecar has its certificate", SOON, || {
        nudge(world, &name)?;
        Ok(readiness(world, &address).ok().filter(|it| it.status == 200))
    })?;
    let answer = until("the server answers", SOON, || {
        Ok(call(world, &token, FIRST, &address).ok().filter(|answer| answer.status == 200))
    })?;
    ensure!(answer.tool().is_some() || answer.body.contains("result"), "{answer:?}");
    ensure!(call(world, &token, SECOND, &address).is_err(), "another name was believed");
    let plain = mcp::call("directory.search", &json!({"query": "bob"})).bearer(&token);
    let plain = plain.at(&format!("http://{address}:8000/mcp")).send(world)?;
    ensure!((plain.status, plain.reason().as_deref()) == (400, Some("TLSRequired")), "{plain:?}");

    // The operator tries the port as it tries all others.
    let closed = until("the trial from outside", SOON, || {
        let identity = world.object(&["-n", PLACE, "get", "aid", "hr-tls"])?;
        let conditions = identity["status"]["conditions"].as_array().cloned().unwrap_or_default();
        Ok(conditions.into_iter().find(|it| it["type"] == "BypassClosed" && it["status"] != "Unknown"))
    })?;
    ensure!(closed["status"] == "True", "{closed}");

    certificate(world, SECOND)?;
    until("the new certificate is served", SOON, || {
        nudge(world, &name)?;
        Ok(call(world, &token, SECOND, &address).ok().filter(|answer| answer.status == 200))
    })?;
    ensure!(call(world, &token, FIRST, &address).is_err(), "the old certificate is served as well");
    let after = world.object(&["-n", PLACE, "get", "pod", &name])?;
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
