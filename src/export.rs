//! Sends this device's ledger on to the fleet's, row by row and each once.
//!
//! A task of its own takes rows from the ledger's file in batches, has egress
//! store them, and notes how far it is in the same file. Nothing on a request's
//! path knows of it: a fleet ledger that is away costs no answer anything, its
//! rows wait on this device's disk.
//!
//! What is not here: the database ([`nearfar_egress`]) and which rows there are
//! ([`crate::store`]).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nearfar_domain::frames::{LedgerBatch, LedgerEnd};
use nearfar_domain::ids::JobId;
use serde::Serialize;

use crate::links::EgressLink;
use crate::store::{Ledger, Unsent};

/// Rows gather for so long before a batch that is not full goes out.
const GATHER: Duration = Duration::from_secs(1);
/// The first pause after a failure; each further one is twice as long …
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// … up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A batch whose end does not come: egress gives up long before.
const PATIENCE: Duration = Duration::from_secs(60);

/// How the sending goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct State {
    /// Rows that the fleet's ledger does not have yet.
    pub behind_rows: u64,
    /// Rows that it took since the start.
    pub sent_rows: u64,
    /// Batches that it did not take since the start.
    pub failed_batches: u64,
    /// When it last took rows, in milliseconds since 1970.
    pub last_sent_ms: Option<i64>,
    /// Since when it has been failing, in milliseconds since 1970.
    pub failing_since_ms: Option<i64>,
    /// Why the last batch was not taken; `None` once one was.
    pub error: Option<String>,
}

/// The sending of one ledger.
pub struct Export {
    ledger: Arc<Ledger>,
    egress: EgressLink,
    state: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    told: State,
    /// The ledger's name and the last row that the fleet has.
    sent: Option<(String, i64)>,
}

enum Step {
    /// A batch was stored, and more rows wait.
    More,
    /// All rows are there.
    Done,
    /// Not taken.
    Failed,
}

impl Export {
    /// Sends nothing yet.
    pub fn new(ledger: Arc<Ledger>, egress: EgressLink) -> Self {
        Self {
            ledger,
            egress,
            state: Mutex::default(),
        }
    }

    /// How it goes, now.
    pub fn state(&self) -> State {
        let inner = self.inner();
        let sent = inner.sent.as_ref().map_or(0, |(_, id)| *id);
        State {
            behind_rows: u64::try_from(self.ledger.newest() - sent).unwrap_or(0),
            ..inner.told.clone()
        }
    }

    /// Sends rows as they come, for ever.
    pub async fn run(&self) {
        let mut pause = FIRST_PAUSE;
        loop {
            match self.step().await {
                Step::More => pause = FIRST_PAUSE,
                Step::Done => {
                    pause = FIRST_PAUSE;
                    self.ledger.written().await;
                    tokio::time::sleep(GATHER).await;
                }
                Step::Failed => {
                    tokio::time::sleep(jittered(pause)).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    async fn step(&self) -> Step {
        let (ledger, known) = (Arc::clone(&self.ledger), self.inner().sent.clone());
        let reading = tokio::task::spawn_blocking(move || {
            let known = known.as_ref().map(|(name, id)| (name.as_str(), *id));
            ledger.unsent(known)
        });
        let unsent = match reading.await {
            Ok(Ok(unsent)) => unsent,
            Ok(Err(error)) => return self.failed(error.to_string()),
            Err(error) => return self.failed(error.to_string()),
        };
        let Unsent {
            daemon, rows, sent, ..
        } = unsent;
        let Some(last) = rows.last().map(|row| row.id) else {
            self.inner().sent = Some((daemon, sent));
            return Step::Done;
        };
        self.inner().sent = Some((daemon.clone(), sent));
        let count = rows.len() as u64;
        let storing = self.egress.store(LedgerBatch {
            job: JobId(0),
            daemon: daemon.clone(),
            rows,
        });
        match tokio::time::timeout(PATIENCE, storing).await {
            Ok(LedgerEnd::Stored) => {
                self.ledger.sent(&daemon, last);
                self.stored(daemon, last, count);
                Step::More
            }
            Ok(LedgerEnd::Taken) => {
                tracing::warn!(
                    "another ledger of the fleet has this one's name (a copied disk, or rows lost \
                     in a power cut); it goes on under a new one"
                );
                let ledger = Arc::clone(&self.ledger);
                let renaming = tokio::task::spawn_blocking(move || {
                    ledger.rename(&daemon);
                    ledger.flush();
                });
                // The next step reads what became of it.
                let _ = renaming.await;
                self.failed("the ledger's name was taken; it has a new one".to_owned())
            }
            Ok(LedgerEnd::Failed { message }) => self.failed(message),
            Err(_) => self.failed(format!("no word within {} s", PATIENCE.as_secs())),
        }
    }

    fn stored(&self, daemon: String, last: i64, count: u64) {
        let mut inner = self.inner();
        inner.sent = Some((daemon, last));
        inner.told.sent_rows += count;
        inner.told.last_sent_ms = Some(now_ms());
        inner.told.failing_since_ms = None;
        if inner.told.error.take().is_some() {
            tracing::info!("the fleet's ledger takes rows again");
        }
    }

    /// An alarm when it begins to fail, and when it fails in another way.
    fn failed(&self, error: String) -> Step {
        let behind = self.state().behind_rows;
        let mut inner = self.inner();
        inner.told.failed_batches += 1;
        inner.told.failing_since_ms.get_or_insert_with(now_ms);
        if inner.told.error.as_ref() != Some(&error) {
            tracing::warn!(
                error,
                behind_rows = behind,
                "the fleet's ledger takes no rows; they wait on this device"
            );
            inner.told.error = Some(error);
        }
        Step::Failed
    }

    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Half of a pause to all of it, so that a fleet does not come back at once.
fn jittered(pause: Duration) -> Duration {
    let draw = getrandom::u32().unwrap_or(u32::MAX);
    pause.mul_f64(0.5 + f64::from(draw) / f64::from(u32::MAX) / 2.0)
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    })
}
