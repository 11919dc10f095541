//! Base images made from the distribution's own packages, where no registry is at hand.
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;

use super::{Image, buildah, kept, staging};
use crate::cache::digest;
use crate::cluster::packages;
use crate::command::{Run as _, which};
use crate::progress::Steps;

/// A base image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Base {
    /// libc and the CA certificates: for our own programs.
    Debian,
    /// Python with pip and venv.
    Python,
    /// A Java runtime without a screen.
    Java,
}

impl Base {
    fn name(self) -> &'static str {
        match self {
            Self::Debian => "base-debian",
            Self::Python => "base-python",
            Self::Java => "base-java",
        }
    }

    fn packages(self) -> &'static str {
        match self {
            Self::Debian => "ca-certificates",
            Self::Python => "ca-certificates,python3,python3-pip,python3-venv",
            Self::Java => "ca-certificates,openjdk-17-jre-headless",
        }
    }
}

/// Makes a base image unless it was made before.
///
/// # Errors
/// This is no Debian-like machine, or a package cannot be had.
pub fn base(steps: &Steps, base: Base) -> Result<Image> {
    let release = Release::of_this_machine()?;
    let key = digest(&[b"base 1", base.packages().as_bytes(), release.codename.as_bytes()]);
    kept(steps, base.name(), &key, "1 to 3 min", |reference| {
        packages::ensure(steps, packages::IMAGES)?;
        let dir = staging(base.name())?;
        let tar = dir.join("root.tar");
        steps.live(&format!("mmdebstrap {} with {}", release.codename, base.packages()));
        // A fixed date makes the archive, and so the image, depend on the packages alone.
        // What it mounts is in a mount namespace of its own, which is gone with it even when it is killed.
        let mut command = Command::new("unshare");
        command.env("SOURCE_DATE_EPOCH", "0").args([
            "--mount",
            "mmdebstrap",
            "--quiet",
            "--variant=minbase",
            &format!("--include={}", base.packages()),
        ]);
        for pattern in ["/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*"] {
            command.arg(format!("--dpkgopt=path-exclude={pattern}"));
        }
        // Java's packages link into a directory that the exclusion leaves out.
        command.arg("--essential-hook=mkdir -p \"$1\"/usr/share/man/man1");
        command.arg("--customize-hook=rm -rf \"$1\"/var/lib/apt/lists/* \"$1\"/var/cache/apt/* \"$1\"/var/cache/debconf/*-old");
        command.arg(&release.codename).arg(&tar);
        if let Some(sources) = &release.sources {
            command.arg(sources);
        }
        command.run()?;
        let dockerfile = dir.join("Dockerfile");
        fs::write(&dockerfile, "FROM scratch\nADD root.tar /\nENV LANG=C.UTF-8\nCMD [\"/bin/sh\"]\n")?;
        steps.live("buildah");
        buildah()?
            .args([
                "bud",
                "--isolation",
                "chroot",
                "--layers=false",
                "--timestamp",
                "0",
                "-t",
                reference,
                "-f",
            ])
            .arg(&dockerfile)
            .arg(&dir)
            .run()?;
        fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()))
    })
}

/// The version of Python in [`Base::Python`], as `3.11`.
pub(super) fn python_version() -> Result<String> {
    let shown = Command::new("apt-cache").args(["show", "--no-all-versions", "python3-minimal"]).text();
    let shown = shown.context("apt does not know the version of python3-minimal")?;
    let version = shown
        .lines()
        .find_map(|line| line.strip_prefix("Version: "))
        .context("apt names no version of python3-minimal")?;
    Ok(version.split(['.', '-', '~', '+']).take(2).collect::<Vec<_>>().join("."))
}

struct Release {
    codename: String,
    /// The host's own list of where its packages come from.
    sources: Option<PathBuf>,
}

impl Release {
    fn of_this_machine() -> Result<Self> {
        if which("apt-get").is_none() {
            bail!("base images are made from Debian packages, and there is no apt-get here");
        }
        let os = fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?;
        let codename = os
            .lines()
            .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
            .context("/etc/os-release names no VERSION_CODENAME")?
            .trim_matches('"')
            .to_owned();
        let mut lists: Vec<PathBuf> = vec!["/etc/apt/sources.list".into()];
        lists.extend(
            fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten().map(|entry| entry.path()),
        );
        lists.sort();
        // Other sources of the host name suites of their own.
        let ours = |list: &PathBuf| {
            fs::read_to_string(list).is_ok_and(|text| {
                text.lines().any(|line| {
                    !line.trim_start().starts_with('#')
                        && line.split_whitespace().any(|word| word == codename)
                })
            })
        };
        Ok(Self { sources: lists.into_iter().find(ours), codename })
    }
}
