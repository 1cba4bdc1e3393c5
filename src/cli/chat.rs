//! `nearfar chat`: a conversation, one question, or a pipe. The conversation
//! lives in memory and nowhere else.

use std::io::{BufRead, IsTerminal, Read};
use std::path::Path;

use serde_json::{Value, json};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::args::Chat;
use super::client::{Client, block_on};
use super::failed::Failed;
use super::style::{self, Style};
use super::talk::{Piece, Question, Told, ask};

/// The longest question and the largest system file.
const MAX_TEXT_BYTES: u64 = 8 << 20;

/// Runs the verb.
///
/// # Errors
/// No daemon, no whole answer, or an unreadable file.
pub fn run(args: Chat, state_dir: &Path) -> Result<(), Failed> {
    let client = super::client_for(args.reach.url.as_deref(), state_dir)?;
    let system = system(&args)?;
    let piped = !std::io::stdin().is_terminal();
    let question = match args.once.as_deref() {
        Some("-") => Some(read_stdin()?),
        Some(text) => Some(text.to_owned()),
        None if piped => Some(read_stdin()?),
        None => None,
    };
    let mut talk = Talk::new(client, args, system);
    match question {
        Some(text) if text.trim().is_empty() => {
            Err(Failed::usage("There is no question.")
                .mend("Write it after --once, or pipe it in."))
        }
        Some(text) => block_on(talk.once(text)),
        None => block_on(talk.converse()),
    }
}

fn system(args: &Chat) -> Result<Option<String>, Failed> {
    let Some(path) = &args.system_file else {
        return Ok(args.system.clone());
    };
    let wrong = |error: &dyn std::fmt::Display| {
        Failed::new(format!("{} cannot be read: {error}.", path.display()))
    };
    let file = std::fs::File::open(path).map_err(|error| wrong(&error))?;
    let mut text = String::new();
    file.take(MAX_TEXT_BYTES)
        .read_to_string(&mut text)
        .map_err(|error| wrong(&error))?;
    Ok(Some(text))
}

pub(super) fn read_stdin() -> Result<String, Failed> {
    let mut text = String::new();
    std::io::stdin()
        .take(MAX_TEXT_BYTES)
        .read_to_string(&mut text)
        .map_err(|error| Failed::new(format!("Standard input cannot be read: {error}.")))?;
    Ok(text)
}

/// A conversation.
struct Talk {
    client: Client,
    args: Chat,
    /// The turns so far, the system's first.
    turns: Vec<Value>,
    system_turns: usize,
    out: Style,
    err: Style,
}

impl Talk {
    fn new(client: Client, args: Chat, system: Option<String>) -> Self {
        let turns: Vec<Value> = system
            .map(|text| json!({"role": "system", "content": text}))
            .into_iter()
            .collect();
        Self {
            client,
            args,
            system_turns: turns.len(),
            turns,
            out: Style::stdout(),
            err: Style::stderr(),
        }
    }

    /// One question, one answer.
    async fn once(&mut self, text: String) -> Result<(), Failed> {
        let mut interrupts = interrupts()?;
        match self.turn(text, &mut interrupts).await? {
            Some(told) if self.args.json => {
                let line = serde_json::to_string(&told)
                    .map_err(|_| Failed::new("The answer cannot be written as JSON."))?;
                Ok(style::print(&format!("{line}\n"))?)
            }
            Some(_) => Ok(()),
            None => Err(Failed::new("cancelled")),
        }
    }

    /// Until the user leaves.
    async fn converse(&mut self) -> Result<(), Failed> {
        // Before the first question, so that a missing daemon is told at once.
        self.client.get("/healthz").await?;
        style::note(&self.err.dim(&format!(
            "Talking to {}. /help lists what you can type; Ctrl-D leaves.",
            self.args.model
        )));
        let mut lines = typed_lines();
        let mut interrupts = interrupts()?;
        loop {
            style::print(&self.out.bold("> "))?;
            let line = tokio::select! {
                line = lines.recv() => line,
                _ = interrupts.recv() => None,
            };
            let Some(line) = line else {
                style::print("\n")?;
                return Ok(());
            };
            let line = line.trim();
            if line.is_empty() {
                continue;
            }
            if let Some(command) = line.strip_prefix('/') {
                if !self.command(command) {
                    return Ok(());
                }
                continue;
            }
            match self.turn(line.to_owned(), &mut interrupts).await {
                Ok(Some(told)) if self.args.json => {
                    style::print(&format!("{}\n", json!(told)))?;
                }
                Ok(Some(_)) => {}
                Ok(None) => style::note(&self.err.dim("[cancelled; Ctrl-C again leaves]")),
                Err(failed) if failed.what.is_empty() => return Err(failed),
                Err(failed) => style::note(&format!("{} {failed}", self.err.red("error:"))),
            }
        }
    }

