//! What is written is what is read, and what is not said is what the API server would fill in.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use behalf_crds::Validate;
use behalf_crds::v1alpha1::*;
use proptest::collection::btree_set;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

fn label() -> impl Strategy<Value = String> {
    "[a-z0-9]([-a-z0-9]{0,10}[a-z0-9])?"
}

fn scope() -> impl Strategy<Value = String> {
    r"[!#-\[\]-~]{1,128}"
}

fn scopes(min: usize, max: usize) -> impl Strategy<Value = Vec<String>> {
    btree_set(scope(), min..=max).prop_map(|set| set.into_iter().collect())
}

fn seconds(min: u32, max: u32) -> impl Strategy<Value = Duration> {
    (min..=max).prop_map(Duration::from_secs)
}

fn namespaces() -> impl Strategy<Value = NamespaceAccess> {
    prop_oneof![
        Just(json!({"from": "All"})),
        Just(json!({})),
        ("[a-z]{1,8}", "[a-z]{0,8}")
            .prop_map(|(key, value)| json!({"from": "Selector", "selector": {"matchLabels": {key: value}}})),
    ]
    .prop_map(|value| serde_json::from_value(value).unwrap())
}

fn provider() -> impl Strategy<Value = IdentityProvider> {
    let profile = (
        select(vec![TokenProfileType::Strict, TokenProfileType::Relaxed]),
        subsequence(vec![Algorithm::RS256, Algorithm::PS256, Algorithm::ES256, Algorithm::EdDsa], 1..=4),
        seconds(0, 60),
    )
        .prop_map(|(type_, algorithms, clock_skew)| TokenProfile {
            type_,
            algorithms,
            clock_skew,
            ..TokenProfile::default()
        });
    let keys = (seconds(3600, 86_400), seconds(1, 3600))
        .prop_map(|(max_staleness, refresh_cooldown)| KeyPolicy { max_staleness, refresh_cooldown });
    let exchange = (scopes(0, 4), seconds(30, 3600)).prop_map(|(ignored_scopes, max_token_lifetime)| {
        ExchangePolicy { ignored_scopes, max_token_lifetime }
    });
    let authentication =
        (option::of("[!-~]{1,40}"), 600_i64..=3600).prop_map(|(audience, expiration_seconds)| {
            ClientAuthenticationPolicy {
                service_account_token: ServiceAccountToken { audience, expiration_seconds },
                ..ClientAuthenticationPolicy::default()
            }
        });
    let flavor = select(vec![Flavor::Generic, Flavor::Keycloak]);
    (label(), label(), flavor, profile, keys, exchange, authentication, namespaces()).prop_map(
        |(name, host, flavor, token_profile, keys, exchange, client_authentication, allowed_namespaces)| {
            let issuer = format!("https://{host}/realms");
            let spec = IdentityProviderSpec {
                issuer,
                ca_bundle: None,
                endpoints: None,
                flavor,
                token_profile,
                introspection: Introspection::default(),
                keys,
                client_authentication,
                exchange,
                allowed_namespaces,
            };
            IdentityProvider::new(&name, spec)
        },
    )
}

