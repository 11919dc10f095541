//! Hostile bytes for everything that reads what strangers send.
//!
//! A target is a function of bytes that panics when something does not hold that must hold for every input; that
//! nothing else panics is only the least of it. The same functions run under libFuzzer (`fuzz/libfuzzer`, guided by
//! coverage) and under the driver here, which needs nothing but the stable compiler and makes the same inputs from the
//! same seed. `docs/security/fuzzing.md` says how to run both and what was run.
//!
//! Inputs that some run found interesting lie in `fuzz/corpus/<target>`.

#![allow(
    clippy::missing_panics_doc,
    reason = "a target panics when something does not hold: that is its answer"
)]

pub mod driver;
mod fixture;
mod http;
mod keys;
mod lists;
mod messages;
mod tokens;
mod wants;

/// A reader and what must hold for whatever it reads.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, which is also that of its folder of inputs.
    pub name: &'static str,
    /// Tries one input.
    pub run: fn(&[u8]),
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "token", run: tokens::token },
    Target { name: "dpop", run: tokens::dpop },
    Target { name: "introspection", run: tokens::introspection },
    Target { name: "jwks", run: keys::jwks },
    Target { name: "message", run: messages::message },
    Target { name: "head", run: http::requests },
    Target { name: "answer_head", run: http::answers },
    Target { name: "path", run: http::path },
    Target { name: "list", run: lists::list },
    Target { name: "strict_json", run: lists::strict },
    Target { name: "bundle", run: fixture::bundle },
    Target { name: "wants", run: wants::wants },
    Target { name: "params", run: wants::params },
];

/// The target of this name.
#[must_use]
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
