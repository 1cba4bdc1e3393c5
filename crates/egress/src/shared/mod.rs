//! Counters that several daemons share, in Valkey or Redis. `counters.lua` is
//! what is done there, `valkey` the connection. What is not here: which limits are
//! shared, and what happens while the server is away (the gate goes on alone).

#[cfg(feature = "valkey")]
mod valkey;

use std::path::Path;

use nearfar_domain::frames::{SharedCall, SharedEnd};

use crate::provider::KeySource;

/// Where the shared counters are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedOptions {
    /// `redis://user@host:port/database` or `rediss://…`, without a password.
    pub url: String,
    /// Where the password is.
    pub password: KeySource,
    /// Whose counters they are: daemons of one group share them.
    pub group: String,
}

/// The shared counters, as jobs of the gate reach them.
pub(crate) struct Counters {
    #[cfg(feature = "valkey")]
    inner: Option<valkey::Valkey>,
}

#[cfg(feature = "valkey")]
impl Counters {
    /// Connects to nothing yet.
    pub(crate) fn new(options: Option<SharedOptions>, credentials: Option<&Path>) -> Self {
        Self {
            inner: options.map(|options| valkey::Valkey::new(options, credentials)),
        }
    }

    /// Does one step.
    pub(crate) async fn call(&self, call: &SharedCall) -> SharedEnd {
        match &self.inner {
            Some(valkey) => valkey.call(call).await,
            None => not_there(),
        }
    }
}

#[cfg(not(feature = "valkey"))]
impl Counters {
    /// This build has no such connection.
    pub(crate) fn new(_: Option<SharedOptions>, _: Option<&Path>) -> Self {
        Self {}
    }

    /// Says that it cannot.
    pub(crate) async fn call(&self, _: &SharedCall) -> SharedEnd {
        not_there()
    }
}

fn not_there() -> SharedEnd {
    SharedEnd::Failed {
        message: match cfg!(feature = "valkey") {
            true => "no shared counters are configured",
            false => "this nearfar was built without the feature `valkey`",
        }
        .to_owned(),
    }
}
