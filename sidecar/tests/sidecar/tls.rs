//! TLS that the sidecar terminates: versions, plain connections, slow ones, and that all that holds of a plain port holds
//! here.

mod certificate;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use behalf_sidecar::bundle_source::Bundles;
use behalf_sidecar::metrics::Metrics;
use behalf_sidecar::tls::{HandshakeError, Tls};
use http_body_util::BodyExt as _;
use rustls::HandshakeKind;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::support::client_tls::{
    Authority, Connection, Leaf, Secured, client_config, handshake, mount_leaf,
};
use crate::support::{Call, World, eventually};

fn ignored() -> Value {
    json!({"clientCertificates": "Ignored"})
}

fn search(token: &str) -> Call {
    Call::tool("directory.search").token(token)
}

async fn counted(world: &World, line: &str) {
    eventually(line, async || world.metrics().await.contains(line).then_some(())).await;
}

/// All that comes back for these bytes, until the other side closes.
async fn raw(to: std::net::SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(to).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    // A reset is an end as well.
    let _ = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut answer))
        .await
        .expect("it is closed");
    answer
}

#[tokio::test]
async fn both_protocols_are_served_by_tls_and_each_connection_shakes_hands_anew() {
    let secured = Secured::start(ignored(), "").await;
    let token = secured.world.alice();
    for protocols in [&[&b"h2"[..], b"http/1.1"][..], &[b"http/1.1"], &[]] {
        // One client, which would resume if it could.
        let mut config = secured.client(None, protocols);
        config.enable_early_data = true;
        for _ in 0..2 {
            let stream = handshake(secured.world.app.addresses.inbound, config.clone()).await.unwrap();
            let tls = stream.get_ref().1;
            assert_eq!(tls.handshake_kind(), Some(HandshakeKind::Full), "no session is resumed");
            assert_eq!(tls.alpn_protocol(), protocols.first().copied());
            let mut over = Connection::over(stream).await;
            for _ in 0..2 {
                assert_eq!(secured.send(&mut over, search(&token)).await.status, 200);
            }
        }
    }
    let config = secured.client(None, &[b"h3"]);
    assert!(handshake(secured.world.app.addresses.inbound, config).await.is_err(), "nothing to agree on");
    counted(&secured.world, "tls_handshakes_total{outcome=\"Failed\"} 1").await;
    secured.world.stop().await;
}

#[tokio::test]
async fn tls_1_2_is_taken_and_what_is_older_is_not() {
    let secured = Secured::start(json!({"clientCertificates": "Requested"}), "").await;
    let leaf = Leaf::self_signed();
    let mut config = client_config(&secured.authority.pem(), Some(&leaf), &[b"http/1.1"]);
    config = {
        let mut older = rustls::ClientConfig::builder_with_provider(Arc::clone(config.crypto_provider()))
            .with_protocol_versions(&[&rustls::version::TLS12])
            .unwrap()
            .with_root_certificates(roots(&secured.authority))
            .with_client_auth_cert(
                vec![leaf.certificate.der().clone()],
                rustls::pki_types::pem::PemObject::from_pem_slice(leaf.key_pem().as_bytes()).unwrap(),
            )
            .unwrap();
        older.alpn_protocols.clone_from(&config.alpn_protocols);
        older
    };
    let bound = secured.bound_to(&leaf);
    for _ in 0..2 {
        let stream = handshake(secured.world.app.addresses.inbound, config.clone()).await.unwrap();
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
        let mut over = Connection::over(stream).await;
        assert_eq!(secured.send(&mut over, search(&bound)).await.status, 200);
    }
    // A ClientHello of TLS 1.1 as OpenSSL of its time wrote it: one suite, no extension.
    let body = [&[3, 2][..], &[7; 32], &[0, 0, 2, 0, 0x2f, 1, 0]].concat();
    let hello = [&[1, 0, 0, u8::try_from(body.len()).unwrap()][..], &body].concat();
    let record = [&[22, 3, 1, 0, u8::try_from(hello.len()).unwrap()][..], &hello].concat();
    let answer = raw(secured.world.app.addresses.inbound, &record).await;
    assert_eq!((answer[0], answer[5]), (21, 2), "a fatal alert and nothing else: {answer:?}");
    secured.world.stop().await;
}

