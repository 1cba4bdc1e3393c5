//! Whether a provider's answer has the form that was asked for.
//!
//! Only what is surely wrong counts: a keyword that is not known here forbids
//! nothing. This device's engine needs no such check, for it cannot write
//! anything else.

use nearfar_domain::chat::ResponseFormat;
use nearfar_domain::events::{Failure, FailureKind};
use serde_json::Value;

/// Nesting beyond this is not looked into.
const MAX_DEPTH: usize = 64;

/// The failure of a whole answer that has not the form; `None` where it has.
pub(super) fn misfit(format: &ResponseFormat, text: &str) -> Option<Failure> {
    let schema = match format {
        ResponseFormat::JsonObject => None,
        ResponseFormat::JsonSchema { schema, strict, .. } => {
            // Not strict: the schema was a wish.
            serde_json::from_str::<Value>(schema)
                .ok()
                .filter(|_| *strict != Some(false))
        }
        ResponseFormat::Choice(choices) => {
            let fits = choices.iter().any(|choice| choice == text.trim());
            return (!fits).then(|| failure("it is none of the texts that were given"));
        }
        _ => return None,
    };
    let Ok(value) = serde_json::from_str::<Value>(text) else {
        return Some(failure("it is not JSON"));
    };
    let Some(schema) = schema else {
        let object = matches!(format, ResponseFormat::JsonSchema { .. }) || value.is_object();
        return (!object).then(|| failure("it is not an object"));
    };
    (!fits(&schema, &schema, &value, 0)).then(|| failure("it does not fit the schema"))
}

fn failure(what: &str) -> Failure {
    Failure::new(
        FailureKind::Malformed,
        format!("The provider's answer has not the form that was asked for: {what}."),
    )
}

fn fits(root: &Value, schema: &Value, value: &Value, depth: usize) -> bool {
    let map = match schema {
        Value::Bool(allowed) => return *allowed,
        Value::Object(map) => map,
        _ => return true,
    };
    if depth > MAX_DEPTH {
        return true;
    }
    let deeper = |schema: &Value, value: &Value| fits(root, schema, value, depth + 1);
    let list = |name: &str| map.get(name).and_then(Value::as_array);
    if let Some(target) = map.get("$ref").and_then(Value::as_str)
        && let Some(found) = target
            .strip_prefix('#')
            .and_then(|pointer| root.pointer(pointer))
        && !deeper(found, value)
    {
        return false;
    }
    let typed = match map.get("type") {
        Some(Value::String(name)) => is_a(name, value),
        Some(Value::Array(names)) => names
            .iter()
            .filter_map(Value::as_str)
            .any(|name| is_a(name, value)),
        _ => true,
    };
    typed
        && list("enum").is_none_or(|all| all.iter().any(|one| same(one, value)))
        && map.get("const").is_none_or(|one| same(one, value))
        && list("allOf").is_none_or(|all| all.iter().all(|one| deeper(one, value)))
        && list("anyOf").is_none_or(|any| any.iter().any(|one| deeper(one, value)))
        && list("oneOf").is_none_or(|any| any.iter().any(|one| deeper(one, value)))
        && match value {
            Value::Object(fields) => object(map, fields, &deeper),
            Value::Array(items) => map
                .get("items")
                .filter(|_| !map.contains_key("prefixItems"))
                .is_none_or(|each| items.iter().all(|item| deeper(each, item))),
            _ => true,
        }
}

type Fields = serde_json::Map<String, Value>;

fn object(map: &Fields, fields: &Fields, deeper: &dyn Fn(&Value, &Value) -> bool) -> bool {
    let required = map.get("required").and_then(Value::as_array);
    let there = required.is_none_or(|names| {
        names
            .iter()
            .filter_map(Value::as_str)
            .all(|name| fields.contains_key(name))
    });
    let properties = map.get("properties").and_then(Value::as_object);
    let closed = map.get("additionalProperties") == Some(&Value::Bool(false))
        && !map.contains_key("patternProperties");
    there
        && fields.iter().all(|(name, value)| {
            match properties.and_then(|properties| properties.get(name)) {
                Some(schema) => deeper(schema, value),
                None => !closed,
            }
        })
}

fn is_a(name: &str, value: &Value) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "number" => value.is_number(),
        "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        _ => true,
    }
}

/// 1 and 1.0 are the same number.
fn same(a: &Value, b: &Value) -> bool {
    a == b || (a.is_number() && a.as_f64() == b.as_f64())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema(schema: &Value) -> ResponseFormat {
        ResponseFormat::JsonSchema {
            name: "a".into(),
            schema: schema.to_string(),
            strict: Some(true),
        }
    }

    #[test]
    fn what_is_surely_wrong_is_told() {
        let format = schema(&json!({
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "days": {"type": "array", "items": {"$ref": "#/$defs/day"}},
                "stars": {"type": ["integer", "null"]},
            },
            "required": ["city"],
            "additionalProperties": false,
            "$defs": {"day": {"enum": ["mon", "tue"]}},
        }));
        for right in [
            r#"{"city": "Lyon"}"#,
            r#"{"city": "Lyon", "days": ["mon"], "stars": 4.0}"#,
            r#" {"city": "Lyon", "stars": null} "#,
        ] {
            assert_eq!(misfit(&format, right), None, "{right}");
        }
        for wrong in [
            "",
            "Lyon",
            "```json\n{\"city\": \"Lyon\"}\n```",
            "[]",
            "{}",
            r#"{"city": 1}"#,
            r#"{"city": "Lyon", "town": 1}"#,
            r#"{"city": "Lyon", "days": ["sun"]}"#,
            r#"{"city": "Lyon", "stars": 4.5}"#,
        ] {
            assert!(misfit(&format, wrong).is_some(), "{wrong}");
        }
    }

    #[test]
    fn other_forms_and_unknown_keywords() {
        assert_eq!(misfit(&ResponseFormat::Text, "anything"), None);
        assert_eq!(misfit(&ResponseFormat::JsonObject, "{\"a\": 1}"), None);
        assert!(misfit(&ResponseFormat::JsonObject, "[1]").is_some());
        let choice = ResponseFormat::Choice(vec!["yes".into(), "no".into()]);
        assert_eq!(misfit(&choice, "no"), None);
        assert!(misfit(&choice, "maybe").is_some());
        let odd = schema(&json!({"type": "string", "pattern": "^x$", "x-odd": [1]}));
        assert_eq!(misfit(&odd, "\"y\""), None);
        let wish = ResponseFormat::JsonSchema {
            name: "a".into(),
            schema: r#"{"type": "string"}"#.into(),
            strict: Some(false),
        };
        assert_eq!(misfit(&wish, "7"), None);
        assert!(misfit(&wish, "seven").is_some());
    }
}
