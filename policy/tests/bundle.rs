//! Loading and opening bundles: everything that must not be taken, and challenges made from what is.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "the whole crate is a test")]

mod support;

use behalf_policy::bundle::document::{PolicyDocument, ToolDownstream};
use behalf_policy::bundle::signed::{PublicKey, SignedBundleError, open, seal};
use behalf_policy::bundle::{Bundle, ClientCertificates, Denial, LoadError, TlsRules};
use behalf_policy::challenge;
use behalf_policy::ids::{Audience, Issuer};
use support::*;

fn refused(change: impl FnOnce(&mut PolicyDocument)) -> LoadError {
    let mut policy = policy_document();
    change(&mut policy);
    Bundle::load(document(policy), String::new()).unwrap_err()
}

#[test]
fn nothing_unresolved_doubled_or_out_of_bounds_is_loaded() {
    assert!(matches!(refused(|p| p.servers.clear()), LoadError::Servers));
    assert!(matches!(refused(|p| p.servers.push(p.servers[0].clone())), LoadError::Servers));
    assert!(matches!(refused(|p| p.providers.clear()), LoadError::Empty(_)));
    assert!(matches!(refused(|p| p.providers.push(p.providers[0].clone())), LoadError::Duplicate(_)));
    assert!(matches!(refused(|p| p.scopes.push(p.scopes[0].clone())), LoadError::Duplicate(_)));
    assert!(matches!(refused(|p| p.downstreams.push(p.downstreams[0].clone())), LoadError::Duplicate(_)));
    assert!(matches!(refused(|p| p.servers[0].tools.extend_from_within(..1)), LoadError::Duplicate(_)));
    assert!(matches!(refused(|p| p.downstreams.clear()), LoadError::Undefined(_)));
    assert!(matches!(refused(|p| p.downstreams[0].provider = name("nobody")), LoadError::Undefined(_)));
    assert!(matches!(refused(|p| p.required_scopes = scopes(&["nope"])), LoadError::Undefined(_)));
    assert!(matches!(refused(|p| p.optional_scopes = scopes(&["nope"])), LoadError::Undefined(_)));
    assert!(matches!(refused(|p| p.scopes[0].implies = scopes(&["nope"])), LoadError::Undefined(_)));
    assert!(matches!(refused(|p| p.servers[0].tools[0].scopes = scopes(&["nope"])), LoadError::Undefined(_)));
    assert!(matches!(refused(|p| p.servers[0].tools[0].scopes.clear()), LoadError::Empty(_)));
    assert!(matches!(refused(|p| p.servers[0].carriers.clear()), LoadError::Empty(_)));
    assert!(matches!(refused(|p| p.servers[0].port = 0), LoadError::Bounds(_)));
    let unvouched = TlsRules { client_certificates: ClientCertificates::Required, client_validation: None };
    assert!(matches!(refused(|p| p.servers[0].tls = Some(unvouched)), LoadError::Empty(_)));
    let over_http = TlsRules { client_certificates: ClientCertificates::Ignored, client_validation: None };
    let over_http = |p: &mut PolicyDocument| {
        p.servers[0].url = Audience::new("http://hr.hr.svc/mcp").unwrap();
        p.servers[0].tls = Some(over_http);
    };
    assert!(matches!(refused(over_http), LoadError::Url(_)));
    assert!(matches!(refused(|p| p.servers[0].handle_grace = 31), LoadError::Bounds("handleGrace")));
    assert!(matches!(refused(|p| p.callers.kinds.clear()), LoadError::Empty(_)));
    assert!(matches!(refused(|p| p.providers[0].algorithms.clear()), LoadError::Empty(_)));
    assert!(matches!(refused(|p| p.providers[0].clock_skew = 61), LoadError::Bounds(_)));
    assert!(matches!(refused(|p| p.providers[0].max_token_lifetime = 0), LoadError::Bounds(_)));
    assert!(matches!(refused(|p| p.providers[0].max_token_lifetime = 3601), LoadError::Bounds(_)));
    assert!(matches!(refused(|p| p.providers[0].groups_claim = "groups".to_owned()), LoadError::Bounds(_)));
    assert!(matches!(refused(|p| p.downstreams[0].max_token_lifetime = 0), LoadError::Bounds(_)));
    assert!(matches!(
        refused(|p| p.downstreams[0].scope_ceiling = scopes(&["payroll:read"])),
        LoadError::BeyondCeiling(_)
    ));
    let empty = ToolDownstream { name: name("payroll"), scopes: scopes(&[]) };
    assert!(matches!(refused(|p| p.servers[0].tools[0].downstreams.push(empty)), LoadError::Empty(_)));
}

