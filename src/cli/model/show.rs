//! Models as tables and as JSON.

use std::path::PathBuf;

use serde::Serialize;

use crate::catalog::known;
use crate::catalog::{self, EMBEDDED, FileFacts, Manifest, ModelStore, Origin, Tuned};
use crate::cli::failed::Failed;
use crate::cli::style;

pub(super) fn added(store: &ModelStore, manifest: &Manifest, json: bool) -> Result<(), Failed> {
    if json {
        return print_json(&Shown::of(store, manifest));
    }
    let place = match &manifest.adopted {
        None => "copied into the store",
        Some(adopted) if adopted.hard_link => "linked, not copied",
        Some(_) => "used where it is, not copied",
    };
    let mut text = format!(
        "added {} ({}, {}, {}; {place})\n",
        manifest.name,
        style::safe(&manifest.facts.architecture),
        style::safe(&manifest.facts.quantisation),
        size(manifest.bytes),
    );
    if manifest.pinned_at_first_pull {
        text.push_str(&format!(
            "nobody vouched for its digest; it is pinned from now on: sha256 {}\n",
            manifest.sha256
        ));
    }
    if manifest
        .adopted
        .as_ref()
        .is_some_and(|adopted| !adopted.hard_link)
    {
        text.push_str("a running nearfar's sandbox cannot reach that file: restart it\n");
    }
    text.push_str(&format!("use it as local/{}\n", manifest.name));
    Ok(style::print(&text)?)
}

/// A model as `list` and `show` tell it.
#[derive(Serialize)]
struct Shown {
    name: String,
    embedded: bool,
    #[serde(flatten)]
    facts: FileFacts,
    bytes: u64,
    sha256: String,
    file: Option<PathBuf>,
    adopted: bool,
    origin: Option<Origin>,
    tuning: Tuned,
    added_ms: Option<i64>,
    pinned_at_first_pull: bool,
    problem: Option<String>,
}

impl Shown {
    fn of(store: &ModelStore, manifest: &Manifest) -> Shown {
        Shown {
            name: manifest.name.clone(),
            embedded: false,
            facts: manifest.facts.clone(),
            bytes: manifest.bytes,
            sha256: manifest.sha256.clone(),
            file: Some(store.weights(manifest)),
            adopted: manifest.adopted.is_some(),
            origin: Some(manifest.origin.clone()),
            tuning: manifest.tuning.clone(),
            added_ms: Some(manifest.added_ms),
            pinned_at_first_pull: manifest.pinned_at_first_pull,
            problem: store.check_place(manifest).err(),
        }
    }

    fn embedded() -> Option<Shown> {
        let (model, facts) = catalog::embedded()?;
        Some(Shown {
            name: model.name,
            embedded: true,
            facts,
            bytes: model.file_bytes,
            sha256: model.sha256,
            file: None,
            adopted: false,
            origin: None,
            tuning: Tuned::default(),
            added_ms: None,
            pinned_at_first_pull: false,
            problem: None,
        })
    }

    fn place(&self) -> &'static str {
        match (self.embedded, self.adopted) {
            (true, _) => "in nearfar",
            (false, true) => "linked",
            (false, false) => "store",
        }
    }
}

pub(super) fn list(store: &ModelStore, json: bool) -> Result<(), Failed> {
    let (manifests, bad) = store.manifests()?;
    let models: Vec<Shown> = Shown::embedded()
        .into_iter()
        .chain(manifests.iter().map(|m| Shown::of(store, m)))
        .collect();
    for problem in &bad {
        style::note(&format!("left out: {problem}"));
    }
    if json {
        return print_json(&models);
    }
    for (name, problem) in models
        .iter()
        .filter_map(|m| Some((&m.name, m.problem.as_ref()?)))
    {
        style::note(&format!("{name} cannot be used: {problem}"));
    }
    let rows = models
        .iter()
        .map(|model| {
            vec![
                model.name.clone(),
                model.facts.architecture.clone(),
                count(model.facts.parameters),
                model.facts.quantisation.clone(),
                model.facts.context_tokens.to_string(),
                size(model.bytes),
                yes(model.facts.tools),
                model.place().to_owned(),
                if model.problem.is_some() {
                    "broken"
                } else {
                    "ready"
                }
                .to_owned(),
            ]
        })
        .collect();
    let heading = [
        "NAME", "KIND", "WEIGHTS", "TYPE", "CONTEXT", "SIZE", "TOOLS", "WHERE", "STATE",
    ];
    Ok(style::print(&style::table(&heading, rows, &[2, 4, 5]))?)
}

