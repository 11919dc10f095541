//! What listens beyond loopback in the pod: whatever stands there can be reached past the sidecar, if nothing else stops it.
//!
//! All containers of a pod share one network namespace, whose sockets the kernel lists in `/proc/net`.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::time::Duration;

use behalf_policy::feed::{Listener, Protocol};
use tokio::time::MissedTickBehavior;

use crate::feed::Facts;

/// Where the kernel lists the sockets of our network namespace.
const LISTS: &str = "/proc/net";
/// How often they are looked at.
const PERIOD: Duration = Duration::from_secs(3);
/// `TCP_LISTEN` as `/proc/net/tcp` writes it (Linux `tcp_states.h`).
const TCP_LISTEN: &str = "0A";
/// A UDP socket that is bound and not connected has the state `TCP_CLOSE` there.
const UDP_UNCONNECTED: &str = "07";
/// `SCTP_SS_LISTENING` in `/proc/net/sctp/eps`, decimal there.
const SCTP_LISTENING: &str = "10";

/// What was found in one of the lists.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// What listens beyond loopback.
    pub listeners: BTreeSet<Listener>,
    /// There was a line that could not be read.
    pub unread: bool,
}

/// Reads `/proc/net/{tcp,tcp6,udp,udp6}` (`proc(5)`, `proc_pid_net(5)`): one socket a line below a heading.
#[must_use]
pub fn internet(protocol: Protocol, text: &str) -> Found {
    let state = if protocol == Protocol::Udp { UDP_UNCONNECTED } else { TCP_LISTEN };
    let mut found = Found::default();
    for line in text.lines().skip(1).filter(|line| !line.trim().is_empty()) {
        let mut fields = line.split_whitespace().skip(1);
        let (local, _, is) = (fields.next(), fields.next(), fields.next());
        match local.and_then(socket).zip(is) {
            None => found.unread = true,
            Some(((address, port), is)) if is == state && !is_loopback(address) && port != 0 => {
                found.listeners.insert(Listener { protocol, port });
            }
            Some(_) => {}
        }
    }
    found
}

/// Reads `/proc/net/sctp/eps` (Linux `net/sctp/proc.c`): an endpoint with all its addresses a line below a heading.
#[must_use]
pub fn sctp(text: &str) -> Found {
    let mut found = Found::default();
    for line in text.lines().skip(1).filter(|line| !line.trim().is_empty()) {
        let fields: Vec<_> = line.split_whitespace().collect();
        let (Some(state), Some(Ok(port)), Some(addresses)) =
            (fields.get(3), fields.get(5).map(|port| port.parse::<u16>()), fields.get(8..))
        else {
            found.unread = true;
            continue;
        };
        let loopback = |text: &&str| text.parse::<IpAddr>().is_ok_and(is_loopback);
        let confined = !addresses.is_empty() && addresses.iter().all(loopback);
        if *state == SCTP_LISTENING && !confined && port != 0 {
            found.listeners.insert(Listener { protocol: Protocol::Sctp, port });
        }
    }
    found
}

fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// `0100007F:1F90`: the address in words as the machine's own byte order prints them, then the port.
fn socket(text: &str) -> Option<(IpAddr, u16)> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| {
        let digits = address.get(at..at.checked_add(8)?)?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    let address = match address.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let words = [word(0)?, word(8)?, word(16)?, word(24)?];
            let mut octets = [0; 16];
            for (to, from) in octets.iter_mut().zip(words.iter().flatten()) {
                *to = *from;
            }
            IpAddr::V6(Ipv6Addr::from(octets))
        }
        _ => return None,
    };
    Some((address, port))
}

/// Looks now and then for ever. `ours` are the TCP ports of this sidecar: who holds them is told by another name.
///
/// Programs that ask a name server hold a UDP port of the same kind for a moment: one counts from the second look on.
pub async fn watch(facts: Facts, ours: BTreeSet<u16>) {
    let mut before = BTreeSet::new();
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let found = look(Path::new(LISTS)).await;
        let is_ours = |l: &Listener| l.protocol == Protocol::Tcp && ours.contains(&l.port);
        let stays = |l: &Listener| l.protocol != Protocol::Udp || before.contains(l);
        let listeners = found.listeners.iter().filter(|l| !is_ours(l) && stays(l)).copied().collect();
        facts.listeners(&listeners, found.unread);
        before = found.listeners;
    }
}

