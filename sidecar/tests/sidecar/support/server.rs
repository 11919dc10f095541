//! A server behind the sidecar that remembers everything it was sent.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::StreamExt as _;
use futures::channel::mpsc;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// One request as the server saw it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) method: Method,
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Seen {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|v| v.to_str().unwrap())
    }
}

/// What the server answers.
pub(crate) struct Reply {
    status: StatusCode,
    headers: Vec<(&'static str, String)>,
    body: BoxBody<Bytes, Infallible>,
    never: bool,
}

impl Reply {
    /// No answer at all.
    pub(crate) fn never() -> Self {
        Self { never: true, ..Self::new(200, "text/plain", "") }
    }

    pub(crate) fn json(value: &Value) -> Self {
        Self::new(200, "application/json", value.to_string())
    }

    pub(crate) fn new(status: u16, kind: &str, body: impl Into<Bytes>) -> Self {
        Self {
            status: StatusCode::from_u16(status).unwrap(),
            headers: vec![("content-type", kind.to_owned())],
            body: Full::new(body.into()).boxed(),
            never: false,
        }
    }

    /// An event stream fed by what is returned; it ends when that is dropped.
    pub(crate) fn stream() -> (Self, Events) {
        let (sender, receiver) = mpsc::unbounded::<&'static str>();
        let frames = receiver.map(|text| Ok(Frame::data(Bytes::from_static(text.as_bytes()))));
        let mut reply = Self::new(200, "text/event-stream", "").header("x-accel-buffering", "no");
        reply.body = BoxBody::new(StreamBody::new(frames));
        (reply, sender)
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// What feeds an event stream, which ends when it is dropped.
pub(crate) type Events = mpsc::UnboundedSender<&'static str>;

type Behaviour = Box<dyn FnMut(&Seen) -> Option<Reply> + Send>;

pub(crate) struct Server {
    pub(crate) port: u16,
    seen: Arc<Mutex<Vec<Seen>>>,
    behaviour: Arc<Mutex<Behaviour>>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let behaviour: Arc<Mutex<Behaviour>> = Arc::new(Mutex::new(Box::new(|_| None)));
        let (log, answers) = (Arc::clone(&seen), Arc::clone(&behaviour));
        let task = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                let (log, answers) = (Arc::clone(&log), Arc::clone(&answers));
                tokio::spawn(async move {
                    let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                        let (log, answers) = (Arc::clone(&log), Arc::clone(&answers));
                        async move {
                            let (parts, body) = request.into_parts();
                            let seen = Seen {
                                method: parts.method,
                                target: parts.uri.to_string(),
                                headers: parts.headers,
                                body: body.collect().await.unwrap().to_bytes(),
                            };
                            log.lock().unwrap().push(seen.clone());
                            let reply = answers.lock().unwrap()(&seen).unwrap_or_else(|| default(&seen));
                            if reply.never {
                                std::future::pending::<()>().await;
                            }
                            let mut response = Response::new(reply.body);
                            *response.status_mut() = reply.status;
                            for (name, value) in reply.headers {
                                response.headers_mut().append(
                                    HeaderName::from_static(name),
                                    HeaderValue::from_str(&value).unwrap(),
                                );
                            }
                            Ok::<_, Infallible>(response)
                        }
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { port, seen, behaviour, task }
    }

    /// Answers from now on as told; `None` falls back to the usual answer.
    pub(crate) fn behave(&self, behaviour: impl FnMut(&Seen) -> Option<Reply> + Send + 'static) {
        *self.behaviour.lock().unwrap() = Box::new(behaviour);
    }

    /// Answers the next request with an event stream, and what comes after it as usual.
    pub(crate) fn stream_next(&self) -> std::sync::mpsc::Receiver<Events> {
        let (sender, receiver) = std::sync::mpsc::channel();
        let mut next = Some(sender);
        self.behave(move |_| {
            let (reply, events) = Reply::stream();
            next.take()?.send(events).unwrap();
            Some(reply)
        });
        receiver
    }

    /// The same with an answer that is no event stream, which nothing but its own end ends.
    pub(crate) fn slow_next(&self) -> std::sync::mpsc::Receiver<Events> {
        let (sender, receiver) = std::sync::mpsc::channel();
        let mut next = Some(sender);
        self.behave(move |_| {
            let (mut reply, events) = Reply::stream();
            reply.headers = vec![("content-type", "application/json".to_owned())];
            next.take()?.send(events).unwrap();
            Some(reply)
        });
        receiver
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub(crate) fn last(&self) -> Seen {
        self.seen().pop().expect("the server saw nothing")
    }
}

/// Every tool of the test catalogue, and one that no catalogue has.
pub(crate) const TOOLS: [&str; 6] =
    ["directory.search", "leave.list", "salary.get", "salary.update", "secret.get", "rogue.tool"];

pub(crate) fn tools_result(id: &Value) -> Value {
    let tools: Vec<_> =
        TOOLS.iter().map(|name| json!({"name": name, "inputSchema": {"type": "object"}})).collect();
    json!({"jsonrpc": "2.0", "id": id, "result": {"tools": tools, "nextCursor": "more"}})
}

fn default(seen: &Seen) -> Reply {
    let Ok(message) = serde_json::from_slice::<Value>(&seen.body) else {
        return Reply::new(405, "text/plain", "");
    };
    match (message.get("id"), message["method"].as_str()) {
        (None, _) => Reply::new(202, "application/json", ""),
        (Some(id), Some("tools/list")) => Reply::json(&tools_result(id)),
        (Some(id), _) => Reply::json(&json!({"jsonrpc": "2.0", "id": id, "result": {"ok": true}})),
    }
}
