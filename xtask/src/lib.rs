//! What `cargo xtask` is made of. A library, so that the end-to-end tests use the same cluster and images.
pub mod audit;
pub mod cache;
pub mod cluster;
pub mod command;
pub mod demo;
pub mod gate;
pub mod generate;
pub mod images;
pub mod progress;
pub mod requirements;
pub mod standalone;
pub mod suites;
pub mod test;
