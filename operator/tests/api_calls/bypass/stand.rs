//! What may stand on a port: a sidecar, or one of those who would like to pass for one.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use behalf_policy::feed::{ProofKey, is_challenge, proof_message};
use behalf_policy::wire::CHALLENGE_PATH_PREFIX;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

pub const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

pub fn proof_key() -> ProofKey {
    ProofKey::new("k".repeat(43))
}

/// What stands on a port.
#[derive(Clone)]
pub enum Stand {
    /// A sidecar with this key.
    Sidecar(ProofKey),
    /// Answers this to everybody, and hangs up.
    Says(Vec<u8>),
    /// Says this before it was asked.
    Greets(&'static [u8]),
    /// Has somebody else answer, over a connection of its own.
    Relays(SocketAddr),
    /// Takes connections and says nothing.
    Silent,
    /// Takes connections and hangs up.
    HangsUp,
}

pub async fn stand(address: IpAddr, stand: Stand) -> u16 {
    let listener = TcpListener::bind((address, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut held = Vec::new();
        loop {
            let (mut stream, peer) = listener.accept().await.unwrap();
            match &stand {
                Stand::Silent => held.push(stream),
                Stand::HangsUp => drop(stream),
                Stand::Greets(text) => {
                    let _ = stream.write_all(text).await;
                    held.push(stream);
                }
                Stand::Says(text) => {
                    let _ = question(&mut stream).await;
                    let _ = stream.write_all(text).await;
                }
                Stand::Sidecar(key) => {
                    let asked = question(&mut stream).await;
                    let _ = stream.write_all(&prove(&asked, key, peer)).await;
                }
                Stand::Relays(to) => {
                    let asked = question(&mut stream).await;
                    let mut other = TcpStream::connect(to).await.unwrap();
                    other.write_all(&asked).await.unwrap();
                    let mut answer = Vec::new();
                    let _ = other.read_to_end(&mut answer).await;
                    let _ = stream.write_all(&answer).await;
                }
            }
        }
    });
    port
}

async fn question(stream: &mut TcpStream) -> Vec<u8> {
    let mut asked = Vec::new();
    while !asked.ends_with(b"\r\n\r\n") && stream.read_buf(&mut asked).await.unwrap_or(0) > 0 {}
    asked
}

fn prove(asked: &[u8], key: &ProofKey, peer: SocketAddr) -> Vec<u8> {
    let asked = std::str::from_utf8(asked).unwrap();
    let target = asked.strip_prefix("GET ").unwrap().split(' ').next().unwrap();
    let challenge = target.strip_prefix(CHALLENGE_PATH_PREFIX).unwrap();
    assert!(is_challenge(challenge) && asked.contains("\r\nHost: "), "{asked}");
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.expose().as_bytes());
    let tag = hmac::sign(&key, &proof_message(challenge, peer.ip(), peer.port()));
    ok(&URL_SAFE_NO_PAD.encode(tag.as_ref()))
}

pub fn ok(body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// A port that nobody listens on, kept from others.
pub fn nobody() -> (u16, TcpSocket) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((LOOPBACK, 0).into()).unwrap();
    (socket.local_addr().unwrap().port(), socket)
}
