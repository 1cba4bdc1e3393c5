//! Tool calls in a family's own format, as grammars made from the tools.

use nearfar_domain::chat::{Chat, Tool, ToolChoice};
use nearfar_domain::events::Failure;
use serde_json::{Value, json};

use super::lark::{Source, literal, with_definitions};
use super::{schema, unable, wrong};
use crate::output::ToolFormat;
use crate::tokenizer::Tokenizer;

/// After the first call of an answer: a weak model would never stop calling.
const MORE_CALLS: &str = "{0,7}";

/// How a format writes calls, with the tokens of one model.
#[derive(Clone, Debug)]
pub(super) struct Marks {
    /// What begins a call (or the list of calls) and, where it is one, its token.
    open: (&'static str, Option<u32>),
    /// Between the opener and the first call.
    begin: &'static str,
    body: Body,
    /// Between two calls of one list; `None` where one opener has one call.
    between: Option<&'static str>,
    /// After the last call of an opener.
    end: &'static str,
    close: (&'static str, Option<u32>),
    /// Between two openers; `None` where there is only one.
    again: Option<&'static str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Body {
    /// `{"name": "f", KEY: {…}}`
    Object(&'static str),
    /// `f[ARGS]{…}`
    Named,
    /// `f(a=1)`
    Pythonic,
}

impl Marks {
    /// `None` when there is no way to call tools.
    pub(super) fn of(format: ToolFormat, tokenizer: &Tokenizer) -> Option<Self> {
        let mark = |text: &'static str| (text, tokenizer.id_of(text).filter(|_| !text.is_empty()));
        let arguments = Body::Object("arguments");
        let marks = match format {
            ToolFormat::None => return None,
            ToolFormat::Hermes => Self {
                open: mark("<tool_call>"),
                begin: "\n",
                body: arguments,
                between: None,
                end: "\n",
                close: mark("</tool_call>"),
                again: Some("\n"),
            },
            // "This model only supports single tool-calls at once" (its template).
            ToolFormat::BareJson => Self {
                open: mark(""),
                begin: "",
                body: Body::Object("parameters"),
                between: None,
                end: "",
                close: mark(""),
                again: None,
            },
            ToolFormat::MistralList => Self {
                open: mark("[TOOL_CALLS]"),
                begin: "[",
                body: arguments,
                between: Some(", "),
                end: "]",
                close: mark(""),
                again: None,
            },
            ToolFormat::MistralArgs => Self {
                open: mark("[TOOL_CALLS]"),
                begin: "",
                body: Body::Named,
                between: None,
                end: "",
                close: mark(""),
                again: Some(""),
            },
            ToolFormat::Granite => Self {
                open: mark("<|tool_call|>"),
                begin: "[",
                body: arguments,
                between: Some(", "),
                end: "]",
                close: mark(""),
                again: None,
            },
            ToolFormat::Phi => {
                let token = mark("<|tool_call|>");
                let (open, close) = if token.1.is_some() {
                    (token, mark("<|/tool_call|>"))
                } else {
                    (("functools", None), mark(""))
                };
                Self {
                    open,
                    begin: "[",
                    body: arguments,
                    between: Some(", "),
                    end: "]",
                    close,
                    again: None,
                }
            }
            ToolFormat::Lfm2 => Self {
                open: mark("<|tool_call_start|>"),
                begin: "[",
                body: Body::Pythonic,
                between: Some(", "),
                end: "]",
                close: mark("<|tool_call_end|>"),
                again: None,
            },
            ToolFormat::ToolCode => Self {
                open: ("```tool_code", None),
                begin: "\n",
                body: Body::Pythonic,
                between: Some("\n"),
                end: "\n",
                close: ("```", None),
                again: None,
            },
        };
        Some(marks)
    }

    /// The token that a call begins with, where it is one.
    pub(super) fn token(&self) -> Option<u32> {
        self.open.1
    }
}

/// The whole answer must be calls.
///
/// # Errors
/// `BadRequest` with the tool and the place in its schema.
pub(super) fn demanded(chat: &Chat, marks: &Marks) -> Result<Source, Failure> {
    calls(chat, marks, true)
}

/// Calls as one form that the answer may have. `must`: a schema that cannot be
/// followed is refused, not loosened.
///
/// # Errors
/// As [`demanded`].
pub(super) fn calls(chat: &Chat, marks: &Marks, must: bool) -> Result<Source, Failure> {
    let mut source = Source::new("tools");
    let many = chat.params.parallel_tool_calls != Some(false);
    source.start("calls");
    let one = format!("{}calls_begun", sequence(&[mark(marks.open)]));
    match marks.again.filter(|_| many) {
        Some(again) => {
            source.rule(
                "calls",
                &format!(
                    "call ({}call){MORE_CALLS}",
                    sequence(&[literal_or_none(again)])
                ),
            );
            source.rule("call", &one);
        }
        None => source.rule("calls", &one),
    }
    body(&mut source, chat, marks, must)?;
    Ok(source)
}

/// What follows the opener of a call that the model began by itself.
///
/// # Errors
/// As [`demanded`], for tools that are `strict`.
pub(super) fn begun(chat: &Chat, marks: &Marks) -> Result<Source, Failure> {
    let mut source = Source::new("tools");
    source.start("calls_begun");
    body(&mut source, chat, marks, false)?;
    Ok(source)
}

/// The rule `calls_begun`: what follows an opener.
fn body(source: &mut Source, chat: &Chat, marks: &Marks, must: bool) -> Result<(), Failure> {
    let many = chat.params.parallel_tool_calls != Some(false);
    let more = marks
        .between
        .filter(|_| many)
        .map_or_else(String::new, |between| {
            format!("({} tool){MORE_CALLS}", literal(between))
        });
    source.rule(
        "calls_begun",
        &sequence(&[
            literal_or_none(marks.begin),
            "tool".to_owned(),
            more,
            literal_or_none(marks.end),
            mark(marks.close),
        ]),
    );
    let mut names = Vec::new();
    for (index, tool) in chat.tools.iter().enumerate() {
        if let ToolChoice::Named(wanted) = &chat.tool_choice
            && *wanted != tool.name
        {
            continue;
        }
        let rule = format!("t{index}");
        call(source, &rule, tool, index, marks.body, must)?;
        names.push(rule);
    }
    if names.is_empty() {
        return Err(wrong(
            "tool_choice",
            "tool_choice names a function that tools does not hold",
        ));
    }
    source.rule("tool", &names.join(" | "));
    Ok(())
}

fn call(
    source: &mut Source,
    rule: &str,
    tool: &Tool,
    index: usize,
    body: Body,
    must: bool,
) -> Result<(), Failure> {
    let field = format!("tools[{index}].function.parameters");
    let schema = arguments(tool, &field, must)?;
    let values = format!("{rule}_arguments");
    match body {
        Body::Object(key) => {
            let before = format!("{{\"name\": {}, \"{key}\": ", literal(&tool.name));
            source.rule(rule, &format!("{} {values} \"}}\"", literal(&before)));
            source.json(&values, &schema, &field);
        }
        Body::Named => {
            source.rule(
                rule,
                &format!("{} {} {values}", literal(&tool.name), literal("[ARGS]")),
            );
            source.json(&values, &schema, &field);
        }
        Body::Pythonic => pythonic(source, rule, tool, &schema, &field),
    }
    Ok(())
}

/// The schema of a tool's arguments, ready to be followed.
fn arguments(tool: &Tool, field: &str, must: bool) -> Result<Value, Failure> {
    let Some(text) = &tool.parameters else {
        return Ok(json!({"type": "object", "additionalProperties": false}));
    };
    match schema::checked(text) {
        Ok(Value::Object(mut map)) => {
            // Arguments are an object, whether or not the schema says so.
            map.entry("type").or_insert_with(|| json!("object"));
            // `"properties": {}` is how most write that there are none.
            let none = map.get("properties") == Some(&json!({}));
            if none && !map.contains_key("additionalProperties") {
                map.insert("additionalProperties".to_owned(), json!(false));
            }
            Ok(Value::Object(map))
        }
        Ok(_) => Ok(json!({"type": "object"})),
        Err(refused) if must || tool.strict == Some(true) => Err(unable(
            field,
            &format!("{field} at {}: {}", refused.path, refused.problem),
        )),
        Err(_) => Ok(json!({"type": "object"})),
    }
}

/// `f(a="x", b=1)`: arguments in the schema's order, optional ones left out at
/// will. Two rules per argument: with and without one before it.
fn pythonic(source: &mut Source, rule: &str, tool: &Tool, schema: &Value, field: &str) {
    let none = serde_json::Map::new();
    let properties = schema
        .get("properties")
        .and_then(Value::as_object)
        .unwrap_or(&none);
    let required: Vec<&str> = schema
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let open = literal(&format!("{}(", tool.name));
    let identifiers: Vec<(&String, &Value)> = properties
        .iter()
        .filter(|(name, _)| is_identifier(name))
        .collect();
    if identifiers.is_empty() {
        source.rule(rule, &format!("{open} \")\""));
        return;
    }
    source.rule(rule, &format!("{open} {rule}_first0 \")\""));
    let last = identifiers.len();
    for (index, (name, value)) in identifiers.iter().enumerate() {
        let next = index + 1;
        let given = format!(
            "{} {rule}_value{index} {rule}_more{next}",
            literal(&format!("{name}="))
        );
        let optional = !required.contains(&name.as_str());
        let skip = |kind: &str| {
            if optional {
                format!(" | {rule}_{kind}{next}")
            } else {
                String::new()
            }
        };
        source.rule(
            &format!("{rule}_first{index}"),
            &format!("{given}{}", skip("first")),
        );
        source.rule(
            &format!("{rule}_more{index}"),
            &format!("\", \" {given}{}", skip("more")),
        );
        let values = format!("{rule}_value{index}");
        if value.get("type") == Some(&json!("boolean")) {
            source.rule(&values, "\"True\" | \"False\"");
        } else {
            source.json(&values, &with_definitions(value, schema), field);
        }
    }
    source.rule(&format!("{rule}_first{last}"), "\"\"");
    source.rule(&format!("{rule}_more{last}"), "\"\"");
}

fn is_identifier(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn mark((text, id): (&str, Option<u32>)) -> String {
    match id {
        Some(id) => format!("<[{id}]>"),
        None => literal_or_none(text),
    }
}

fn literal_or_none(text: &str) -> String {
    if text.is_empty() {
        String::new()
    } else {
        literal(text)
    }
}

fn sequence(parts: &[String]) -> String {
    let mut out = String::new();
    for part in parts.iter().filter(|part| !part.is_empty()) {
        out.push_str(part);
        out.push(' ');
    }
    out
}