fn catalog() -> impl Strategy<Value = ScopeCatalog> {
    let scopes_ = btree_set(scope(), 0..4).prop_flat_map(|names| {
        let names: Vec<_> = names.into_iter().collect();
        names
            .into_iter()
            .map(|name| {
                (
                    Just(name),
                    btree_set("[ -~]{1,20}", 0..3),
                    select(vec![AccessClass::Read, AccessClass::Write, AccessClass::Admin]),
                )
                    .prop_map(|(name, groups, access_class)| CatalogScope {
                        name,
                        holders: Holders { groups: groups.into_iter().collect() },
                        implies: Vec::new(),
                        access_class,
                        assurance: None,
                    })
            })
            .collect::<Vec<_>>()
    });
    let tool = (
        "[!-~]{1,40}",
        scopes(1, 3),
        select(vec![Denial::Explain, Denial::Hide]),
        option::of((label(), scopes(1, 2))),
    )
        .prop_map(|(name, scopes, denial, downstream)| Tool {
            name,
            scopes,
            denial,
            conditions: Vec::new(),
            downstreams: downstream
                .into_iter()
                .map(|(name, scopes)| ToolDownstream { name, scopes })
                .collect(),
        });
    let tool_set = (label(), option::of(tool)).prop_map(|(name, tool)| {
        let text = |type_, value: &str| TextMatch { type_, value: value.to_owned() };
        ToolSet {
            tools: tool.into_iter().collect(),
            prompts: vec![Prompt {
                name: "brief me".to_owned(),
                scopes: vec![name.clone()],
                denial: Denial::Hide,
            }],
            resources: vec![Resource {
                name: name.clone(),
                uri: text(TextMatchType::Prefix, "hr://reports/"),
                scopes: vec![name.clone()],
                denial: Denial::Explain,
            }],
            routes: vec![Route {
                name: name.clone(),
                methods: vec![HttpMethod::Get, HttpMethod::Head],
                path: text(TextMatchType::Template, "/items/{id}"),
                scopes: vec![name.clone()],
                denial: Denial::Explain,
                downstreams: Vec::new(),
            }],
            name,
        }
    });
    let downstream = (label(), label(), "[!-~]{1,40}", option::of(scopes(1, 3)), seconds(30, 3600)).prop_map(
        |(name, host, audience, scopes, max_token_lifetime)| CatalogDownstream {
            name,
            type_: DownstreamType::Http,
            http: Some(HttpDownstream { origin: format!("https://{host}"), ca_bundle: None }),
            audiences: vec![audience],
            scopes,
            max_token_lifetime,
        },
    );
    (label(), namespaces(), scopes_, option::of(tool_set), option::of(downstream)).prop_map(
        |(name, allowed_namespaces, scopes, tool_set, downstream)| {
            let spec = ScopeCatalogSpec {
                allowed_namespaces,
                scopes,
                tool_sets: tool_set.into_iter().collect(),
                downstreams: downstream.into_iter().collect(),
            };
            ScopeCatalog::new(&name, spec)
        },
    )
}

/// By a Secret, or by a CSI driver with all there is.
fn tls(secret: bool) -> ServerTls {
    let csi = CsiCertificate {
        driver: "spiffe.csi.cert-manager.io".to_owned(),
        volume_attributes: [("spiffe.csi.cert-manager.io/fs-group".to_owned(), "15001".to_owned())].into(),
    };
    let validation =
        ClientValidation { ca_bundle: None, spiffe_trust_domain: Some("example.org".to_owned()) };
    ServerTls {
        certificate: CertificateSource {
            secret_name: secret.then(|| "hr-tls".to_owned()),
            csi: (!secret).then_some(csi),
        },
        client_certificates: if secret { ClientCertificates::Ignored } else { ClientCertificates::Required },
        client_validation: (!secret).then_some(validation),
    }
}