#[test]
fn urls_are_https_without_user_query_or_fragment() {
    for url in [
        "http://payroll.hr.svc",
        "https://u:p@payroll",
        "https://payroll/?a=1",
        "https://payroll/#x",
        "ftp://payroll",
        "payroll",
        "",
        "https://",
        "https://payroll/a/;b",
        "https://payroll//x",
    ] {
        assert!(matches!(refused(|p| p.downstreams[0].url = url.to_owned()), LoadError::Url(_)), "{url}");
    }
    for url in ["http://idp.example.com", "https://u@idp", "https://idp?x=1"] {
        assert!(
            matches!(refused(|p| p.providers[0].issuer = Issuer::new(url).unwrap()), LoadError::Url(_)),
            "{url}"
        );
        assert!(
            matches!(refused(|p| p.providers[0].jwks_uri = Some(url.to_owned())), LoadError::Url(_)),
            "{url}"
        );
        assert!(
            matches!(refused(|p| p.providers[0].token_endpoint = Some(url.to_owned())), LoadError::Url(_)),
            "{url}"
        );
    }
    assert!(matches!(refused(|p| p.servers[0].url = Audience::new("urn:x").unwrap()), LoadError::Url(_)));
}

#[test]
fn b29_the_grace_of_a_handle_is_none_unless_the_document_says_so() {
    let text = serde_json::to_string(&document(policy_document())).unwrap();
    assert!(!text.contains("handleGrace"), "documents without it stay as they were");
    let with = text.replacen("\"carriers\"", "\"handleGrace\":30,\"carriers\"", 1);
    for (text, grace) in [(&text, 0), (&with, 30)] {
        let bundle = Bundle::load(serde_json::from_str(text).unwrap(), String::new()).unwrap();
        assert_eq!(bundle.policy().unwrap().server.handle_grace, grace);
    }
}

#[test]
fn another_format_or_an_unknown_member_is_refused() {
    let mut other = document(policy_document());
    other.format = 2;
    assert_eq!(Bundle::load(other, String::new()), Err(LoadError::Format(2)));
    let text = serde_json::to_string(&document(policy_document())).unwrap();
    let extra = text.replacen("\"format\":1", "\"format\":1,\"allowAll\":\"yes\"", 1);
    assert!(serde_json::from_str::<behalf_policy::bundle::Document>(&extra).is_err());
    let extra = text.replacen("\"stage\":\"Enforce\"", "\"stage\":\"Off\"", 1);
    assert!(serde_json::from_str::<behalf_policy::bundle::Document>(&extra).is_err());
}

/// A stand-in for Ed25519 with the shape of the real check, which has its own test where it is used.
fn verify(key: &[u8; 32], message: &[u8], signature: &[u8]) -> bool {
    signature == sign(key, message)
}

fn sign(key: &[u8; 32], message: &[u8]) -> Vec<u8> {
    let mut sum = [0_u8; 32];
    for (i, byte) in message.iter().enumerate() {
        sum[i % 32] = sum[i % 32].wrapping_mul(31).wrapping_add(*byte).wrapping_add(key[i % 32]);
    }
    sum.to_vec()
}

