//! `[guard]`: what is looked for in requests and answers, and what is done
//! about it.

use std::collections::BTreeMap;
use std::ops::Range;

use nearfar_domain::guard::{Kind, Kinds};
use nearfar_domain::privacy::Zone;
use toml::Spanned;
use toml::de::DeValue;

use super::errors::Notes;
use super::reader::{Section, as_section, as_text, nearest, shorten, wrong_type};

/// What the guard is to do. By default nothing: nobody's request is read, and
/// what the device's owner did not ask for changes no answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guard {
    /// What is done about each kind; kinds that are not named are not looked for.
    pub actions: BTreeMap<Kind, Action>,
    /// Texts that must not occur.
    pub patterns: Vec<Pattern>,
    /// Targets that may answer, as names with `*`; empty for all.
    pub models: Vec<String>,
    /// The most bytes of text in a request.
    pub max_prompt_bytes: Option<usize>,
    /// The most tokens of an answer.
    pub max_answer_tokens: Option<u32>,
}

/// What is done about an identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is counted, by its kind alone.
    Log,
    /// The request may reach this zone at most.
    Tag(Zone),
    /// It is replaced before the request leaves, and put back into the answer.
    Redact,
    /// The request is refused.
    Block,
}

impl Action {
    /// The name in metrics and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Action::Log => "log",
            Action::Tag(zone) => zone.as_str(),
            Action::Redact => "redact",
            Action::Block => "block",
        }
    }
}

/// A text that must not occur.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// What messages call it; the text itself is in none.
    pub name: String,
    /// What it looks like.
    pub form: Form,
    /// Whether requests are searched for it.
    pub in_prompt: bool,
    /// Whether answers are.
    pub in_answer: bool,
}

/// How a pattern is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    /// These characters, in whatever case.
    Text(String),
    /// A regular expression.
    Regex(String),
}

impl Guard {
    /// The kinds that something is done about.
    pub fn kinds(&self) -> Kinds {
        self.actions.keys().copied().collect()
    }

    /// The kinds with this action.
    pub fn kinds_with(&self, action: Action) -> Kinds {
        let with = self.actions.iter().filter(|(_, a)| **a == action);
        with.map(|(kind, _)| *kind).collect()
    }
}

const ACTIONS: [&str; 6] = ["off", "log", "device", "site", "redact", "block"];
const MAX_PATTERNS: usize = 64;
const MAX_MODELS: usize = 256;

pub(super) fn read(mut section: Section<'_, '_>, notes: &mut Notes<'_>) -> Guard {
    let mut guard = Guard::default();
    if let Some(kinds) = section.section("kinds", notes) {
        for (name, span, value) in kinds.entries() {
            let key = kinds.key(&shorten(name));
            let kind = kind(name, span, &key, notes);
            let action = as_text(&key, value, notes).and_then(|text| action(&key, &text, notes));
            if let (Some(kind), Some(Some(action))) = (kind, action) {
                guard.actions.insert(kind, action);
            }
        }
    }
    if let Some(value) = section.take("patterns") {
        let path = section.key("patterns");
        match value.get_ref() {
            DeValue::Array(items) if items.len() <= MAX_PATTERNS => {
                let tables = items.iter();
                guard.patterns = tables
                    .filter_map(|item| pattern(as_section(&path, item, item.span(), notes)?, notes))
                    .collect();
            }
            DeValue::Array(_) => notes.at(
                value.span(),
                &path,
                format!("there are more than {MAX_PATTERNS} patterns"),
                "join some into one regex with |",
            ),
            other => notes.at(
                value.span(),
                &path,
                wrong_type(&path, "a list of tables", other),
                format!("write a section [[{path}]] for each pattern"),
            ),
        }
    }
    guard.models = models(&mut section, notes);
    let most = section.size("max_prompt", 1, 1 << 30, notes);
    guard.max_prompt_bytes = most.map(|bytes| bytes as usize);
    let most = section.integer("max_answer_tokens", 1, 10_000_000, notes);
    guard.max_answer_tokens = most.and_then(|tokens| u32::try_from(tokens).ok());
    section.finish(notes);
    guard
}

fn kind(name: &str, span: Range<usize>, key: &str, notes: &mut Notes<'_>) -> Option<Kind> {
    let known = Kind::ALL.map(Kind::as_str);
    let kind = Kind::parse(name);
    if kind.is_none() {
        let mend = match nearest(name, &known) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("the kinds are {}", known.join(", ")),
        };
        notes.at(
            span,
            key,
            format!("there is no kind `{}`", shorten(name)),
            mend,
        );
    }
    kind
}

/// `Some(None)` is off.
fn action(key: &str, text: &Spanned<String>, notes: &mut Notes<'_>) -> Option<Option<Action>> {
    let action = match text.get_ref().as_str() {
        "off" => None,
        "log" => Some(Action::Log),
        "device" => Some(Action::Tag(Zone::Device)),
        "site" => Some(Action::Tag(Zone::Site)),
        "redact" => Some(Action::Redact),
        "block" => Some(Action::Block),
        other => {
            let mend = match nearest(other, &ACTIONS) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => format!("write one of {}", ACTIONS.join(", ")),
            };
            let what = format!("`{}` is not an action", shorten(other));
            notes.at(text.span(), key, what, mend);
            return None;
        }
    };
    Some(action)
}

