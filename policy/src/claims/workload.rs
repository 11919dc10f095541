//! Workloads that a platform vouches for: a cluster's service accounts and SPIFFE identities.
//!
//! Neither kind of token names groups or a client. The groups are those that Kubernetes itself derives from a service
//! account, and for SPIFFE the identity and its trust domain; either way the subject itself is one too, so that a
//! catalogue can name a single workload as a holder. The client is the subject.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::{TokenRefusal, read};
use crate::bundle::Provider;
use crate::ids::{Group, Subject};

/// `sub` of a service account: `system:serviceaccount:<namespace>:<name>`.
const ACCOUNT: &str = "system:serviceaccount:";

fn group(text: String) -> Result<Group, TokenRefusal> {
    Group::new(text).map_err(|_| TokenRefusal::BadClaim)
}

/// The groups of a service account. Only of a bound token: its claim `kubernetes.io` must say what `sub` says.
pub(super) fn kubernetes_groups(
    claims: &Map<String, Value>,
    subject: &Subject,
) -> Result<BTreeSet<Group>, TokenRefusal> {
    let account = subject.as_str().strip_prefix(ACCOUNT).and_then(|rest| rest.split_once(':'));
    let (namespace, name) = account.ok_or(TokenRefusal::BadClaim)?;
    let text = |pointer: &str| match read::pointer(claims, pointer)? {
        Some(Value::String(text)) => Ok(text.as_str()),
        _ => Err(TokenRefusal::BadClaim),
    };
    let said = (text("/kubernetes.io/namespace")?, text("/kubernetes.io/serviceaccount/name")?);
    if namespace.is_empty() || name.is_empty() || name.contains(':') || said != (namespace, name) {
        return Err(TokenRefusal::BadClaim);
    }
    [
        subject.as_str().to_owned(),
        format!("system:serviceaccounts:{namespace}"),
        "system:serviceaccounts".to_owned(),
    ]
    .into_iter()
    .map(group)
    .collect()
}

/// The groups of a SPIFFE identity of the provider's trust domain.
pub(super) fn spiffe_groups(provider: &Provider, subject: &Subject) -> Result<BTreeSet<Group>, TokenRefusal> {
    let domain = trust_domain(subject.as_str()).ok_or(TokenRefusal::BadClaim)?;
    if provider.tokens.trust_domain.as_deref() != Some(domain) {
        return Err(TokenRefusal::UnknownIssuer);
    }
    [subject.as_str().to_owned(), format!("spiffe://{domain}")].into_iter().map(group).collect()
}

/// The trust domain of a SPIFFE ID of a workload (SPIFFE-ID §2); none when it is not one.
pub(crate) fn trust_domain(id: &str) -> Option<&str> {
    let (domain, path) = id.strip_prefix("spiffe://")?.split_once('/')?;
    let of_domain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
    let of_path = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    let segment = |s: &str| !matches!(s, "" | "." | "..") && s.bytes().all(of_path);
    let valid = !domain.is_empty() && domain.bytes().all(of_domain) && path.split('/').all(segment);
    valid.then_some(domain)
}
