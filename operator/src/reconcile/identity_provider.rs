//! `IdentityProvider`: its status.

use behalf_plan::provider_status;

use super::queue::Next;
use super::{Context, unreadable};
use crate::error::ReconcileError;

/// One pass. One that is gone has nothing to be done for it: the identities that name it are reconciled by themselves.
pub(super) async fn reconcile(context: &Context, name: &str) -> Result<Next, ReconcileError> {
    let Some(held) = context.gather.provider(name) else { return Ok(Next::AwaitChange) };
    let object = match &held.0 {
        Ok(object) => object,
        Err(invalid) => {
            let consequence = "Identities keep their last good bundle until then.";
            unreadable::report(context, held.as_ref(), invalid, consequence).await?;
            return Ok(Next::AwaitChange);
        }
    };
    let before = object.status.as_ref();
    let after = provider_status(object, &context.gather.rivals(object), before, &context.clock.now());
    let wrote = context.statuses.write(object, before, &after).await;
    if wrote.map_err(ReconcileError::write("write the status"))? {
        let before = before.map(|it| it.conditions.as_slice()).unwrap_or_default();
        unreadable::announce(context, object, before, &after.conditions).await;
    }
    Ok(Next::AwaitChange)
}
