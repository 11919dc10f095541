//! What a decision is, and the one way from a permit to an exchange.

use std::collections::BTreeMap;

use crate::bundle::document::Assurance;
use crate::bundle::{Downstream, RefuseAllReason};
use crate::claims::Caller;
use crate::ids::{Audience, EntryName, ScopeSet, Subject, Timestamp};

/// The verdict on one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Forward it; the permit may buy downstream tokens.
    Permit(Permit),
    /// Stage `Audit`: policy would refuse it. Forward it as it came, with no handle and no exchange.
    WouldDeny(Refusal),
    /// Refuse it.
    Refuse(Refusal),
}

impl Decision {
    /// Stable name, for records.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Permit(_) => "Permit",
            Self::WouldDeny(_) => "WouldDeny",
            Self::Refuse(_) => "Refuse",
        }
    }

    /// The scopes that the operation needs, as far as it was judged.
    #[must_use]
    pub fn needed(&self) -> &ScopeSet {
        match self {
            Self::Permit(permit) => &permit.needed,
            Self::WouldDeny(refusal) | Self::Refuse(refusal) => &refusal.needed,
        }
    }

    /// The refusal, enforced or not.
    #[must_use]
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Permit(_) => None,
            Self::WouldDeny(refusal) | Self::Refuse(refusal) => Some(refusal),
        }
    }
}

/// Why policy refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The closed reason.
    pub reason: Reason,
    /// Scopes to ask for in an `insufficient_scope` challenge: all of this operation (A16). Empty means
    /// no challenge: the caller could not obtain what is missing (D32).
    pub challenge: ScopeSet,
    /// Scopes that the operation needs, as far as it was judged.
    pub needed: ScopeSet,
    /// Scopes that are missing, for the record.
    pub missing: ScopeSet,
    /// How the caller would have to log in, where that is what is missing (RFC 9470).
    pub log_in: Option<Box<Assurance>>,
    /// Whether the caller may be told more than that there is no such thing.
    pub explain: bool,
    /// What it is told instead: the reason of a thing of this kind that does not exist (D35).
    pub hidden_as: Reason,
}

/// The closed reasons of policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// The bundle refuses everything.
    RefuseAll(RefuseAllReason),
    /// The identity is suspended.
    Suspended,
    /// The namespace's own deny list refuses it.
    DeniedByNamespace,
    /// A rate limit of the identity has no call left.
    RateLimited,
    /// A caller of this kind (user, workload) is not taken.
    CallerKindNotAllowed,
    /// The client that acts is not in the list.
    ClientNotAllowed,
    /// Who acts for the caller now is not in the list.
    ActorNotAllowed,
    /// The actor chain is longer than allowed.
    ActorChainTooDeep,
    /// The method is not one that policy lets through.
    MethodNotAllowed,
    /// The tool is in no row of the catalogue's tool set.
    ToolUnknown,
    /// The prompt is in no row of the catalogue's tool set.
    PromptUnknown,
    /// No row of the catalogue's tool set names the resource.
    ResourceUnknown,
    /// No row of the catalogue's tool set names the method and path.
    RouteUnknown,
    /// The tool needs a scope that this identity does not offer.
    ScopeNotOffered,
    /// The tool needs a scope that no group of the caller holds.
    NotEntitled,
    /// The caller could hold the scope, and did not present it.
    InsufficientScope,
    /// The caller's login is too old, or of too weak a class.
    AuthenticationInsufficient,
    /// What is asked for is refused to this caller with these arguments.
    ArgumentsNotAllowed,
    /// A condition has no value for these arguments, or they can be read in two ways.
    ArgumentsNotJudged,
    /// The token ended meanwhile.
    SubjectExpired,
    /// The permit names no such downstream.
    DownstreamNotPermitted,
}

