//! To the server and back: the judged message goes out with nothing of the caller's credentials, and the
//! answer comes back with nothing said in our place.

use std::sync::Arc;
use std::time::Duration;

use behalf_policy::bundle::document::Carrier;
use behalf_policy::bundle::{Host, Policy, Stage};
use behalf_policy::challenge;
use behalf_policy::claims::Caller;
use behalf_policy::envelope::{Era, Limits, ListKind, Message, Target};
use behalf_policy::listing::{SseFilter, filter_list};
use behalf_policy::wire::HANDLE_HEADER;
use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HOST, HeaderMap,
    HeaderName, HeaderValue,
};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use secrecy::SecretString;

use super::api::{Api, is_too_large};
use super::body::{AnswerBody, CallBody, OpenRequest, full, read};
use super::connection::ConnectionClient;
use super::held::{Held, Untold, hold};
use super::lists::Viewer;
use super::owned::{Made, Remembered};
use super::respond::Denial;
use super::sessions::{LAST_EVENT_ID, Principal, SESSION_ID};
use super::stream::{Terms, Watched};
use super::{Inbound, headers};
use crate::bundle_source::{Active, Prepared};
use crate::clock::Clock;
use crate::drain::Draining;
use crate::handles::{OpenHandle, Want};
use crate::recording::Recording;

/// A request that may go to the server.
pub(super) struct Outgoing<'a> {
    pub(super) active: &'a Arc<Active>,
    pub(super) policy: &'a Policy,
    pub(super) prepared: &'a Prepared,
    pub(super) verb: Method,
    pub(super) headers: &'a HeaderMap,
    /// The judged message of a POST.
    pub(super) message: Option<&'a Message>,
    /// Absent when authentication failed and is only recorded.
    pub(super) caller: Option<Arc<Caller>>,
    pub(super) principal: Principal,
    /// The session the request belongs to.
    pub(super) session: Option<&'a str>,
    pub(super) handle: Option<OpenHandle>,
    /// The caller's token, where its provider has to be asked about it for as long as a stream is open.
    pub(super) asked: Option<SecretString>,
    pub(super) open: OpenRequest,
    /// The call that made the task which is asked about.
    pub(super) made: Option<Made>,
    /// The request of a plain HTTP API, with its body.
    pub(super) api: Option<&'a Api>,
    pub(super) upload: Option<AnswerBody>,
    /// What its connection proved of the client.
    pub(super) client: ConnectionClient,
    /// Tells of the end of this sidecar.
    pub(super) draining: Option<Draining>,
}

/// For whom an answer is filtered, and which list it is; none for a stream that may replay answers of any.
type Filter = (Arc<Caller>, Option<(ListKind, String)>);

impl Outgoing<'_> {
    fn era(&self) -> Era {
        self.message.map_or(Era::Legacy, Message::era)
    }

    /// The message, when its answer may give the caller something to come back with.
    fn gives(&self) -> Option<&Message> {
        let may = |target: &Target| {
            matches!(
                target,
                Target::ToolCall { .. }
                    | Target::GetPrompt { .. }
                    | Target::ReadResource { .. }
                    | Target::Task { .. }
            )
        };
        self.message.filter(|message| may(message.target()))
    }

    /// Whether the caller may be told what a provider or a downstream wants of it: where refusals are enforced, and the row
    /// explains them.
    fn tells(&self) -> bool {
        let server = &self.policy.server;
        let row = match (self.target(), self.api) {
            (Some(Target::ToolCall { name }), _) => server.tools.get(name.as_str()),
            (_, Some(api)) => api.row(server),
            _ => None,
        };
        self.policy.stage == Stage::Enforce && row.is_some_and(|row| row.denial.explains())
    }

    fn target(&self) -> Option<&Target> {
        self.message.map(Message::target)
    }

    /// Whether the answer may show what the caller may not use. A resumed stream replays answers.
    fn filter(&self) -> Option<Filter> {
        let caller = self.caller.clone()?;
        if self.policy.stage == Stage::Audit {
            return None;
        }
        match (self.target(), self.message.and_then(Message::id_text)) {
            (Some(Target::List(kind)), Some(id)) => Some((caller, Some((*kind, id.to_owned())))),
            (None, _)
                if self.api.is_none()
                    && self.verb == Method::GET
                    && self.headers.contains_key(LAST_EVENT_ID) =>
            {
                Some((caller, None))
            }
            _ => None,
        }
    }

    fn request(&mut self) -> Result<Request<AnswerBody>, Denial> {
        let server = &self.policy.server;
        let target = self.api.map_or(server.path.as_str(), |api| api.target.as_str());
        let uri: Uri = format!("http://127.0.0.1:{}{target}", server.port)
            .parse()
            .map_err(|_| Denial::ServerUnavailable)?;
        let mut headers = headers::for_server(self.headers);
        if self.api.is_some() {
            // What the names of MCP mean there is the server's own business.
        } else if self.era() == Era::Modern {
            // Sessions do not exist there, and what does not exist is not passed on (C2).
            headers.remove(SESSION_ID);
            headers.remove(LAST_EVENT_ID);
        } else if self.session.is_none() {
            // Without a session nobody can say whose stream would be resumed (C18).
            headers.remove(LAST_EVENT_ID);
        }
        if self.filter().is_some() {
            headers.remove(ACCEPT_ENCODING);
        }
        let host = match server.host {
            Host::Loopback => self.prepared.loopback_host.clone(),
            Host::Keep => {
                HeaderValue::from_str(&self.prepared.authority).map_err(|_| Denial::ServerUnavailable)?
            }
        };
        headers.insert(HOST, host);
        let mut in_meta = None;
        if let Some(handle) = &self.handle {
            if server.carriers.contains(&Carrier::Authorization) {
                let value = format!("Bearer {}", handle.as_str());
                let mut value = HeaderValue::from_str(&value).map_err(|_| Denial::ServerUnavailable)?;
                value.set_sensitive(true);
                headers.insert(AUTHORIZATION, value);
            }
            if server.carriers.contains(&Carrier::Header) {
                let mut value =
                    HeaderValue::from_str(handle.as_str()).map_err(|_| Denial::ServerUnavailable)?;
                value.set_sensitive(true);
                headers.insert(HeaderName::from_static(HANDLE_HEADER), value);
            }
            if server.carriers.contains(&Carrier::Meta) {
                in_meta = Some(handle.as_str());
            }
        }
        let body = match (self.upload.take(), self.message) {
            (Some(upload), _) => upload,
            (None, message) => {
                full(message.map(|message| message.forward_body(in_meta)).unwrap_or_default().into())
            }
        };
        let mut request = Request::new(body);
        *request.method_mut() = self.verb.clone();
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        Ok(request)
    }
}

