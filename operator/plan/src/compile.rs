//! From objects to the policy of one identity: what it may have, or why it may not.
//!
//! Three steps, each pure: [`resolve`] looks up what the identity names, [`forbidden`] judges the identity by itself and
//! by whatever of that is valid, [`policy`] writes the document. Only the whole way gives a policy.

mod allowed;
mod document;
mod narrow;
mod own;
mod rate;
mod resolve;

use behalf_crds::v1alpha1::{AcceptedReason, AgentIdentity, ResolvedRefsReason};

pub use document::policy;
pub use narrow::narrow;
pub(crate) use own::RESERVED_PORTS;
pub use own::{is_plain_http, is_tls_elsewhere};
pub use resolve::{Resolved, resolve};

use crate::conditions::ConditionIntent;
use crate::gathered::{Gathered, Settings};

/// Why an identity may not have what it asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forbidden {
    /// What `Accepted` says.
    pub accepted: ConditionIntent<AcceptedReason>,
    /// What `ResolvedRefs` says, where the cause is a name that leads nowhere or to something closed.
    pub refs: Option<ConditionIntent<ResolvedRefsReason>>,
}

impl Forbidden {
    fn because(reason: AcceptedReason, message: String) -> Self {
        Self { accepted: ConditionIntent::new(reason, message), refs: None }
    }

    fn by_reference(reason: AcceptedReason, refs: ResolvedRefsReason, message: String) -> Self {
        let refs = Some(ConditionIntent::new(refs, message.clone()));
        Self { accepted: ConditionIntent::new(reason, message), refs }
    }
}

/// What every check looks at.
pub(crate) struct Case<'a> {
    gathered: &'a Gathered,
    settings: &'a Settings,
    resolved: &'a Resolved,
}

impl Case<'_> {
    fn identity(&self) -> &AgentIdentity {
        &self.gathered.identity
    }

    fn namespace(&self) -> &str {
        namespace_of(self.gathered)
    }
}

/// The name of the identity's namespace.
pub(crate) fn namespace_of(gathered: &Gathered) -> &str {
    gathered.namespace.metadata.name.as_deref().unwrap_or_default()
}

/// Why the identity may not have what it asks, judged by itself and by whatever it names that is valid.
///
/// None does not mean that it may: what is gone or invalid was not asked.
#[must_use]
pub fn forbidden(gathered: &Gathered, settings: &Settings, resolved: &Resolved) -> Option<Forbidden> {
    let case = Case { gathered, settings, resolved };
    let own = own::CHECKS.iter().find_map(|check| check(&case));
    let own = own.map(|accepted| Forbidden { accepted, refs: None });
    own.or_else(|| allowed::CHECKS.iter().find_map(|check| check(&case)))
}
