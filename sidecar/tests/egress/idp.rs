//! A strict token endpoint, its keys and metadata; and everything a test needs to ask it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use behalf_policy::bundle::document::{CallerKind, Document};
use behalf_policy::bundle::{Bundle, Provider};
use behalf_policy::claims::Caller;
use behalf_policy::decide::{Operation, decide_downstream};
use behalf_policy::decision::{Decision, ExchangeOrder};
use behalf_policy::ids::{ClientId, EntryName, Group, Scope, Subject, Timestamp, ToolName};
use behalf_sidecar::clock::{Clock, ManualClock};
use behalf_sidecar::exchange::Exchanger;
use behalf_sidecar::handles::{OpenCall, Wanted};
use behalf_sidecar::metrics::Metrics;
use behalf_sidecar::provider::Providers;
use behalf_sidecar::provider::address::AddressPolicy;
use behalf_sidecar::provider::dial::Network;
use behalf_sidecar::provider::http::HttpClient;
use secrecy::SecretString;
use serde_json::{Map, Value, json};

use crate::fake::{Fake, Reply, Seen};

pub const NOW: i64 = 1_800_000_000;
pub const CLIENT: &str = "https://hr.test/mcp";
pub const SECRET: &str = "a secret:with+reserved&characters";

pub struct SigningKey {
    pub id: String,
    pair: EcdsaKeyPair,
}

impl SigningKey {
    pub fn new(id: &str) -> Self {
        Self { id: id.to_owned(), pair: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap() }
    }

    pub fn jwk(&self) -> Value {
        let point = self.pair.public_key().as_ref();
        let part = |range: std::ops::Range<usize>| URL_SAFE_NO_PAD.encode(&point[range]);
        json!({"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": self.id,
            "x": part(1..33), "y": part(33..65)})
    }

    pub fn sign(&self, claims: &Value) -> String {
        self.sign_as(&json!({"alg": "ES256", "typ": "JWT", "kid": self.id}), claims)
    }

    pub fn sign_as(&self, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let input = format!("{}.{}", part(header), part(claims));
        let signature = self.pair.sign(&SystemRandom::new(), input.as_bytes()).unwrap();
        format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }
}

/// What the test makes of the answer that a good provider would give.
type Lie = Arc<dyn Fn(&mut Map<String, Value>, &mut Value) + Send + Sync>;

/// A reply in the place of the token endpoint's.
pub type Instead = Box<dyn Fn() -> Reply + Send>;

/// What the token endpoint answers to a good request for the subject of these claims, if not a token.
pub type Refuses = Box<dyn Fn(&Value) -> Option<Reply> + Send>;

pub struct Idp {
    pub fake: Fake,
    pub key: Arc<SigningKey>,
    pub published: Arc<Mutex<Value>>,
    pub lie: Arc<Mutex<Lie>>,
    /// Takes the place of the token endpoint when set.
    pub instead: Arc<Mutex<Option<Instead>>>,
    refuses: Arc<Mutex<Option<Refuses>>>,
    logins: Mutex<BTreeMap<(String, u32), String>>,
}

pub const TOKEN: &str = "/realms/acme/token";
pub const KEYS: &str = "/realms/acme/keys";
pub const METADATA: &str = "/.well-known/oauth-authorization-server/realms/acme";

impl Idp {
    pub async fn start() -> Self {
        let key = Arc::new(SigningKey::new("k1"));
        let published = Arc::new(Mutex::new(json!({"keys": [key.jwk()]})));
        let lie: Arc<Mutex<Lie>> = Arc::new(Mutex::new(Arc::new(|_: &mut _, _: &mut _| {})));
        let instead: Arc<Mutex<Option<Instead>>> = Arc::new(Mutex::new(None));
        let refuses: Arc<Mutex<Option<Refuses>>> = Arc::new(Mutex::new(None));
        let fake = Fake::start(|_| Reply::Hang).await;
        let issuer = fake.url("/realms/acme");
        {
            let (key, published, lie, instead) =
                (Arc::clone(&key), Arc::clone(&published), Arc::clone(&lie), Arc::clone(&instead));
            let refuses = Arc::clone(&refuses);
            fake.answer_with(move |seen| match seen.target.as_str() {
                METADATA => Reply::json(
                    200,
                    &json!({"issuer": issuer, "token_endpoint": format!("{issuer}/token"),
                        "jwks_uri": format!("{issuer}/keys")}),
                ),
                KEYS => Reply::json(200, &published.lock().unwrap()),
                TOKEN => {
                    if let Some(instead) = &*instead.lock().unwrap() {
                        return instead();
                    }
                    let lie = Arc::clone(&lie.lock().unwrap());
                    let reply = token(&seen, &issuer, &key, &*lie);
                    match &*refuses.lock().unwrap() {
                        Some(refuses) if reply.is_ok() => refuses(&subject(&seen)).unwrap_or(reply),
                        _ => reply,
                    }
                }
                _ => Reply::text(404, "text/plain", "no"),
            });
        }
        Self { fake, key, published, lie, instead, refuses, logins: Mutex::default() }
    }

