//! What the suites are made of: packages with their versions, by their ordinary clients, kept in the cache.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::cache::{self, Part};
use crate::command::{Run as _, which};
use crate::progress::Steps;

/// The suite needs Node 22; distributions have an older one.
const NODE: &str = "24.21.0";
const CONFORMANCE: &str = "0.2.0-alpha.12";
const CONFORMANCE_STABLE: &str = "0.1.16";
const INSPECTOR: &str = "2.12.0";
const GO_SDK: &str = "1.8.0";
const PYTHON_SDK_1: &str = "1.30.0";
const POSTURE: &str = "1.1.2";

/// A program run by the private Node: its files in the cache.
pub(super) struct NodeProgram {
    node: PathBuf,
    script: PathBuf,
}

impl NodeProgram {
    /// The beginning of its command line. It and what it starts find the private Node first.
    pub(super) fn command(&self) -> Result<Command> {
        let folder = self.node.parent().context("the folder of node")?;
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::iter::once(folder.to_owned()).chain(std::env::split_paths(&path));
        let mut command = Command::new(&self.node);
        command.arg(&self.script).env("PATH", std::env::join_paths(folders)?);
        Ok(command)
    }
}

/// The official conformance suite, with the scenarios of the newest revision.
pub(super) fn conformance(steps: &Steps) -> Result<NodeProgram> {
    npm_program(steps, "@modelcontextprotocol/conformance", CONFORMANCE, "dist/index.js")
}

/// The official conformance suite as it is released.
pub(super) fn conformance_stable(steps: &Steps) -> Result<NodeProgram> {
    npm_program(steps, "@modelcontextprotocol/conformance", CONFORMANCE_STABLE, "dist/index.js")
}

/// The MCP Inspector, as a program without a window.
pub(super) fn inspector(steps: &Steps) -> Result<NodeProgram> {
    npm_program(steps, "@modelcontextprotocol/inspector", INSPECTOR, "clients/launcher/build/index.js")
}

/// The server that the Go SDK is tested with.
pub(super) fn go_fixture(steps: &Steps) -> Result<PathBuf> {
    let module = format!("github.com/modelcontextprotocol/go-sdk/conformance/everything-server@v{GO_SDK}");
    let part = part(&format!("go-everything-server-{GO_SDK}"), &module)?;
    let program = part.dir.join("everything-server");
    if !part.ready(steps, &["everything-server"])? {
        if which("go").is_none() {
            bail!(
                "{module} is built by `go install` and there is no `go` on the PATH: install Go 1.25 or later"
            );
        }
        steps.run("build the Go SDK's fixture", "1 min", || {
            Command::new("go")
                .args(["install", &module])
                .current_dir(&part.dir)
                .env("GOBIN", &part.dir)
                .env("GOWORK", "off")
                .env("GOFLAGS", "-p=1 -buildvcs=false")
                .env("CGO_ENABLED", "0")
                .run()
        })?;
        whole(&part, &program)?;
    }
    Ok(program)
}

/// A Python with the first generation of the official SDK.
pub(super) fn python_sdk_1(steps: &Steps) -> Result<PathBuf> {
    pip(steps, Path::new("/usr/bin/python3"), "mcp", PYTHON_SDK_1, "python")
}

/// The scanner of an MCP server's authorization.
pub(super) fn posture(steps: &Steps) -> Result<PathBuf> {
    pip(steps, &python_3_12()?, "mcp-posture", POSTURE, "mcp-posture")
}

fn part(name: &str, recipe: &str) -> Result<Part> {
    let root = cache::root()?.join("suites");
    fs::create_dir_all(&root)?;
    Ok(Part::new(&root, name, recipe))
}

fn npm_program(steps: &Steps, package: &str, version: &str, script: &str) -> Result<NodeProgram> {
    let node = npm(steps, "node", NODE, "bin/node", None)?;
    let script = npm(steps, package, version, script, Some(&node))?;
    Ok(NodeProgram { node, script })
}

/// A package in a folder of its own; gives `brings`, a file of it.
fn npm(steps: &Steps, package: &str, version: &str, brings: &str, node: Option<&Path>) -> Result<PathBuf> {
    let short = package.rsplit('/').next().unwrap_or(package);
    let wanted = format!("{{\"private\":true,\"dependencies\":{{\"{package}\":\"{version}\"}}}}\n");
    let part = part(&format!("npm-{short}-{version}"), &wanted)?;
    let file = format!("node_modules/{package}/{brings}");
    let brought = part.dir.join(&file);
    if !part.ready(steps, &[&file])? {
        let Some(npm) = which("npm") else {
            bail!("{package} {version} is a package of npm and there is no `npm` on the PATH: install npm");
        };
        fs::write(part.dir.join("package.json"), &wanted)?;
        let mut command = Command::new(npm);
        command
            .args(["install", "--no-audit", "--no-fund", "--no-package-lock", "--loglevel=error"])
            .current_dir(&part.dir);
        if let Some(folder) = node.and_then(Path::parent) {
            let path = std::env::var_os("PATH").unwrap_or_default();
            let folders = std::iter::once(folder.to_owned()).chain(std::env::split_paths(&path));
            command.env("PATH", std::env::join_paths(folders)?);
        }
        steps.run(&format!("get {package} {version}"), "10 to 60 s", || command.run())?;
        whole(&part, &brought)?;
    }
    Ok(brought)
}

/// A package in a virtual environment of its own; gives `brings`, a program of it.
fn pip(steps: &Steps, python: &Path, package: &str, version: &str, brings: &str) -> Result<PathBuf> {
    let wanted = format!("{package}=={version}");
    let part = part(&format!("pip-{package}-{version}"), &format!("{wanted} {}", python.display()))?;
    let file = format!("bin/{brings}");
    let program = part.dir.join(&file);
    if !part.ready(steps, &[&file])? {
        steps.run(&format!("get {wanted}"), "10 to 60 s", || {
            Command::new(python).args(["-m", "venv"]).arg(&part.dir).run()?;
            Command::new(part.dir.join("bin/pip"))
                .args(["install", "--quiet", "--disable-pip-version-check", &wanted])
                .run()
        })?;
        whole(&part, &program)?;
    }
    Ok(program)
}

/// Seals a part that brought what it was fetched for.
fn whole(part: &Part, brought: &Path) -> Result<()> {
    if !brought.exists() {
        bail!("{} was fetched and brought no {}", part.dir.display(), brought.display());
    }
    part.seal()
}

/// A Python of 3.12 or later: on the PATH, or one of pyenv's.
fn python_3_12() -> Result<PathBuf> {
    let named = ["python3.14", "python3.13", "python3.12", "python3"].iter().filter_map(|name| which(name));
    let found = named.chain(pyenv()).find(|python| {
        let test = "import sys, venv; sys.exit(sys.version_info < (3, 12))";
        Command::new(python).args(["-c", test]).succeeds()
    });
    found.context(
        "mcp-posture needs Python 3.12 or later, and none is on the PATH or among pyenv's: install python3.12",
    )
}

fn pyenv() -> Vec<PathBuf> {
    let root = std::env::var_os("PYENV_ROOT")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".pyenv")));
    let versions = root.and_then(|root| fs::read_dir(root.join("versions")).ok());
    let mut found: Vec<PathBuf> =
        versions.into_iter().flatten().flatten().map(|entry| entry.path().join("bin/python3")).collect();
    found.retain(|python| python.exists());
    found.sort();
    found
}
