//! Container images from ordinary Dockerfiles, by buildah and without a registry. An image is named by a hash of what goes into it and kept as an OCI archive,
//! so that nothing is built twice.
mod base;
mod context;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::Subcommand;
use serde::{Deserialize, Serialize};

pub use self::base::{Base, base};
pub use self::context::{copy_tree, digest_tree};
use crate::cache::{self, Part, digest};
use crate::cluster::packages;
use crate::command::Run as _;
use crate::progress::Steps;

/// `cargo xtask image`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Builds the images of the operator and the sidecar from this workspace
    Ours,
    /// Builds a base image from the distribution's packages
    Base {
        /// Which one
        base: Base,
    },
    /// Builds an image from a Dockerfile in a directory, with its `ARG BASE` set to a base image
    Build {
        /// The image's name
        name: String,
        /// The directory with the Dockerfile
        directory: PathBuf,
        /// The base image
        #[arg(long, default_value = "debian")]
        base: Base,
    },
}

/// Runs `cargo xtask image`.
///
/// # Errors
/// An image cannot be built.
pub fn run(args: &Args) -> Result<()> {
    let steps = Steps::new("cargo xtask image");
    let built = match &args.action {
        Action::Ours => ours(&steps)?.to_vec(),
        Action::Base { base: wanted } => vec![base(&steps, *wanted)?],
        Action::Build { name, directory, base: wanted } => {
            let base = base(&steps, *wanted)?;
            let recipe = Recipe {
                name,
                dockerfile: &directory.join("Dockerfile"),
                context: directory,
                base: Some(&base),
                arguments: &[],
            };
            vec![build(&steps, &recipe)?]
        }
    };
    for image in built {
        println!("{}\n{}", image.reference(), image.pinned());
    }
    steps.table();
    Ok(())
}

/// A built image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Its name without a tag: `localhost/behalf-sidecar`.
    pub name: String,
    /// Its tag, made from its content.
    pub tag: String,
    /// The digest of its manifest: `sha256:…`.
    pub digest: String,
    /// The OCI archive that holds it.
    pub archive: PathBuf,
}

impl Image {
    /// The reference by tag: `localhost/behalf-sidecar:0123456789ab`.
    #[must_use]
    pub fn reference(&self) -> String {
        format!("{}:{}", self.name, self.tag)
    }

    /// The reference by digest, which admission policies pin: `localhost/behalf-sidecar@sha256:…`.
    #[must_use]
    pub fn pinned(&self) -> String {
        format!("{}@{}", self.name, self.digest)
    }
}

/// What an image is built from.
pub struct Recipe<'a> {
    /// Its name without registry and tag: `behalf-sidecar`.
    pub name: &'a str,
    /// The Dockerfile.
    pub dockerfile: &'a Path,
    /// The directory whose files the Dockerfile may copy.
    pub context: &'a Path,
    /// What `ARG BASE` is set to; none leaves the Dockerfile's own.
    pub base: Option<&'a Image>,
    /// Further build arguments.
    pub arguments: &'a [(&'a str, &'a str)],
}

/// Builds an image unless the same was built before.
///
/// # Errors
/// buildah cannot be had, or the Dockerfile fails.
pub fn build(steps: &Steps, recipe: &Recipe<'_>) -> Result<Image> {
    let dockerfile = fs::read(recipe.dockerfile)
        .with_context(|| format!("cannot read {}", recipe.dockerfile.display()))?;
    let content = digest_tree(recipe.context)?;
    let mut pieces = vec![b"image 1".to_vec(), recipe.name.into(), dockerfile, content.into_bytes()];
    pieces.push(recipe.base.map(|base| base.digest.clone()).unwrap_or_default().into_bytes());
    pieces.extend(recipe.arguments.iter().map(|(name, value)| format!("{name}={value}").into_bytes()));
    let key = digest(&pieces.iter().map(Vec::as_slice).collect::<Vec<_>>());
    kept(steps, recipe.name, &key, "5 to 60 s", |reference| {
        let mut command = buildah()?;
        // --timestamp: the same files make the same digest, whenever they are built.
        command.args(["bud", "--isolation", "chroot", "--layers=false", "--timestamp", "0", "-t", reference]);
        if let Some(base) = recipe.base {
            into_store(base)?;
            command.args(["--build-arg", &format!("BASE={}", base.reference())]);
        }
        for (name, value) in recipe.arguments {
            command.args(["--build-arg", &format!("{name}={value}")]);
        }
        command.arg("-f").arg(recipe.dockerfile).arg(recipe.context).run()
    })
}