fn roots(authority: &Authority) -> rustls::RootCertStore {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap()).unwrap();
    roots
}

async fn challenged(to: std::net::SocketAddr) -> String {
    let question = "GET /.well-known/behalf/challenge/AAAAAAAAAAAAAAAAAAAAAA HTTP/1.1\r\nhost: x\r\n\r\n";
    String::from_utf8(raw(to, question.as_bytes()).await).unwrap()
}

#[tokio::test]
async fn what_comes_in_the_clear_is_told_so_and_nothing_of_it_is_looked_at() {
    let secured = Secured::start(ignored(), "").await;
    let to = secured.world.app.addresses.inbound;
    let token = secured.world.alice();
    let body = r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"directory.search","arguments":{}}}"#;
    let request = format!(
        "POST /mcp HTTP/1.1\r\nhost: hr.example.com\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\n\
         accept: application/json, text/event-stream\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    for request in [request.as_str(), "GET /.well-known/oauth-protected-resource HTTP/1.1\r\nhost: x\r\n\r\n"]
    {
        secured.world.count_one();
        let answer = String::from_utf8(raw(to, request.as_bytes()).await).unwrap();
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("this is an https port"), "{answer}");
        let record = secured.world.last_record().await;
        assert_eq!((&record["decision"], &record["reason"]), (&json!("Refuse"), &json!("TLSRequired")));
        assert!(record["subject"].is_null());
    }
    // HTTP/2 by prior knowledge, and what is no protocol at all, are closed.
    secured.world.count_one();
    raw(to, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    secured.world.count_one();
    raw(to, b"\0\0\0\0\r\n\r\n").await;
    // The operator asks in the clear who answers, and over TLS it is answered as well.
    assert!(challenged(to).await.starts_with("HTTP/1.1 200 "));
    let mut over = secured.connect(None).await;
    let proof = over.send(Call::get("/.well-known/behalf/challenge/AAAAAAAAAAAAAAAAAAAAAA")).await;
    assert_eq!((proof.status, proof.body.len()), (200, 43));
    assert!(secured.world.server.seen().is_empty());
    counted(&secured.world, "tls_handshakes_total{outcome=\"Plain\"} 5").await;
    secured.world.stop().await;
}

/// Nobody holds a connection by not shaking hands.
#[tokio::test]
async fn a_slow_handshake_is_ended_and_counted() {
    let dir = crate::support::world::directory();
    let authority = Authority::new();
    for first in [&b""[..], &[22], &[22, 3, 1, 2, 0, 1]] {
        let metrics = Arc::new(Metrics::new());
        let tls = Tls::new(Bundles::empty(), Arc::clone(&metrics), Duration::from_millis(50)).unwrap();
        load(&tls, &dir, &authority).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut slow = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        slow.write_all(first).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let ended = tls.accept(stream, true).await;
        assert!(matches!(ended, Err(HandshakeError::TimedOut)), "{first:?} {ended:?}");
        assert!(metrics.text().contains("tls_handshakes_total{outcome=\"TimedOut\"} 1"));
    }
}

async fn load(tls: &Tls, dir: &Path, authority: &Authority) {
    use behalf_sidecar::admin::Readiness;
    use behalf_sidecar::bundle_source::Source as _;
    use behalf_sidecar::clock::Clock;
    use behalf_sidecar::feed::Facts;
    use behalf_sidecar::tls::CertificateDirectory;
    mount_leaf(dir, &authority.leaf(|_| {}), "");
    let (clock, readiness, facts) = (Clock::system(), Readiness::new(), Facts::new());
    let mut directory = CertificateDirectory::new(dir, tls.clone(), clock, readiness, facts);
    directory.look().await;
    assert!(tls.current().is_some());
}

