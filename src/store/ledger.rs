//! The ledger's handle and its one writer thread.
//!
//! A row is handed over through a bounded queue and written in batches. The
//! request path never waits for the disk: when the queue or the disk is full,
//! rows are dropped and counted.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::{Connection, params};
use tokio::sync::Notify;

use super::export::{self, Progress, Unsent};
use super::{LEDGER_FILE, LimitUse, Row, StoreError, UsageLine, UsageQuery, limits, schema, usage};

/// Rows that may wait for the writer.
const QUEUE: usize = 8_192;
/// A batch is written when it has this many rows …
const BATCH: usize = 256;
/// … or when its first row has waited this long.
const LINGER: Duration = Duration::from_millis(200);
/// How long the writer sleeps while rows gather; a flush waits this long at most.
const NAP: Duration = Duration::from_millis(20);
/// Dropped rows are reported at most this often.
const REPORT_EVERY: Duration = Duration::from_secs(60);
/// Longest text kept of one field, in bytes. Tags come from clients.
const MAX_TEXT: usize = 512;
/// Largest count kept: sums over the whole ledger must fit 63 bits.
const MAX_COUNT: u64 = 1 << 40;

/// The open ledger. Dropping it writes what is still queued.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    queue: Option<SyncSender<Order>>,
    dropped: Arc<AtomicU64>,
    written: Arc<Written>,
    writer: Option<JoinHandle<()>>,
}

/// What was written last, for whoever sends rows on.
#[derive(Debug, Default)]
struct Written {
    /// The newest row's id.
    newest: AtomicI64,
    /// Told after each batch.
    more: Notify,
}

enum Order {
    Row(Box<Row>),
    Limits(Vec<LimitUse>),
    Export(Progress),
    Flush(SyncSender<()>),
}

impl Ledger {
    /// Opens or creates `ledger.sqlite` in the state directory, which must
    /// exist. A corrupt file is set aside and a new one begun. A disk that is
    /// full must not keep the device from answering: then the ledger opens,
    /// drops and counts rows, and tries again with every batch.
    ///
    /// # Errors
    /// The file cannot be created or read, or a later nearfar wrote it.
    pub fn open(state_dir: &Path) -> Result<Ledger, StoreError> {
        let path = state_dir.join(LEDGER_FILE);
        let connection = match schema::open_writer(&path) {
            Ok(connection) => Some(connection),
            Err(error @ StoreError::Disk { .. }) => {
                tracing::error!("{error}; requests are answered and not accounted");
                None
            }
            Err(error) => return Err(error),
        };
        let (queue, orders) = sync_channel(QUEUE);
        let dropped = Arc::new(AtomicU64::new(0));
        let written = Arc::new(Written::default());
        let known = connection
            .as_ref()
            .and_then(|open| export::state(open).ok());
        let newest = known.map_or(0, |state| state.newest);
        written.newest.store(newest, Ordering::Relaxed);
        let writer = Writer {
            written: Arc::clone(&written),
            path: path.clone(),
            connection,
            dropped: Arc::clone(&dropped),
            reported: 0,
            report_at: Instant::now(),
        };
        let thread = std::thread::Builder::new()
            .name("ledger".to_owned())
            .spawn(move || writer.run(&orders))
            .map_err(|reason| StoreError::File {
                path: path.clone(),
                what: "given a writer thread",
                reason,
            })?;
        Ok(Ledger {
            path,
            queue: Some(queue),
            dropped,
            written,
            writer: Some(thread),
        })
    }

    /// Hands a row to the writer. Never blocks and never fails: a row that
    /// does not fit the queue is dropped and counted.
    pub fn record(&self, row: Row) {
        let Some(queue) = &self.queue else { return };
        if queue.try_send(Order::Row(Box::new(row))).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Hands the figures of budgets to the writer. Never blocks; returns whether
    /// they fit the queue, so that they can be handed over once more.
    pub fn keep_limits(&self, figures: &[LimitUse]) -> bool {
        let order = Order::Limits(figures.to_vec());
        let queue = self.queue.as_ref();
        queue.is_some_and(|queue| queue.try_send(order).is_ok())
    }

    /// The figures of budgets that were kept. Blocks on the disk.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn limits(&self) -> Result<Vec<LimitUse>, StoreError> {
        let connection = schema::open_reader(&self.path)?;
        limits::all(&connection).map_err(|error| schema::failed(&self.path, &error))
    }

