//! What a run of the conformance suite found, and how two runs differ, check for check.
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

/// A check by its scenario and its id. One scenario may make one check more than once.
pub(super) type Name = (String, String);

/// How often a check came out how, with the messages of those that did not succeed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    statuses: BTreeMap<String, usize>,
    messages: Vec<String>,
}

impl Outcome {
    fn count(&self, status: &str) -> usize {
        self.statuses.get(status).copied().unwrap_or_default()
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.statuses.is_empty() {
            return f.write_str("NONE");
        }
        for (index, (status, count)) in self.statuses.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            match count {
                1 => write!(f, "{comma}{status}")?,
                _ => write!(f, "{comma}{status}*{count}")?,
            }
        }
        Ok(())
    }
}

/// All checks of one run.
#[derive(Debug, Default)]
pub(super) struct Checks(BTreeMap<Name, Outcome>);

#[derive(Deserialize)]
struct Check {
    id: String,
    status: String,
    #[serde(default, rename = "errorMessage")]
    message: Option<String>,
}

/// `-` and a time like `2026-11-22T08-39-24-032Z`.
const TIME_LENGTH: usize = 25;

impl Checks {
    /// Reads what the suite left in `dir`: one folder for each scenario, named by it and the time.
    ///
    /// # Errors
    /// There is nothing, or something that is not read.
    pub(super) fn read(dir: &Path) -> Result<Self> {
        let mut checks = Self::default();
        for entry in fs::read_dir(dir).with_context(|| format!("no results in {}", dir.display()))? {
            let folder = entry?.path();
            let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let file = folder.join("checks.json");
            let text =
                fs::read_to_string(&file).with_context(|| format!("no results in {}", file.display()))?;
            let scenario = name.get(..name.len().saturating_sub(TIME_LENGTH)).unwrap_or(&name);
            let scenario = scenario.strip_prefix("server-").unwrap_or(scenario);
            checks.add(scenario, &text).with_context(|| file.display().to_string())?;
        }
        if checks.0.is_empty() {
            bail!("the suite made no check at all: {}", dir.display());
        }
        Ok(checks)
    }

    fn add(&mut self, scenario: &str, text: &str) -> Result<()> {
        for check in serde_json::from_str::<Vec<Check>>(text)? {
            let outcome = self.0.entry((scenario.to_owned(), check.id)).or_default();
            *outcome.statuses.entry(check.status.clone()).or_default() += 1;
            if check.status != "SUCCESS" {
                outcome.messages.extend(check.message);
            }
        }
        Ok(())
    }

    /// How many checks succeeded, how many failed, and how many there are.
    pub(super) fn counts(&self) -> (usize, usize, usize) {
        let count = |status| self.0.values().map(|outcome| outcome.count(status)).sum();
        let all = self.0.values().flat_map(|outcome| outcome.statuses.values()).sum();
        (count("SUCCESS"), count("FAILURE"), all)
    }

    /// Where the run through the sidecar (`other`) came out otherwise than the direct one.
    pub(super) fn against(&self, other: &Self) -> Vec<Difference> {
        let names: BTreeSet<&Name> = self.0.keys().chain(other.0.keys()).collect();
        let pair = |name: &&Name| {
            let of = |checks: &Self| checks.0.get(*name).cloned().unwrap_or_default();
            (of(self), of(other))
        };
        let differs = names.into_iter().map(|name| (name, pair(&name)));
        differs
            .filter(|(_, (direct, through))| direct.statuses != through.statuses)
            .map(|(name, (direct, through))| Difference { name: name.clone(), direct, through })
            .collect()
    }
}

/// A check that came out otherwise.
#[derive(Debug)]
pub(super) struct Difference {
    /// Which one.
    pub(super) name: Name,
    /// Without the sidecar.
    pub(super) direct: Outcome,
    /// Through it.
    pub(super) through: Outcome,
}

impl Difference {
    /// Whether something that succeeds without the sidecar does not through it, or something fails that did not.
    pub(super) fn is_worse(&self) -> bool {
        self.through.count("SUCCESS") < self.direct.count("SUCCESS")
            || self.through.count("FAILURE") > self.direct.count("FAILURE")
    }

