//! What is kept between runs, under `~/.cache/behalf`: built parts with a stamp written last, and the run of the cluster.
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

use crate::progress::Steps;

/// The directory of everything kept: `$BEHALF_CACHE`, else `$XDG_CACHE_HOME/behalf`, else `~/.cache/behalf`.
///
/// # Errors
/// None of the three variables is set.
pub fn root() -> Result<PathBuf> {
    let from = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    from("BEHALF_CACHE")
        .or_else(|| from("XDG_CACHE_HOME").map(|dir| dir.join("behalf")))
        .or_else(|| from("HOME").map(|dir| dir.join(".cache/behalf")))
        .context("no HOME: set BEHALF_CACHE to the directory where built parts may be kept")
}

/// One built part. It counts as built only when its stamp names the recipe that would build it now.
#[derive(Debug)]
pub struct Part {
    /// Where the part lies.
    pub dir: PathBuf,
    recipe: String,
}

/// What stands in the cache for a part.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// Built, by this very recipe.
    Whole,
    /// Nothing there.
    Nothing,
    /// A build that was interrupted, or damaged since.
    Half,
    /// Built by another recipe.
    Other,
}

const STAMP: &str = ".complete";

impl Part {
    /// A part that lies in `root/name` and is described in full by `recipe` (versions, flags, inputs).
    #[must_use]
    pub fn new(root: &Path, name: &str, recipe: &str) -> Self {
        Self { dir: root.join(name), recipe: digest(&[recipe.as_bytes()]) }
    }

    /// What is there, given the `files` a whole part must hold.
    #[must_use]
    pub fn found(&self, files: &[&str]) -> Found {
        match fs::read_to_string(self.dir.join(STAMP)) {
            Ok(stamp) if stamp == self.recipe => {
                if files.iter().all(|file| self.dir.join(file).exists()) {
                    Found::Whole
                } else {
                    Found::Half
                }
            }
            Ok(stamp) if stamp.len() == self.recipe.len() => Found::Other,
            _ if self.dir.exists() => Found::Half,
            _ => Found::Nothing,
        }
    }

    /// Whether the part is whole; if not, says why, and leaves an empty directory to build it in.
    ///
    /// # Errors
    /// The directory cannot be emptied or made.
    pub fn ready(&self, steps: &Steps, files: &[&str]) -> Result<bool> {
        let name = self.dir.file_name().unwrap_or_default().to_string_lossy();
        match self.found(files) {
            Found::Whole => return Ok(true),
            Found::Nothing => {}
            Found::Half => {
                steps.say(&format!("{name}: a half-built copy is in the cache; it is built again"));
            }
            Found::Other => {
                steps.say(&format!("{name}: the cached copy was built by another recipe; it is built again"));
            }
        }
        if self.dir.exists() {
            fs::remove_dir_all(&self.dir).with_context(|| format!("cannot empty {}", self.dir.display()))?;
        }
        fs::create_dir_all(&self.dir).with_context(|| format!("cannot make {}", self.dir.display()))?;
        Ok(false)
    }

    /// Writes the stamp: from now on the part counts as built.
    ///
    /// # Errors
    /// The stamp cannot be written.
    pub fn seal(&self) -> Result<()> {
        write_whole(&self.dir.join(STAMP), &self.recipe)
    }
}

/// Waits until no other process builds under `name`, and keeps others waiting until the file it returns is dropped.
///
/// # Errors
/// The lock file cannot be made.
pub fn alone(steps: &Steps, root: &Path, name: &str) -> Result<fs::File> {
    fs::create_dir_all(root).with_context(|| format!("cannot make {}", root.display()))?;
    let path = root.join(format!("{name}.lock"));
    let file = fs::File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
    if file.try_lock().is_err() {
        steps.say(&format!("another process builds {name}; waiting for it"));
        file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    }
    Ok(file)
}

/// Writes a file so that it is there whole or not at all.
///
/// # Errors
/// The directory cannot be written.
pub fn write_whole(path: &Path, text: &str) -> Result<()> {
    let partial = path.with_extension("partial");
    fs::write(&partial, text)
        .and_then(|()| fs::rename(&partial, path))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// SHA-256 over length-framed pieces, as hex.
#[must_use]
pub fn digest(pieces: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for piece in pieces {
        hash.update((piece.len() as u64).to_be_bytes());
        hash.update(piece);
    }
    hex(&hash.finalize())
}

/// Lower-case hex.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing into a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("behalf-cache-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        dir
    }

    #[test]
    fn a_part_without_its_stamp_is_half_built() {
        let root = scratch("half");
        let part = Part::new(&root, "thing-1", "recipe");
        assert_eq!(part.found(&["bin"]), Found::Nothing);
        assert!(!part.ready(&Steps::new("test"), &["bin"]).unwrap());
        fs::write(part.dir.join("bin"), "").unwrap();
        assert_eq!(part.found(&["bin"]), Found::Half);
        assert!(!part.ready(&Steps::new("test"), &["bin"]).unwrap(), "a half-built part is emptied");
        assert!(!part.dir.join("bin").exists());
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_stamp_without_the_files_is_half_built_and_another_recipe_is_not_this_one() {
        let root = scratch("recipe");
        let part = Part::new(&root, "thing-1", "recipe");
        assert!(!part.ready(&Steps::new("test"), &["bin"]).unwrap());
        part.seal().unwrap();
        assert_eq!(part.found(&["bin"]), Found::Half);
        fs::write(part.dir.join("bin"), "").unwrap();
        assert_eq!(part.found(&["bin"]), Found::Whole);
        assert_eq!(Part::new(&root, "thing-1", "recipe 2").found(&["bin"]), Found::Other);
        fs::write(part.dir.join(STAMP), "").unwrap();
        assert_eq!(part.found(&["bin"]), Found::Half, "an empty stamp is no stamp");
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn pieces_are_framed() {
        assert_ne!(digest(&[b"ab", b"c"]), digest(&[b"a", b"bc"]));
    }
}
