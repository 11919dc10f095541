//! The packet rules, in network namespaces of their own. Needs root, `ip` and `nft`: fails without.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A pod's network namespace and a peer outside of it, joined by a pair of links.
struct Pod {
    inside: String,
    outside: String,
    children: Vec<Child>,
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().expect("the program is there");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{program} {arguments:?} (root is needed): {}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

impl Pod {
    fn new(name: &str) -> Self {
        let (pod, peer) =
            (format!("bh-{name}-{}", std::process::id()), format!("bh-{name}-{}-p", std::process::id()));
        let world = Self { inside: pod, outside: peer, children: Vec::new() };
        for namespace in [&world.inside, &world.outside] {
            run("ip", &["netns", "add", namespace]);
            run("ip", &["-n", namespace, "link", "set", "lo", "up"]);
        }
        run(
            "ip",
            &[
                "-n",
                &world.inside,
                "link",
                "add",
                "eth0",
                "type",
                "veth",
                "peer",
                "name",
                "eth0",
                "netns",
                &world.outside,
            ],
        );
        for (namespace, v4, v6) in
            [(&world.inside, "10.77.0.1/24", "fd77::1/64"), (&world.outside, "10.77.0.2/24", "fd77::2/64")]
        {
            run("ip", &["-n", namespace, "addr", "add", v4, "dev", "eth0"]);
            run("ip", &["-n", namespace, "addr", "add", v6, "dev", "eth0", "nodad"]);
            run("ip", &["-n", namespace, "link", "set", "eth0", "up"]);
        }
        world
    }

    fn load(&self, arguments: &[&str]) {
        let mut all = vec!["netns", "exec", &self.inside, env!("CARGO_BIN_EXE_behalf-sidecar"), "redirect"];
        all.extend(arguments);
        run("ip", &all);
    }

    fn ruleset(&self) -> String {
        run("ip", &["netns", "exec", &self.inside, "nft", "list", "ruleset"])
    }

    /// Listens in the pod and says its own port to whoever connects.
    fn listen(&mut self, port: u16, uid: u32) {
        let script = format!(
            "import os, socket\nos.setuid({uid})\ns = socket.create_server(('::', {port}), family=socket.AF_INET6, dualstack_ipv6=True)\nprint('up', flush=True)\nwhile True:\n    c, _ = s.accept()\n    c.sendall(b'{port}')\n    c.close()\n"
        );
        let mut child = Command::new("ip")
            .args(["netns", "exec", &self.inside, "python3", "-c", &script])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line)
            .unwrap();
        assert_eq!(line, "up\n");
        self.children.push(child);
    }

    /// What a connection from there gets: the port that answered, or none.
    fn connect(from: &str, to: &str, port: u16, patience: u32) -> Option<u16> {
        let script = format!(
            "import socket\ns = socket.create_connection(('{to}', {port}), timeout={patience})\nprint(s.recv(16).decode())\n"
        );
        let output =
            Command::new("ip").args(["netns", "exec", from, "python3", "-c", &script]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).trim().parse().ok()
    }

    fn seen_outside(&self, to: &str, port: u16) -> Option<u16> {
        Self::connect(&self.outside, to, port, 10)
    }

    /// A dropped packet is never answered: so much patience tells it from a refusal, not from slowness,
    /// and the same way is shown to be open beside it.
    fn dropped(&self, to: &str, port: u16) -> bool {
        let begun = Instant::now();
        Self::connect(&self.outside, to, port, 1).is_none() && begun.elapsed() >= Duration::from_millis(900)
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        for namespace in [&self.inside, &self.outside] {
            let _ = Command::new("ip").args(["netns", "del", namespace]).status();
        }
    }
}

const GOLDEN: &str = r#"table inet behalf {
	chain prerouting {
		type nat hook prerouting priority dstnat; policy accept;
		iifname != "lo" tcp dport 8000 redirect to :15101
	}

	chain input {
		type filter hook input priority filter; policy drop;
		iifname "lo" accept
		ct state invalid drop
		ct state established ct direction reply accept
		icmp type redirect drop
		icmpv6 type nd-redirect drop
		meta l4proto icmp accept
		meta l4proto ipv6-icmp accept
		tcp dport 15101 accept
		tcp dport 15103 accept
		tcp dport 15104 accept
		tcp dport 9090 accept
		udp dport 53 accept
		sctp dport 3868 accept
	}

	chain output {
		type filter hook output priority filter; policy accept;
		tcp sport 15101-15104 meta skuid != 15001 drop
		oifname != "lo" ct state new tcp flags != syn / fin,syn,rst,ack drop
	}
}
"#;

#[test]
fn the_rules_are_these_and_a_second_run_replaces_them() {
    let pod = Pod::new("g");
    let arguments = [
        "--server-port",
        "8000",
        "--extra-port",
        "tcp/9090",
        "--extra-port",
        "udp/53",
        "--extra-port",
        "sctp/3868",
    ];
    pod.load(&arguments);
    assert_eq!(pod.ruleset(), GOLDEN);
    pod.load(&arguments);
    assert_eq!(pod.ruleset(), GOLDEN, "twice equals once");
    pod.load(&["--server-port", "8001"]);
    let changed = pod.ruleset();
    assert!(
        changed.contains("tcp dport 8001 redirect") && !changed.contains("8000") && !changed.contains("9090")
    );
}