impl Reason {
    /// Stable name, for records, metrics and answers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RefuseAll(reason) => reason.as_str(),
            Self::Suspended => "Suspended",
            Self::DeniedByNamespace => "DeniedByNamespace",
            Self::RateLimited => "RateLimited",
            Self::CallerKindNotAllowed => "CallerKindNotAllowed",
            Self::ClientNotAllowed => "ClientNotAllowed",
            Self::ActorNotAllowed => "ActorNotAllowed",
            Self::ActorChainTooDeep => "ActorChainTooDeep",
            Self::MethodNotAllowed => "MethodNotAllowed",
            Self::ToolUnknown => "ToolUnknown",
            Self::PromptUnknown => "PromptUnknown",
            Self::ResourceUnknown => "ResourceUnknown",
            Self::RouteUnknown => "RouteUnknown",
            Self::ScopeNotOffered => "ScopeNotOffered",
            Self::NotEntitled => "NotEntitled",
            Self::InsufficientScope => "InsufficientScope",
            Self::AuthenticationInsufficient => "AuthenticationInsufficient",
            Self::ArgumentsNotAllowed => "ArgumentsNotAllowed",
            Self::ArgumentsNotJudged => "ArgumentsNotJudged",
            Self::SubjectExpired => "SubjectExpired",
            Self::DownstreamNotPermitted => "DownstreamNotPermitted",
        }
    }
}

/// A permitted request. Made only by [`crate::decide::decide`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permit {
    pub(crate) subject: Subject,
    pub(crate) subject_expires: Timestamp,
    pub(crate) needed: ScopeSet,
    pub(crate) downstreams: BTreeMap<EntryName, Grant>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) scopes: ScopeSet,
    pub(crate) audience: Audience,
    pub(crate) provider: EntryName,
    pub(crate) max_lifetime: u32,
}

/// An order for one exchange, which only a [`Permit`] can give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExchangeOrder {
    downstream: EntryName,
    grant: Grant,
    subject: Subject,
    subject_expires: Timestamp,
}

impl Permit {
    pub(crate) fn new(caller: &Caller) -> Self {
        Self {
            subject: caller.subject.clone(),
            subject_expires: caller.expires,
            needed: ScopeSet::new(),
            downstreams: BTreeMap::new(),
        }
    }

    pub(crate) fn grant(
        &mut self,
        name: &EntryName,
        downstream: &Downstream,
        scopes: &ScopeSet,
        provider_max: u32,
    ) {
        let grant = Grant {
            scopes: scopes.clone(),
            audience: downstream.audience.clone(),
            provider: downstream.provider.clone(),
            max_lifetime: downstream.max_token_lifetime.min(provider_max),
        };
        self.downstreams.insert(name.clone(), grant);
    }

    /// True when the permit names a downstream: only then is a handle minted.
    #[must_use]
    pub fn needs_handle(&self) -> bool {
        !self.downstreams.is_empty()
    }

    /// The order for one downstream, if the permit names it.
    #[must_use]
    pub fn order(&self, downstream: &EntryName) -> Option<ExchangeOrder> {
        let grant = self.downstreams.get(downstream)?;
        Some(ExchangeOrder {
            downstream: downstream.clone(),
            grant: grant.clone(),
            subject: self.subject.clone(),
            subject_expires: self.subject_expires,
        })
    }
}

impl ExchangeOrder {
    /// Name of the downstream.
    #[must_use]
    pub fn downstream(&self) -> &EntryName {
        &self.downstream
    }

    /// Scopes to ask: exactly these.
    #[must_use]
    pub fn scopes(&self) -> &ScopeSet {
        &self.grant.scopes
    }

    /// The one audience of the token.
    #[must_use]
    pub fn audience(&self) -> &Audience {
        &self.grant.audience
    }

    /// The provider to ask.
    #[must_use]
    pub fn provider(&self) -> &EntryName {
        &self.grant.provider
    }

    /// The token must be the same person's.
    #[must_use]
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// The token is used no longer than its subject lives.
    #[must_use]
    pub fn subject_expires(&self) -> Timestamp {
        self.subject_expires
    }

    /// A token that lives longer than this many seconds is refused.
    #[must_use]
    pub fn max_lifetime(&self) -> u32 {
        self.grant.max_lifetime
    }
}
