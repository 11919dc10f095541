//! A value that is replaced while it is in use: whoever needs it takes the newest at that moment.

use std::sync::Arc;

use tokio::sync::watch;

/// The reading end. Cheap to clone.
#[derive(Debug)]
pub struct Live<T>(watch::Receiver<Arc<T>>);

impl<T> Clone for Live<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Live<T> {
    /// A value and the end at which it is replaced.
    #[must_use]
    pub fn new(value: T) -> (watch::Sender<Arc<T>>, Self) {
        let (sender, receiver) = watch::channel(Arc::new(value));
        (sender, Self(receiver))
    }

    /// A value that stays.
    #[must_use]
    pub fn fixed(value: Arc<T>) -> Self {
        Self(watch::channel(value).1)
    }

    /// The value as it is now. Hold it for one piece of work, so that it does not change in the middle.
    #[must_use]
    pub fn current(&self) -> Arc<T> {
        Arc::clone(&self.0.borrow())
    }

    /// Waits until the value was replaced since the last call (at first: since this end was made).
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            // Nobody can replace it any more.
            std::future::pending::<()>().await;
        }
    }
}