fn pattern(mut section: Section<'_, '_>, notes: &mut Notes<'_>) -> Option<Pattern> {
    let name = section.text("name", notes);
    let text = section.text("text", notes);
    let regex = section.text("regex", notes);
    let place = section.text("in", notes);
    let form = match (text, regex) {
        (Some(text), None) => Some(Form::Text(text.into_inner())),
        (None, Some(regex)) => checked(&section.key("regex"), &regex, notes),
        _ => {
            notes.absent(
                section.span.clone(),
                section.key("text"),
                "a pattern needs either `text` or `regex`",
                "write text = \"…\" for plain words, or regex = '…'",
            );
            None
        }
    };
    if name.is_none() {
        notes.absent(
            section.span.clone(),
            section.key("name"),
            "a pattern has no name",
            "write name = \"…\": messages name the pattern by it",
        );
    }
    let (in_prompt, in_answer) = match &place {
        None => (true, false),
        Some(place) => match place.get_ref().as_str() {
            "prompt" => (true, false),
            "answer" => (false, true),
            "both" => (true, true),
            _ => {
                notes.at(
                    place.span(),
                    section.key("in"),
                    "this is no place to look in",
                    "write \"prompt\", \"answer\" or \"both\"",
                );
                (true, false)
            }
        },
    };
    section.finish(notes);
    Some(Pattern {
        name: name?.into_inner(),
        form: form?,
        in_prompt,
        in_answer,
    })
}

/// A regular expression that compiles within [`MAX_REGEX_BYTES`] of memory.
fn checked(key: &str, regex: &Spanned<String>, notes: &mut Notes<'_>) -> Option<Form> {
    let said = regex.get_ref();
    let what = match compile(said) {
        Ok(compiled) if compiled.is_match("") => "the regex matches everything, even nothing",
        Ok(_) => return Some(Form::Regex(said.clone())),
        Err(regex::Error::CompiledTooBig(_)) => "the regex needs too much memory",
        Err(_) => "this is not a regular expression",
    };
    notes.at(
        regex.span(),
        key,
        what,
        "write it as Rust's regex crate reads it, in single quotes, without look-around and \
         back references",
    );
    None
}

/// The most memory that one regular expression may take, in bytes, and its
/// searches once more.
const MAX_REGEX_BYTES: usize = 256 << 10;

/// Compiles a regular expression. Matching takes linear time.
///
/// # Errors
/// When it is none, or would take too much memory.
pub fn compile(regex: &str) -> Result<regex::Regex, regex::Error> {
    regex::RegexBuilder::new(regex)
        .size_limit(MAX_REGEX_BYTES)
        .dfa_size_limit(MAX_REGEX_BYTES)
        .build()
}

fn models(section: &mut Section<'_, '_>, notes: &mut Notes<'_>) -> Vec<String> {
    let Some(value) = section.take("models") else {
        return Vec::new();
    };
    let key = section.key("models");
    match value.get_ref() {
        DeValue::Array(items) if (1..=MAX_MODELS).contains(&items.len()) => {
            let texts = items.iter().filter_map(|item| as_text(&key, item, notes));
            texts.map(Spanned::into_inner).collect()
        }
        other => {
            notes.at(
                value.span(),
                &key,
                wrong_type(&key, "a list of 1 to 256 names", other),
                "write a list like [\"local/*\", \"openai/gpt-4o-mini\"], or leave the key out",
            );
            Vec::new()
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::{Config, ConfigErrors, Overrides};

    fn parse(text: &str) -> Result<Guard, ConfigErrors> {
        Config::parse(text, None, &Overrides::default()).map(|config| config.guard)
    }

    #[test]
    fn nothing_is_done_unless_somebody_says_so() {
        assert_eq!(parse("").unwrap(), Guard::default());
        assert!(
            parse("[guard.kinds]\ncard = \"off\"")
                .unwrap()
                .kinds()
                .is_empty()
        );
    }

    #[test]
    fn everything_can_be_said() {
        let guard = parse(
            r#"
            [guard]
            models = ["local/*"]
            max_prompt = "64KiB"
            max_answer_tokens = 500
            [guard.kinds]
            card = "block"
            email = "redact"
            phone = "site"
            ip = "log"
            [[guard.patterns]]
            name = "project"
            text = "blue heron"
            [[guard.patterns]]
            name = "ticket"
            regex = 'TCK-\d{6}'
            in = "both"
            "#,
        )
        .unwrap();
        assert_eq!(guard.actions[&Kind::Phone], Action::Tag(Zone::Site));
        assert_eq!(
            guard.kinds_with(Action::Redact),
            Kinds::NONE.with(Kind::Email)
        );
        assert_eq!(guard.max_prompt_bytes, Some(65_536));
        assert!(guard.patterns[1].in_answer && !guard.patterns[0].in_answer);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let errors = parse(
            "[guard]\nmax_promt = 1\n[guard.kinds]\nemial = \"redact\"\ncard = \"redakt\"\n\
             [[guard.patterns]]\nname = \"x\"\nregex = '('\n[[guard.patterns]]\ntext = \"y\"\n\
             [[guard.patterns]]\nname = \"all\"\nregex = 'a*'\n",
        )
        .unwrap_err()
        .errors;
        let told: Vec<(usize, &str)> = errors
            .iter()
            .map(|e| (e.line, e.mend.split('?').next().unwrap()))
            .collect();
        assert_eq!(told[0], (2, "did you mean `max_prompt`"));
        assert_eq!(told[1], (4, "did you mean `email`"));
        assert_eq!(told[2], (5, "did you mean \"redact\""));
        assert_eq!(errors[3].what, "this is not a regular expression");
        assert_eq!(errors[4].what, "a pattern has no name");
        assert!(errors[5].what.contains("matches everything"));
    }
}