fn sealed(key: [u8; 32], id: &str) -> Vec<u8> {
    let payload = serde_json::to_vec(&document(policy_document())).unwrap();
    let sealed = seal(&payload, |input| vec![(id.to_owned(), sign(&key, input))]);
    serde_json::to_vec(&sealed).unwrap()
}

#[test]
fn only_a_bundle_signed_by_a_pinned_key_is_opened() {
    let pinned = [
        PublicKey { id: "k1".to_owned(), bytes: [1; 32] },
        PublicKey { id: "k2".to_owned(), bytes: [2; 32] },
    ];
    let (_, opened) = open(&sealed([2; 32], "k2"), &pinned, verify).unwrap();
    assert_eq!(opened, document(policy_document()));
    let refused = |bytes: &[u8], pinned: &[PublicKey]| open(bytes, pinned, verify).unwrap_err();
    assert_eq!(refused(&sealed([3; 32], "k1"), &pinned), SignedBundleError::Unsigned);
    assert_eq!(refused(&sealed([1; 32], "k2"), &pinned), SignedBundleError::Unsigned);
    assert_eq!(refused(&sealed([1; 32], "k3"), &pinned), SignedBundleError::Unsigned);
    assert_eq!(refused(&sealed([1; 32], "k1"), &[]), SignedBundleError::Unsigned);
    assert_eq!(refused(b"{}", &pinned), SignedBundleError::Malformed);
    assert_eq!(refused(b"", &pinned), SignedBundleError::Malformed);
    assert_eq!(refused(&vec![b' '; 1024 * 1024], &pinned), SignedBundleError::TooLarge);
    let tampered = String::from_utf8(sealed([1; 32], "k1")).unwrap().replacen("eyJ", "eyK", 1);
    assert_eq!(refused(tampered.as_bytes(), &pinned), SignedBundleError::Unsigned);
    let payload =
        serde_json::to_vec(&seal(b"{\"format\":1}", |i| vec![("k1".to_owned(), sign(&[1; 32], i))])).unwrap();
    assert_eq!(refused(&payload, &pinned), SignedBundleError::Document);
}

#[test]
fn pinned_keys_are_read_strictly() {
    let key = PublicKey { id: "k1".to_owned(), bytes: [7; 32] };
    assert_eq!(PublicKey::parse(&key.to_argument()), Ok(key));
    for bad in ["", "k1", "k1=", "=AAAA", "k1=AAAA", "k1=!!!!"] {
        assert_eq!(PublicKey::parse(bad), Err(SignedBundleError::Key), "{bad}");
    }
}

#[test]
fn a1_a15_a16_challenges_name_the_metadata_and_only_the_error_that_fits() {
    let b = bundle(policy_document());
    let p = policy(&b);
    let metadata = "resource_metadata=\"https://hr.example.com/.well-known/oauth-protected-resource/mcp\"";
    assert_eq!(challenge::unauthorized(p, None), format!("Bearer scope=\"hr:read\", {metadata}"));
    assert_eq!(
        challenge::unauthorized(p, Some("invalid_token")),
        format!("Bearer error=\"invalid_token\", scope=\"hr:read\", {metadata}")
    );
    let forbidden = challenge::insufficient_scope(p, &scopes(&["hr:read", "hr:salary:read"]));
    assert!(forbidden.starts_with("Bearer error=\"insufficient_scope\", scope=\"hr:read hr:salary:read\", "));
    assert!(
        challenge::invalid_request(p).starts_with("Bearer error=\"invalid_request\", resource_metadata=")
    );
}

