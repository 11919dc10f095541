//! A caller with a key of its own, and the proofs it makes (RFC 9449 §4).

use std::sync::atomic::{AtomicUsize, Ordering};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use serde_json::{Value, json};

use super::World;
use super::bundle::SERVER;
use super::client::Call;
use super::issuer::now;

pub(crate) struct Holder(EcdsaKeyPair);

impl Holder {
    pub(crate) fn new() -> Self {
        Self(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    pub(crate) fn jwk(&self) -> Value {
        let point = self.0.public_key().as_ref();
        json!({"kty": "EC", "crv": "P-256", "x": B64.encode(&point[1..33]), "y": B64.encode(&point[33..])})
    }

    /// RFC 7638 §3, written by hand.
    pub(crate) fn thumbprint(&self) -> String {
        let jwk = self.jwk();
        let input = format!(r#"{{"crv":"P-256","kty":"EC","x":{},"y":{}}}"#, jwk["x"], jwk["y"]);
        B64.encode(digest(&SHA256, input.as_bytes()))
    }

    /// A token of alice that is bound to this key.
    pub(crate) fn token(&self, world: &World) -> String {
        let jkt = self.thumbprint();
        world.token(|claims| {
            // As Keycloak writes it.
            claims["cnf"] = json!({"jkt": jkt, "kc-jkt-type": "DPoP"});
            claims["typ"] = "DPoP".into();
        })
    }

    pub(crate) fn header(&self) -> Value {
        json!({"typ": "dpop+jwt", "alg": "ES256", "jwk": self.jwk()})
    }

    /// Claims of a good proof for a POST with this token, never the same twice.
    pub(crate) fn claims(token: &str) -> Value {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let id = format!("proof-{}", NEXT.fetch_add(1, Ordering::SeqCst));
        let ath = B64.encode(digest(&SHA256, token.as_bytes()));
        json!({"jti": id, "htm": "POST", "htu": SERVER, "iat": now(), "ath": ath})
    }

    pub(crate) fn sign(&self, header: &Value, claims: &Value) -> String {
        let input = format!("{}.{}", B64.encode(header.to_string()), B64.encode(claims.to_string()));
        let signature = self.0.sign(&SystemRandom::new(), input.as_bytes()).unwrap();
        format!("{input}.{}", B64.encode(signature))
    }

    /// A proof with claims changed.
    pub(crate) fn proof(&self, token: &str, change: impl FnOnce(&mut Value)) -> String {
        let mut claims = Self::claims(token);
        change(&mut claims);
        self.sign(&self.header(), &claims)
    }
}

impl Call {
    /// With a token under the scheme `DPoP`, and a proof.
    pub(crate) fn proved(self, token: &str, proof: &str) -> Self {
        self.header("authorization", &format!("DPoP {token}")).header("dpop", proof)
    }
}
