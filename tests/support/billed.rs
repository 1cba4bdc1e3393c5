//! A crowd of clients at a real daemon, whose provider double counts what it
//! bills: for the tests and the bench of limits.
#![allow(dead_code, clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use super::daemon::{Daemon, DaemonOptions};
use super::double::{Bill, Double, Ending, Fault};

/// What a prompt's token costs, in micro-units, and an answer's. Whole numbers,
/// so that nothing is rounded.
pub const PROMPT_MICRO: u64 = 1;
pub const COMPLETION_MICRO: u64 = 2;

/// A daemon whose one provider counts.
pub struct Rig {
    pub double: Double,
    pub daemon: Daemon,
    /// Runs the double; goes last.
    runtime: tokio::runtime::Runtime,
}

/// Starts both. `limits` is the configuration's part about limits.
pub fn rig(limits: &str) -> Rig {
    let runtime = super::runtime();
    let double = runtime.block_on(Double::start());
    let daemon = Daemon::start(DaemonOptions::default().config(&config(&double, limits)));
    daemon.wait_ready();
    Rig {
        double,
        daemon,
        runtime,
    }
}

/// A configuration with the double as the provider `far`.
pub fn config(double: &Double, limits: &str) -> String {
    format!(
        "[server]\nmax_requests = 256\nmax_connections = 512\n{limits}\n[providers.far]\n\
         base_url = \"{}\"\n[[providers.far.models]]\nname = \"m\"\n\
         price = {{ prompt = {PROMPT_MICRO}.0, completion = {COMPLETION_MICRO}.0 }}\n",
        double.openai_base()
    )
}

/// One request.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    pub prompt: u64,
    pub completion: u64,
    /// More than `completion`.
    pub max_tokens: u64,
    pub stream: bool,
    /// Goes away after the first piece of a slow, long answer.
    pub cancel: bool,
}

