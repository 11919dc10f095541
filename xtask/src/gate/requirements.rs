//! Every numbered requirement has a test that carries its number, or a reason why not.
use anyhow::Result;

use super::{Gate, verdict};
use crate::requirements;

pub(super) fn requirements(gate: &Gate<'_>) -> Result<()> {
    let judged = requirements::judge(&gate.root, &requirements::shown(&gate.root)?)?;
    for line in &judged.said {
        gate.steps.say(line);
    }
    verdict(&judged.wrong, "requirements that nothing shows:")
}
