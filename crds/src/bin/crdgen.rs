//! Writes the CRDs: to standard output, or one file each into the folder after `--out`.
#![allow(
    clippy::disallowed_methods,
    reason = "a generator reads its arguments and writes files; the library does not"
)]

use std::error::Error;
use std::io::Write;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = match (arguments.next().as_deref(), arguments.next(), arguments.next()) {
        (None, ..) => None,
        (Some("--out"), Some(folder), None) => Some(PathBuf::from(folder)),
        _ => return Err("usage: crdgen [--out DIR]".into()),
    };
    for (name, yaml) in behalf_crds::crd_yaml()? {
        match &folder {
            Some(folder) => std::fs::write(folder.join(name), yaml)?,
            None => write!(std::io::stdout(), "---\n{yaml}")?,
        }
    }
    Ok(())
}
