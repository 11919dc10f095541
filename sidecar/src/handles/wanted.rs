//! What a provider or a downstream wanted of the caller while its call was open.
//!
//! The way out learns it and can tell nobody: the server in front of it has no use for it. The inbound side, which still
//! owes the caller an answer, looks here before it gives one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use behalf_policy::ids::EntryName;
use behalf_policy::interaction::Interaction;
use secrecy::{ExposeSecret as _, SecretString};

use crate::provider::http::sha256;

/// One want.
pub(crate) struct Want {
    /// What is wanted.
    pub(crate) interaction: Interaction,
    /// For calls to which downstream.
    pub(crate) downstream: EntryName,
    /// Digest of the caller's token with which it was not enough.
    pub(crate) token: [u8; 32],
}

/// The place for it, one for each call. Clones are the same place; it holds one want at most.
#[derive(Clone, Default)]
pub struct Wanted(Arc<Mutex<Option<Arc<Want>>>>);

impl Wanted {
    /// Keeps a want. The first one of a call stays: it stood in the way first, and what comes after it may come of it.
    pub(crate) fn put(&self, downstream: &EntryName, interaction: Interaction, token: &SecretString) {
        self.place().get_or_insert_with(|| {
            let token = sha256(token.expose_secret().as_bytes());
            Arc::new(Want { interaction, downstream: downstream.clone(), token })
        });
    }

    /// The downstream has served the call after all, so nothing is wanted for it any more.
    pub(crate) fn served(&self, downstream: &EntryName) {
        self.place().take_if(|want| want.downstream == *downstream);
    }

    /// What is wanted.
    pub(crate) fn get(&self) -> Option<Arc<Want>> {
        self.place().clone()
    }

    fn place(&self) -> MutexGuard<'_, Option<Arc<Want>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
