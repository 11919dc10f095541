//! Objects of our kinds that do not have the shape this build knows: said in their status, and never taken for something.

use behalf_crds::v1alpha1::{AcceptedReason, ReadyReason, condition, set_condition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Resource;
use kube::core::error_boundary::InvalidObject;
use serde_json::json;

use super::Context;
use crate::error::ReconcileError;

/// Says in the status of `object` why it cannot be read. Waits for a change: the object will not improve by itself.
pub(super) async fn report<K>(
    context: &Context,
    object: &K,
    invalid: &InvalidObject,
    consequence: &str,
) -> Result<(), ReconcileError>
where
    K: Resource<DynamicType = ()>,
{
    let before =
        context.gather.conditions(object).await.map_err(ReconcileError::api("read the conditions"))?;
    let (generation, now) = (object.meta().generation, context.clock.now());
    let message = format!("The object cannot be read: {}. Correct it. {consequence}", invalid.error);
    let mut conditions = before.clone();
    set_condition(&mut conditions, condition(AcceptedReason::Invalid, &message, generation, now.clone()));
    set_condition(&mut conditions, condition(ReadyReason::NotAccepted, &message, generation, now));
    if before == conditions {
        return Ok(());
    }
    let status = json!({"observedGeneration": generation, "conditions": conditions});
    let wrote = context.statuses.write(object, None, &status).await;
    if wrote.map_err(ReconcileError::write("write the status"))? {
        announce(context, object, &before, &conditions).await;
    }
    Ok(())
}

/// Events for the conditions that changed.
pub(super) async fn announce<K>(context: &Context, object: &K, before: &[Condition], after: &[Condition])
where
    K: Resource<DynamicType = ()>,
{
    context.events.publish(behalf_plan::events(before, after), &object.object_ref(&())).await;
}
