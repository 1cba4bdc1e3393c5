//! A provider double: a real HTTP/1.1 server on loopback that speaks OpenAI,
//! Anthropic, Gemini, Bedrock, Azure and Hugging Face as the real ones look on
//! the wire, and fails on command in every way that a network can.
//!
//! HTTP is written by hand here, because half of what it must do (a reset in
//! the middle of a chunk, a header per second) is what servers are built to
//! prevent.

// Each of its users (the integration tests, egress's own tests, the example
// program) needs a part of it.
#![allow(dead_code, unused_imports, unreachable_pub, clippy::unwrap_used)]

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::task::JoinHandle;

#[path = "double/anthropic.rs"]
mod anthropic;
#[path = "double/bedrock.rs"]
mod bedrock;
#[path = "double/bill.rs"]
mod bill;
#[path = "double/fitting.rs"]
mod fitting;
#[path = "double/gemini.rs"]
mod gemini;
#[path = "double/http.rs"]
mod http;
#[path = "double/hub.rs"]
mod hub;
#[path = "double/openai.rs"]
mod openai;
#[path = "double/repeat.rs"]
mod repeat;
#[path = "double/script.rs"]
mod script;

pub use bill::{Bill, Ending};
pub use script::{Answer, Behaviour, Fault};

/// The server. Stops when dropped.
pub struct Double {
    state: Arc<State>,
    address: SocketAddr,
    accepting: Mutex<Option<JoinHandle<()>>>,
}

/// A request as it came in.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Which connection, counted from 0.
    pub connection: usize,
    pub method: String,
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub at: Instant,
    /// Bytes of the reply that were handed to the socket.
    pub sent: usize,
    /// Whether the client closed before the reply was whole.
    pub closed_early: bool,
    /// Whether the reply is over, in whatever way.
    pub over: bool,
    /// What it was billed for, once it is over and if its words say so.
    pub bill: Option<Bill>,
}

impl Seen {
    /// The header's first value.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// A connection as it was.
#[derive(Clone, Copy, Debug)]
pub struct Connection {
    pub opened: Instant,
    pub closed: Option<Instant>,
}

/// A file that the hub serves.
#[derive(Clone)]
pub(crate) struct File {
    pub(crate) bytes: Arc<Vec<u8>>,
    /// Large files live in the store behind a redirect and name their SHA-256.
    pub(crate) large: bool,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) repeats: AtomicBool,
    pub(crate) queue: Mutex<VecDeque<Behaviour>>,
    pub(crate) always: Mutex<Option<Behaviour>>,
    pub(crate) key: Mutex<Option<String>>,
    /// What it says to every question, as far as it was not said.
    pub(crate) text: Mutex<Option<String>>,
    pub(crate) requests: Mutex<Vec<Seen>>,
    pub(crate) connections: Mutex<Vec<Connection>>,
    pub(crate) files: Mutex<BTreeMap<String, File>>,
    pub(crate) gated: Mutex<BTreeMap<String, String>>,
}

impl Double {
    /// Listens on a free port of the loopback address.
    pub async fn start() -> Double {
        Self::listen("127.0.0.1:0".parse().unwrap()).await
    }

    /// Listens on an address.
    pub async fn listen(address: SocketAddr) -> Double {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        let accepting = tokio::spawn(http::accept(listener, state.clone()));
        Double {
            state,
            address,
            accepting: Mutex::new(Some(accepting)),
        }
    }

    /// For a provider of the OpenAI dialect.
    pub fn openai_base(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// For a provider of the Anthropic dialect.
    pub fn anthropic_base(&self) -> String {
        format!("http://{}", self.address)
    }

    /// For a provider of the Gemini dialect.
    pub fn gemini_base(&self) -> String {
        format!("http://{}/v1beta", self.address)
    }

    /// For a provider of the Bedrock dialect.
    pub fn bedrock_base(&self) -> String {
        format!("http://{}", self.address)
    }

    /// For a provider of the OpenAI dialect with Azure's deployments.
    pub fn azure_base(&self) -> String {
        format!(
            "http://{}/openai/deployments/{{model}}?api-version=2024-10-21",
            self.address
        )
    }

    /// For `HF_ENDPOINT`.
    pub fn hf_endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What the next request that has none yet meets.
    pub fn push(&self, behaviour: impl Into<Behaviour>) {
        self.state.queue.lock().unwrap().push_back(behaviour.into());
    }

    /// What every request meets once the queue is empty.
    pub fn always(&self, behaviour: impl Into<Behaviour>) {
        *self.state.always.lock().unwrap() = Some(behaviour.into());
    }

    /// What it says once the queue is empty: this text, or the rest of it where
    /// a partial turn of the assistant comes last.
    pub fn always_rest_of(&self, text: &str) {
        *self.state.text.lock().unwrap() = Some(text.to_owned());
    }

    /// From now on it repeats what the user or a tool said last, in small pieces.
    pub fn always_repeats(&self) {
        self.state.repeats.store(true, Ordering::Relaxed);
    }

    /// The events of a streamed answer in OpenAI's dialect.
    pub fn openai_events(answer: &Answer) -> Vec<String> {
        let request = serde_json::json!({
            "model": "m", "stream": true, "stream_options": {"include_usage": true}
        });
        match openai::chat(&request, answer).body {
            http::Body::Events(events) => events,
            http::Body::Whole(_) | http::Body::Frames(_) => Vec::new(),
        }
    }

    /// Refuses requests without this key, as the real ones do.
    pub fn require_key(&self, key: &str) {
        *self.state.key.lock().unwrap() = Some(key.to_owned());
    }

    /// Serves a file at `repo/resolve/revision/path`. `large` files redirect to
    /// the store.
    pub fn add_file(&self, repo: &str, revision: &str, path: &str, bytes: Vec<u8>, large: bool) {
        let file = File {
            bytes: Arc::new(bytes),
            large,
        };
        let place = format!("{repo}/resolve/{revision}/{path}");
        self.state.files.lock().unwrap().insert(place, file);
    }

    /// Makes a repository gated: only this token may read it.
    pub fn gate(&self, repo: &str, token: &str) {
        let mut gated = self.state.gated.lock().unwrap();
        gated.insert(repo.to_owned(), token.to_owned());
    }

    /// Every request so far.
    pub fn requests(&self) -> Vec<Seen> {
        self.state.requests.lock().unwrap().clone()
    }

    /// The bills of all requests that are over.
    pub fn bills(&self) -> Vec<Bill> {
        let requests = self.state.requests.lock().unwrap();
        requests.iter().filter_map(|seen| seen.bill).collect()
    }

    /// How many requests are not over.
    pub fn open_requests(&self) -> usize {
        let requests = self.state.requests.lock().unwrap();
        requests.iter().filter(|seen| !seen.over).count()
    }

    /// Every connection so far.
    pub fn connections(&self) -> Vec<Connection> {
        self.state.connections.lock().unwrap().clone()
    }

    /// From now on connections are refused.
    pub async fn refuse(&self) {
        let accepting = self.accepting.lock().unwrap().take();
        if let Some(task) = accepting {
            task.abort();
            let _ = task.await;
        }
    }

    /// Waits until the double has seen something; panics if it never comes.
    pub async fn wait_until(&self, what: &str, seen: impl Fn(&Double) -> bool) {
        let started = Instant::now();
        while !seen(self) {
            assert!(
                started.elapsed() < Duration::from_secs(60),
                "the double never saw: {what}"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Double {
    fn drop(&mut self) {
        if let Some(task) = self.accepting.lock().unwrap().take() {
            task.abort();
        }
    }
}