#[test]
fn a25_what_went_wrong_stands_in_the_challenge_of_the_scheme_that_was_used() {
    use behalf_policy::bundle::{Flavor, SenderConstraintMode};
    use behalf_policy::challenge::{Beside, schemes};
    use behalf_policy::claims::Scheme;

    const BARE: &str =
        "resource_metadata=\"https://hr.example.com/.well-known/oauth-protected-resource/mcp\"";
    let algs = format!("algs=\"{}\"", behalf_policy::dpop::ALGORITHMS.join(" "));
    let judge = |flavor: Flavor, mode: SenderConstraintMode, used: Option<Scheme>, beside: Beside| {
        let mut document = policy_document();
        document.providers[0].flavor = flavor;
        document.providers[0].tokens.sender_constraint.mode = mode;
        let bundle = bundle(document);
        let metadata = String::from_utf8(challenge::metadata(policy(&bundle))).unwrap();
        let offers = metadata.contains("dpop_signing_alg_values_supported");
        let demands = metadata.contains("\"dpop_bound_access_tokens_required\":true");
        (schemes(policy(&bundle), used, "Bearer error=\"e\", x=\"y\"", beside), offers, demands)
    };
    let bearer = "Bearer error=\"e\", x=\"y\"".to_owned();
    let dpop = format!("DPoP error=\"e\", x=\"y\", {algs}");
    let (bare_bearer, bare_dpop) = (format!("Bearer {BARE}"), format!("DPoP {BARE}, {algs}"));
    let (by_bearer, by_dpop) = (Some(Scheme::Bearer), Some(Scheme::Dpop));
    for mode in [SenderConstraintMode::Accepted, SenderConstraintMode::Required] {
        let judge = |used, beside| {
            let (lines, offers, demands) = judge(Flavor::Generic, mode, used, beside);
            assert!(offers && !demands);
            lines
        };
        for used in [None, by_bearer] {
            assert_eq!(judge(used, Beside::Offer), [bearer.clone(), bare_dpop.clone()]);
            assert_eq!(judge(used, Beside::Nothing), vec![bearer.clone()]);
            assert_eq!(judge(used, Beside::Same), [bearer.clone(), dpop.clone()]);
        }
        assert_eq!(judge(by_dpop, Beside::Offer), [dpop.clone(), bare_bearer.clone()]);
        assert_eq!(judge(by_dpop, Beside::Nothing), vec![dpop.clone()]);
    }
    // No word of what is wrong with a token that could not be right.
    let only = |used| judge(Flavor::Generic, SenderConstraintMode::DpopRequired, used, Beside::Offer);
    assert_eq!(only(by_bearer), (vec![bare_dpop.clone()], true, true));
    assert_eq!(only(by_dpop), (vec![dpop.clone()], true, true));
    assert_eq!(only(None), (vec![dpop], true, true));
    // Whose tokens are never bound is not asked for proofs.
    for used in [None, by_bearer] {
        let (lines, offers, demands) =
            judge(Flavor::Kubernetes, SenderConstraintMode::Accepted, used, Beside::Offer);
        assert_eq!((lines, offers, demands), (vec![bearer.clone()], false, false));
    }
}

#[test]
fn a2_a3_a4_metadata_is_at_the_path_inserted_place_and_leaves_out_empty_members() {
    let b = bundle(policy_document());
    let document: serde_json::Value = serde_json::from_slice(&challenge::metadata(policy(&b))).unwrap();
    assert_eq!(document["resource"], URL);
    assert_eq!(document["authorization_servers"], serde_json::json!([ISSUER]));
    assert_eq!(document["bearer_methods_supported"], serde_json::json!(["header"]));
    assert_eq!(
        document["scopes_supported"],
        serde_json::json!(["hr:leave:read", "hr:read", "hr:salary:read"])
    );
    let mut bare = policy_document();
    bare.servers[0].url = Audience::new("https://hr.example.com/").unwrap();
    bare.required_scopes.clear();
    bare.optional_scopes.clear();
    bare.servers[0].tools = vec![tool("x", &["hr:read"], Denial::Explain, None)];
    let b = bundle(bare);
    assert_eq!(challenge::metadata_path(&policy(&b).server), "/.well-known/oauth-protected-resource");
    let document: serde_json::Value = serde_json::from_slice(&challenge::metadata(policy(&b))).unwrap();
    assert!(document.get("scopes_supported").is_none());
}
