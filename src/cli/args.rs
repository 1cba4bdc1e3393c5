//! The command line's grammar. Every verb has its help, with examples.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use super::cache::Cache;
use super::guard::GuardCommand;
use super::key::KeyCommand;
use super::model::ModelCommand;

const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed, 2 wrong usage.";

/// Answers LLM requests on this device when it can, in the cloud when it must.
///
/// One local HTTP API for apps; nearfar decides per request whether the device
/// or a provider answers, and never sends on what must stay.
#[derive(Debug, Parser)]
#[command(
    name = "nearfar",
    version,
    propagate_version = true,
    arg_required_else_help = true,
    max_term_width = 100,
    after_help = "Examples:\n  \
        nearfar demo                                   try it, nothing to set up\n  \
        nearfar serve                                  run the daemon\n  \
        nearfar chat                                   talk to it\n  \
        nearfar route \"Summarise this\" --privacy device  see what it would decide\n\n\
        Exit codes: 0 done, 1 failed, 2 wrong usage."
)]
pub struct Cli {
    /// Directory of sockets, ledger and models [default: $NEARFAR_STATE_DIR, else
    /// $XDG_STATE_HOME/nearfar, else ~/.local/state/nearfar; for root /var/lib/nearfar]
    #[arg(long, global = true, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do. Where a variant holds a type of arguments, that type has the
/// help: a comment here would replace it.
#[derive(Debug, Subcommand)]
pub enum Command {
    Serve(Serve),
    Chat(Chat),
    Route(Route),
    Demo(Demo),
    /// Models of this device
    Model {
        /// What to do with them.
        #[command(subcommand)]
        command: ModelCommand,
    },
    Usage(Usage),
    Cache(Cache),
    /// Virtual keys: who may ask, what for and until when
    Key {
        /// What to do with them.
        #[command(subcommand)]
        command: KeyCommand,
    },
    Limits(Limits),
    Prices(Prices),
    /// What the guard finds in texts
    Guard {
        /// What to do with it.
        #[command(subcommand)]
        command: GuardCommand,
    },
    Status(Status),
    Doctor(Doctor),
    /// The configuration file
    Config {
        /// What to do with it.
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Print a shell's completions
    #[command(after_help = "Examples:\n  \
        nearfar completions bash > /etc/bash_completion.d/nearfar\n  \
        nearfar completions fish > ~/.config/fish/completions/nearfar.fish\n\n\
        Exit codes: 0 done, 1 failed, 2 wrong usage.")]
    Completions {
        /// Which shell.
        shell: Shell,
    },
    /// Print the manual page, or write all of them
    #[command(after_help = "Examples:\n  \
        nearfar man | man -l -\n  \
        nearfar man --dir /usr/local/share/man/man1\n\n\
        Exit codes: 0 done, 1 failed, 2 wrong usage.")]
    Man {
        /// Write one page per verb into this directory
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
    /// Print the version
    #[command(after_help = EXIT_CODES)]
    Version {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

/// `serve`.
#[derive(Debug, Args)]
#[command(
    about = "Run the daemon",
    long_about = "Run the daemon.\n\nWithout a configuration file it serves the model that ships \
        with it on 127.0.0.1:4141, and any provider whose key it finds in the environment \
        (OPENAI_API_KEY, ANTHROPIC_API_KEY, …). SIGTERM and Ctrl-C drain and stop it.",
    after_help = "Examples:\n  \
        nearfar serve\n  \
        nearfar serve --listen 127.0.0.1:8080 --listen '[::1]:8080'\n  \
        nearfar serve --config /etc/nearfar/nearfar.toml\n\n\
        Exit codes: 0 stopped as asked, 1 failed, 2 wrong usage."
)]
pub struct Serve {
    /// Address of the API; other machines need keys; may be given more than once [default: 127.0.0.1:4141]
    #[arg(long, value_name = "ADDR")]
    pub listen: Vec<SocketAddr>,
    /// Configuration file [default: see `nearfar config path`; it need not exist]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Where a verb finds the daemon.
#[derive(Debug, Clone, Args)]
pub struct Reach {
    /// Talk to the daemon at this address of the device, instead of its control socket; the key in
    /// $NEARFAR_KEY is shown there
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
}

/// `chat`.
#[derive(Debug, Args)]
#[command(
    about = "Talk to the daemon: streams the answer and shows where it came from",
    long_about = "Talk to the daemon.\n\nOn a terminal it is a conversation that lives until you \
        leave; /help lists what you can type. Otherwise standard input is one question. After \
        each answer a line on standard error says where it came from. Ctrl-C stops an answer; at \
        the prompt it leaves.",
    after_help = "Examples:\n  \
        nearfar chat\n  \
        nearfar chat --system-file venue.txt --privacy device\n  \
        nearfar chat --once \"What is the Wi-Fi password?\" --system \"Wi-Fi: blue heron 7\"\n  \
        git diff | nearfar chat --system \"Write a commit message.\"\n  \
        nearfar chat --once \"Hello\" --json | jq .zone\n\n\
        Exit codes: 0 answered, 1 no whole answer, 2 wrong usage."
)]
pub struct Chat {
    /// auto, local/MODEL or PROVIDER/MODEL
    #[arg(long, short, default_value = "auto", value_name = "MODEL")]
    pub model: String,
    /// Instructions and facts for the model
    #[arg(
        long,
        value_name = "TEXT",
        conflicts_with = "system_file",
        allow_hyphen_values = true
    )]
    pub system: Option<String>,
    /// The same, from a file
    #[arg(long, value_name = "FILE")]
    pub system_file: Option<PathBuf>,
    /// The farthest zone the conversation may reach: device, site or cloud; redact hides identifiers
    #[arg(long, value_name = "ZONE")]
    pub privacy: Option<String>,
    /// One question, one answer; `-` reads the question from standard input
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub once: Option<String>,
    /// Most tokens of an answer
    #[arg(long, value_name = "N")]
    pub max_tokens: Option<u32>,
    /// Randomness from 0 to 2
    #[arg(long, value_name = "T")]
    pub temperature: Option<f64>,
    /// What the requests are accounted to
    #[arg(long, value_name = "NAME")]
    pub feature: Option<String>,
    /// One JSON object per answer instead of a stream
    #[arg(long)]
    pub json: bool,
    /// Where the daemon is.
    #[command(flatten)]
    pub reach: Reach,
}

