//! What the pods say of the certificate that their sidecar terminates TLS with, and what there is to do. The operator may
//! not read Secrets of namespaces, so it knows no more of it than they say.

use std::collections::BTreeSet;

use behalf_crds::names;
use behalf_crds::v1alpha1::{AgentIdentity, CertificateSource, ReadyReason};
use behalf_policy::feed::{CertificateReason, ServedCertificate};
use behalf_policy::wire::{SIDECAR_UID, TLS_AUTHORITIES, TLS_CERTIFICATE, TLS_KEY};

use super::{Desired, heard, some};
use crate::conditions::ConditionIntent;

/// Where the identity says that the certificate comes from; none: the sidecar does not terminate TLS.
pub(super) fn source(identity: &AgentIdentity) -> Option<CertificateSource> {
    Some(identity.spec.servers.first()?.tls.as_ref()?.certificate.clone())
}

/// Pods without any.
pub(super) fn not_usable(desired: &Desired) -> Option<ConditionIntent<ReadyReason>> {
    let said = said(desired, ServedCertificate::Nothing)?;
    let message = format!(
        "{} there is no certificate to serve with ({}): {}. They are not ready, and every connection fails. {}",
        said.count,
        said.causes(),
        some(&said.pods),
        said.next
    );
    Some(ConditionIntent::new(ReadyReason::CertificateNotUsable, message))
}

/// Pods that serve on with one that has ended.
pub(super) fn expired(desired: &Desired) -> Option<ConditionIntent<ReadyReason>> {
    let mut said = said(desired, ServedCertificate::Ended)?;
    said.reasons.remove(&CertificateReason::Expired);
    let newer = if said.reasons.is_empty() {
        String::new()
    } else {
        format!(" What is there now cannot be used ({}).", said.causes())
    };
    let message = format!(
        "{} the certificate that is served with has ended: {}. Callers that check it refuse it; it has to be renewed.{newer} {}",
        said.count,
        some(&said.pods),
        said.next
    );
    Some(ConditionIntent::new(ReadyReason::CertificateExpired, message))
}

/// Pods that do not take the newest and have a good one still.
pub(super) fn not_renewed(desired: &Desired) -> Option<ConditionIntent<ReadyReason>> {
    let said = said(desired, ServedCertificate::LastGood)?;
    let message = format!(
        "{} the newest certificate cannot be used ({}): {}. Calls are served with the last good one, until it ends or a pod starts anew. {}",
        said.count,
        said.causes(),
        some(&said.pods),
        said.next
    );
    Some(ConditionIntent::new(ReadyReason::CertificateNotRenewed, message))
}

/// What pods say of which the same is served.
struct Said<'a> {
    count: String,
    pods: Vec<&'a str>,
    reasons: BTreeSet<CertificateReason>,
    next: String,
}

impl Said<'_> {
    fn causes(&self) -> String {
        let causes = self.reasons.iter().map(|reason| format!("{}: {}", reason.as_str(), cause(*reason)));
        causes.collect::<Vec<_>>().join("; ")
    }
}

fn said(desired: &Desired, served: ServedCertificate) -> Option<Said<'_>> {
    let (pods, reasons) = heard::among(desired, |report| {
        let concern = report.certificate.filter(|concern| concern.served == served);
        concern.map(|concern| concern.reason).into_iter().collect()
    })?;
    let next = next(desired, pods.first().copied().unwrap_or_default());
    Some(Said { count: format!("In {} of {} pods", pods.len(), desired.heard.len()), pods, reasons, next })
}

fn cause(reason: CertificateReason) -> String {
    match reason {
        CertificateReason::Missing => {
            format!("{TLS_CERTIFICATE} or {TLS_KEY} is not there, empty, or not readable for the sidecar")
        }
        CertificateReason::Unreadable => format!("{TLS_CERTIFICATE} holds no chain of certificates"),
        CertificateReason::KeyUnreadable => format!("{TLS_KEY} holds no private key"),
        CertificateReason::KeyMismatch => format!("{TLS_KEY} is not the key of {TLS_CERTIFICATE}"),
        CertificateReason::Unusable => "TLS does not take this kind of certificate or key".to_owned(),
        CertificateReason::AuthoritiesUnreadable => format!("{TLS_AUTHORITIES} holds no certificates"),
        CertificateReason::Expired => "it is past its notAfter".to_owned(),
    }
}

/// What to look at, and what happens then by itself.
fn next(desired: &Desired, pod: &str) -> String {
    let namespace = &desired.namespace;
    let look = match desired.certificate.as_ref().map(|source| (&source.secret_name, &source.csi)) {
        Some((Some(secret), _)) => format!(
            "Look at the Secret {secret}: kubectl -n {namespace} describe secret {secret}; and if cert-manager makes it: kubectl -n {namespace} describe certificate. Once it is right, pods take it within about a minute, without a restart."
        ),
        Some((None, Some(csi))) => format!(
            "The files come from the CSI driver {} and have to be readable for group {SIDECAR_UID}: kubectl -n {namespace} describe pod {pod}; kubectl -n {namespace} logs {pod} -c {}. Once they are right, pods take them at once, without a restart.",
            csi.driver,
            names::CONTAINER_SIDECAR
        ),
        // The pods were made when it named one.
        Some((None, None)) | None => {
            return format!(
                "The identity names no certificate any more; pods that are made anew serve without TLS: kubectl -n {namespace} delete pod {pod}"
            );
        }
    };
    match desired.pods.outdated {
        None | Some(0) => look,
        Some(outdated) => format!(
            "{look} Injected before the last change, perhaps with another source: {outdated}. Restart them to follow: kubectl rollout restart"
        ),
    }
}