/// Who is told what is wanted, and in answer to what.
struct Asks<'a> {
    policy: &'a Policy,
    principal: Principal,
    caller: Option<Arc<Caller>>,
    id: Option<&'a str>,
}

impl Inbound {
    /// Sends the request to the server and gives its answer as the caller gets it.
    pub(super) async fn forward(
        &self,
        mut outgoing: Outgoing<'_>,
        recording: &Recording,
    ) -> Result<Response<AnswerBody>, Denial> {
        let within = Duration::from_secs(outgoing.policy.server.timeouts.response.into());
        let answered = self.server.request(outgoing.request()?);
        let answer = match tokio::time::timeout(within, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) if is_too_large(&error) => return Err(Denial::BodyTooLarge),
            Ok(Err(error)) => {
                tracing::warn!(%error, "the server did not take a request");
                return Err(Denial::ServerUnavailable);
            }
            Err(_) => return Err(Denial::ServerTimeout),
        };
        self.follow_session(&outgoing, &answer)?;
        let events = is_kind(answer.headers(), "text/event-stream");
        let terms = events.then(|| Terms {
            bundles: self.bundles.clone(),
            clock: self.clock.clone(),
            caller: outgoing.caller.clone(),
            token: outgoing
                .asked
                .as_ref()
                .and_then(|token| self.verifier.watch(&self.bundles, &self.clock, token)),
            message: outgoing.message.cloned(),
            api: outgoing.api.cloned(),
            made: outgoing.made.clone(),
            active: Arc::clone(outgoing.active),
            client: outgoing.client.clone(),
            draining: outgoing.draining.clone(),
            timeouts: outgoing.policy.server.timeouts,
        });
        let made = outgoing.gives().map(|message| match &outgoing.made {
            Some(made) => made.clone(),
            None => Made::by(message, outgoing.principal, outgoing.policy),
        });
        let (tells, wanted) = (outgoing.tells(), outgoing.handle.as_ref().map(OpenHandle::wanted));
        let asks = Asks {
            policy: outgoing.policy,
            principal: outgoing.principal,
            caller: outgoing.caller.clone(),
            id: outgoing.message.and_then(Message::id_text),
        };
        let answer = match outgoing.filter() {
            Some((caller, asked)) if answer.status().is_success() => {
                let viewer = Viewer {
                    active: Arc::clone(outgoing.active),
                    caller,
                    era: outgoing.era(),
                    mirrored: self.mirrored.clone(),
                    clock: self.clock.clone(),
                };
                filtered(outgoing, answer, viewer, asked, &self.clock).await?
            }
            _ => passed(outgoing, answer, &self.clock),
        };
        let (head, mut body) = answer.into_parts();
        if let Some(wanted) = wanted {
            let seen = if tells { hold(&head, body, &wanted, asks.id).await } else { Held::Begun(body) };
            body = match seen {
                Held::Goes(body) => body,
                Held::Failed(want) => return Err(self.interaction(&asks, &want)),
                Held::Begun(body) => {
                    Untold::new(body, wanted, recording.on_untold(head.status)).boxed_unsync()
                }
            };
        }
        if let Some(made) = made {
            let limit = Limits::default().bytes;
            body = Remembered::new(body, events, limit, self.owned.clone(), made).boxed_unsync();
        }
        if let Some(terms) = terms {
            body = Watched::new(body, terms, recording.on_cut(head.status)).boxed_unsync();
        }
        Ok(Response::from_parts(head, body))
    }

    /// Tells the caller what is wanted of it, unless it was told often enough.
    fn interaction(&self, asks: &Asks<'_>, want: &Want) -> Denial {
        let challenge = challenge::interaction(asks.policy, &want.interaction);
        let issued = asks.caller.as_ref().and_then(|caller| caller.login.issued);
        let now = self.clock.now();
        let may = self.asked.may_ask(asks.principal, want, &challenge, issued, now);
        // What somebody else wrote is in it, however bounded: no text of ours shows it.
        Denial::Interaction(may.then(|| SecretString::from(challenge)))
    }

    /// Remembers whose session the server opened, and forgets the one it ended.
    fn follow_session(&self, outgoing: &Outgoing<'_>, answer: &Response<Incoming>) -> Result<(), Denial> {
        if !answer.status().is_success() || outgoing.era() == Era::Modern {
            return Ok(());
        }
        if outgoing.verb == Method::DELETE
            && let Some(id) = outgoing.session
        {
            self.sessions.end(id);
        }
        if !matches!(outgoing.target(), Some(Target::Initialize)) {
            return Ok(());
        }
        let mut ids = answer.headers().get_all(SESSION_ID).iter();
        match (ids.next().map(|id| id.to_str()), ids.next()) {
            (None, _) => Ok(()),
            (Some(Ok(id)), None) if self.sessions.open(id, outgoing.principal) => Ok(()),
            _ => Err(Denial::ServerSession),
        }
    }
}

