//! A small document to vary, and what is needed to ask about it.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::collections::BTreeSet;

use behalf_policy::bundle::document::{
    CallerKind, CallersDocument, Carrier, DownstreamDocument, PolicyDocument, ScopeDocument, ServerDocument,
    ToolDocument, ToolDownstream,
};
use behalf_policy::bundle::provider::ProviderDocument;
use behalf_policy::bundle::{
    Algorithm, Bundle, ClientAuthentication, Denial, Document, Flavor, Host, Introspection, Policy, Serve,
    Stage, State, TokenProfile, TokenRules,
};
use behalf_policy::claims::Caller;
use behalf_policy::ids::{
    Audience, ClientId, EntryName, Group, Issuer, Scope, ScopeSet, Subject, Timestamp, ToolName,
};

pub const NOW: Timestamp = Timestamp(1_800_000_000);
pub const URL: &str = "https://hr.example.com/mcp";
pub const ISSUER: &str = "https://idp.example.com/realms/corp";

pub fn scopes(names: &[&str]) -> ScopeSet {
    names.iter().map(|n| Scope::new(*n).unwrap()).collect()
}

pub fn groups(names: &[&str]) -> BTreeSet<Group> {
    names.iter().map(|n| Group::new(*n).unwrap()).collect()
}

pub fn name(text: &str) -> EntryName {
    EntryName::new(text).unwrap()
}

pub fn scope(name: &str, held_by: &[&str], implies: &[&str]) -> ScopeDocument {
    ScopeDocument {
        name: Scope::new(name).unwrap(),
        groups: groups(held_by),
        implies: scopes(implies),
        assurance: None,
    }
}

pub fn tool(tool: &str, needs: &[&str], denial: Denial, downstream: Option<&[&str]>) -> ToolDocument {
    ToolDocument {
        name: ToolName::new(tool).unwrap(),
        scopes: scopes(needs),
        denial,
        downstreams: downstream
            .map(|s| ToolDownstream { name: name("payroll"), scopes: scopes(s) })
            .into_iter()
            .collect(),
        conditions: Vec::new(),
    }
}

pub fn policy_document() -> PolicyDocument {
    PolicyDocument {
        state: State::Active,
        stage: Stage::Enforce,
        authentication: Stage::Enforce,
        catalog_revision: "c1".to_owned(),
        servers: vec![ServerDocument {
            name: name("mcp"),
            protocol: behalf_policy::bundle::Protocol::Mcp,
            url: Audience::new(URL).unwrap(),
            port: 8000,
            host: Host::Loopback,
            carriers: [Carrier::Authorization, Carrier::Meta].into(),
            handle_grace: 0,
            allowed_origins: BTreeSet::new(),
            timeouts: behalf_policy::bundle::Timeouts::default(),
            tls: None,
            prompts: Vec::new(),
            resources: Vec::new(),
            routes: Vec::new(),
            tools: vec![
                tool("directory.search", &["hr:read"], Denial::Explain, None),
                tool("leave.list", &["hr:leave:read"], Denial::Explain, None),
                tool("salary.get", &["hr:salary:read"], Denial::Explain, Some(&["payroll:read"])),
                tool("salary.audit", &["hr:salary:read"], Denial::Hide, Some(&["payroll:read"])),
                tool("salary.update", &["hr:salary:write"], Denial::Explain, Some(&["payroll:write"])),
            ],
        }],
        providers: vec![ProviderDocument {
            name: name("corp"),
            issuer: Issuer::new(ISSUER).unwrap(),
            ca_bundle: None,
            token_endpoint: None,
            jwks_uri: None,
            flavor: Flavor::Keycloak,
            profile: TokenProfile::Relaxed,
            algorithms: [Algorithm::RS256, Algorithm::ES256].into(),
            clock_skew: 30,
            groups_claim: "/groups".to_owned(),
            keys_max_staleness: 3600,
            keys_cooldown: 30,
            client_id: ClientId::new(URL).unwrap(),
            client_authentication: ClientAuthentication::ServiceAccountToken { file: "/token".to_owned() },
            ignored_scopes: scopes(&["profile"]),
            max_token_lifetime: 600,
            tokens: TokenRules::default(),
            introspection: Introspection::default(),
        }],
        scopes: vec![
            scope("hr:read", &["staff", "managers"], &[]),
            scope("hr:leave:read", &["staff"], &[]),
            scope("hr:salary:read", &["managers"], &[]),
            scope("hr:salary:write", &["managers"], &["hr:salary:read"]),
        ],
        required_scopes: scopes(&["hr:read"]),
        optional_scopes: scopes(&["hr:leave:read", "hr:salary:read"]),
        scope_challenge: behalf_policy::bundle::document::ScopeChallenge::default(),
        callers: CallersDocument {
            kinds: [CallerKind::User].into(),
            clients: Some([ClientId::new("agent-ui").unwrap()].into()),
            max_actor_depth: 1,
        },
        downstreams: vec![DownstreamDocument {
            name: name("payroll"),
            url: "https://payroll.hr.svc/api".to_owned(),
            ca_bundle: None,
            audience: Audience::new("payroll").unwrap(),
            provider: name("corp"),
            scope_ceiling: scopes(&["payroll:read", "payroll:write"]),
            max_token_lifetime: 300,
        }],
        rate_limits: Vec::new(),
    }
}

pub fn document(policy: PolicyDocument) -> Document {
    Document {
        format: 1,
        namespace: "hr".to_owned(),
        identity: "hr-tools".to_owned(),
        serial: 1,
        feed: None,
        record_salt: None,
        serve: Serve::Policy(Box::new(policy)),
    }
}

pub fn bundle(policy: PolicyDocument) -> Bundle {
    Bundle::load(document(policy), "sha256:00".to_owned()).unwrap()
}

pub fn policy(bundle: &Bundle) -> &Policy {
    bundle.policy().unwrap()
}

pub fn caller(subject: &str, in_groups: &[&str], presents: &[&str]) -> Caller {
    Caller {
        provider: name("corp"),
        subject: Subject::new(subject).unwrap(),
        client: Some(ClientId::new("agent-ui").unwrap()),
        kind: CallerKind::User,
        scopes: scopes(presents),
        groups: groups(in_groups),
        actors: Vec::new(),
        login: behalf_policy::claims::Login::default(),
        expires: NOW.plus(300),
        token_id: Some("j1".to_owned()),
        binding: behalf_policy::claims::Binding::default(),
    }
}

pub fn alice(presents: &[&str]) -> Caller {
    caller("alice", &["managers", "staff"], presents)
}

pub fn bob(presents: &[&str]) -> Caller {
    caller("bob", &["staff"], presents)
}