    /// Rows lost since the ledger was opened: the queue or the disk was full.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Waits until every row recorded before this call is written or counted
    /// as dropped. Blocks; for the end of a drain, and for tests.
    pub fn flush(&self) {
        let Some(queue) = &self.queue else { return };
        let (done, waiting) = sync_channel(1);
        if queue.send(Order::Flush(done)).is_ok() {
            // An error means that the writer is gone; there is nothing to wait for.
            let _ = waiting.recv();
        }
    }

    /// What was used, grouped as the query says, at most [`super::MAX_LINES`]
    /// lines, most requests first. Blocks on the disk; uses its own read-only
    /// connection.
    ///
    /// # Errors
    /// The file cannot be read, or there are more than [`super::MAX_GROUPS`] groups.
    pub fn usage(&self, query: &UsageQuery) -> Result<Vec<UsageLine>, StoreError> {
        let connection = schema::open_reader(&self.path)?;
        usage::usage(&connection, query).map_err(|why| match why {
            usage::Unanswered::Sqlite(error) => schema::failed(&self.path, &error),
            usage::Unanswered::TooManyGroups => StoreError::TooManyGroups,
        })
    }

    /// The next rows for the fleet's ledger; `known` is what the caller sent
    /// last: the name of the ledger and the last row's id. Blocks on the disk.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn unsent(&self, known: Option<(&str, i64)>) -> Result<Unsent, StoreError> {
        let mut connection = schema::open_reader(&self.path)?;
        export::unsent(&mut connection, known).map_err(|error| schema::failed(&self.path, &error))
    }

    /// Notes that the fleet's ledger has all rows up to this one. Never blocks;
    /// when it is lost, the rows are sent again, which changes nothing there.
    pub fn sent(&self, daemon: &str, id: i64) {
        self.export(Progress::Sent {
            daemon: daemon.to_owned(),
            id,
        });
    }

    /// Notes that this name is another ledger's, so that a new one is drawn.
    pub fn rename(&self, daemon: &str) {
        self.export(Progress::Rename {
            daemon: daemon.to_owned(),
        });
    }

    fn export(&self, progress: Progress) {
        let Some(queue) = &self.queue else { return };
        // A full queue: what is not noted is done once more.
        let _ = queue.try_send(Order::Export(progress));
    }

    /// The newest row's id.
    pub fn newest(&self) -> i64 {
        self.written.newest.load(Ordering::Relaxed)
    }

    /// Resolves once rows were written since the last call.
    pub async fn written(&self) {
        self.written.more.notified().await;
    }

    /// The ledger's file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        // The writer ends when the queue's other end is gone and it is empty.
        self.queue = None;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

struct Writer {
    path: PathBuf,
    /// `None` while the disk does not let us open it.
    connection: Option<Connection>,
    dropped: Arc<AtomicU64>,
    written: Arc<Written>,
    reported: u64,
    report_at: Instant,
}

impl Writer {
    fn run(mut self, orders: &Receiver<Order>) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let more = gather(orders, &mut batch);
            let mut flushed = Vec::new();
            batch.retain_mut(|order| match order {
                Order::Row(_) | Order::Limits(_) | Order::Export(_) => true,
                Order::Flush(done) => {
                    flushed.push(done.clone());
                    false
                }
            });
            self.write(&batch);
            batch.clear();
            for done in flushed {
                let _ = done.try_send(());
            }
            self.report();
            if !more {
                return;
            }
        }
    }

    /// Writes one batch as one transaction; a batch that cannot be written is
    /// dropped and counted.
    fn write(&mut self, batch: &[Order]) {
        if batch.is_empty() {
            return;
        }
        let rows = batch.iter().filter(|order| matches!(order, Order::Row(_)));
        let rows = rows.count() as u64;
        match self.try_write(batch) {
            Ok(newest) => {
                if let Some(newest) = newest {
                    self.written.newest.store(newest, Ordering::Relaxed);
                    self.written.more.notify_one();
                }
            }
            Err(error) => {
                self.dropped.fetch_add(rows, Ordering::Relaxed);
                if Instant::now() >= self.report_at {
                    tracing::error!(rows, "{error}");
                }
            }
        }
    }

    /// A file that turns out to be corrupt is replaced, and the batch goes into
    /// the new one. Returns the id of the batch's last row.
    fn try_write(&mut self, batch: &[Order]) -> Result<Option<i64>, StoreError> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(schema::open_writer(&self.path)?),
        };
        match insert_all(connection, batch) {
            Err(error) if schema::is_corrupt(&error) => {
                self.connection = None;
                schema::set_aside(&self.path, &error.to_string())?;
                let connection = self.connection.insert(schema::open_writer(&self.path)?);
                insert_all(connection, batch)
            }
            result => result,
        }
        .map_err(|error| schema::failed(&self.path, &error))
    }

    fn report(&mut self) {
        let dropped = self.dropped.load(Ordering::Relaxed);
        let now = Instant::now();
        if dropped == self.reported || now < self.report_at {
            return;
        }
        tracing::warn!(
            ledger = %self.path.display(),
            since_last = dropped - self.reported,
            dropped,
            "rows of the ledger were dropped: is the disk full or slow?"
        );
        self.reported = dropped;
        self.report_at = now + REPORT_EVERY;
    }
}