    /// Asks the next question. `None` when the user cancelled it; then, and
    /// after an error, the question is not part of the conversation.
    async fn turn(
        &mut self,
        text: String,
        interrupts: &mut Signal,
    ) -> Result<Option<Told>, Failed> {
        self.turns.push(json!({"role": "user", "content": text}));
        let question = Question {
            model: &self.args.model,
            messages: &self.turns,
            privacy: self.args.privacy.as_deref(),
            feature: self.args.feature.as_deref(),
            max_tokens: self.args.max_tokens,
            temperature: self.args.temperature,
        };
        let mut screen = Screen::new(self.out, self.args.json);
        let mut show = |piece: Piece<'_>| screen.show(piece);
        // Dropping the question's future closes its connection, and the daemon
        // stops the answer.
        let result = tokio::select! {
            result = ask(&self.client, &question, &mut show) => result.map(Some),
            _ = interrupts.recv() => Ok(None),
        };
        screen.end()?;
        match &result {
            Ok(Some(told)) => {
                if !self.args.json {
                    style::note(&told.origin(self.err));
                }
                self.turns
                    .push(json!({"role": "assistant", "content": told.content}));
            }
            _ => {
                self.turns.pop();
            }
        }
        result
    }

    /// A line that begins with `/`. Returns false to leave.
    fn command(&mut self, command: &str) -> bool {
        let (verb, rest) = command.split_once(' ').unwrap_or((command, ""));
        let rest = rest.trim();
        match (verb, rest) {
            ("quit" | "exit" | "q", _) => return false,
            ("clear", _) => {
                self.turns.truncate(self.system_turns);
                self.say("The conversation is forgotten.");
            }
            ("model", "") => self.say(&format!("model {}", self.args.model)),
            ("model", name) => {
                self.args.model = name.to_owned();
                self.say(&format!("From now on: {name}"));
            }
            ("privacy", "") => self.say(&format!(
                "privacy {}",
                self.args.privacy.as_deref().unwrap_or("not set")
            )),
            ("privacy", zone) => {
                self.args.privacy = Some(zone.to_owned());
                self.say(&format!("From now on at most: {zone}"));
            }
            ("help", _) => self.say(
                "/model NAME     auto, local/MODEL or PROVIDER/MODEL\n\
                 /privacy ZONE   device, site or cloud\n\
                 /clear          forget the conversation\n\
                 /quit           leave (also Ctrl-D)\n\
                 Ctrl-C          stop an answer; at the prompt, leave",
            ),
            _ => self.say("There is no such command. /help lists them."),
        }
        true
    }

    fn say(&self, text: &str) {
        for line in text.lines() {
            style::note(&self.err.dim(line));
        }
    }
}

fn interrupts() -> Result<Signal, Failed> {
    signal(SignalKind::interrupt())
        .map_err(|error| Failed::new(format!("Ctrl-C cannot be caught: {error}.")))
}

/// Lines from standard input, read by a thread of their own: reading blocks.
/// The thread ends with standard input, or with the process.
fn typed_lines() -> mpsc::Receiver<String> {
    let (send, lines) = mpsc::channel(1);
    std::thread::spawn(move || {
        let mut input = std::io::stdin().lock();
        loop {
            let mut line = Vec::new();
            match input
                .by_ref()
                .take(MAX_TEXT_BYTES)
                .read_until(b'\n', &mut line)
            {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            let line = String::from_utf8_lossy(&line).into_owned();
            if send.blocking_send(line).is_err() {
                return;
            }
        }
    });
    lines
}

/// Writes an answer as it comes: reasoning dim and on terminals only.
pub(super) struct Screen {
    style: Style,
    quiet: bool,
    terminal: bool,
    reasoning: bool,
    open_line: bool,
}

impl Screen {
    pub(super) fn new(style: Style, quiet: bool) -> Self {
        Self {
            style,
            quiet,
            terminal: std::io::stdout().is_terminal(),
            reasoning: false,
            open_line: false,
        }
    }

    pub(super) fn show(&mut self, piece: Piece<'_>) -> std::io::Result<()> {
        if self.quiet {
            return Ok(());
        }
        match piece {
            Piece::Reasoning(_) if !self.terminal => Ok(()),
            Piece::Reasoning(text) => {
                self.reasoning = true;
                self.open_line = !text.ends_with('\n');
                style::print(&self.style.dim(&style::harmless(text)))
            }
            Piece::Text(text) => {
                if std::mem::take(&mut self.reasoning) {
                    style::print("\n\n")?;
                }
                self.open_line = !text.ends_with('\n');
                if self.terminal {
                    style::print(&style::harmless(text))
                } else {
                    style::print(text)
                }
            }
        }
    }

    pub(super) fn end(&mut self) -> std::io::Result<()> {
        if std::mem::take(&mut self.open_line) {
            style::print("\n")?;
        }
        Ok(())
    }
}
