//! A request's wishes as grammars in llguidance's Lark dialect.

use std::fmt;

use nearfar_domain::chat::ResponseFormat;
use nearfar_domain::events::Failure;
use serde_json::{Value, json};

use super::{Grammars, MAX_SOURCE, gbnf, schema, unable, wrong};

/// The field that schemas come in.
const SCHEMA: &str = "response_format.json_schema.schema";
/// How many parts of a refused schema are tried to find the one at fault.
const MAX_TRIES: usize = 64;

/// Why a grammar cannot be compiled. The text follows "cannot be followed:".
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Problem {
    /// Bounds of size or work are passed.
    TooLarge,
    /// There is no answer that fits.
    Nothing,
    /// Alternatives of a `oneOf` that may hold together.
    Overlap,
    /// The text is no grammar.
    Syntax {
        /// Line and column, where they are known.
        place: Option<(u32, u32)>,
    },
    /// A regular expression that cannot be read.
    Regex,
    /// Names that two of `patternProperties` may match.
    Patterns,
    /// Bounds on the number of properties that cannot be counted.
    Counts,
    /// Anything else.
    Unsupported,
}

impl Problem {
    /// Reads llguidance's words, which may quote the grammar, and keeps none.
    pub(super) fn of(error: &str) -> Self {
        let has = |words: &[&str]| words.iter().any(|word| error.contains(word));
        if has(&["oneOf constraints"]) {
            Self::Overlap
        } else if has(&["min/maxProperties"]) {
            Self::Counts
        } else if has(&["disjoint"]) {
            Self::Patterns
        } else if has(&["Unsatisfiable", "no extension", "NoExtension"]) {
            Self::Nothing
        } else if has(&[
            "too large",
            "too big",
            "fuel",
            "limit",
            "too complex",
            "exceeded",
            "stack level",
        ]) {
            Self::TooLarge
        } else if has(&["invalid regex", "regex parse"]) {
            Self::Regex
        } else if let Some(place) = place(error) {
            Self::Syntax { place: Some(place) }
        } else if has(&[
            "Expected",
            "expected",
            "unknown name",
            "lexer error",
            "Unexpected",
            "not found",
        ]) {
            Self::Syntax { place: None }
        } else {
            Self::Unsupported
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge => f.write_str(
                "it is too large or takes too much work; make it smaller, with fewer alternatives and smaller bounds",
            ),
            Self::Nothing => f.write_str("no answer could ever fit it; its demands contradict one another"),
            Self::Overlap => f.write_str("alternatives of a oneOf may hold together; use anyOf"),
            Self::Syntax { place: Some((line, column)) } => {
                write!(f, "it is not a valid grammar at line {line}, column {column}")
            }
            Self::Syntax { place: None } => f.write_str("it is not a valid grammar"),
            Self::Regex => f.write_str("a regular expression in it is not valid or not supported (no look-around, no back-references)"),
            Self::Patterns => f.write_str("patterns of patternProperties may match the same name; make them exclude one another"),
            Self::Counts => f.write_str("minProperties and maxProperties can be counted only where all properties are required"),
            Self::Unsupported => f.write_str("it holds something that is not supported; simplify it"),
        }
    }
}

/// The first `line(column)` or `line:column` in llguidance's words.
fn place(error: &str) -> Option<(u32, u32)> {
    let mut rest = error;
    loop {
        let at = rest.find(|c: char| c.is_ascii_digit())?;
        rest = &rest[at..];
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, after) = rest.split_at(digits);
        let column = after
            .strip_prefix('(')
            .and_then(|after| after.split_once(')'))
            .and_then(|(column, _)| column.parse().ok());
        if let (Ok(line), Some(column)) = (number.parse(), column) {
            return Some((line, column));
        }
        rest = after;
    }
}

/// Where white space may stand in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spacing {
    /// One space after commas and colons.
    Ours,
    /// Wherever JSON allows it: for an answer that another target began.
    Any,
}

/// A grammar in the making: alternatives for the whole answer and their rules.
pub(super) struct Source {
    starts: Vec<String>,
    rules: String,
    /// A grammar of the client's, which is taken as it is.
    own: Option<String>,
    /// The field that it comes from.
    field: String,
    /// Its schemas with their fields, to find the one at fault.
    schemas: Vec<(String, Value)>,
    spacing: Spacing,
}

