//! The links to the gate: frames in, jobs run side by side, frames out.
#![allow(
    clippy::disallowed_methods,
    reason = "where keys are, and base URLs for development"
)]

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use nearfar_domain::events::{Event, Failure, FailureKind};
use nearfar_domain::frames::{
    EgressJob, FrameError, FromEgress, ProviderCard, Reader, ToEgress, VERSION, encode_into,
};
use nearfar_domain::ids::JobId;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::auth::Auth;
use crate::client::Clients;
use crate::download::Downloads;
use crate::emit::{Emitter, until_cancelled};
use crate::exchange::Upstream;
use crate::google::Tokens;
use crate::job;
use crate::ledger::FleetLedger;
use crate::provider::{Options, Provider};
use crate::secrets::{Key, base_url_from};
use crate::shared::Counters;
use crate::socket::{self, Incoming, Outgoing};
use crate::{presets, provider::KeySource};

/// Frames that wait for the gate; a full queue slows every job of the link.
const QUEUE: usize = 32;
/// Jobs of one link at a time.
const MAX_JOBS: usize = 512;
/// Bytes that are gathered into one write.
const WRITE_BYTES: usize = 64 << 10;
/// A reader that has held a longer frame is replaced, to give its memory back.
const READER_BYTES: usize = 1 << 20;

/// What all jobs share.
struct Shared {
    upstreams: Vec<Upstream>,
    clients: Clients,
    downloads: Downloads,
    ledger: FleetLedger,
    counters: Counters,
}

/// Serves links to the gate until `links` is closed and the last link ended,
/// or until `drain` turns true and the last job ended.
///
/// # Errors
/// None at present: a link that breaks ends alone.
pub async fn serve(
    mut links: mpsc::Receiver<std::os::unix::net::UnixStream>,
    options: Options,
    drain: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let shared = Arc::new(Shared::new(options));
    let mut open = JoinSet::new();
    let mut draining = drain.clone();
    loop {
        tokio::select! {
            link = links.recv() => match link {
                Some(link) => {
                    open.spawn(run_link(shared.clone(), link, drain.clone()));
                }
                None => break,
            },
            Some(_) = open.join_next(), if !open.is_empty() => {}
            () = turned_true(&mut draining) => break,
        }
    }
    while open.join_next().await.is_some() {}
    Ok(())
}

/// Resolves once the flag is true; never when its owner is gone without that.
async fn turned_true(flag: &mut watch::Receiver<bool>) {
    if flag.wait_for(|set| *set).await.is_err() {
        std::future::pending::<()>().await;
    }
}

impl Shared {
    fn new(options: Options) -> Self {
        let directory = options
            .credentials_dir
            .or_else(|| std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from));
        let upstreams = options
            .providers
            .into_iter()
            .map(|mut provider| {
                point_elsewhere(&mut provider, |name| std::env::var(name).ok());
                warn_of_plain_http(&provider);
                let key = Key::read(&provider.key, directory.as_deref(), &provider.name);
                Upstream {
                    provider,
                    key,
                    tokens: Tokens::default(),
                }
            })
            .collect();
        Self {
            upstreams,
            clients: Clients::default(),
            downloads: Downloads::new(options.incoming_dir, directory.as_deref()),
            ledger: FleetLedger::new(options.fleet_ledger, directory.as_deref()),
            counters: Counters::new(options.shared, directory.as_deref()),
        }
    }

    fn upstream(&self, name: &str) -> Option<&Upstream> {
        self.upstreams.iter().find(|u| u.provider.name == name)
    }

    fn cards(&self) -> Vec<ProviderCard> {
        self.upstreams
            .iter()
            .map(|Upstream { provider, key, .. }| ProviderCard {
                name: provider.name.clone(),
                dialect: provider.dialect,
                zone: provider.zone,
                ready: key.ready(),
                models: provider.models.clone(),
                open_list: provider.open_list,
            })
            .collect()
    }
}

/// Lets `OPENAI_BASE_URL` and its like move a preset whose key comes from the
/// environment too. A base URL that somebody configured stays.
fn point_elsewhere(provider: &mut Provider, environment: impl Fn(&str) -> Option<String>) {
    let untouched = presets::preset(&provider.name)
        .is_some_and(|preset| preset.base_url == provider.base_url && preset.key == provider.key);
    if untouched && let Some(url) = base_url_from(&provider.key, environment) {
        tracing::info!(
            provider = provider.name,
            "the base URL comes from the environment"
        );
        provider.auth = Auth::usual(provider.dialect, &url);
        provider.habits = presets::habits_at(&url);
        provider.base_url = url;
    }
}

fn warn_of_plain_http(provider: &Provider) {
    let Some(rest) = provider.base_url.strip_prefix("http://") else {
        return;
    };
    let loopback = ["127.", "localhost", "[::1]"]
        .iter()
        .any(|host| rest.starts_with(host));
    if !loopback && provider.key != KeySource::None {
        tracing::warn!(
            provider = provider.name,
            "its key and every prompt travel unencrypted: use https in its base_url"
        );
    }
}

