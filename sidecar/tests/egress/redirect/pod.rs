//! A pod's network namespace with a peer outside of it, and what can be tried between the two.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A pod's network namespace and a peer outside of it, joined by a pair of links.
pub(super) struct Pod {
    pub(super) inside: String,
    pub(super) outside: String,
    children: Vec<Child>,
}

pub(super) fn run(program: &str, arguments: &[&str]) -> String {
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
    pub(super) fn new(name: &str) -> Self {
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

    pub(super) fn load(&self, arguments: &[&str]) {
        let mut all = vec!["netns", "exec", &self.inside, env!("CARGO_BIN_EXE_behalf-sidecar"), "redirect"];
        all.extend(arguments);
        run("ip", &all);
    }

    pub(super) fn ruleset(&self) -> String {
        run("ip", &["netns", "exec", &self.inside, "nft", "list", "ruleset"])
    }

    /// Listens in the pod and says its own port to whoever connects.
    pub(super) fn listen(&mut self, port: u16, uid: u32) {
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
    pub(super) fn connect(from: &str, to: &str, port: u16, patience: u32) -> Option<u16> {
        let script = format!(
            "import socket\ns = socket.create_connection(('{to}', {port}), timeout={patience})\nprint(s.recv(16).decode())\n"
        );
        let output =
            Command::new("ip").args(["netns", "exec", from, "python3", "-c", &script]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).trim().parse().ok()
    }

    pub(super) fn seen_outside(&self, to: &str, port: u16) -> Option<u16> {
        Self::connect(&self.outside, to, port, 10)
    }

    /// A dropped packet is never answered: so much patience tells it from a refusal, not from slowness,
    /// and the same way is shown to be open beside it.
    pub(super) fn dropped(&self, to: &str, port: u16) -> bool {
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

/// A connection that is held open: its server says what it is told to say, its client reports what came.
pub(super) struct Held {
    server: Child,
    client: Child,
}

impl Held {
    /// Opened to `port` of the pod, one word said each way.
    pub(super) fn open(pod: &Pod, to: &str, port: u16) -> Self {
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
    pub(super) fn after(&mut self, server_first: bool) -> String {
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

pub(super) fn line(child: &mut Child) -> String {
    use std::io::Read as _;
    let output = child.stdout.as_mut().unwrap();
    let mut line = Vec::new();
    let mut byte = [0];
    while output.read(&mut byte).unwrap() == 1 && byte[0] != b'\n' {
        line.push(byte[0]);
    }
    String::from_utf8(line).unwrap()
}

/// Whether a datagram of so many bytes from outside reaches the pod's port before `patience` runs out.
pub(super) fn datagram(pod: &Pod, to: &str, port: u16, size: u32, patience: u32) -> bool {
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
