//! Names that resolve to where nobody may go, and name servers that change their mind.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use behalf_sidecar::provider::address::{AddressPolicy, AddressRefusal};
use behalf_sidecar::provider::dial::{DialError, Network};
use behalf_sidecar::provider::http::{HttpClient, HttpError};
use serde_json::json;
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinHandle;

use crate::idp::network;
use crate::tap::{OK, Say, Tap};
use crate::world::World;

/// Addresses for a name, told by how many lookups came before.
type Zone = Arc<Mutex<Box<dyn Fn(usize) -> Vec<IpAddr> + Send>>>;

/// A name server on loopback. Every answer may be forgotten at once.
struct Dns {
    address: SocketAddr,
    zone: Zone,
    /// Questions for IPv4 addresses so far, with the name.
    asked: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Dns {
    async fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let zone: Zone = Arc::new(Mutex::new(Box::new(|_| Vec::new())));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (answers, log) = (Arc::clone(&zone), Arc::clone(&asked));
        let task = tokio::spawn(async move {
            let mut packet = [0; 1500];
            loop {
                let (len, from) = socket.recv_from(&mut packet).await.unwrap();
                let (name, kind, end) = question(&packet[..len]);
                let lookups = {
                    let mut log = log.lock().unwrap();
                    if kind == 1 {
                        log.push(name);
                        log.len() - 1
                    } else {
                        log.len().saturating_sub(1)
                    }
                };
                let all = answers.lock().unwrap()(lookups);
                let matching: Vec<_> =
                    all.into_iter().filter(|a| kind == if a.is_ipv4() { 1 } else { 28 }).collect();
                let mut answer = packet[..2].to_vec();
                answer.extend_from_slice(&[
                    0x81,
                    0x80,
                    0,
                    1,
                    0,
                    u8::try_from(matching.len()).unwrap(),
                    0,
                    0,
                    0,
                    0,
                ]);
                answer.extend_from_slice(&packet[12..end]);
                for address in matching {
                    answer.extend_from_slice(&[0xc0, 12, 0, u8::try_from(kind).unwrap(), 0, 1, 0, 0, 0, 0]);
                    match address {
                        IpAddr::V4(v4) => answer.extend_from_slice(&[&[0, 4][..], &v4.octets()].concat()),
                        IpAddr::V6(v6) => answer.extend_from_slice(&[&[0, 16][..], &v6.octets()].concat()),
                    }
                }
                socket.send_to(&answer, from).await.unwrap();
            }
        });
        Self { address, zone, asked, task }
    }

    fn answers(&self, zone: impl Fn(usize) -> Vec<&'static str> + Send + 'static) {
        let parse = move |n| zone(n).into_iter().map(|a| a.parse().unwrap()).collect();
        *self.zone.lock().unwrap() = Box::new(parse);
    }

    fn network(&self, addresses: AddressPolicy) -> Network {
        let mut network = network();
        network.nameservers = vec![self.address];
        network.addresses = addresses;
        network
    }
}

/// Name, kind and end of the one question of a packet.
fn question(packet: &[u8]) -> (String, u16, usize) {
    let (mut at, mut labels) = (12, Vec::new());
    while packet[at] != 0 {
        let len = usize::from(packet[at]);
        labels.push(String::from_utf8(packet[at + 1..=at + len].to_vec()).unwrap());
        at += len + 1;
    }
    (labels.join(".").to_ascii_lowercase(), u16::from_be_bytes([packet[at + 1], packet[at + 2]]), at + 5)
}

