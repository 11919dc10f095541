//! What a token is, and whether a person or a program calls by it (A8, A13).

use serde_json::{Map, Value};

use super::{TokenRefusal, read};
use crate::bundle::document::CallerKind;
use crate::bundle::{Flavor, Provider};
use crate::ids::{ClientId, Subject};

/// Refuses what is known not to be an access token, whatever its header says (A8).
pub(crate) fn check_kind_of_token(
    provider: &Provider,
    claims: &Map<String, Value>,
) -> Result<(), TokenRefusal> {
    const ID_TOKEN_ONLY: [&str; 3] = ["nonce", "at_hash", "c_hash"];
    const LOGOUT_ONLY: &str = "events";
    if ID_TOKEN_ONLY.iter().any(|c| claims.contains_key(*c)) || claims.contains_key(LOGOUT_ONLY) {
        return Err(TokenRefusal::NotAnAccessToken);
    }
    // Keycloak says in the payload what a token is; a bound one says `DPoP`.
    match read::string(claims, "typ")?.as_deref() {
        None if provider.flavor == Flavor::Keycloak => Err(TokenRefusal::NotAnAccessToken),
        None | Some("Bearer" | "DPoP") => Ok(()),
        Some(_) => Err(TokenRefusal::NotAnAccessToken),
    }
}

/// Refuses what a product's access tokens never lack, so that its other tokens do not pass for one.
///
/// An answer of a token exchange is not judged by this: there the provider was asked for an access token.
pub(super) fn check_product(provider: &Provider, claims: &Map<String, Value>) -> Result<(), TokenRefusal> {
    let any = |members: &[&str]| members.iter().any(|member| claims.contains_key(*member));
    let whole = match provider.flavor {
        // An ID token has neither; a program without any role of ours has no business here.
        Flavor::Entra => any(&["scp", "roles"]),
        Flavor::Okta => any(&["cid"]),
        Flavor::Generic | Flavor::Keycloak | Flavor::Auth0 | Flavor::Kubernetes | Flavor::Spiffe => true,
    };
    if whole { Ok(()) } else { Err(TokenRefusal::NotAnAccessToken) }
}

/// The client a token was issued to: every claim the product has for it must name the same one.
pub(super) fn client(
    provider: &Provider,
    claims: &Map<String, Value>,
) -> Result<Option<ClientId>, TokenRefusal> {
    let names: &[&str] = match provider.flavor {
        Flavor::Generic | Flavor::Keycloak | Flavor::Auth0 => &["client_id", "azp"],
        Flavor::Entra => &["azp", "appid"],
        Flavor::Okta => &["cid", "client_id"],
        Flavor::Kubernetes | Flavor::Spiffe => &[],
    };
    let mut found: Option<String> = None;
    for name in names {
        match (read::string(claims, name)?, &found) {
            (Some(client), Some(before)) if client != *before => return Err(TokenRefusal::BadClaim),
            (Some(client), _) => found = Some(client),
            (None, _) => {}
        }
    }
    found.map(ClientId::new).transpose().map_err(|_| TokenRefusal::BadClaim)
}

/// Person or program. What says "program" in any product's words counts for every product: a program that passes for
/// a person would get what only people may have.
pub(super) fn caller(
    provider: &Provider,
    claims: &Map<String, Value>,
    subject: &Subject,
    client: Option<&ClientId>,
) -> Result<CallerKind, TokenRefusal> {
    let subject = subject.as_str();
    let application = match read::string(claims, "idtyp")?.as_deref() {
        None | Some("user") => false,
        Some("app") => true,
        // A device, or what comes after this was written.
        Some(_) => return Err(TokenRefusal::NotAnAccessToken),
    };
    let scp = claims.contains_key("scp");
    if application && scp {
        return Err(TokenRefusal::BadClaim);
    }
    let grant = read::string(claims, "gty")?;
    let by_grant = grant.as_deref().is_some_and(|g| matches!(g, "client-credentials" | "client_credentials"));
    let by_client = client.is_some_and(|client| {
        let client = client.as_str();
        subject == client || subject.strip_suffix("@clients") == Some(client)
    });
    let by_subject = subject.starts_with("system:serviceaccount:") || subject.starts_with("spiffe://");
    let by_product = match provider.flavor {
        Flavor::Entra => !scp,
        Flavor::Auth0 => subject.ends_with("@clients"),
        Flavor::Keycloak => keycloak_program(claims, client)?,
        Flavor::Kubernetes | Flavor::Spiffe => true,
        Flavor::Generic | Flavor::Okta => false,
    };
    let program = application || by_grant || by_client || by_subject || by_product;
    Ok(if program { CallerKind::Workload } else { CallerKind::User })
}

/// Keycloak gives a client's own account a user's `sub`. It tells the grant in `jti` (`trrtcc:`, since 26.2), the
/// account's name, and the host in claims of the built-in scope `service_account`.
fn keycloak_program(claims: &Map<String, Value>, client: Option<&ClientId>) -> Result<bool, TokenRefusal> {
    let by_grant = read::string(claims, "jti")?
        .as_deref()
        .and_then(|jti| jti.split_once(':'))
        .is_some_and(|(grant, _)| grant.len() == 6 && grant.ends_with("cc"));
    let name = read::string(claims, "preferred_username")?;
    let by_name = match (&name, client) {
        (Some(name), Some(client)) => name
            .strip_prefix("service-account-")
            .is_some_and(|account| account.eq_ignore_ascii_case(client.as_str())),
        _ => false,
    };
    let by_host = claims.contains_key("clientHost") || claims.contains_key("clientAddress");
    Ok(by_grant || by_name || by_host)
}
