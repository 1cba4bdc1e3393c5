//! The gate's side of a link, in miniature.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use nearfar_domain::chat::{Chat, Message, Role};
use nearfar_domain::events::{Event, Failure};
use nearfar_domain::frames::{
    EgressJob, FromEgress, ModelCard, ProviderCard, Reader, TimeLimits, ToEgress, encode,
};
use nearfar_domain::ids::{DecisionId, JobId, TargetId};
use nearfar_domain::privacy::classify;
use nearfar_domain::route::{Facts, Leg, ModelChoice, Plan, Side, decide};
use nearfar_domain::snapshot::{Health, Latency, Snapshot, TargetState};
use nearfar_domain::target::{Capabilities, Dialect, Place, RemoteZone, Target};
use nearfar_egress::{Auth, KeySource, Options, Provider, habits_at};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::support::double::Double;

/// The key that every test's provider has.
pub(super) const KEY: &str = "sk-test-0123456789";

/// No test waits longer for a frame: it has failed then.
const PATIENCE: Duration = Duration::from_secs(60);

/// Egress with a link, the double, and a folder with the key.
pub(super) struct Rig {
    pub(super) double: Double,
    pub(super) folder: tempfile::TempDir,
    pub(super) links: Option<mpsc::Sender<std::os::unix::net::UnixStream>>,
    pub(super) drain: watch::Sender<bool>,
    pub(super) serving: JoinHandle<std::io::Result<()>>,
    pub(super) link: Link,
    pub(super) cards: Vec<ProviderCard>,
}

/// One link, seen from the gate.
pub(super) struct Link {
    stream: UnixStream,
    reader: Reader,
    next_job: u64,
    /// Events of jobs that nobody has asked for yet.
    early: BTreeMap<JobId, Vec<Event>>,
    pub(super) pongs: Vec<u64>,
    /// Every byte that came.
    pub(super) bytes: Vec<u8>,
}

impl Rig {
    /// Providers `openai` and `anthropic` at the double, with a key in a file;
    /// `keyless` without one; `bare` that needs none.
    pub(super) async fn start() -> Rig {
        Rig::with(Vec::new()).await
    }

    /// The same and OpenAI-compatible providers of these names and base URLs.
    pub(super) async fn with(more: Vec<(&str, String)>) -> Rig {
        let double = Double::start().await;
        double.require_key(KEY);
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("key");
        std::fs::write(&key, format!("{KEY}\n")).unwrap();
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
        let credential = || KeySource::Credential("key".into());
        let provider = |name: &str, dialect, base_url: String, key| Provider {
            name: name.into(),
            preset: None,
            auth: Auth::usual(dialect, &base_url),
            habits: habits_at(&base_url),
            dialect,
            base_url,
            zone: RemoteZone::Cloud,
            key,
            models: vec![ModelCard {
                name: "model-1".into(),
                capabilities: all(),
                price: None,
                auto: true,
                prefill: false,
            }],
            open_list: true,
        };
        let (openai, anthropic) = (double.openai_base(), double.anthropic_base());
        let mut providers = vec![
            provider("openai", Dialect::Openai, openai.clone(), credential()),
            provider("anthropic", Dialect::Anthropic, anthropic, credential()),
            provider(
                "gemini",
                Dialect::Gemini,
                double.gemini_base(),
                credential(),
            ),
            provider(
                "bedrock",
                Dialect::Bedrock,
                double.bedrock_base(),
                credential(),
            ),
            Provider {
                auth: Auth::ApiKey,
                ..provider("azure", Dialect::Openai, double.azure_base(), credential())
            },
            provider(
                "keyless",
                Dialect::Openai,
                openai.clone(),
                KeySource::File(folder.path().join("nothing")),
            ),
            provider("bare", Dialect::Openai, openai, KeySource::None),
        ];
        for (name, base_url) in more {
            providers.push(provider(name, Dialect::Openai, base_url, credential()));
        }
        let options = Options {
            providers,
            credentials_dir: Some(folder.path().to_owned()),
            incoming_dir: folder.path().join("incoming"),
            fleet_ledger: None,
            shared: None,
        };
        let (links, accepted) = mpsc::channel(4);
        let (drain, draining) = watch::channel(false);
        let serving = tokio::spawn(nearfar_egress::serve(accepted, options, draining));
        let mut link = Link::open(&links).await;
        let FromEgress::Hello {
            version, providers, ..
        } = link.frame().await.unwrap()
        else {
            panic!("the first frame must be a hello");
        };
        assert_eq!(version, nearfar_domain::frames::VERSION);
        Rig {
            double,
            folder,
            links: Some(links),
            drain,
            serving,
            link,
            cards: providers,
        }
    }

