//! `nearfar demo`: a first run with nothing set up. A daemon of its own, one
//! question, one answer, and nothing left behind.

use std::fs::{DirBuilder, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use hyper::Method;
use nearfar_egress::{KeySource, presets};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use super::args::Demo;
use super::chat::Screen;
use super::client::{Client, block_on};
use super::failed::Failed;
use super::route;
use super::style::{self, Style, ms};
use super::talk::{Piece, Question, ask};

/// What concierge is asked about when nobody says.
const VENUE: &str = "You are the concierge of Hotel Larkspur. Answer only from these facts.
Facts:
- Breakfast: 7 am to 10:30 am, on the ground floor
- Pool: open 8 am to 9 pm, on the roof
- Sauna: costs 12 euros
- Wi-Fi: network Larkspur-Guest, password blue-heron-7
- Check-in from 3 pm, check-out by 11 am
- Front desk: extension 9
- Parking: 14 euros a day";
const QUESTION: &str = "what is the wifi password?";

/// The demo's configuration: whatever the machine has set up, nothing leaves it.
const CONFIG: &str = "[privacy]\ndefault = \"device\"\n";
/// A first start may have to read a large file from a slow card.
const READY_WITHIN: Duration = Duration::from_secs(60);
const STOP_WITHIN: Duration = Duration::from_secs(15);
/// An answer about a venue is a sentence or two.
const MAX_TOKENS: u32 = 120;

/// Runs the verb.
///
/// # Errors
/// The daemon does not start, or there is no whole answer.
pub(super) fn run(args: Demo) -> Result<(), Failed> {
    let out = Style::stdout();
    let system = args.system.as_deref().unwrap_or(VENUE);
    let question = args.question.as_deref().unwrap_or(QUESTION);
    block_on(async {
        // Before anything is there to be cleaned up: however the demo ends, its
        // daemon is stopped and its directory goes.
        let mut stops = Vec::new();
        for kind in [
            SignalKind::interrupt(),
            SignalKind::terminate(),
            SignalKind::hangup(),
        ] {
            stops.push(
                signal(kind)
                    .map_err(|error| Failed::new(format!("Signals cannot be caught: {error}.")))?,
            );
        }
        let stopped =
            futures_util::future::select_all(stops.iter_mut().map(|stop| Box::pin(stop.recv())));
        let mut daemon = Daemon::start()?;
        let result = tokio::select! {
            result = show(&mut daemon, system, question, out) => result,
            _ = stopped => Err(Failed::new("cancelled")),
        };
        let ended = daemon.stop();
        result.and(ended)
    })?;
    style::print(&format!(
        "\n{}\n  nearfar serve                  run the daemon (API at http://127.0.0.1:4141/v1)\n  \
         nearfar chat                   talk to it\n  \
         nearfar model catalogue        bigger models for this device\n",
        out.bold("Next")
    ))?;
    Ok(())
}

async fn show(daemon: &mut Daemon, system: &str, question: &str, out: Style) -> Result<(), Failed> {
    let took = daemon.ready().await?;
    style::note(&format!("ready after {}", ms(took.as_secs_f64() * 1_000.0)));
    let mut text = format!("\n{}\n", out.bold("What the model is told"));
    for line in system.lines() {
        text.push_str(&out.dim(&format!("  {}", style::safe(line))));
        text.push('\n');
    }
    text.push_str(&format!(
        "\n{}  {}\n{}  ",
        out.bold("Question"),
        style::safe(question),
        out.bold("Answer  ")
    ));
    style::print(&text)?;
    let messages = [
        json!({"role": "system", "content": system}),
        json!({"role": "user", "content": question}),
    ];
    let asked = Question {
        model: "auto",
        messages: &messages,
        privacy: None,
        feature: Some("demo"),
        max_tokens: Some(MAX_TOKENS),
        temperature: Some(0.0),
    };
    let mut screen = Screen::new(out, false);
    let told = ask(&daemon.client, &asked, &mut |piece: Piece<'_>| {
        screen.show(piece)
    })
    .await;
    screen.end()?;
    let told = told?;
    style::print(&format!(
        "{}\n\n{}\n",
        told.origin(out),
        out.bold("Why there")
    ))?;
    let body = json!({"model": "auto", "messages": messages, "max_completion_tokens": MAX_TOKENS});
    let decision: Value = route::decide(&daemon.client, &[], &body).await?;
    Ok(style::print(&route::render(&decision, out))?)
}

/// A daemon of the demo's own. Dropped, it is stopped and its directory removed.
struct Daemon {
    child: Child,
    dir: PathBuf,
    client: Client,
    began: Instant,
}

