//! The tables of the fleet's ledger: made where they are missing and the role
//! may make them.

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::LEDGER_SQL;
use super::connect::told;

/// What this build knows; a later schema has more columns, and takes its rows.
const VERSION: i64 = 1;

/// Two daemons may come to an empty database at once: one of them waits.
const LOCK: &str = "SELECT pg_advisory_xact_lock(7236837110526439)";

/// Has the tables made unless they are there; made again, nothing changes.
///
/// # Errors
/// For people: what to do.
pub(super) async fn ensure(client: &mut Client) -> Result<(), String> {
    let found = client
        .query_one("SELECT max(version) FROM nearfar_schema", &[])
        .await;
    match found {
        Ok(row) if row.get::<_, Option<i64>>(0) >= Some(VERSION) => return Ok(()),
        Ok(_) => {}
        Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => {}
        Err(error) => return Err(told(&error)),
    }
    let made = async {
        let transaction = client.transaction().await?;
        transaction.batch_execute(LOCK).await?;
        transaction.batch_execute(LEDGER_SQL).await?;
        transaction.commit().await
    };
    made.await.map_err(|error: tokio_postgres::Error| {
        let denied = error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE);
        let mend = match denied {
            true => {
                "; this role may not make the tables: have their owner run \
                     `nearfar config fleet-ledger-sql`"
            }
            false => "",
        };
        format!("the tables could not be made: {}{mend}", told(&error))
    })
}
