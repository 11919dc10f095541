//! The last good bundle, narrowed by what the identity says now: what is kept never widens, and a tightening is not lost.

use behalf_crds::v1alpha1::{self as crds, AgentIdentity};
use behalf_policy::bundle::document::PolicyDocument;
use behalf_policy::bundle::{Stage, State};

use super::document::{handle_grace, stage};
use super::rate::narrowed;

/// Takes away what the identity no longer asks. Nothing is added, whatever it asks.
#[must_use]
pub fn narrow(last: &PolicyDocument, identity: &AgentIdentity) -> PolicyDocument {
    let spec = &identity.spec;
    let mut kept = last.clone();
    if spec.state == crds::State::Suspended {
        kept.state = State::Suspended;
    }
    kept.stage = strictest(kept.stage, stage(spec.rollout.stage));
    kept.authentication = strictest(kept.authentication, stage(spec.rollout.authentication));
    let offered =
        |scope: &str| spec.scopes.required.iter().chain(&spec.scopes.optional).any(|listed| listed == scope);
    // A required scope stays required: dropping it would let more calls in.
    kept.optional_scopes.retain(|scope| offered(scope.as_str()));
    let listed = |name: &str| spec.downstreams.iter().any(|entry| entry.name == name);
    kept.downstreams.retain(|entry| listed(entry.name.as_str()));
    // One that cannot be read asks for none.
    let asked = spec.servers.first().map_or(0, |server| handle_grace(server).unwrap_or(0));
    for server in &mut kept.servers {
        server.handle_grace = server.handle_grace.min(asked);
    }
    let origins = spec.servers.first().map(|server| server.allowed_origins.as_slice()).unwrap_or_default();
    for server in &mut kept.servers {
        server.allowed_origins.retain(|origin| origins.contains(origin));
        let tools = server.tools.iter_mut().map(|tool| &mut tool.downstreams);
        for leads in tools.chain(server.routes.iter_mut().map(|route| &mut route.downstreams)) {
            leads.retain(|entry| listed(entry.name.as_str()));
        }
    }
    kept.rate_limits = narrowed(&kept.rate_limits, &spec.rate_limits);
    kept
}

fn strictest(a: Stage, b: Stage) -> Stage {
    if a == Stage::Enforce { a } else { b }
}