/// `route`.
#[derive(Debug, Args)]
#[command(
    about = "Show what would be decided for a request, without answering it",
    long_about = "Show what would be decided for a request, without answering it: every target \
        with the reason why it is out, or its predicted time and cost, and the verdict.",
    after_help = "Examples:\n  \
        nearfar route \"Turn on the lights\"\n  \
        nearfar route \"Here is my diagnosis …\" --privacy device\n  \
        nearfar route \"Book a table\" --tools tools.json --ttft-ms 300 --json\n\n\
        Exit codes: 0 a target would answer, 1 none may or can (or it failed), 2 wrong usage."
)]
pub struct Route {
    /// The question; `-` reads it from standard input
    pub text: String,
    /// auto, local/MODEL or PROVIDER/MODEL
    #[arg(long, short, default_value = "auto", value_name = "MODEL")]
    pub model: String,
    /// Instructions before the question
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub system: Option<String>,
    /// The farthest zone: device, site or cloud; redact hides identifiers
    #[arg(long, value_name = "ZONE")]
    pub privacy: Option<String>,
    /// Whole answer within this many milliseconds
    #[arg(long, value_name = "N")]
    pub deadline_ms: Option<u64>,
    /// First token within this many milliseconds
    #[arg(long, value_name = "N")]
    pub ttft_ms: Option<u64>,
    /// At most this dear, in currency units
    #[arg(long, value_name = "UNITS")]
    pub max_cost: Option<f64>,
    /// Most tokens of the answer
    #[arg(long, value_name = "N")]
    pub max_tokens: Option<u32>,
    /// What it would be accounted to
    #[arg(long, value_name = "NAME")]
    pub feature: Option<String>,
    /// JSON file with tools, as OpenAI's API takes them
    #[arg(long, value_name = "FILE")]
    pub tools: Option<PathBuf>,
    /// As JSON
    #[arg(long)]
    pub json: bool,
    /// Where the daemon is.
    #[command(flatten)]
    pub reach: Reach,
}

/// `demo`.
#[derive(Debug, Args)]
#[command(
    about = "Try nearfar: a daemon of its own, one question, one answer",
    long_about = "Try nearfar with nothing set up.\n\nStarts a daemon of its own (loopback, an \
        unused port, a temporary state directory), asks concierge, the model that ships with \
        nearfar, one question about the facts of a venue, streams the answer, shows where it came \
        from and why, and stops the daemon. Nothing is left behind and nothing leaves the device.",
    after_help = "Examples:\n  \
        nearfar demo\n  \
        nearfar demo \"what time do you shut on a sunday\"\n  \
        nearfar demo \"How much is parking?\" --system \"Parking costs 4 euros a day.\"\n\n\
        Exit codes: 0 answered, 1 failed, 2 wrong usage."
)]
pub struct Demo {
    /// The question
    pub question: Option<String>,
    /// Facts to answer from, instead of the demo's venue
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub system: Option<String>,
}

