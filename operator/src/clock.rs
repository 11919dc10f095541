//! The time of day, read in one place and handed on as a value.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};
use time::OffsetDateTime;

/// Where the time comes from.
#[derive(Clone, Copy, Debug)]
pub enum Clock {
    /// The system's clock.
    System,
    /// Always this time, for tests.
    Fixed(Timestamp),
}

impl Clock {
    /// Now, with whole seconds: what Kubernetes keeps of a time.
    #[must_use]
    pub fn now(self) -> Time {
        let now = self.timestamp();
        Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
    }

    /// Now, in milliseconds since 1970. Zero if the clock stands before that.
    #[must_use]
    pub fn millis(self) -> u64 {
        u64::try_from(self.timestamp().as_millisecond()).unwrap_or(0)
    }

    /// Now, as certificates count it.
    #[must_use]
    pub fn date_time(self) -> OffsetDateTime {
        match self {
            Self::System => SystemTime::now().into(),
            Self::Fixed(at) => {
                OffsetDateTime::from_unix_timestamp(at.as_second()).unwrap_or(OffsetDateTime::UNIX_EPOCH)
            }
        }
    }

    /// Now, as exactly as it is known.
    #[must_use]
    pub fn timestamp(self) -> Timestamp {
        match self {
            Self::System => Timestamp::now(),
            Self::Fixed(at) => at,
        }
    }
}

/// Time that only goes forward, for how long something is ago. Unlike `Instant` it also goes on while the machine sleeps.
#[derive(Clone, Debug)]
pub enum Monotonic {
    /// The system's (`CLOCK_BOOTTIME`).
    System,
    /// Set by hand, in milliseconds, for tests.
    Manual(Arc<AtomicU64>),
}

impl Monotonic {
    /// Since some moment in the past, always the same one.
    #[must_use]
    pub fn now(&self) -> Duration {
        match self {
            Self::System => Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap_or_default(),
            Self::Manual(millis) => Duration::from_millis(millis.load(Ordering::Acquire)),
        }
    }
}
