//! The load generator: so many clients, each with a connection that it keeps,
//! each with its next request as soon as its last one is answered.

use std::fmt::Write as _;
use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::double::{CHUNKS, now_ns};
use crate::http::{Chunked, Connection, find, header};

/// What is asked, where and how often.
pub(crate) struct Plan {
    address: String,
    path: String,
    concurrency: usize,
    max_requests: u64,
    max_time: Duration,
    stream: bool,
    model: String,
    headers: Vec<String>,
}

impl Plan {
    /// Reads the words of a `load` command.
    pub(crate) fn read(words: &str) -> Self {
        let mut parts = words.split('\t');
        let mut words = parts.next().unwrap().split(' ').map(str::to_owned);
        let mut word = || words.next().unwrap();
        Self {
            address: word(),
            path: word(),
            concurrency: word().parse().unwrap(),
            max_requests: word().parse().unwrap(),
            max_time: Duration::from_millis(word().parse().unwrap()),
            stream: word() == "STREAM",
            model: word(),
            headers: parts.map(str::to_owned).collect(),
        }
    }

    /// About 1.2 KB, the same for all but for the model's name.
    fn request(&self) -> Vec<u8> {
        let system =
            "You are the assistant of a guest house. Answer in whole sentences. ".repeat(6);
        let question = "When is breakfast, and may the dog come in? ".repeat(12);
        let usage = if self.stream {
            ",\"stream_options\":{\"include_usage\":true}"
        } else {
            ""
        };
        let body = format!(
            "{{\"model\":\"{}\",\"messages\":[{{\"role\":\"system\",\"content\":\"{system}\"}},\
             {{\"role\":\"user\",\"content\":\"{question}\"}}],\"temperature\":0.7,\
             \"max_tokens\":256,\"stream\":{}{usage}}}",
            self.model, self.stream
        );
        let mut text = format!(
            "POST {} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\naccept: */*\r\n\
             user-agent: overhead\r\ncontent-length: {}\r\n",
            self.path,
            self.address,
            body.len()
        );
        for header in &self.headers {
            let _ = write!(text, "{header}\r\n");
        }
        text += "\r\n";
        text += &body;
        text.into_bytes()
    }
}

/// Samples in nanoseconds.
#[derive(Default)]
struct Samples {
    latency: Vec<u64>,
    /// To the first content.
    ttft: Vec<u64>,
    /// How long each content chunk was on its way.
    chunk: Vec<u64>,
    /// Between two content chunks.
    gap: Vec<u64>,
    failed: u64,
    connections: u64,
    problem: String,
}

/// Runs a plan. Returns its samples as JSON.
pub(crate) fn run(plan: &Plan) -> String {
    let request = plan.request();
    let left = AtomicU64::new(plan.max_requests);
    let end = Instant::now() + plan.max_time;
    let began = Instant::now();
    let all: Vec<Samples> = std::thread::scope(|scope| {
        let client = || client(plan, &request, &left, end);
        let clients: Vec<_> = (0..plan.concurrency).map(|_| scope.spawn(client)).collect();
        clients.into_iter().map(|c| c.join().unwrap()).collect()
    });
    let seconds = began.elapsed().as_secs_f64();
    let mut whole = Samples::default();
    for one in all {
        whole.latency.extend(one.latency);
        whole.ttft.extend(one.ttft);
        whole.chunk.extend(one.chunk);
        whole.gap.extend(one.gap);
        whole.failed += one.failed;
        whole.connections += one.connections;
        if !one.problem.is_empty() {
            whole.problem = one.problem;
        }
    }
    format!(
        "{{\"seconds\":{seconds},\"latency\":{:?},\"ttft\":{:?},\"chunk\":{:?},\"gap\":{:?},\
         \"failed\":{},\"connections\":{},\"problem\":{:?}}}",
        whole.latency,
        whole.ttft,
        whole.chunk,
        whole.gap,
        whole.failed,
        whole.connections,
        // Rust's escapes of other characters are not JSON's.
        whole
            .problem
            .replace(|c: char| !(' '..='~').contains(&c), " ")
    )
}

