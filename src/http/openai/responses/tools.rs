//! Tools and the choice among them, which Responses write flatter than chat
//! completions do.

use nearfar_domain::chat::{Tool, ToolChoice};
use serde_json::Value;

use crate::http::fields::Fields;
use crate::http::openai::request::function_tool;
use crate::http::problem::Problem;

/// The most tools that one request may carry.
const MAX_TOOLS: usize = 256;

/// Reads `tools` as they were sent.
pub(super) fn tools(items: &[Value]) -> Result<Vec<Tool>, Problem> {
    if items.len() > MAX_TOOLS {
        return Err(Problem::field(
            "tools",
            format!("tools may hold at most {MAX_TOOLS} tools."),
        ));
    }
    let items = items.iter().enumerate();
    items
        .map(|(index, value)| tool(&format!("tools[{index}]"), value.clone()))
        .collect()
}

fn tool(path: &str, value: Value) -> Result<Tool, Problem> {
    let mut fields = Fields::of(path, value)?;
    let kind = fields.required_string("type")?;
    if kind != "function" {
        return Err(Problem::field(fields.path_of("type"), hosted(&kind)));
    }
    function_tool(fields)
}

/// Why a kind of tool cannot be had. Only known kinds are quoted: others are
/// the client's text.
fn hosted(kind: &str) -> String {
    const HOSTED: [&str; 14] = [
        "web_search",
        "web_search_preview",
        "file_search",
        "code_interpreter",
        "image_generation",
        "computer",
        "computer_use_preview",
        "mcp",
        "tool_search",
        "custom",
        "shell",
        "local_shell",
        "apply_patch",
        "namespace",
    ];
    let known = HOSTED.iter().find(|name| {
        // Dated names, too: `web_search_preview_2025_03_11`.
        kind.strip_prefix(**name)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with("_20"))
    });
    match known {
        Some(name) => format!(
            "Tools of type {name} are run by OpenAI, and nearfar has none. Offer a function tool \
             that does the same, run it in your program and send back its output."
        ),
        None => "The tool's type must be function.".to_owned(),
    }
}

/// Reads `tool_choice`. Where it allows some of the tools only, the others are
/// taken out of `tools`.
pub(super) fn choice(value: Option<Value>, tools: &mut Vec<Tool>) -> Result<ToolChoice, Problem> {
    let wrong = || {
        Problem::field(
            "tool_choice",
            "tool_choice must be none, auto, required, {\"type\":\"function\",\"name\":…} with the \
             name of one of the tools, or {\"type\":\"allowed_tools\",\"mode\":…,\"tools\":[…]}.",
        )
    };
    let choice = match value {
        None => return Ok(ToolChoice::Auto),
        Some(Value::String(word)) => word_of(&word).ok_or_else(wrong)?,
        Some(value) => {
            let mut fields = Fields::of("tool_choice", value)?;
            match fields.required_string("type")?.as_str() {
                "function" => ToolChoice::Named(fields.required_string("name")?),
                "allowed_tools" => {
                    let allowed = fields.array("tools")?.ok_or_else(wrong)?;
                    let is_allowed = |tool: &Tool| {
                        allowed
                            .iter()
                            .any(|a| a["type"] == "function" && a["name"] == tool.name.as_str())
                    };
                    tools.retain(is_allowed);
                    if tools.len() != allowed.len() {
                        return Err(wrong());
                    }
                    let mode = fields.string("mode")?;
                    word_of(mode.as_deref().unwrap_or("auto")).ok_or_else(wrong)?
                }
                _ => return Err(wrong()),
            }
        }
    };
    match &choice {
        ToolChoice::Named(name) if !tools.iter().any(|tool| tool.name == *name) => Err(wrong()),
        ToolChoice::Required if tools.is_empty() => Err(Problem::field(
            "tool_choice",
            "tool_choice is required, but there are no tools.",
        )),
        _ => Ok(choice),
    }
}

fn word_of(word: &str) -> Option<ToolChoice> {
    match word {
        "none" => Some(ToolChoice::None),
        "auto" => Some(ToolChoice::Auto),
        "required" => Some(ToolChoice::Required),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn function(name: &str) -> Value {
        json!({"type": "function", "name": name, "parameters": {"type": "object"}, "strict": true})
    }

    fn message(problem: &Problem) -> String {
        problem.openai_body()["error"]["message"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    #[test]
    fn functions_are_read_and_others_are_refused_by_name() {
        let read = tools(&[function("f")]).unwrap();
        assert_eq!((read[0].name.as_str(), read[0].strict), ("f", Some(true)));
        assert_eq!(read[0].parameters.as_deref(), Some(r#"{"type":"object"}"#));
        for kind in ["web_search_preview_2025_03_11", "mcp", "code_interpreter"] {
            let error = tools(&[json!({"type": kind})]).unwrap_err();
            assert_eq!(error.openai_body()["error"]["param"], "tools[0].type");
            assert!(message(&error).contains("function tool"), "{kind}");
        }
        let error = tools(&[json!({"type": "my secret"})]).unwrap_err();
        assert!(!message(&error).contains("secret"));
        assert!(tools(&[json!({"type": "function", "name": "no spaces"})]).is_err());
    }

    #[test]
    fn the_choice_may_be_among_some() {
        let all = || tools(&[function("f"), function("g")]).unwrap();
        let choose = |value: Value, tools: &mut Vec<Tool>| choice(Some(value), tools);
        assert!(matches!(
            choose(json!("none"), &mut all()),
            Ok(ToolChoice::None)
        ));
        let named = json!({"type": "function", "name": "g"});
        assert!(matches!(choose(named, &mut all()), Ok(ToolChoice::Named(name)) if name == "g"));
        let mut some = all();
        let allowed = json!({"type": "allowed_tools", "mode": "required",
                             "tools": [{"type": "function", "name": "g"}]});
        assert!(matches!(
            choose(allowed, &mut some),
            Ok(ToolChoice::Required)
        ));
        assert_eq!(some.len(), 1);
        for wrong in [
            json!("maybe"),
            json!({"type": "function", "name": "h"}),
            json!({"type": "file_search"}),
            json!({"type": "allowed_tools", "mode": "auto", "tools": [{"type": "mcp"}]}),
        ] {
            let error = choose(wrong, &mut all()).unwrap_err();
            assert_eq!(error.openai_body()["error"]["param"], "tool_choice");
        }
        assert!(choose(json!("required"), &mut Vec::new()).is_err());
    }
}
