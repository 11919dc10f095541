//! A TLS server on loopback that keeps every byte it gets and answers with the very bytes of a test.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::fake::tls;

/// One request, as bytes.
#[derive(Clone, Debug)]
pub struct Taken {
    pub head: String,
    pub body: Vec<u8>,
}

impl Taken {
    /// The request line.
    pub fn line(&self) -> &str {
        self.head.lines().next().unwrap_or_default()
    }

    /// The attached credential.
    pub fn bearer(&self) -> String {
        let bearer = self.head.lines().find_map(|l| l.strip_prefix("authorization: Bearer "));
        bearer.unwrap_or_default().to_owned()
    }
}

/// The bytes of an answer, in pieces that are sent one by one; the connection ends after it when told so.
pub struct Say {
    pub pieces: Vec<Vec<u8>>,
    pub close: bool,
}

impl Say {
    pub fn bytes(text: impl Into<Vec<u8>>) -> Self {
        Self { pieces: vec![text.into()], close: false }
    }
}

type Script = Arc<dyn Fn(&Taken) -> Say + Send + Sync>;

/// The server; ends when dropped.
pub struct Tap {
    pub port: u16,
    pub ca: String,
    /// Requests of each connection, in the order they came.
    pub connections: Arc<Mutex<Vec<Vec<Taken>>>>,
    script: Arc<Mutex<Script>>,
    task: JoinHandle<()>,
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

impl Tap {
    pub async fn start() -> Self {
        let (ca, tls) = tls();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = Arc::new(Mutex::new(Vec::new()));
        let script: Arc<Mutex<Script>> = Arc::new(Mutex::new(Arc::new(|_: &Taken| Say::bytes(OK))));
        let (log, says) = (Arc::clone(&connections), Arc::clone(&script));
        let task = tokio::spawn(async move {
            let mut open = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                let (tls, log, says) = (tls.clone(), Arc::clone(&log), Arc::clone(&says));
                open.spawn(async move {
                    let Ok(mut stream) = tls.accept(stream).await else { return };
                    let number = {
                        let mut log = log.lock().unwrap();
                        log.push(Vec::new());
                        log.len() - 1
                    };
                    let mut bytes = Vec::new();
                    let mut early = false;
                    loop {
                        // Some answer before they have read the body.
                        if !early && head_of(&bytes).is_some_and(|(head, _)| head.contains("x-early: ")) {
                            early = true;
                            stream.write_all(OK.as_bytes()).await.unwrap();
                            stream.flush().await.unwrap();
                        }
                        while let Some((taken, rest)) = whole(&bytes) {
                            bytes = rest;
                            log.lock().unwrap()[number].push(taken.clone());
                            if std::mem::take(&mut early) {
                                continue;
                            }
                            let script = Arc::clone(&says.lock().unwrap());
                            let say = script(&taken);
                            for piece in say.pieces {
                                if stream.write_all(&piece).await.is_err() || stream.flush().await.is_err() {
                                    return;
                                }
                                tokio::task::yield_now().await;
                            }
                            if say.close {
                                let _ = stream.shutdown().await;
                                return;
                            }
                        }
                        match stream.read_buf(&mut bytes).await {
                            Ok(0) | Err(_) => {
                                if !bytes.is_empty() {
                                    let taken = Taken { head: "CUT".to_owned(), body: bytes };
                                    log.lock().unwrap()[number].push(taken);
                                }
                                return;
                            }
                            Ok(_) => {}
                        }
                    }
                });
            }
        });
        Self { port, ca, connections, script, task }
    }

    pub fn says(&self, script: impl Fn(&Taken) -> Say + Send + Sync + 'static) {
        *self.script.lock().unwrap() = Arc::new(script);
    }

    /// Puts this server in the place of the payroll API.
    pub fn downstream(&self) -> impl Fn(&mut Value) {
        let (url, ca) = (format!("https://localhost:{}/api", self.port), self.ca.clone());
        move |d| {
            d["serve"]["downstreams"][0]["url"] = json!(url);
            d["serve"]["downstreams"][0]["caBundle"] = json!(ca);
        }
    }

    /// All whole requests, and how many were cut off.
    pub fn all(&self) -> (Vec<Taken>, usize) {
        let all: Vec<Taken> = self.connections.lock().unwrap().iter().flatten().cloned().collect();
        let (whole, cut): (Vec<_>, Vec<_>) = all.into_iter().partition(|t| t.head != "CUT");
        (whole, cut.len())
    }

    /// The requests of the connection on which this one came.
    pub fn connection_of(&self, line: &str) -> Vec<String> {
        let connections = self.connections.lock().unwrap();
        let found = connections.iter().find(|c| c.iter().any(|t| t.line().contains(line)));
        found.map(|c| c.iter().map(|t| t.line().to_owned()).collect()).unwrap_or_default()
    }
}

/// The first head when all of it is there, and where it ends.
fn head_of(bytes: &[u8]) -> Option<(String, usize)> {
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
    Some((String::from_utf8_lossy(&bytes[..end]).into_owned(), end))
}

/// The first request when all of it is there, and what follows it.
fn whole(bytes: &[u8]) -> Option<(Taken, Vec<u8>)> {
    let (head, end) = head_of(bytes)?;
    let mut rest = &bytes[end..];
    let mut body = Vec::new();
    if head.contains("transfer-encoding: chunked") {
        loop {
            let line = rest.windows(2).position(|w| w == b"\r\n")?;
            let size = usize::from_str_radix(std::str::from_utf8(&rest[..line]).unwrap(), 16).unwrap();
            let chunk = rest.get(line + 2..line + 2 + size)?;
            body.extend_from_slice(chunk);
            rest = rest.get(line + 4 + size..)?;
            if size == 0 {
                break;
            }
        }
    } else if let Some(length) = head.lines().find_map(|l| l.strip_prefix("content-length: ")) {
        let length: usize = length.parse().unwrap();
        body.extend_from_slice(rest.get(..length)?);
        rest = &rest[length..];
    }
    Some((Taken { head, body }, rest.to_vec()))
}