    /// Asks and waits for the answer.
    pub(super) async fn ask(&mut self, ask: Ask) -> Vec<Event> {
        let job = self.link.begin(ask).await;
        self.link.answer(job).await
    }
}

/// A request to egress.
pub(super) struct Ask {
    pub(super) provider: &'static str,
    pub(super) chat: Chat,
    pub(super) stream: bool,
    pub(super) limits: TimeLimits,
}

impl Ask {
    pub(super) fn of(provider: &'static str, chat: Chat) -> Ask {
        Ask {
            provider,
            chat,
            stream: true,
            limits: TimeLimits::default(),
        }
    }

    pub(super) fn hello(provider: &'static str) -> Ask {
        Ask::of(provider, chat("hello"))
    }

    pub(super) fn whole(mut self) -> Ask {
        self.stream = false;
        self
    }

    pub(super) fn within(mut self, limits: TimeLimits) -> Ask {
        self.limits = limits;
        self
    }
}

pub(super) fn chat(text: &str) -> Chat {
    Chat::turns(vec![Message::text(Role::User, text)])
}

fn all() -> Capabilities {
    Capabilities {
        context_tokens: None,
        tools: true,
        forced_tools: true,
        json_object: true,
        json_schema: true,
        grammar: true,
        vision: true,
        logprobs: true,
        raw_text: true,
        chat: true,
        embeddings: false,
    }
}

/// A job, cleared by a real decision: there is no other way to one.
fn job(id: JobId, ask: Ask) -> EgressJob {
    let target = TargetId::remote(ask.provider, "model-1").unwrap();
    let snapshot = Snapshot {
        targets: vec![TargetState {
            cached_tokens: 0,
            barred: None,
            soft: None,
            target: Target {
                id: target.clone(),
                place: Place::Remote {
                    zone: RemoteZone::Cloud,
                    dialect: Dialect::Openai,
                },
                capabilities: all(),
                price: None,
                auto: true,
            },
            health: Health::Up,
            wait_ms: 0.0,
            latency: Latency {
                ttft_ms: 1.0,
                ms_per_prompt_token: 0.0,
                ms_per_token: 1.0,
                log_sd: 1.0,
            },
        }],
    };
    let facts = Facts {
        id: DecisionId(1),
        prompt_tokens: 1,
        expected_tokens: 1,
        reserved_tokens: 1,
        needs: Vec::new(),
        model: ModelChoice::Named(target),
        scope: std::sync::Arc::default(),
        side: Side::Auto,
        deadline_ms: None,
        ttft_ms: None,
        max_cost_micro: None,
        most_prompt_tokens: 1,
        most_completion_tokens: None,
        writes_cache: false,
    };
    let decision = decide(classify(ask.chat, &[]), &facts, &snapshot)
        .ok()
        .unwrap();
    let Plan::Portable { request, legs } = decision.plan else {
        panic!("nobody confined it");
    };
    let Leg::Remote(leg) = legs.first() else {
        panic!("the only target is remote");
    };
    let cleared = request.clear(leg).unwrap();
    EgressJob::new(id, &cleared, ask.stream, ask.limits)
}

impl Link {
    pub(super) async fn open(links: &mpsc::Sender<std::os::unix::net::UnixStream>) -> Link {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        links.send(theirs).await.unwrap();
        Link {
            stream: UnixStream::from_std(ours).unwrap(),
            reader: Reader::default(),
            next_job: 1,
            early: BTreeMap::new(),
            pongs: Vec::new(),
            bytes: Vec::new(),
        }
    }

