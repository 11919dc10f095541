//! Each target over its corpus and a fixed number of mutations of it: the same inputs every time.

#![allow(clippy::unwrap_used, reason = "the whole crate is a test")]

use behalf_fuzz::{TARGETS, driver, target};

fn short(name: &str) {
    driver::run(target(name).unwrap(), 1, 20_000).unwrap();
}

#[test]
fn every_target_has_a_corpus() {
    for target in TARGETS {
        assert!(driver::corpus(target).unwrap().len() >= 5, "{}", target.name);
    }
}

#[test]
fn d3_d5_d11_tokens() {
    short("token");
}

#[test]
fn a23_proofs() {
    short("dpop");
}

#[test]
fn a21_introspection_answers() {
    short("introspection");
}

#[test]
fn a20_d6_key_sets() {
    short("jwks");
}

#[test]
fn d19_d20_d22_d23_messages() {
    short("message");
}

#[test]
fn d17_heads_of_requests() {
    short("head");
}

#[test]
fn d17_heads_of_answers() {
    short("answer_head");
}

#[test]
fn d15_paths() {
    short("path");
}

#[test]
fn c15_d35_lists() {
    short("list");
}

#[test]
fn d19_json_of_providers() {
    short("strict_json");
}

#[test]
fn d29_bundles() {
    short("bundle");
}

#[test]
fn b6_a17_wants_of_providers() {
    short("wants");
}

#[test]
fn c10_mirrored_arguments() {
    short("params");
}
