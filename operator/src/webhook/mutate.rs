//! One question of the API server: may this pod come in, and as what?

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use behalf_crds::names;
use behalf_crds::v1alpha1::{AgentIdentity, IdentityProvider};
use behalf_plan::{Injection, Plan, Refusal, Settings, plan_injection};
use k8s_openapi::api::core::v1::{Namespace, Pod, Service};
use kube::core::DynamicObject;
use kube::core::admission::{AdmissionRequest, AdmissionResponse, AdmissionReview, Operation};

use super::patch;
use crate::kube_io::gather::{Gather, readable};
use crate::live::Live;
use crate::metrics::{Metrics, Verdict};

/// The HTTP code of a refused pod, as the API server shows it.
const FORBIDDEN: u16 = 403;
/// The HTTP code when we cannot know.
const UNAVAILABLE: u16 = 503;
/// The HTTP code of a pod that makes no sense.
const UNREADABLE: u16 = 422;

/// Answers admission reviews.
#[derive(Clone)]
pub struct Mutate {
    gather: Gather,
    settings: Live<Settings>,
    metrics: Arc<Metrics>,
}

/// Why there is no answer at all.
#[derive(Debug, thiserror::Error)]
pub enum ReviewError {
    /// The body is no admission review.
    #[error("the body is not an AdmissionReview of admission.k8s.io/v1")]
    NotReview,
    /// The answer cannot be written.
    #[error("the answer cannot be written")]
    Encode,
}

/// What a pod's plan depends on.
#[derive(Debug, Default)]
struct Surroundings {
    namespace: Namespace,
    identity: Option<AgentIdentity>,
    providers: BTreeMap<String, IdentityProvider>,
    /// Of the pod's namespace; only warnings depend on them.
    services: Vec<Service>,
}

impl Mutate {
    /// Plans with `settings` what `gather` finds.
    #[must_use]
    pub fn new(gather: Gather, settings: Live<Settings>, metrics: Arc<Metrics>) -> Self {
        Self { gather, settings, metrics }
    }

    /// Answers one review.
    ///
    /// # Errors
    /// It is none. The API server then does as if we were not there, which the admission policies make safe.
    pub async fn review(&self, body: &[u8]) -> Result<Vec<u8>, ReviewError> {
        let request = decode(body).inspect_err(|_| self.metrics.admitted(Verdict::Unreadable))?;
        let response = self.answer(&request).await?;
        encode(response)
    }

    async fn answer(
        &self,
        request: &AdmissionRequest<DynamicObject>,
    ) -> Result<AdmissionResponse, ReviewError> {
        let allow = AdmissionResponse::from(request);
        let Some(object) = concerning(request) else {
            self.metrics.admitted(Verdict::Skipped);
            return Ok(allow);
        };
        let Some(name) = object.metadata.labels.as_ref().and_then(|it| it.get(names::LABEL_AGENT_IDENTITY))
        else {
            self.metrics.admitted(Verdict::Skipped);
            return Ok(allow);
        };
        let pod = serde_json::to_value(object).and_then(serde_json::from_value::<Pod>);
        let Ok(pod) = pod else {
            self.metrics.admitted(Verdict::Unreadable);
            let message = "behalf: this pod cannot be read, so it cannot be put behind Behalf; check its fields against the Kubernetes version of the operator";
            return Ok(refuse(allow, UNREADABLE, message));
        };
        // A pod made from a template has no namespace of its own yet.
        let namespace = request.namespace.as_deref().unwrap_or_default();
        match self.plan(&pod, namespace, name).await {
            Ok(injection) => {
                let (verdict, response) = respond(allow, &pod, &injection)?;
                self.metrics.admitted(verdict);
                tracing::info!(namespace, identity = name.as_str(), ?verdict, "answered");
                Ok(response)
            }
            Err(error) => {
                self.metrics.admitted(Verdict::Refused);
                tracing::error!(namespace, identity = name.as_str(), error = %error, "cannot look up what a pod needs");
                let message = "behalf: the operator cannot ask the API server for this pod's AgentIdentity; it is tried again when the pod is made again";
                Ok(refuse(allow, UNAVAILABLE, message))
            }
        }
    }

    /// A pod and its identity are often applied together: before a pod is refused, the API server is asked once.
    async fn plan(&self, pod: &Pod, namespace: &str, name: &str) -> Result<Injection, kube::Error> {
        let held = self.held(namespace, name).await?;
        match self.plan_in(pod, &held) {
            Injection::Refuse(_) => Ok(self.plan_in(pod, &self.now(namespace, name, held).await?)),
            decided => Ok(decided),
        }
    }