    pub(super) async fn send(&mut self, message: &ToEgress) {
        self.stream
            .write_all(&encode(message).unwrap())
            .await
            .unwrap();
    }

    /// Sends a job and does not wait.
    pub(super) async fn begin(&mut self, ask: Ask) -> JobId {
        let id = JobId(self.next_job);
        self.next_job += 1;
        self.send(&ToEgress::Run(Box::new(job(id, ask)))).await;
        id
    }

    /// The next frame; `None` when egress closed the link.
    pub(super) async fn frame(&mut self) -> Option<FromEgress> {
        let mut buffer = vec![0; 16 << 10];
        loop {
            if let Some(frame) = self.reader.next_message().unwrap() {
                return Some(frame);
            }
            let read = self.stream.read(&mut buffer);
            let count = tokio::time::timeout(PATIENCE, read)
                .await
                .expect("no frame came")
                .unwrap_or(0);
            if count == 0 {
                return None;
            }
            self.bytes.extend_from_slice(&buffer[..count]);
            self.reader.push(&buffer[..count]);
        }
    }

    /// All events of a job up to its last; what belongs to others is kept.
    pub(super) async fn answer(&mut self, wanted: JobId) -> Vec<Event> {
        loop {
            let mine = self.early.entry(wanted).or_default();
            if mine.last().is_some_and(Event::is_last) {
                return std::mem::take(mine);
            }
            self.take_frame().await;
        }
    }

    /// Waits for a job's first visible event.
    pub(super) async fn first(&mut self, wanted: JobId) {
        while !self
            .early
            .get(&wanted)
            .is_some_and(|events| events.iter().any(Event::is_visible))
        {
            self.take_frame().await;
        }
    }

    pub(super) async fn take_frame(&mut self) {
        match self.frame().await.expect("the link is open") {
            FromEgress::Event { job, event } => {
                let events = self.early.entry(job).or_default();
                assert!(
                    !events.last().is_some_and(Event::is_last),
                    "{event:?} after the last event of {job:?}"
                );
                events.push(event);
            }
            FromEgress::Pong(number) => self.pongs.push(number),
            FromEgress::Hello { .. }
            | FromEgress::Download { .. }
            | FromEgress::Ledger { .. }
            | FromEgress::Shared { .. } => {
                panic!("out of place")
            }
        }
    }
}

/// Text, reasoning and the last event.
pub(super) fn told(events: &[Event]) -> (String, String) {
    let (mut text, mut thought) = (String::new(), String::new());
    for event in events {
        match event {
            Event::Content(piece) => text.push_str(piece),
            Event::Reasoning(piece) => thought.push_str(piece),
            _ => {}
        }
    }
    (text, thought)
}

/// Calls as (id, name, arguments), checked for order on the way.
pub(super) fn calls(events: &[Event]) -> Vec<(String, String, String)> {
    let mut calls: Vec<(String, String, String)> = Vec::new();
    for event in events {
        if let Event::ToolCall(delta) = event {
            let at = delta.index as usize;
            if at == calls.len() {
                let (id, name) = (delta.id.clone().unwrap(), delta.name.clone().unwrap());
                calls.push((id, name, String::new()));
            } else {
                assert!(delta.id.is_none() && delta.name.is_none(), "named twice");
            }
            calls[at].2.push_str(&delta.arguments);
        }
    }
    calls
}

pub(super) fn failure(events: &[Event]) -> &Failure {
    match events.last() {
        Some(Event::Failed(failure)) => failure,
        other => panic!("not a failure: {other:?}"),
    }
}

pub(super) fn limits(connect: u64, first_byte: u64, idle: u64, total: u64) -> TimeLimits {
    TimeLimits {
        connect_ms: connect,
        first_byte_ms: first_byte,
        idle_ms: idle,
        total_ms: total,
    }
}
