//! Calls as they happen: who gets through to what, with whose identity, and what is refused.
//!
//! One after the other (`--test-threads=1`): the tests share one MCP server and change it.
mod traffic {
    mod audit;
    mod bound;
    mod cache;
    mod egress;
    mod hazards;
    mod leaks;
    mod limits;
    mod provider;
    mod recorded;
    mod sessions;
    mod standalone;
    mod story;
    mod tls;
    mod tls_bound;
    mod tls_scene;
    mod tokens;
}
