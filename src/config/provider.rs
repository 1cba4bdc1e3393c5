//! Providers: what was typed, laid over the preset that it names.

use std::path::Path;

use nearfar_domain::frames::ModelCard;
use nearfar_domain::ids::LOCAL;
use nearfar_domain::privacy::Zone;
use nearfar_domain::target::{Capabilities, Dialect, RemoteZone};
use nearfar_egress::{Auth, KeySource, Provider, habits_at, preset, presets};
use toml::Spanned;

use super::errors::{Notes, looks_like_a_key};
use super::file_path;
use super::low::{LowModel, LowProvider};
use super::reader::{nearest, shorten};
use super::url::{self, Nearness};

/// Every provider of the file, then those of the environment that the file
/// does not configure.
pub(super) fn all(
    low: &[LowProvider],
    base: Option<&Path>,
    env: &[String],
    notes: &mut Notes<'_>,
) -> Vec<Provider> {
    let mut providers: Vec<Provider> = low.iter().filter_map(|low| one(low, base, notes)).collect();
    for name in env {
        let configured = low.iter().any(|low| {
            low.name.get_ref() == name
                || low
                    .preset
                    .as_ref()
                    .is_some_and(|preset| preset.get_ref() == name)
        });
        if configured || providers.iter().any(|provider| &provider.name == name) {
            continue;
        }
        // One that is at another address for everybody cannot be guessed.
        providers.extend(preset(name).filter(|preset| !preset.base_url.is_empty()));
    }
    providers
}

fn one(low: &LowProvider, base: Option<&Path>, notes: &mut Notes<'_>) -> Option<Provider> {
    let name = low.name.get_ref().as_str();
    let path = format!("providers.{}", shorten(name));
    let named = check_name(low, &path, notes);
    let preset = find_preset(low, &path, notes);
    let dialect = dialect(low, &path, notes);
    let zone = zone(low, &path, notes);
    let key = key(low, &path, base, notes);
    let base_url = base_url(low, &path, preset.as_ref(), notes);
    let models = models(low, &path, preset.as_ref(), notes);
    let open_list = open_list(low, &path, preset.as_ref(), &models, notes);
    let auth = auth(low, &path, notes);
    named?;
    let base_url = base_url?;
    let dialect = dialect
        .or(preset.as_ref().map(|preset| preset.dialect))
        .unwrap_or(Dialect::Openai);
    // A preset that is named, or that is at home nowhere, says how the server
    // behaves, wherever it is.
    let said = preset
        .as_ref()
        .filter(|preset| low.preset.is_some() || preset.base_url.is_empty());
    // Its prices hold at its own address, in whatever region.
    let at_home = said.is_some()
        || preset
            .as_ref()
            .is_some_and(|preset| site(&preset.base_url) == site(&base_url));
    Some(Provider {
        name: name.to_owned(),
        preset: preset
            .as_ref()
            .filter(|_| at_home)
            .map(|preset| preset.name.clone()),
        dialect,
        habits: said.map_or_else(|| habits_at(&base_url), |preset| preset.habits),
        auth: auth
            .or(said
                .map(|preset| preset.auth)
                .filter(|_| low.dialect.is_none()))
            .unwrap_or_else(|| Auth::usual(dialect, &base_url)),
        base_url,
        // What nobody placed is far.
        zone: zone
            .or(preset.as_ref().map(|preset| preset.zone))
            .unwrap_or(RemoteZone::Cloud),
        key: key
            .or(preset.as_ref().map(|preset| preset.key.clone()))
            .unwrap_or(KeySource::None),
        models,
        open_list,
    })
}

/// The last two labels of an address's host.
fn site(url: &str) -> Option<(&str, &str)> {
    let host = url.split_once("://")?.1.split(['/', ':', '?']).next()?;
    let (rest, last) = host.rsplit_once('.')?;
    Some((rest.rsplit('.').next().unwrap_or(rest), last))
}

fn check_name(low: &LowProvider, path: &str, notes: &mut Notes<'_>) -> Option<()> {
    let name = low.name.get_ref().as_str();
    let (what, mend) = if name == LOCAL {
        (
            "the name `local` is this device's own",
            "give the provider another name, like [providers.lan]",
        )
    } else if name == "auto" {
        (
            "the name `auto` lets nearfar choose, so no provider can have it",
            "give the provider another name",
        )
    } else if name.is_empty()
        || name.len() > 64
        || !name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c))
    {
        (
            "a provider's name must have 1 to 64 of a-z, 0-9, `-` and `_`",
            "rename the section, like [providers.my-server]",
        )
    } else {
        return Some(());
    };
    notes.at(low.name.span(), path, what, mend);
    None
}

