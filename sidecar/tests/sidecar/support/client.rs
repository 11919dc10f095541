//! A caller.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

/// A request to the sidecar, changed step by step.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Call {
    fn bare(method: Method, path: &str) -> Self {
        Self { method, path: path.to_owned(), headers: HeaderMap::new(), body: Bytes::new() }
    }

    pub(crate) fn get(path: &str) -> Self {
        Self::bare(Method::GET, path).header("accept", "text/event-stream")
    }

    pub(crate) fn delete(path: &str) -> Self {
        Self::bare(Method::DELETE, path)
    }

    /// A POST of a message to the server.
    pub(crate) fn message(message: &Value) -> Self {
        Self::body(message.to_string())
    }

    pub(crate) fn body(body: impl Into<Bytes>) -> Self {
        let mut call = Self::bare(Method::POST, "/mcp")
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream");
        call.body = body.into();
        call
    }

    /// A `tools/call` of the legacy era.
    pub(crate) fn tool(name: &str) -> Self {
        Self::message(&json!({
            "jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": name, "arguments": {}},
        }))
    }

    pub(crate) fn list() -> Self {
        Self::message(&json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}))
    }

    pub(crate) fn initialize() -> Self {
        Self::message(&json!({
            "jsonrpc": "2.0", "id": 0, "method": "initialize",
            "params": {
                "protocolVersion": "2025-06-18", "capabilities": {},
                "clientInfo": {"name": "test", "version": "1"},
            },
        }))
    }

    /// A request of the modern era.
    pub(crate) fn modern(method: &str, params: Value) -> Self {
        let mut params = params;
        params["_meta"]["io.modelcontextprotocol/protocolVersion"] = json!("2026-07-28");
        params["_meta"]["io.modelcontextprotocol/clientCapabilities"] = json!({});
        let name = params["name"].as_str().map(str::to_owned);
        let message = json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": params});
        let call =
            Self::message(&message).header("mcp-protocol-version", "2026-07-28").header("mcp-method", method);
        match name {
            Some(name) => call.header("mcp-name", &name),
            None => call,
        }
    }

    pub(crate) fn token(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        self.headers.append(name, HeaderValue::from_str(value).unwrap());
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.headers.remove(name);
        self
    }

    pub(crate) fn at(mut self, path: &str) -> Self {
        path.clone_into(&mut self.path);
        self
    }

    pub(crate) fn method(mut self, method: Method) -> Self {
        self.method = method;
        self
    }

    /// Sends it and gives the answer as soon as its head is there.
    pub(crate) async fn start(self, to: SocketAddr) -> Response<Incoming> {
        self.try_start(to).await.unwrap()
    }

    async fn try_start(
        self,
        to: SocketAddr,
    ) -> Result<Response<Incoming>, hyper_util::client::legacy::Error> {
        let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
        let mut request = Request::new(Full::new(self.body));
        *request.method_mut() = self.method;
        *request.uri_mut() = format!("http://{to}{}", self.path).parse().unwrap();
        *request.headers_mut() = self.headers;
        client.request(request).await
    }

    pub(crate) async fn send(self, to: SocketAddr) -> Answer {
        Answer::read(self.start(to).await).await
    }

    /// None: the connection ended without an answer.
    pub(crate) async fn try_send(self, to: SocketAddr) -> Option<Answer> {
        Some(Answer::read(self.try_start(to).await.ok()?).await)
    }
}

impl Answer {
    async fn read(response: Response<Incoming>) -> Self {
        let (parts, body) = response.into_parts();
        Self {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: body.collect().await.unwrap().to_bytes(),
        }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        assert!(self.headers.get_all(name).iter().count() <= 1, "{name} is repeated");
        self.headers.get(name).map(|v| v.to_str().unwrap())
    }

    /// The challenge of the scheme that was used, or is asked for first.
    pub(crate) fn challenge(&self) -> Option<&str> {
        self.challenges().first().copied()
    }

    /// All challenges, one line each.
    pub(crate) fn challenges(&self) -> Vec<&str> {
        self.headers.get_all("www-authenticate").iter().map(|value| value.to_str().unwrap()).collect()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {:?}", self.body))
    }

    /// What a refusal says its reason is.
    pub(crate) fn reason(&self) -> String {
        self.json()["error"]["data"]["reason"].as_str().unwrap_or_default().to_owned()
    }
}
