//! A road over scripted processes that play the frames over real sockets.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use nearfar_domain::chat::{Chat, Message, Role as Speaker};
use nearfar_domain::events::{Event, Failure, FailureKind, FinishReason, Usage};
use nearfar_domain::frames::{
    self, FromEgress, FromEngine, ModelCard, ModelSource, Priority, ProviderCard, Purpose,
    TimeLimits, ToEgress, ToEngine, VERSION, encode,
};
use nearfar_domain::ids::JobId;
use nearfar_domain::price::Price;
use nearfar_domain::route::Side;
use nearfar_domain::target::{Capabilities, Dialect, RemoteZone};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use crate::account::Books;
use crate::admission::Admission;
use crate::catalog::LocalModel;
use crate::config::{Privacy, Retries};
use crate::execute::Links;
use crate::health::Lengths;
use crate::limits::Limits;
use crate::links::{EgressLink, EngineLink};
use crate::road::{Answer, Asked, Road, RoadError};
use crate::snapshot::View;
use crate::snapshot::parts::PartBoard;
use crate::store::Row;
use crate::telemetry::Metrics;

/// Nothing in these tests takes this long.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// What a scripted process does with one job.
#[derive(Clone)]
pub(super) enum Act {
    /// Sends an event.
    Say(Event),
    /// Closes its link, as a killed process does.
    Die,
}

/// What it heard.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Heard {
    Run(String),
    /// A model, and the part of the answer that it is to go on from.
    GoOn(String, String),
    Cancel,
}

/// The acts for the nth job of a process (0 is the first).
pub(super) type Script = Arc<dyn Fn(usize) -> Vec<Act> + Send + Sync>;

pub(super) fn always(acts: Vec<Act>) -> Script {
    Arc::new(move |_| acts.clone())
}

pub(super) fn content(text: &str) -> Act {
    Act::Say(Event::Content(text.to_owned()))
}

pub(super) fn finish() -> Act {
    Act::Say(Event::Finished {
        reason: FinishReason::Stop,
        usage: Usage {
            prompt: Some(1_000),
            cached_prompt: None,
            cache_written: None,
            cache_written_hour: None,
            completion: Some(500),
            reasoning: None,
        },
    })
}

pub(super) fn fail(kind: FailureKind) -> Act {
    Act::Say(Event::Failed(Failure::new(kind, "as the script says")))
}

pub(super) fn answers() -> Vec<Act> {
    vec![
        Act::Say(Event::Started { model: "m".into() }),
        content("hello"),
        finish(),
    ]
}

pub(super) struct World {
    pub(super) road: Arc<Road>,
    rows: Mutex<mpsc::UnboundedReceiver<Row>>,
    engine_heard: Mutex<mpsc::UnboundedReceiver<Heard>>,
    egress_heard: Mutex<mpsc::UnboundedReceiver<Heard>>,
    engine_tell: mpsc::UnboundedSender<Heard>,
    egress_tell: mpsc::UnboundedSender<Heard>,
}

pub(super) struct Plan {
    pub(super) privacy: Privacy,
    pub(super) guard: crate::config::Guard,
    pub(super) max_requests: usize,
    pub(super) limits: TimeLimits,
    pub(super) retries: Retries,
    pub(super) use_limits: Arc<Limits>,
    pub(super) cache: crate::config::Cache,
    pub(super) local_price: Price,
    pub(super) aliases: crate::config::Aliases,
    pub(super) savings_baseline: Option<nearfar_domain::ids::TargetId>,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            privacy: Privacy::default(),
            guard: crate::config::Guard::default(),
            max_requests: 8,
            limits: TimeLimits::default(),
            retries: Retries::default(),
            use_limits: Limits::new(Vec::new(), 4_096),
            cache: crate::config::Cache::default(),
            local_price: Price::FREE,
            aliases: crate::config::Aliases::new(),
            savings_baseline: None,
        }
    }
}

