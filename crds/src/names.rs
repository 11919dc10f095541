//! Every Kubernetes name Behalf reads or writes, once: labels, annotations, field managers, containers, volumes, objects.
//!
//! What the sidecar has to know too (ports, file paths, header names) is the wire contract and lives in the policy crate.

/// API group of all kinds.
pub const GROUP: &str = "behalf.dev";
/// The served and stored version.
pub const VERSION: &str = "v1alpha1";
/// Category of all kinds: `kubectl get behalf`.
pub const CATEGORY: &str = "behalf";

/// Pod label: the `AgentIdentity` of the pod's own namespace that the pod joins.
pub const LABEL_AGENT_IDENTITY: &str = "behalf.dev/agent-identity";
/// Namespace label: see [`Injection`].
pub const LABEL_INJECTION: &str = "behalf.dev/injection";
/// Namespace annotation: `ServiceAccount`s of the namespace whose pods need no identity where [`Injection::Required`] asks
/// for one, separated by commas; written by the platform alone. See [`exempt_service_accounts`].
pub const ANNOTATION_EXEMPT: &str = "behalf.dev/exempt-service-accounts";
/// Pod annotation: the revision of what was injected; written by the webhook alone.
pub const ANNOTATION_INJECTED: &str = "behalf.dev/injected";
/// Label that carries who made an object (`app.kubernetes.io/managed-by`).
pub const LABEL_MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Label that carries the product an object belongs to (`app.kubernetes.io/part-of`).
pub const LABEL_PART_OF: &str = "app.kubernetes.io/part-of";
/// Label that carries the role of an object within the product (`app.kubernetes.io/component`).
pub const LABEL_COMPONENT: &str = "app.kubernetes.io/component";
/// Value of [`LABEL_PART_OF`] on everything Behalf makes.
pub const PART_OF: &str = "behalf";
/// Value of [`LABEL_MANAGED_BY`] on everything the operator makes.
pub const MANAGED_BY: &str = "behalf-operator";
/// The name of a namespace as the API server writes it on the namespace itself.
pub const LABEL_NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

/// First init container: loads the redirect rules and ends.
pub const CONTAINER_REDIRECT: &str = "behalf-redirect";
/// The native sidecar (init container with `restartPolicy: Always`).
pub const CONTAINER_SIDECAR: &str = "behalf-sidecar";

/// Prefix of every container and volume name that only Behalf may use in an enrolled pod.
pub const RESERVED_PREFIX: &str = "behalf-";
/// Volume with the bundle of the identity.
pub const VOLUME_BUNDLE: &str = "behalf-bundle";
/// Empty read-only volume that stands where an API token would otherwise be mounted into our containers.
pub const VOLUME_NO_TOKEN: &str = "behalf-no-token";
/// Prefix of the volumes with the pod's projected token for one provider; see [`idp_volume`].
pub const VOLUME_IDP_PREFIX: &str = "behalf-idp-";

/// Volume with the certificate of a server with `tls`: a Secret of the namespace, or a CSI driver's.
pub const VOLUME_TLS: &str = "behalf-tls";
/// Volume with the pod's projected token for the operator's feed.
pub const VOLUME_FEED: &str = "behalf-feed";
/// Volume with the namespace's deny-only `ConfigMap`, optional; see [`CONFIGMAP_DENY`].
pub const VOLUME_DENY: &str = "behalf-deny";
/// Volume of the sidecar alone with its decision records, where the platform keeps them in a file.
pub const VOLUME_RECORDS: &str = "behalf-records";
/// `ConfigMap` of a namespace that its own people may write while the operator is away: it can only refuse.
pub const CONFIGMAP_DENY: &str = "behalf-deny";

/// Field manager of every status Behalf writes.
pub const MANAGER_STATUS: &str = "behalf/status";
/// Field manager of the bundle `ConfigMap`s.
pub const MANAGER_BUNDLE: &str = "behalf/bundle";
/// Field manager of the webhook configuration's `caBundle` and of the certificate Secret.
pub const MANAGER_WEBHOOK_CERTS: &str = "behalf/webhook-certs";
/// Controller name in Events.
pub const EVENT_CONTROLLER: &str = "behalf.dev/operator";

/// Namespace of the operator unless the chart is told otherwise.
pub const SYSTEM_NAMESPACE: &str = "behalf-system";
/// Service in front of the operator's webhook, and its Deployment and `ServiceAccount`.
pub const OPERATOR: &str = "behalf-operator";
/// Service of the admission webhook.
pub const WEBHOOK_SERVICE: &str = "behalf-webhook";
/// The `MutatingWebhookConfiguration`.
pub const WEBHOOK_CONFIGURATION: &str = "behalf-injector";
/// The webhook's name inside its configuration.
pub const WEBHOOK_NAME: &str = "inject.behalf.dev";
/// Secret with the webhook's serving certificate and its authority.
pub const SECRET_WEBHOOK_CERTS: &str = "behalf-webhook-certs";
/// Secret with the keys that sign bundles.
pub const SECRET_SIGNING_KEYS: &str = "behalf-signing-keys";
/// `ConfigMap` with the public halves of the signing keys and the allowed image digests, read by admission policies.
pub const CONFIGMAP_TRUST: &str = "behalf-trust";
/// The Lease that guards writes.
pub const LEASE: &str = "behalf-operator";

