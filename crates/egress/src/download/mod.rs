//! Model files from Hugging Face (or a mirror), into the folder for incoming
//! files: resumed, bounded, checked, and visible under their name only when whole.
//!
//! `source` says where a file is and what its server answers; `part` is the
//! unfinished file on disk. What is not here: the model store, which takes a
//! finished file over.
#![allow(clippy::disallowed_methods, reason = "the hub and its token")]

mod part;
mod source;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nearfar_domain::frames::{Download, DownloadEvent};
use secrecy::SecretString;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::client::Clients;
use crate::emit::{Emitter, Gone, until_cancelled};
use crate::provider::KeySource;
use crate::secrets;
use part::Part;
use source::{Head, Source};

/// How often progress is told.
const PROGRESS: Duration = Duration::from_millis(250);
/// A server that sends nothing for so long is tried again.
const IDLE: Duration = Duration::from_secs(60);
/// Name resolution, TCP and TLS.
const CONNECT_MS: u64 = 10_000;
/// Tries without a byte of progress before giving up.
const MAX_TRIES: u32 = 4;
/// Downloads at a time.
const MAX_AT_ONCE: usize = 2;
/// Name of the credential with a token for gated repositories.
const TOKEN_CREDENTIAL: &str = "hf_token";

/// What all downloads share.
pub(crate) struct Downloads {
    incoming: PathBuf,
    endpoint: String,
    token: Option<SecretString>,
    clients: Clients,
    /// Files that are being fetched now, by name.
    busy: Mutex<BTreeSet<String>>,
    room: tokio::sync::Semaphore,
}

/// Why a download, or one try of it, ended.
pub(crate) enum Trouble {
    /// The connection: worth another try.
    Broke(String),
    /// Known to fail again now.
    Fatal { message: String, retryable: bool },
    /// The gate is gone.
    Gone,
}

impl Trouble {
    fn fatal(message: impl Into<String>) -> Self {
        Trouble::Fatal {
            message: message.into(),
            retryable: false,
        }
    }

    fn later(message: impl Into<String>) -> Self {
        Trouble::Fatal {
            message: message.into(),
            retryable: true,
        }
    }
}

impl From<Gone> for Trouble {
    fn from(_: Gone) -> Self {
        Trouble::Gone
    }
}

impl Downloads {
    /// Reads `HF_ENDPOINT` and the token: the credential `hf_token`, else `HF_TOKEN`.
    pub(crate) fn new(incoming: PathBuf, credentials: Option<&Path>) -> Self {
        let credential = KeySource::Credential(TOKEN_CREDENTIAL.to_owned());
        let variable = KeySource::Env("HF_TOKEN".to_owned());
        let token = secrets::load(&credential, credentials)
            .or_else(|_| secrets::load(&variable, None))
            .ok()
            .flatten();
        let endpoint = std::env::var("HF_ENDPOINT")
            .ok()
            .filter(|url| !url.trim().is_empty())
            .unwrap_or_else(|| "https://huggingface.co".to_owned());
        Self::from(endpoint, token, incoming)
    }

    fn from(endpoint: String, token: Option<SecretString>, incoming: PathBuf) -> Self {
        Self {
            incoming,
            endpoint,
            token,
            clients: Clients::default(),
            busy: Mutex::default(),
            room: tokio::sync::Semaphore::new(MAX_AT_ONCE),
        }
    }

    /// Fetches a file to its end, and says so.
    pub(crate) async fn run(&self, download: Download, emit: &Emitter, token: CancellationToken) {
        let name = download.save_as.clone();
        if !self.claim(&name) {
            let message = format!("{name} is being downloaded already");
            report(emit, Trouble::later(message)).await;
            return;
        }
        let work = async {
            let Ok(_permit) = self.room.acquire().await else {
                return;
            };
            if let Err(trouble) = self.fetch(&download, emit).await {
                report(emit, trouble).await;
            }
        };
        if until_cancelled(work, token.cancelled()).await {
            report(
                emit,
                Trouble::later("cancelled; what was fetched stays for the next try"),
            )
            .await;
        }
        self.release(&name);
    }

    fn claim(&self, name: &str) -> bool {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        busy.insert(name.to_owned())
    }

    fn release(&self, name: &str) {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        busy.remove(name);
    }

    async fn fetch(&self, download: &Download, emit: &Emitter) -> Result<(), Trouble> {
        let source = Source::new(&self.endpoint, self.token.clone(), download)?;
        let folder = self.folder(&download.into)?;
        let client = self.clients.get(CONNECT_MS).map_err(|error| {
            Trouble::fatal(format!("the HTTP client cannot be set up: {error}"))
        })?;
        let mut part = Part::open(folder, &download.save_as).await?;
        let mut tries = 0;
        loop {
            let before = part.len();
            match self
                .attempt(&client, &source, &mut part, download, emit)
                .await
            {
                Ok(head) => return finish(part, download, &head, emit).await,
                Err(Trouble::Broke(message)) => {
                    part.flush().await?;
                    tries = if part.len() > before { 1 } else { tries + 1 };
                    if tries >= MAX_TRIES {
                        return Err(Trouble::later(format!(
                            "{message}; what was fetched stays for the next try"
                        )));
                    }
                    tracing::info!(
                        file = download.save_as,
                        tries,
                        "a download broke off; resuming"
                    );
                    sleep(Duration::from_millis(500) * tries).await;
                }
                Err(trouble) => {
                    // What is on disk is complete up to here.
                    let _ = part.flush().await;
                    return Err(trouble);
                }
            }
        }
    }

