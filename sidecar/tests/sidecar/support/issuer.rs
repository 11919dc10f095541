//! An issuer with real keys and a key set served over TLS on loopback.

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384,
    RSA_PSS_SHA512, RsaEncoding,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// How a token is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Alg {
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    EdDsa,
}

impl Alg {
    pub(crate) const ALL: [Self; 9] = [
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
        Self::Ps256,
        Self::Ps384,
        Self::Ps512,
        Self::Es256,
        Self::Es384,
        Self::EdDsa,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::EdDsa => "EdDSA",
        }
    }

    pub(crate) fn kid(self) -> &'static str {
        match self {
            Self::Rs256 | Self::Rs384 | Self::Rs512 | Self::Ps256 | Self::Ps384 | Self::Ps512 => "rsa",
            Self::Es256 => "ec",
            Self::Es384 => "ec384",
            Self::EdDsa => "ed",
        }
    }
}

/// What the issuer says of tokens, and what it was asked.
#[derive(Default)]
pub(crate) struct Introspection {
    says: Mutex<(u16, String)>,
    asked: Mutex<Vec<Asked>>,
}

/// One question as it came.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) authorization: String,
    pub(crate) accept: String,
    pub(crate) form: String,
}

impl Introspection {
    /// The answer to every question from now on.
    pub(crate) fn says(&self, status: u16, body: impl Into<String>) {
        *self.says.lock().unwrap() = (status, body.into());
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let text = |name: &str| head.headers.get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
        let form = body.collect().await.unwrap().to_bytes();
        self.asked.lock().unwrap().push(Asked {
            authorization: text("authorization"),
            accept: text("accept"),
            form: String::from_utf8(form.to_vec()).unwrap(),
        });
        let (status, body) = self.says.lock().unwrap().clone();
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        response
    }
}

