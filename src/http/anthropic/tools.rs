//! Tools and which of them must be called.

use nearfar_domain::chat::{Chat, Tool, ToolChoice};
use nearfar_domain::thought::CacheMark;
use serde_json::Value;

use super::turns::cache_mark;
use crate::http::fields::Fields;
use crate::http::problem::Problem;

/// The most tools that one request may carry.
const MAX_TOOLS: usize = 256;

/// Takes `tools`.
pub(super) fn tools(fields: &mut Fields, chat: &mut Chat) -> Result<(), Problem> {
    let items = fields.array("tools")?.unwrap_or_default();
    if items.len() > MAX_TOOLS {
        return Err(Problem::field(
            "tools",
            format!("tools may hold at most {MAX_TOOLS} tools."),
        ));
    }
    for (index, value) in items.into_iter().enumerate() {
        let mut fields = Fields::of(&format!("tools[{index}]"), value)?;
        let long = cache_mark(&mut fields)?;
        chat.tools.push(tool(fields)?);
        chat.tool_cache_marks.extend(long.map(|long| CacheMark {
            after: chat.tools.len() as u32,
            long,
        }));
    }
    Ok(())
}

fn tool(mut fields: Fields) -> Result<Tool, Problem> {
    if fields.string("type")?.is_some_and(|kind| kind != "custom") {
        return Err(Problem::field(
            fields.path_of("type"),
            "Tools that the provider runs are not supported. Send tools of your own, with name \
             and input_schema.",
        ));
    }
    let name = fields.function_name(128)?;
    let schema = fields
        .object("input_schema")?
        .ok_or_else(|| fields.missing("input_schema", "a JSON Schema"))?;
    Ok(Tool {
        name,
        description: fields.string("description")?,
        parameters: Some(Value::Object(schema.rest()).to_string()),
        strict: fields.boolean("strict")?,
    })
}

/// Takes `tool_choice`. Returns whether calls must come one at a time, where
/// the client says so.
pub(super) fn one_at_a_time(fields: &mut Fields, chat: &mut Chat) -> Result<Option<bool>, Problem> {
    let Some(mut choice) = fields.object("tool_choice")? else {
        return Ok(None);
    };
    chat.tool_choice = match choice.required_string("type")?.as_str() {
        "auto" => ToolChoice::Auto,
        "none" => ToolChoice::None,
        "any" => ToolChoice::Required,
        "tool" => ToolChoice::Named(choice.required_string("name")?),
        _ => {
            return Err(Problem::field(
                "tool_choice.type",
                "tool_choice.type must be auto, any, tool or none.",
            ));
        }
    };
    match &chat.tool_choice {
        ToolChoice::Named(name) if !chat.tools.iter().any(|tool| tool.name == *name) => {
            return Err(Problem::field(
                "tool_choice.name",
                "tool_choice.name must be the name of one of the tools.",
            ));
        }
        ToolChoice::Required if chat.tools.is_empty() => {
            return Err(Problem::field(
                "tool_choice",
                "tool_choice asks for a call, but there are no tools.",
            ));
        }
        _ => {}
    }
    choice.boolean("disable_parallel_tool_use")
}
