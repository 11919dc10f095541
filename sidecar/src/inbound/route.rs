//! One request from its head to its answer: what it is, and the one record it leaves whatever becomes of it.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use behalf_policy::envelope::{EnvelopeError, EnvelopeReason, Limits, Message, Target, check_media};
use http::request::Parts;
use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;

use super::api::{methods, uploaded};
use super::authenticate::scheme;
use super::body::{AnswerBody, OpenRequest, read};
use super::connection::InTheClear;
use super::head::{Route, media, mirrored, route};
use super::judge::{Judged, Moved};
use super::respond::{Denial, NONCE, REQUEST_ID, metadata, refuse};
use super::{Inbound, cors};
use crate::bundle_source::Active;
use crate::recording::{NotRecorded, Recording, Unanswered, verb};

/// A refused request, with its id when it was read.
struct Refused {
    denial: Denial,
    id: Option<String>,
}

impl From<Denial> for Refused {
    fn from(denial: Denial) -> Self {
        Self { denial, id: None }
    }
}

impl Inbound {
    /// Answers one request and leaves one record.
    ///
    /// # Errors
    /// It could not be recorded, and gets no answer.
    pub(super) async fn handle(
        &self,
        request: Request<Incoming>,
    ) -> Result<Response<AnswerBody>, Unanswered> {
        let started = tokio::time::Instant::now();
        let active = self.bundles.current();
        let Ok(request_id) = request_id() else {
            return Err(Unanswered);
        };
        let page = active.as_deref().and_then(Active::policy);
        let page = page.and_then(|(policy, _)| cors::page(request.headers(), &policy.server));
        let (used, mut for_next) = (scheme(request.headers()), None);
        let mut recording = Recording::inbound(&self.audit, &request_id);
        let served = self.serve(active.as_ref(), request, &request_id, &mut recording, &mut for_next).await;
        let mut response = served.unwrap_or_else(|refused| {
            recording.reason(refused.denial.reason());
            refuse(&refused.denial, active.as_deref(), used, refused.id.as_deref(), &request_id)
        });
        match recording.finish(response.status()).await {
            Ok(()) => {}
            Err(NotRecorded::Told) => response = refuse(&Denial::NotRecorded, None, None, None, &request_id),
            Err(NotRecorded::Unanswered(none)) => return Err(none),
        }
        if let Ok(id) = HeaderValue::from_str(&request_id) {
            response.headers_mut().insert(REQUEST_ID, id);
        }
        if let Some(nonce) = for_next {
            response.headers_mut().insert(NONCE, nonce);
        }
        if let Some(page) = page {
            cors::let_see(response.headers_mut(), page);
        }
        self.metrics.answered(started.elapsed().as_secs_f64());
        Ok(response)
    }

    async fn serve(
        &self,
        active: Option<&Arc<Active>>,
        request: Request<Incoming>,
        request_id: &str,
        recording: &mut Recording,
        nonce: &mut Option<HeaderValue>,
    ) -> Result<Response<AnswerBody>, Refused> {
        let open = OpenRequest::new(&self.metrics);
        let (parts, body) = request.into_parts();
        recording.trace(&parts.headers);
        recording.method(format!("HTTP {}", verb(&parts.method)), None);
        if !self.audit.is_open() {
            return Err(Denial::NotRecorded.into());
        }
        if parts.extensions.get::<InTheClear>().is_some() {
            return Err(Denial::TlsRequired.into());
        }
        let active = active.ok_or(Denial::NoBundle)?;
        recording.bundle(&active.bundle);
        if let Err(reason) = active.bundle.policy() {
            return Err(Denial::RefuseAll(reason).into());
        }
        let (policy, prepared) = active.policy().ok_or(Denial::NoBundle)?;
        recording.policy(policy);

        let (mut message, mut api, mut upload) = (None, None, None);
        match route(&parts, &policy.server, prepared)? {
            Route::Metadata => {
                recording.decision("Permit", None);
                let mut answer = metadata(&prepared.metadata);
                cors::let_everybody_see(answer.headers_mut());
                return Ok(answer);
            }
            Route::Preflight => {
                recording.decision("Permit", None);
                let mut answer = cors::preflight(&parts.headers, methods(&policy.server));
                cors::let_everybody_see(answer.headers_mut());
                return Ok(answer);
            }
            Route::Message => message = Some(read_message(&parts, body, policy.server.timeouts.body).await?),
            Route::Stream | Route::End => {}
            Route::Api(found) => {
                recording.method(format!("HTTP {}", verb(&parts.method)), found.name(&policy.server));
                (api, upload) = (Some(found), Some(uploaded(body)?));
            }
        }
        if let Some(message) = &message {
            let tool = match message.target() {
                Target::ToolCall { name } => Some(name.as_str()),
                _ => None,
            };
            recording.method(message.method().unwrap_or("response").to_owned(), tool);
        }
        let judged =
            Judged { active, policy, prepared, parts: &parts, message: message.as_ref(), api, request_id };
        self.judge(&judged, Moved { upload, open, nonce }, recording).await.map_err(|denial| Refused {
            denial: denial.in_words_of(message.as_ref()),
            id: message.as_ref().and_then(Message::id_text).map(str::to_owned),
        })
    }
}

/// The one parse of a body.
async fn read_message(parts: &Parts, body: Incoming, within: u32) -> Result<Message, Refused> {
    let limits = Limits::default();
    let mut accept = String::new();
    check_media(&media(&parts.headers, &mut accept)).map_err(envelope)?;
    let body = read(body, limits.bytes, within).await?;
    let body = body.ok_or_else(|| envelope(EnvelopeReason::BodyTooLarge.into()))?;
    Message::read(&body, &mirrored(&parts.headers), &limits).map_err(envelope)
}

fn envelope(error: EnvelopeError) -> Refused {
    let id = error.id().map(str::to_owned);
    Refused { denial: Denial::Envelope(error), id }
}

/// Where a request comes from, as far as the packet rules let it be seen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) IpAddr);

pub(super) fn peer(parts: &Parts) -> IpAddr {
    parts.extensions.get::<Peer>().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.0)
}

/// 128 random bits. They name a record and give nobody anything.
pub(super) fn request_id() -> Result<String, aws_lc_rs::error::Unspecified> {
    let mut bytes = [0_u8; 16];
    aws_lc_rs::rand::fill(&mut bytes)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}
