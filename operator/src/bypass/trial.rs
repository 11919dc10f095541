//! The trial of one pod: what is asked, and what counts.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use behalf_plan::bypass::{Answer, Reached, Trial};
use behalf_policy::feed::{Listener, ProofKey, Protocol};
use futures::future::{join, join_all};

use super::ask::Asker;

/// A pod to be tried, and everything whose change calls for another trial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Its namespace.
    pub namespace: String,
    /// The identity it joined.
    pub identity: String,
    /// Its name.
    pub pod: String,
    /// Its UID.
    pub uid: String,
    /// Its addresses.
    pub addresses: BTreeSet<IpAddr>,
    /// Revision of what was injected.
    pub revision: Option<String>,
    /// The server's port.
    pub server_port: u16,
    /// What may be reached without Behalf.
    pub extra_ports: BTreeSet<Listener>,
    /// The boot of the sidecar that reported.
    pub boot: String,
    /// What it reported to listen beyond loopback.
    pub listeners: BTreeSet<Listener>,
    /// Ports of ours that it reported to be held by somebody else.
    pub squatted: BTreeSet<u16>,
    /// The key of its proofs; none: it did not report yet.
    pub proof_key: Option<ProofKey>,
}

impl Subject {
    /// Whether enough is known for a trial.
    #[must_use]
    pub fn can_be_tried(&self) -> bool {
        self.proof_key.is_some() && !self.addresses.is_empty()
    }

    /// Listeners that nobody should reach.
    fn closed(&self) -> impl Iterator<Item = Listener> + '_ {
        let server = Listener { protocol: Protocol::Tcp, port: self.server_port };
        let undeclared = self.listeners.iter().filter(|it| !self.extra_ports.contains(it));
        undeclared.copied().filter(move |it| *it != server)
    }
}

/// Tries a pod. What finds fault is asked a second time, since a pod may begin or end meanwhile, and only the second
/// answer counts. None if it could not be asked, for want of randomness or sockets on our side.
pub async fn trial(asker: &Asker, subject: &Subject) -> Option<Trial> {
    let first = once(asker, subject).await?;
    if first.is_clean() { Some(first) } else { once(asker, subject).await }
}

async fn once(asker: &Asker, subject: &Subject) -> Option<Trial> {
    let key = subject.proof_key.as_ref()?;
    let each = subject.addresses.iter().map(async |address| {
        let reached = reached(asker, subject, key, *address).await?;
        Some((*address, reached))
    });
    let addresses: Option<_> = join_all(each).await.into_iter().collect();
    let untried = subject.closed().filter(|it| it.protocol == Protocol::Sctp).collect();
    Some(Trial { addresses: addresses?, untried })
}

async fn reached(asker: &Asker, subject: &Subject, key: &ProofKey, address: IpAddr) -> Option<Reached> {
    let at = |port| SocketAddr::new(address, port);
    let (control, server) =
        join(asker.tcp(at(asker.control_port()), key), asker.tcp(at(subject.server_port), key)).await;
    let control = control?;
    let tries = subject.closed().map(async |listener| {
        let open = match listener.protocol {
            Protocol::Tcp => is_open(asker.tcp(at(listener.port), key).await?, control),
            Protocol::Udp => asker.udp(at(listener.port)).await?,
            Protocol::Sctp => false,
        };
        Some((listener, open))
    });
    let found: Option<Vec<_>> = join_all(tries).await.into_iter().collect();
    let open = found?.into_iter().filter(|(_, open)| *open).map(|(listener, _)| listener).collect();
    Some(Reached { control, server: server?, open })
}

/// Whether a listener was reached beside Behalf. It may well be Behalf: in a pod that was injected while the server had
/// another port.
fn is_open(answer: Answer, control: Answer) -> bool {
    match answer {
        Answer::Behalf | Answer::Nothing => false,
        // With our address translated, the sidecar would answer so too.
        Answer::OtherProof => control == Answer::Behalf,
        Answer::Other | Answer::Busy | Answer::Silent => true,
    }
}
