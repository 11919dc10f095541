//! Our own ports: held by somebody else, on both families, shared with nobody, and proved to be ours.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use behalf_policy::feed::proof_message;
use behalf_sidecar::clock::Clock;
use behalf_sidecar::config::Config;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::support::bundle::Operator;
use crate::support::world::{config, directory};
use crate::support::{Call, Feed, World, eventually};

/// Puts one address among our own.
type Change = fn(&mut Config, SocketAddr);

const CHALLENGE: &str = "AAAAAAAAAAAAAAAAAAAAAA";

#[tokio::test]
async fn a_squatted_port_keeps_the_sidecar_up_unready_and_telling_until_it_is_free() {
    let taken = TcpListener::bind("[::1]:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    let feed = Feed::start().await;
    let world = World::configured(|config| config.inbound_addresses.push(address)).await;
    world.give_feed_token("token");
    world.publish(&feed.document(1, &world)).await;
    let (status, text) = world.ready().await;
    assert_eq!(status, 503);
    assert_eq!(text, format!("pending: port {} (PortSquatted)\n", address.port()));
    feed.says("it is told", |r| r.squatted == [address.port()].into()).await;
    // What is ours works meanwhile, for whoever comes before kubelet notices.
    assert_eq!(world.send(Call::list().token(&world.alice())).await.status, 200);

    drop(taken);
    eventually("it is ready", async || (world.ready().await == (200, "ready\n".to_owned())).then_some(()))
        .await;
    feed.says("it is told", |r| r.squatted.is_empty()).await;
    // And it is served, over IPv6.
    let answer = Call::tool("directory.search").token(&world.alice()).send(address).await;
    assert_eq!(answer.status, 200);
    assert_eq!(world.records_of(2).await[1]["subject"], "alice");
    world.app.drain(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn each_of_our_ports_may_be_squatted_and_a_drain_ends_all_the_same() {
    let changes: [(&str, Change); 4] = [
        ("inbound", |config, at| config.inbound_addresses = vec![at]),
        ("egress", |config, at| config.egress_addresses = vec![at]),
        ("probe", |config, at| config.probe_addresses.push(at)),
        ("metrics", |config, at| config.metrics_addresses = vec![at]),
    ];
    for (name, change) in changes {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = taken.local_addr().unwrap();
        let mut config = config(&Operator::new(), directory());
        change(&mut config, at);
        let app = behalf_sidecar::app::App::start(config, std::io::sink(), Clock::system()).await.unwrap();
        let text = Call::get("/readyz").send(app.addresses.probe).await;
        let text = String::from_utf8(text.body.to_vec()).unwrap();
        assert!(text.contains(&format!("pending: port {} (PortSquatted)\n", at.port())), "{name}: {text}");
        assert_eq!(Call::get("/livez").send(app.addresses.probe).await.status, 200);
        app.drain(Duration::from_secs(5)).await;
    }
}

#[tokio::test]
async fn nobody_can_listen_beside_us() {
    let any = "0.0.0.0:0".parse().unwrap();
    let world = World::configured(|config| config.inbound_addresses = vec![any]).await;
    let port = world.app.addresses.inbound.port();
    for address in ["0.0.0.0", "127.0.0.1", "127.0.0.2"] {
        let at = SocketAddr::new(address.parse::<IpAddr>().unwrap(), port);
        for (reuse_address, reuse_port) in [(false, false), (true, false), (false, true), (true, true)] {
            let socket = TcpSocket::new_v4().unwrap();
            socket.set_reuseaddr(reuse_address).unwrap();
            socket.set_reuseport(reuse_port).unwrap();
            assert!(socket.bind(at).and_then(|()| socket.listen(1)).is_err(), "{at}");
        }
    }
    // One socket for both families is one beside ours, too.
    assert!(TcpListener::bind(("::", port)).await.is_err());
    world.stop().await;
}

/// What is answered to a challenge, and to whom.
async fn challenged(to: SocketAddr, challenge: &str) -> (u16, String, SocketAddr) {
    let mut stream = TcpStream::connect(to).await.unwrap();
    let asker = stream.local_addr().unwrap();
    let head = format!(
        "GET /.well-known/behalf/challenge/{challenge} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned(), asker)
}

#[tokio::test]
async fn a_challenge_is_answered_with_a_proof_for_its_asker_before_anything_else_and_is_no_call() {
    let feed = Feed::start().await;
    let v6 = "[::1]:0".parse().unwrap();
    let world = World::configured(|config| config.probe_addresses = vec![v6]).await;
    let (inbound, probe) = (world.app.addresses.inbound, world.app.addresses.probe);
    assert_eq!(challenged(inbound, CHALLENGE).await.0, 200, "even without a bundle");
    world.give_feed_token("token");
    world.publish(&feed.document(1, &world)).await;
    let told = feed.says("the key", |r| r.bundle.is_some()).await;
    let key = hmac::Key::new(hmac::HMAC_SHA256, told.proof_key.expose().as_bytes());
    let proves = |challenge: &str, asker: SocketAddr, proof: &str| {
        let message = proof_message(challenge, asker.ip(), asker.port());
        hmac::verify(&key, &message, &URL_SAFE_NO_PAD.decode(proof).unwrap()).is_ok()
    };
    for to in [inbound, probe] {
        let (status, proof, asker) = challenged(to, CHALLENGE).await;
        assert_eq!(status, 200);
        assert!(proves(CHALLENGE, asker, &proof), "{to}");
        let (_, _, another) = challenged(to, CHALLENGE).await;
        assert!(!proves(CHALLENGE, another, &proof), "fetched through somebody else");
        assert!(!proves("BAAAAAAAAAAAAAAAAAAAAA", asker, &proof), "of another challenge");
    }
    let metrics = world.metrics().await;
    assert!(metrics.contains("behalf_sidecar_challenges_total{outcome=\"Answered\"} 5"), "{metrics}");

    // What is not exactly a challenge is a request like any other.
    for call in [
        Call::get("/.well-known/behalf/challenge/short"),
        Call::get(&format!("/.well-known/behalf/challenge/{CHALLENGE}?a=1")),
        Call::delete(&format!("/.well-known/behalf/challenge/{CHALLENGE}")),
    ] {
        assert_eq!(world.send(call).await.status, 404);
        assert_eq!(world.last_record().await["reason"], "UnknownPath");
    }
    // Nobody makes it a load: the bound is for both ports together.
    let mut refused = 0;
    for _ in 0..200 {
        refused += usize::from(challenged(inbound, CHALLENGE).await.0 == 429);
        if refused > 0 {
            break;
        }
    }
    let last = feed.last().unwrap();
    let records = world.stop().await;
    assert_eq!(records.len(), 3, "a challenge leaves no record");
    assert!(last.decisions.allowed == 0);
    assert_eq!(feed.last().unwrap().decisions.denied, 3);
}
