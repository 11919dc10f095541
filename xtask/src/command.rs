//! Running other programs: every failure names the command, its exit and the end of what it said.
use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, bail};

/// How the rest of this crate runs a prepared [`Command`].
pub trait Run {
    /// Runs it and keeps its output for the error message only.
    ///
    /// # Errors
    /// It cannot be started, or it fails; the message holds the end of its output.
    fn run(&mut self) -> Result<()>;

    /// Runs it and gives its standard output, without trailing white space.
    ///
    /// # Errors
    /// As [`Run::run`].
    fn text(&mut self) -> Result<String>;

    /// Runs it with `input` on its standard input and gives its standard output.
    ///
    /// # Errors
    /// As [`Run::run`].
    fn feed(&mut self, input: &str) -> Result<String>;

    /// Runs it with the terminal as its own input and output.
    ///
    /// # Errors
    /// It cannot be started, or it fails.
    fn show(&mut self) -> Result<()>;

    /// Whether it could be started and succeeded; its output is dropped.
    fn succeeds(&mut self) -> bool;
}

impl Run for Command {
    fn run(&mut self) -> Result<()> {
        self.text().map(drop)
    }

    fn text(&mut self) -> Result<String> {
        let output =
            self.stdin(Stdio::null()).output().with_context(|| format!("cannot start {}", line(self)))?;
        judged(self, &output)
    }

    fn feed(&mut self, input: &str) -> Result<String> {
        let mut child = self
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", line(self)))?;
        if let Some(mut stdin) = child.stdin.take() {
            // A program that ends without reading everything says why by its exit status.
            let _ = stdin.write_all(input.as_bytes());
        }
        let output = child.wait_with_output().with_context(|| format!("lost {}", line(self)))?;
        judged(self, &output)
    }

    fn show(&mut self) -> Result<()> {
        let status = self.status().with_context(|| format!("cannot start {}", line(self)))?;
        if !status.success() {
            bail!("{} ended with {status}", line(self));
        }
        Ok(())
    }

    fn succeeds(&mut self) -> bool {
        self.stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    }
}

/// The path of `program` as a shell would find it, or none.
#[must_use]
pub fn which(program: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Network tools stand in directories that are not on every user's PATH.
    let extra = ["/usr/sbin", "/sbin"].map(std::path::PathBuf::from);
    std::env::split_paths(&path).chain(extra).map(|dir| dir.join(program)).find(|file| file.is_file())
}

fn judged(command: &Command, output: &Output) -> Result<String> {
    let said = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
    if output.status.success() {
        return Ok(said);
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    bail!("{} ended with {}\n{}", line(command), output.status, tail(&format!("{said}\n{complaint}"), 30))
}

/// The last `count` lines of `text`.
#[must_use]
pub fn tail(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.trim().lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

fn line(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|arg| arg.to_string_lossy().into_owned()));
    let text = words.join(" ");
    match text.char_indices().nth(300) {
        Some((end, _)) => format!("`{}…`", &text[..end]),
        None => format!("`{text}`"),
    }
}
