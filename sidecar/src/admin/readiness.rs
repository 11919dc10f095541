//! Readiness by name: the sidecar is ready when nobody holds a [`Block`] any more.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// What keeps the sidecar unready; a cheap clone is the same.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<Mutex<BTreeMap<Cow<'static, str>, u32>>>);

/// Keeps the sidecar unready until it is dropped.
#[derive(Debug)]
#[must_use = "dropping it makes the sidecar ready"]
pub struct Block {
    name: Cow<'static, str>,
    readiness: Readiness,
}

impl Readiness {
    /// Nothing pending.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Keeps the sidecar unready while the returned value lives.
    pub fn block(&self, name: impl Into<Cow<'static, str>>) -> Block {
        let name = name.into();
        let mut pending = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = pending.entry(name.clone()).or_default();
        *count = count.saturating_add(1);
        Block { name, readiness: self.clone() }
    }

    /// What is pending, by name; empty when ready.
    #[must_use]
    pub fn pending(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).keys().map(ToString::to_string).collect()
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let mut pending = self.readiness.0.lock().unwrap_or_else(PoisonError::into_inner);
        match pending.get_mut(&self.name) {
            Some(count) if *count > 1 => *count = count.saturating_sub(1),
            _ => {
                pending.remove(&self.name);
            }
        }
    }
}