#[test]
fn what_is_not_permitted_leaves_the_rules_as_they_are() {
    let pod = Pod::new("n");
    pod.load(&["--server-port", "8000"]);
    let before = pod.ruleset();
    let binary = env!("CARGO_BIN_EXE_behalf-sidecar");
    for arguments in [
        vec![
            "setpriv",
            "--reuid=15001",
            "--clear-groups",
            "--inh-caps=-all",
            "--bounding-set=-all",
            binary,
            "redirect",
            "--server-port",
            "9000",
        ],
        vec![binary, "redirect", "--server-port", "15101"],
        vec![binary, "redirect", "--server-port", "8000", "--extra-port", "tcp/8000"],
        vec![binary, "redirect", "--server-port", "8000", "--extra-port", "icmp/1"],
        vec![binary, "redirect"],
    ] {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &pod.inside]).args(&arguments);
        let output = command.output().unwrap();
        assert!(!output.status.success(), "{arguments:?}");
    }
    assert_eq!(pod.ruleset(), before);
}

#[test]
fn d31_outside_traffic_reaches_the_sidecar_and_nothing_else() {
    let mut pod = Pod::new("t");
    for (port, uid) in
        [(8000, 65_534), (15101, 15_001), (15102, 15_001), (15103, 15_001), (9090, 65_534), (9999, 65_534)]
    {
        pod.listen(port, uid);
    }
    for to in ["10.77.0.1", "fd77::1"] {
        assert_eq!(pod.seen_outside(to, 9999), Some(9999), "before the rules every port is open");
        assert_eq!(pod.seen_outside(to, 8000), Some(8000));
    }
    pod.load(&["--server-port", "8000", "--extra-port", "tcp/9090"]);
    for to in ["10.77.0.1", "fd77::1"] {
        assert_eq!(
            pod.seen_outside(to, 8000),
            Some(15101),
            "the server's port is the sidecar's from outside"
        );
        assert_eq!(pod.seen_outside(to, 15103), Some(15103));
        assert_eq!(pod.seen_outside(to, 9090), Some(9090));
        for port in [9999, 15102] {
            assert!(pod.dropped(to, port), "{to} {port}");
        }
    }
    for to in ["127.0.0.1", "::1", "10.77.0.1"] {
        assert_eq!(Pod::connect(&pod.inside, to, 8000, 10), Some(8000), "from inside, the server itself");
        assert_eq!(Pod::connect(&pod.inside, to, 15102, 10), Some(15102));
    }
    let echo = "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)\ns.settimeout(10)\ns.sendto(b'\\x08\\x00\\xf7\\xfe\\x00\\x01\\x00\\x00', ('10.77.0.1', 0))\nwhile s.recv(64)[20] != 0:\n    pass\n";
    run("ip", &["netns", "exec", &pod.outside, "python3", "-c", echo]);
}

#[test]
fn nobody_else_answers_from_our_ports() {
    let mut pod = Pod::new("s");
    pod.load(&["--server-port", "8000"]);
    pod.listen(15101, 65_534);
    pod.listen(15103, 15_001);
    assert_eq!(pod.seen_outside("10.77.0.1", 15103), Some(15103));
    assert!(pod.dropped("10.77.0.1", 15101), "a squatter's answers do not leave");
    assert!(pod.dropped("10.77.0.1", 8000));
    assert_eq!(Pod::connect(&pod.inside, "127.0.0.1", 15101, 1), None, "nor on loopback");
}

/// A connection that is held open: its server says what it is told to say, its client reports what came.
struct Held {
    server: Child,
    client: Child,
}

impl Held {
    /// Opened to `port` of the pod, one word said each way.
    fn open(pod: &Pod, to: &str, port: u16) -> Self {
        let serve = format!(
            "import socket, sys\ns = socket.create_server(('::', {port}), family=socket.AF_INET6, dualstack_ipv6=True)\nprint('up', flush=True)\nc, _ = s.accept()\nc.recv(1)\nfor line in sys.stdin:\n    c.sendall(line.encode())\n"
        );
        let call = format!(
            "import socket, sys\ns = socket.create_connection(('{to}', {port}), timeout=10)\ns.sendall(b'x')\nwhile True:\n    s.settimeout(1.5)\n    try:\n        got = s.recv(64).decode().strip()\n    except (TimeoutError, ConnectionError):\n        got = 'nothing'\n    print(got, flush=True)\n    if not sys.stdin.readline():\n        break\n    try:\n        s.sendall(b'y')\n    except OSError:\n        pass\n"
        );
        let start = |namespace: &str, script: &str| {
            Command::new("ip")
                .args(["netns", "exec", namespace, "python3", "-c", script])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap()
        };
        let mut server = start(&pod.inside, &serve);
        assert_eq!(line(&mut server), "up");
        let mut held = Self { client: start(&pod.outside, &call), server };
        held.say("before");
        assert_eq!(line(&mut held.client), "before");
        held
    }

