//! `sidecar redirect`: loads the packet rules of an injected pod, as its first init container, with
//! `NET_ADMIN` and nothing else.
//!
//! What comes from outside for the server's port goes to the sidecar; all other input from outside is
//! dropped but for replies, ICMP, our own ports and those the identity declares. What would leave from
//! one of our ports by another user than ours is dropped, so that nobody can answer in our place. For IPv4
//! and IPv6 at once, TCP, UDP and SCTP; fragments are put together before they are judged, since the rules
//! ask for the state of connections.
//!
//! The rules replace those of an earlier run in one transaction, so that there is no moment without any.
//! In a new pod they are there before another container runs. Should a connection be older all the same
//! (the container runs again, or somebody shared the network before), it does not live on: only packets
//! that answer a connection opened from inside are replies, and none that is under way counts as opened.

mod message;

use std::io;
use std::str::FromStr;

use behalf_policy::wire::{EGRESS_PORT, INBOUND_PORT, METRICS_PORT, PROBE_PORT, SIDECAR_UID};
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};

use message::{
    Batch, Comparison, Expression, Hook, META_IIFNAME, META_L4PROTO, META_OIFNAME, META_SKUID, verdicts,
};

/// Name of the table, of family `inet`.
pub const TABLE: &str = "behalf";

/// Arguments of `sidecar redirect`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Port of the server, whose outside traffic goes to the sidecar.
    #[arg(long)]
    pub server_port: u16,
    /// A further port that may be reached from outside, as `tcp/9090`. May be repeated.
    #[arg(long = "extra-port", value_name = "PROTOCOL/PORT")]
    pub extra_ports: Vec<ExtraPort>,
}

/// A port that stays reachable from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExtraPort {
    /// Its transport protocol.
    pub protocol: Protocol,
    /// The port.
    pub port: u16,
}

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// Its number in IP (IANA).
    fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

/// Why the rules are not in force.
#[derive(Debug, thiserror::Error)]
pub enum RedirectError {
    /// Not written as protocol and port.
    #[error("a port is written as tcp/9090, udp/9090 or sctp/9090")]
    Syntax,
    /// A port that cannot be the server's or an extra one.
    #[error("port {0} is one of the sidecar's own, 0, or the server's")]
    Port(u16),
    /// No netlink.
    #[error("the kernel could not be asked")]
    Socket(#[from] io::Error),
    /// `NET_ADMIN` is missing.
    #[error("the kernel does not permit it: the container needs the capability NET_ADMIN")]
    NotPermitted,
    /// The kernel lacks something, or does not take a message.
    #[error("the kernel refused message {message} of the rules: {source}")]
    Refused {
        /// Which message of the batch.
        message: u32,
        /// The kernel's error.
        #[source]
        source: io::Error,
    },
}

impl RedirectError {
    /// Stable name.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Syntax => "PortSyntax",
            Self::Port(_) => "PortNotAllowed",
            Self::Socket(_) => "NetlinkFailed",
            Self::NotPermitted => "NetAdminMissing",
            Self::Refused { .. } => "RulesRefused",
        }
    }
}

impl FromStr for ExtraPort {
    type Err = RedirectError;

    fn from_str(text: &str) -> Result<Self, RedirectError> {
        let (protocol, port) = text.split_once('/').ok_or(RedirectError::Syntax)?;
        let protocol = match protocol {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            "sctp" => Protocol::Sctp,
            _ => return Err(RedirectError::Syntax),
        };
        if !port.bytes().all(|b| b.is_ascii_digit()) {
            return Err(RedirectError::Syntax);
        }
        Ok(Self { protocol, port: port.parse().map_err(|_| RedirectError::Syntax)? })
    }
}

