//! The counts of one identity: loaded once a term, written before a status shows them.

use behalf_crds::v1alpha1::AgentIdentity;
use tokio::time::Instant;

use super::Context;
use crate::error::ReconcileError;
use crate::feed::IdentityKey;
use crate::feed::desk::Unwritten;

/// Has the desk go on from what is stored, if it does not yet.
pub(super) async fn load(
    context: &Context,
    key: &IdentityKey,
    object: &AgentIdentity,
) -> Result<(), ReconcileError> {
    let uid = object.metadata.uid.as_deref().unwrap_or_default();
    let known = object.status.as_ref().is_some_and(|status| status.decisions.is_some());
    if context.desk.wants(key, uid, known) {
        let stored = context.counts.read(&key.0, &key.1).await;
        let stored = stored.map_err(ReconcileError::api("read the counts"))?;
        context.desk.load(key, uid, stored, known, &context.clock.now());
    }
    Ok(())
}

/// Writes them.
pub(super) async fn write(
    context: &Context,
    key: &IdentityKey,
    unwritten: &Unwritten,
) -> Result<(), ReconcileError> {
    let (text, seen) = (unwritten.text.clone(), unwritten.seen.as_deref());
    match context.counts.write(&key.0, &key.1, text, seen).await {
        Ok(object) => {
            context.desk.written(key, unwritten, object, Instant::now());
            Ok(())
        }
        Err(error) => {
            // Gone since it was seen counts as well: what was seen is not there.
            if error.is_conflict() || error.is_not_found() {
                context.desk.outdated(key);
            }
            Err(ReconcileError::write("write the counts")(error))
        }
    }
}
