//! One connection to the server, and the script that counts.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nearfar_domain::frames::{
    SharedCall, SharedEnd, SharedEntry, SharedFigures, SharedOp, SharedSpan,
};
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ConnectionInfo, FromRedisValue, IntoConnectionInfo, Script,
    Value,
};
use secrecy::ExposeSecret;
use tokio::sync::Mutex;

use super::SharedOptions;
use crate::secrets;

/// Name resolution, TCP, TLS and the password.
const CONNECT: Duration = Duration::from_secs(2);
/// One step. The gate waits for a far shorter time.
const ANSWER: Duration = Duration::from_secs(2);
/// A daemon of which nothing was heard for so long gives back what it held.
const ALIVE_MS: u64 = 30_000;

pub(super) struct Valkey {
    options: SharedOptions,
    credentials: Option<PathBuf>,
    script: Script,
    /// Cloned by every call: answers come in the order of the calls.
    connection: Mutex<Option<MultiplexedConnection>>,
}

impl Valkey {
    pub(super) fn new(options: SharedOptions, credentials: Option<&Path>) -> Self {
        Self {
            options,
            credentials: credentials.map(Path::to_owned),
            script: Script::new(include_str!("counters.lua")),
            connection: Mutex::new(None),
        }
    }

    pub(super) async fn call(&self, call: &SharedCall) -> SharedEnd {
        match self.ask(call).await {
            Ok(end) => end,
            Err(message) => SharedEnd::Failed { message },
        }
    }

    async fn ask(&self, call: &SharedCall) -> Result<SharedEnd, String> {
        let mut connection = self.connection(call.op).await?;
        let mut asking = self.script.prepare_invoke();
        // The braces keep all keys of a group together in a cluster.
        let key =
            |kind: char, name: &str| format!("nearfar:{{{}}}:{kind}:{name}", self.options.group);
        asking.key(key('i', &call.instance));
        asking.key(key('n', &call.instance));
        let op = match call.op {
            SharedOp::Reserve => "reserve",
            SharedOp::Settle => "settle",
            SharedOp::Begin => "begin",
        };
        asking
            .arg(op)
            .arg(&call.instance)
            .arg(call.term)
            .arg(call.change)
            .arg(ALIVE_MS);
        for entry in &call.entries {
            asking.key(key('c', &entry.counter));
            argue(&mut asking, entry);
        }
        let answer: Result<Vec<Value>, _> = asking.invoke_async(&mut connection).await;
        match answer {
            Ok(values) => read(values, call.entries.len())
                .ok_or_else(|| "it answered what was not asked".to_owned()),
            Err(error) => {
                if error.is_unrecoverable_error() || error.is_timeout() {
                    *self.connection.lock().await = None;
                }
                Err(told(&error))
            }
        }
    }

    /// The connection of the moment; a `Begin` makes one where there is none, so
    /// that no request ever waits for that.
    async fn connection(&self, op: SharedOp) -> Result<MultiplexedConnection, String> {
        let mut held = self.connection.lock().await;
        if let Some(connection) = &*held {
            return Ok(connection.clone());
        }
        if op != SharedOp::Begin {
            return Err("not connected".to_owned());
        }
        let client = Client::open(self.info()?).map_err(|error| told(&error))?;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT))
            .set_response_timeout(Some(ANSWER));
        let connection = client
            .get_multiplexed_async_connection_with_config(&config)
            .await
            .map_err(|error| told(&error))?;
        *held = Some(connection.clone());
        Ok(connection)
    }

    fn info(&self) -> Result<ConnectionInfo, String> {
        // Valkey's own spelling of the same address.
        let url = self.options.url.replacen("valkey", "redis", 1);
        let info = url
            .as_str()
            .into_connection_info()
            .map_err(|error| told(&error))?;
        let password = secrets::load_any(&self.options.password, self.credentials.as_deref());
        Ok(
            match password.map_err(|why| format!("no password: {why}"))? {
                None => info,
                Some(password) => {
                    let settings = info.redis_settings().clone();
                    let settings = settings.set_password(password.expose_secret());
                    info.set_redis_settings(settings)
                }
            },
        )
    }
}

fn argue(asking: &mut redis::ScriptInvocation<'_>, entry: &SharedEntry) {
    let span = match entry.span {
        SharedSpan::Minute => "m",
        SharedSpan::Held => "h",
        SharedSpan::Day => "d",
        SharedSpan::Month => "o",
    };
    asking
        .arg(span)
        .arg(u8::from(entry.at_once))
        .arg(entry.most)
        .arg(entry.amount)
        .arg(entry.used)
        .arg(entry.taken)
        .arg(entry.given)
        .arg(entry.holds)
        .arg(entry.floor)
        .arg(entry.floor_start_ms);
}

fn read(values: Vec<Value>, entries: usize) -> Option<SharedEnd> {
    let mut values = values.into_iter();
    let verdict = String::from_redis_value(values.next()?).ok()?;
    if verdict == "stale" {
        return Some(SharedEnd::Stale);
    }
    let mut number = || i64::from_redis_value(values.next()?).ok();
    let place = u32::try_from(number()?).ok()?;
    let mut figures = Vec::with_capacity(entries);
    for _ in 0..entries {
        figures.push(SharedFigures {
            used: u64::try_from(number()?).unwrap_or(0),
            held: u64::try_from(number()?).unwrap_or(0),
            start_ms: number()?,
        });
    }
    Some(match verdict.as_str() {
        "denied" => SharedEnd::Denied { place, figures },
        _ => SharedEnd::Done(figures),
    })
}

/// What went wrong, without what was sent.
fn told(error: &redis::RedisError) -> String {
    let text = error.to_string();
    text.chars().filter(|c| !c.is_control()).take(300).collect()
}