impl Source {
    pub(super) fn new(field: &str) -> Self {
        Self {
            starts: Vec::new(),
            rules: String::new(),
            own: None,
            field: field.to_owned(),
            schemas: Vec::new(),
            spacing: Spacing::Ours,
        }
    }

    /// One more form that the whole answer may have.
    pub(super) fn start(&mut self, rule: &str) {
        self.starts.push(rule.to_owned());
    }

    /// A rule.
    pub(super) fn rule(&mut self, name: &str, body: &str) {
        self.rules.push_str(&format!("{name}: {body}\n"));
    }

    /// A rule for JSON that fits `schema`, which came in `field`.
    pub(super) fn json(&mut self, name: &str, schema: &Value, field: &str) {
        self.rule(name, &json_body(schema, self.spacing));
        self.schemas.push((field.to_owned(), schema.clone()));
    }

    /// Allows the forms of `other`, too.
    ///
    /// # Errors
    /// A grammar of the client's own has no room for tool calls.
    pub(super) fn or(&mut self, other: Self) -> Result<(), Failure> {
        if self.own.is_some() {
            return Err(wrong(
                &self.field,
                "a grammar leaves no room for tool calls; set tool_choice to \"none\", or leave out tools or the grammar",
            ));
        }
        self.starts.extend(other.starts);
        self.rules.push_str(&other.rules);
        self.schemas.extend(other.schemas);
        Ok(())
    }

    /// The whole grammar.
    pub(super) fn text(&self) -> String {
        match &self.own {
            Some(own) => own.clone(),
            None => format!("start: {}\n{}", self.starts.join(" | "), self.rules),
        }
    }

    /// The failure that says why it is refused and where the fault lies.
    pub(super) fn refuse(&self, grammars: &Grammars, problem: &Problem) -> Failure {
        for (field, schema) in &self.schemas {
            if let Err(problem) = grammars.try_compile(&whole(schema)) {
                let path = culprit(grammars, schema);
                // A schema is no text of the client's with lines of its own.
                let problem = match problem {
                    Problem::Syntax { .. } => Problem::Unsupported,
                    other => other,
                };
                return unable(
                    field,
                    &format!("{field} cannot be followed at {path}: {problem}"),
                );
            }
        }
        let field = &self.field;
        let message = format!("{field} cannot be followed: {problem}");
        match problem {
            Problem::Syntax { .. } | Problem::Nothing => wrong(field, &message),
            _ => unable(field, &message),
        }
    }
}

/// A schema as a grammar of its own.
fn whole(schema: &Value) -> String {
    format!("start: {}\n", json_body(schema, Spacing::Ours))
}

/// JSON in one form: a space after commas and colons, no other white space. It
/// is how models write it mostly, and keys and punctuation follow without
/// being sampled. Characters are never written by their numbers: a name has one
/// spelling then, and what a schema says of it cannot be passed by with another.
fn json_body(schema: &Value, spacing: Spacing) -> String {
    let mut schema = match schema {
        Value::Object(map) => map.clone(),
        Value::Bool(true) => serde_json::Map::new(),
        // Nothing fits: let llguidance say so.
        _ => [("enum".to_owned(), json!([]))].into_iter().collect(),
    };
    let mut form = match spacing {
        Spacing::Ours => {
            json!({"whitespace_flexible": false, "item_separator": ", ", "key_separator": ": "})
        }
        // Bounded, or a weak model might write nothing but spaces.
        Spacing::Any => json!({"whitespace_pattern": r"[\x20\x0A\x0D\x09]{1,40}"}),
    };
    form["json_allowed_escapes"] = json!("nrbtf\\\"");
    schema.insert("x-guidance".to_owned(), form);
    format!("%json {}", Value::Object(schema))
}

/// A literal text.
pub(super) fn literal(text: &str) -> String {
    Value::from(text).to_string()
}

/// The field that a format comes in.
fn field(format: &ResponseFormat) -> &'static str {
    match format {
        ResponseFormat::Text | ResponseFormat::JsonObject => "response_format",
        ResponseFormat::JsonSchema { .. } => SCHEMA,
        ResponseFormat::Regex(_) => "guided_regex",
        ResponseFormat::Choice(_) => "guided_choice",
        ResponseFormat::Grammar(_) => "grammar",
    }
}

