//! What must not stand in the project's files: paths of somebody's machine, and addresses of package registries.
use anyhow::Result;

use super::{Gate, verdict};

/// Starts of absolute paths that exist on one machine only. In two pieces, so that this file does not name them.
const PATHS: &[&str] = &[
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/"),
    concat!("/ho", "me/"),
    concat!("/Us", "ers/"),
    concat!("C:\\", "Users"),
];
/// Settings that point a package manager elsewhere: users have their own.
const SETTINGS: &[&str] = &[
    concat!("index", "-url"),
    concat!("PIP_INDEX", "_URL"),
    concat!("UV_INDEX", "_URL"),
    concat!("GO", "PROXY"),
    concat!("npm_config", "_registry"),
    concat!("replace", "-with"),
    concat!("<mir", "ror>"),
];

pub(super) fn words(gate: &Gate<'_>) -> Result<()> {
    let mut findings = Vec::new();
    for path in gate.files()? {
        // What is no text (an image, an archive) holds no words.
        let Ok(text) = std::fs::read_to_string(gate.root.join(&path)) else { continue };
        for (number, line) in text.lines().enumerate() {
            if let Some(why) = found(line) {
                findings.push(format!("{path}:{}: {why}", number + 1));
            }
        }
    }
    verdict(&findings, "words that belong to one machine only:")
}

fn found(line: &str) -> Option<String> {
    if let Some(path) = PATHS.iter().find(|path| begins_a_path(line, path)) {
        return Some(format!("the path {path}…"));
    }
    SETTINGS
        .iter()
        .find(|setting| line.contains(**setting))
        .map(|setting| format!("the registry setting {setting}"))
}

/// Whether `start` stands in `line` as the beginning of a path, and not in the midst of a longer one or of a URL.
fn begins_a_path(line: &str, start: &str) -> bool {
    line.match_indices(start).any(|(at, _)| {
        if line[..at].ends_with("file://") {
            return true;
        }
        let before = line[..at].chars().next_back();
        let inside =
            |c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '~' | '}' | ')' | '*' | '/');
        !before.is_some_and(inside)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_a_machine_is_found() {
        for path in PATHS {
            for line in [
                format!("see {path}x"),
                format!("\"{path}\""),
                format!("HOME={path}a"),
                format!("file://{path}"),
                format!("{path}b"),
            ] {
                assert!(found(&line).is_some(), "{line}");
            }
        }
    }

    #[test]
    fn other_paths_are_not() {
        for line in
            ["~/.cache/behalf", "/proc/self/root", "the/work is done", "https://a.example/home/x", "/var/run"]
        {
            assert_eq!(found(line), None, "{line}");
        }
    }

    #[test]
    fn a_registry_setting_is_found() {
        for setting in SETTINGS {
            assert!(found(&format!("export {setting}=https://packages.example")).is_some(), "{setting}");
        }
    }
}