/// Loads the rules into the network namespace of this process.
///
/// # Errors
/// When a port cannot be what it is said to be, or the kernel does not take the rules; then those from
/// before are in force, unchanged.
pub fn run(args: Args) -> Result<(), RedirectError> {
    let Args { server_port, extra_ports } = args;
    check(server_port, &extra_ports)?;
    let (bytes, last) = batch(server_port, &extra_ports).finish();
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let sent = socket.send(&bytes, 0)?;
    if sent != bytes.len() {
        return Err(io::Error::from(io::ErrorKind::WriteZero).into());
    }
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        for (message, errno) in verdicts(&datagram) {
            match errno {
                0 if message == last => return Ok(()),
                0 => {}
                // EPERM
                1 => return Err(RedirectError::NotPermitted),
                _ => {
                    let source = io::Error::from_raw_os_error(errno);
                    return Err(RedirectError::Refused { message, source });
                }
            }
        }
    }
}

fn check(server_port: u16, extra_ports: &[ExtraPort]) -> Result<(), RedirectError> {
    let ours = |port: u16| port == 0 || (INBOUND_PORT..=METRICS_PORT).contains(&port);
    if ours(server_port) {
        return Err(RedirectError::Port(server_port));
    }
    for extra in extra_ports {
        let server = extra.protocol == Protocol::Tcp && extra.port == server_port;
        if server || ours(extra.port) {
            return Err(RedirectError::Port(extra.port));
        }
    }
    Ok(())
}

fn batch(server_port: u16, extra_ports: &[ExtraPort]) -> Batch {
    const DROP: Expression = Expression::Verdict(false);
    const ACCEPT: Expression = Expression::Verdict(true);
    let mut batch = Batch::replacing(TABLE);

    batch.chain("prerouting", Hook { kind: "nat", number: 0, priority: -100, accept: true });
    let mut redirect = interface(META_IIFNAME, Comparison::NotEqual);
    redirect.extend(destination(Protocol::Tcp, server_port));
    redirect.push(Expression::Redirect(INBOUND_PORT));
    batch.rule("prerouting", &redirect);

    batch.chain("input", Hook { kind: "filter", number: 1, priority: 0, accept: false });
    let mut input = |mut condition: Vec<Expression>, verdict: Expression| {
        condition.push(verdict);
        batch.rule("input", &condition);
    };
    input(interface(META_IIFNAME, Comparison::Equal), ACCEPT);
    input(state(INVALID), DROP);
    input(replies(), ACCEPT);
    // Nobody outside tells the pod where its packets should go.
    for (icmp, redirect) in [(ICMP, 5), (ICMP6, 137)] {
        input(icmp_type(icmp, redirect), DROP);
    }
    for icmp in [ICMP, ICMP6] {
        input(transport(icmp), ACCEPT);
    }
    // The egress port is loopback's only.
    for port in [INBOUND_PORT, PROBE_PORT, METRICS_PORT] {
        input(destination(Protocol::Tcp, port), ACCEPT);
    }
    for extra in extra_ports {
        input(destination(extra.protocol, extra.port), ACCEPT);
    }

    batch.chain("output", Hook { kind: "filter", number: 3, priority: 0, accept: true });
    let mut squatter = transport(Protocol::Tcp.number());
    squatter.extend([
        Expression::Transport { offset: 0, length: 2 },
        Expression::Compare(Comparison::AtLeast, INBOUND_PORT.to_be_bytes().into()),
        Expression::Compare(Comparison::AtMost, METRICS_PORT.to_be_bytes().into()),
        Expression::Meta(META_SKUID),
        Expression::Compare(Comparison::NotEqual, sidecar_uid().to_ne_bytes().into()),
        DROP,
    ]);
    batch.rule("output", &squatter);
    let mut under_way = interface(META_OIFNAME, Comparison::NotEqual);
    under_way.extend(not_opening());
    under_way.push(DROP);
    batch.rule("output", &under_way);
    batch
}

/// Protocol numbers (IANA).
const ICMP: u8 = 1;
const ICMP6: u8 = 58;
/// Bits of a connection's state as `nf_tables` loads it.
const INVALID: u32 = 1;
const ESTABLISHED: u32 = 2;
const NEW: u32 = 8;