    /// The folder, if it is the one that downloads may go to.
    fn folder(&self, into: &str) -> Result<PathBuf, Trouble> {
        std::fs::create_dir_all(&self.incoming).map_err(|error| {
            Trouble::fatal(format!(
                "cannot create {}: {error}",
                self.incoming.display()
            ))
        })?;
        let real = |path: &Path| path.canonicalize().ok();
        match (real(Path::new(into)), real(&self.incoming)) {
            (Some(asked), Some(allowed)) if asked == allowed => Ok(allowed),
            _ => Err(Trouble::fatal(format!(
                "downloads may only go to {}",
                self.incoming.display()
            ))),
        }
    }

    /// One connection: goes on where the file on disk ends.
    async fn attempt(
        &self,
        client: &reqwest::Client,
        source: &Source,
        part: &mut Part,
        download: &Download,
        emit: &Emitter,
    ) -> Result<Head, Trouble> {
        let mut head = source.request(client, part.len()).await?;
        if part.len() > 0 && !head.continues(part) {
            // Another version, or a server that does not resume.
            part.reset().await?;
            if head.from != 0 || head.beyond {
                head = source.request(client, 0).await?;
            }
        }
        check_size(&head, download)?;
        part.remember(&head.version).await?;
        let Some(mut response) = head.response.take() else {
            // The server says that nothing is missing.
            return Ok(head);
        };
        let progress = |part: &Part| DownloadEvent::Progress {
            have: part.len(),
            total: head.total,
        };
        emit.download(progress(part)).await?;
        let mut told = Instant::now();
        loop {
            let piece = match timeout(IDLE, response.chunk()).await {
                Ok(Ok(Some(piece))) => piece,
                Ok(Ok(None)) => break,
                Ok(Err(_)) => return Err(Trouble::Broke("the connection broke off".to_owned())),
                Err(_) => {
                    return Err(Trouble::Broke(
                        "the server sent nothing for a minute".to_owned(),
                    ));
                }
            };
            let room = download.max_bytes.min(head.total.unwrap_or(u64::MAX));
            if part.len() + piece.len() as u64 > room {
                let trouble = Trouble::fatal(format!("the file is longer than {room} bytes"));
                part.discard().await;
                return Err(trouble);
            }
            part.write(&piece).await?;
            if told.elapsed() >= PROGRESS {
                told = Instant::now();
                emit.download(progress(part)).await?;
            }
        }
        if head.total.is_some_and(|total| part.len() < total) {
            return Err(Trouble::Broke("the connection broke off".to_owned()));
        }
        emit.download(progress(part)).await?;
        Ok(head)
    }
}

fn check_size(head: &Head, download: &Download) -> Result<(), Trouble> {
    if let Some(total) = head.total.filter(|total| *total > download.max_bytes) {
        return Err(Trouble::fatal(format!(
            "the file has {total} bytes, over the limit of {}",
            download.max_bytes
        )));
    }
    match (&download.sha256, &head.sha256) {
        (Some(pinned), Some(there)) if !pinned.eq_ignore_ascii_case(there) => {
            Err(Trouble::fatal(format!(
                "the server has another file than the one that is pinned: its SHA-256 is {there}, \
                 {pinned} was expected"
            )))
        }
        _ => Ok(()),
    }
}

/// Checks the whole file and gives it its name.
async fn finish(
    mut part: Part,
    download: &Download,
    head: &Head,
    emit: &Emitter,
) -> Result<(), Trouble> {
    let resumed = part.resumed();
    let sha256 = part.digest();
    let expected = download.sha256.as_ref().or(head.sha256.as_ref());
    if let Some(expected) = expected
        && !expected.eq_ignore_ascii_case(&sha256)
    {
        part.discard().await;
        return Err(Trouble::Fatal {
            message: format!(
                "the file is not what it should be: its SHA-256 is {sha256}, {expected} was \
                 expected; it was deleted"
            ),
            // A part of an older try may have been the wrong one.
            retryable: resumed,
        });
    }
    let verified = expected.is_some();
    let bytes = part.len();
    part.publish().await?;
    emit.download(DownloadEvent::Finished {
        sha256,
        bytes,
        verified,
    })
    .await?;
    Ok(())
}

async fn report(emit: &Emitter, trouble: Trouble) {
    let (message, retryable) = match trouble {
        Trouble::Gone => return,
        Trouble::Broke(message) => (message, true),
        Trouble::Fatal { message, retryable } => (message, retryable),
    };
    // A gate that is gone needs no report.
    let _ = emit
        .download(DownloadEvent::Failed { message, retryable })
        .await;
}

#[cfg(test)]
mod tests;