    /// As a line of the table of accepted differences, without its last column.
    pub(super) fn row(&self, leg: &str) -> String {
        format!("{leg}\t{}\t{}\t{}\t{}", self.name.0, self.name.1, self.direct, self.through)
    }

    /// The messages on both sides, for whoever looks for the cause.
    pub(super) fn messages(&self) -> String {
        format!(
            "    direct:  {}\n    through: {}",
            self.direct.messages.join(" | "),
            self.through.messages.join(" | ")
        )
    }
}

/// The committed table: a difference in each line, and the requirement that explains it.
pub(super) struct Accepted(BTreeMap<String, String>);

impl Accepted {
    /// Reads the table. A line that begins with `#` is a comment.
    ///
    /// # Errors
    /// A line without an explanation.
    pub(super) fn read(text: &str) -> Result<Self> {
        let mut rows = BTreeMap::new();
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (row, why) = line.rsplit_once('\t').context("a row has six columns")?;
            if row.matches('\t').count() != 4 || why.is_empty() {
                bail!("a row has six columns, the last of which says why: {line}");
            }
            rows.insert(row.to_owned(), why.to_owned());
        }
        Ok(Self(rows))
    }

    /// Why a difference is accepted; none if it is not.
    pub(super) fn why(&self, leg: &str, difference: &Difference) -> Option<&str> {
        self.0.get(&difference.row(leg)).map(String::as_str)
    }

    /// Rows of this leg that no difference corresponds to.
    pub(super) fn stale(&self, leg: &str, differences: &[Difference]) -> Vec<String> {
        let there: BTreeSet<String> = differences.iter().map(|difference| difference.row(leg)).collect();
        let of_leg = self.0.keys().filter(|row| row.split('\t').next() == Some(leg));
        of_leg.filter(|row| !there.contains(*row)).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checks(text: &str) -> Checks {
        let mut checks = Checks::default();
        checks.add("ping", text).unwrap();
        checks
    }

    const GOOD: &str = r#"[{"id":"a","status":"SUCCESS"},{"id":"b","status":"SUCCESS"}]"#;
    const BAD: &str = r#"[{"id":"a","status":"SUCCESS"},{"id":"b","status":"FAILURE","errorMessage":"no"}]"#;

    #[test]
    fn equal_runs_do_not_differ_and_a_failure_is_worse() {
        assert!(checks(GOOD).against(&checks(GOOD)).is_empty());
        let worse = checks(GOOD).against(&checks(BAD));
        assert!(worse.len() == 1 && worse[0].is_worse());
        assert_eq!(worse[0].row("leg"), "leg\tping\tb\tSUCCESS\tFAILURE");
        assert!(!checks(BAD).against(&checks(GOOD))[0].is_worse());
    }

    #[test]
    fn a_check_that_is_not_made_any_more_is_worse() {
        let fewer = checks(GOOD).against(&checks(r#"[{"id":"a","status":"SUCCESS"}]"#));
        assert!(fewer[0].is_worse());
        assert_eq!(fewer[0].row("leg"), "leg\tping\tb\tSUCCESS\tNONE");
    }

    #[test]
    fn a_check_made_twice_counts_twice() {
        let twice = r#"[{"id":"a","status":"SUCCESS"},{"id":"a","status":"FAILURE"}]"#;
        let differences = checks(twice).against(&checks(r#"[{"id":"a","status":"SUCCESS"}]"#));
        assert_eq!(differences[0].row("x"), "x\tping\ta\tFAILURE,SUCCESS\tSUCCESS");
    }

    #[test]
    fn a_row_that_nothing_corresponds_to_is_stale() {
        let table = Accepted::read("# x\nleg\tping\tb\tFAILURE\tSUCCESS\tC21: why\n").unwrap();
        let better = checks(BAD).against(&checks(GOOD));
        assert_eq!(table.why("leg", &better[0]), Some("C21: why"));
        assert!(table.why("other", &better[0]).is_none());
        assert!(table.stale("leg", &better).is_empty());
        assert_eq!(table.stale("leg", &[]).len(), 1);
        assert!(Accepted::read("leg\tping\tb\tFAILURE\tSUCCESS").is_err());
    }
}
