//! What `Ready` makes of what pods say of the certificate that they terminate TLS with.

use behalf_crds::v1alpha1::{AgentIdentityStatus, ConditionType};
use behalf_plan::{EventKind, Gathered, Stand, Told, events};
use behalf_policy::feed::{CertificateConcern, CertificateReason, ServedCertificate};
use serde_json::{Value, json};

use crate::fixtures::*;
use crate::programmed::{applied, pods, status_after, with, words};

use CertificateReason as Reason;
use ServedCertificate as Served;

fn secret() -> Value {
    json!({"certificate": {"secretName": "hr-tls"}})
}

fn csi() -> Value {
    json!({"certificate": {"csi": {"driver": "spiffe.csi.cert-manager.io"}}})
}

/// What a pod tells that runs by the newest bundle.
pub(crate) fn says(reason: CertificateReason, served: ServedCertificate) -> Told {
    with(|report| report.certificate = Some(CertificateConcern { reason, served }))
}

/// For the golden file.
pub(crate) fn states() -> [(&'static str, Value, CertificateReason, ServedCertificate); 4] {
    [
        ("certificate-missing", secret(), Reason::Missing, Served::Nothing),
        ("certificate-of-a-driver-unreadable", csi(), Reason::Unreadable, Served::Nothing),
        ("certificate-ended", secret(), Reason::Expired, Served::Ended),
        ("certificate-not-renewed", secret(), Reason::KeyMismatch, Served::LastGood),
    ]
}

/// An identity with a certificate from there, and pods that tell this.
fn told(tls: Option<Value>, told: &[(&str, Option<Told>)]) -> Gathered {
    let mut gathered = pods(told);
    gathered.identity.spec.servers[0].tls = tls.map(object);
    let revision = plan(&gathered).injection_revision;
    for pod in &mut gathered.pods {
        pod.revision = Some(revision.clone());
    }
    gathered
}

fn ready(gathered: &Gathered, previous: Option<&AgentIdentityStatus>) -> (String, String, String) {
    words(&status_after(gathered, &applied(), previous), ConditionType::Ready)
}

fn well() -> Told {
    with(|_| ())
}

#[test]
fn each_reason_is_said_with_its_cause_and_what_is_served_meanwhile() {
    let causes = [
        (Reason::Missing, "CertificateMissing: tls.crt or tls.key is not there, empty, or not readable"),
        (Reason::Unreadable, "CertificateUnreadable: tls.crt holds no chain"),
        (Reason::KeyUnreadable, "CertificateKeyUnreadable: tls.key holds no private key"),
        (Reason::KeyMismatch, "CertificateKeyMismatch: tls.key is not the key of tls.crt"),
        (Reason::Unusable, "CertificateUnusable: TLS does not take"),
        (Reason::AuthoritiesUnreadable, "CertificateAuthoritiesUnreadable: ca.crt holds no certificates"),
        (Reason::Expired, "notAfter"),
    ];
    assert_eq!(causes.map(|(reason, _)| reason), Reason::ALL);
    for (reason, cause) in causes {
        for (served, condition, consequence) in [
            (Served::Nothing, "CertificateNotUsable", "They are not ready, and every connection fails."),
            (Served::Ended, "CertificateExpired", "has ended: a. Callers that check it refuse it"),
            (Served::LastGood, "CertificateNotRenewed", "Calls are served with the last good one"),
        ] {
            let gathered = told(Some(secret()), &[("a", Some(says(reason, served))), ("b", Some(well()))]);
            let (status, found, message) = ready(&gathered, None);
            assert_eq!((status.as_str(), found.as_str()), ("False", condition), "{reason:?}");
            assert!(message.starts_with("In 1 of 2 pods"), "{message}");
            assert!(message.contains(consequence), "{message}");
            assert!(message.contains("kubectl -n hr describe secret hr-tls"), "{message}");
            assert!(!message.contains("kubectl rollout restart"), "{message}");
            let ended_alone = (reason, served) == (Reason::Expired, Served::Ended);
            assert_eq!(message.contains(cause), !ended_alone, "{message}");
        }
    }
    let both = [
        ("a", Some(says(Reason::Missing, Served::Nothing))),
        ("b", Some(says(Reason::KeyMismatch, Served::Nothing))),
    ];
    let message = ready(&told(Some(secret()), &both), None).2;
    assert!(message.contains("for the sidecar; CertificateKeyMismatch: ") && message.contains(": a b."));
}

#[test]
fn the_next_step_is_that_of_where_the_certificate_comes_from() {
    let concerned = [("a", Some(says(Reason::Missing, Served::Nothing)))];
    let message = ready(&told(Some(csi()), &concerned), None).2;
    for part in [
        "the CSI driver spiffe.csi.cert-manager.io",
        "group 15001",
        "kubectl -n hr describe pod a",
        "kubectl -n hr logs a -c behalf-sidecar",
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
    assert!(!message.contains("ecret"), "{message}");
    let message = ready(&told(None, &concerned), None).2;
    assert!(message.contains("names no certificate any more"), "{message}");
    assert!(message.contains("kubectl -n hr delete pod a"), "{message}");
    let mut older = told(Some(secret()), &concerned);
    older.pods[0].revision = Some("of-another-secret".to_owned());
    let message = ready(&older, None).2;
    assert!(message.contains("perhaps with another source: 1") && message.contains("rollout restart"));
}

#[test]
fn the_worst_comes_first_and_is_not_hidden_by_what_is_milder() {
    let nothing = || Some(says(Reason::Missing, Served::Nothing));
    let ended = || Some(says(Reason::Expired, Served::Ended));
    let milder = || Some(says(Reason::KeyMismatch, Served::LastGood));
    let credential = || Some(with(|report| report.credentials_missing = object(json!(["corp"]))));
    let rejected = || Some(with(|report| report.rejected = Some("BundleUnsigned".to_owned())));
    for (pods, reason) in [
        (vec![("a", ended()), ("b", milder()), ("c", nothing())], "CertificateNotUsable"),
        (vec![("a", milder()), ("b", ended()), ("c", credential())], "CertificateExpired"),
        (vec![("a", milder()), ("b", credential())], "CredentialMissing"),
        (vec![("a", nothing()), ("b", rejected())], "BundleRejected"),
        (vec![("a", milder()), ("b", Some(well()))], "CertificateNotRenewed"),
    ] {
        let found = ready(&told(Some(secret()), &pods), None);
        assert_eq!((found.0.as_str(), found.1.as_str()), ("False", reason));
    }
    // One of them is named with those alone that say so.
    let message = ready(&told(Some(secret()), &[("a", milder()), ("b", nothing())]), None).2;
    assert!(message.starts_with("In 1 of 2 pods") && message.contains(": b."), "{message}");
}

#[test]
fn it_is_an_event_and_so_is_its_end_and_nothing_is_written_at_rest() {
    let good = status_after(&told(Some(secret()), &[("a", Some(well()))]), &applied(), None);
    let concerned = told(Some(secret()), &[("a", Some(says(Reason::Missing, Served::Nothing)))]);
    let bad = status_after(&concerned, &applied(), Some(&good));
    let said = events(&good.conditions, &bad.conditions);
    let said: Vec<_> = said.iter().map(|it| (it.reason.as_str(), it.kind, it.note.as_str())).collect();
    let message = words(&bad, ConditionType::Ready).2;
    assert_eq!(said, [("CertificateNotUsable", EventKind::Warning, message.as_str())], "not cut off");
    assert_eq!(status_after(&concerned, &applied(), Some(&bad)), bad);
    let again = status_after(&told(Some(secret()), &[("a", Some(well()))]), &applied(), Some(&bad));
    assert_eq!(words(&again, ConditionType::Ready).1, "Ready");
    let said = events(&bad.conditions, &again.conditions);
    assert_eq!(said.iter().map(|it| it.reason.as_str()).collect::<Vec<_>>(), ["Ready"]);
}

/// Its containers are not all up, because its sidecar is not ready, and it is not waited for; it is listened to.
#[test]
fn a_pod_that_does_not_get_to_run_is_heard_and_a_new_leader_does_not_forget_it() {
    let mut concerned = told(Some(secret()), &[("a", Some(says(Reason::Missing, Served::Nothing)))]);
    concerned.pods[0].stand = Stand::Starting;
    let known = status_after(&concerned, &applied(), None);
    assert_eq!(words(&known, ConditionType::Ready).1, "CertificateNotUsable");
    let mut unheard = told(Some(secret()), &[("a", None)]);
    unheard.pods[0].stand = Stand::Starting;
    unheard.reports.settling = true;
    let after = status_after(&unheard, &applied(), Some(&known));
    assert_eq!(words(&after, ConditionType::Ready), words(&known, ConditionType::Ready));
    unheard.reports.settling = false;
    assert_eq!(ready(&unheard, Some(&known)).1, "Ready");
}
