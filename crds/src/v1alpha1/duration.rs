//! Durations as they stand in objects: `30s`, `10m`, `1h30m`, `250ms`.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Longest text of a duration.
const MAX_TEXT: usize = 32;
/// What the API server can hold (2^63 - 1 nanoseconds), in whole milliseconds: beyond it its own rules would not evaluate.
const MAX_MILLIS: u64 = i64::MAX.unsigned_abs() / 1_000_000;
/// Accepted form.
const PATTERN: &str = "^([0-9]+(ms|s|m|h))+$";

/// A length of time, written as a sum of whole `h`, `m`, `s`, `ms`; exact to the millisecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duration {
    millis: u64,
}

/// Why a text is not a [`Duration`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// Longer than 32 characters.
    #[error("a duration has at most {MAX_TEXT} characters")]
    TooLong,
    /// Not a sum of whole numbers with units.
    #[error("a duration is a sum of whole numbers with the units h, m, s or ms, such as 1h30m")]
    Malformed,
    /// Too large to be counted.
    #[error("a duration is at most about 292 years")]
    TooLarge,
}

impl DurationError {
    /// Closed reason, for counts and records.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::TooLong => "TooLong",
            Self::Malformed => "Malformed",
            Self::TooLarge => "TooLarge",
        }
    }
}

impl Duration {
    /// So many seconds.
    #[must_use]
    pub const fn from_secs(seconds: u32) -> Self {
        Self { millis: seconds as u64 * 1000 }
    }

    /// So many minutes.
    #[must_use]
    pub const fn from_mins(minutes: u32) -> Self {
        Self { millis: minutes as u64 * 60_000 }
    }

    /// Whole seconds, rounded down (a bound never grows by rounding).
    #[must_use]
    pub const fn as_secs(self) -> u64 {
        self.millis / 1000
    }

    /// Milliseconds.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.millis
    }

    /// As the standard library's type.
    #[must_use]
    pub const fn as_std(self) -> std::time::Duration {
        std::time::Duration::from_millis(self.millis)
    }

    /// Reads what [`fmt::Display`] writes, and every other sum of units in any order.
    ///
    /// # Errors
    /// The text is longer than 32 characters, has another form, or means more than can be counted.
    pub fn parse(text: &str) -> Result<Self, DurationError> {
        if text.len() > MAX_TEXT {
            return Err(DurationError::TooLong);
        }
        let mut rest = text;
        let mut millis: u64 = 0;
        if rest.is_empty() {
            return Err(DurationError::Malformed);
        }
        while !rest.is_empty() {
            let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            let (number, tail) = rest.split_at(digits);
            if number.is_empty() {
                return Err(DurationError::Malformed);
            }
            // `ms` before `m`: the longer unit first.
            let (unit, tail) = [("ms", 1), ("h", 3_600_000), ("m", 60_000), ("s", 1000)]
                .into_iter()
                .find_map(|(unit, size)| tail.strip_prefix(unit).map(|tail| (size, tail)))
                .ok_or(DurationError::Malformed)?;
            let number: u64 = number.parse().map_err(|_| DurationError::TooLarge)?;
            millis = number
                .checked_mul(unit)
                .and_then(|part| millis.checked_add(part))
                .filter(|sum| *sum <= MAX_MILLIS)
                .ok_or(DurationError::TooLarge)?;
            rest = tail;
        }
        Ok(Self { millis })
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.millis == 0 {
            return f.write_str("0s");
        }
        let seconds = self.millis / 1000;
        let parts = [
            (seconds / 3600, "h"),
            (seconds / 60 % 60, "m"),
            (seconds % 60, "s"),
            (self.millis % 1000, "ms"),
        ];
        parts
            .into_iter()
            .filter(|(count, _)| *count > 0)
            .try_for_each(|(count, unit)| write!(f, "{count}{unit}"))
    }
}

impl std::str::FromStr for Duration {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Duration {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "minLength": 2, "maxLength": MAX_TEXT, "pattern": PATTERN })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_sums_of_units() {
        for (text, millis) in [
            ("0s", 0),
            ("30s", 30_000),
            ("10m", 600_000),
            ("1h30m", 5_400_000),
            ("250ms", 250),
            ("1m250ms", 60_250),
            ("1s1m", 61_000),
            ("007s", 7000),
        ] {
            assert_eq!(Duration::parse(text).map(Duration::as_millis), Ok(millis), "{text}");
        }
    }

    #[test]
    fn refuses_every_other_form() {
        for text in [
            "", "s", "30", "30 s", " 30s", "30s ", "-1s", "+1s", "1.5h", "1d", "1H", "1us", "1ns", "1sm",
            "1e3s", "٣s", "1h-1m",
        ] {
            assert_eq!(Duration::parse(text), Err(DurationError::Malformed), "{text:?}");
        }
        assert_eq!(Duration::parse(&"1s".repeat(17)), Err(DurationError::TooLong));
        assert_eq!(Duration::parse("99999999999999999999999s"), Err(DurationError::TooLarge));
        assert_eq!(Duration::parse("9223372036855ms"), Err(DurationError::TooLarge));
    }

    #[test]
    fn seconds_round_down() {
        assert_eq!(Duration::parse("1s999ms").map(Duration::as_secs), Ok(1));
        assert_eq!(Duration::from_mins(10).as_secs(), 600);
        assert_eq!(Duration::from_secs(90).to_string(), "1m30s");
    }
}
