//! Crates that must not be in what is built. The resolved graph is read: `Cargo.lock` also lists what no feature turns on.
use std::collections::BTreeSet;

use anyhow::Result;

use super::{Gate, verdict};
use crate::command::Run as _;

/// One implementation of TLS and of cryptography, and none in C that the system brings.
const NEVER: &[&str] = &["ring", "openssl", "openssl-sys", "native-tls"];

pub(super) fn graph(gate: &Gate<'_>) -> Result<()> {
    let mut findings = Vec::new();
    let tree = gate
        .cargo(&[
            "tree",
            "--locked",
            "--workspace",
            "-e",
            "normal,build,dev",
            "--target",
            "all",
            "--prefix=none",
        ])
        .text()?;
    for name in forbidden(&tree) {
        let path = gate
            .cargo(&[
                "tree",
                "--locked",
                "--workspace",
                "-e",
                "normal,build,dev",
                "--target",
                "all",
                "-i",
                name,
            ])
            .text()
            .unwrap_or_else(|_| name.to_owned());
        findings.push(path.replace('\n', "\n  "));
    }
    verdict(&findings, "crates that must not be built with; who asks for them:")
}

fn forbidden(tree: &str) -> BTreeSet<&'static str> {
    let built: BTreeSet<&str> = tree.lines().filter_map(|line| line.split_whitespace().next()).collect();
    NEVER.iter().copied().filter(|name| built.contains(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_built_counts() {
        assert_eq!(forbidden("a v1.0.0\nring v0.17.14\nring v0.17.14 (*)\n"), BTreeSet::from(["ring"]));
        assert_eq!(
            forbidden("openssl-probe v0.2.0\nstring v1.0.0\nrustls v0.23.46 (ring)\n"),
            BTreeSet::new()
        );
    }
}