/// The preset that is named, or the one of the provider's own name.
fn find_preset(low: &LowProvider, path: &str, notes: &mut Notes<'_>) -> Option<Provider> {
    let Some(said) = &low.preset else {
        return preset(low.name.get_ref());
    };
    let found = preset(said.get_ref());
    if found.is_none() {
        let all: Vec<String> = presets().into_iter().map(|preset| preset.name).collect();
        let names: Vec<&str> = all.iter().map(String::as_str).collect();
        notes.at(
            said.span(),
            format!("{path}.preset"),
            format!("there is no preset `{}`", shorten(said.get_ref())),
            match nearest(said.get_ref(), &names) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => format!("the presets are {}; or write base_url", names.join(", ")),
            },
        );
    }
    found
}

fn dialect(low: &LowProvider, path: &str, notes: &mut Notes<'_>) -> Option<Dialect> {
    let said = low.dialect.as_ref()?;
    match said.get_ref().as_str() {
        "openai" => Some(Dialect::Openai),
        "anthropic" => Some(Dialect::Anthropic),
        "gemini" => Some(Dialect::Gemini),
        "bedrock" => Some(Dialect::Bedrock),
        other => {
            notes.at(
                said.span(),
                format!("{path}.dialect"),
                format!("there is no dialect `{}`", shorten(other)),
                match nearest(other, &["openai", "anthropic", "gemini", "bedrock"]) {
                    Some(near) => format!("did you mean \"{near}\"?"),
                    None => "write \"openai\", \"anthropic\", \"gemini\" or \"bedrock\"".to_owned(),
                },
            );
            None
        }
    }
}

fn auth(low: &LowProvider, path: &str, notes: &mut Notes<'_>) -> Option<Auth> {
    let said = low.auth.as_ref()?;
    let found = Auth::named(said.get_ref());
    if found.is_none() {
        let names = Auth::names();
        notes.at(
            said.span(),
            format!("{path}.auth"),
            format!(
                "there is no way `{}` to show a key",
                shorten(said.get_ref())
            ),
            match nearest(said.get_ref(), &names) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => format!("write one of {}", names.join(", ")),
            },
        );
    }
    found
}

fn zone(low: &LowProvider, path: &str, notes: &mut Notes<'_>) -> Option<RemoteZone> {
    let said = low.zone.as_ref()?;
    match said.get_ref() {
        Zone::Site => Some(RemoteZone::Site),
        Zone::Cloud => Some(RemoteZone::Cloud),
        Zone::Device => {
            notes.at(
                said.span(),
                format!("{path}.zone"),
                "a provider is never in zone `device`: nearfar cannot vouch for another process",
                "write \"site\" for a server of your own, else \"cloud\"",
            );
            None
        }
    }
}

fn key(
    low: &LowProvider,
    path: &str,
    base: Option<&Path>,
    notes: &mut Notes<'_>,
) -> Option<KeySource> {
    let said = [&low.key_file, &low.key_env, &low.key_credential];
    secret(path, "key", said, base, notes)
}

/// Where a secret is, which the configuration calls `key` or `password`. `said`
/// are a file's path, a variable's name and a credential's name.
pub(super) fn secret(
    path: &str,
    what: &str,
    said: [&Option<Spanned<String>>; 3],
    base: Option<&Path>,
    notes: &mut Notes<'_>,
) -> Option<KeySource> {
    let [in_file, in_env, in_credential] = said;
    let said: Vec<_> = said.into_iter().flatten().collect();
    if let [_, second, ..] = said.as_slice() {
        notes.at(
            second.span(),
            path,
            format!("there is one {what}, but more than one place is named"),
            format!("keep one of {what}_file, {what}_credential and {what}_env"),
        );
        return None;
    }
    if said.iter().any(|text| looks_like_a_key(text.get_ref())) {
        notes.at(
            said[0].span(),
            path,
            format!("this looks like a {what} itself"),
            format!(
                "put the {what} into a file that only nearfar may read, and name the file with \
                 {what}_file"
            ),
        );
        return None;
    }
    if let Some(file) = in_file {
        let file = file_path(&format!("{path}.{what}_file"), file, base, notes);
        return Some(KeySource::File(file));
    }
    if let Some(name) = in_env {
        let text = name.get_ref();
        let fits = text.len() <= 128
            && !text.starts_with(|c: char| c.is_ascii_digit())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !fits {
            notes.at(
                name.span(),
                format!("{path}.{what}_env"),
                "this is not the name of an environment variable",
                format!("write a name, like {what}_env = \"OPENAI_API_KEY\""),
            );
            return None;
        }
        return Some(KeySource::Env(text.clone()));
    }
    let name = in_credential.as_ref()?;
    let text = name.get_ref();
    if text.len() > 128 || text.contains('/') || text.starts_with('.') {
        notes.at(
            name.span(),
            format!("{path}.{what}_credential"),
            "a credential is a file's name inside the credentials directory, not a path",
            format!("write the bare name, or use {what}_file for a path"),
        );
        return None;
    }
    Some(KeySource::Credential(text.clone()))
}

