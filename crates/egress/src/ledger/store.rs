//! One batch, one transaction.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nearfar_domain::frames::{LedgerBatch, LedgerEnd, LedgerRow};
use tokio::sync::Mutex;

use super::connect::{self, Connection, told};
use super::{LedgerOptions, schema};

/// One batch, from its first byte to the server's word that it is on its disk.
const STORE: Duration = Duration::from_secs(30);

/// Rows come as one JSON text, so that a statement has few parameters and is
/// prepared once, whatever the number of rows. `$1` is the daemon, `$2` the
/// device, `$3` the rows.
const INSERT: &str = "
WITH given AS (
    SELECT * FROM jsonb_to_recordset($3::text::jsonb) AS r(
        id bigint, time_ms bigint, decision text, tenant text, key text, feature text,
        prompt_version text, conversation text, endpoint text, model text, target text,
        zone text, ceiling text, ceiling_source text, reason text, outcome text, failure text,
        attempts bigint, prompt_tokens bigint, cached_prompt_tokens bigint,
        completion_tokens bigint, reasoning_tokens bigint, cost_micro bigint,
        saved_micro bigint, cache_written_tokens bigint, failed_cost_micro bigint,
        baseline text, saved_local_micro bigint, ttft_ms double precision, duration_ms double precision,
        stream boolean, failed_legs jsonb)
), stored AS (
    INSERT INTO nearfar_requests (daemon, device, id, time_ms, decision, tenant, key, feature,
        prompt_version, conversation, endpoint, model, target, zone, ceiling, ceiling_source,
        reason, outcome, failure, attempts, prompt_tokens, cached_prompt_tokens,
        completion_tokens, reasoning_tokens, cost_micro, saved_micro,
        cache_written_tokens, failed_cost_micro, baseline, saved_local_micro, ttft_ms,
        duration_ms, stream)
    SELECT $1, $2, id, time_ms, decision, tenant, key, feature,
        prompt_version, conversation, endpoint, model, target, zone, ceiling, ceiling_source,
        reason, outcome, failure, attempts, prompt_tokens, cached_prompt_tokens,
        completion_tokens, reasoning_tokens, cost_micro, saved_micro,
        cache_written_tokens, failed_cost_micro, baseline, saved_local_micro, ttft_ms,
        duration_ms, stream
    FROM given
    ON CONFLICT DO NOTHING
    RETURNING id
), legs AS (
    INSERT INTO nearfar_failed_legs (daemon, request, leg, target, zone, failure, pieces)
    SELECT $1, given.id, leg.number, leg.said ->> 'target', leg.said ->> 'zone',
        leg.said ->> 'failure', (leg.said ->> 'pieces')::bigint
    FROM stored JOIN given USING (id),
        jsonb_array_elements(given.failed_legs) WITH ORDINALITY AS leg(said, number)
    ON CONFLICT DO NOTHING
)
SELECT count(*) FROM stored";

/// How many of the rows are there as they were given.
const SAME: &str = "
SELECT count(*) FROM nearfar_requests AS r
JOIN jsonb_to_recordset($2::text::jsonb) AS g(id bigint, time_ms bigint, decision text)
ON r.daemon = $1 AND r.id = g.id AND r.time_ms = g.time_ms AND r.decision = g.decision";

/// A server may be set to answer before a transaction is on its disk: not for us.
const DURABLE: &str = "SELECT set_config('synchronous_commit', 'on', true)
    WHERE current_setting('synchronous_commit') = 'off'";

pub(super) struct Store {
    options: LedgerOptions,
    credentials: Option<PathBuf>,
    /// Held by the batch that is being stored: rows keep their order.
    connection: Mutex<Option<Connection>>,
}

impl Store {
    pub(super) fn new(options: LedgerOptions, credentials: Option<&Path>) -> Self {
        Self {
            options,
            credentials: credentials.map(Path::to_owned),
            connection: Mutex::new(None),
        }
    }

    pub(super) async fn store(&self, batch: &LedgerBatch) -> LedgerEnd {
        let mut held = self.connection.lock().await;
        // Taken out while it is in use: a batch that is given up in the middle
        // takes its connection with it, whose state nobody knows.
        let open = held.take().filter(|open| !open.client.is_closed());
        let stored = tokio::time::timeout(STORE, self.over(open, batch)).await;
        match stored {
            Ok(Ok((end, connection))) => {
                *held = Some(connection);
                end
            }
            Ok(Err(message)) => LedgerEnd::Failed { message },
            Err(_) => LedgerEnd::Failed {
                message: format!("nothing was stored within {} s", STORE.as_secs()),
            },
        }
    }

    async fn over(
        &self,
        open: Option<Connection>,
        batch: &LedgerBatch,
    ) -> Result<(LedgerEnd, Connection), String> {
        let mut connection = match open {
            Some(connection) => connection,
            None => {
                let mut fresh = connect::connect(&self.options, &self.credentials).await?;
                schema::ensure(&mut fresh.client).await?;
                fresh
            }
        };
        let end = insert(&mut connection, &self.options.device, batch).await?;
        Ok((end, connection))
    }
}

async fn insert(
    connection: &mut Connection,
    device: &str,
    batch: &LedgerBatch,
) -> Result<LedgerEnd, String> {
    let text = rows(&batch.rows)?;
    let client = &mut connection.client;
    let work = async {
        let transaction = client.transaction().await?;
        transaction.query(DURABLE, &[]).await?;
        let given: [&(dyn tokio_postgres::types::ToSql + Sync); 3] =
            [&batch.daemon, &device, &text];
        let stored: i64 = transaction.query_one(INSERT, &given).await?.get(0);
        if stored < batch.rows.len() as i64 {
            // Some were there. Their own daemon sent them before, or another
            // one has its name.
            let given: [&(dyn tokio_postgres::types::ToSql + Sync); 2] = [&batch.daemon, &text];
            let same: i64 = transaction.query_one(SAME, &given).await?.get(0);
            if same < batch.rows.len() as i64 {
                transaction.rollback().await?;
                return Ok(LedgerEnd::Taken);
            }
        }
        transaction.commit().await?;
        Ok(LedgerEnd::Stored)
    };
    work.await
        .map_err(|error: tokio_postgres::Error| told(&error))
}

/// Postgres takes no NUL in a text, and one row must not stop all others.
fn rows(rows: &[LedgerRow]) -> Result<String, String> {
    let text = serde_json::to_string(rows).map_err(|error| error.to_string())?;
    Ok(match text.contains("\\u0000") {
        true => without_nul(&text),
        false => text,
    })
}

/// Replaces `\u0000` in a JSON text, but not where its backslash is itself
/// escaped.
fn without_nul(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        clean.push_str(&rest[..at]);
        rest = &rest[at..];
        let length = match rest.starts_with("\\u0000") {
            true => {
                clean.push('\u{fffd}');
                6
            }
            false => {
                // A backslash is followed by one ASCII character, always.
                clean.push_str(&rest[..2]);
                2
            }
        };
        rest = &rest[length..];
    }
    clean.push_str(rest);
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nul_is_replaced_and_what_looks_like_one_is_not() {
        let said = ["a\0b", "a\\u0000b", "\\\0", "\"\n\0"];
        let Ok(text) = serde_json::to_string(&said) else {
            panic!("texts are JSON");
        };
        let read: Result<Vec<String>, _> = serde_json::from_str(&without_nul(&text));
        assert_eq!(
            read.ok().as_deref(),
            Some(["a\u{fffd}b", "a\\u0000b", "\\\u{fffd}", "\"\n\u{fffd}"].map(String::from))
                .as_ref()
                .map(|all| &all[..])
        );
    }
}
