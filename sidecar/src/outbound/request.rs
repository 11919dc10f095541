//! What a request on the way out asks for, judged by its head alone: method, target, headers, handle.
//!
//! The server in front of us is hostile: it may smuggle, but it gains nothing here that its handle does
//! not buy. What is not refused is forwarded with framing of our own making.

use behalf_policy::framing::FramingRefusal;
use behalf_policy::raw_path;
use behalf_policy::wire::{HANDLE_HEADER, HEADER_PREFIX};
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HOST, HeaderName, UPGRADE};
use http::{HeaderMap, Method, Uri, Version};
use zeroize::Zeroizing;

use super::target::Target;
use crate::handles::is_handle_shaped;

/// No header block is larger than this many bytes (D26).
pub(super) const MAX_HEAD: usize = 64 * 1024;

/// What a request asks for. Has no `Debug`: it may hold a handle.
pub(super) struct Asked {
    /// Where it goes.
    pub(super) target: Target,
    /// The handle, dead or alive.
    pub(super) handle: Option<Zeroizing<String>>,
}

/// Why a request is refused by its head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RequestRefusal {
    /// Not one of the methods that are carried.
    #[error("the method is not carried on the way out")]
    Method,
    /// The header block is larger than 64 KiB.
    #[error("the header block is too large")]
    HeadTooLarge,
    /// `Upgrade`: no protocol but HTTP leaves here.
    #[error("upgrades are not carried on the way out")]
    Upgrade,
    /// A target with an authority, as proxies get it, that is no origin of the catalogue.
    #[error("the origin is not that of a downstream in the catalogue")]
    OriginNotInCatalogue,
    /// A target with an authority whose path is not below the downstream's base path.
    #[error("the path is not below the base path of the downstream")]
    OutsideBasePath,
    /// A target with an authority that is the URL of several downstreams.
    #[error(
        "the URL is that of several downstreams; use the base URL that the identity's env variable holds"
    )]
    AmbiguousDownstream,
    /// `Host` is missing, doubled, or neither loopback nor the authority of the target.
    #[error("the Host header is not that of this listener")]
    Host,
    /// A header that must be single occurs twice.
    #[error("a header that must be single occurs twice")]
    DuplicateHeader,
    /// Its body stopped having one reading, see [`behalf_policy::framing`]. Heads that have not do not get
    /// this far.
    #[error("the framing of the request is not taken")]
    Framing(FramingRefusal),
    /// `Expect` of something else than `100-continue`.
    #[error("the expectation is not met here")]
    Expectation,
    /// The target is longer than 16 KiB.
    #[error("the request target is too long")]
    TargetTooLong,
    /// The first segment is no name of a downstream.
    #[error("the path names no downstream")]
    UnknownDownstream,
    /// The path breaks a rule of [`raw_path`].
    #[error(transparent)]
    Path(#[from] raw_path::PathRefusal),
    /// Two handles that differ.
    #[error("the request carries two handles")]
    AmbiguousHandle,
    /// The handle stands in the target, where it would be logged.
    #[error("the request carries a handle in its target")]
    HandleInTarget,
}

impl RequestRefusal {
    /// Stable name, for records, metrics and answers.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Method => "MethodNotCarried",
            Self::HeadTooLarge => "HeadTooLarge",
            Self::Upgrade => "UpgradeNotCarried",
            Self::OriginNotInCatalogue => "OriginNotInCatalogue",
            Self::OutsideBasePath => "OutsideBasePath",
            Self::AmbiguousDownstream => "AmbiguousDownstream",
            Self::Host => "HostNotAllowed",
            Self::DuplicateHeader => "DuplicateHeader",
            Self::Framing(refusal) => refusal.reason(),
            Self::Expectation => "ExpectationFailed",
            Self::TargetTooLong => "TargetTooLong",
            Self::UnknownDownstream => "UnknownDownstream",
            Self::Path(refusal) => refusal.reason(),
            Self::AmbiguousHandle => "AmbiguousHandle",
            Self::HandleInTarget => "HandleInTarget",
        }
    }

    /// The HTTP status that says so.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::Method => 405,
            Self::HeadTooLarge => 431,
            Self::Host => 421,
            Self::Expectation => 417,
            Self::TargetTooLong => 414,
            Self::UnknownDownstream | Self::OutsideBasePath => 404,
            Self::AmbiguousHandle | Self::OriginNotInCatalogue => 403,
            _ => 400,
        }
    }
}

