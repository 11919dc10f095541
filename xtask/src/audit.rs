//! `cargo xtask audit verify`: whether decision records still are what sidecars wrote.
use std::fmt::Write as _;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use behalf_plan::reports::Ledger;
use behalf_policy::record::{Chain, Head, Options, Source, verify};
use clap::{Args as ClapArgs, Subcommand};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// `cargo xtask audit`.
#[derive(ClapArgs)]
pub struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Check the chain of decision records
    Verify(Verify),
}

/// `cargo xtask audit verify`.
#[derive(ClapArgs)]
pub struct Verify {
    /// Files of lines, as the sidecar wrote them or `kubectl logs` gives them; several pods, boots and other lines may be
    /// mixed. `-` for standard input
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// What the operator was told: `counts.json` of a `ConfigMap` `behalf-counts-…`, or the object itself as JSON
    #[arg(long)]
    heads: Vec<PathBuf>,
    /// Older lines, and whole boots, may be missing: they were rotated away, or are not given
    #[arg(long)]
    partial: bool,
}

/// Runs `cargo xtask audit`.
///
/// # Errors
/// A file cannot be read, or something does not hold.
pub fn run(args: &Args) -> Result<()> {
    let Task::Verify(args) = &args.task;
    verify_files(&args.files, &args.heads, args.partial)
}

/// Checks these files against these heads, and prints what is found; see [`Verify`].
///
/// # Errors
/// A file cannot be read, or something does not hold.
pub fn verify_files(files: &[PathBuf], known: &[PathBuf], partial: bool) -> Result<()> {
    let mut read = Vec::new();
    for file in files {
        read.push((file.display().to_string(), bytes(file)?));
    }
    let sources: Vec<Source<'_>> = read.iter().map(|(name, bytes)| Source { name, bytes }).collect();
    let mut heads = Vec::new();
    for file in known {
        let text = String::from_utf8(bytes(file)?).context("text was expected")?;
        heads.extend(heads_of(&text).with_context(|| format!("{} is no ledger", file.display()))?);
    }
    let verdict = verify(&sources, &heads, Options { partial }, sha256);
    for chain in &verdict.chains {
        println!("{}", line(chain));
    }
    if verdict.others > 0 {
        println!("{} other lines", verdict.others);
    }
    for finding in &verdict.findings {
        println!("FAILED {finding}");
    }
    if verdict.chains.is_empty() {
        bail!("there are no records");
    }
    if !verdict.holds() {
        bail!("{} things do not hold", verdict.findings.len());
    }
    let open = verdict.chains.iter().filter(|chain| !chain.attested).count();
    let boots = verdict.chains.len();
    println!("the records of {boots} boots hold; nobody else vouches for the last line of {open} of them");
    Ok(())
}

fn bytes(file: &Path) -> Result<Vec<u8>> {
    if file == Path::new("-") {
        let mut bytes = Vec::new();
        std::io::stdin().lock().read_to_end(&mut bytes)?;
        return Ok(bytes);
    }
    fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}

/// From the ledger itself, or from the object that holds it.
fn heads_of(text: &str) -> Result<Vec<Head>> {
    let value: Value = serde_json::from_str(text)?;
    let ledger = value["data"]["counts.json"].as_str().unwrap_or(text);
    let ledger = Ledger::from_text(ledger)?;
    let head = |(boot, sequence, hash): (&str, u64, &str)| Head {
        boot: boot.to_owned(),
        sequence,
        hash: hash.to_owned(),
    };
    Ok(ledger.heads().map(head).collect())
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

fn line(chain: &Chain) -> String {
    let Chain { boot, namespace, identity, first, last, decisions, unrecorded, .. } = chain;
    let mut line = format!(
        "{boot} {namespace}/{identity}: {decisions} decisions, sequence {first} to {last}, {}",
        chain.head
    );
    if let Some(before) = &chain.continues {
        let _ = write!(line, ", continues {before}");
    }
    if !chain.interrupted.is_empty() {
        let _ = write!(line, ", interrupted: {:?}", chain.interrupted);
    }
    if *unrecorded > 0 {
        let _ = write!(line, ", {unrecorded} decisions without a record");
    }
    line.push_str(if chain.ended { ", ended" } else { ", no clean end" });
    if !chain.attested {
        line.push_str(", last line vouched for by nobody else");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_come_from_a_ledger_or_from_its_object() {
        let ledger = r#"{"format":1,"identity":"u","since":"2026-11-22T02:00:00Z","lost":false,"kinds":[],
            "base":[0,0,0,[]],"folded":[],"boots":[],"heads":[["pod","boot",7,"sha256:ab"]]}"#;
        let object = serde_json::json!({"kind": "ConfigMap", "data": {"counts.json": ledger}}).to_string();
        let head = Head { boot: "boot".into(), sequence: 7, hash: "sha256:ab".into() };
        for text in [ledger, object.as_str()] {
            assert_eq!(heads_of(text).unwrap(), std::slice::from_ref(&head));
        }
        for bad in ["", "{}", "[]", r#"{"data":{"counts.json":"x"}}"#] {
            assert!(heads_of(bad).is_err(), "{bad}");
        }
    }
}
