//! An API server in memory: enough of one to see what is sent to it, and to answer as the real one would.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

/// One request.
#[derive(Clone, Debug)]
pub struct Call {
    pub method: Method,
    pub path: String,
    pub query: String,
    pub body: Value,
}

impl Call {
    /// Method and path, for a comparison at a glance.
    pub fn brief(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

type Hook = Box<dyn FnOnce() + Send>;

/// The objects by path, and what was asked.
#[derive(Clone, Default)]
pub struct Server(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Value>,
    calls: Vec<Call>,
    lists: Vec<Call>,
    faults: Vec<(Method, String, u16)>,
    hooks: Vec<(Method, String, Hook)>,
    reviews: BTreeMap<String, Value>,
    version: u64,
}

impl Server {
    /// A client of this server.
    pub fn client(&self) -> Client {
        let server = self.clone();
        Client::new(
            tower::service_fn(move |request: Request<Body>| {
                let server = server.clone();
                async move { Ok::<_, Infallible>(server.answer(request).await) }
            }),
            "default",
        )
    }

    /// Puts an object there, as somebody else would.
    pub fn put(&self, path: &str, mut object: Value) {
        let mut state = self.0.lock().unwrap();
        state.version += 1;
        object["metadata"]["resourceVersion"] = json!(state.version.to_string());
        let uid = state
            .objects
            .get(path)
            .map_or_else(|| json!(format!("uid-{}", state.version)), |it| it["metadata"]["uid"].clone());
        object["metadata"]["uid"] = uid;
        state.objects.insert(path.to_owned(), object);
    }

    /// Takes an object away.
    pub fn remove(&self, path: &str) {
        self.0.lock().unwrap().objects.remove(path);
    }

    /// The object at a path.
    pub fn get(&self, path: &str) -> Option<Value> {
        self.0.lock().unwrap().objects.get(path).cloned()
    }

    /// The next request of this method to this path fails with this code.
    pub fn fail(&self, method: Method, path: &str, code: u16) {
        self.0.lock().unwrap().faults.push((method, path.to_owned(), code));
    }

    /// Answers reviews of this token with this status. Any other token is not known.
    pub fn review(&self, token: &str, status: Value) {
        self.0.lock().unwrap().reviews.insert(token.to_owned(), status);
    }

    /// Failures that nobody met are none any more.
    pub fn heal(&self) {
        self.0.lock().unwrap().faults.clear();
    }

    /// Does this when the next request of this method to this path arrives, before it is answered.
    pub fn on(&self, method: Method, path: &str, hook: impl FnOnce() + Send + 'static) {
        self.0.lock().unwrap().hooks.push((method, path.to_owned(), Box::new(hook)));
    }

    fn hook(&self, call: &Call) -> Option<Hook> {
        let mut state = self.0.lock().unwrap();
        let at =
            state.hooks.iter().position(|(method, path, _)| *method == call.method && *path == call.path)?;
        Some(state.hooks.remove(at).2)
    }

    /// What was asked since the last time, without lists and watches.
    pub fn calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.0.lock().unwrap().calls)
    }

    /// The lists that were asked for since the last time.
    pub fn lists(&self) -> Vec<Call> {
        std::mem::take(&mut self.0.lock().unwrap().lists)
    }

    /// The same, to be seen again the next time.
    pub fn peek(&self) -> Vec<Call> {
        self.0.lock().unwrap().calls.clone()
    }

    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let query = head.uri.query().unwrap_or_default().to_owned();
        if query.contains("watch=true") {
            return std::future::pending().await;
        }
        let call = Call {
            method: head.method,
            path: head.uri.path().to_owned(),
            query,
            body: serde_json::from_slice(&body).unwrap_or_default(),
        };
        if let Some(hook) = self.hook(&call) {
            hook();
        }
        let (code, answer) = self.0.lock().unwrap().handle(call);
        let status = StatusCode::from_u16(code).unwrap();
        Response::builder().status(status).body(Body::from(answer.to_string().into_bytes())).unwrap()
    }
}

impl State {
    fn handle(&mut self, call: Call) -> (u16, Value) {
        if call.method == Method::GET
            && let Some(list) = self.list(&call)
        {
            self.lists.push(call);
            return (200, list);
        }
        self.calls.push(call.clone());
        let fault =
            self.faults.iter().position(|(method, path, _)| *method == call.method && *path == call.path);
        if let Some(at) = fault {
            let (_, _, code) = self.faults.remove(at);
            return failure(code);
        }
        let held = self.objects.get(call.path.trim_end_matches("/status")).cloned();
        match (call.method.as_str(), held) {
            ("POST", _) if call.path.ends_with("/tokenreviews") => self.reviewed(&call),
            ("GET", Some(held)) => (200, held),
            ("GET" | "PUT", None) => failure(404),
            ("POST", _) => self.create(&call),
            ("PUT", Some(held)) => self.write(&call.path, &held, call.body),
            ("PATCH", Some(held)) => self.apply(&call, &held),
            ("PATCH", None) if call.path.ends_with("/status") => failure(404),
            // As the real one: a resource version or a UID asks for an object that is there.
            ("PATCH", None) if !call.body["metadata"]["resourceVersion"].is_null() => failure(409),
            ("PATCH", None) => self.insert(&call.path, call.body),
            _ => failure(405),
        }
    }

