//! Who acts for the subject: the nested `act` claim (RFC 8693 §4.1).

use serde_json::{Map, Value};

use super::{TokenRefusal, read};
use crate::ids::{ClientId, Issuer, Subject};

/// A longer chain is refused before policy is asked (D26).
pub const MAX_ACTORS: usize = 10;

/// One actor of a chain. Only the outermost one bears on a decision; the others are history (B9).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// `sub`.
    pub subject: Option<Subject>,
    /// `iss`: whose names these are, when it is not the token's issuer.
    pub issuer: Option<Issuer>,
    /// `client_id`.
    pub client: Option<ClientId>,
}

impl Actor {
    /// The name it is known by: its client id, else its subject.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match (&self.client, &self.subject) {
            (Some(client), _) => client.as_str(),
            (None, Some(subject)) => subject.as_str(),
            (None, None) => "",
        }
    }

    /// The name to compare with a list of clients; none when it is a name of another issuer than `issuer`.
    #[must_use]
    pub fn name_at(&self, issuer: &Issuer) -> Option<&str> {
        if self.issuer.as_ref().is_some_and(|own| own != issuer) {
            return None;
        }
        Some(self.as_str())
    }
}

/// The chain, outermost first. Each actor is an object that says who it is.
pub(super) fn actors(claims: &Map<String, Value>) -> Result<Vec<Actor>, TokenRefusal> {
    let mut chain = Vec::new();
    let mut at = claims.get("act");
    while let Some(actor) = at {
        let Value::Object(actor) = actor else { return Err(TokenRefusal::BadClaim) };
        if chain.len() >= MAX_ACTORS {
            return Err(TokenRefusal::BadClaim);
        }
        let (subject, issuer, client) =
            (read::string(actor, "sub")?, read::string(actor, "iss")?, read::string(actor, "client_id")?);
        if subject.is_none() && client.is_none() {
            return Err(TokenRefusal::BadClaim);
        }
        chain.push(Actor {
            subject: subject.map(Subject::new).transpose().map_err(|_| TokenRefusal::BadClaim)?,
            issuer: issuer.map(Issuer::new).transpose().map_err(|_| TokenRefusal::BadClaim)?,
            client: client.map(ClientId::new).transpose().map_err(|_| TokenRefusal::BadClaim)?,
        });
        at = actor.get("act");
    }
    Ok(chain)
}