    pub fn issuer(&self) -> String {
        self.fake.url("/realms/acme")
    }

    pub fn lies(&self, lie: impl Fn(&mut Map<String, Value>, &mut Value) + Send + Sync + 'static) {
        *self.lie.lock().unwrap() = Arc::new(lie);
    }

    pub fn instead(&self, reply: impl Fn() -> Reply + Send + 'static) {
        *self.instead.lock().unwrap() = Some(Box::new(reply));
    }

    /// Refuses good requests for some subjects.
    pub fn refuses(&self, refuses: impl Fn(&Value) -> Option<Reply> + Send + 'static) {
        *self.refuses.lock().unwrap() = Some(Box::new(refuses));
    }

    pub fn exchanges(&self) -> usize {
        self.fake.count(TOKEN)
    }

    /// The login token of a person with this serial; always the same one.
    pub fn login(&self, subject: &str, serial: u32) -> String {
        let sign = || {
            self.key.sign(&json!({"iss": self.issuer(), "sub": subject, "aud": CLIENT, "azp": "agent-ui",
                "jti": format!("{subject}-{serial}"), "exp": NOW + 300}))
        };
        self.logins.lock().unwrap().entry((subject.to_owned(), serial)).or_insert_with(sign).clone()
    }

    pub fn document(&self, change: impl FnOnce(&mut Value)) -> Document {
        let mut document = json!({
            "format": 1, "namespace": "hr", "identity": "hr-tools", "serial": 1,
            "serve": {
                "type": "Policy", "state": "Active", "stage": "Enforce", "authentication": "Enforce",
                "catalogRevision": "r1",
                "servers": [{"name": "mcp", "url": CLIENT, "port": 8000, "host": "Loopback",
                    "carriers": ["Authorization"],
                    "tools": [{"name": "salary.get", "scopes": ["hr:salary:read"], "denial": "Explain",
                        "downstreams": [{"name": "payroll", "scopes": ["payroll:read"]}]},
                        {"name": "directory.search", "scopes": ["hr:read"], "denial": "Explain",
                        "downstreams": []}]}],
                "providers": [{"name": "corp", "issuer": self.issuer(), "caBundle": self.fake.ca,
                    "flavor": "Generic", "profile": "Relaxed", "algorithms": ["ES256"], "clockSkew": 5,
                    "groupsClaim": "/groups", "keysMaxStaleness": 3600, "keysCooldown": 30,
                    "clientId": CLIENT,
                    "clientAuthentication": {"type": "ClientSecretFile", "file": secret_file()},
                    "ignoredScopes": ["profile"], "maxTokenLifetime": 600}],
                "scopes": [{"name": "hr:read", "groups": ["staff"], "implies": []},
                    {"name": "hr:salary:read", "groups": ["managers"], "implies": ["hr:read"]}],
                "requiredScopes": ["hr:read"], "optionalScopes": ["hr:salary:read"],
                "callers": {"kinds": ["User"], "clients": ["agent-ui"], "maxActorDepth": 3},
                "downstreams": [{"name": "payroll", "url": "https://localhost:1/api", "audience": "payroll",
                    "provider": "corp", "scopeCeiling": [], "maxTokenLifetime": 600},
                    {"name": "ledger", "url": "https://localhost:1", "audience": "ledger",
                    "provider": "corp", "scopeCeiling": [], "maxTokenLifetime": 600}]
            }
        });
        change(&mut document);
        serde_json::from_value(document).unwrap()
    }

    pub fn bundle(&self, change: impl FnOnce(&mut Value)) -> Bundle {
        Bundle::load(self.document(change), "sha256:test".to_owned()).unwrap()
    }
}

/// Claims of the token that a request is about.
fn subject(seen: &Seen) -> Value {
    let mut form = url::form_urlencoded::parse(&seen.body);
    claims(&form.find(|(name, _)| name == "subject_token").unwrap().1)
}