/// The answer as it comes, never buffered.
fn passed(outgoing: Outgoing<'_>, answer: Response<Incoming>, clock: &Clock) -> Response<AnswerBody> {
    let (head, body) = answer.into_parts();
    let headers = for_caller(&head.headers, outgoing.era());
    let body = CallBody::new(body, outgoing.handle, clock, outgoing.open).boxed_unsync();
    response(head.status, headers, body)
}

/// The answer without what its caller may not use; one that cannot be read is not passed on.
async fn filtered(
    outgoing: Outgoing<'_>,
    answer: Response<Incoming>,
    viewer: Viewer,
    asked: Option<(ListKind, String)>,
    clock: &Clock,
) -> Result<Response<AnswerBody>, Denial> {
    use behalf_policy::listing::ListingError;

    let era = outgoing.era();
    let limits = Limits::default();
    let (head, body) = answer.into_parts();
    let mut headers = for_caller(&head.headers, era);
    if headers.contains_key(CONTENT_ENCODING) {
        return Err(Denial::Listing(ListingError::NotJson));
    }
    // What describes the bytes does not describe the filtered ones.
    for name in [CONTENT_LENGTH, ETAG] {
        headers.remove(name);
    }
    for name in ["content-md5", "digest", "content-digest", "repr-digest"] {
        headers.remove(name);
    }
    let kind = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match kind.as_str() {
        "text/event-stream" => {
            let asked = asked.as_ref().map(|(kind, id)| (*kind, id.as_str()));
            let filter = SseFilter::new(asked, era, limits, viewer);
            let body = CallBody::new(body, outgoing.handle, clock, outgoing.open).filtered(filter);
            Ok(response(head.status, headers, body.boxed_unsync()))
        }
        "application/json" => {
            let (kind, _) = asked.ok_or(Denial::Listing(ListingError::Shape))?;
            let body = read(body, limits.bytes, outgoing.policy.server.timeouts.response)
                .await
                .map_err(|_| Denial::ServerUnavailable)?;
            let body = body.ok_or(Denial::Listing(ListingError::TooLarge))?;
            let body = filter_list(&body, kind, &viewer, era, &limits).map_err(Denial::Listing)?;
            Ok(response(head.status, headers, full(Bytes::from(body))))
        }
        _ => Err(Denial::Listing(ListingError::Shape)),
    }
}

pub(super) fn is_kind(headers: &HeaderMap, kind: &str) -> bool {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(kind)
}

fn for_caller(headers: &HeaderMap, era: Era) -> HeaderMap {
    let mut headers = headers::for_caller(headers);
    if era == Era::Modern {
        headers.remove(SESSION_ID);
    }
    headers
}

fn response(status: StatusCode, headers: HeaderMap, body: AnswerBody) -> Response<AnswerBody> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}