async fn run_link(
    shared: Arc<Shared>,
    link: std::os::unix::net::UnixStream,
    drain: watch::Receiver<bool>,
) {
    let (mut incoming, outgoing) = match socket::split(link) {
        Ok(halves) => halves,
        Err(error) => {
            tracing::error!(%error, "a link to the gate cannot be used");
            return;
        }
    };
    let (frames, queue) = mpsc::channel(QUEUE);
    let mut writer = JoinSet::new();
    writer.spawn(write_frames(outgoing, queue));
    let mut link = Link {
        frames,
        shared,
        jobs: JoinSet::new(),
        tasks: HashMap::new(),
        running: HashMap::new(),
        draining: false,
        pong: None,
    };
    let hello = FromEgress::Hello {
        version: VERSION,
        pid: std::process::id(),
        providers: link.shared.cards(),
    };
    if link.frames.send(hello).await.is_ok()
        && let Err(error) = link.run(&mut incoming, drain).await
    {
        tracing::warn!(%error, "the link to the gate broke");
    }
    // Jobs without a gate are of no use: dropping them closes their connections.
    link.jobs.shutdown().await;
    drop(link);
    writer.join_next().await;
}

struct Link {
    frames: mpsc::Sender<FromEgress>,
    shared: Arc<Shared>,
    jobs: JoinSet<()>,
    tasks: HashMap<tokio::task::Id, JobId>,
    running: HashMap<JobId, CancellationToken>,
    draining: bool,
    pong: Option<u64>,
}

/// Why a link is of no use any more.
#[derive(Debug, thiserror::Error)]
enum LinkError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl Link {
    async fn run(
        &mut self,
        incoming: &mut Incoming,
        mut drain: watch::Receiver<bool>,
    ) -> Result<(), LinkError> {
        let mut reader = Reader::default();
        let mut held = 0;
        let mut buffer = vec![0; WRITE_BYTES];
        let frames = self.frames.clone();
        loop {
            if self.draining && self.jobs.is_empty() && self.pong.is_none() {
                return Ok(());
            }
            tokio::select! {
                read = incoming.read(&mut buffer) => {
                    let count = read?;
                    if count == 0 {
                        return Ok(reader.finish()?);
                    }
                    reader.push(&buffer[..count]);
                    held += count;
                    while let Some(message) = reader.next_message()? {
                        self.take(message);
                    }
                    if reader.finish().is_ok() {
                        if held > READER_BYTES {
                            reader = Reader::default();
                        }
                        held = 0;
                    }
                }
                Some(ended) = self.jobs.join_next_with_id(), if !self.jobs.is_empty() => {
                    self.ended(ended);
                }
                // Asked for beside reading, so that a slow gate still gets its
                // cancellations read.
                permit = frames.reserve(), if self.pong.is_some() => {
                    let Ok(permit) = permit else { return Ok(()) };
                    if let Some(number) = self.pong.take() {
                        permit.send(FromEgress::Pong(number));
                    }
                }
                () = frames.closed() => return Ok(()),
                () = turned_true(&mut drain), if !self.draining => self.draining = true,
            }
        }
    }

    fn take(&mut self, message: ToEgress) {
        match message {
            ToEgress::Run(job) => self.start(*job),
            ToEgress::Cancel(job) => {
                // A job that is not there has ended: its last event is on its way.
                if let Some(token) = self.running.get(&job) {
                    token.cancel();
                }
            }
            ToEgress::Download(download) => {
                let (job, shared) = (download.job, self.shared.clone());
                let emit = self.emitter(job);
                let Some(token) = self.token(job) else { return };
                self.spawn(job, async move {
                    shared.downloads.run(download, &emit, token).await;
                });
            }
            ToEgress::Ledger(batch) => {
                let (job, shared) = (batch.job, self.shared.clone());
                let emit = self.emitter(job);
                let Some(token) = self.token(job) else { return };
                self.spawn(job, async move {
                    let work = async {
                        let end = shared.ledger.store(&batch).await;
                        // A gate that is gone sends the rows again.
                        let _ = emit.ledger(end).await;
                    };
                    until_cancelled(work, token.cancelled()).await;
                });
            }
            ToEgress::Shared(call) => {
                let (job, shared) = (call.job, self.shared.clone());
                let emit = self.emitter(job);
                let Some(token) = self.token(job) else { return };
                self.spawn(job, async move {
                    let work = async {
                        let end = shared.counters.call(&call).await;
                        // A gate that is gone asks for nothing any more.
                        let _ = emit.shared(end).await;
                    };
                    until_cancelled(work, token.cancelled()).await;
                });
            }
            ToEgress::Ping(number) => self.pong = Some(number),
        }
    }