fn base_url(
    low: &LowProvider,
    path: &str,
    preset: Option<&Provider>,
    notes: &mut Notes<'_>,
) -> Option<String> {
    let Some(said) = &low.base_url else {
        let nowhere = preset.is_some_and(|preset| preset.base_url.is_empty());
        if nowhere || (preset.is_none() && low.preset.is_none()) {
            notes.absent(
                low.name.span(),
                format!("{path}.base_url"),
                "this provider has no address",
                "write base_url = \"https://…/v1\", or name a preset",
            );
        }
        return preset
            .map(|preset| preset.base_url.clone())
            .filter(|url| !url.is_empty());
    };
    let key = format!("{path}.base_url");
    let url = match url::parse(said.get_ref()) {
        Ok(url) => url,
        Err((what, mend)) => {
            notes.at(said.span(), key, what, mend);
            return None;
        }
    };
    let site = low
        .zone
        .as_ref()
        .is_some_and(|zone| *zone.get_ref() == Zone::Site);
    let plain_is_fine = match url.nearness {
        Nearness::Loopback | Nearness::Private => true,
        Nearness::Unknown => site,
        Nearness::Public => false,
    };
    if !url.https && !plain_is_fine {
        notes.at(
            said.span(),
            key,
            "prompts and keys would travel unencrypted: http is for loopback, private networks \
             and zone \"site\"",
            "write https://, or zone = \"site\" for a server of your own network",
        );
        return None;
    }
    Some(url.text)
}

fn open_list(
    low: &LowProvider,
    path: &str,
    preset: Option<&Provider>,
    models: &[ModelCard],
    notes: &mut Notes<'_>,
) -> bool {
    let Some(said) = &low.open_list else {
        return preset.map_or(models.is_empty(), |preset| preset.open_list);
    };
    if !said.get_ref() && models.is_empty() && low.models.is_none() {
        notes.absent(
            said.span(),
            format!("{path}.open_list"),
            "without a list of models and without open_list no model could be reached",
            format!("list models with [[{path}.models]], or write open_list = true"),
        );
    }
    *said.get_ref()
}

/// The file's models where it lists any, else the preset's. A model that the
/// preset knows begins with what the preset knows of it.
fn models(
    low: &LowProvider,
    path: &str,
    preset: Option<&Provider>,
    notes: &mut Notes<'_>,
) -> Vec<ModelCard> {
    let known = preset.map_or(&[][..], |preset| preset.models.as_slice());
    let Some(said) = &low.models else {
        return known.to_vec();
    };
    let mut cards: Vec<ModelCard> = Vec::new();
    for low in said {
        let name = low.name.get_ref();
        if name.len() > 256 {
            notes.at(
                low.name.span(),
                format!("{path}.models.name"),
                "a model's name has at most 256 characters",
                "write it as the provider does",
            );
            continue;
        }
        if cards.iter().any(|card| &card.name == name) {
            notes.at(
                low.name.span(),
                format!("{path}.models.name"),
                format!("the model `{}` is listed twice", shorten(name)),
                "leave one out",
            );
            continue;
        }
        let before = known.iter().find(|card| &card.name == name);
        cards.push(card(low, before, cards.is_empty()));
    }
    cards
}

fn card(low: &LowModel, known: Option<&ModelCard>, first: bool) -> ModelCard {
    let before = known.map_or(NOTHING_KNOWN, |card| card.capabilities);
    let tools = low.tools.unwrap_or(before.tools);
    let embeddings = low.embeddings.unwrap_or(before.embeddings);
    ModelCard {
        name: low.name.get_ref().clone(),
        capabilities: Capabilities {
            context_tokens: low
                .context_tokens
                .map(|tokens| u32::try_from(tokens).unwrap_or(u32::MAX))
                .or(before.context_tokens),
            tools,
            forced_tools: low.forced_tools.unwrap_or(before.forced_tools) && tools,
            json_object: low.json_object.unwrap_or(before.json_object),
            json_schema: low.json_schema.unwrap_or(before.json_schema),
            grammar: low.grammar.unwrap_or(before.grammar),
            vision: low.vision.unwrap_or(before.vision),
            logprobs: low.logprobs.unwrap_or(before.logprobs),
            raw_text: low.raw_text.unwrap_or(before.raw_text),
            // A model that is described for its vectors does nothing else.
            chat: before.chat && !(known.is_none() && embeddings),
            embeddings,
        },
        price: low.price.or(known.and_then(|card| card.price)),
        // Only the first one, so that a long list does not let `auto` wander.
        auto: low.auto.unwrap_or(first),
        prefill: low
            .prefill
            .unwrap_or(known.is_some_and(|card| card.prefill)),
    }
}

const NOTHING_KNOWN: Capabilities = Capabilities {
    context_tokens: None,
    tools: false,
    forced_tools: false,
    json_object: false,
    json_schema: false,
    grammar: false,
    vision: false,
    logprobs: false,
    raw_text: false,
    chat: true,
    embeddings: false,
};
