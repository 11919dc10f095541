//! The node's programs, kubectl, helm and CoreDNS: built from Go modules by one generated module, so that what they share compiles once.
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use crate::cache::Part;
use crate::command::{Run as _, tail, which};
use crate::progress::{Steps, span};

/// The version of Kubernetes that `cluster up` starts.
pub const KUBERNETES: &str = "1.34.4";
/// The newest helm that compiles against exactly the modules of that Kubernetes.
pub const HELM: &str = "3.19.0";
/// The newest CoreDNS that compiles against exactly the modules of that Kubernetes.
pub const COREDNS: &str = "1.14.1";

/// CoreDNS with the plugins that a cluster needs; the whole program takes four times as long to build.
const COREDNS_MAIN: &str = r#"// Command coredns is CoreDNS with the plugins that a cluster's DNS needs.
package main

import (
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/forward"
	_ "github.com/coredns/coredns/plugin/health"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/ready"
)

func main() {
	dnsserver.Directives = []string{"health", "ready", "errors", "cache", "kubernetes", "forward"}
	coremain.Run()
}
"#;

const KUBERNETES_PROGRAMS: &[&str] =
    &["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl"];

/// One of the three things built, each kept in a directory of its own.
struct Component {
    name: &'static str,
    version: &'static str,
    programs: &'static [&'static str],
    package: fn(&str) -> String,
}

const COMPONENTS: &[Component] = &[
    Component {
        name: "kubernetes",
        version: KUBERNETES,
        programs: KUBERNETES_PROGRAMS,
        package: |program| format!("k8s.io/kubernetes/cmd/{program}"),
    },
    Component {
        name: "coredns",
        version: COREDNS,
        programs: &["coredns"],
        package: |_| "./coredns".to_owned(),
    },
    Component {
        name: "helm",
        version: HELM,
        programs: &["helm"],
        package: |_| "helm.sh/helm/v3/cmd/helm".to_owned(),
    },
];

/// Where a program lies (or will lie once built) in the cache `root`.
#[must_use]
pub fn path(root: &Path, program: &str) -> PathBuf {
    let component = COMPONENTS.iter().find(|component| component.programs.contains(&program));
    component.map_or_else(|| PathBuf::from(program), |found| root.join(found.directory()).join(program))
}

impl Component {
    fn directory(&self) -> String {
        format!("{}-{}", self.name, self.version)
    }

    fn part(&self, root: &Path) -> Part {
        Part::new(
            root,
            &self.directory(),
            &format!("{}\n{COREDNS_MAIN}\n{}", flags(), self.programs.join(" ")),
        )
    }
}

/// Builds what the cache `root` lacks.
///
/// # Errors
/// There is no Go, or a module cannot be had, or one does not compile.
pub fn ensure(steps: &Steps, root: &Path) -> Result<()> {
    let mut wanted = Vec::new();
    for component in COMPONENTS {
        let part = component.part(root);
        if !part.ready(steps, component.programs)? {
            wanted.push((component, part));
        }
    }
    if wanted.is_empty() {
        return Ok(());
    }
    if which("go").is_none() {
        bail!(
            "the cluster's programs are built from Go modules and there is no `go` on the PATH: install Go 1.24 or later, or name a cluster you have with --context"
        );
    }
    let names: Vec<String> = wanted.iter().map(|(c, _)| format!("{} {}", c.name, c.version)).collect();
    let names = names.join(", ");
    let module = root.join(format!("build-{KUBERNETES}"));
    steps.run("get Go modules", "1 to 3 min cold, 10 s warm", || write_module(steps, &module))?;
    steps.run(&format!("build {names}"), "10 to 20 min cold on two cores, 1 min with a warm Go cache", || {
        let packages: Vec<String> =
            wanted.iter().flat_map(|(c, _)| c.programs.iter().map(|program| (c.package)(program))).collect();
        let out = module.join("out");
        compile(steps, &module, &packages, &out)?;
        for (component, part) in &wanted {
            for program in component.programs {
                let (from, to) = (out.join(program), part.dir.join(program));
                fs::rename(&from, &to).with_context(|| format!("the build left no {}", from.display()))?;
            }
            part.seal()?;
        }
        Ok(())
    })
}

fn go(module: &Path) -> Command {
    let mut command = Command::new("go");
    command
        .current_dir(module)
        .env("CGO_ENABLED", "0")
        .env("GOWORK", "off")
        .env("GOFLAGS", "-buildvcs=false")
        // The compiler collects its garbage less often: a quarter less time where much is to be compiled.
        .env("GOGC", "400")
        .env("GOMEMLIMIT", "2GiB");
    command
}

/// Go for a long build: it ends when xtask is killed, where nobody would see it go on.
fn go_that_ends_with_us(module: &Path) -> Command {
    let plain = go(module);
    if which("setpriv").is_none() {
        return plain;
    }
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM", "go"]).current_dir(module);
    command.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command
}

/// The linker flags: without these the node calls itself `v0.0.0-master`, and charts' `kubeVersion` checks fail.
fn flags() -> String {
    let version = "k8s.io/component-base/version";
    let helm = "helm.sh/helm/v3";
    let minor = KUBERNETES.split('.').nth(1).unwrap_or_default();
    format!(
        "-s -w -X {version}.gitVersion=v{KUBERNETES} -X {version}.gitMajor=1 -X {version}.gitMinor={minor} -X {version}.gitTreeState=clean \
         -X {helm}/internal/version.version=v{HELM} -X {helm}/pkg/chartutil.k8sVersionMajor=1 -X {helm}/pkg/chartutil.k8sVersionMinor={minor} \
         -X {helm}/pkg/lint/rules.k8sVersionMajor=1 -X {helm}/pkg/lint/rules.k8sVersionMinor={minor}"
    )
}