    /// A collection: the last part of the path is a plural of which we hold objects, or none at all.
    fn list(&self, call: &Call) -> Option<Value> {
        const COLLECTIONS: [&str; 12] = [
            "agentidentities",
            "scopecatalogs",
            "identityproviders",
            "namespaces",
            "pods",
            "configmaps",
            "secrets",
            "mutatingwebhookconfigurations",
            "services",
            "endpointslices",
            "validatingadmissionpolicies",
            "validatingadmissionpolicybindings",
        ];
        let plural = call.path.rsplit('/').next().filter(|it| COLLECTIONS.contains(it))?;
        // Of one namespace, or of all.
        let within =
            if call.path.contains("/namespaces/") { format!("{}/", call.path) } else { String::new() };
        let wanted = Selectors::of(&call.query);
        let items: Vec<_> = self
            .objects
            .iter()
            .filter(|(key, _)| key.rsplit('/').nth(1) == Some(plural) && key.starts_with(&within))
            .map(|(_, object)| object.clone())
            .filter(|object| wanted.select(object))
            .collect();
        Some(
            json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": self.version.to_string()}, "items": items}),
        )
    }

    fn reviewed(&self, call: &Call) -> (u16, Value) {
        let token = call.body["spec"]["token"].as_str().unwrap_or_default();
        let unknown = json!({"authenticated": false, "error": "token unknown"});
        let mut answer = call.body.clone();
        answer["status"] = self.reviews.get(token).cloned().unwrap_or(unknown);
        (201, answer)
    }

    fn create(&mut self, call: &Call) -> (u16, Value) {
        let name = call.body["metadata"]["name"].as_str().unwrap_or_default();
        let path = format!("{}/{name}", call.path);
        if self.objects.contains_key(&path) { failure(409) } else { self.insert(&path, call.body.clone()) }
    }

    fn insert(&mut self, path: &str, mut object: Value) -> (u16, Value) {
        self.version += 1;
        object["metadata"]["uid"] = json!(format!("uid-{}", self.version));
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.objects.insert(path.to_owned(), object.clone());
        (201, object)
    }

    fn apply(&mut self, call: &Call, held: &Value) -> (u16, Value) {
        let mut next = held.clone();
        if call.path.ends_with("/status") {
            next["status"] = call.body["status"].clone();
        } else {
            for member in ["data", "webhooks"].iter().filter(|it| !call.body[**it].is_null()) {
                next[*member] = call.body[*member].clone();
            }
            next["metadata"]["labels"] = call.body["metadata"]["labels"].clone();
        }
        next["metadata"]["resourceVersion"] = call.body["metadata"]["resourceVersion"].clone();
        if !call.body["metadata"]["uid"].is_null() {
            next["metadata"]["uid"] = call.body["metadata"]["uid"].clone();
        }
        self.write(call.path.trim_end_matches("/status"), held, next)
    }

    /// Refuses what is not meant for the object that is there.
    fn write(&mut self, path: &str, held: &Value, mut next: Value) -> (u16, Value) {
        let (meant, there) = (&next["metadata"], &held["metadata"]);
        let stale = |member: &str| !meant[member].is_null() && meant[member] != there[member];
        if stale("resourceVersion") || stale("uid") {
            return failure(409);
        }
        self.version += 1;
        next["metadata"]["uid"] = there["uid"].clone();
        next["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.objects.insert(path.to_owned(), next.clone());
        (200, next)
    }
}

/// What a list asks for: labels that are there, not there or of one value; fields of one value, or of any but one.
struct Selectors {
    labels: Vec<String>,
    fields: Vec<String>,
}

impl Selectors {
    fn of(query: &str) -> Self {
        let terms = |name: &str| {
            let pairs = url::form_urlencoded::parse(query.as_bytes());
            let found = pairs.filter(|(key, _)| key == name).map(|(_, value)| value.into_owned()).last();
            found.unwrap_or_default().split(',').filter(|it| !it.is_empty()).map(str::to_owned).collect()
        };
        Self { labels: terms("labelSelector"), fields: terms("fieldSelector") }
    }

    fn select(&self, object: &Value) -> bool {
        let label = |term: &String| {
            let held = |key: &str| object["metadata"]["labels"][key].as_str();
            match (term.strip_prefix('!'), term.split_once('=')) {
                (Some(key), _) => held(key).is_none(),
                (None, Some((key, value))) => held(key) == Some(value),
                (None, None) => held(term).is_some(),
            }
        };
        let field = |term: &String| {
            let (path, value) = term.split_once('=').unwrap();
            let pointer = |path: &str| format!("/{}", path.replace('.', "/"));
            let held =
                |path: &str| object.pointer(&pointer(path)).and_then(Value::as_str).unwrap_or_default();
            match path.strip_suffix('!') {
                Some(path) => held(path) != value,
                None => held(path) == value,
            }
        };
        self.labels.iter().all(label) && self.fields.iter().all(field)
    }
}

fn failure(code: u16) -> (u16, Value) {
    let reason = match code {
        404 => "NotFound",
        409 => "Conflict",
        _ => "Scripted",
    };
    let message = format!("scripted {code}");
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message});
    (code, status)
}