    fn say(&mut self, word: &str) {
        use std::io::Write as _;
        writeln!(self.server.stdin.as_mut().unwrap(), "{word}").unwrap();
    }

    /// What the client gets once it has spoken, or the server has.
    fn after(&mut self, server_first: bool) -> String {
        use std::io::Write as _;
        if server_first {
            self.say("after");
        }
        writeln!(self.client.stdin.as_mut().unwrap(), "go on").unwrap();
        if !server_first {
            self.say("after");
        }
        line(&mut self.client)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        for child in [&mut self.server, &mut self.client] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn line(child: &mut Child) -> String {
    use std::io::Read as _;
    let output = child.stdout.as_mut().unwrap();
    let mut line = Vec::new();
    let mut byte = [0];
    while output.read(&mut byte).unwrap() == 1 && byte[0] != b'\n' {
        line.push(byte[0]);
    }
    String::from_utf8(line).unwrap()
}

#[test]
fn d31_a_connection_older_than_the_rules_does_not_live_on() {
    for (server_first, to) in
        [(true, "10.77.0.1"), (false, "10.77.0.1"), (true, "fd77::1"), (false, "fd77::1")]
    {
        let pod = Pod::new("o");
        let (mut server, mut other) = (Held::open(&pod, to, 8000), Held::open(&pod, to, 9999));
        let mut control = Held::open(&pod, to, 9090);
        assert_eq!(control.after(server_first), "after", "it lives as long as there are no rules");
        pod.load(&["--server-port", "8000", "--extra-port", "tcp/9091"]);
        assert_eq!(server.after(server_first), "nothing", "{to} {server_first}");
        assert_eq!(other.after(server_first), "nothing", "{to} {server_first}");
    }
}

#[test]
fn loading_the_rules_again_cuts_nobody_off() {
    let pod = Pod::new("r");
    let rules = ["--server-port", "8000", "--extra-port", "tcp/9090"];
    pod.load(&rules);
    let mut held = Held::open(&pod, "10.77.0.1", 9090);
    pod.load(&rules);
    assert_eq!(held.after(true), "after");
    pod.load(&rules);
    assert_eq!(held.after(false), "after");
}

#[test]
fn connections_from_inside_get_their_answers() {
    let pod = Pod::new("a");
    pod.load(&["--server-port", "8000"]);
    let serve = "import socket\ns = socket.create_server(('::', 7000), family=socket.AF_INET6, dualstack_ipv6=True)\nprint('up', flush=True)\nwhile True:\n    c, _ = s.accept()\n    c.sendall(b'7000')\n    c.close()\n";
    let mut peer = Command::new("ip")
        .args(["netns", "exec", &pod.outside, "python3", "-c", serve])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    assert_eq!(line(&mut peer), "up");
    let answers = ["10.77.0.2", "fd77::2"].map(|to| Pod::connect(&pod.inside, to, 7000, 10));
    peer.kill().unwrap();
    peer.wait().unwrap();
    assert_eq!(answers, [Some(7000), Some(7000)]);
}

/// Whether a datagram of so many bytes from outside reaches the pod's port before `patience` runs out.
fn datagram(pod: &Pod, to: &str, port: u16, size: u32, patience: u32) -> bool {
    let take = format!(
        "import socket\ns = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)\ns.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)\ns.bind(('::', {port}))\ns.settimeout({patience})\nprint('up', flush=True)\ntry:\n    s.recv(8)\n    print('got', flush=True)\nexcept TimeoutError:\n    print('nothing', flush=True)\n"
    );
    let send = format!(
        "import socket\nf = socket.AF_INET6 if ':' in '{to}' else socket.AF_INET\ns = socket.socket(f, socket.SOCK_DGRAM)\ns.sendto(b'x' * {size}, ('{to}', {port}))\n"
    );
    let mut taker = Command::new("ip")
        .args(["netns", "exec", &pod.inside, "python3", "-c", &take])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    assert_eq!(line(&mut taker), "up");
    run("ip", &["netns", "exec", &pod.outside, "python3", "-c", &send]);
    let said = line(&mut taker);
    taker.wait().unwrap();
    said == "got"
}

#[test]
fn d31_datagrams_reach_what_is_declared_and_nothing_else() {
    /// More than a link takes at once: it travels in fragments, of which the first alone names a port.
    const FRAGMENTED: u32 = 4000;
    let pod = Pod::new("u");
    for to in ["10.77.0.1", "fd77::1"] {
        assert!(datagram(&pod, to, 9999, 1, 10), "before the rules every port is open");
    }
    pod.load(&["--server-port", "8000", "--extra-port", "udp/53"]);
    for to in ["10.77.0.1", "fd77::1"] {
        assert!(datagram(&pod, to, 53, 1, 10), "{to}");
        assert!(datagram(&pod, to, 53, FRAGMENTED, 10), "{to}");
        // The server's port is TCP's alone, and so are ours.
        for port in [9999, 8000, 15101] {
            assert!(!datagram(&pod, to, port, 1, 1), "{to} {port}");
        }
        assert!(!datagram(&pod, to, 9999, FRAGMENTED, 1), "{to}");
    }
}
