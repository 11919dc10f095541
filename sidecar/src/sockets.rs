//! Our own sockets: one per address family, each of us alone.
//!
//! A port of ours that somebody else holds (`PortSquatted`) does not end the sidecar: it stays up to say so, unready, and
//! takes the port as soon as it is free. `SO_REUSEADDR` lets a restart have a port whose old connections linger; on Linux
//! it shares no port that somebody listens on. `SO_REUSEPORT`, which would, is never set.

use std::io::{Error, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};

use crate::admin::{Block, Readiness};
use crate::feed::{Facts, Squatted};

/// How often a port that is taken is tried again.
const AGAIN: Duration = Duration::from_millis(250);
/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;

/// A socket of ours, bound or still somebody else's.
#[derive(Debug)]
pub struct Socket {
    name: &'static str,
    address: SocketAddr,
    state: State,
}

#[derive(Debug)]
enum State {
    Bound(TcpListener),
    /// Unready, and told, until it is dropped.
    Taken {
        _unready: Block,
        _told: Squatted,
    },
}

/// Where it is told that a port is somebody else's.
#[derive(Debug, Clone)]
pub struct Tell {
    /// The sidecar is unready meanwhile.
    pub readiness: Readiness,
    /// The operator is told.
    pub facts: Facts,
}

impl Socket {
    /// Listens there, or says that it is somebody else's. `None` when the kernel has no IPv6.
    ///
    /// # Errors
    /// When it fails for any other reason.
    pub fn bind(name: &'static str, address: SocketAddr, tell: &Tell) -> Result<Option<Self>, Error> {
        match listen(address) {
            Ok(listener) => {
                let address = listener.local_addr()?;
                Ok(Some(Self { name, address, state: State::Bound(listener) }))
            }
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                tracing::error!(name, %address, "PortSquatted: somebody else holds a port of ours");
                let port = address.port();
                let state = State::Taken {
                    _unready: tell.readiness.block(format!("port {port} (PortSquatted)")),
                    _told: tell.facts.squatted(port),
                };
                Ok(Some(Self { name, address, state }))
            }
            Err(error) if address.is_ipv6() && is_absent(&error) => {
                tracing::info!(name, %address, "no IPv6 here");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Where it listens, or would.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The listener, as soon as the port is ours.
    pub async fn listener(self) -> TcpListener {
        let Self { name, address, state } = self;
        let taken = match state {
            State::Bound(listener) => return listener,
            taken @ State::Taken { .. } => taken,
        };
        loop {
            tokio::time::sleep(AGAIN).await;
            if let Ok(listener) = listen(address) {
                tracing::info!(name, %address, "the port is ours now");
                drop(taken);
                return listener;
            }
        }
    }
}

/// The kernel, or this network namespace, has no such family.
fn is_absent(error: &Error) -> bool {
    let family = rustix::io::Errno::AFNOSUPPORT.raw_os_error();
    error.kind() == ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(family)
}

fn listen(address: SocketAddr) -> Result<TcpListener, Error> {
    let socket = if address.is_ipv6() {
        let socket = TcpSocket::new_v6()?;
        // IPv4 has a socket of its own, so that no peer comes as an IPv4 address in IPv6 clothes.
        rustix::net::sockopt::set_ipv6_v6only(&socket, true)?;
        socket
    } else {
        TcpSocket::new_v4()?
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}
