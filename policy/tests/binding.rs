//! What a request has to prove of what its token is bound to, in every case there is.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "the whole crate is a test")]

mod support;

use behalf_policy::bundle::SenderConstraintMode;
use behalf_policy::claims::{Binding, Caller, Presented, Scheme, Thumbprint, TokenRefusal, check_binding};
use support::*;

#[test]
fn a24_a27_a_request_proves_everything_its_token_is_bound_to() {
    let [one, other] = [1, 2].map(|byte| Some(Thumbprint([byte; 32])));
    let bearer = |certificate| Presented { scheme: Scheme::Bearer, key: None, certificate };
    let dpop = |key, certificate| Presented { scheme: Scheme::Dpop, key, certificate };
    let unbound = Binding::default();
    let (to_key, to_certificate) =
        (Binding { key: one, certificate: None }, Binding { key: None, certificate: one });
    let to_both = Binding { key: one, certificate: one };
    let (accepted, required, by_key) =
        (SenderConstraintMode::Accepted, SenderConstraintMode::Required, SenderConstraintMode::DpopRequired);
    for (mode, binding, presented, expected) in [
        (accepted, unbound, bearer(None), Ok(())),
        (accepted, unbound, bearer(one), Ok(())),
        (accepted, unbound, dpop(one, None), Err(TokenRefusal::NotBound)),
        (accepted, unbound, dpop(None, None), Err(TokenRefusal::NotBound)),
        (accepted, to_key, dpop(one, None), Ok(())),
        (accepted, to_key, dpop(one, other), Ok(())),
        (accepted, to_key, dpop(other, None), Err(TokenRefusal::BoundToOtherKey)),
        (accepted, to_key, dpop(None, None), Err(TokenRefusal::BoundToOtherKey)),
        (accepted, to_key, bearer(None), Err(TokenRefusal::BoundToken)),
        (accepted, to_key, bearer(one), Err(TokenRefusal::BoundToken)),
        (accepted, to_certificate, bearer(one), Ok(())),
        (accepted, to_certificate, bearer(other), Err(TokenRefusal::BoundToOtherCertificate)),
        (accepted, to_certificate, bearer(None), Err(TokenRefusal::BoundToken)),
        (accepted, to_certificate, dpop(one, one), Err(TokenRefusal::NotBound)),
        (accepted, to_both, dpop(one, one), Ok(())),
        (accepted, to_both, dpop(one, None), Err(TokenRefusal::BoundToken)),
        (accepted, to_both, dpop(one, other), Err(TokenRefusal::BoundToOtherCertificate)),
        (accepted, to_both, dpop(other, one), Err(TokenRefusal::BoundToOtherKey)),
        (accepted, to_both, bearer(one), Err(TokenRefusal::BoundToken)),
        (required, unbound, bearer(one), Err(TokenRefusal::BindingRequired)),
        (required, unbound, dpop(one, one), Err(TokenRefusal::BindingRequired)),
        (required, to_key, dpop(one, None), Ok(())),
        (required, to_key, bearer(None), Err(TokenRefusal::BoundToken)),
        (required, to_certificate, bearer(one), Ok(())),
        (required, to_certificate, bearer(None), Err(TokenRefusal::BoundToken)),
        (by_key, unbound, bearer(None), Err(TokenRefusal::BindingRequired)),
        (by_key, to_certificate, bearer(one), Err(TokenRefusal::BindingRequired)),
        (by_key, to_key, dpop(one, None), Ok(())),
        (by_key, to_key, bearer(None), Err(TokenRefusal::BoundToken)),
        (by_key, to_both, dpop(one, one), Ok(())),
    ] {
        let bundle = bundle(policy_document());
        let mut provider = policy(&bundle).providers["corp"].clone();
        provider.tokens.sender_constraint.mode = mode;
        let caller = Caller { binding, ..alice(&[]) };
        assert_eq!(
            check_binding(&provider, &caller, &presented),
            expected,
            "{mode:?} {binding:?} {presented:?}"
        );
    }
}
