//! The packet rules, in network namespaces of their own. Needs root, `ip` and `nft`: fails without.

mod pod;

use std::process::{Command, Stdio};

use self::pod::{Held, Pod, datagram, line, run};

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