async fn look(lists: &Path) -> Found {
    let mut all = Found::default();
    let mut add = |found: Found| {
        all.listeners.extend(found.listeners);
        all.unread |= found.unread;
    };
    for (name, protocol) in [
        ("tcp", Protocol::Tcp),
        ("tcp6", Protocol::Tcp),
        ("udp", Protocol::Udp),
        ("udp6", Protocol::Udp),
        ("sctp/eps", Protocol::Sctp),
    ] {
        // A kernel without IPv6 or SCTP has no such list; without the others nothing can be said.
        let optional = !matches!(name, "tcp" | "udp");
        add(match tokio::fs::read_to_string(lists.join(name)).await {
            Ok(text) if protocol == Protocol::Sctp => sctp(&text),
            Ok(text) => internet(protocol, &text),
            Err(error) if optional && error.kind() == ErrorKind::NotFound => Found::default(),
            Err(error) => {
                tracing::warn!(%error, list = name, "the pod's listeners cannot be seen");
                Found { unread: true, ..Found::default() }
            }
        });
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const TCP: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 22119 1 0000000000000000 100 0 0 10 0
   1: 00000000:2382 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 22120 1 0000000000000000 100 0 0 10 0
   2: 0B00F40A:C35C 0100600A:01BB 01 00000000:00000000 02:000003C5 00000000     0        0 24190 2 0000000000000000 20 4 30 10 -1
   3: 0B00F40A:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 24191 1 0000000000000000 100 0 0 10 0
   4: 0200007F:0051 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 24192 1 0000000000000000 100 0 0 10 0
";
    const TCP6: &str = "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 25001 1 0000000000000000 100 0 0 10 0
   1: 00000000000000000000000001000000:1F91 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 25002 1 0000000000000000 100 0 0 10 0
   2: 0000000000000000FFFF00000100007F:1F92 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 25003 1 0000000000000000 100 0 0 10 0
   3: 0000000000000000FFFF00000B00F40A:1F93 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 25004 1 0000000000000000 100 0 0 10 0
   4: 000080FE00000000FF005450B6AD1DFE:1F94 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 25005 1 0000000000000000 100 0 0 10 0
   5: 000080FE00000000FF005450B6AD1DFE:1F95 000080FE00000000FF005450B6AD1DFE:9999 06 00000000:00000000 00:00000000 00000000     0        0 0 3 0000000000000000
";
    const UDP: &str = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  102: 00000000:14E9 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 31337 2 0000000000000000 0
  103: 0B00F40A:A001 0A00600A:0035 01 00000000:00000000 00:00000000 00000000     0        0 31338 2 0000000000000000 0
  104: 0100007F:0277 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 31339 2 0000000000000000 0
";
    const SCTP: &str = " ENDPT     SOCK   STY SST HBKT LPORT   UID INODE LADDRS
ffff8880078fc000 ffff8880048d8000 2   10  29   11167     0 15126 0.0.0.0
ffff8880078fd000 ffff8880048d9000 2   10  29   11168     0 15127 127.0.0.1
ffff8880078fe000 ffff8880048da000 2   10  29   11169     0 15128 127.0.0.1 0000:0000:0000:0000:0000:0000:0000:0001 10.244.0.11
ffff8880078ff000 ffff8880048db000 2   7   29   11170     0 15129 10.244.0.11
";

    fn ports(found: &Found) -> Vec<u16> {
        found.listeners.iter().map(|listener| listener.port).collect()
    }

    #[test]
    fn what_listens_beyond_loopback_is_found_and_nothing_else() {
        for (found, expected) in [
            (internet(Protocol::Tcp, TCP), vec![80, 9090]),
            (internet(Protocol::Tcp, TCP6), vec![8080, 8083, 8084]),
            (internet(Protocol::Udp, UDP), vec![5353]),
            (sctp(SCTP), vec![11_167, 11_169]),
        ] {
            assert_eq!(ports(&found), expected);
            assert!(!found.unread);
        }
        assert_eq!(internet(Protocol::Tcp, ""), Found::default());
    }

    #[test]
    fn a_line_that_cannot_be_read_is_said() {
        for bad in
            ["x", "0: 0100007F 0 0A", "0: 0100007:1F40 0 0A", "0: 0100007F:1F40X 0 0A", "0: ÄÄÄÄ:1F40 0 0A"]
        {
            let found = internet(Protocol::Tcp, &format!("heading\n{bad}\n"));
            assert!(found.unread && found.listeners.is_empty(), "{bad}");
        }
        assert!(sctp("heading\na b c\n").unread);
        assert!(sctp("heading\na b 2 10 29 x 0 1 0.0.0.0\n").unread);
    }

    #[tokio::test]
    async fn a_list_that_is_not_there_is_said_unless_the_kernel_may_lack_it() {
        assert!(look(Path::new("/nonexistent")).await.unread);
        assert!(!look(Path::new(LISTS)).await.unread, "this machine's own lists can be read");
    }
}
