//! Requests from inside the node's network namespace, from where pods and services are reached. Raw ones: what is sent
//! is what stands here, whatever a well-behaved client would do.
use std::io::Write as _;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::certificates;
use crate::world::World;

/// A request to be sent by curl. It goes to curl on its standard input: a token in arguments would be seen by all.
#[derive(Clone)]
pub struct Request {
    verb: &'static str,
    url: String,
    lines: Vec<String>,
    address: Option<String>,
    certificate: Option<&'static str>,
}

impl Request {
    /// A GET.
    #[must_use]
    pub fn get(url: &str) -> Self {
        Self::new("GET", url)
    }

    /// A request with a JSON body.
    #[must_use]
    pub fn post(url: &str, body: &Value) -> Self {
        Self::new("POST", url).header("Content-Type", "application/json").body(&body.to_string())
    }

    /// A POST of a form.
    #[must_use]
    pub fn form(url: &str, fields: &[(&str, &str)]) -> Self {
        let mut request = Self::new("POST", url);
        for (name, value) in fields {
            request.lines.push(format!("data-urlencode = {}", quoted(&format!("{name}={value}"))));
        }
        request
    }

    /// A request without a body.
    #[must_use]
    pub fn new(verb: &'static str, url: &str) -> Self {
        Self { verb, url: url.to_owned(), lines: Vec::new(), address: None, certificate: None }
    }

    /// With this body.
    #[must_use]
    pub fn body(mut self, body: &str) -> Self {
        self.lines.push(format!("data-raw = {}", quoted(body)));
        self
    }

    /// With one more header; one of the same name stays.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.lines.push(format!("header = {}", quoted(&format!("{name}: {value}"))));
        self
    }

    /// With this bearer token.
    #[must_use]
    pub fn bearer(self, token: &str) -> Self {
        self.header("Authorization", &format!("Bearer {token}"))
    }

    /// To another URL than the one it was made for.
    #[must_use]
    pub fn at(mut self, url: &str) -> Self {
        url.clone_into(&mut self.url);
        self
    }

    /// To this address, whatever the URL's name stands for: a certain pod of a service.
    #[must_use]
    pub fn to(mut self, address: &str) -> Self {
        self.address = Some(address.to_owned());
        self
    }

    /// Over a connection whose client shows this certificate of the demo to a server that asks for one.
    #[must_use]
    pub fn certified(mut self, name: &'static str) -> Self {
        self.certificate = Some(name);
        self
    }

    /// Sends it and waits for the answer.
    ///
    /// # Errors
    /// There is no answer.
    pub fn send(&self, world: &World) -> Result<Answer> {
        self.start(world)?.answer()
    }

    /// Sends it.
    ///
    /// # Errors
    /// curl cannot be started.
    pub fn start(&self, world: &World) -> Result<Sent> {
        let authority = self.url.split('/').nth(2).unwrap_or_default();
        let (host, port) = authority.rsplit_once(':').with_context(|| format!("{} has no port", self.url))?;
        let mut command = world.cluster.in_netns("curl")?;
        if host.ends_with(".svc.cluster.local") {
            let address = match &self.address {
                Some(address) => address.clone(),
                None => world.address(host)?,
            };
            command.args(["--resolve", &format!("{host}:{port}:{address}")]);
        }
        self.give_to(command)
    }

    /// Sends it on this machine, to a loopback address of a run without a cluster, and waits for the answer.
    ///
    /// # Errors
    /// There is no answer.
    pub fn send_here(&self) -> Result<Answer> {
        self.give_to(Command::new("curl"))?.answer()
    }

    fn give_to(&self, mut command: Command) -> Result<Sent> {
        command.args([
            "--silent",
            "--show-error",
            "--include",
            "--http1.1",
            "--max-time",
            "90",
            "--noproxy",
            "*",
        ]);
        command.args(["--config", "-", "--request", self.verb, "--cacert"]);
        command.arg(certificates::file("ca", "crt")?);
        if let Some(name) = self.certificate {
            command.arg("--cert").arg(certificates::file(name, "crt")?);
            command.arg("--key").arg(certificates::file(name, "key")?);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("cannot start curl")?;
        let config = format!("url = {}\n{}\n", quoted(&self.url), self.lines.join("\n"));
        child.stdin.take().context("curl's input")?.write_all(config.as_bytes())?;
        Ok(Sent { what: format!("{} {}", self.verb, self.url), child })
    }
}

/// A string of curl's configuration.
fn quoted(text: &str) -> String {
    let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n").replace('\r', "\\r");
    format!("\"{text}\"")
}

/// A request under way.
pub struct Sent {
    what: String,
    child: Child,
}

impl Sent {
    /// Whether there is no answer yet.
    ///
    /// # Errors
    /// curl was lost.
    pub fn waits(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Gives up.
    ///
    /// # Errors
    /// curl cannot be ended.
    pub fn abandon(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Waits for the answer.
    ///
    /// # Errors
    /// There is none.
    pub fn answer(self) -> Result<Answer> {
        let output = self.child.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            bail!("{}: {}", self.what, String::from_utf8_lossy(&output.stderr));
        }
        Answer::parse(&said).with_context(|| format!("no HTTP answer to {}", self.what))
    }
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Status.
    pub status: u16,
    /// Headers in their order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: String,
}

impl Answer {
    fn parse(text: &str) -> Option<Self> {
        let mut text = text;
        loop {
            let (head, body) = text.split_once("\r\n\r\n")?;
            let mut lines = head.lines();
            let status: u16 = lines.next()?.split(' ').nth(1)?.parse().ok()?;
            // An interim answer stands before the answer.
            if status < 200 {
                text = body;
                continue;
            }
            let headers = lines.filter_map(|line| line.split_once(':'));
            let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()));
            return Some(Self { status, headers: headers.collect(), body: body.to_owned() });
        }
    }

    /// The first header of that name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// What the record of this request is called.
    ///
    /// # Errors
    /// The answer does not name it: it is not one of the sidecar.
    pub fn request_id(&self) -> Result<&str> {
        self.header("behalf-request-id").with_context(|| format!("no request id in {self:?}"))
    }

    /// The JSON in the body, or in the last event of an event stream.
    ///
    /// # Errors
    /// There is none.
    pub fn json(&self) -> Result<Value> {
        let event = self.body.lines().rev().find_map(|line| line.strip_prefix("data:")).map(str::trim);
        serde_json::from_str(event.unwrap_or(&self.body)).with_context(|| format!("no JSON in {self:?}"))
    }

    /// The closed reason of a refusal.
    #[must_use]
    pub fn reason(&self) -> Option<String> {
        let body = self.json().ok()?;
        let reason = [&body["error"]["data"]["reason"], &body["error"]["reason"]];
        reason.iter().find_map(|value| value.as_str()).map(str::to_owned)
    }

    /// What a tool returned.
    #[must_use]
    pub fn tool(&self) -> Option<Value> {
        let content = self.json().ok()?["result"]["structuredContent"].take();
        (!content.is_null()).then_some(content)
    }

    /// What payroll saw of the call behind this answer.
    #[must_use]
    pub fn saw(&self) -> Option<Value> {
        let saw = self.tool()?["payroll"]["saw"].take();
        (!saw.is_null()).then_some(saw)
    }
}