#[tokio::test]
async fn d17_the_framing_of_requests_has_one_reading_by_tls_too() {
    let secured = Secured::start(ignored(), "").await;
    let token = secured.world.alice();
    for (framing, reason) in [
        ("content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        ("content-length: 2\r\ncontent-length: 3\r\n\r\n{}", 400),
        ("transfer-encoding: xchunked\r\n\r\n0\r\n\r\n", 400),
        ("x: a\r\n b\r\ncontent-length: 2\r\n\r\n{}", 400),
    ] {
        let config = secured.client(None, &[b"http/1.1"]);
        let mut stream = handshake(secured.world.app.addresses.inbound, config).await.unwrap();
        let request = format!(
            "POST /mcp HTTP/1.1\r\nhost: hr.example.com\r\nauthorization: Bearer {token}\r\n{framing}"
        );
        let smuggled = "GET /mcp HTTP/1.1\r\nhost: hr.example.com\r\n\r\n";
        secured.world.count_one();
        stream.write_all(format!("{request}{smuggled}").as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {reason} ")), "{framing}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{framing}: {answer}");
        secured.world.last_record().await;
    }
    assert!(secured.world.server.seen().is_empty());
    secured.world.stop().await;
}

/// CVE-2023-44487, by TLS.
#[tokio::test]
async fn d18_a_rapid_reset_by_tls_ends_its_connection() {
    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    }
    let secured = Secured::start(ignored(), "").await;
    let stream =
        handshake(secured.world.app.addresses.inbound, secured.client(None, &[b"h2"])).await.unwrap();
    let (mut reader, mut writer) = tokio::io::split(stream);
    let flood = tokio::spawn(async move {
        let opening = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(4, 0, 0, &[])].concat();
        let head = [&[0x82, 0x84, 0x87, 0x01, 14][..], b"hr.example.com"].concat();
        let resets = (0..5_000_u32)
            .map(|n| 2 * n + 1)
            .map(|stream| [frame(1, 5, stream, &head), frame(3, 0, stream, &8_u32.to_be_bytes())].concat());
        for piece in std::iter::once(opening).chain(resets) {
            if writer.write_all(&piece).await.is_err() || writer.flush().await.is_err() {
                return;
            }
        }
        std::future::pending::<()>().await;
    });
    let mut answer = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(30), reader.read_to_end(&mut answer)).await;
    assert!(ended.is_ok(), "the connection goes on");
    flood.abort();
    let mut over = secured.connect(None).await;
    assert_eq!(over.send(search(&secured.world.alice())).await.status, 200);
    assert_eq!(secured.world.server.seen().len(), 1);
}

#[tokio::test]
async fn c30_a_drain_lets_calls_by_tls_end_and_closes_their_connections() {
    let secured = Secured::start(ignored(), "").await;
    let token = secured.world.alice();
    let (mut busy, mut idle) = (secured.connect_h2(None).await, secured.connect(None).await);
    assert_eq!(secured.send(&mut idle, search(&token)).await.status, 200);
    let answers = secured.world.server.slow_next();
    secured.world.count_one();
    let answer = busy.try_start(search(&token)).await.unwrap();
    let events = answers.recv().unwrap();
    // One that has not begun to shake hands keeps nobody.
    let mute = TcpStream::connect(secured.world.app.addresses.inbound).await.unwrap();
    let stopping = secured.world.stop();
    let body = async {
        eventually("who is idle is sent away", async || idle.is_closed().then_some(())).await;
        drop(events);
        answer.into_body().collect().await.unwrap()
    };
    let (records, _) = tokio::join!(stopping, body);
    assert_eq!(records.len(), 2);
    drop(mute);
}