/// The grammar of a response format; not for plain text.
///
/// # Errors
/// `BadRequest` or `Unsupported` for what can be told without compiling.
pub(super) fn response(format: &ResponseFormat, spacing: Spacing) -> Result<Source, Failure> {
    let field = field(format);
    let mut source = Source {
        spacing,
        ..Source::new(field)
    };
    source.start("answer");
    match format {
        ResponseFormat::Text => source.rule("answer", "/(?s:.*)/"),
        ResponseFormat::JsonObject => {
            source.json("answer", &json!({"type": "object"}), field);
        }
        ResponseFormat::JsonSchema { schema, .. } => {
            let schema = schema::checked(schema).map_err(|refused| {
                unable(
                    field,
                    &format!("{field} at {}: {}", refused.path, refused.problem),
                )
            })?;
            source.json("answer", &schema, field);
        }
        ResponseFormat::Regex(regex) => {
            small(field, regex)?;
            let regex = llguidance::regex_to_lark(regex, "");
            source.rule("answer", &format!("/{regex}/"));
        }
        ResponseFormat::Choice(choices) => {
            let total: usize = choices.iter().map(String::len).sum();
            if choices.is_empty() || choices.iter().any(String::is_empty) || total > MAX_SOURCE {
                return Err(wrong(field, "guided_choice must hold texts, none empty"));
            }
            let choices: Vec<String> = choices.iter().map(|text| literal(text)).collect();
            source.rule("answer", &choices.join(" | "));
        }
        ResponseFormat::Grammar(grammar) => {
            small(field, grammar)?;
            source.own = Some(if gbnf::is_gbnf(grammar) {
                gbnf::to_lark(grammar).map_err(|error| {
                    wrong(
                        field,
                        &format!(
                            "grammar is not valid GBNF at line {}: {}",
                            error.line, error.problem
                        ),
                    )
                })?
            } else {
                grammar.clone()
            });
        }
    }
    Ok(source)
}

fn small(field: &str, text: &str) -> Result<(), Failure> {
    if text.trim().is_empty() {
        return Err(wrong(field, &format!("{field} must not be empty")));
    }
    if text.len() > MAX_SOURCE {
        return Err(wrong(
            field,
            &format!("{field} is longer than {} KiB", MAX_SOURCE >> 10),
        ));
    }
    Ok(())
}

/// The place of the smallest part that cannot be followed by itself.
fn culprit(grammars: &Grammars, schema: &Value) -> String {
    let mut path = "#".to_owned();
    let mut part = schema.clone();
    let mut tries = 0;
    while let Some((at, found)) = parts(&part).into_iter().find(|(_, part)| {
        tries += 1;
        tries <= MAX_TRIES
            && grammars
                .try_compile(&whole(&with_definitions(part, schema)))
                .is_err()
    }) {
        for name in at {
            path = schema::join(&path, &name);
        }
        part = found;
    }
    path
}

/// The subschemas right below, with the way to each.
fn parts(schema: &Value) -> Vec<(Vec<String>, Value)> {
    let mut out = Vec::new();
    let Value::Object(map) = schema else {
        return out;
    };
    for (key, value) in map {
        match key.as_str() {
            "properties" | "patternProperties" | "$defs" | "definitions" => {
                for (name, part) in value.as_object().into_iter().flatten() {
                    out.push((vec![key.clone(), name.clone()], part.clone()));
                }
            }
            "anyOf" | "oneOf" | "allOf" | "prefixItems" => {
                for (index, part) in value.as_array().into_iter().flatten().enumerate() {
                    out.push((vec![key.clone(), index.to_string()], part.clone()));
                }
            }
            "items" => out.push((vec![key.clone()], value.clone())),
            "additionalProperties" if value.is_object() => {
                out.push((vec![key.clone()], value.clone()));
            }
            _ => {}
        }
    }
    out
}

/// A part of `root` that can still refer to its definitions.
pub(super) fn with_definitions(part: &Value, root: &Value) -> Value {
    let mut part = part.clone();
    if let (Value::Object(map), Value::Object(root)) = (&mut part, root) {
        for key in ["$defs", "definitions"] {
            if let Some(definitions) = root.get(key) {
                map.entry(key).or_insert_with(|| definitions.clone());
            }
        }
    }
    part
}
