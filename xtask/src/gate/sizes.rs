//! How long a file of Rust may be. A long one is asked to be split before it is impossible to.
use std::path::Path;

use anyhow::Result;

use super::{Gate, verdict};

/// More lines than this are pointed out.
const SOFT: usize = 400;
/// More lines than this are refused.
const HARD: usize = 500;

pub(super) fn sizes(gate: &Gate<'_>) -> Result<()> {
    let mut refused = Vec::new();
    let rust = |path: &&String| Path::new(path).extension().is_some_and(|ending| ending == "rs");
    for path in gate.files()?.iter().filter(rust) {
        let lines = gate.read(path)?.lines().count();
        match judge(lines) {
            Size::Fine => {}
            Size::Long => {
                gate.steps.say(&format!("{path} has {lines} lines; a file should have at most {SOFT}"));
            }
            Size::TooLong => refused.push(format!("{path} has {lines} lines")),
        }
    }
    verdict(&refused, &format!("files with more than {HARD} lines:"))
}

#[derive(Debug, PartialEq, Eq)]
enum Size {
    Fine,
    Long,
    TooLong,
}

fn judge(lines: usize) -> Size {
    match lines {
        0..=SOFT => Size::Fine,
        401..=HARD => Size::Long,
        _ => Size::TooLong,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_belong_to_the_better_side() {
        assert_eq!([400, 401, 500, 501].map(judge), [Size::Fine, Size::Long, Size::Long, Size::TooLong]);
    }
}
