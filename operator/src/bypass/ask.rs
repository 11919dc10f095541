//! One question to one port: who answers?

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use behalf_plan::bypass::Answer;
use behalf_policy::feed::{ProofKey, proof_message};
use behalf_policy::wire::{CHALLENGE_PATH_PREFIX, PROBE_PORT};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};

/// Tries at a time.
const PLACES: usize = 16;
/// No more of an answer is read, bytes.
const MAX_ANSWER: usize = 1024;
/// HMAC-SHA256 in base64url without padding, characters.
const PROOF: usize = 43;

/// How long an answer is waited for.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For the whole of a try by TCP.
    pub tcp: Duration,
    /// For anything that comes back by UDP.
    pub udp: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { tcp: Duration::from_secs(2), udp: Duration::from_secs(1) }
    }
}

/// Asks ports, a bounded number at a time.
#[derive(Clone, Debug)]
pub struct Asker {
    places: Arc<Semaphore>,
    patience: Patience,
    control_port: u16,
}

impl Default for Asker {
    fn default() -> Self {
        Self::new(PROBE_PORT, Patience::default())
    }
}

impl Asker {
    /// Takes `control_port` for the port on which a sidecar proves that it can be reached at all.
    #[must_use]
    pub fn new(control_port: u16, patience: Patience) -> Self {
        Self { places: Arc::new(Semaphore::new(PLACES)), patience, control_port }
    }

    pub(super) fn control_port(&self) -> u16 {
        self.control_port
    }

    /// Asks a TCP port for the proof. None if it could not be asked, for a reason of our own.
    pub async fn tcp(&self, to: SocketAddr, key: &ProofKey) -> Option<Answer> {
        let _place = self.places.acquire().await.ok()?;
        let deadline = Instant::now() + self.patience.tcp;
        let mut stream = match timeout_at(deadline, TcpStream::connect(to)).await {
            Err(_) => return Some(Answer::Nothing),
            Ok(Err(error)) => return is_theirs(&error).then_some(Answer::Nothing),
            Ok(Ok(stream)) => stream,
        };
        let challenge = challenge()?;
        let us = stream.local_addr().ok()?;
        let message = proof_message(&challenge, us.ip(), us.port());
        let mut heard = Vec::with_capacity(MAX_ANSWER);
        let asked = exchange(&mut stream, to, &challenge, &mut heard);
        // What came is judged, however it ended.
        let in_time = timeout_at(deadline, asked).await.is_ok();
        Some(if heard.is_empty() && !in_time { Answer::Silent } else { judge(&heard, key, &message) })
    }

    /// Whether anything comes back from a UDP port: an answer, or word that nobody listens, which shows that packets get
    /// through. None if it could not be asked, for a reason of our own.
    ///
    /// Silence is weak proof, since few protocols answer what we say. It counts because the packet rules drop in silence
    /// what they close, and because the control has shown that packets reach the pod.
    pub async fn udp(&self, to: SocketAddr) -> Option<bool> {
        let _place = self.places.acquire().await.ok()?;
        let any: IpAddr =
            if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((any, 0)).await.ok()?;
        match socket.connect(to).await {
            Err(error) => return is_theirs(&error).then_some(false),
            Ok(()) => socket.send(b"\n").await.ok()?,
        };
        let mut heard = [0; 1];
        match timeout(self.patience.udp, socket.recv(&mut heard)).await {
            Err(_) => Some(false),
            Ok(Ok(_)) => Some(true),
            Ok(Err(error)) => Some(error.kind() == io::ErrorKind::ConnectionRefused),
        }
    }
}

/// Whether the network or the other side refused, and not our own system.
fn is_theirs(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::TimedOut
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::PermissionDenied
    )
}

/// 16 random bytes: nobody can have the answer ready.
fn challenge() -> Option<String> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).ok()?;
    Some(URL_SAFE_NO_PAD.encode(bytes))
}

/// Asks, and hears until there is enough, too much or no more. In the clear, also where the sidecar terminates TLS: there it
/// answers this alone, with or without a certificate, so that a try needs none either.
async fn exchange(
    stream: &mut TcpStream,
    to: SocketAddr,
    challenge: &str,
    heard: &mut Vec<u8>,
) -> io::Result<()> {
    let question =
        format!("GET {CHALLENGE_PATH_PREFIX}{challenge} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n\r\n");
    // Who speaks first, or closes at once, is heard all the same.
    let asked = stream.write_all(question.as_bytes()).await;
    while heard.len() < MAX_ANSWER && body(heard).is_none_or(|body| body.len() < PROOF) {
        let left = u64::try_from(MAX_ANSWER - heard.len()).unwrap_or(0);
        if (&mut *stream).take(left).read_buf(heard).await? == 0 {
            break;
        }
    }
    asked
}

fn judge(heard: &[u8], key: &ProofKey, message: &[u8]) -> Answer {
    if heard.starts_with(b"HTTP/1.1 429 ") {
        return Answer::Busy;
    }
    let Some(tag) = proof(heard) else { return Answer::Other };
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.expose().as_bytes());
    if hmac::verify(&key, message, &tag).is_ok() { Answer::Behalf } else { Answer::OtherProof }
}

/// What stands in the answer where a proof would stand, if it has the form of one.
fn proof(heard: &[u8]) -> Option<Vec<u8>> {
    let ok = heard.starts_with(b"HTTP/1.1 200 ");
    let text = body(heard).filter(|_| ok)?.get(..PROOF)?;
    URL_SAFE_NO_PAD.decode(text).ok()
}

/// What follows the head, once that is complete.
fn body(heard: &[u8]) -> Option<&[u8]> {
    let end = heard.windows(4).position(|window| window == b"\r\n\r\n")?;
    heard.get(end + 4..)
}
