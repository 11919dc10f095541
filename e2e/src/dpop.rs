//! A client with a key of its own, and the proofs it makes (RFC 9449).
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Result, anyhow};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::{self, SystemRandom};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::curl::Request;

/// A key that tokens are bound to.
pub struct Holder(EcdsaKeyPair);

impl Holder {
    /// A new one.
    ///
    /// # Errors
    /// There is no randomness.
    pub fn new() -> Result<Self> {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING);
        Ok(Self(key.map_err(|_| anyhow!("no key could be made"))?))
    }

    fn jwk(&self) -> Value {
        let (x, y) = self.0.public_key().as_ref()[1..].split_at(32);
        json!({"kty": "EC", "crv": "P-256", "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y)})
    }

    /// What a token that is bound to this key says in `cnf.jkt` (RFC 7638).
    #[must_use]
    pub fn thumbprint(&self) -> String {
        let jwk = self.jwk();
        let input = format!(r#"{{"crv":"P-256","kty":"EC","x":{},"y":{}}}"#, jwk["x"], jwk["y"]);
        URL_SAFE_NO_PAD.encode(digest(&SHA256, input.as_bytes()))
    }

    /// A proof for one POST, with a token or, at a token endpoint, without.
    ///
    /// # Errors
    /// There is no randomness.
    pub fn proof(&self, url: &str, token: Option<&str>) -> Result<String> {
        let mut id = [0; 16];
        rand::fill(&mut id)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let mut claims = json!({"jti": URL_SAFE_NO_PAD.encode(id), "htm": "POST", "htu": url, "iat": now});
        if let Some(token) = token {
            claims["ath"] = URL_SAFE_NO_PAD.encode(digest(&SHA256, token.as_bytes())).into();
        }
        let header = json!({"typ": "dpop+jwt", "alg": "ES256", "jwk": self.jwk()});
        let [header, claims] = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
        let signature = self.0.sign(&SystemRandom::new(), format!("{header}.{claims}").as_bytes())?;
        Ok(format!("{header}.{claims}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

impl Request {
    /// With a bound token and a proof.
    #[must_use]
    pub fn proved(self, token: &str, proof: &str) -> Self {
        self.header("Authorization", &format!("DPoP {token}")).header("DPoP", proof)
    }
}