/// Fills a batch. Returns whether more can come.
///
/// While rows gather it sleeps instead of waiting for the next one: a row that
/// has to wake the writer costs the request more than writing it costs.
fn gather(orders: &Receiver<Order>, batch: &mut Vec<Order>) -> bool {
    let Ok(first) = orders.recv() else {
        return false;
    };
    let mut flush = matches!(first, Order::Flush(_));
    batch.push(first);
    let until = Instant::now() + LINGER;
    while !flush && batch.len() < BATCH {
        match orders.try_recv() {
            Ok(order) => {
                flush = matches!(order, Order::Flush(_));
                batch.push(order);
            }
            Err(TryRecvError::Empty) => {
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                std::thread::sleep(left.min(NAP));
            }
            Err(TryRecvError::Disconnected) => return false,
        }
    }
    true
}

fn insert_all(connection: &mut Connection, batch: &[Order]) -> rusqlite::Result<Option<i64>> {
    let mut newest = None;
    let transaction = connection.transaction()?;
    {
        let mut insert = transaction.prepare_cached(
            "INSERT INTO requests (time_ms, decision, tenant, feature, prompt_version,
                conversation, endpoint, model, target, zone, ceiling, ceiling_source, reason,
                outcome, failure, attempts, prompt_tokens, cached_prompt_tokens,
                completion_tokens, reasoning_tokens, cost_micro, ttft_ms, duration_ms, stream,
                saved_micro, key, cache_written_tokens, failed_cost_micro, baseline,
                saved_local_micro)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16,
                ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24, ?25, ?26, ?27, ?28, ?29, ?30)",
        )?;
        let mut insert_leg = transaction.prepare_cached(
            "INSERT INTO failed_legs (request, target, zone, failure, pieces)
             VALUES (?1, ?2, ?3, ?4, ?5)",
        )?;
        for order in batch {
            let row = match order {
                Order::Row(row) => row,
                Order::Limits(figures) => {
                    limits::keep(&transaction, figures)?;
                    continue;
                }
                Order::Export(progress) => {
                    export::note(&transaction, progress)?;
                    continue;
                }
                Order::Flush(_) => continue,
            };
            insert.execute(params![
                row.time_ms,
                text(&row.decision),
                text(&row.tenant),
                text(&row.feature),
                text(&row.prompt_version),
                text(&row.conversation),
                text(&row.endpoint),
                text(&row.model),
                text(&row.target),
                text(&row.zone),
                text(&row.ceiling),
                text(&row.ceiling_source),
                text(&row.reason),
                text(&row.outcome),
                text(&row.failure),
                row.attempts,
                row.prompt_tokens.map(count),
                row.cached_prompt_tokens.map(count),
                row.completion_tokens.map(count),
                row.reasoning_tokens.map(count),
                row.cost_micro.map(count),
                row.ttft_ms.filter(|ms| ms.is_finite()),
                // SQLite stores a NaN as NULL, which the column refuses.
                if row.duration_ms.is_finite() {
                    row.duration_ms
                } else {
                    0.0
                },
                row.stream,
                row.saved_micro.map(count),
                text(&row.key),
                row.cache_written_tokens.map(count),
                row.failed_cost_micro.map(count),
                text(&row.baseline),
                row.saved_local_micro.map(count),
            ])?;
            let request = transaction.last_insert_rowid();
            newest = Some(request);
            for leg in &row.failed_legs {
                insert_leg.execute(params![
                    request,
                    text(&leg.target),
                    text(&leg.zone),
                    text(&leg.failure),
                    count(leg.pieces),
                ])?;
            }
        }
    }
    transaction.commit()?;
    Ok(newest)
}

fn text(field: &str) -> &str {
    &field[..field.floor_char_boundary(MAX_TEXT)]
}

fn count(value: u64) -> i64 {
    value.min(MAX_COUNT) as i64
}