pub(crate) struct Issuer {
    pub(crate) url: String,
    pub(crate) ca: String,
    rsa: RsaKeyPair,
    ec: EcdsaKeyPair,
    ec384: EcdsaKeyPair,
    ed: Ed25519KeyPair,
    fetches: Arc<AtomicUsize>,
    down: Arc<AtomicBool>,
    introspection: Arc<Introspection>,
    task: JoinHandle<()>,
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The moment at which every clock of a test stands at first: the same for all of them, however long they
/// take.
pub(crate) fn now() -> i64 {
    static NOW: LazyLock<i64> = LazyLock::new(|| {
        i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
    });
    *NOW
}

impl Issuer {
    pub(crate) async fn start() -> Self {
        let (ca, acceptor) = super::tls::localhost();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://localhost:{}/realms/corp", listener.local_addr().unwrap().port());
        let rsa = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let ec = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let ec384 = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
        let ed = Ed25519KeyPair::generate().unwrap();
        let keys = key_set(&rsa, [&ec, &ec384], &ed).to_string();
        let fetches = Arc::new(AtomicUsize::new(0));
        let down = Arc::new(AtomicBool::new(false));
        let (counter, is_down) = (Arc::clone(&fetches), Arc::clone(&down));
        let introspection = Arc::new(Introspection::default());
        let asked = Arc::clone(&introspection);
        let task = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                let (acceptor, keys) = (acceptor.clone(), keys.clone());
                let (counter, is_down) = (Arc::clone(&counter), Arc::clone(&is_down));
                let asked = Arc::clone(&asked);
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(move |request: Request<Incoming>| {
                        let asked = Arc::clone(&asked);
                        let question = request.uri().path().ends_with("/introspect");
                        if !question {
                            counter.fetch_add(1, Ordering::SeqCst);
                        }
                        let mut response = Response::new(Full::new(Bytes::from(keys.clone())));
                        if is_down.load(Ordering::SeqCst) {
                            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                        }
                        async move {
                            let answer = if question { asked.answer(request).await } else { response };
                            Ok::<_, Infallible>(answer)
                        }
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { url, ca, rsa, ec, ec384, ed, fetches, down, introspection, task }
    }

    pub(crate) fn jwks_uri(&self) -> String {
        format!("{}/certs", self.url)
    }

    pub(crate) fn introspection(&self) -> &Introspection {
        &self.introspection
    }

    pub(crate) fn fetches(&self) -> usize {
        self.fetches.load(Ordering::SeqCst)
    }

    pub(crate) fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
    }

    /// The RSA public key as PEM-like bytes an attacker would use as an HMAC secret.
    pub(crate) fn public_key(&self) -> Vec<u8> {
        self.rsa.public_key().as_ref().to_vec()
    }

    /// Claims of a good token for `audience`.
    pub(crate) fn claims(&self, audience: &str) -> Value {
        json!({
            "iss": self.url,
            "aud": [audience],
            "sub": "alice",
            "azp": "agent-ui",
            "exp": now() + 300,
            "iat": now(),
            "jti": "token-1",
            "typ": "Bearer",
            "scope": "hr:read hr:leave:read hr:salary:read",
            "groups": ["staff", "managers"],
        })
    }

    pub(crate) fn sign(&self, alg: Alg, claims: &Value) -> String {
        let header = json!({"alg": alg.name(), "kid": alg.kid(), "typ": "JWT"});
        self.sign_raw(alg, &header.to_string(), &claims.to_string())
    }

    /// Signs exactly these texts.
    pub(crate) fn sign_raw(&self, alg: Alg, header: &str, claims: &str) -> String {
        let input = format!("{}.{}", B64.encode(header), B64.encode(claims));
        let signature = self.signature(alg, input.as_bytes());
        format!("{input}.{}", B64.encode(signature))
    }

    fn signature(&self, alg: Alg, input: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match alg {
            Alg::Rs256 => self.rsa_signature(&RSA_PKCS1_SHA256, input),
            Alg::Rs384 => self.rsa_signature(&RSA_PKCS1_SHA384, input),
            Alg::Rs512 => self.rsa_signature(&RSA_PKCS1_SHA512, input),
            Alg::Ps256 => self.rsa_signature(&RSA_PSS_SHA256, input),
            Alg::Ps384 => self.rsa_signature(&RSA_PSS_SHA384, input),
            Alg::Ps512 => self.rsa_signature(&RSA_PSS_SHA512, input),
            Alg::Es384 => self.ec384.sign(&random, input).unwrap().as_ref().to_vec(),
            Alg::Es256 => self.ec.sign(&random, input).unwrap().as_ref().to_vec(),
            Alg::EdDsa => self.ed.sign(input).as_ref().to_vec(),
        }
    }

    fn rsa_signature(&self, encoding: &'static dyn RsaEncoding, input: &[u8]) -> Vec<u8> {
        let mut out = vec![0; self.rsa.public_modulus_len()];
        self.rsa.sign(encoding, &SystemRandom::new(), input, &mut out).unwrap();
        out
    }
}

fn key_set(rsa: &RsaKeyPair, [ec, ec384]: [&EcdsaKeyPair; 2], ed: &Ed25519KeyPair) -> Value {
    let public = rsa.public_key();
    let point = ec.public_key().as_ref();
    let long = ec384.public_key().as_ref();
    json!({"keys": [
        {
            "kty": "RSA", "kid": "rsa", "use": "sig",
            "n": B64.encode(public.modulus().big_endian_without_leading_zero()),
            "e": B64.encode(public.exponent().big_endian_without_leading_zero()),
        },
        {
            "kty": "EC", "crv": "P-256", "kid": "ec", "use": "sig", "alg": "ES256",
            "x": B64.encode(&point[1..33]), "y": B64.encode(&point[33..]),
        },
        {
            "kty": "EC", "crv": "P-384", "kid": "ec384", "use": "sig",
            "x": B64.encode(&long[1..49]), "y": B64.encode(&long[49..]),
        },
        {"kty": "OKP", "crv": "Ed25519", "kid": "ed", "use": "sig", "x": B64.encode(ed.public_key().as_ref())},
    ]})
}
