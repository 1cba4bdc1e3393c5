//! Runs a case: a daemon with providers, the client's request, the judgement.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::runtime::Runtime;

use super::Ending;
use super::cases::{Case, Legs, TEXT};
use super::clients::Saw;
use crate::support::daemon::{Daemon, DaemonOptions};
use crate::support::double::{Answer, Double, Fault};
use crate::support::http2::Http2;
use crate::support::wire;

const CHAT: &str = "/v1/chat/completions";
/// Long enough for a busy machine, short enough for those that run into them.
const LIMITS: &str = "[limits]\nconnect = \"4s\"\nfirst_byte = \"4s\"\nidle = \"4s\"\n";

/// A line of the table.
pub(super) struct Row {
    pub(super) fault: &'static str,
    pub(super) saw: String,
    pub(super) attempts: String,
    pub(super) took: Duration,
}

/// What all cases share.
pub(super) struct Run<'a> {
    runtime: &'a Runtime,
    logs: std::sync::Mutex<String>,
}

/// A case's providers.
struct Providers {
    first: Arc<Double>,
    second: Arc<Double>,
    http2: Option<Http2>,
    config: String,
    env: Vec<(String, String)>,
}

impl<'a> Run<'a> {
    pub(super) fn start(runtime: &'a Runtime) -> Self {
        Self {
            runtime,
            logs: std::sync::Mutex::default(),
        }
    }

    /// Everything that the daemons said.
    pub(super) fn log(&self) -> String {
        self.logs.lock().unwrap().clone()
    }

    pub(super) fn case(&self, case: &Case) -> Row {
        let providers = self.providers(case);
        let mut options = DaemonOptions::default().config(&providers.config);
        options.env.extend(providers.env.iter().cloned());
        let daemon = Daemon::start(options);
        // The engine is no part of this; egress is, and nothing is timed before.
        daemon.until("providers", || {
            let (_, body) = daemon.try_get("/v1/models")?;
            body.contains("first/").then_some(())
        });
        let mut took = Duration::ZERO;
        let mut saw = Saw::default();
        for _ in 0..case.requests {
            let began = Instant::now();
            let reply = wire::post(
                daemon.address(),
                CHAT,
                &[("x-nearfar-route", "remote")],
                &body(case),
            );
            took = took.max(began.elapsed());
            saw = Saw::of(&reply);
            judge(case, &saw);
        }
        self.logs.lock().unwrap().push_str(&daemon.log());
        Row {
            fault: case.fault,
            attempts: attempts(case, &providers),
            saw: saw.words(),
            took,
        }
    }

    fn providers(&self, case: &Case) -> Providers {
        let start = || Arc::new(self.runtime.block_on(Double::start()));
        let (first, second) = (start(), start());
        let last = case.first.len().saturating_sub(1);
        for (number, behaviour) in case.first.iter().enumerate() {
            if case.for_ever && number == last {
                first.always(behaviour.clone());
            } else {
                first.push(behaviour.clone());
            }
        }
        if !case.for_ever {
            // What it says when it is well: the rest of an answer, too.
            first.always_rest_of(TEXT);
        }
        match case.legs {
            Legs::TwoAndOneRefuses => second.always(Fault::status(400)),
            _ => second.always_rest_of(TEXT),
        }
        let mut http2 = None;
        let mut env = Vec::new();
        let goes_on = matches!(case.legs, Legs::OneThatGoesOn | Legs::Anthropic);
        let first_base = match case.legs {
            Legs::Elsewhere("https") => first.openai_base().replace("http:", "https:"),
            Legs::Elsewhere(base) => base.to_owned(),
            Legs::Http2 => {
                let events = Double::openai_events(&Answer::text(TEXT));
                let server = self.runtime.block_on(Http2::start(events));
                env.push(("SSL_CERT_FILE".to_owned(), Http2::authority()));
                http2.insert(server).base()
            }
            Legs::Anthropic => first.anthropic_base(),
            _ => first.openai_base(),
        };
        let dialect = match case.legs {
            Legs::Anthropic => "anthropic",
            _ => "openai",
        };
        let mut config = format!(
            "{LIMITS}{}",
            provider("first", dialect, &first_base, "site", goes_on)
        );
        if matches!(
            case.legs,
            Legs::Two | Legs::TwoThatGoOn | Legs::TwoAndOneRefuses
        ) {
            let goes_on = case.legs != Legs::Two;
            config.push_str(&provider(
                "second",
                "openai",
                &second.openai_base(),
                "cloud",
                goes_on,
            ));
        }
        Providers {
            first,
            second,
            http2,
            config,
            env,
        }
    }
}

/// Both have a model of the same name. The nearer one comes first.
fn provider(name: &str, dialect: &str, base: &str, zone: &str, goes_on: bool) -> String {
    format!(
        "[providers.{name}]\ndialect = \"{dialect}\"\nbase_url = \"{base}\"\nzone = \"{zone}\"\n\
         [[providers.{name}.models]]\nname = \"m\"\ntools = true\njson_schema = true\n\
         prefill = {goes_on}\n"
    )
}

fn body(case: &Case) -> String {
    let mut body = json!({
        "model": "auto",
        "messages": [{"role": "user", "content": "When is breakfast?"}],
    });
    for (name, value) in case.body.as_object().unwrap() {
        body[name] = value.clone();
    }
    body.to_string()
}

fn attempts(case: &Case, providers: &Providers) -> String {
    if let Some(http2) = &providers.http2 {
        assert_eq!(http2.requests(), 2, "{}", case.fault);
        return "2".to_owned();
    }
    let (first, second) = (
        providers.first.requests().len(),
        providers.second.requests().len(),
    );
    if let Some(expected) = case.attempts {
        assert_eq!((first, second), expected, "{}", case.fault);
    }
    match (case.legs, second) {
        (Legs::Elsewhere(_), _) => "no request got through".to_owned(),
        (_, 0) => first.to_string(),
        _ => format!("{first} + {second}"),
    }
}

/// The rule of the table.
fn judge(case: &Case, saw: &Saw) {
    let fault = case.fault;
    match case.ends {
        Ending::Whole => {
            assert_eq!((saw.status, &saw.error), (200, &None), "{fault}: {saw:?}");
            assert_eq!(saw.text, case.expected, "{fault}");
            assert_eq!(saw.finishes.len(), 1, "{fault}: {saw:?}");
            let stream = case.body["stream"] == true;
            assert_eq!(saw.done, usize::from(stream), "{fault}: {saw:?}");
        }
        Ending::Error(status) => {
            assert_eq!(saw.status, status, "{fault}: {saw:?}");
            assert!(
                saw.error.is_some() && saw.text.is_empty(),
                "{fault}: {saw:?}"
            );
        }
        // A resolver without a network may take its time.
        Ending::Unreached => {
            assert!(matches!(saw.status, 502 | 504), "{fault}: {saw:?}");
            assert!(
                saw.error.is_some() && saw.text.is_empty(),
                "{fault}: {saw:?}"
            );
        }
        Ending::ErrorInBand => {
            assert_eq!(saw.status, 200, "{fault}: {saw:?}");
            assert!(saw.error.is_some(), "{fault}: {saw:?}");
            assert!(saw.finishes.is_empty() && saw.done == 0, "{fault}: {saw:?}");
            assert!(!saw.text.is_empty() || saw.calls > 0, "{fault}: {saw:?}");
        }
    }
}