impl Asked {
    /// The nth of a mixture that is the same in every run.
    pub fn nth(number: usize, seed: u64) -> Self {
        let mut state = (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ seed;
        let mut below = |most: u64| {
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            state.wrapping_mul(0x2545_f491_4f6c_dd1d) % most
        };
        let completion = 6 + below(20);
        Self {
            prompt: 20 + below(60),
            completion,
            max_tokens: completion + below(30),
            stream: below(10) < 6,
            cancel: false,
        }
    }

    /// The same, cancelled in the middle.
    pub fn cancelled(self) -> Self {
        Self {
            completion: 3_000,
            max_tokens: 3_000,
            stream: true,
            cancel: true,
            ..self
        }
    }

    fn body(&self) -> String {
        let slowly = if self.cancel { "slowly " } else { "" };
        // Two bytes for a token: what nearfar takes to be the worst.
        let filler = "x ".repeat(self.prompt as usize);
        json!({
            "model": "far/m",
            "stream": self.stream,
            "max_tokens": self.max_tokens,
            "messages": [{"role": "user",
                "content": format!("bill {} {} {slowly}{filler}", self.prompt, self.completion)}],
        })
        .to_string()
    }

    /// The most tokens that nearfar may reserve for it.
    pub fn reserve(&self) -> u64 {
        self.prompt + 64 + self.max_tokens
    }

    /// Sends it on a connection of its own. Returns the status and the head and
    /// body, as far as they were read.
    pub fn send(&self, to: SocketAddr, feature: &str) -> std::io::Result<(u16, String)> {
        let body = self.body();
        let mut connection = TcpStream::connect(to)?;
        connection.set_read_timeout(Some(Duration::from_secs(120)))?;
        write!(
            connection,
            "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
             x-nearfar-feature: {feature}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut reader = BufReader::new(connection);
        let mut text = String::new();
        reader.read_line(&mut text)?;
        let status = text.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.ok_or_else(|| std::io::Error::other("no status"))?;
        if self.cancel && status == 200 {
            while !text.contains("tick ") && reader.read_line(&mut text)? > 0 {}
            return Ok((status, text));
        }
        // A stream that breaks off ends somehow; what was read counts.
        let mut rest = Vec::new();
        let _ = reader.read_to_end(&mut rest);
        text.push_str(&String::from_utf8_lossy(&rest));
        Ok((status, text))
    }
}

/// How a crowd's requests ended, by status.
#[derive(Debug, Default)]
pub struct Crowd {
    pub answered: AtomicUsize,
    pub limited: AtomicUsize,
    pub failed: AtomicUsize,
}

impl Rig {
    /// So many clients send so many requests, as `ask` says of each number.
    pub fn crowd(
        &self,
        clients: usize,
        requests: usize,
        feature: &str,
        ask: impl Fn(usize) -> Asked + Sync,
    ) -> Crowd {
        let (next, crowd) = (AtomicUsize::new(0), Crowd::default());
        let to = self.daemon.address();
        std::thread::scope(|scope| {
            for _ in 0..clients {
                scope.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= requests {
                            return;
                        }
                        let count = match ask(number).send(to, feature) {
                            Ok((200, _)) => &crowd.answered,
                            Ok((429, _)) => &crowd.limited,
                            _ => &crowd.failed,
                        };
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        crowd
    }

    /// Makes about `percent` of the next `requests` meet a fault.
    pub fn faults(&self, requests: usize, percent: usize) {
        let faults = [
            Fault::Cut {
                after: 3,
                reset: false,
            },
            Fault::Cut {
                after: 4,
                reset: true,
            },
            Fault::ResetBeforeHeaders,
            Fault::CloseBeforeHeaders,
            Fault::status(500),
            Fault::status(503),
            Fault::End { after: 4 },
            Fault::ErrorEvent { after: 3 },
            Fault::BadEvent { after: 3 },
            Fault::EmptyBody,
        ];
        let mut met = 0;
        for number in 0..requests {
            // Spread, so that the breaker stays shut.
            let fault = if (number + 1) * percent / 100 > met {
                met += 1;
                faults[met % faults.len()].clone()
            } else {
                Fault::None
            };
            self.double.push(fault);
        }
    }

    /// Every limit's counter, once nothing is under way any more.
    pub fn settled(&self) -> Vec<Value> {
        self.daemon.until("the end of all requests", || {
            let limits = self.limits();
            let idle = limits.iter().all(|limit| limit["reserved"] == 0);
            (idle && self.double.open_requests() == 0).then_some(limits)
        })
    }

    /// Every limit's counter.
    pub fn limits(&self) -> Vec<Value> {
        let (status, body) = self.daemon.control("/admin/v1/limits");
        assert_eq!(status, 200, "{body}");
        let body: Value = serde_json::from_str(&body).unwrap();
        body["limits"].as_array().unwrap().clone()
    }

    /// Lines of the ledger by outcome.
    pub fn ledger(&self) -> Vec<Value> {
        let (status, body) = self.daemon.control("/admin/v1/usage?by=outcome");
        assert_eq!(status, 200, "{body}");
        let body: Value = serde_json::from_str(&body).unwrap();
        body["lines"].as_array().unwrap().clone()
    }
}

/// Sums over bills.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    pub legs: u64,
    pub tokens: u64,
    pub micro: u64,
}

/// The sum of those bills that ended so.
pub fn sum(bills: &[Bill], ending: Ending) -> Sum {
    let mut sum = Sum::default();
    for bill in bills.iter().filter(|bill| bill.ending == ending) {
        sum.legs += 1;
        sum.tokens += bill.prompt + bill.completion;
        sum.micro += bill.prompt * PROMPT_MICRO + bill.completion * COMPLETION_MICRO;
    }
    sum
}

/// What a reconciliation found.
#[derive(Debug)]
pub struct Reconciled {
    pub told: Sum,
    pub untold: Sum,
    pub refused: Sum,
    /// Used without what was estimated: tokens, micro-units.
    pub known: [u64; 2],
    /// Estimated: tokens, micro-units.
    pub estimated: [u64; 2],
    /// Tokens of answers that ended well, in the ledger.
    pub ledger_tokens: u64,
    /// Requests in the ledger, by outcome.
    pub rows: Vec<(String, u64)>,
}

/// The limits that [`reconcile`] reads.
pub const WIDE: &str = "[limits]\nretries = 1\nretry_pause = \"1s\"\n\
    [[limit]]\nname = \"tokens\"\ntokens_per_day = 1_000_000_000_000\n\
    [[limit]]\nname = \"money\"\nspend_micro_per_day = 1_000_000_000_000\n";

/// Sends `requests` with faults and cancels, and gathers both sides' counts.
pub fn reconcile(clients: usize, requests: usize) -> Reconciled {
    let rig = rig(WIDE);
    rig.faults(requests, 6);
    rig.crowd(clients, requests, "reconcile", |number| {
        let asked = Asked::nth(number, 7);
        match number % 12 {
            5 => asked.cancelled(),
            _ => asked,
        }
    });
    let limits = rig.settled();
    let figure = |name: &str, key: &str| {
        let of_limit = limits.iter().find(|limit| limit["limit"] == name);
        of_limit.and_then(|limit| limit[key].as_u64()).unwrap()
    };
    let names = ["tokens", "money"];
    let bills = rig.double.bills();
    let ledger = rig.ledger();
    let count = |line: &Value, key: &str| line[key].as_u64().unwrap_or(0);
    let ok = ledger.iter().find(|line| line["group"]["outcome"] == "ok");
    Reconciled {
        told: sum(&bills, Ending::Told),
        untold: sum(&bills, Ending::Untold),
        refused: sum(&bills, Ending::Refused),
        known: names.map(|name| figure(name, "used") - figure(name, "estimated")),
        estimated: names.map(|name| figure(name, "estimated")),
        ledger_tokens: ok.map_or(0, |line| {
            count(line, "prompt_tokens") + count(line, "completion_tokens")
        }),
        rows: ledger
            .iter()
            .map(|line| {
                let outcome = line["group"]["outcome"].as_str().unwrap_or_default();
                (outcome.to_owned(), count(line, "requests"))
            })
            .collect(),
    }
}

impl Reconciled {
    /// Panics where both sides do not agree to the token.
    pub fn check(&self, requests: usize) {
        let accounted: u64 = self.rows.iter().map(|(_, count)| count).sum();
        assert_eq!(accounted, requests as u64, "{self:?}");
        assert_eq!(self.known, [self.told.tokens, self.told.micro], "{self:?}");
        assert_eq!(self.ledger_tokens, self.told.tokens, "{self:?}");
        // What nobody told is held to be no less than what it was.
        assert!(self.estimated[0] >= self.untold.tokens, "{self:?}");
        assert!(self.estimated[1] >= self.untold.micro, "{self:?}");
        assert_eq!(self.refused.tokens, 0, "{self:?}");
    }
}
