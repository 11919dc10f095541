//! The words of `status.conditions`: few types, and for each type one closed list of reasons.
//!
//! A reason decides the status, so the two cannot contradict each other. A type that comes later (Promotable) gets an enum of their own here; a reason is never renamed.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// What a condition is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConditionType {
    /// The object is valid and may have what it asks.
    Accepted,
    /// Nothing but Behalf answers from outside for the identity's pods: measured, not assumed.
    BypassClosed,
    /// Every pod runs by the bundle that was written last.
    Programmed,
    /// What the object names exists and may be used.
    ResolvedRefs,
    /// The summary: the object does what it says.
    Ready,
}

impl ConditionType {
    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::BypassClosed => "BypassClosed",
            Self::Programmed => "Programmed",
            Self::ResolvedRefs => "ResolvedRefs",
            Self::Ready => "Ready",
        }
    }
}

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not.
    False,
    /// It is not known yet.
    Unknown,
}

impl ConditionStatus {
    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// A closed list of reasons for one type of condition.
pub trait ConditionReason: Copy {
    /// The type the reasons belong to.
    const TYPE: ConditionType;
    /// The word on the wire: `PascalCase`, also the reason of the Event.
    fn as_str(self) -> &'static str;
    /// What the reason makes of the condition.
    fn status(self) -> ConditionStatus;
}

/// Declares the reasons of one condition type, with the status each stands for.
macro_rules! reasons {
    ($(#[$doc:meta])* $name:ident for $type:ident { $($(#[$reason_doc:meta])* $reason:ident => $status:ident,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$reason_doc])* $reason,)* }

        impl $name {
            /// Every reason of the list.
            pub const ALL: &'static [Self] = &[$(Self::$reason,)*];
        }

        impl ConditionReason for $name {
            const TYPE: ConditionType = ConditionType::$type;

            fn as_str(self) -> &'static str {
                match self { $(Self::$reason => stringify!($reason),)* }
            }

            fn status(self) -> ConditionStatus {
                match self { $(Self::$reason => ConditionStatus::$status,)* }
            }
        }
    };
}

reasons! {
    /// Why an object is accepted or not.
    AcceptedReason for Accepted {
        /// It is valid and may have what it asks.
        Accepted => True,
        /// The same, and its server is called by plain http inside the cluster: tokens cross the network unprotected.
        AcceptedPlainHTTP => True,
        /// The same, and its server is called by https inside the cluster, though the sidecar does not terminate TLS: something in
        /// front of the pod has to.
        AcceptedTLSElsewhere => True,
        /// It was not judged yet.
        Pending => Unknown,
        /// It breaks a rule that the schema could not check; the message says which.
        Invalid => False,
        /// A CA bundle does not hold readable certificates.
        InvalidCABundle => False,
        /// A tool, or an implied scope, names a scope that the catalogue does not list.
        UnknownScope => False,
        /// A tool names a downstream that the catalogue does not list.
        UnknownDownstream => False,
        /// A rate limit names a tool that the server's tool set does not have.
        UnknownTool => False,
        /// Scopes imply each other in a circle.
        ScopeCycle => False,
        /// A tool asks a downstream scope above the downstream's ceiling.
        ScopeAboveCeiling => False,
        /// The identity lists a scope that its catalogue does not.
        ScopeNotInCatalog => False,
        /// The identity is in a namespace that may not use what it asks.
        NamespaceNotAllowed => False,
        /// An older identity of the cluster has the same server URL; or an older provider, or the operator's feed, takes tokens
        /// for the same audience.
        AudienceTaken => False,
        /// The server's URL is that of a Service of another namespace.
        HostNotOwned => False,
        /// An older identity of the namespace runs as the same service account.
        ServiceAccountTaken => False,
        /// The platform has exempted its service account: that account's pods need, and have, no identity.
        ServiceAccountExempt => False,
        /// The server's URL is plain http for a host outside the cluster.
        InsecureURL => False,
        /// The provider does not allow this way of client authentication.
        ClientAuthenticationNotAllowed => False,
        /// The provider does not allow this audience beside the server's URL.
        AudienceNotAllowed => False,
        /// The server's port, or an extra port, is one that Behalf itself uses in the pod.
        PortReserved => False,
        /// What was compiled does not fit into its ConfigMap.
        TooLarge => False,
    }
}

reasons! {
    /// Why what an object names can be used or not.
    ResolvedRefsReason for ResolvedRefs {
        /// Everything it names exists and may be used.
        Resolved => True,
        /// It was not looked up yet.
        Pending => Unknown,
        /// There is no such ScopeCatalog.
        CatalogNotFound => False,
        /// The ScopeCatalog is itself not accepted, and never was.
        CatalogNotAccepted => False,
        /// There is no such IdentityProvider.
        IdentityProviderNotFound => False,
        /// The IdentityProvider is itself not accepted.
        IdentityProviderNotAccepted => False,
        /// The catalogue has no such tool set.
        ToolSetNotFound => False,
        /// The tool set has no such tool.
        ToolNotFound => False,
        /// The catalogue has no such downstream.
        DownstreamNotFound => False,
        /// The catalogue or the provider does not let this namespace use it.
        NamespaceNotAllowed => False,
        /// There is no such ServiceAccount in the namespace.
        ServiceAccountNotFound => False,
    }
}

reasons! {
    /// Why an object does what it says or not.
    ReadyReason for Ready {
        /// It does.
        Ready => True,
        /// It was not looked at yet.
        Pending => Unknown,
        /// It is not accepted.
        NotAccepted => False,
        /// Something it names cannot be used.
        RefsNotResolved => False,
        /// The bundle could not be written.
        BundleNotWritten => False,
        /// No pod carries the identity's label yet.
        NoPods => False,
        /// Some pods that carry the label, or run as the service account, run without Behalf; restart them.
        PodsMissing => False,
        /// It is suspended: every call is refused.
        Suspended => False,
        /// A pod could not take the newest bundle.
        BundleRejected => False,
        /// In a pod, something else holds a port of Behalf's.
        PortSquatted => False,
        /// In a pod, there is no certificate that TLS could be terminated with: none is there, or it cannot be used.
        CertificateNotUsable => False,
        /// In a pod, the certificate that TLS is terminated with has ended.
        CertificateExpired => False,
        /// In a pod, the credential for a provider is missing.
        CredentialMissing => False,
        /// In a pod, the newest certificate cannot be used; the last good one is served with.
        CertificateNotRenewed => False,
        /// Something answers from outside beside Behalf.
        BypassOpen => False,
    }
}

reasons! {
    /// Whether every pod runs by the bundle that was written last.
    ProgrammedReason for Programmed {
        /// Every pod does.
        Programmed => True,
        /// No pod has told yet.
        Pending => Unknown,
        /// There is no pod to tell.
        NoPods => Unknown,
        /// Some pods run by an older one.
        PodsBehind => False,
        /// Some pods do not tell what they run by.
        NotReporting => False,
        /// A pod could not take the newest bundle.
        BundleRejected => False,
        /// There is no bundle yet.
        BundleNotWritten => False,
    }
}

reasons! {
    /// Whether nothing but Behalf answers from outside.
    BypassClosedReason for BypassClosed {
        /// Behalf answers on the server's port, nothing on any other.
        Closed => True,
        /// It was not tried yet.
        Pending => Unknown,
        /// There is no pod to try.
        NoPods => Unknown,
        /// A pod could not be reached at all, so that nothing is known of what else can be.
        NoControl => Unknown,
        /// The server's port is answered by something else than Behalf.
        ServerReachable => False,
        /// Another port of the pod is reachable that the identity does not declare.
        ListenerReachable => False,
        /// In a pod, something else holds a port of Behalf's.
        PortSquatted => False,
        /// A Service in front of the server also leads to something that is not behind Behalf.
        ForeignEndpoint => False,
    }
}

/// A condition for `reason`, computed from `generation` of the object at `now`.
///
/// The message is cut at what Kubernetes takes (32768 characters).
#[must_use]
pub fn condition<R: ConditionReason>(
    reason: R,
    message: &str,
    generation: Option<i64>,
    now: Time,
) -> Condition {
    Condition {
        type_: R::TYPE.as_str().to_owned(),
        status: reason.status().as_str().to_owned(),
        reason: reason.as_str().to_owned(),
        message: message.chars().take(32_768).collect(),
        observed_generation: generation,
        last_transition_time: now,
    }
}

/// Puts `new` into `conditions`, one per type in order of type.
///
/// `lastTransitionTime` moves only when the status does. Returns whether the status changed (or the type is new): the
/// moment for an Event.
pub fn set_condition(conditions: &mut Vec<Condition>, mut new: Condition) -> bool {
    let old = conditions.iter().find(|condition| condition.type_ == new.type_);
    let unchanged = old.filter(|old| old.status == new.status).map(|old| old.last_transition_time.clone());
    let transition = unchanged.is_none();
    if let Some(since) = unchanged {
        new.last_transition_time = since;
    }
    conditions.retain(|condition| condition.type_ != new.type_);
    let place = conditions.partition_point(|condition| condition.type_ < new.type_);
    conditions.insert(place, new);
    transition
}

/// The condition of a type, if there is one.
#[must_use]
pub fn find_condition(conditions: &[Condition], type_: ConditionType) -> Option<&Condition> {
    conditions.iter().find(|condition| condition.type_ == type_.as_str())
}

/// Whether a condition of that type says `True` for this generation of the object. A missing or older one does not.
#[must_use]
pub fn is_true(conditions: &[Condition], type_: ConditionType, generation: Option<i64>) -> bool {
    find_condition(conditions, type_).is_some_and(|condition| {
        condition.status == ConditionStatus::True.as_str() && condition.observed_generation == generation
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Time {
        serde_json::from_value(serde_json::json!(format!("2026-01-01T00:00:{second:02}Z"))).unwrap()
    }

    #[test]
    fn transition_time_moves_only_when_the_status_flips() {
        let mut conditions = Vec::new();
        assert!(set_condition(&mut conditions, condition(ReadyReason::NoPods, "none yet", Some(1), at(1))));
        assert!(!set_condition(&mut conditions, condition(ReadyReason::PodsMissing, "one", Some(2), at(2))));
        assert_eq!(conditions[0].last_transition_time, at(1));
        assert_eq!(
            (conditions[0].reason.as_str(), conditions[0].observed_generation),
            ("PodsMissing", Some(2))
        );
        assert!(set_condition(&mut conditions, condition(ReadyReason::Ready, "", Some(2), at(3))));
        assert_eq!(conditions[0].last_transition_time, at(3));
        assert_eq!(conditions.len(), 1);
    }

    #[test]
    fn one_condition_per_type_in_order() {
        let mut conditions = Vec::new();
        set_condition(&mut conditions, condition(ResolvedRefsReason::Resolved, "", None, at(1)));
        set_condition(&mut conditions, condition(ReadyReason::Ready, "", None, at(1)));
        set_condition(&mut conditions, condition(AcceptedReason::Accepted, "", None, at(1)));
        set_condition(&mut conditions, condition(ReadyReason::Suspended, "", None, at(2)));
        let types: Vec<_> = conditions.iter().map(|condition| condition.type_.as_str()).collect();
        assert_eq!(types, ["Accepted", "Ready", "ResolvedRefs"]);
    }

    #[test]
    fn a_stale_or_missing_condition_is_not_true() {
        let mut conditions = Vec::new();
        assert!(!is_true(&conditions, ConditionType::Accepted, Some(1)));
        set_condition(&mut conditions, condition(AcceptedReason::Accepted, "", Some(1), at(1)));
        assert!(is_true(&conditions, ConditionType::Accepted, Some(1)));
        assert!(!is_true(&conditions, ConditionType::Accepted, Some(2)));
        assert!(!is_true(&conditions, ConditionType::Ready, Some(1)));
    }

    #[test]
    fn every_reason_is_a_word_kubernetes_takes_and_only_one_way_is_true() {
        fn check<R: ConditionReason>(reasons: &[R]) {
            let mut words: Vec<_> = reasons.iter().map(|reason| reason.as_str()).collect();
            assert!(words.iter().all(|word| word.starts_with(|c: char| c.is_ascii_uppercase())
                && word.chars().all(|c| c.is_ascii_alphanumeric())));
            words.sort_unstable();
            words.dedup();
            assert_eq!(words.len(), reasons.len());
            assert!(reasons.iter().any(|reason| reason.status() == ConditionStatus::True));
        }
        check(AcceptedReason::ALL);
        check(ResolvedRefsReason::ALL);
        check(ReadyReason::ALL);
        check(ProgrammedReason::ALL);
        check(BypassClosedReason::ALL);
    }
}
