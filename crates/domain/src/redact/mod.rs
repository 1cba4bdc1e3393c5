//! Identifiers out, placeholders in, and back again.
//!
//! A request that may leave gives each identifier a numbered placeholder such
//! as `[EMAIL-1-k7q2mx]`; the last part is drawn for each request, so that
//! nobody can write one beforehand. The [`Vault`] remembers what stands for
//! what and lives as long as the request. A [`Restorer`] puts the identifiers
//! back into one leg's answer.
//!
//! Exact by construction: text that looks like a placeholder is replaced by
//! one, so every placeholder in what was sent is the vault's. It lessens a risk
//! and guarantees nothing: what no recogniser knows goes out as it is, and so
//! do pictures.

mod chat;
mod restore;
mod vault;

#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use restore::Restorer;
pub use vault::{NONCE_LENGTH, Nonce, Vault};

use crate::chat::Chat;
use crate::guard::Kinds;

/// Hands on every text of a request that a provider would see: all turns, calls
/// and results, instructions, tools, forms.
pub fn texts(chat: &Chat, mut see: impl FnMut(&str)) {
    chat::texts(chat, &mut see);
}

/// A request as it may leave.
pub struct Redacted {
    /// `None` where nothing was replaced.
    chat: Option<Box<Chat>>,
    vault: Arc<Vault>,
}

impl Redacted {
    /// Replaces identifiers of some kinds in everything that a provider sees of
    /// a request: all turns, calls and results, instructions, tools, forms.
    pub fn of(chat: &Chat, kinds: Kinds, nonce: Nonce) -> Self {
        let mut vault = Vault::new(kinds, nonce);
        let chat = chat::redacted(chat, &mut vault).map(Box::new);
        vault.settle();
        Self {
            chat,
            vault: Arc::new(vault),
        }
    }

    /// The request with placeholders; `None` where it is the original.
    pub(crate) fn chat(&self) -> Option<&Chat> {
        self.chat.as_deref()
    }

    /// What stands for what.
    pub fn vault(&self) -> &Arc<Vault> {
        &self.vault
    }

    /// A part of the answer, as the client saw it, for a remote leg that goes
    /// on with it. The vault is for that leg: the part may hold identifiers
    /// that the request did not.
    pub fn part(&self, partial: &str) -> (String, Arc<Vault>) {
        let mut vault = (*self.vault).clone();
        match vault.redact(partial) {
            Some(redacted) => {
                vault.settle();
                (redacted, Arc::new(vault))
            }
            None => (partial.to_owned(), Arc::clone(&self.vault)),
        }
    }
}