/// The provider's side of RFC 8693, checked parameter by parameter.
fn token(
    seen: &Seen,
    issuer: &str,
    key: &SigningKey,
    lie: &dyn Fn(&mut Map<String, Value>, &mut Value),
) -> Reply {
    let fail =
        |why: &str| Reply::json(400, &json!({"error": "strict_fake_refuses", "error_description": why}));
    if seen.method != "POST" || seen.headers["content-type"] != "application/x-www-form-urlencoded" {
        return fail("not a form");
    }
    let form: Vec<(String, String)> = url::form_urlencoded::parse(&seen.body).into_owned().collect();
    let names: BTreeSet<_> = form.iter().map(|(name, _)| name.as_str()).collect();
    if names.len() != form.len() {
        return fail("a parameter occurs twice");
    }
    let get = |name: &str| form.iter().find(|(n, _)| n == name).map_or("", |(_, v)| v.as_str());
    let mut expected = BTreeSet::from([
        "grant_type",
        "subject_token",
        "subject_token_type",
        "requested_token_type",
        "audience",
        "scope",
    ]);
    if let Some(basic) = seen.headers.get("authorization") {
        let form = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let pair = format!("{}:{}", form(CLIENT), form(SECRET));
        if basic != &format!("Basic {}", STANDARD.encode(pair)) {
            return Reply::json(401, &json!({"error": "invalid_client"}));
        }
    } else {
        expected.extend(["client_assertion", "client_assertion_type"]);
        if get("client_assertion_type") != "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
            || get("client_assertion") != "pod.service-account.token"
        {
            return Reply::json(401, &json!({"error": "invalid_client"}));
        }
    }
    let access_token = "urn:ietf:params:oauth:token-type:access_token";
    if names != expected
        || get("grant_type") != "urn:ietf:params:oauth:grant-type:token-exchange"
        || get("subject_token_type") != access_token
        || get("requested_token_type") != access_token
        || get("scope").is_empty()
        || get("audience").is_empty()
    {
        return fail("parameters");
    }
    let payload = get("subject_token").split('.').nth(1).unwrap_or_default();
    let subject: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap();
    let mut claims = Map::from_iter(
        json!({"iss": issuer, "sub": subject["sub"], "aud": get("audience"), "azp": CLIENT,
            "scope": get("scope"), "iat": NOW, "exp": NOW + 300, "jti": "x"})
        .as_object()
        .unwrap()
        .clone(),
    );
    let mut answer = json!({"issued_token_type": access_token, "token_type": "Bearer", "expires_in": 300,
        "scope": get("scope")});
    lie(&mut claims, &mut answer);
    if answer.get("access_token").is_none() {
        answer["access_token"] = key.sign(&Value::Object(claims)).into();
    }
    if answer["access_token"] == "ECHO" {
        answer["access_token"] = get("subject_token").into();
    }
    Reply::json(200, &answer)
}

pub fn secret_file() -> PathBuf {
    credential("client-secret", &format!("{SECRET}\n"))
}

pub fn credential(name: &str, content: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("behalf-egress-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let file = dir.join(name);
    if std::fs::read_to_string(&file).is_ok_and(|old| old == content) {
        return file;
    }
    // Whole or not at all: tests of this process share the file.
    let new = dir.join(format!("{name}.{:?}", std::thread::current().id()));
    std::fs::write(&new, content).unwrap();
    std::fs::rename(new, &file).unwrap();
    file
}

pub fn network() -> Network {
    let mut network = Network::new(Vec::new(), "cluster.local".to_owned(), AddressPolicy::local_run());
    network.total_timeout = Duration::from_secs(10);
    network
}

pub struct Asking {
    pub clock: ManualClock,
    pub providers: Providers,
    pub exchanger: Exchanger,
    pub metrics: Arc<Metrics>,
    pub http: HttpClient,
}

impl Asking {
    pub fn new() -> Self {
        Self::by(&network())
    }

    pub fn by(network: &Network) -> Self {
        let clock = ManualClock::at(Timestamp(NOW));
        let metrics = Arc::new(Metrics::new());
        let http = HttpClient::new(network).unwrap();
        let providers = Providers::new(http.clone(), Arc::clone(&metrics));
        let exchanger = Exchanger::new(providers.clone(), clock.clock(), Arc::clone(&metrics));
        Self { clock, providers, exchanger, metrics, http }
    }

    pub fn now(&self) -> Timestamp {
        let clock: Clock = self.clock.clock();
        clock.now()
    }
}

pub fn caller(subject: &str) -> Caller {
    Caller {
        provider: EntryName::new("corp").unwrap(),
        subject: Subject::new(subject).unwrap(),
        client: Some(ClientId::new("agent-ui").unwrap()),
        kind: CallerKind::User,
        scopes: ["hr:read", "hr:salary:read"].map(|s| Scope::new(s).unwrap()).into(),
        groups: ["staff", "managers"].map(|g| Group::new(g).unwrap()).into(),
        actors: Vec::new(),
        login: behalf_policy::claims::Login::default(),
        expires: Timestamp(NOW + 300),
        token_id: Some(format!("{subject}-jti")),
        binding: behalf_policy::claims::Binding::default(),
    }
}

pub fn call(caller: &Caller, token: &str) -> OpenCall {
    OpenCall {
        caller: Arc::new(caller.clone()),
        token: SecretString::from(token),
        tool: ToolName::new("salary.get").unwrap(),
        arguments: None,
        route: None,
        request_id: format!("request-of-{}", caller.subject),
        opened: Timestamp(NOW),
        grace: 0,
        name: None,
        wanted: Wanted::default(),
    }
}

pub fn order(bundle: &Bundle, caller: &Caller) -> ExchangeOrder {
    let payroll = EntryName::new("payroll").unwrap();
    match decide_downstream(bundle, caller, Operation::CallTool("salary.get"), &payroll, Timestamp(NOW)) {
        Decision::Permit(permit) => permit.order(&payroll).unwrap(),
        other => panic!("{other:?}"),
    }
}

pub fn provider(bundle: &Bundle) -> &Provider {
    bundle.policy().unwrap().providers.get("corp").unwrap()
}

/// Claims of a token, not verified.
pub fn claims(token: &str) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap()).unwrap()
}
