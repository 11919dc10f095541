//! What a provider's row says of its tokens, checked.

use behalf_crds::v1alpha1::{self as crds, ClientAuthenticationType, IdentityProviderSpec};
use behalf_policy::bundle::load::MAX_INTROSPECTION_AGE;
use behalf_policy::bundle::tokens::{
    ClaimRule, MAX_PROOF_AGE, MIN_PROOF_AGE, RequiredClaim, ScopeClaim, ScopeForm,
};
use behalf_policy::bundle::{
    Introspection, IntrospectionResponse, IntrospectionRule, NonceRule, SenderConstraint,
    SenderConstraintMode, TokenRules,
};

use super::{Problem, seconds};
use crate::catalog::invalid;

/// No token may be believed for longer than this without being asked about, once that is declared, seconds.
const MAX_LONG_LIVED: u32 = 86_400;

/// The rules without the audiences, which an identity chooses of those that are allowed.
pub(super) fn rules(spec: &IdentityProviderSpec) -> Result<TokenRules, Problem> {
    let profile = &spec.token_profile;
    let of_spiffe = spec.flavor == crds::Flavor::Spiffe;
    if of_spiffe != profile.trust_domain.is_some() {
        return Err(invalid(
            "spec.tokenProfile.trustDomain belongs to flavor SPIFFE, which needs it. Set both, or neither."
                .to_owned(),
        ));
    }
    let platform = matches!(spec.flavor, crds::Flavor::Kubernetes | crds::Flavor::Spiffe);
    if platform && spec.client_authentication.allowed != [ClientAuthenticationType::None] {
        return Err(invalid(format!(
            "Nobody is a client of flavor {:?}. Set spec.clientAuthentication.allowed to [None].",
            spec.flavor
        )));
    }
    if platform && profile.sender_constraint.is_some() {
        return Err(invalid(format!(
            "Tokens of flavor {:?} are never bound. Remove spec.tokenProfile.senderConstraint.",
            spec.flavor
        )));
    }
    let scopes = profile.scope_claims.iter().map(|scopes| {
        let form = match scopes.form {
            crds::ScopeForm::SpaceDelimited => ScopeForm::SpaceDelimited,
            crds::ScopeForm::Array => ScopeForm::Array,
        };
        Ok(ScopeClaim { claim: pointer(&scopes.claim, "scopeClaims")?, form })
    });
    Ok(TokenRules {
        audiences: std::collections::BTreeSet::new(),
        scopes: scopes.collect::<Result<_, Problem>>()?,
        attributes: profile.attributes.iter().map(|one| (one.name.clone(), one.claim.clone())).collect(),
        required_claims: profile.required_claims.iter().map(required).collect::<Result<_, _>>()?,
        trust_domain: profile.trust_domain.clone(),
        sender_constraint: profile
            .sender_constraint
            .as_ref()
            .map_or(Ok(SenderConstraint::default()), constraint)?,
    })
}

fn constraint(constraint: &crds::SenderConstraint) -> Result<SenderConstraint, Problem> {
    let field = "spec.tokenProfile.senderConstraint.dpop.maxAge";
    let max_age = seconds(field, constraint.dpop.max_age, MAX_PROOF_AGE)?;
    if max_age < MIN_PROOF_AGE {
        return Err(invalid(format!("{field} is {max_age}s. Set it to {MIN_PROOF_AGE}s or more.")));
    }
    Ok(SenderConstraint {
        mode: match constraint.mode {
            crds::SenderConstraintMode::Accepted => SenderConstraintMode::Accepted,
            crds::SenderConstraintMode::Required => SenderConstraintMode::Required,
            crds::SenderConstraintMode::DpopRequired => SenderConstraintMode::DpopRequired,
        },
        max_age,
        nonce: match constraint.dpop.nonce {
            crds::DpopNonce::Never => NonceRule::Never,
            crds::DpopNonce::Required => NonceRule::Required,
        },
    })
}

fn required(claim: &crds::RequiredClaim) -> Result<RequiredClaim, Problem> {
    let rule = match (&claim.equals, &claim.contains, claim.boolean) {
        (Some(text), None, None) => ClaimRule::Equals(text.clone()),
        (None, Some(text), None) => ClaimRule::Contains(text.clone()),
        (None, None, Some(value)) => ClaimRule::Boolean(value),
        _ => {
            return Err(invalid(format!(
                "spec.tokenProfile.requiredClaims: {} has to have exactly one of equals, contains and boolean.",
                claim.claim
            )));
        }
    };
    Ok(RequiredClaim { claim: pointer(&claim.claim, "requiredClaims")?, rule })
}

fn pointer(text: &str, field: &str) -> Result<String, Problem> {
    if text.starts_with('/') {
        return Ok(text.to_owned());
    }
    Err(invalid(format!("spec.tokenProfile.{field}: {text} is no JSON pointer. Let it start with a slash.")))
}

/// When the provider is asked.
pub(super) fn introspection(spec: &IdentityProviderSpec) -> Result<Introspection, Problem> {
    let asked = &spec.introspection;
    let rule = match asked.rule {
        crds::IntrospectionRule::Never => return Ok(Introspection::default()),
        crds::IntrospectionRule::OpaqueOnly => IntrospectionRule::OpaqueOnly,
        crds::IntrospectionRule::Always => IntrospectionRule::Always,
        crds::IntrospectionRule::LongLived => IntrospectionRule::LongLived,
    };
    if spec.client_authentication.allowed.contains(&ClientAuthenticationType::None) {
        return Err(invalid(
            "Whoever asks for introspection authenticates. Take None out of spec.clientAuthentication.allowed, or set spec.introspection.rule to Never."
                .to_owned(),
        ));
    }
    let long_lived_over = match (rule, asked.long_lived_over) {
        (IntrospectionRule::LongLived, Some(over)) => {
            seconds("spec.introspection.longLivedOver", over, MAX_LONG_LIVED)?
        }
        (IntrospectionRule::LongLived, None) | (_, Some(_)) => {
            return Err(invalid(
                "spec.introspection.longLivedOver belongs to rule LongLived, which needs it. Set both, or neither."
                    .to_owned(),
            ));
        }
        (_, None) => 0,
    };
    Ok(Introspection {
        rule,
        long_lived_over,
        endpoint: asked.endpoint.clone(),
        cache_ttl: seconds("spec.introspection.cacheTTL", asked.cache_ttl, MAX_INTROSPECTION_AGE)?,
        response: match asked.response {
            crds::IntrospectionResponse::Json => IntrospectionResponse::Json,
            crds::IntrospectionResponse::Jwt => IntrospectionResponse::Jwt,
        },
    })
}
