//! The images of the demo: ours, and those of the systems around it.
use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::cache::{self, Part};
use crate::cluster::packages;
use crate::command::Run as _;
use crate::images::{self, Base, Image, Recipe, copy_tree, staging, workspace};
use crate::progress::Steps;

/// Version of Keycloak; `examples/keycloak/keycloak.sh` fetches the same.
const KEYCLOAK: &str = "26.7.3";

/// Every image of the demo.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Images {
    /// The operator.
    pub operator: Image,
    /// The sidecar.
    pub sidecar: Image,
    /// The identity provider.
    pub keycloak: Image,
    /// The MCP server.
    pub hr_tools: Image,
    /// The downstream.
    pub payroll: Image,
    /// The agent.
    pub agent: Image,
}

impl Images {
    /// Builds what is missing.
    ///
    /// # Errors
    /// A package, a wheel or Keycloak cannot be had, or something does not compile.
    pub fn build(steps: &Steps) -> Result<Self> {
        let [operator, sidecar] = images::ours(steps)?;
        let example = |name: &str| -> Result<PathBuf> { Ok(workspace()?.join("examples").join(name)) };
        Ok(Self {
            operator,
            sidecar,
            keycloak: keycloak_image(steps)?,
            hr_tools: images::python(steps, "behalf-demo-hr-tools", &example("hr-tools")?)?,
            payroll: images::python(steps, "behalf-demo-payroll", &example("payroll")?)?,
            agent: images::python(steps, "behalf-demo-agent", &example("agent")?)?,
        })
    }

    /// Each by the name that stands in the manifests of `examples/`.
    #[must_use]
    pub fn by_example_name(&self) -> [(&'static str, &Image); 4] {
        [
            ("localhost/behalf-demo-keycloak:dev", &self.keycloak),
            ("localhost/behalf-demo-hr-tools:dev", &self.hr_tools),
            ("localhost/behalf-demo-payroll:dev", &self.payroll),
            ("localhost/behalf-demo-agent:dev", &self.agent),
        ]
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> [&Image; 6] {
        [&self.operator, &self.sidecar, &self.keycloak, &self.hr_tools, &self.payroll, &self.agent]
    }
}

/// A Keycloak distribution with its build options fixed.
///
/// # Errors
/// Maven cannot get it, or Java cannot run it.
pub fn keycloak_distribution(steps: &Steps) -> Result<PathBuf> {
    packages::ensure(steps, packages::JAVA)?;
    let script = workspace()?.join("examples/keycloak/keycloak.sh");
    // The script holds the build options.
    let recipe = std::fs::read_to_string(&script)?;
    let part = Part::new(&cache::root()?, &format!("keycloak-{KEYCLOAK}"), &recipe);
    let dist = part.dir.join("dist");
    if !part.ready(steps, &["dist/bin/kc.sh"])? {
        steps.run("get Keycloak from Maven", "30 to 60 s", || {
            Command::new("bash").arg(&script).arg("fetch").arg(&dist).run()
        })?;
        steps.run("fix Keycloak's build options", "30 to 60 s", || {
            Command::new("bash").arg(&script).arg("augment").arg(&dist).run()
        })?;
        part.seal()?;
    }
    Ok(dist)
}

fn keycloak_image(steps: &Steps) -> Result<Image> {
    let dist = keycloak_distribution(steps)?;
    let base = images::base(steps, Base::Java)?;
    let example = workspace()?.join("examples/keycloak");
    let staged = staging("keycloak")?;
    copy_tree(&example, &staged)?;
    Command::new("cp").arg("-a").arg(&dist).arg(staged.join("dist")).run()?;
    // What a run on this machine left there is no part of the image.
    if staged.join("dist/data").exists() {
        std::fs::remove_dir_all(staged.join("dist/data"))?;
    }
    let dockerfile = staged.join("Dockerfile");
    images::build(
        steps,
        &Recipe {
            name: "behalf-demo-keycloak",
            dockerfile: &dockerfile,
            context: &staged,
            base: Some(&base),
            arguments: &[],
        },
    )
}