    fn plan_in(&self, pod: &Pod, around: &Surroundings) -> Injection {
        let Surroundings { namespace, identity, providers, services } = around;
        plan_injection(pod, namespace, identity.as_ref(), providers, services, &self.settings.current())
    }

    async fn held(&self, namespace: &str, name: &str) -> Result<Surroundings, kube::Error> {
        let identity = self.gather.identity(namespace, name).and_then(|held| readable(&held));
        let providers = identity.as_ref().map(|it| self.gather.providers(it)).unwrap_or_default();
        let services = self.gather.services(namespace);
        let namespace = self.gather.namespace(namespace).await?.unwrap_or_default();
        Ok(Surroundings { namespace, identity, providers, services })
    }

    async fn now(
        &self,
        namespace: &str,
        name: &str,
        held: Surroundings,
    ) -> Result<Surroundings, kube::Error> {
        let identity = self.gather.identity_now(namespace, name).await?.and_then(|found| readable(&found));
        let mut providers = held.providers;
        for wanted in identity.iter().flat_map(|it| &it.spec.identity_providers) {
            if !providers.contains_key(&wanted.name)
                && let Some(found) =
                    self.gather.provider_now(&wanted.name).await?.and_then(|it| readable(&it))
            {
                providers.insert(wanted.name.clone(), found);
            }
        }
        let namespace = self.gather.namespace_now(namespace).await?.unwrap_or_default();
        Ok(Surroundings { namespace, identity, providers, services: held.services })
    }
}

fn decode(body: &[u8]) -> Result<AdmissionRequest<DynamicObject>, ReviewError> {
    let review: AdmissionReview<DynamicObject> =
        serde_json::from_slice(body).map_err(|_| ReviewError::NotReview)?;
    let types = &review.types;
    if types.kind != kube::core::admission::META_KIND
        || types.api_version != kube::core::admission::META_API_VERSION_V1
    {
        return Err(ReviewError::NotReview);
    }
    review.try_into().map_err(|_| ReviewError::NotReview)
}

/// The answer as the API documents it: `kube` writes a patch as a list of numbers, four times as long as base64.
fn encode(response: AdmissionResponse) -> Result<Vec<u8>, ReviewError> {
    let patch = response.patch.as_ref().map(|patch| STANDARD.encode(patch));
    let mut review = serde_json::to_value(response.into_review()).map_err(|_| ReviewError::Encode)?;
    if let (Some(patch), Some(held)) = (patch, review.pointer_mut("/response/patch")) {
        *held = patch.into();
    }
    serde_json::to_vec(&review).map_err(|_| ReviewError::Encode)
}

/// The new pod, if this is about one.
fn concerning(request: &AdmissionRequest<DynamicObject>) -> Option<&DynamicObject> {
    let kind = &request.kind;
    let is_pod = kind.group.is_empty() && kind.kind == "Pod" && request.sub_resource.is_none();
    if is_pod && request.operation == Operation::Create { request.object.as_ref() } else { None }
}

fn respond(
    allow: AdmissionResponse,
    pod: &Pod,
    injection: &Injection,
) -> Result<(Verdict, AdmissionResponse), ReviewError> {
    match injection {
        Injection::Skip(_) => Ok((Verdict::Skipped, allow)),
        Injection::Refuse(refusals) => Ok((Verdict::Refused, refuse(allow, FORBIDDEN, &explain(refusals)))),
        Injection::Plan(plan) => Ok((Verdict::Injected, permit(allow, pod, plan)?)),
    }
}

fn permit(mut allow: AdmissionResponse, pod: &Pod, plan: &Plan) -> Result<AdmissionResponse, ReviewError> {
    let old = serde_json::to_value(pod).map_err(|_| ReviewError::Encode)?;
    let new = serde_json::to_value(plan.apply(pod)).map_err(|_| ReviewError::Encode)?;
    let warnings: Vec<_> =
        plan.warnings.iter().map(|warning| format!("behalf: {}", warning.message)).collect();
    allow.warnings = (!warnings.is_empty()).then_some(warnings);
    let patch = patch::difference(&old, &new);
    if patch.0.is_empty() {
        return Ok(allow);
    }
    allow.with_patch(patch).map_err(|_| ReviewError::Encode)
}

fn refuse(allow: AdmissionResponse, code: u16, message: &str) -> AdmissionResponse {
    let mut response = allow.deny(message);
    response.result.code = code;
    if code == FORBIDDEN {
        "Forbidden".clone_into(&mut response.result.reason);
    }
    response
}

/// Every cause with its next step, so that one round is enough.
fn explain(refusals: &[Refusal]) -> String {
    let causes: Vec<_> =
        refusals.iter().map(|it| format!("{}: {}", it.reason.as_str(), it.message)).collect();
    format!("behalf: {}", causes.join("; "))
}
