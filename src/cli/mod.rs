//! What people type. `serve` becomes the daemon; the other verbs talk to a
//! running one through its control socket and hold no secret of it.
//!
//! [`args`] is the grammar, [`client`] the connection, [`style`] the looks;
//! each verb has its file. Answers' texts go to standard output and nowhere
//! else: not into errors, not into files.

pub mod args;
pub mod cache;
pub mod chat;
pub mod client;
mod config;
mod demo;
mod docs;
pub mod doctor;
pub mod failed;
pub mod guard;
pub mod key;
pub mod limits;
pub mod model;
mod prices;
pub mod route;
mod sse;
pub mod status;
pub mod style;
mod talk;
pub mod usage;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use crate::config::paths;
use crate::supervisor::ServeArgs;
use args::{Cli, Command};
use failed::Failed;

/// Reads the process's arguments and does what they say; `serve` is what
/// becomes the daemon.
pub fn main(serve: fn(ServeArgs) -> ExitCode) -> ExitCode {
    // clap itself prints help, versions and usage errors (exit code 2).
    run(Cli::parse(), serve)
}

fn run(cli: Cli, daemon: fn(ServeArgs) -> ExitCode) -> ExitCode {
    let said_dir = cli.state_dir.as_deref().map(paths::absolute);
    let command = match cli.command {
        Command::Serve(serve) => {
            return daemon(ServeArgs {
                listen: serve.listen,
                state_dir: said_dir,
                config: serve.config.or_else(paths::found_config),
            });
        }
        command => command,
    };
    match verb(command, said_dir) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => {
            if !failed.what.is_empty() {
                let style = style::Style::stderr();
                style::note(&format!("{} {failed}", style.red("error:")));
            }
            failed.exit_code()
        }
    }
}

/// Every verb but `serve`.
fn verb(command: Command, said_dir: Option<PathBuf>) -> Result<(), Failed> {
    let state_dir = said_dir.clone().unwrap_or_else(paths::default_state_dir);
    match command {
        // `run` took it.
        Command::Serve(_) => Ok(()),
        Command::Chat(chat) => chat::run(chat, &state_dir),
        Command::Route(route) => route::run(route, &state_dir),
        Command::Demo(demo) => demo::run(demo),
        Command::Model { command } => model::run(command, &state_dir),
        Command::Guard { command } => guard::run(command, said_dir),
        Command::Key { command } => key::run(command, &state_dir),
        Command::Cache(args) => cache::run(args, &state_dir),
        Command::Usage(usage) => usage::run(&usage, &state_dir),
        Command::Limits(limits) => limits::run(&limits, &state_dir),
        Command::Prices(prices) => prices::run(&prices),
        Command::Status(status) => status::run(&status, &state_dir),
        Command::Doctor(doctor) => doctor::run(&doctor, said_dir),
        Command::Config { command } => config::run(command, said_dir),
        Command::Completions { shell } => docs::completions(shell),
        Command::Man { dir } => docs::man(dir.as_deref()),
        Command::Version { json } => version(json),
    }
}

fn version(json: bool) -> Result<(), Failed> {
    let version = env!("CARGO_PKG_VERSION");
    let text = if json {
        format!(
            "{}\n",
            serde_json::json!({"name": "nearfar", "version": version})
        )
    } else {
        format!("nearfar {version}\n")
    };
    Ok(style::print(&text)?)
}

/// The daemon that a verb means: behind `--url`, else of the state directory.
fn client_for(url: Option<&str>, state_dir: &std::path::Path) -> Result<client::Client, Failed> {
    match url {
        Some(url) => client::Client::url(url),
        None => Ok(client::Client::control(state_dir)),
    }
}

#[cfg(test)]
mod tests;