impl World {
    /// A road whose processes are not there yet.
    pub(super) fn empty(plan: Plan) -> Self {
        let (row, rows) = mpsc::unbounded_channel();
        let (engine_tell, engine_heard) = mpsc::unbounded_channel();
        let (egress_tell, egress_heard) = mpsc::unbounded_channel();
        let engine = EngineLink::new(Box::new(|_, _| {}));
        let egress = EgressLink::new(vec![card()]);
        let health = Arc::default();
        let road = Road {
            admission: Admission::new(plan.max_requests),
            view: View {
                models: Box::new(|| Arc::new(vec![model()])),
                preferred: None,
                memory_bytes: 1 << 30,
                engine: engine.clone(),
                egress: egress.clone(),
                parts: Arc::new(PartBoard::new(Instant::now())),
                health: Arc::clone(&health),
                tariffs: Arc::default(),
                local_price: plan.local_price,
                aliases: plan.aliases,
            },
            links: Links {
                engine,
                egress,
                health,
                metrics: Arc::new(Metrics::new()),
                limits: plan.limits,
                retries: plan.retries,
                use_limits: plan.use_limits,
            },
            lengths: Arc::new(Lengths::default()),
            privacy: plan.privacy,
            guard: Arc::new(crate::guard::Guard::new(plan.guard)),
            cache: Arc::new(crate::cache::Cache::new(plan.cache)),
            books: Books::new(Box::new(move |settled| row.send(settled).unwrap())),
            savings_baseline: plan.savings_baseline,
        };
        Self {
            road: Arc::new(road),
            rows: Mutex::new(rows),
            engine_heard: Mutex::new(engine_heard),
            egress_heard: Mutex::new(egress_heard),
            engine_tell,
            egress_tell,
        }
    }

    /// A road with both processes.
    pub(super) async fn new(engine: Script, egress: Script) -> Self {
        let world = Self::empty(Plan::default());
        world.start_engine(engine, false).await;
        world.start_egress(egress).await;
        world
    }

    /// The same where each leg is tried once.
    pub(super) async fn without_retries(engine: Script, egress: Script) -> Self {
        let world = Self::empty(Plan {
            retries: Retries {
                most: 0,
                ..Retries::default()
            },
            ..Plan::default()
        });
        world.start_engine(engine, false).await;
        world.start_egress(egress).await;
        world
    }

    /// Starts an engine; one that `restarts` comes back after it died, as the
    /// supervisor would have it.
    pub(super) async fn start_engine(&self, script: Script, restarts: bool) {
        let link = self.road.links.engine.clone();
        let tell = self.engine_tell.clone();
        tokio::spawn(async move {
            let mut jobs = 0;
            loop {
                let (ours, theirs) = UnixStream::pair().unwrap();
                link.connect(ours.into_std().unwrap());
                let hello = FromEngine::Hello {
                    version: VERSION,
                    pid: 1,
                };
                let read = |message| match message {
                    ToEngine::Run(job) => Some((job.job, Some((job.model, job.partial)))),
                    ToEngine::Cancel(job) => Some((job, None)),
                    _ => None,
                };
                let event = |job, event| FromEngine::Event { job, event };
                play(theirs, hello, read, event, &script, &mut jobs, &tell).await;
                if !restarts {
                    break;
                }
            }
        });
        self.road.links.engine.newer_than(0).await.unwrap();
    }

    pub(super) async fn start_egress(&self, script: Script) {
        let link = self.road.links.egress.clone();
        let tell = self.egress_tell.clone();
        tokio::spawn(async move {
            let (ours, theirs) = UnixStream::pair().unwrap();
            link.connect(ours.into_std().unwrap());
            let hello = FromEgress::Hello {
                version: VERSION,
                pid: 2,
                providers: vec![card()],
            };
            let read = |message| match message {
                ToEgress::Run(job) => Some((job.job, Some((job.model, job.partial)))),
                ToEgress::Cancel(job) => Some((job, None)),
                _ => None,
            };
            let event = |job, event| FromEgress::Event { job, event };
            play(theirs, hello, read, event, &script, &mut 0, &tell).await;
        });
        while self.road.links.egress.pid().is_none() {
            tokio::task::yield_now().await;
        }
    }

    /// The next settled row.
    pub(super) async fn row(&self) -> Row {
        let received = std::future::poll_fn(|cx| self.rows.lock().unwrap().poll_recv(cx));
        tokio::time::timeout(PATIENCE, received)
            .await
            .unwrap()
            .unwrap()
    }

    /// The row of a request, once its answer was read, if it has one.
    pub(super) async fn row_after(&self, answered: Result<Answer, RoadError>) -> Row {
        if let Ok(answer) = answered {
            read(answer).await;
        }
        self.row().await
    }

    /// Whether no further row was settled.
    pub(super) fn no_more_rows(&self) -> bool {
        self.rows.lock().unwrap().try_recv().is_err()
    }

    pub(super) async fn engine_hears(&self) -> Heard {
        hears(&self.engine_heard).await
    }

    pub(super) async fn egress_hears(&self) -> Heard {
        hears(&self.egress_heard).await
    }