fn write_module(steps: &Steps, module: &Path) -> Result<()> {
    let _ = fs::remove_dir_all(module);
    fs::create_dir_all(module.join("coredns"))?;
    fs::write(module.join("coredns/main.go"), COREDNS_MAIN)?;
    fs::write(module.join("go.mod"), "module local/cluster\n\ngo 1.24.0\n")?;
    steps.live(&format!("k8s.io/kubernetes v{KUBERNETES}"));
    let got = go(module)
        .args(["mod", "download", "-json", &format!("k8s.io/kubernetes@v{KUBERNETES}")])
        .text()
        .context("the Go module of Kubernetes cannot be had")?;
    let got: serde_json::Value =
        serde_json::from_str(&got).context("go mod download said something else than JSON")?;
    let upstream = got["GoMod"].as_str().context("go mod download named no go.mod")?;
    let upstream = fs::read_to_string(upstream).with_context(|| format!("cannot read {upstream}"))?;
    fs::write(module.join("go.mod"), go_mod(&upstream))?;
    steps.live("the modules that these need");
    // -e: test-only dependencies of dependencies that cannot be had do not matter; what matters fails to compile.
    go(module).args(["mod", "tidy", "-e"]).run()
}

/// The wrapper's go.mod. Kubernetes replaces its staging modules by folders, which a dependent does not see: they are replaced by their published
/// versions. Everything else that Kubernetes requires is held at the version it was released with, so that helm and CoreDNS share its compiled packages.
fn go_mod(upstream: &str) -> String {
    let staging_version = format!("v0.{}", KUBERNETES.trim_start_matches("1."));
    let staging: Vec<&str> = upstream
        .lines()
        .filter_map(|line| line.split_once(" => ./staging/"))
        .map(|(name, _)| name.trim().trim_start_matches("replace "))
        .collect();
    let pinned = upstream
        .lines()
        .map(str::trim)
        .filter(|line| !line.starts_with("//"))
        .filter_map(|line| {
            let mut words = line.trim_start_matches("require ").split_whitespace();
            Some((words.next()?, words.next()?))
        })
        .filter(|(name, version)| name.contains('.') && version.starts_with('v') && !staging.contains(name));
    let mut replaces: Vec<String> =
        staging.iter().map(|name| format!("\t{name} => {name} {staging_version}")).collect();
    replaces.extend(pinned.map(|(name, version)| format!("\t{name} => {name} {version}")));
    let mut tools: Vec<String> =
        KUBERNETES_PROGRAMS.iter().map(|program| format!("\tk8s.io/kubernetes/cmd/{program}")).collect();
    tools.push("\thelm.sh/helm/v3/cmd/helm".to_owned());
    format!(
        "module local/cluster\n\ngo 1.24.0\n\ngodebug default=go1.24\n\nrequire (\n\tk8s.io/kubernetes v{KUBERNETES}\n\tgithub.com/coredns/coredns v{COREDNS}\n\t\
         helm.sh/helm/v3 v{HELM}\n)\n\ntool (\n{}\n)\n\nreplace (\n{}\n)\n",
        tools.join("\n"),
        replaces.join("\n")
    )
}

fn compile(steps: &Steps, module: &Path, packages: &[String], out: &Path) -> Result<()> {
    fs::create_dir_all(out)?;
    let all = go(module).args(["list", "-deps"]).args(packages).text()?.lines().count();
    let mut child = go_that_ends_with_us(module)
        .args(["build", "-v", "-trimpath", "-ldflags", &flags(), "-o"])
        .arg(out)
        .args(packages)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start go")?;
    let stderr = child.stderr.take().context("go has no standard error")?;
    let (mut done, mut said, began) = (0_usize, Vec::new(), Instant::now());
    for line in BufReader::new(stderr).lines() {
        let line = line?;
        // -v prints the import path of each package when it is taken up; whatever else stands there is a complaint.
        if line.contains(' ') || line.starts_with('#') {
            said.push(line);
            continue;
        }
        done += 1;
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let rest = began.elapsed() / count(done) * count(all.saturating_sub(done));
        steps.live(&format!(
            "{done} of at most {all} packages after {}, at most {} to go: {line}",
            span(began.elapsed()),
            span(rest)
        ));
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("go build ended with {status}\n{}", tail(&said.join("\n"), 30));
    }
    steps.say(&format!("{done} of {all} packages compiled, the others came from Go's own cache"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn staging_modules_and_pins_become_replacements() {
        let upstream = "module k8s.io/kubernetes\n\ngo 1.24.0\n\nrequire (\n\tgithub.com/a/b v1.2.3\n\tk8s.io/api v0.0.0 // indirect\n\tgolang.org/x/net v0.38.0 // indirect\n)\n\nreplace (\n\tk8s.io/api => ./staging/src/k8s.io/api\n)\n";
        let made = go_mod(upstream);
        assert!(made.contains("\tk8s.io/api => k8s.io/api v0.34.4\n"));
        assert!(made.contains("\tgithub.com/a/b => github.com/a/b v1.2.3\n"));
        assert!(made.contains("\tgolang.org/x/net => golang.org/x/net v0.38.0\n"));
        assert!(!made.contains("k8s.io/api v0.0.0"));
        assert_eq!(made.matches("k8s.io/api =>").count(), 1);
    }
}
