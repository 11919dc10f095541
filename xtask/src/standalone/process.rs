//! Child processes of a standalone run: logs in files, ended by pid when dropped.
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::command::tail;

/// How long a part may take until it answers.
const READY_WITHIN: Duration = Duration::from_mins(2);
/// Between two looks at a condition.
const LOOK: Duration = Duration::from_millis(100);
/// How long a part may take to end after it was asked.
const END_WITHIN: Duration = Duration::from_secs(15);

/// A running part.
pub(crate) struct Process {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts it with its output in `<dir>/<name>.out` and `.log`, after a look that its ports are free.
    pub(crate) fn start(name: &'static str, dir: &Path, mut command: Command, ports: &[u16]) -> Result<Self> {
        for port in ports {
            TcpListener::bind((Ipv4Addr::LOCALHOST, *port))
                .with_context(|| format!("port {port} on loopback, which {name} needs, is taken"))?;
        }
        let log = dir.join(format!("{name}.log"));
        let out = File::create(dir.join(format!("{name}.out")))?;
        let errors = File::create(&log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(errors)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        Ok(Self { name, child, log })
    }

    fn said(&self) -> String {
        let read = |file: &Path| fs::read_to_string(file).unwrap_or_default();
        tail(&format!("{}\n{}", read(&self.log.with_extension("out")), read(&self.log)), 25)
    }

    fn until(&self, what: &str, ready: impl Fn() -> bool) -> Result<()> {
        let began = Instant::now();
        while !ready() {
            // The pid stays ours until it is waited for, so this tells whether it still runs.
            let gone = !Path::new(&format!("/proc/{}/exe", self.child.id())).exists();
            if gone || began.elapsed() > READY_WITHIN {
                let how = if gone { "ended" } else { "did not get ready" };
                bail!("{} {how} ({what}):\n{}", self.name, self.said());
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let Some(pid) = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw) else {
            return;
        };
        // Asked first, so that the sidecar drains and Keycloak's shell passes it on.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let began = Instant::now();
        while began.elapsed() < END_WITHIN {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(LOOK);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until something listens.
pub(crate) fn wait_tcp(process: &Process, port: u16) -> Result<()> {
    process.until(&format!("port {port}"), || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok())
}

/// Waits until a GET is answered with 200.
pub(crate) fn wait_http(process: &Process, port: u16, path: &str) -> Result<()> {
    process.until(&format!("http port {port}{path}"), || get(port, path).unwrap_or(false))
}

fn get(port: u16, path: &str) -> Result<bool> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")?;
    let mut head = [0_u8; 12];
    stream.read_exact(&mut head)?;
    Ok(head.ends_with(b"200"))
}