/// Gives the image `name` made under `key` from the cache, or lets `make` put it into the store under the reference it is given.
fn kept(
    steps: &Steps,
    name: &str,
    key: &str,
    expected: &str,
    make: impl FnOnce(&str) -> Result<()>,
) -> Result<Image> {
    let tag = key.get(..12).unwrap_or(key);
    let part = Part::new(&cache::root()?.join("images"), &format!("{name}-{tag}"), key);
    let record = part.dir.join("image.json");
    let _alone = cache::alone(steps, &cache::root()?.join("locks"), &format!("{name}-{tag}"))?;
    if !part.ready(steps, &["image.json", "image.tar"])? {
        packages::ensure(steps, packages::IMAGES)?;
        steps.run(&format!("build image {name}:{tag}"), expected, || {
            let mut image = Image {
                name: format!("localhost/{name}"),
                tag: tag.to_owned(),
                digest: String::new(),
                archive: part.dir.join("image.tar"),
            };
            make(&image.reference())?;
            image.digest = archive(&image.reference(), &image.archive)?;
            cache::write_whole(&record, &serde_json::to_string_pretty(&image)?)?;
            part.seal()
        })?;
    }
    let text = fs::read_to_string(&record).with_context(|| format!("cannot read {}", record.display()))?;
    let mut image: Image =
        serde_json::from_str(&text).with_context(|| format!("{} is damaged", record.display()))?;
    image.archive = part.dir.join("image.tar");
    Ok(image)
}

/// Takes an image from where a person names it: an OCI or docker archive, or the name of an image in our store.
///
/// # Errors
/// It is neither.
pub fn find(steps: &Steps, given: &str) -> Result<Image> {
    let file = Path::new(given);
    if !file.is_file() {
        return by_name(given);
    }
    let key = digest(&[b"archive 1", &fs::read(file).with_context(|| format!("cannot read {given}"))?]);
    let stem = file.file_stem().unwrap_or_default().to_string_lossy().to_lowercase();
    let stem: String = stem.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let name = stem.trim_matches('-');
    kept(steps, if name.is_empty() { "image" } else { name }, &key, "5 to 60 s", |reference| {
        let oci = buildah()?.args(["pull", "-q", &format!("oci-archive:{given}")]).text();
        let id = match oci {
            Ok(id) => id,
            Err(_) => buildah()?
                .args(["pull", "-q", &format!("docker-archive:{given}")])
                .text()
                .with_context(|| format!("{given} is neither an OCI nor a docker archive"))?,
        };
        let id = id.lines().last().unwrap_or_default().to_owned();
        buildah()?.args(["tag", &id, reference]).run()
    })
}

/// An image of the cache by its name, with or without `localhost/` and tag; without a tag, the one built last.
fn by_name(given: &str) -> Result<Image> {
    let plain = given.trim_start_matches("localhost/");
    let (name, tag) = plain.split_once(':').map_or((plain, None), |(name, tag)| (name, Some(tag)));
    let dir = cache::root()?.join("images");
    let mut found: Vec<(std::time::SystemTime, Image)> = Vec::new();
    for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
        let record = entry.path().join("image.json");
        let Ok(text) = fs::read_to_string(&record) else { continue };
        let Ok(image) = serde_json::from_str::<Image>(&text) else { continue };
        if image.name == format!("localhost/{name}") && tag.is_none_or(|tag| tag == image.tag) {
            found.push((fs::metadata(&record)?.modified()?, image));
        }
    }
    found.sort_by_key(|(made, _)| *made);
    match found.pop() {
        Some((_, image)) => Ok(image),
        None => bail!("{given} is neither a file nor an image built here (see {})", dir.display()),
    }
}

/// An image that only sleeps: the sandbox of every pod.
///
/// # Errors
/// It cannot be built.
pub fn pause(steps: &Steps) -> Result<Image> {
    packages::ensure(steps, packages::IMAGES)?;
    let busybox = crate::command::which("busybox").context("no busybox")?;
    let staged = staging("pause")?;
    fs::copy(&busybox, staged.join("busybox"))
        .with_context(|| format!("cannot copy {}", busybox.display()))?;
    let dockerfile = staged.join("Dockerfile");
    fs::write(
        &dockerfile,
        "FROM scratch\nCOPY busybox /busybox\nENTRYPOINT [\"/busybox\", \"sleep\", \"infinity\"]\n",
    )?;
    build(
        steps,
        &Recipe {
            name: "behalf-pause",
            dockerfile: &dockerfile,
            context: &staged,
            base: None,
            arguments: &[],
        },
    )
}

