//! Writing the bundle of one identity: signed, only when it changes, never over something the writer did not see.

use std::sync::Arc;

use behalf_plan::{Applied, BundleIntent, LastBundle, next_document};
use behalf_policy::bundle::Serve;
use behalf_policy::bundle::document::FeedDocument;

use super::Context;
use crate::error::ReconcileError;
use crate::kube_io::gather::SeenBundle;

/// A serial that our signature does not vouch for is heeded only if it is no further ahead than this: else it could use up all serials.
const PASSED_LEAD_MS: u64 = 24 * 60 * 60 * 1000;

/// What became of a write.
pub(super) enum Written {
    /// The server has this now.
    Applied(Applied),
    /// The server has something else than what was seen; here is what.
    OutOfDate(Box<SeenBundle>),
}

/// Brings the bundle object to what `intent` says, seen from `seen`.
pub(super) async fn write(
    context: &Context,
    namespace: &str,
    name: &str,
    intent: &BundleIntent,
    seen: &SeenBundle,
) -> Result<Written, ReconcileError> {
    let feed = context.feed.borrow().clone().ok_or(ReconcileError::NoFeed)?;
    let Some(text) = next_text(context, namespace, name, intent, &feed, seen)? else {
        return Ok(Written::Applied(applied(seen.last.as_ref())));
    };
    match context.apply.bundle(namespace, name, text, seen.object.as_deref()).await {
        Ok(written) => {
            let back = context.gather.see(Some(Arc::new(written)));
            let last = back.last.ok_or(ReconcileError::NotStored)?;
            tracing::info!(
                namespace,
                name,
                serial = last.document.serial,
                digest = last.digest,
                "wrote a bundle"
            );
            Ok(Written::Applied(applied(Some(&last))))
        }
        // Gone since it was seen counts as well: what was seen is not there.
        Err(error) if error.is_conflict() || (error.is_not_found() && seen.object.is_some()) => {
            let now = context.apply.read_bundle(namespace, name).await;
            let now = now.map_err(ReconcileError::api("read the bundle"))?;
            Ok(Written::OutOfDate(Box::new(context.gather.see(now.map(Arc::new)))))
        }
        Err(error) => Err(ReconcileError::write("write the bundle")(error)),
    }
}

/// What the server has, as the status needs it.
pub(super) fn applied(last: Option<&LastBundle>) -> Applied {
    Applied { bundle: last.map(LastBundle::facts), failure: None }
}

/// The signed text to write; none if what is there is right.
fn next_text(
    context: &Context,
    namespace: &str,
    name: &str,
    intent: &BundleIntent,
    feed: &FeedDocument,
    seen: &SeenBundle,
) -> Result<Option<String>, ReconcileError> {
    let last = seen.last.as_ref().map(|last| &last.document);
    let serve = match intent {
        // Kept is what is served; how the operator is reached may change.
        BundleIntent::Keep => last.map(|last| Serve::clone(&last.serve)),
        BundleIntent::Write(serve) => Some(Serve::clone(serve)),
    };
    let earliest = earliest(context.clock.millis(), seen);
    let keys = context.keys.current();
    let salt = keys.record_salt();
    let next =
        serve.and_then(|serve| next_document(namespace, name, serve, Some(feed), salt, last, earliest));
    match (next, last) {
        (Some(next), _) => Ok(Some(keys.seal(&next)?)),
        // The same bundle: every pod that has it keeps it, and those that pin another of our keys get it too.
        (None, Some(last)) if !seen.intact => Ok(Some(keys.seal(last)?)),
        (None, _) => Ok(None),
    }
}

fn earliest(now_ms: u64, seen: &SeenBundle) -> u64 {
    let after = seen.passed_serial.map_or(0, |serial| serial.saturating_add(1));
    if after <= now_ms.saturating_add(PASSED_LEAD_MS) { after.max(now_ms) } else { now_ms }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_serial_we_did_not_sign_is_passed_unless_it_is_absurd() {
        let seen = |passed_serial| SeenBundle { passed_serial, ..SeenBundle::default() };
        assert_eq!(earliest(1000, &seen(None)), 1000);
        assert_eq!(earliest(1000, &seen(Some(10))), 1000);
        assert_eq!(earliest(1000, &seen(Some(1000))), 1001);
        assert_eq!(earliest(1000, &seen(Some(5000))), 5001);
        assert_eq!(earliest(1000, &seen(Some(u64::MAX))), 1000);
        assert_eq!(earliest(1000, &seen(Some(1001 + PASSED_LEAD_MS))), 1000);
    }
}