fn identity() -> impl Strategy<Value = AgentIdentity> {
    let carriers = subsequence(vec![Carrier::Authorization, Carrier::Meta, Carrier::Header], 1..=3);
    let server = (label(), 1_i64..=8000, option::of(8001_i64..=65_535), carriers).prop_map(
        |(name, port, extra, carriers)| Server {
            url: format!("https://{name}/mcp"),
            protocol: Protocol::Http,
            allowed_origins: vec![format!("https://{name}")],
            timeouts: Timeouts::default(),
            tls: extra.map(|port| tls(port % 2 == 0)),
            port,
            tool_set: name.clone(),
            interception: Interception {
                type_: InterceptionType::Redirect,
                extra_ports: extra
                    .into_iter()
                    .map(|port| ExtraPort { port, protocol: TransportProtocol::Sctp })
                    .collect(),
            },
            handle: Handle { carriers, grace: None },
            host: HostHeader::Keep,
            name,
        },
    );
    let actors = (btree_set("[!-~]{1,20}", 0..3), 0_i64..=10)
        .prop_map(|(allowed, max_depth)| Actors { allowed: allowed.into_iter().collect(), max_depth });
    let callers = (subsequence(vec![CallerKind::User, CallerKind::Workload], 1..=2), option::of(actors))
        .prop_map(|(kinds, actors)| Callers { kinds, actors });
    let scopes = (scopes(0, 3), any::<bool>()).prop_map(|(scopes, required)| {
        if required {
            Scopes { required: scopes, optional: Vec::new(), challenge: ScopeChallenge::Operation }
        } else {
            Scopes { required: Vec::new(), optional: scopes, challenge: ScopeChallenge::Cumulative }
        }
    });
    let stage = || select(vec![Stage::Audit, Stage::Enforce]);
    let env = option::of("[A-Z_][A-Z0-9_]{0,10}");
    let per =
        select(vec![RateLimitPer::Identity, RateLimitPer::Agent, RateLimitPer::Subject, RateLimitPer::Tool]);
    let rate_limits =
        option::of((label(), per, 1_i64..=1_000_000, 1_u32..=86_400, "[!-~]{1,20}")).prop_map(|it| {
            let limit = it.map(|(name, per, requests, seconds, tool)| RateLimit {
                name,
                per,
                requests,
                period: Duration::from_secs(seconds),
                tools: vec![tool],
            });
            limit.into_iter().collect::<Vec<_>>()
        });
    let rest = (option::of((label(), env)), rate_limits);
    (label(), "a[a-c]{1,8}", server, callers, scopes, rest, stage(), stage()).prop_map(
        |(name, service_account_name, server, callers, scopes, rest, stage, authentication)| {
            let (downstream, rate_limits) = rest;
            let provider = ProviderClient {
                name: "corp".to_owned(),
                client: Client {
                    id: server.url.clone(),
                    authentication: ClientAuthentication {
                        type_: ClientAuthenticationType::ServiceAccountToken,
                    },
                },
                audiences: Vec::new(),
            };
            let downstreams = downstream.into_iter().map(|(name, env)| Downstream {
                name,
                identity_provider: "corp".to_owned(),
                subject: Subject::Caller,
                actor: Actor::None,
                env: env.map(|base_url| DownstreamEnv { base_url }),
            });
            let spec = AgentIdentitySpec {
                state: State::Active,
                catalog_ref: NameRef { name: "corp".to_owned() },
                service_account_name,
                servers: vec![server],
                identity_providers: vec![provider],
                callers,
                scopes,
                downstreams: downstreams.collect(),
                rate_limits,
                rollout: Rollout { stage, authentication },
            };
            AgentIdentity::new(&name, spec)
        },
    )
}

fn same_after_writing<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(object: &T) {
    let written = serde_json::to_value(object).unwrap();
    let read: T = serde_json::from_value(written.clone()).unwrap();
    assert_eq!(&read, object);
    assert_eq!(serde_json::to_value(&read).unwrap(), written);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn providers_within_bounds_are_valid_and_survive_writing(object in provider()) {
        same_after_writing(&object);
        prop_assert_eq!(object.validate(), Ok(()));
    }

    #[test]
    fn catalogs_within_bounds_are_valid_and_survive_writing(object in catalog()) {
        same_after_writing(&object);
        prop_assert_eq!(object.validate(), Ok(()));
    }

    #[test]
    fn identities_within_bounds_are_valid_and_survive_writing(object in identity()) {
        same_after_writing(&object);
        prop_assert_eq!(object.validate(), Ok(()));
    }

    #[test]
    fn durations_survive_writing(text in "([0-9]{1,5}(ms|s|m|h)){1,4}") {
        let duration = Duration::parse(&text).unwrap();
        prop_assert_eq!(Duration::parse(&duration.to_string()), Ok(duration));
    }

    #[test]
    fn a_duration_the_schema_admits_is_read_and_the_other_way_round(text in "[0-9]{0,12}[a-z]{0,2}[0-9]{0,12}(ms|s|m|h|d|)[ -~]{0,2}") {
        let read = Duration::parse(&text).is_ok();
        let object = json!({
            "apiVersion": "behalf.dev/v1alpha1", "kind": "IdentityProvider", "metadata": {"name": "corp"},
            "spec": {"issuer": "https://idp", "tokenProfile": {"clockSkew": text}},
        });
        let refused = behalf_crds::validate_manifest(&object).err().unwrap_or_default();
        if refused.is_empty() {
            prop_assert!(read, "the API server admits what we cannot read");
        }
        if read {
            let form = refused.iter().any(|violation| violation.message.contains("match") || violation.message.contains("long"));
            prop_assert!(!form, "{:?}", refused);
        }
    }

    /// Reading never panics, whatever is written into a field, and reads whatever the schema admits.
    #[test]
    fn any_value_in_any_field_is_read_or_refused(field in select(vec![
        "state", "catalogRef", "serviceAccountName", "servers", "identityProviders", "callers", "scopes", "downstreams", "rollout",
    ]), value in select(vec![json!(null), json!(true), json!(-1), json!(1.5), json!(""), json!([]), json!([null]), json!({}), json!({"": []}), json!([[{}]])])) {
        let mut object = serde_json::to_value(AgentIdentity::new("a", minimal())).unwrap();
        object["spec"][field] = value;
        let typed = serde_json::from_value::<AgentIdentity>(object.clone());
        if behalf_crds::validate_manifest(&object).is_ok() {
            prop_assert_eq!(typed.map(|typed| typed.validate()).ok(), Some(Ok(())), "the API server admits what we cannot read");
        }
    }
}

