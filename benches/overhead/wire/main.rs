//! A provider double and a load generator in one process, on the standard
//! library alone. Not shipped; `compare.py` starts it, on one core.
//!
//! Both lie in one process so that both read one clock: every streamed chunk
//! carries the moment at which it was sent, and the load generator sees how long
//! it was on its way. A thread blocks on each connection; nothing polls.
//!
//! It prints `port N` and then takes commands, one a line, on its standard input:
//!
//! ```text
//! set CHUNKS DELAY_US APART|TOGETHER
//! load ADDRESS PATH CONCURRENCY MAX_REQUESTS MAX_MS STREAM|WHOLE MODEL [HEADER: VALUE]…
//! ```
//!
//! `load` answers with one line of JSON. Headers are separated by tabs.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a measuring tool: it opens sockets and starts threads, and a broken run must stop"
)]

mod double;
mod http;
mod load;

use std::io::{BufRead, Write};
use std::sync::atomic::Ordering;

fn main() {
    double::now_ns();
    let port = double::start();
    let mut out = std::io::stdout();
    writeln!(out, "port {port}").unwrap();
    out.flush().unwrap();
    for line in std::io::stdin().lock().lines() {
        let line = line.unwrap();
        let (command, rest) = line.split_once(' ').unwrap_or((&line, ""));
        match command {
            "set" => {
                let words: Vec<&str> = rest.split(' ').collect();
                double::CHUNKS.store(words[0].parse().unwrap(), Ordering::Relaxed);
                double::DELAY_US.store(words[1].parse().unwrap(), Ordering::Relaxed);
                double::APART.store(words[2] == "APART", Ordering::Relaxed);
                writeln!(out, "ok").unwrap();
            }
            "load" => {
                let figures = load::run(&load::Plan::read(rest));
                writeln!(out, "{figures}").unwrap();
            }
            _ => writeln!(out, "unknown command").unwrap(),
        }
        out.flush().unwrap();
    }
}
