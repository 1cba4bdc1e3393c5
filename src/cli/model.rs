//! `nearfar model …`: the models of this device.
//!
//! The verbs work on the model store itself, with or without a daemon; a
//! running one is told to look again. Only a download needs the daemon: its
//! egress process is the one that may reach the network.
#![allow(
    clippy::disallowed_methods,
    reason = "where other programs' model stores are"
)]

mod bench;
mod memory;
mod meter;
mod show;

use std::path::{Path, PathBuf};

use clap::Subcommand;
use nearfar_domain::frames::KvNumbers;
use serde_json::{Value, json};

use super::client::{Client, block_on};
use super::failed::Failed;
use super::style;
use crate::catalog::known::Known;
use crate::catalog::{
    self, Cached, Caches, CatalogError, Change, EMBEDDED, HfFile, Manifest, ModelStore, NewModel,
    Origin, Progress, PullLine, PullSpec, Spec, Verdict,
};
use meter::Meter;

/// What to do with the models.
#[derive(Debug, Subcommand)]
pub enum ModelCommand {
    /// Add a model: a file, one of another program's, or a download
    #[command(
        long_about = "Add a model.\n\nMODEL is a GGUF file; ollama:NAME[:TAG], used where Ollama \
            keeps it; hf:OWNER/REPO/FILE.gguf[@REVISION], used where Hugging Face's cache has it \
            and else downloaded by the running daemon; or a name that `nearfar model catalogue` \
            lists. The file is hashed and checked by the engine before anybody can use it.",
        after_help = "Examples:\n  \
            nearfar model add ./qwen3-0.6b.gguf\n  \
            nearfar model add qwen3-0.6b\n  \
            nearfar model add hf:Qwen/Qwen3-1.7B-GGUF/Qwen3-1.7B-Q8_0.gguf\n  \
            nearfar model add ollama:llama3.2 --name llama\n\n\
            Exit codes: 0 done, 1 failed, 2 wrong usage."
    )]
    Add {
        /// What to add
        model: String,
        /// Call it this, instead of after its file
        #[arg(long)]
        name: Option<String>,
        /// Use a file where it is (a hard link, else its path), without a copy
        #[arg(long)]
        link: bool,
        /// The SHA-256 that the file must have
        #[arg(long, value_name = "HEX")]
        sha256: Option<String>,
        /// A tokenizer.json to use in place of the file's own tokenizer
        #[arg(long, value_name = "FILE")]
        tokenizer: Option<PathBuf>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// List the models of this device
    #[command(
        visible_alias = "ls",
        after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage."
    )]
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Show one model
    #[command(after_help = "Exit codes: 0 done, 1 no such model or failed, 2 wrong usage.")]
    Show {
        /// Its name
        name: String,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Change how a model is run
    #[command(
        long_about = "Change how a model is run.\n\nA draft is a smaller installed model with the same \
            tokens, which guesses ahead of the model. The model checks several guesses for little \
            more than the price of one token, so that answers come faster where the guesses are \
            mostly right. They stay what they would have been. Where that does not pay, the engine \
            makes no use of the draft; `nearfar status` shows how it fares.\n\nKeys and values \
            are what a model remembers of a conversation. As int8 they take about half the memory \
            of bf16, so that twice as many tokens have room, and answers may differ a little. \
            What is pinned on disk is computed once more after a change.",
        after_help = "Examples:\n  \
            nearfar model set qwen3-4b --draft qwen3-0.6b\n  \
            nearfar model set qwen3-4b --no-draft\n  \
            nearfar model set qwen3-4b --kv int8\n\n\
            Exit codes: 0 done, 1 no such model or failed, 2 wrong usage."
    )]
    Set {
        /// Its name
        name: String,
        /// A smaller installed model that guesses ahead of it
        #[arg(long, value_name = "NAME")]
        draft: Option<String>,
        /// No draft any more
        #[arg(long, conflicts_with = "draft")]
        no_draft: bool,
        /// Keep keys and values as bf16 or int8
        #[arg(long, value_name = "NUMBERS")]
        kv: Option<KvNumbers>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove models
    #[command(after_help = "Exit codes: 0 done, 1 no such model or failed, 2 wrong usage.")]
    Rm {
        /// Their names
        #[arg(required = true)]
        names: Vec<String>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Hash models again and compare
    #[command(after_help = "Exit codes: 0 all are as they were, 1 some are not, 2 wrong usage.")]
    Verify {
        /// Only this one
        name: Option<String>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Load a model into memory before anybody asks it
    #[command(after_help = "Exit codes: 0 loaded, 1 not loaded or no daemon, 2 wrong usage.")]
    Load {
        /// Its name
        name: String,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Drop a model from memory as soon as no request uses it
    #[command(after_help = "Exit codes: 0 done, 1 failed or no daemon, 2 wrong usage.")]
    Unload {
        /// Its name
        name: String,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// List the models in memory, and what all may take
    #[command(after_help = "Exit codes: 0 done, 1 failed or no daemon, 2 wrong usage.")]
    Ps {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Measure how fast a model runs on this machine
    #[command(
        long_about = "Measure how fast a model runs on this machine: prompts of 32, 512 and 2,048 \
            tokens, decoding at depth 0, 2,048 and 4,096 where the context has room, and how fast \
            memory is read, which no decoding can pass. No daemon is needed; stop other work first.",
        after_help = "Exit codes: 0 done, 1 the model cannot be run, 2 wrong usage."
    )]
    Bench {
        /// A GGUF file, or an installed model's name
        model: String,
        /// Threads that compute
        #[arg(long, value_parser = clap::value_parser!(u16).range(1..=512))]
        threads: Option<u16>,
        /// How often each figure is measured; the median is shown
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
        rounds: u16,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// List small models that people use, with what they take
    #[command(after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage.")]
    Catalogue {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

impl From<CatalogError> for Failed {
    fn from(error: CatalogError) -> Self {
        match error {
            CatalogError::Spec(_) => Failed::usage(error.to_string()),
            _ => Failed::new(error.to_string()),
        }
    }
}

/// Does what was asked.
///
/// # Errors
/// For people, with the mend.
pub fn run(command: ModelCommand, state_dir: &Path) -> Result<(), Failed> {
    let store = ModelStore::new(state_dir);
    match command {
        ModelCommand::Add {
            model,
            name,
            link,
            sha256,
            tokenizer,
            json,
        } => {
            let asked = Asked {
                tokenizer,
                name,
                link,
                sha256: sha256.map(|hex| hex.to_ascii_lowercase()),
                json,
            };
            let manifest = add(&store, state_dir, &model, &asked)?;
            tell_daemon(state_dir);
            show::added(&store, &manifest, json)
        }
        ModelCommand::List { json } => show::list(&store, json),
        ModelCommand::Show { name, json } => show::show(&store, &name, json),
        ModelCommand::Set {
            name,
            draft,
            no_draft,
            kv,
            json,
        } => {
            let change = Change {
                draft: if no_draft {
                    Some(None)
                } else {
                    draft.map(Some)
                },
                kv,
            };
            if change == Change::default() {
                return Err(Failed::usage("there is nothing to change.")
                    .mend("`nearfar model set --help` shows what can be."));
            }
            store.tune(&name, &change)?;
            tell_daemon(state_dir);
            show::show(&store, &name, json)
        }
        ModelCommand::Rm { names, json } => {
            let mut removed = Vec::new();
            let result = names.iter().try_for_each(|name| {
                store.remove(name)?;
                removed.push(name.clone());
                Ok::<(), CatalogError>(())
            });
            if !removed.is_empty() {
                tell_daemon(state_dir);
            }
            let text = if json {
                format!("{}\n", json!({ "removed": removed }))
            } else {
                removed
                    .iter()
                    .map(|name| format!("removed {name}\n"))
                    .collect()
            };
            style::print(&text)?;
            Ok(result?)
        }
        ModelCommand::Verify { name, json } => verify(&store, state_dir, name.as_deref(), json),
        ModelCommand::Catalogue { json } => show::catalogue(json),
        ModelCommand::Load { name, json } => memory::load(state_dir, &name, json),
        ModelCommand::Unload { name, json } => memory::unload(state_dir, &name, json),
        ModelCommand::Ps { json } => memory::ps(state_dir, json),
        ModelCommand::Bench {
            model,
            threads,
            rounds,
            json,
        } => {
            let wanted = bench::Wanted {
                threads: threads.map(usize::from),
                rounds: usize::from(rounds),
                json,
            };
            bench::run(&store, &model, &wanted)
        }
    }
}

struct Asked {
    tokenizer: Option<PathBuf>,
    name: Option<String>,
    link: bool,
    sha256: Option<String>,
    json: bool,
}

fn add(
    store: &ModelStore,
    state_dir: &Path,
    text: &str,
    asked: &Asked,
) -> Result<Manifest, Failed> {
    match Spec::parse(text)? {
        Spec::File(path) => {
            let new = NewModel {
                origin: Origin::File {
                    path: std::path::absolute(&path)?,
                },
                file: path,
                name: asked.name.clone(),
                digest: asked.sha256.clone(),
                link: asked.link,
                consume: false,
                pinned: false,
                tokenizer: asked.tokenizer.clone(),
            };
            put(store, &new, asked)
        }
        Spec::Ollama { model, tag } => {
            let found = catalog::find_ollama(&caches(), &model, &tag)?;
            let short = model.rsplit('/').next().unwrap_or(&model);
            let name = match tag.as_str() {
                "latest" => short.to_owned(),
                tag => format!("{short}-{tag}"),
            };
            adopt(
                store,
                found,
                name.to_ascii_lowercase(),
                Origin::Ollama { model, tag },
                asked,
            )
        }
        Spec::Hf(file) => from_hugging_face(store, state_dir, &file, None, asked),
        Spec::Known(model) if !model.runs => Err(Failed::new(format!(
            "{} cannot run here: {}.",
            model.title,
            model
                .why_not
                .as_deref()
                .unwrap_or("this engine does not know it")
        ))
        .mend("`nearfar model catalogue` shows which models run.")),
        Spec::Known(model) => {
            from_hugging_face(store, state_dir, &model.hf_file(), Some(model), asked)
        }
    }
}

/// From the cache of this machine when it is there, else through the daemon.
fn from_hugging_face(
    store: &ModelStore,
    state_dir: &Path,
    file: &HfFile,
    known: Option<&Known>,
    asked: &Asked,
) -> Result<Manifest, Failed> {
    let promised = asked
        .sha256
        .clone()
        .or_else(|| known.and_then(|k| k.source.sha256.clone()));
    let name = asked.name.clone().or_else(|| known.map(|k| k.name.clone()));
    if let Some((path, digest)) = catalog::find_hf(&caches(), file)? {
        let origin = Origin::HuggingFace {
            repo: file.repo.clone(),
            file: file.file.clone(),
            revision: file.revision.clone(),
        };
        let name = name.unwrap_or_else(|| catalog::suggested_name(file.stem()));
        return adopt(store, (path, promised.or(digest)), name, origin, asked);
    }
    if asked.tokenizer.is_some() {
        return Err(
            Failed::usage("--tokenizer goes with a file, not with a download.").mend(
                "Fetch the file first, then `nearfar model add FILE --tokenizer TOKENIZER.json`.",
            ),
        );
    }
    let pull = PullSpec {
        hf: format!("{}/{}@{}", file.repo, file.file, file.revision),
        name,
        sha256: promised,
    };
    pull_through_daemon(state_dir, &pull, asked.json)
}

/// Uses a file of another program's without copying it.
fn adopt(
    store: &ModelStore,
    (file, digest): Cached,
    name: String,
    origin: Origin,
    asked: &Asked,
) -> Result<Manifest, Failed> {
    let new = NewModel {
        file,
        name: Some(asked.name.clone().unwrap_or(name)),
        origin,
        pinned: asked.sha256.is_none() && digest.is_none(),
        digest: asked.sha256.clone().or(digest),
        link: true,
        consume: false,
        tokenizer: asked.tokenizer.clone(),
    };
    put(store, &new, asked)
}

fn put(store: &ModelStore, new: &NewModel, asked: &Asked) -> Result<Manifest, Failed> {
    let file = new
        .file
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let mut meter = Meter::new(asked.json, &format!("checking {}", style::safe(&file)));
    let result = store.add(new, &mut |at| meter.at(at.done, Some(at.total)));
    meter.end();
    Ok(result?)
}

fn pull_through_daemon(state_dir: &Path, pull: &PullSpec, json: bool) -> Result<Manifest, Failed> {
    let body = serde_json::to_value(pull).map_err(|error| Failed::new(error.to_string()))?;
    let mut meter = Meter::new(json, &format!("fetching {}", pull.hf));
    let result = block_on(async {
        let client = Client::control(state_dir);
        let mut reply = client
            .open(hyper::Method::POST, "/admin/v1/models", &[], Some(&body))
            .await
            .map_err(|failed| {
                match failed.what.contains("is not running") {
                true => Failed::new("Downloads go through the daemon, and it is not running.").mend(
                    "Start it with `nearfar serve` in another terminal, or fetch the file yourself \
                     and `nearfar model add FILE`.",
                ),
                false => failed,
            }
            })?;
        while let Some(line) = reply.next_line().await? {
            match read_line(line)? {
                PullLine::Progress { have, total } => meter.at(have, total),
                PullLine::Fetched { .. } => meter.say("fetched; checking it"),
                PullLine::Installed { model } => return Ok(*model),
                PullLine::Failed { message, retryable } => {
                    let failed = Failed::new(style::safe(&message));
                    return Err(match retryable {
                        true => failed.mend("Try again: it goes on from where it stopped."),
                        false => failed,
                    });
                }
            }
        }
        Err(Failed::new("The daemon ended the download without a word.").mend("See its log."))
    });
    meter.end();
    result
}

fn read_line(line: Value) -> Result<PullLine, Failed> {
    if let Some(failed) = super::client::error_of(&line) {
        return Err(failed);
    }
    serde_json::from_value(line)
        .map_err(|_| Failed::new("The daemon's answer is not understood: is it another version?"))
}

/// The daemon looks at the store again; without one there is nothing to tell.
fn tell_daemon(state_dir: &Path) {
    let _ = block_on(async {
        Client::control(state_dir)
            .post("/admin/v1/models/rescan", &json!({}))
            .await
    });
}

fn verify(
    store: &ModelStore,
    state_dir: &Path,
    name: Option<&str>,
    json: bool,
) -> Result<(), Failed> {
    if name == Some(EMBEDDED) {
        return Ok(style::print(
            "concierge is part of nearfar's own file; nothing to verify\n",
        )?);
    }
    let mut meter: Option<(String, Meter)> = None;
    let findings = store.verify(name, &mut |name: &str, at: Progress| {
        if meter.as_ref().is_none_or(|(of, _)| of != name) {
            if let Some((_, old)) = meter.take() {
                old.end();
            }
            meter = Some((
                name.to_owned(),
                Meter::new(json, &format!("hashing {name}")),
            ));
        }
        if let Some((_, meter)) = &mut meter {
            meter.at(at.done, Some(at.total));
        }
    })?;
    if let Some((_, meter)) = meter {
        meter.end();
    }
    if findings
        .iter()
        .any(|finding| finding.verdict == Verdict::Touched)
    {
        tell_daemon(state_dir);
    }
    let broken = findings
        .iter()
        .filter(|finding| !finding.verdict.is_good())
        .count();
    if json {
        show::print_json(&findings)?;
    } else {
        let rows = findings
            .iter()
            .map(|finding| {
                let (state, why) = match &finding.verdict {
                    Verdict::Good => ("good", String::new()),
                    Verdict::Touched => ("good", "touched, content unchanged".to_owned()),
                    Verdict::Changed { found } => ("BROKEN", format!("its SHA-256 is now {found}")),
                    Verdict::Unreadable { reason } => ("BROKEN", reason.clone()),
                };
                vec![finding.name.clone(), state.to_owned(), why]
            })
            .collect();
        style::print(&style::table(&["NAME", "STATE", ""], rows, &[]))?;
    }
    match broken {
        0 => Ok(()),
        _ if json => Err(Failed::silent()),
        _ => Err(
            Failed::new(format!("{broken} of {} are broken.", findings.len()))
                .mend("Remove them with `nearfar model rm NAME` and add them again."),
        ),
    }
}

/// Other programs' folders of models.
fn caches() -> Caches {
    let env = |name: &str| {
        std::env::var_os(name)
            .filter(|v| !v.is_empty())
            .map(PathBuf::from)
    };
    let home = env("HOME");
    let in_home = |rest: &str| home.as_ref().map(|home| home.join(rest));
    // Ollama's own service keeps its models under its own user's home.
    let ollama = match env("OLLAMA_MODELS") {
        Some(folder) => vec![folder],
        None => in_home(".ollama/models")
            .into_iter()
            .chain(
                ["/usr/share/ollama/.ollama/models", "/var/lib/ollama/models"].map(PathBuf::from),
            )
            .collect(),
    };
    let hugging_face = env("HF_HUB_CACHE")
        .or_else(|| env("HF_HOME").map(|folder| folder.join("hub")))
        .or_else(|| env("XDG_CACHE_HOME").map(|folder| folder.join("huggingface/hub")))
        .or_else(|| in_home(".cache/huggingface/hub"));
    Caches {
        ollama,
        hugging_face: hugging_face.into_iter().collect(),
    }
}
