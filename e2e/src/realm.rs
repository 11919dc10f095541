//! The demo's realm as its administrator changes it: the keys that tokens are signed with.
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::curl::{Answer, Request};
use crate::keycloak::login_at;
use crate::world::{Undo, World};

const HOST: &str = "https://keycloak.keycloak.svc.cluster.local:8443";
/// What tokens of the demo are signed with.
const ALGORITHM: &str = "RS256";

/// A key of the realm: one entry of its key providers.
pub struct RealmKey<'a> {
    world: &'a World,
    component: Value,
}

/// Asks as the administrator. Their token lives for a minute: each question has its own.
fn ask(world: &World, verb: &'static str, path: &str, body: Option<&Value>) -> Result<Answer> {
    let tokens = format!("{HOST}/realms/master/protocol/openid-connect/token");
    let token = login_at(world, &tokens, "admin-cli", "admin", "admin", "")?;
    let mut request = Request::new(verb, &format!("{HOST}/admin/realms/corp{path}")).bearer(&token.text);
    if let Some(body) = body {
        request = request.header("Content-Type", "application/json").body(&body.to_string());
    }
    let answer = request.send(world)?;
    ensure!((200..300).contains(&answer.status), "{verb} {path}: {answer:?}");
    Ok(answer)
}

/// The id of the key that new tokens are signed with.
///
/// # Errors
/// The provider does not answer.
pub fn signs_with(world: &World) -> Result<String> {
    let keys = ask(world, "GET", "/keys", None)?.json()?;
    Ok(keys["active"][ALGORITHM].as_str().context("no key is active")?.to_owned())
}

impl<'a> RealmKey<'a> {
    /// The one that new tokens are signed with.
    ///
    /// # Errors
    /// The provider does not answer.
    pub fn active(world: &'a World) -> Result<Self> {
        let keys = ask(world, "GET", "/keys", None)?.json()?;
        let active = &keys["active"][ALGORITHM];
        let of_it = keys["keys"].as_array().into_iter().flatten().find(|key| key["kid"] == *active);
        let component = of_it.and_then(|key| key["providerId"].as_str()).context("no key is active")?;
        let component = ask(world, "GET", &format!("/components/{component}"), None)?.json()?;
        Ok(Self { world, component })
    }

    /// Makes a new one that is used before this, until the guard is dropped.
    ///
    /// # Errors
    /// The provider refuses.
    pub fn succeed(&self, name: &str) -> Result<Undo<'a>> {
        let world = self.world;
        let priority = self.component["config"]["priority"][0].as_str().unwrap_or("0").parse::<u32>()?;
        let new = json!({
            "name": name, "parentId": self.component["parentId"],
            "providerId": "rsa-generated", "providerType": self.component["providerType"],
            "config": {
                "priority": [(priority + 1).to_string()], "enabled": ["true"], "active": ["true"],
                "algorithm": [ALGORITHM], "keySize": ["2048"],
            },
        });
        let made = ask(world, "POST", "/components", Some(&new))?;
        let place = made.header("location").context("the new key has no place")?;
        let id = place.rsplit('/').next().unwrap_or_default().to_owned();
        Ok(Undo::new(move || ask(world, "DELETE", &format!("/components/{id}"), None).map(drop)))
    }

    /// Whether it signs, and whether it is published.
    ///
    /// # Errors
    /// The provider refuses.
    pub fn set(&self, active: bool, enabled: bool) -> Result<()> {
        let mut component = self.component.clone();
        component["config"]["active"] = json!([active.to_string()]);
        component["config"]["enabled"] = json!([enabled.to_string()]);
        let id = component["id"].as_str().context("id")?;
        ask(self.world, "PUT", &format!("/components/{id}"), Some(&component)).map(drop)
    }
}
