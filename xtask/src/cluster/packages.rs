//! Distribution packages: what is missing is installed by apt, and said.
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::command::{Run as _, tail, which};
use crate::progress::Steps;

/// A distribution package and what shows that it is there.
#[derive(Clone, Copy)]
pub struct Package {
    /// Its name for apt.
    pub name: &'static str,
    /// A program it brings (looked up on the PATH), or an absolute path.
    pub brings: &'static str,
}

const fn package(name: &'static str, brings: &'static str) -> Package {
    Package { name, brings }
}

/// What a node is made of beside the programs built from Go modules.
pub const NODE: &[Package] = &[
    package("etcd-server", "etcd"),
    package("containerd", "containerd"),
    package("runc", "runc"),
    package("containernetworking-plugins", "/usr/lib/cni/bridge"),
    package("iptables", "iptables"),
    package("nftables", "nft"),
    package("conntrack", "conntrack"),
    package("ethtool", "ethtool"),
    package("socat", "socat"),
    package("iproute2", "ip"),
    package("util-linux", "nsenter"),
];

/// What images are built with.
pub const IMAGES: &[Package] = &[
    package("buildah", "buildah"),
    package("mmdebstrap", "mmdebstrap"),
    package("busybox-static", "busybox"),
    package("ca-certificates", "/etc/ssl/certs/ca-certificates.crt"),
];

/// What Keycloak is fetched and run with.
pub const JAVA: &[Package] = &[package("openjdk-17-jre-headless", "java"), package("maven", "mvn")];

/// What the examples run with outside of a cluster.
pub const PYTHON: &[Package] =
    &[package("python3", "/usr/bin/python3"), package("python3-venv", "/usr/share/doc/python3-venv")];

/// Installs what is missing of `wanted`, saying what.
///
/// # Errors
/// Something is missing and this is not a Debian machine, or not run by root, or apt cannot get it; the message names the packages.
pub fn ensure(steps: &Steps, wanted: &[Package]) -> Result<()> {
    let missing: Vec<&str> = missing(wanted);
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.join(" ");
    if which("apt-get").is_none() {
        bail!(
            "missing programs of the Debian packages {names}, and there is no apt-get here: install their like, or name a cluster you have with --context"
        );
    }
    if !rustix::process::getuid().is_root() {
        bail!("missing packages: run `apt-get install {names}` as root, then again");
    }
    steps.run(&format!("install packages: {names}"), "20 to 60 s", || {
        steps.live("apt-get update");
        // Another source of this machine may be away: what counts is whether the packages can be had.
        let update = apt(&["update", "-q"]).text();
        steps.live(&format!("apt-get install {names}"));
        let mut arguments = vec!["install", "-q", "-y", "--no-install-recommends"];
        arguments.extend(&missing);
        if let Err(error) = apt(&arguments).text() {
            let unknown: Vec<&str> = missing.iter().copied().filter(|name| !apt_knows(name)).collect();
            let about = update.err().map(|error| tail(&format!("{error:#}"), 5)).unwrap_or_default();
            if unknown.is_empty() {
                return Err(error).with_context(|| format!("apt could not install {names} {about}"));
            }
            bail!("apt has no package named {}: {about}", unknown.join(", "));
        }
        let still: Vec<&str> = self::missing(wanted);
        if !still.is_empty() {
            bail!("apt installed {} but what they bring is not there", still.join(" "));
        }
        Ok(())
    })
}

fn missing(wanted: &[Package]) -> Vec<&'static str> {
    let there = |package: &Package| {
        if package.brings.starts_with('/') {
            Path::new(package.brings).exists()
        } else {
            which(package.brings).is_some()
        }
    };
    wanted.iter().filter(|package| !there(package)).map(|package| package.name).collect()
}

fn apt(arguments: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
    command
}

fn apt_knows(name: &str) -> bool {
    Command::new("apt-cache").args(["show", name]).succeeds()
}
