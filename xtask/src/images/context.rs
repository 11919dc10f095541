//! What goes into a build: the files of a directory, and Python wheels.
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::base;
use crate::cache::{self, Part, digest};
use crate::command::Run as _;
use crate::progress::Steps;

/// A digest over the names, modes and contents of all files below `dir`.
///
/// # Errors
/// One cannot be read.
pub fn digest_tree(dir: &Path) -> Result<String> {
    let mut pieces: Vec<Vec<u8>> = Vec::new();
    for file in files(dir)? {
        let name = file.strip_prefix(dir)?.to_string_lossy().into_owned();
        let kind = fs::symlink_metadata(&file)?;
        let content = if kind.is_symlink() {
            fs::read_link(&file)?.to_string_lossy().into_owned().into_bytes()
        } else {
            fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?
        };
        pieces.extend([
            name.into_bytes(),
            (kind.permissions().mode() & 0o111).to_be_bytes().to_vec(),
            content,
        ]);
    }
    Ok(digest(&pieces.iter().map(Vec::as_slice).collect::<Vec<_>>()))
}

/// Copies all files below `from` to `to`.
///
/// # Errors
/// One cannot be read or written.
pub fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    for file in files(from)? {
        let target = to.join(file.strip_prefix(from)?);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::copy(&file, &target).with_context(|| format!("cannot copy {}", file.display()))?;
    }
    Ok(())
}

/// Files below a directory, in an order that does not depend on the file system. What tools leave behind is no part of an image.
fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut rest = vec![dir.to_path_buf()];
    while let Some(next) = rest.pop() {
        for entry in fs::read_dir(&next).with_context(|| format!("cannot list {}", next.display()))? {
            let entry = entry?;
            let name = entry.file_name();
            if name == "__pycache__" || name == ".venv" || name == ".git" {
                continue;
            }
            if entry.file_type()?.is_dir() { rest.push(entry.path()) } else { found.push(entry.path()) }
        }
    }
    found.sort();
    Ok(found)
}

/// The wheels that `requirements` needs on the Python of the base image, in a directory of the cache.
///
/// # Errors
/// One cannot be had.
pub(super) fn wheels(steps: &Steps, requirements: &Path) -> Result<PathBuf> {
    let wanted = fs::read_to_string(requirements)
        .with_context(|| format!("cannot read {}", requirements.display()))?;
    let version = base::python_version()?;
    let key = digest(&[b"wheels 1", wanted.as_bytes(), version.as_bytes()]);
    let part = Part::new(&cache::root()?.join("wheels"), key.get(..12).unwrap_or(&key), &key);
    if part.ready(steps, &["list"])? {
        return Ok(part.dir.join("files"));
    }
    let files = part.dir.join("files");
    steps.run("get Python wheels", "10 to 60 s", || {
        fs::create_dir_all(&files)?;
        let python = interpreter(&version);
        let mut command = Command::new(&python);
        command.args(["-m", "pip"]);
        if same_version(&python, &version) {
            command.args(["wheel", "--quiet"]);
        } else {
            // Another Python than the image's: only ready wheels for that one will do.
            command.args([
                "download",
                "--quiet",
                "--only-binary=:all:",
                "--implementation",
                "cp",
                "--python-version",
                &version,
            ]);
            for platform in ["manylinux2014_x86_64", "manylinux_2_17_x86_64", "manylinux_2_28_x86_64", "any"]
            {
                command.args(["--platform", platform]);
            }
        }
        command
            .arg(if command_is_wheel(&command) { "-w" } else { "-d" })
            .arg(&files)
            .arg("-r")
            .arg(requirements);
        command.run()?;
        let count = fs::read_dir(&files)?.count();
        if count == 0 && wanted.lines().any(|line| !line.trim().is_empty() && !line.starts_with('#')) {
            bail!("pip left no wheels");
        }
        fs::write(part.dir.join("list"), count.to_string())?;
        part.seal()
    })?;
    Ok(files)
}

fn command_is_wheel(command: &Command) -> bool {
    command.get_args().any(|argument| argument == "wheel")
}

fn interpreter(version: &str) -> String {
    let exact = format!("python{version}");
    if same_version(&exact, version) { exact } else { "python3".to_owned() }
}

fn same_version(python: &str, version: &str) -> bool {
    let code = "import pip, sys; print('%d.%d' % sys.version_info[:2])";
    Command::new(python).args(["-c", code]).text().is_ok_and(|said| said == version)
}
