//! One identity provider, as the bundle says it: how it is reached, how its tokens are read, how we authenticate there.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::algorithm::Algorithm;
use super::tokens::{Introspection, TokenRules, is_default};
use crate::ids::{ClientId, EntryName, Issuer, Scope};

/// Quirks of a provider's product.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Flavor {
    /// RFC 8693 as written.
    Generic,
    /// Keycloak: payload `typ`, audience is a client id.
    Keycloak,
    /// Microsoft Entra ID: scopes in `scp`, of a program in `roles`.
    Entra,
    /// Okta: client in `cid`, scopes in the array `scp`.
    Okta,
    /// Auth0: scopes also in the array `permissions`.
    Auth0,
    /// A cluster's own service-account tokens, of workloads only.
    Kubernetes,
    /// SPIFFE JWT-SVIDs, of workloads only.
    Spiffe,
}

/// How strict an issuer's access tokens are read (A8, A9).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TokenProfile {
    /// RFC 9068: `typ` is `at+jwt`, all its claims are there.
    Strict,
    /// `typ` may be `JWT` or absent; everything that is known not to be an access token is refused.
    Relaxed,
}

/// How we authenticate at a provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum ClientAuthentication {
    /// Not at all: its callers are taken, and nothing is asked of it as a client.
    None,
    /// The pod's projected service-account token as a client assertion (RFC 7523 §2.2); re-read on rotation.
    ServiceAccountToken {
        /// File of the token.
        file: String,
    },
    /// `client_secret_basic` (RFC 6749 §2.3.1) with the secret in a file; re-read on rotation.
    ClientSecretFile {
        /// File of the secret.
        file: String,
    },
}

/// One identity provider, as the sidecar talks to it. Loading changes nothing of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProviderDocument {
    /// Name of the entry.
    pub name: EntryName,
    /// Its issuer identifier.
    pub issuer: Issuer,
    /// PEM of the CA to trust for it; none means the public roots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_bundle: Option<String>,
    /// Explicit token endpoint, else taken from validated metadata (A19).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_endpoint: Option<String>,
    /// Explicit key set location, else taken from validated metadata.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks_uri: Option<String>,
    /// Quirks of the product.
    pub flavor: Flavor,
    /// How strict its access tokens are read.
    pub profile: TokenProfile,
    /// Accepted signature algorithms.
    pub algorithms: BTreeSet<Algorithm>,
    /// Tolerated clock difference, seconds.
    pub clock_skew: u32,
    /// JSON pointer to the groups claim.
    pub groups_claim: String,
    /// How long keys may be used after the last good fetch, seconds.
    pub keys_max_staleness: u32,
    /// Least time between two fetches of keys for an unknown key id, seconds.
    pub keys_cooldown: u32,
    /// Our client identifier there.
    pub client_id: ClientId,
    /// How we authenticate there.
    pub client_authentication: ClientAuthentication,
    /// Scopes an answer may carry beyond the asked set.
    pub ignored_scopes: BTreeSet<Scope>,
    /// No exchanged token may live longer than this, seconds.
    pub max_token_lifetime: u32,
    /// What is asked of its tokens beyond the profile.
    #[serde(default, skip_serializing_if = "is_default")]
    pub tokens: TokenRules,
    /// When it is asked whether a token is still good.
    #[serde(default, skip_serializing_if = "is_default")]
    pub introspection: Introspection,
}