/// Loopback, or anything but loopback.
fn interface(which: u32, comparison: Comparison) -> Vec<Expression> {
    // The kernel compares the whole of the name's field.
    let mut name = vec![0; 16];
    name.splice(..2, *b"lo");
    vec![Expression::Meta(which), Expression::Compare(comparison, name)]
}

fn state(bits: u32) -> Vec<Expression> {
    vec![
        Expression::ConnectionState,
        Expression::Mask(bits.to_ne_bytes().into()),
        Expression::Compare(Comparison::NotEqual, vec![0; 4]),
    ]
}

/// Answers to connections that were opened from inside. What comes the other way is judged by its port, packet by packet.
fn replies() -> Vec<Expression> {
    const REPLY: u8 = 1;
    let mut expressions = state(ESTABLISHED);
    expressions.extend([Expression::Direction, Expression::Compare(Comparison::Equal, vec![REPLY])]);
    expressions
}

/// TCP packets that would make the kernel take a connection under way for one that was opened from inside.
fn not_opening() -> Vec<Expression> {
    const FLAGS_AT: u32 = 13;
    const FIN_SYN_RST_ACK: u8 = 0x17;
    const SYN: u8 = 0x02;
    let mut expressions = transport(Protocol::Tcp.number());
    expressions.extend(state(NEW));
    expressions.extend([
        Expression::Transport { offset: FLAGS_AT, length: 1 },
        Expression::Mask(vec![FIN_SYN_RST_ACK]),
        Expression::Compare(Comparison::NotEqual, vec![SYN]),
    ]);
    expressions
}

fn icmp_type(protocol: u8, kind: u8) -> Vec<Expression> {
    let mut expressions = transport(protocol);
    expressions.extend([
        Expression::Transport { offset: 0, length: 1 },
        Expression::Compare(Comparison::Equal, vec![kind]),
    ]);
    expressions
}

fn transport(number: u8) -> Vec<Expression> {
    vec![Expression::Meta(META_L4PROTO), Expression::Compare(Comparison::Equal, vec![number])]
}

fn destination(protocol: Protocol, port: u16) -> Vec<Expression> {
    let mut expressions = transport(protocol.number());
    expressions.extend([
        Expression::Transport { offset: 2, length: 2 },
        Expression::Compare(Comparison::Equal, port.to_be_bytes().into()),
    ]);
    expressions
}

fn sidecar_uid() -> u32 {
    const {
        assert!(SIDECAR_UID > 0 && SIDECAR_UID < 65_536);
        assert!(INBOUND_PORT < EGRESS_PORT && EGRESS_PORT < METRICS_PORT && PROBE_PORT < METRICS_PORT);
    };
    u32::try_from(SIDECAR_UID).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_extra_port_names_protocol_and_port() {
        let port = |protocol, port| ExtraPort { protocol, port };
        for (text, expected) in [
            ("tcp/9090", port(Protocol::Tcp, 9090)),
            ("udp/53", port(Protocol::Udp, 53)),
            ("sctp/65535", port(Protocol::Sctp, 65535)),
        ] {
            assert_eq!(text.parse::<ExtraPort>().unwrap(), expected);
        }
        for text in
            ["9090", "tcp/", "tcp/65536", "tcp/-1", "tcp/+1", "TCP/1", "icmp/1", "tcp/9090/x", "", "tcp/ 1"]
        {
            assert!(text.parse::<ExtraPort>().is_err(), "{text}");
        }
    }

    #[test]
    fn ports_of_ours_or_the_server_are_refused() {
        let check = |server, extra: &str| {
            let extra: Vec<ExtraPort> =
                extra.split(' ').filter(|e| !e.is_empty()).map(|e| e.parse().unwrap()).collect();
            check(server, &extra)
        };
        for (server, extra) in [
            (0, ""),
            (15101, ""),
            (15104, ""),
            (8000, "tcp/8000"),
            (8000, "tcp/15102"),
            (8000, "udp/15101"),
            (8000, "tcp/0"),
        ] {
            assert!(check(server, extra).is_err(), "{server} {extra}");
        }
        assert!(check(8000, "udp/8000 tcp/9090 tcp/9090").is_ok());
    }
}