/// Builds the release binaries of operator and sidecar and an image of each, in this order.
///
/// # Errors
/// They do not compile, or an image cannot be built.
pub fn ours(steps: &Steps) -> Result<[Image; 2]> {
    let root = workspace()?;
    steps.run("build the release binaries", "5 to 10 min cold, 1 s warm", || {
        Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .args(["build", "--release", "-p", "behalf-operator", "-p", "behalf-sidecar"])
            .current_dir(&root)
            .show()
    })?;
    let base = base(steps, Base::Debian)?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let image = |part: &str| -> Result<Image> {
        let name = format!("behalf-{part}");
        let staged = staging(&name)?;
        fs::copy(target.join("release").join(&name), staged.join(&name))
            .with_context(|| format!("no release binary {name}"))?;
        let dockerfile = root.join(format!("images/{part}.Dockerfile"));
        build(
            steps,
            &Recipe {
                name: &name,
                dockerfile: &dockerfile,
                context: &staged,
                base: Some(&base),
                arguments: &[],
            },
        )
    };
    Ok([image("operator")?, image("sidecar")?])
}

/// Builds a Python image from a directory with a `Dockerfile` and a `requirements.txt`. The wheels are fetched here, outside of the build, and the Dockerfile
/// is given `PIP_NO_INDEX=1`; it should hold
/// `COPY requirements.txt wheel[s]/ /wheels/` and `RUN pip install --find-links /wheels -r /wheels/requirements.txt`, with `ARG PIP_NO_INDEX`,
/// so that an ordinary `docker build` of the same directory works too.
///
/// # Errors
/// A wheel cannot be had, or the Dockerfile fails.
pub fn python(steps: &Steps, name: &str, directory: &Path) -> Result<Image> {
    let base = base(steps, Base::Python)?;
    let wheels = context::wheels(steps, &directory.join("requirements.txt"))?;
    let staged = staging(name)?;
    copy_tree(directory, &staged)?;
    copy_tree(&wheels, &staged.join("wheels"))?;
    let dockerfile = staged.join("Dockerfile");
    build(
        steps,
        &Recipe {
            name,
            dockerfile: &dockerfile,
            context: &staged,
            base: Some(&base),
            arguments: &[("PIP_NO_INDEX", "1")],
        },
    )
}

/// An empty directory in the cache to put a build context together in, for this process alone. Those that ended processes left are removed.
///
/// # Errors
/// It cannot be emptied.
pub fn staging(name: &str) -> Result<PathBuf> {
    let all = cache::root()?.join("staging");
    for old in fs::read_dir(&all).into_iter().flatten().flatten() {
        let left = old.file_name();
        let pid =
            left.to_str().and_then(|left| left.rsplit('.').next()).filter(|pid| pid.parse::<u32>().is_ok());
        if pid.is_none_or(|pid| !Path::new("/proc").join(pid).exists()) {
            // Another process may be at the same.
            let _ = fs::remove_dir_all(old.path());
        }
    }
    let dir = all.join(format!("{name}.{}", std::process::id()));
    if dir.exists() {
        fs::remove_dir_all(&dir).with_context(|| format!("cannot empty {}", dir.display()))?;
    }
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(dir)
}

/// The workspace this program was built from.
///
/// # Errors
/// It is not there any more.
pub fn workspace() -> Result<PathBuf> {
    let root =
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask stands outside of its workspace")?;
    root.canonicalize().with_context(|| format!("{} is gone", root.display()))
}

/// buildah with a store of our own: the user's images are left alone.
fn buildah() -> Result<Command> {
    let root = cache::root()?;
    let mut command = Command::new("buildah");
    command
        .args(["--storage-driver", "vfs"])
        .arg("--root")
        .arg(root.join("buildah"))
        .arg("--runroot")
        .arg(root.join("buildah-run"));
    Ok(command)
}

/// Writes an image of the store as an OCI archive and gives its digest. Uncompressed: it only travels on this machine.
fn archive(reference: &str, file: &Path) -> Result<String> {
    let digest = file.with_extension("digest");
    let _ = fs::remove_file(file);
    buildah()?
        .args(["push", "-q", "--disable-compression", "--format", "oci", "--digestfile"])
        .arg(&digest)
        .arg(reference)
        .arg(format!("oci-archive:{}:{reference}", file.display()))
        .run()?;
    Ok(fs::read_to_string(&digest)?.trim().to_owned())
}

/// Puts an image back into the store when only its archive is left.
fn into_store(image: &Image) -> Result<()> {
    if buildah()?.args(["inspect", "--type", "image", &image.reference()]).succeeds() {
        return Ok(());
    }
    let id = buildah()?.args(["pull", "-q", &format!("oci-archive:{}", image.archive.display())]).text()?;
    let id = id.lines().last().unwrap_or_default().to_owned();
    buildah()?.args(["tag", &id, &image.reference()]).run()
}