fn client(plan: &Plan, request: &[u8], left: &AtomicU64, end: Instant) -> Samples {
    let mut samples = Samples::default();
    let mut kept: Option<Connection> = None;
    let take = |n: u64| n.checked_sub(1);
    while Instant::now() < end
        && left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
            .is_ok()
    {
        let mut connection = kept.take().unwrap_or_else(|| {
            samples.connections += 1;
            Connection::new(TcpStream::connect(&plan.address).unwrap())
        });
        match one(plan, request, &mut connection, &mut samples) {
            Ok(true) => kept = Some(connection),
            Ok(false) => {}
            Err(problem) => {
                samples.failed += 1;
                samples.problem = problem;
                if samples.failed > 20 {
                    break;
                }
            }
        }
    }
    samples
}

/// One request and its answer; whether the connection may be used again.
fn one(
    plan: &Plan,
    request: &[u8],
    connection: &mut Connection,
    samples: &mut Samples,
) -> Result<bool, String> {
    let began = now_ns();
    let gone = || "the connection ended".to_owned();
    connection
        .stream
        .write_all(request)
        .map_err(|e| e.to_string())?;
    let head = connection.head().ok_or_else(gone)?;
    let mut body = Vec::with_capacity(32 << 10);
    let length = header(&head, "content-length").map(|length| length.parse().unwrap());
    let chunked = header(&head, "transfer-encoding").is_some();
    let mut cutter = Chunked::default();
    let mut stamps = Stamps::default();
    loop {
        if chunked {
            cutter.take(&mut connection.buffer, &mut body);
        } else {
            body.append(&mut connection.buffer);
        }
        if plan.stream {
            stamps.read(&body, began, samples);
        }
        if cutter.over || length.is_some_and(|length: usize| body.len() >= length) {
            break;
        }
        if !connection.more() {
            if chunked || length.is_some() {
                return Err(gone());
            }
            break;
        }
    }
    let took = now_ns() - began;
    let text = || String::from_utf8_lossy(&body[..body.len().min(400)]).into_owned();
    if !head.contains(" 200 ") {
        return Err(format!(
            "{} {}",
            head.lines().next().unwrap_or_default(),
            text()
        ));
    }
    if !plan.stream {
        stamps.read(&body, began, &mut Samples::default());
    }
    let ended = !plan.stream || find(&body, b"[DONE]").is_some();
    if stamps.count != CHUNKS.load(Ordering::Relaxed) || !ended {
        return Err(format!(
            "the answer is not whole ({} chunks): {}",
            stamps.count,
            text()
        ));
    }
    samples.latency.push(took);
    let closes = header(&head, "connection").is_some_and(|c| c.eq_ignore_ascii_case("close"));
    Ok((chunked || length.is_some()) && !closes)
}

/// Finds the moments that the double wrote into its chunks.
#[derive(Default)]
struct Stamps {
    seen: usize,
    count: u64,
    last: u64,
}

impl Stamps {
    fn read(&mut self, body: &[u8], began: u64, samples: &mut Samples) {
        let now = now_ns();
        while let Some(at) = body[self.seen..].iter().position(|byte| *byte == b'@') {
            let from = self.seen + at;
            let Some(stamp) = body.get(from + 1..from + 17) else {
                return;
            };
            let digits = std::str::from_utf8(&stamp[..15]).unwrap_or_default();
            let Ok(sent) = digits.parse::<u64>() else {
                self.seen = from + 1;
                continue;
            };
            self.seen = from + 17;
            samples.chunk.push(now - sent);
            if self.count == 0 {
                samples.ttft.push(now - began);
            } else {
                samples.gap.push(now - self.last);
            }
            self.count += 1;
            self.last = now;
        }
        self.seen = body.len().max(self.seen);
    }
}