/// Service in front of the operator's feed.
pub const FEED_SERVICE: &str = "behalf-feed";
/// Prefix of the `ConfigMap`s with the counts of an identity's pods; see [`counts_configmap`].
pub const CONFIGMAP_COUNTS_PREFIX: &str = "behalf-counts-";
/// Annotation of the Secret [`SECRET_SIGNING_KEYS`]: another value than the last one makes the operator add a new key.
pub const ANNOTATION_ROTATE: &str = "behalf.dev/rotate";
/// Field manager of the counts.
pub const MANAGER_COUNTS: &str = "behalf/counts";

/// Prefix of the bundle `ConfigMap`s; see [`bundle_configmap`].
pub const CONFIGMAP_BUNDLE_PREFIX: &str = "behalf-bundle-";

/// Longest name of an `AgentIdentity` (it is a label value and part of object names).
pub const MAX_AGENT_IDENTITY_NAME: usize = 63;
/// Longest name of an `IdentityProvider`: with [`VOLUME_IDP_PREFIX`] it is still a volume name (63).
pub const MAX_IDENTITY_PROVIDER_NAME: usize = 63 - VOLUME_IDP_PREFIX.len();

/// What a namespace says about injection by [`LABEL_INJECTION`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Injection {
    /// Pods may join an identity.
    Optional,
    /// Every pod needs an identity or an exemption that only the platform may write.
    Required,
}

impl Injection {
    /// The label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Optional => "Optional",
            Self::Required => "Required",
        }
    }

    /// The meaning of a label value; `None` for any other spelling (which then enables nothing).
    #[must_use]
    pub fn parse(value: &str) -> Option<Self> {
        [Self::Optional, Self::Required].into_iter().find(|candidate| candidate.as_str() == value)
    }
}

/// The names that a value of [`ANNOTATION_EXEMPT`] holds: separated by commas, spaces around them ignored.
pub fn exempt_service_accounts(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim).filter(|name| !name.is_empty())
}

/// Name of the `ConfigMap` that carries the bundle of the identity `name` in the identity's own namespace.
///
/// At most 77 characters for a name the schema admits (63), so always a valid object name (253).
#[must_use]
pub fn bundle_configmap(name: &str) -> String {
    format!("{CONFIGMAP_BUNDLE_PREFIX}{name}")
}

/// Name of the `ConfigMap` that carries what the pods of the identity `name` have counted, pod by pod.
#[must_use]
pub fn counts_configmap(name: &str) -> String {
    format!("{CONFIGMAP_COUNTS_PREFIX}{name}")
}

/// Name of the volume with the pod's projected token for the provider `name` (an `IdentityProvider`'s name).
///
/// At most 63 characters for a name the schema admits ([`MAX_IDENTITY_PROVIDER_NAME`]), so always a volume name.
#[must_use]
pub fn idp_volume(name: &str) -> String {
    format!("{VOLUME_IDP_PREFIX}{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longest_names_stay_within_what_kubernetes_takes() {
        assert_eq!(bundle_configmap(&"a".repeat(MAX_AGENT_IDENTITY_NAME)).len(), 77);
        assert_eq!(idp_volume(&"a".repeat(MAX_IDENTITY_PROVIDER_NAME)).len(), 63);
    }

    #[test]
    fn injection_takes_no_other_spelling() {
        assert_eq!(Injection::parse("Required"), Some(Injection::Required));
        assert_eq!(Injection::parse("Optional"), Some(Injection::Optional));
        for other in ["", "required", "REQUIRED", "enabled", "true", " Required"] {
            assert_eq!(Injection::parse(other), None, "{other:?}");
        }
    }

    #[test]
    fn exemptions_are_whole_names_between_commas() {
        let names = |value| exempt_service_accounts(value).collect::<Vec<_>>();
        assert_eq!(names("batch"), ["batch"]);
        assert_eq!(names(" batch , legacy.v1,"), ["batch", "legacy.v1"]);
        for nobody in ["", " ", ",", " , ,"] {
            assert_eq!(names(nobody), [""; 0], "{nobody:?}");
        }
        for one in ["batch legacy", "batch;legacy", "*", "batch*"] {
            assert_eq!(names(one), [one], "no other separator and no pattern");
        }
    }

    #[test]
    fn our_containers_and_volumes_carry_the_reserved_prefix() {
        for name in [
            CONTAINER_REDIRECT,
            CONTAINER_SIDECAR,
            VOLUME_BUNDLE,
            VOLUME_NO_TOKEN,
            VOLUME_IDP_PREFIX,
            VOLUME_FEED,
            VOLUME_DENY,
            VOLUME_TLS,
            VOLUME_RECORDS,
        ] {
            assert!(name.starts_with(RESERVED_PREFIX), "{name}");
        }
    }
}