fn minimal() -> AgentIdentitySpec {
    serde_json::from_value(json!({
        "catalogRef": {"name": "corp"},
        "serviceAccountName": "hr-mcp",
        "servers": [{"name": "mcp", "url": "https://hr.example.com/mcp", "port": 8000, "toolSet": "hr"}],
        "identityProviders": [{"name": "corp", "client": {"id": "hr", "authentication": {"type": "ServiceAccountToken"}}}],
    }))
    .unwrap()
}

/// The defaults of the types are the defaults of the schema: an object read back from the API server, which filled them
/// in, equals the one that was read from the file.
#[test]
fn defaults_of_types_and_schema_agree() {
    fn filled(schema: &Value, value: &Value) -> Value {
        match value {
            Value::Object(members) => {
                let mut members = members.clone();
                for (name, property) in schema["properties"].as_object().into_iter().flatten() {
                    if let (false, Some(default)) = (members.contains_key(name), property.get("default")) {
                        members.insert(name.clone(), default.clone());
                    }
                }
                members
                    .into_iter()
                    .map(|(name, member)| (name.clone(), filled(&schema["properties"][&name], &member)))
                    .collect()
            }
            Value::Array(items) => items.iter().map(|item| filled(&schema["items"], item)).collect(),
            other => other.clone(),
        }
    }
    let spec = json!({
        "catalogRef": {"name": "corp"}, "serviceAccountName": "hr-mcp",
        "servers": [{"name": "mcp", "url": "https://hr.example.com/mcp", "port": 8000, "toolSet": "hr", "interception": {"extraPorts": [{"port": 1}]}}],
        "identityProviders": [{"name": "corp", "client": {"id": "hr", "authentication": {"type": "ServiceAccountToken"}}}],
        "downstreams": [{"name": "payroll", "identityProvider": "corp"}], "callers": {"actors": {}},
    });
    let typed: AgentIdentitySpec = serde_json::from_value(spec.clone()).unwrap();
    assert_eq!(
        serde_json::to_value(typed).unwrap(),
        filled(&AgentIdentity::schema().json()["properties"]["spec"], &spec)
    );

    let spec = json!({"issuer": "https://idp"});
    let typed: IdentityProviderSpec = serde_json::from_value(spec.clone()).unwrap();
    assert_eq!(
        serde_json::to_value(typed).unwrap(),
        filled(&IdentityProvider::schema().json()["properties"]["spec"], &spec)
    );

    let spec = json!({
        "scopes": [{"name": "a", "accessClass": "Read"}], "toolSets": [{"name": "a", "tools": [{"name": "a", "scopes": ["a"]}]}],
        "downstreams": [{"name": "a", "type": "HTTP", "http": {"origin": "https://a"}, "audiences": ["a"]}],
    });
    let typed: ScopeCatalogSpec = serde_json::from_value(spec.clone()).unwrap();
    assert_eq!(
        serde_json::to_value(typed).unwrap(),
        filled(&ScopeCatalog::schema().json()["properties"]["spec"], &spec)
    );
}
