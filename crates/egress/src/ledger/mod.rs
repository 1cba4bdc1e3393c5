//! The fleet's ledger: rows that the gate took from this device's ledger go
//! into a Postgres database, each once.
//!
//! A batch is one statement, so that all of it is stored or none; a row that is
//! there already is left alone, so that a batch whose answer was lost is simply
//! sent again. `store` has the statement, `schema` the tables, `connect` the
//! connection. What is not here: which rows are next (the gate keeps that, beside
//! the rows), and any waiting for a server that is away.

#[cfg(feature = "postgres")]
mod connect;
#[cfg(feature = "postgres")]
mod schema;
#[cfg(feature = "postgres")]
mod store;

use std::path::Path;

use nearfar_domain::frames::{LedgerBatch, LedgerEnd};

use crate::provider::KeySource;

/// The statements that make the tables of the fleet's ledger.
pub const LEDGER_SQL: &str = include_str!("schema.sql");

/// Where the fleet's ledger is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerOptions {
    /// `postgres://user@host:port/database?sslmode=…`, without a password.
    pub url: String,
    /// Where the password is.
    pub password: KeySource,
    /// What this device is called in the rows.
    pub device: String,
}

/// The fleet's ledger, as jobs of the gate reach it.
pub(crate) struct FleetLedger {
    #[cfg(feature = "postgres")]
    inner: Option<store::Store>,
    #[cfg(not(feature = "postgres"))]
    configured: bool,
}

#[cfg(feature = "postgres")]
impl FleetLedger {
    /// Connects to nothing yet.
    pub(crate) fn new(options: Option<LedgerOptions>, credentials: Option<&Path>) -> Self {
        Self {
            inner: options.map(|options| store::Store::new(options, credentials)),
        }
    }

    /// Stores a batch.
    pub(crate) async fn store(&self, batch: &LedgerBatch) -> LedgerEnd {
        match &self.inner {
            Some(store) => store.store(batch).await,
            None => not_configured(),
        }
    }
}

#[cfg(not(feature = "postgres"))]
impl FleetLedger {
    /// Says so where somebody wants what this build lacks.
    pub(crate) fn new(options: Option<LedgerOptions>, _: Option<&Path>) -> Self {
        Self {
            configured: options.is_some(),
        }
    }

    /// Stores nothing.
    pub(crate) async fn store(&self, _: &LedgerBatch) -> LedgerEnd {
        if !self.configured {
            return not_configured();
        }
        LedgerEnd::Failed {
            message: "this nearfar was built without the feature `postgres`; rows wait in this \
                      device's ledger"
                .to_owned(),
        }
    }
}

fn not_configured() -> LedgerEnd {
    LedgerEnd::Failed {
        message: "no fleet ledger is configured".to_owned(),
    }
}
