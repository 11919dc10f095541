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
		ct state established,related accept
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
