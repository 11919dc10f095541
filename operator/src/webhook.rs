//! The admission webhook: decode, plan, encode.
//!
//! It makes pods right; what keeps wrong ones out are the in-tree admission policies, with or without it.

pub mod mutate;
pub mod patch;
pub mod server;
