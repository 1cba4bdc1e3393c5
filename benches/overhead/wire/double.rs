//! The provider's double: OpenAI's chat completions, whole and streamed, in the
//! bytes that OpenAI sends.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::http::Connection;

/// Content chunks of a streamed answer.
pub(crate) static CHUNKS: AtomicU64 = AtomicU64::new(64);
/// The pause before each content chunk but the first.
pub(crate) static DELAY_US: AtomicU64 = AtomicU64::new(0);
/// Whether each chunk is written by itself; else all of an answer at once.
pub(crate) static APART: AtomicBool = AtomicBool::new(true);

/// Nanoseconds since the process first asked.
pub(crate) fn now_ns() -> u64 {
    static BEGAN: OnceLock<Instant> = OnceLock::new();
    u64::try_from(BEGAN.get_or_init(Instant::now).elapsed().as_nanos()).unwrap()
}

/// Starts the double on a free port of the loopback.
pub(crate) fn start() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || serve(stream));
        }
    });
    port
}

/// Serves one connection until its client leaves.
fn serve(stream: TcpStream) {
    let mut connection = Connection::new(stream);
    while let Some((_, body)) = connection.request() {
        let text = String::from_utf8_lossy(&body);
        let streamed = text.contains("\"stream\":true") || text.contains("\"stream\": true");
        let sent = if streamed {
            stream_answer(&mut connection.stream, text.contains("include_usage"))
        } else {
            whole_answer(&mut connection.stream)
        };
        if sent.is_err() {
            return;
        }
    }
}

const HEAD: &str = "\"created\":1764000000,\"model\":\"double-2026-01-01\",\"service_tier\":\"default\",\"system_fingerprint\":\"fp_0123456789\"";
const USAGE: &str = "{\"prompt_tokens\":180,\"completion_tokens\":64,\"total_tokens\":244,\"prompt_tokens_details\":{\"cached_tokens\":0,\"audio_tokens\":0},\"completion_tokens_details\":{\"reasoning_tokens\":0,\"audio_tokens\":0,\"accepted_prediction_tokens\":0,\"rejected_prediction_tokens\":0}}";

fn whole_answer(stream: &mut TcpStream) -> std::io::Result<()> {
    let moment = format!("@{:015}@", now_ns());
    let text = moment.repeat(usize::try_from(CHUNKS.load(Ordering::Relaxed)).unwrap());
    let body = format!(
        "{{\"id\":\"chatcmpl-0123456789abcdef0123456789\",\"object\":\"chat.completion\",{HEAD},\
         \"choices\":[{{\"index\":0,\"message\":{{\"role\":\"assistant\",\"content\":\"{text}\",\
         \"refusal\":null,\"annotations\":[]}},\"logprobs\":null,\"finish_reason\":\"stop\"}}],\
         \"usage\":{USAGE}}}"
    );
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-request-id: req_1\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes())
}

fn chunk(delta: &str, finish: &str, usage: &str) -> String {
    let data = format!(
        "data: {{\"id\":\"chatcmpl-0123456789abcdef0123456789\",\"object\":\"chat.completion.chunk\",\
         {HEAD},\"choices\":[{{\"index\":0,\"delta\":{delta},\"logprobs\":null,\
         \"finish_reason\":{finish}}}]{usage}}}\n\n"
    );
    format!("{:x}\r\n{data}\r\n", data.len())
}

fn stream_answer(stream: &mut TcpStream, usage: bool) -> std::io::Result<()> {
    let none = if usage { ",\"usage\":null" } else { "" };
    let role = chunk("{\"role\":\"assistant\",\"content\":\"\"}", "null", none);
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n\
                x-request-id: req_1\r\ncache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n";
    let mut waiting = head.to_owned() + &role;
    let delay = Duration::from_micros(DELAY_US.load(Ordering::Relaxed));
    for count in 0..CHUNKS.load(Ordering::Relaxed) {
        if APART.load(Ordering::Relaxed) {
            stream.write_all(waiting.as_bytes())?;
            waiting.clear();
            if count > 0 && !delay.is_zero() {
                std::thread::sleep(delay);
            }
        }
        let delta = format!("{{\"content\":\"@{:015}@\"}}", now_ns());
        waiting += &chunk(&delta, "null", none);
    }
    let mut end = waiting + &chunk("{}", "\"stop\"", none);
    if usage {
        let data = format!(
            "data: {{\"id\":\"chatcmpl-0123456789abcdef0123456789\",\
             \"object\":\"chat.completion.chunk\",{HEAD},\"choices\":[],\"usage\":{USAGE}}}\n\n"
        );
        end += &format!("{:x}\r\n{data}\r\n", data.len());
    }
    end += "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n";
    stream.write_all(end.as_bytes())
}