/// Listens where nobody may connect to, and counts who does.
struct Trap {
    port: u16,
    connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Trap {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Trap {
    async fn at(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        let task = tokio::spawn(async move {
            while listener.accept().await.is_ok() {
                count.fetch_add(1, Ordering::SeqCst);
            }
        });
        Self { port, connections, task }
    }

    fn is_untouched(&self) -> bool {
        self.connections.load(Ordering::SeqCst) == 0
    }
}

#[tokio::test]
async fn d9_a_name_that_resolves_to_the_pod_or_its_node_is_refused_at_connect() {
    let dns = Dns::start().await;
    let trap = Trap::at(SocketAddr::from(([127, 0, 0, 1], 0))).await;
    let port = trap.port;
    let trap6 = Trap::at(SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], port))).await;
    let own = ["10.9.8.7".parse().unwrap(), "fd12::7".parse().unwrap()];
    let network = dns.network(AddressPolicy::cluster(own.to_vec()));
    for (answer, why) in [
        (vec!["127.0.0.1"], AddressRefusal::Loopback),
        (vec!["::1"], AddressRefusal::Loopback),
        (vec!["::ffff:127.0.0.1"], AddressRefusal::Loopback),
        (vec!["64:ff9b::7f00:1"], AddressRefusal::Loopback),
        (vec!["169.254.169.254"], AddressRefusal::LinkLocal),
        (vec!["fe80::1"], AddressRefusal::LinkLocal),
        (vec!["100.100.100.200"], AddressRefusal::Metadata),
        (vec!["fd00:ec2::254"], AddressRefusal::Metadata),
        (vec!["0.0.0.0"], AddressRefusal::Unspecified),
        (vec!["224.0.0.1"], AddressRefusal::NoHost),
        (vec!["10.9.8.7"], AddressRefusal::Own),
        (vec!["fd12::7"], AddressRefusal::Own),
        (vec!["::ffff:10.9.8.7"], AddressRefusal::Own),
        (vec!["2001::1"], AddressRefusal::Opaque),
        // One bad address spoils the name, wherever it stands; none of the others is tried.
        (vec!["192.0.2.1", "127.0.0.1"], AddressRefusal::Loopback),
        (vec!["127.0.0.1", "192.0.2.1"], AddressRefusal::Loopback),
        (vec!["192.0.2.1", "::1"], AddressRefusal::Loopback),
    ] {
        let shown = format!("{answer:?}");
        dns.answers(move |_| answer.clone());
        let client = HttpClient::new(&network).unwrap();
        let refused = client.get(&format!("https://payroll.hr.svc:{port}/"), None).await.err();
        assert_eq!(refused, Some(HttpError::Dial(DialError::AddressRefused(why))), "{shown}");
    }
    // Written into the URL, in every notation that a URL knows for them, and by the one name it means.
    let client = HttpClient::new(&network).unwrap();
    for host in [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f.1",
        "0177.0.0.1",
        "[::1]",
        "[::ffff:7f00:1]",
        "localhost",
        "a.localhost",
        "LOCALHOST",
        "localhost.",
        "0",
        "[::]",
        "169.254.169.254",
        "10.9.8.7",
        "[fd12::7]",
    ] {
        let refused = client.get(&format!("https://{host}:{port}/"), None).await.err();
        assert!(
            matches!(refused, Some(HttpError::Dial(DialError::AddressRefused(_)))),
            "{host}: {refused:?}"
        );
    }
    assert!(trap.is_untouched() && trap6.is_untouched(), "no byte, not even a connection");
    let names = dns.asked.lock().unwrap().clone();
    assert!(names.iter().all(|n| n == "payroll.hr.svc.cluster.local"), "one absolute name: {names:?}");
}

/// Payroll is at 127.0.0.1; 127.0.0.66, same port, is the pod's own.
#[tokio::test]
async fn d9_dns_that_changes_its_mind_changes_nothing() {
    let (dns, payroll) = (Dns::start().await, Tap::start().await);
    let trap = Trap::at(SocketAddr::from(([127, 0, 0, 66], payroll.port))).await;
    let network = dns.network(AddressPolicy::local_run().with_own(["127.0.0.66".parse().unwrap()]));
    let (url, ca) = (format!("https://payroll.hr.svc:{}/api", payroll.port), payroll.ca.clone());
    let world = World::on(&network, |d| {
        d["serve"]["downstreams"][0]["url"] = json!(url);
        d["serve"]["downstreams"][0]["caBundle"] = json!(ca);
    })
    .await;
    let alice = world.open("alice");
    // Each answer ends its connection, so that each request resolves and connects anew.
    payroll.says(|_| Say { pieces: vec![OK.as_bytes().to_vec()], close: true });

    // Good when judged, bad from then on: the judged address is the one that is connected to.
    dns.answers(|n| if n == 0 { vec!["127.0.0.1"] } else { vec!["127.0.0.66"] });
    assert_eq!(world.get("/payroll/1", alice.as_str()).await.status, 200);
    assert_eq!(dns.asked.lock().unwrap().len(), 1, "resolved once");
    let again = eventually_refused(&world, alice.as_str()).await;
    assert_eq!(again, "AddressRefused");
    assert_eq!(world.last().await["reason"], "AddressRefused");

    // Bad first, and good ever after: the first is refused and nothing of it is kept.
    let before = dns.asked.lock().unwrap().len();
    dns.answers(move |n| if n <= before { vec!["127.0.0.66"] } else { vec!["127.0.0.1"] });
    assert_eq!(world.get("/payroll/2", alice.as_str()).await.reason(), "AddressRefused");
    assert_eq!(world.get("/payroll/3", alice.as_str()).await.status, 200);

    // Both at once, in either order.
    for answer in [vec!["127.0.0.1", "127.0.0.66"], vec!["127.0.0.66", "127.0.0.1"]] {
        dns.answers(move |_| answer.clone());
        assert_eq!(eventually_refused(&world, alice.as_str()).await, "AddressRefused");
    }
    // Gone.
    dns.answers(|_| Vec::new());
    assert_eq!(world.get("/payroll/4", alice.as_str()).await.reason(), "DownstreamUnreachable");
    assert!(trap.is_untouched(), "no byte, not even a connection");
    assert!(payroll.all().0.iter().all(|t| t.line().starts_with("GET /api/")));
}

/// Until the connection that was kept has been seen to be closed, a request may still find it.
async fn eventually_refused(world: &World, handle: &str) -> String {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    loop {
        let answer = world.get("/payroll/again", handle).await;
        if answer.status != 200 {
            return answer.reason();
        }
        assert!(tokio::time::Instant::now() < deadline, "the name is still good");
    }
}
