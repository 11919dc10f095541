//! How it stands with the Lease: what everything that writes is given to ask before it does.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use crate::clock::Monotonic;
use crate::kube_io::NotLeading;

/// The replica that leads, as the Lease names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leader {
    /// Name of its pod.
    pub name: String,
    /// Address of its pod.
    pub ip: IpAddr,
}

impl Leader {
    /// Reads what [`holder`] wrote.
    pub(super) fn parse(holder: &str) -> Option<Self> {
        let (name, ip) = holder.rsplit_once('/')?;
        Some(Self { name: name.to_owned(), ip: ip.parse().ok()? })
    }
}

/// How a replica is named in the Lease: `<pod name>/<pod address>`.
#[must_use]
pub fn holder(name: &str, ip: Option<IpAddr>) -> String {
    ip.map_or_else(|| name.to_owned(), |ip| format!("{name}/{ip}"))
}

/// Whether this replica may write, and who may if not. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Leadership {
    term: Arc<Term>,
    seen: watch::Receiver<Seen>,
}

/// Until when this replica believes in itself.
#[derive(Debug)]
pub(super) struct Term {
    /// Milliseconds of [`Monotonic`].
    until: AtomicU64,
    clock: Monotonic,
}

/// What whoever waits is told of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) leads: bool,
    pub(super) leader: Option<Leader>,
}

impl Term {
    /// One that has not begun.
    pub(super) fn new(clock: Monotonic) -> Self {
        Self { until: AtomicU64::new(0), clock }
    }

    pub(super) fn now(&self) -> Duration {
        self.clock.now()
    }

    pub(super) fn until(&self) -> Duration {
        Duration::from_millis(self.until.load(Ordering::Acquire))
    }

    pub(super) fn leads(&self) -> bool {
        millis(self.clock.now()) < self.until.load(Ordering::Acquire)
    }

    pub(super) fn extend(&self, until: Duration) {
        self.until.store(millis(until), Ordering::Release);
    }

    pub(super) fn end(&self) {
        self.until.store(0, Ordering::Release);
    }
}

impl Leadership {
    /// Leads for ever: for a single process and for tests.
    #[must_use]
    pub fn always() -> Self {
        Self::fixed(u64::MAX)
    }

    /// Never leads.
    #[must_use]
    pub fn never() -> Self {
        Self::fixed(0)
    }

    fn fixed(until: u64) -> Self {
        let seen = Seen { leads: until > 0, leader: None };
        let term = Term { until: AtomicU64::new(until), clock: Monotonic::System };
        Self { term: Arc::new(term), seen: watch::channel(seen).1 }
    }

    /// Of this term; whoever keeps the Lease says by the sender what is news.
    pub(super) fn follow(term: &Arc<Term>) -> (watch::Sender<Seen>, Self) {
        let (sender, seen) = watch::channel(Seen::default());
        (sender, Self { term: Arc::clone(term), seen })
    }

    /// Whether this replica may write now. The clock is asked each time.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.term.leads()
    }

    /// To be asked immediately before a write is sent.
    ///
    /// # Errors
    /// This replica may not write.
    pub fn fence(&self) -> Result<(), NotLeading> {
        if self.leads() { Ok(()) } else { Err(NotLeading) }
    }

    /// The replica that leads, this one or another, as last seen in the Lease. None: nobody, or not known.
    #[must_use]
    pub fn leader(&self) -> Option<Leader> {
        self.seen.borrow().leader.clone()
    }

    /// Waits until the answer of [`Leadership::leads`] or [`Leadership::leader`] is another than at the last call (at
    /// first: than when this value was made). Look again afterwards.
    pub async fn changed(&mut self) {
        if self.seen.changed().await.is_err() {
            // Nobody keeps the Lease any more; what `leads` says comes to its end by itself.
            std::future::pending::<()>().await;
        }
    }

    /// Waits until this replica leads.
    pub async fn gained(&mut self) {
        while !self.leads() {
            self.changed().await;
        }
    }

    /// Waits until this replica does not lead any more.
    pub async fn lost(&mut self) {
        while self.leads() {
            self.changed().await;
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_is_read_as_it_was_written() {
        for ip in ["10.1.2.3", "fd00::1"] {
            let ip: IpAddr = ip.parse().unwrap();
            assert_eq!(Leader::parse(&holder("a-0", Some(ip))), Some(Leader { name: "a-0".into(), ip }));
        }
        for other in ["", "a-0", "a-0/", "a-0/somewhere", &holder("a-0", None)] {
            assert_eq!(Leader::parse(other), None, "{other}");
        }
    }
}
