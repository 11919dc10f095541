//! Requests whose answer waits: a bounded number, and one a pod.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// The places to wait at.
#[derive(Debug)]
pub struct Held {
    places: Arc<Semaphore>,
    pods: Mutex<Pods>,
}

#[derive(Debug, Default)]
struct Pods {
    next: u64,
    by_uid: HashMap<String, (u64, CancellationToken)>,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub struct Place {
    held: Arc<Held>,
    uid: String,
    number: u64,
    replaced: CancellationToken,
    _permit: OwnedSemaphorePermit,
}

impl Held {
    /// So many places.
    #[must_use]
    pub fn new(places: usize) -> Arc<Self> {
        Arc::new(Self { places: Arc::new(Semaphore::new(places)), pods: Mutex::default() })
    }

    fn pods(&self) -> MutexGuard<'_, Pods> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for the pod of this UID, which gives up the one it had; none if all are taken.
    #[must_use]
    pub fn take(self: &Arc<Self>, uid: &str) -> Option<Place> {
        let permit = Arc::clone(&self.places).try_acquire_owned().ok()?;
        let replaced = CancellationToken::new();
        let mut pods = self.pods();
        let number = pods.next;
        pods.next = number.wrapping_add(1);
        if let Some((_, older)) = pods.by_uid.insert(uid.to_owned(), (number, replaced.clone())) {
            older.cancel();
        }
        drop(pods);
        Some(Place { held: Arc::clone(self), uid: uid.to_owned(), number, replaced, _permit: permit })
    }
}

impl Place {
    /// Waits until a newer request of the same pod takes its place.
    pub async fn replaced(&self) {
        self.replaced.cancelled().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut pods = self.held.pods();
        if pods.by_uid.get(&self.uid).is_some_and(|(number, _)| *number == self.number) {
            pods.by_uid.remove(&self.uid);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_request_of_a_pod_takes_the_place_of_the_older_and_places_are_bounded() {
        let held = Held::new(2);
        let first = held.take("a").unwrap();
        let second = held.take("a").unwrap();
        assert!(first.replaced.is_cancelled() && !second.replaced.is_cancelled());
        assert!(held.take("b").is_none(), "all are taken");
        drop(first);
        assert!(held.pods().by_uid.contains_key("a"), "the newer one is still there");
        let other = held.take("b").unwrap();
        assert!(!second.replaced.is_cancelled());
        drop((second, other));
        assert!(held.pods().by_uid.is_empty());
    }
}