impl Daemon {
    fn start() -> Result<Self, Failed> {
        let dir = own_directory()?;
        let began = Instant::now();
        match spawn(&dir) {
            Ok(child) => {
                style::note(
                    "starting a daemon of its own (temporary, nothing leaves this device) …",
                );
                Ok(Self {
                    child,
                    client: Client::control(&dir.join("state")),
                    dir,
                    began,
                })
            }
            Err(error) => {
                let _ = std::fs::remove_dir_all(&dir);
                Err(
                    Failed::new(format!("The daemon cannot be started: {error}."))
                        .mend("See `nearfar doctor`."),
                )
            }
        }
    }

    /// Waits until every part is up; returns how long that took.
    async fn ready(&mut self) -> Result<Duration, Failed> {
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(self.died(status));
            }
            if self.is_ready().await? {
                return Ok(self.began.elapsed());
            }
            if self.began.elapsed() > READY_WITHIN {
                return Err(Failed::new(format!(
                    "The daemon was not ready within {} s.{}",
                    READY_WITHIN.as_secs(),
                    self.log_tail()
                ))
                .mend("See `nearfar doctor`."));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Not there yet and not ready yet are the same; a model that cannot be
    /// used will not get better by waiting.
    async fn is_ready(&self) -> Result<bool, Failed> {
        let asked = self.client.open_any(Method::GET, "/readyz", &[], None);
        let Ok(reply) = asked.await else {
            return Ok(false);
        };
        let body = reply.json().await.unwrap_or_default();
        match body["engine"]["model_problem"].as_str() {
            Some(problem) => Err(Failed::new(format!(
                "The model cannot be used: {}.",
                style::safe(problem.trim_end_matches('.'))
            ))),
            None => Ok(body["ready"] == true),
        }
    }

    fn died(&self, status: ExitStatus) -> Failed {
        Failed::new(format!(
            "The daemon stopped at once ({status}).{}",
            self.log_tail()
        ))
        .mend("See `nearfar doctor`.")
    }

    /// The end of the daemon's log, for an error's message.
    fn log_tail(&self) -> String {
        let tail = || -> std::io::Result<String> {
            let mut log = File::open(self.dir.join("serve.log"))?;
            let length = log.metadata()?.len();
            log.seek(SeekFrom::Start(length.saturating_sub(2_000)))?;
            let mut bytes = Vec::new();
            log.take(2_000).read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        match tail() {
            Ok(text) if !text.trim().is_empty() => {
                let lines: Vec<String> = text
                    .trim()
                    .lines()
                    .map(|line| format!("    {}", style::safe(line)))
                    .collect();
                format!(" It said:\n{}", lines.join("\n"))
            }
            _ => String::new(),
        }
    }

    /// Stops the daemon as a service manager would, and removes its directory.
    fn stop(&mut self) -> Result<(), Failed> {
        let ended = self.end();
        let _ = std::fs::remove_dir_all(&self.dir);
        match ended {
            true => Ok(()),
            false => Err(
                Failed::new("The daemon did not stop when asked, and was killed.")
                    .mend("See `nearfar doctor`."),
            ),
        }
    }

    fn end(&mut self) -> bool {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return true;
        }
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let asked = Instant::now();
        while asked.elapsed() < STOP_WITHIN {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        false
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.stop();
    }
}

/// A new directory that only this user can look into.
fn own_directory() -> Result<PathBuf, Failed> {
    let mut dice = [0; 8];
    let named = getrandom::fill(&mut dice)
        .map_err(|error| Failed::new(format!("There is no randomness: {error}.")));
    named?;
    let name = format!("nearfar-demo-{:016x}", u64::from_le_bytes(dice));
    let dir = std::env::temp_dir().join(name);
    DirBuilder::new()
        .mode(0o700)
        .create(&dir)
        .map_err(|error| {
            Failed::new(format!("{} cannot be made: {error}.", dir.display()))
                .mend("Set TMPDIR to a directory that you may write to.")
        })?;
    Ok(dir)
}

fn spawn(dir: &Path) -> std::io::Result<Child> {
    let config = dir.join("nearfar.toml");
    std::fs::write(&config, CONFIG)?;
    let log = File::create(dir.join("serve.log"))?;
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(["serve", "--listen", "127.0.0.1:0"])
        .arg("--state-dir")
        .arg(dir.join("state"))
        .arg("--config")
        .arg(&config)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    // The demo has no use for keys, so it does not hand them on.
    for preset in presets() {
        if let KeySource::Env(name) = preset.key {
            command.env_remove(name);
        }
    }
    command.spawn()
}