/// Judges a request by its head.
pub(super) fn judge(
    method: &Method,
    uri: &Uri,
    version: Version,
    headers: &HeaderMap,
) -> Result<Asked, RequestRefusal> {
    const CARRIED: [Method; 7] = [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
        Method::OPTIONS,
    ];
    if !CARRIED.contains(method) {
        return Err(RequestRefusal::Method);
    }
    // The parser's own limit is looser by one read.
    let size: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if size > MAX_HEAD {
        return Err(RequestRefusal::HeadTooLarge);
    }
    let target = Target::judge(uri)?;
    check_headers(version, headers, target.authority())?;
    let handle = find_handle(headers)?;
    if handle.as_ref().is_some_and(|h| is_handle_shaped(h) && target.contains(h.as_str())) {
        return Err(RequestRefusal::HandleInTarget);
    }
    Ok(Asked { target, handle })
}

fn check_headers(
    version: Version,
    headers: &HeaderMap,
    authority: Option<&str>,
) -> Result<(), RequestRefusal> {
    const SINGLE: [HeaderName; 5] = [HOST, AUTHORIZATION, CONTENT_TYPE, CONTENT_LENGTH, EXPECT];
    if SINGLE.iter().any(|name| headers.get_all(name).iter().nth(1).is_some()) {
        return Err(RequestRefusal::DuplicateHeader);
    }
    let single = |name: &HeaderName| headers.get(name).map(|v| v.to_str().unwrap_or_default());
    match single(&HOST) {
        Some(host) if authority.map_or_else(|| is_loopback(host), |a| host.eq_ignore_ascii_case(a)) => {}
        // HTTP/1.0 has no `Host`; a loopback listener has no other name.
        None if version == Version::HTTP_10 => {}
        _ => return Err(RequestRefusal::Host),
    }
    if single(&EXPECT).is_some_and(|e| !e.eq_ignore_ascii_case("100-continue")) {
        return Err(RequestRefusal::Expectation);
    }
    // Some clients offer HTTP/2 on every plain connection; not taking that up is an answer (RFC 9110 §7.8).
    let offers_h2 = |v: &http::HeaderValue| v.as_bytes().eq_ignore_ascii_case(b"h2c");
    if headers.get_all(UPGRADE).iter().any(|v| !offers_h2(v)) {
        return Err(RequestRefusal::Upgrade);
    }
    Ok(())
}

/// Only loopback names reach a loopback listener; anything else is a rebound name.
fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    matches!(name, "127.0.0.1" | "[::1]") || name.eq_ignore_ascii_case("localhost")
}

/// The handle from `Authorization`, or from the plain header. What else stands in `Authorization` is the
/// server's own.
fn find_handle(headers: &HeaderMap) -> Result<Option<Zeroizing<String>>, RequestRefusal> {
    let mut found: Option<Zeroizing<String>> = bearer_handle(headers).map(|h| Zeroizing::new(h.to_owned()));
    let mut plain = headers.iter().filter(|(name, _)| spelled(name) == HANDLE_HEADER);
    if let Some((_, value)) = plain.next() {
        if plain.next().is_some() {
            return Err(RequestRefusal::DuplicateHeader);
        }
        // Whatever is no text is a handle that no call has.
        let value = value.to_str().unwrap_or("?").trim();
        let value = strip_bearer(value).unwrap_or(value);
        match &found {
            Some(other) if other.as_str() != value => return Err(RequestRefusal::AmbiguousHandle),
            _ => found = Some(Zeroizing::new(value.to_owned())),
        }
    }
    Ok(found)
}

/// The bearer credential, when it is written like a handle.
pub(super) fn bearer_handle(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    strip_bearer(value).filter(|credential| is_handle_shaped(credential))
}

fn strip_bearer(value: &str) -> Option<&str> {
    let (scheme, credential) = value.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| credential.trim())
}

/// A header's name as every framework reads it: `_` and `-` are one to some.
pub(super) fn spelled(name: &HeaderName) -> String {
    name.as_str().replace('_', "-")
}

/// True when a header is ours, in any spelling.
pub(super) fn is_ours(spelled: &str) -> bool {
    spelled.starts_with(HEADER_PREFIX)
}