    fn start(&mut self, job: EgressJob) {
        let (id, shared, emit) = (job.job, self.shared.clone(), self.emitter(job.job));
        if let Some(failure) = self.refusal(&job) {
            self.spawn(id, async move {
                // A gate that is gone needs no refusal.
                let _ = emit.event(Event::Failed(failure)).await;
            });
            return;
        }
        let Some(token) = self.token(id) else { return };
        self.spawn(id, async move {
            let Some(upstream) = shared.upstream(&job.provider) else {
                return;
            };
            let work = job::run(job, upstream, &shared.clients, &emit);
            if until_cancelled(work, token.cancelled()).await {
                let failure = Failure::new(FailureKind::Cancelled, "the request was cancelled");
                let _ = emit.event(Event::Failed(failure)).await;
            }
        });
    }

    /// Why a job is not even begun.
    fn refusal(&self, job: &EgressJob) -> Option<Failure> {
        if self.shared.upstream(&job.provider).is_none() {
            return Some(Failure::new(
                FailureKind::ModelMissing,
                format!("there is no provider called {}", job.provider),
            ));
        }
        if self.draining {
            return Some(Failure::new(
                FailureKind::Overloaded,
                "nearfar is stopping; try again in a moment",
            ));
        }
        (self.jobs.len() >= MAX_JOBS).then(|| {
            Failure::new(
                FailureKind::Overloaded,
                format!("{MAX_JOBS} remote requests are under way, which is the limit"),
            )
        })
    }

    fn emitter(&self, job: JobId) -> Emitter {
        Emitter::new(job, self.frames.clone())
    }

    /// A token to cancel a new job with; `None` for an id that is in use, whose
    /// events could not be told apart.
    fn token(&mut self, job: JobId) -> Option<CancellationToken> {
        if self.running.contains_key(&job) {
            tracing::error!(job = job.0, "the gate used a job's id twice");
            return None;
        }
        let token = CancellationToken::new();
        self.running.insert(job, token.clone());
        Some(token)
    }

    fn spawn(&mut self, job: JobId, work: impl Future<Output = ()> + Send + 'static) {
        let task = self.jobs.spawn(work);
        self.tasks.insert(task.id(), job);
    }

    fn ended(&mut self, ended: Result<(tokio::task::Id, ()), tokio::task::JoinError>) {
        let (task, broke) = match ended {
            Ok((task, ())) => (task, false),
            Err(error) => (error.id(), error.is_panic()),
        };
        let Some(job) = self.tasks.remove(&task) else {
            return;
        };
        self.running.remove(&job);
        if broke {
            // The gate must not wait for a job that died of a mistake of ours.
            let emit = self.emitter(job);
            self.spawn(job, async move {
                let failure = Failure::new(FailureKind::Internal, "egress made a mistake");
                let _ = emit.event(Event::Failed(failure)).await;
            });
        }
    }
}

/// Writes frames as they come, several at once when they wait.
async fn write_frames(mut outgoing: Outgoing, mut queue: mpsc::Receiver<FromEgress>) {
    let mut bytes = Vec::new();
    while let Some(frame) = queue.recv().await {
        bytes.clear();
        let mut next = Some(frame);
        while let Some(frame) = next {
            if let Err(error) = encode_into(&frame, &mut bytes) {
                tracing::error!(%error, "a frame cannot be written; closing the link");
                return;
            }
            next = if bytes.len() < WRITE_BYTES {
                queue.try_recv().ok()
            } else {
                None
            };
        }
        if outgoing.write_all(&bytes).await.is_err() {
            return;
        }
        bytes.shrink_to(WRITE_BYTES);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn moved(mut provider: Provider) -> String {
        point_elsewhere(&mut provider, |name| match name {
            "OPENAI_BASE_URL" => Some(" http://127.0.0.1:9/v1 ".to_owned()),
            "ANTHROPIC_BASE_URL" => Some(String::new()),
            _ => None,
        });
        provider.base_url
    }

    #[test]
    fn the_environment_moves_presets_that_take_their_key_from_there() {
        let openai = presets::preset("openai").unwrap();
        assert_eq!(moved(openai.clone()), "http://127.0.0.1:9/v1");
        let anthropic = presets::preset("anthropic").unwrap();
        assert_eq!(
            moved(anthropic),
            "https://api.anthropic.com",
            "empty is unset"
        );
        let groq = presets::preset("groq").unwrap();
        assert_eq!(moved(groq.clone()), groq.base_url);
        let configured = Provider {
            base_url: "https://proxy.example/v1".into(),
            ..openai.clone()
        };
        assert_eq!(moved(configured), "https://proxy.example/v1");
        let from_a_file = Provider {
            key: KeySource::Credential("openai".into()),
            ..openai.clone()
        };
        assert_eq!(moved(from_a_file), openai.base_url);
    }
}