pub(super) fn show(store: &ModelStore, name: &str, json: bool) -> Result<(), Failed> {
    let embedded = Shown::embedded().filter(|_| name == EMBEDDED);
    let model = match embedded {
        Some(model) => model,
        None => Shown::of(store, &store.get(name)?),
    };
    if json {
        return print_json(&model);
    }
    let line = |what: &str, value: String| vec![what.to_owned(), value];
    let mut rows = vec![
        line("name", model.name.clone()),
        line("target", format!("local/{}", model.name)),
        line("architecture", model.facts.architecture.clone()),
        line("weights", count(model.facts.parameters)),
        line("type", model.facts.quantisation.clone()),
        line("context", format!("{} tokens", model.facts.context_tokens)),
        line("tools", yes(model.facts.tools)),
        line(
            "size",
            format!("{} ({} bytes)", size(model.bytes), model.bytes),
        ),
        line("sha256", model.sha256.clone()),
        line("where", model.place().to_owned()),
    ];
    if let Some(file) = &model.file {
        rows.push(line("file", file.display().to_string()));
    }
    if let Some(origin) = &model.origin {
        rows.push(line("from", origin.to_string()));
    }
    if let Some(draft) = &model.tuning.draft {
        rows.push(line("draft", draft.clone()));
    }
    if model.facts.dimensions.is_none() {
        rows.push(line("keys, values", model.tuning.kv.to_string()));
    }
    if let Some(licence) = &model.facts.licence {
        rows.push(line("licence", licence.clone()));
    }
    if model.pinned_at_first_pull {
        rows.push(line(
            "digest",
            "pinned when it was first fetched".to_owned(),
        ));
    }
    if let Some(problem) = &model.problem {
        rows.push(line("problem", problem.clone()));
    }
    Ok(style::print(
        style::table(&["", ""], rows, &[]).trim_start(),
    )?)
}

pub(super) fn catalogue(json: bool) -> Result<(), Failed> {
    if json {
        return print_json(&known::all());
    }
    let rows = known::all()
        .iter()
        .map(|model| {
            let abilities = [
                ("chat", model.capabilities.chat),
                ("tools", model.capabilities.tools),
                ("reasoning", model.capabilities.reasoning),
                ("embeddings", model.capabilities.embeddings),
            ];
            let abilities: Vec<&str> = abilities
                .into_iter()
                .filter(|(_, has)| *has)
                .map(|(name, _)| name)
                .collect();
            vec![
                model.name.clone(),
                count(model.parameters),
                model.source.bytes.map_or("?".to_owned(), size),
                format!("{} MiB", model.memory.estimate_mib),
                model.context_tokens.to_string(),
                abilities.join(", "),
                model.licence.clone(),
                match &model.why_not {
                    None => "yes".to_owned(),
                    Some(why) => format!("no: {why}"),
                },
            ]
        })
        .collect();
    let heading = [
        "NAME", "WEIGHTS", "SIZE", "MEMORY", "CONTEXT", "FOR", "LICENCE", "RUNS",
    ];
    style::print(&style::table(&heading, rows, &[1, 2, 3, 4]))?;
    style::note(
        "Memory is an estimate, with 4,096 tokens in the cache. Add one with `nearfar model add NAME`.",
    );
    Ok(())
}

pub(super) fn print_json(value: &impl Serialize) -> Result<(), Failed> {
    let text =
        serde_json::to_string_pretty(value).map_err(|error| Failed::new(error.to_string()))?;
    Ok(style::print(&(text + "\n"))?)
}

pub(super) fn size(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.0} MB", bytes as f64 / 1e6),
        _ => format!("{:.2} GB", bytes as f64 / 1e9),
    }
}

fn count(weights: u64) -> String {
    match weights {
        0..1_000_000 => format!("{:.0}k", weights as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.0}M", weights as f64 / 1e6),
        _ => format!("{:.1}B", weights as f64 / 1e9),
    }
}

fn yes(is: bool) -> String {
    if is { "yes" } else { "no" }.to_owned()
}
