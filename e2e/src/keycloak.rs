//! The identity provider: tokens of people, real answers to exchanges, its own log of exchanges.
use anyhow::{Context as _, Result, bail};
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use crate::curl::{Answer, Request};
use crate::world::World;
use crate::{ISSUER, until};

/// A token of a person's agent. Its text is in no message.
#[derive(Clone)]
pub struct Token {
    /// The access token.
    pub text: String,
    /// The ID token, when `openid` was asked.
    pub id: Option<String>,
}

impl Token {
    /// The claims of the access token.
    ///
    /// # Errors
    /// It is no JWT.
    pub fn claims(&self) -> Result<Map<String, Value>> {
        part(&self.text, 1)
    }

    /// `sub`.
    ///
    /// # Errors
    /// There is none.
    pub fn subject(&self) -> Result<String> {
        Ok(self.claims()?["sub"].as_str().context("sub")?.to_owned())
    }
}

/// One JSON part of a JWT: 0 is the header, 1 the claims.
///
/// # Errors
/// It is no JWT.
pub fn part(token: &str, index: usize) -> Result<Map<String, Value>> {
    let text = token.split('.').nth(index).context("no JWT")?;
    Ok(serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text)?)?)
}

/// SHA-256 in hex, as the agents and payroll write it.
#[must_use]
pub fn sha256(text: &str) -> String {
    xtask::cache::hex(digest(&SHA256, text.as_bytes()).as_ref())
}

fn endpoint(name: &str) -> String {
    format!("{ISSUER}/protocol/openid-connect/{name}")
}

/// Logs a person in by the password grant of a test client of the realm.
///
/// # Errors
/// Keycloak refuses.
pub fn login(world: &World, client: &str, user: &str, scope: &str) -> Result<Token> {
    let password = format!("{user}-pw");
    login_at(world, &endpoint("token"), client, user, &password, scope)
}

/// Logs somebody in at any realm's token endpoint.
///
/// # Errors
/// Keycloak refuses.
pub fn login_at(
    world: &World,
    url: &str,
    client: &str,
    user: &str,
    password: &str,
    scope: &str,
) -> Result<Token> {
    token(&password_grant(url, client, user, password, scope).send(world)?)
}

/// The request of a login by the password grant.
#[must_use]
pub fn password_grant(url: &str, client: &str, user: &str, password: &str, scope: &str) -> Request {
    let mut fields =
        vec![("grant_type", "password"), ("client_id", client), ("username", user), ("password", password)];
    if !scope.is_empty() {
        fields.push(("scope", scope));
    }
    Request::form(url, &fields)
}

/// The tokens in the answer to a login.
///
/// # Errors
/// It is a refusal.
pub fn token(answer: &Answer) -> Result<Token> {
    let body = answer.json()?;
    match body["access_token"].as_str() {
        Some(text) => Ok(Token { text: text.to_owned(), id: body["id_token"].as_str().map(str::to_owned) }),
        None => bail!("no login: HTTP {} {}", answer.status, body["error_description"]),
    }
}

/// Takes a token of the test client back (RFC 7009).
///
/// # Errors
/// Keycloak refuses.
pub fn revoke(world: &World, token: &Token) -> Result<()> {
    let fields = [("client_id", "agent-test"), ("token", &token.text), ("token_type_hint", "access_token")];
    let answer = Request::form(&endpoint("revoke"), &fields).send(world)?;
    if answer.status == 200 { Ok(()) } else { bail!("not revoked: HTTP {}", answer.status) }
}

/// The keys that tokens are signed with, as the provider publishes them.
///
/// # Errors
/// It does not answer.
pub fn keys(world: &World) -> Result<Vec<Value>> {
    let body = Request::get(&endpoint("certs")).send(world)?.json()?;
    Ok(body["keys"].as_array().cloned().unwrap_or_default())
}

/// How many exchanges Keycloak's own log tells of, refused ones too. What happened before this call is counted:
/// a login is made and waited for, which the log shows after them.
///
/// # Errors
/// The log cannot be read.
pub fn exchanges(world: &World) -> Result<usize> {
    let before = count(&log(world)?, "type=\"LOGIN\"");
    login(world, "agent-test", "carol", "")?;
    until("Keycloak's log shows a login", crate::world::LOGGED, || {
        let log = log(world)?;
        Ok((count(&log, "type=\"LOGIN\"") > before).then(|| count(&log, "type=\"TOKEN_EXCHANGE")))
    })
}

fn log(world: &World) -> Result<String> {
    world.kubectl(&["-n", "keycloak", "logs", "deployment/keycloak", "--tail=-1"])
}

fn count(log: &str, what: &str) -> usize {
    log.lines().filter(|line| line.contains(what)).count()
}