    pub(super) fn egress_heard_nothing(&self) -> bool {
        self.egress_heard.lock().unwrap().try_recv().is_err()
    }

    pub(super) async fn answer(&self, asked: Asked) -> Result<Answer, RoadError> {
        let answer = self.road.answer(asked);
        tokio::time::timeout(PATIENCE, answer).await.unwrap()
    }
}

async fn hears(heard: &Mutex<mpsc::UnboundedReceiver<Heard>>) -> Heard {
    let received = std::future::poll_fn(|cx| heard.lock().unwrap().poll_recv(cx));
    tokio::time::timeout(PATIENCE, received)
        .await
        .unwrap()
        .unwrap()
}

/// Plays one process until its link is closed or it dies.
async fn play<In: DeserializeOwned, Out: Serialize>(
    mut stream: UnixStream,
    hello: Out,
    read: impl Fn(In) -> Option<(JobId, Option<(String, String)>)>,
    event: impl Fn(JobId, Event) -> Out,
    script: &Script,
    jobs: &mut usize,
    tell: &mpsc::UnboundedSender<Heard>,
) {
    let mut reader = frames::Reader::default();
    let mut chunk = vec![0; 4096];
    if stream.write_all(&encode(&hello).unwrap()).await.is_err() {
        return;
    }
    loop {
        while let Some(message) = reader.next_message::<In>().unwrap() {
            let Some((job, run)) = read(message) else {
                continue;
            };
            let Some((model, partial)) = run else {
                let _ = tell.send(Heard::Cancel);
                continue;
            };
            let _ = tell.send(match partial.as_str() {
                "" => Heard::Run(model),
                _ => Heard::GoOn(model, partial),
            });
            let acts = script(*jobs);
            *jobs += 1;
            for act in acts {
                let Act::Say(said) = act else { return };
                let frame = encode(&event(job, said)).unwrap();
                if stream.write_all(&frame).await.is_err() {
                    return;
                }
            }
        }
        match stream.read(&mut chunk).await {
            Ok(read) if read > 0 => reader.push(&chunk[..read]),
            _ => return,
        }
    }
}

pub(super) fn can_all() -> Capabilities {
    Capabilities {
        context_tokens: Some(4096),
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

fn model() -> LocalModel {
    LocalModel {
        name: "small".into(),
        source: ModelSource::Embedded,
        capabilities: can_all(),
        architecture: "qwen3".into(),
        file_bytes: 8_000_000,
        sha256: String::new(),
        embedding: None,
    }
}

fn card() -> ProviderCard {
    ProviderCard {
        name: "far".into(),
        dialect: Dialect::Openai,
        zone: RemoteZone::Cloud,
        ready: true,
        models: vec![ModelCard {
            name: "big".into(),
            capabilities: can_all(),
            price: Some(Price::plain(1_000_000, 500_000, 2_000_000)),
            auto: true,
            prefill: true,
        }],
        open_list: true,
    }
}

/// A plain question for `model`.
pub(super) fn ask(model: &str) -> Asked {
    Asked {
        identity: Arc::default(),
        endpoint: "openai.chat",
        model: model.into(),
        chat: Chat::turns(vec![Message::text(Speaker::User, "hello")]),
        needs: Vec::new(),
        stream: true,
        says: Vec::new(),
        side: Side::Auto,
        target: None,
        deadline_ms: None,
        ttft_ms: None,
        max_cost_micro: None,
        priority: Priority::Interactive,
        purpose: Purpose::Answer,
        feature: Some("kiosk".into()),
        cache: crate::cache::Wish::default(),
        conversation: None,
        prompt_version: None,
    }
}

/// The same, with a privacy tag.
pub(super) fn tagged(model: &str, tag: &str) -> Asked {
    Asked {
        says: vec![nearfar_domain::privacy::read_tag(tag)],
        ..ask(model)
    }
}

/// All events of an answer.
pub(super) async fn read(answer: Answer) -> Vec<Event> {
    let events = answer.events.collect();
    tokio::time::timeout(PATIENCE, events).await.unwrap()
}

pub(super) fn text(events: &[Event]) -> String {
    let texts = events.iter().map(|event| match event {
        Event::Content(text) => text.as_str(),
        _ => "",
    });
    texts.collect()
}

pub(super) fn failed(events: &[Event]) -> Option<FailureKind> {
    match events.last() {
        Some(Event::Failed(failure)) => Some(failure.kind),
        _ => None,
    }
}
