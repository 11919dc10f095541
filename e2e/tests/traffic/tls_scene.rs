//! What the tests of TLS share: the demo's server once more, in a namespace of its own, by an identity with `tls`.
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use behalf_e2e::{Answer, Pod, Request, SERVER, Undo, World, certificates, mcp, until};
use serde_json::{Value, json};

/// Two certificates of the demo's authority, by the names that they hold: which one is served shows by who believes it.
pub const FIRST: &str = "payroll";
pub const SECOND: &str = "keycloak";
/// Something of the API server has reached kubelet, which was told to look.
pub const SOON: Duration = Duration::from_mins(3);

/// The namespace, until this is dropped.
pub struct Scene<'a> {
    world: &'a World,
    place: &'static str,
    _undo: [Undo<'a>; 2],
}

impl<'a> Scene<'a> {
    /// Deploys the server. Its certificate is not there yet.
    pub fn deploy(world: &'a World, place: &'static str, client_certificates: &str) -> Result<Self> {
        let audiences = |list: Value| {
            let patch = json!({"spec": {"tokenProfile": {"allowedAudiences": list}}});
            world.patch("default", "idp/corp", &patch)
        };
        // None, as before: an empty list would be seen.
        let back = Undo::new(move || audiences(Value::Null));
        audiences(json!([SERVER]))?;
        let gone = Undo::new(move || {
            world.kubectl(&["delete", "namespace", place, "--wait=false", "--ignore-not-found"]).map(drop)
        });
        let labels = json!({"tier": "prod", "behalf.dev/injection": "Optional", "pod-security.kubernetes.io/enforce": "privileged"});
        let scene = Self { world, place, _undo: [gone, back] };
        scene.apply(
            &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": place, "labels": labels}}),
        )?;
        scene.apply(
            &json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "hr-mcp", "namespace": place}}),
        )?;
        scene.identity(client_certificates)?;
        scene.deployment()?;
        Ok(scene)
    }

    fn apply(&self, object: &Value) -> Result<()> {
        self.world.cluster.apply(&object.to_string()).map(drop)
    }

    fn identity(&self, client_certificates: &str) -> Result<()> {
        let mut identity = self.world.object(&["-n", "hr", "get", "aid", "hr-tools"])?;
        identity["metadata"] = json!({"name": "hr-tls", "namespace": self.place});
        let server = &mut identity["spec"]["servers"][0];
        server["url"] = json!(format!("https://hr-tls.{}.svc.cluster.local:8000/mcp", self.place));
        server["tls"] =
            json!({"certificate": {"secretName": "hr-tls"}, "clientCertificates": client_certificates});
        // Its tokens are those of the demo's other server.
        identity["spec"]["identityProviders"][0]["audiences"] = json!([SERVER]);
        identity.as_object_mut().context("an object")?.remove("status");
        self.apply(&identity)?;
        let accepted = ["wait", "aid/hr-tls", "--for=condition=Accepted", "--timeout=60s"];
        self.world.kubectl(&[&["-n", self.place][..], &accepted].concat()).map(drop)
    }

    fn deployment(&self) -> Result<()> {
        let mut deployment = self.world.object(&["-n", "hr", "get", "deployment", "hr-tools"])?;
        let labels = json!({"app.kubernetes.io/name": "hr-tls", "behalf.dev/agent-identity": "hr-tls"});
        deployment["metadata"] = json!({"name": "hr-tls", "namespace": self.place});
        deployment["spec"]["selector"] = json!({"matchLabels": {"app.kubernetes.io/name": "hr-tls"}});
        deployment["spec"]["template"]["metadata"] = json!({"labels": labels});
        deployment.as_object_mut().context("an object")?.remove("status");
        self.apply(&deployment)
    }

    /// An object of the namespace.
    pub fn object(&self, words: &[&str]) -> Result<Value> {
        self.world.object(&[&["-n", self.place, "get"], words].concat())
    }

    /// The one pod, as soon as it has an address.
    pub fn pod(&self) -> Result<Pod<'a>> {
        until("the pod has an address", SOON, || {
            let pods = self.object(&["pods", "-l", "app.kubernetes.io/name=hr-tls"])?;
            let pod = &pods["items"][0];
            let named = pod["metadata"]["name"].as_str().zip(pod["status"]["podIP"].as_str());
            Ok(named
                .map(|(name, address)| Pod::new(self.world, self.place, name.to_owned(), address.to_owned())))
        })
    }

    /// Puts a certificate of the demo into the Secret.
    pub fn certificate(&self, name: &str) -> Result<()> {
        self.apply(&json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
            "metadata": {"name": "hr-tls", "namespace": self.place},
            "stringData": {"tls.crt": certificates::text(name, "crt")?, "tls.key": certificates::text(name, "key")?},
        }))
    }

    /// Kubelet looks at volumes about once a minute, and whenever the pod changes.
    pub fn nudge(&self, pod: &Pod<'_>) -> Result<()> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let note = format!("e2e/nudge={}", NEXT.fetch_add(1, Ordering::SeqCst));
        self.world.kubectl(&["-n", self.place, "annotate", "--overwrite", "pod", &pod.name, &note]).map(drop)
    }

    /// What the sidecar says of itself.
    pub fn readiness(&self, pod: &Pod<'_>) -> Result<Answer> {
        Request::get(&format!("http://{}:15103/readyz", pod.address)).send(self.world)
    }

    /// Waits until the pod's server answers somebody who believes that it is called so.
    pub fn serves(&self, pod: &Pod<'_>, token: &str, name: &str) -> Result<Answer> {
        until("the sidecar has its certificate", SOON, || {
            self.nudge(pod)?;
            Ok(self.readiness(pod).ok().filter(|it| it.status == 200))
        })?;
        until("the server answers", SOON, || {
            Ok(call(pod, token, name).send(self.world).ok().filter(|answer| answer.status == 200))
        })
    }
}

/// A call by somebody who believes that the pod is called so.
pub fn call(pod: &Pod<'_>, token: &str, name: &str) -> Request {
    search(token).at(&format!("https://{name}.{name}.svc.cluster.local:8000/mcp")).to(&pod.address)
}

/// The call, at the demo's own server.
pub fn search(token: &str) -> Request {
    mcp::call("directory.search", &json!({"query": "bob"})).bearer(token)
}