/// `usage`.
#[derive(Debug, Args)]
#[command(
    about = "What was used: requests, tokens, cost, times",
    long_about = "Who spent what, on which feature, with which target, and what local and kept \
        answers saved: requests, tokens and money from the daemon's ledger. docs/money.md \
        explains each column.",
    after_help = "Examples:\n  \
        nearfar usage --since 1d\n  \
        nearfar usage --by tenant --since 30d --csv > month.csv\n  \
        nearfar usage --by day,target --times --since 7d\n  \
        nearfar usage --by day --since 30d --json\n  \
        nearfar usage --since 2026-01-01 --until 2026-02-01\n\n\
        Exit codes: 0 done, 1 failed, 2 wrong usage."
)]
pub struct Usage {
    /// Group by these: day, tenant, key, feature, endpoint, model, target, zone, reason, outcome
    #[arg(long, default_value = "tenant,feature,target", value_name = "NAMES")]
    pub by: String,
    /// From this time on: an age such as 1d or 30m, or a date such as 2026-01-31 (UTC)
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Up to this time, written likewise
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// Also how the others ended, and times
    #[arg(long)]
    pub times: bool,
    /// As JSON
    #[arg(long)]
    pub json: bool,
    /// As comma-separated values
    #[arg(long, conflicts_with = "json")]
    pub csv: bool,
}

/// `prices`.
#[derive(Debug, Args)]
#[command(
    about = "What models cost, where that stands and how old it is",
    long_about = "What models cost: those that are configured, then the table that ships with \
        nearfar and your own, if `prices` names one, with sources and dates. Needs no daemon.",
    after_help = "Examples:\n  \
        nearfar prices\n  \
        nearfar prices openai\n  \
        nearfar prices --json | jq .configured\n\n\
        Exit codes: 0 done, 1 failed, 2 wrong usage."
)]
pub struct Prices {
    /// A provider; all without it
    pub provider: Option<String>,
    /// Configuration file [default: see `nearfar config path`]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// `limits`.
#[derive(Debug, Args)]
#[command(
    about = "What limits and budgets allow, and what is left of them",
    long_about = "What the limits and budgets of the configuration ([[limit]]) allow: what is used, \
        how much of it is an estimate, what requests under way hold, what is left, and when it \
        resets (UTC). Money is in currency units; --json has micro-units.",
    after_help = "Examples:\n  nearfar limits\n  nearfar limits --json | jq '.limits[] | select(.left == 0)'\n\n\
        Exit codes: 0 done, 1 not running or failed, 2 wrong usage."
)]
pub struct Limits {
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// `status`.
#[derive(Debug, Args)]
#[command(
    about = "What the daemon is doing",
    long_about = "What the daemon is doing: its processes and their sandbox, models, providers \
        and the queue.",
    after_help = "Examples:\n  nearfar status\n  nearfar status --json | jq .parts\n\n\
        Exit codes: 0 running, 1 not running or failed, 2 wrong usage."
)]
pub struct Status {
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// `doctor`.
#[derive(Debug, Args)]
#[command(
    about = "What is missing or unsafe here, and the mend",
    long_about = "Looks for what is missing or unsafe on this device, and says how to mend it. \
        Works with and without a running daemon.",
    after_help = "Examples:\n  nearfar doctor\n  nearfar doctor --config nearfar.toml --json\n\n\
        Exit codes: 0 nothing fails (there may be warnings), 1 something fails, 2 wrong usage."
)]
pub struct Doctor {
    /// Configuration file [default: see `nearfar config path`]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// `config …`.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Report every error of a file, with line, column and mend
    #[command(after_help = "Examples:\n  \
        nearfar config check\n  \
        nearfar config check nearfar.toml --json\n\n\
        Exit codes: 0 no errors, 1 errors or no file, 2 wrong usage.")]
    Check {
        /// The file; `-` reads standard input [default: see `nearfar config path`]
        file: Option<PathBuf>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Print a commented example with every key
    #[command(after_help = "Examples:\n  \
        nearfar config example > nearfar.toml\n\n\
        Exit codes: 0 done, 1 failed, 2 wrong usage.")]
    Example,
    /// Print the statements that make the tables of a fleet's ledger
    #[command(after_help = "Examples:\n  \
        nearfar config fleet-ledger-sql | psql -d fleet\n\n\
        Exit codes: 0 done, 1 failed, 2 wrong usage.")]
    FleetLedgerSql,
    /// Print which file is read when none is named, and the state directory
    #[command(after_help = "Examples:\n  \
        nearfar config path\n\n\
        Exit codes: 0 done, 1 failed, 2 wrong usage.")]
    Path {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}
