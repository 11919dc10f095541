//! The readers: one process each for Go, Python and Node, and `serde_json` here.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use serde_json::value::RawValue;

const GO: &str = include_str!("readers/reader.go");
const PYTHON: &str = include_str!("readers/reader.py");
const NODE: &str = include_str!("readers/reader.mjs");

/// Every way of reading, in the order of [`Seen::by`].
pub(crate) const WAYS: [&str; 9] = [
    "Go, into a map",
    "Go, into a struct",
    "Go, the first value of a stream",
    "Python, bytes",
    "Python, lenient text",
    "Python, the first value",
    "Node, a buffer's text",
    "Node, decoded text",
    "Node, copied",
];

/// What each way of reading sees of one body.
#[derive(Debug)]
pub(crate) struct Seen {
    /// `x` for nothing, else `method|name|uri|arguments`: see [`crate::judge::Call::text`].
    pub(crate) by: Vec<String>,
    /// `serde_json`, into a value and into a struct; none when it refuses.
    pub(crate) serde: [Option<SerdeCall>; 2],
}

/// A call as `serde_json` reads it. Its numbers are compared one by one: without a feature that few turn on it
/// reads some of them one unit in the last place off.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SerdeCall {
    pub(crate) method: String,
    pub(crate) name: String,
    pub(crate) uri: String,
    pub(crate) arguments: Option<Value>,
}

pub(crate) struct Readers {
    children: Vec<Child>,
    go: PathBuf,
}

impl Readers {
    pub(crate) fn start() -> Self {
        let go = go();
        let children = vec![
            child(&mut Command::new(&go)),
            child(Command::new("python3").args(["-c", PYTHON])),
            child(Command::new("node").args(["--input-type=module", "-e", NODE])),
        ];
        Self { children, go }
    }

    /// Asks all of them at once.
    pub(crate) fn read(&mut self, bodies: &[&[u8]]) -> Vec<Seen> {
        let mut lines = String::new();
        for body in bodies {
            STANDARD.encode_string(body, &mut lines);
            lines.push('\n');
        }
        let lines = lines.as_bytes();
        let answers: Vec<Vec<String>> = std::thread::scope(|scope| {
            let asked: Vec<_> = self
                .children
                .iter_mut()
                .map(|child| scope.spawn(|| ask(child, lines, bodies.len())))
                .collect();
            asked.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let of =
            |at: usize| answers.iter().flat_map(|lines| lines[at].split('\t').map(str::to_owned)).collect();
        bodies
            .iter()
            .enumerate()
            .map(|(at, body)| Seen { by: of(at), serde: [by_value(body), by_struct(body)] })
            .collect()
    }

    /// They end when nothing is left to read.
    pub(crate) fn stop(self) {
        for mut child in self.children {
            drop(child.stdin.take());
            assert!(child.wait().unwrap().success());
        }
        std::fs::remove_dir_all(self.go.parent().unwrap()).unwrap();
    }
}

fn child(command: &mut Command) -> Child {
    let name = command.get_program().to_string_lossy().into_owned();
    let started = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    started.unwrap_or_else(|error| panic!("{name} is one of the readers, and does not start: {error}"))
}

/// Writes while it reads: neither side can fill a pipe that the other waits behind.
fn ask(child: &mut Child, lines: &[u8], count: usize) -> Vec<String> {
    let (stdin, stdout) = (child.stdin.as_mut().unwrap(), child.stdout.as_mut().unwrap());
    std::thread::scope(|scope| {
        let writer = scope.spawn(move || {
            stdin.write_all(lines).unwrap();
            stdin.flush().unwrap();
        });
        let answers: Vec<String> = BufReader::new(stdout).lines().take(count).map(Result::unwrap).collect();
        writer.join().unwrap();
        assert_eq!(answers.len(), count, "a reader ended");
        answers
    })
}

/// The reader in Go, compiled; the compiler keeps what it made before.
fn go() -> PathBuf {
    let dir =
        PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("json-differential-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let (source, binary) = (dir.join("reader.go"), dir.join("reader"));
    std::fs::write(&source, GO).unwrap();
    let mut build = Command::new("go");
    build.arg("build").arg("-o").args([&binary, &source]).env("GO111MODULE", "off");
    let output = build.output().expect("go is one of the readers, and is not installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    binary
}

fn text(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(_) => "?".to_owned(),
    }
}

fn by_value(body: &[u8]) -> Option<SerdeCall> {
    let Ok(Value::Object(root)) = serde_json::from_slice(body) else { return None };
    let params = root.get("params").and_then(Value::as_object);
    let param = |name: &str| params.and_then(|params| params.get(name));
    Some(SerdeCall {
        method: text(root.get("method")),
        name: text(param("name")),
        uri: text(param("uri")),
        arguments: param("arguments").filter(|value| !value.is_null()).cloned(),
    })
}

#[derive(serde::Deserialize)]
struct Request<'a> {
    method: Option<String>,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
}

#[derive(serde::Deserialize)]
struct Params {
    name: Option<String>,
    uri: Option<String>,
    arguments: Option<Value>,
}

fn by_struct(body: &[u8]) -> Option<SerdeCall> {
    let request: Request<'_> = serde_json::from_slice(body).ok()?;
    let none = Params { name: None, uri: None, arguments: None };
    let params =
        request.params.map_or(Ok(none), |params| serde_json::from_str::<Params>(params.get())).ok()?;
    Some(SerdeCall {
        method: request.method.unwrap_or_default(),
        name: params.name.unwrap_or_default(),
        uri: params.uri.unwrap_or_default(),
        arguments: params.arguments,
    })
}
