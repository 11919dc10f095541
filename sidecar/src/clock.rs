//! What time it is: a part that the composition root chooses, so that tests can choose another.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use behalf_policy::ids::Timestamp;
use time::OffsetDateTime;

/// Tells the time. A cheap clone tells the same time.
#[derive(Clone)]
pub struct Clock(Source);

#[derive(Clone)]
enum Source {
    System,
    Manual(ManualClock),
}

impl Clock {
    /// The clock of the node.
    #[must_use]
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// Whole seconds since the epoch.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        Timestamp(self.millis().div_euclid(1000))
    }

    /// Milliseconds since the epoch.
    #[must_use]
    pub fn millis(&self) -> i64 {
        match &self.0 {
            // A node whose clock stands before 1970 has no valid token: everything is refused then.
            Source::System => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis());
                i64::try_from(since).unwrap_or(i64::MAX)
            }
            Source::Manual(clock) => clock.0.load(Ordering::SeqCst).saturating_mul(1000),
        }
    }

    /// This moment as RFC 3339 with milliseconds, UTC.
    #[must_use]
    pub fn rfc3339(&self) -> String {
        rfc3339(self.millis())
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Source::System => "Clock(System)",
            Source::Manual(_) => "Clock(Manual)",
        })
    }
}

/// A moment in milliseconds since the epoch as RFC 3339, UTC.
#[must_use]
pub fn rfc3339(millis: i64) -> String {
    let nanoseconds = i128::from(millis) * 1_000_000;
    let moment = OffsetDateTime::from_unix_timestamp_nanos(nanoseconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let (date, at) = (moment.date(), moment.time());
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
        date.year(),
        u8::from(date.month()),
        date.day(),
        at.hour(),
        at.minute(),
        at.second(),
        at.millisecond()
    )
}

/// A clock that stands still until it is moved. Clones, and the clocks made of it, move together.
#[derive(Debug, Clone)]
pub struct ManualClock(Arc<AtomicI64>);

impl ManualClock {
    /// A clock that stands at this moment.
    #[must_use]
    pub fn at(now: Timestamp) -> Self {
        Self(Arc::new(AtomicI64::new(now.0)))
    }

    /// Moves it by so many seconds, backwards when negative.
    pub fn advance(&self, seconds: i64) {
        self.0.fetch_add(seconds, Ordering::SeqCst);
    }

    /// The clock to hand to what tells the time.
    #[must_use]
    pub fn clock(&self) -> Clock {
        Clock(Source::Manual(self.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_written_with_milliseconds() {
        assert_eq!(rfc3339(1_795_312_800_007), "2026-11-22T02:00:00.007Z");
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
    }
}
