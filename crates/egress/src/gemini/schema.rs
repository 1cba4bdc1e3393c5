//! JSON Schema as Gemini takes it: a part of OpenAPI 3.0's, without references.
//!
//! What Gemini does not know it refuses, so it is left out here; what it knows
//! under another name is renamed; `$ref` is replaced by what it refers to. A
//! cleaned schema allows all that the original allows, never less: the model
//! is guided as far as Gemini can, and the client's own check still holds.

use serde_json::{Map, Value, json};

/// References and objects are followed so deep; a schema that refers to itself
/// ends there in an open object.
const MAX_DEPTH: usize = 32;
/// Nodes of a cleaned schema. Inlining may multiply a small document.
const MAX_NODES: usize = 2_048;

/// Keywords that pass as they are.
const KEPT: &[&str] = &[
    "title",
    "description",
    "nullable",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
    "minLength",
    "maxLength",
    "minimum",
    "maximum",
    "pattern",
    "default",
    "propertyOrdering",
];

/// The schema in Gemini's words.
pub fn clean(schema: &Value) -> Value {
    let mut cleaner = Cleaner {
        root: schema,
        nodes: 0,
    };
    cleaner.node(schema, 0)
}

struct Cleaner<'a> {
    root: &'a Value,
    nodes: usize,
}

impl Cleaner<'_> {
    fn node(&mut self, schema: &Value, depth: usize) -> Value {
        self.nodes += 1;
        let Value::Object(map) = schema else {
            // `true` allows anything; Gemini has no word for `false`.
            return json!({"type": "OBJECT"});
        };
        if depth > MAX_DEPTH || self.nodes > MAX_NODES {
            return json!({"type": "OBJECT"});
        }
        if let Some(target) = map.get("$ref").and_then(Value::as_str) {
            return self.reference(target, map, depth);
        }
        let merged = self.merge_all_of(map);
        let map = merged.as_ref().unwrap_or(map);
        let mut out = Map::new();
        for name in KEPT {
            if let Some(value) = map.get(*name) {
                out.insert((*name).to_owned(), value.clone());
            }
        }
        self.set_type(map, &mut out, depth);
        set_values(map, &mut out);
        set_format(map, &mut out);
        if !out.contains_key("anyOf") {
            self.set_properties(map, &mut out, depth);
            self.set_items(map, &mut out, depth);
            self.set_alternatives(map, &mut out, depth);
        }
        Value::Object(out)
    }

    /// What `#/…` refers to, with the words that stand beside the reference.
    fn reference(&mut self, target: &str, beside: &Map<String, Value>, depth: usize) -> Value {
        let root = self.root;
        let found = target
            .strip_prefix('#')
            .and_then(|pointer| root.pointer(pointer));
        let mut out = match found {
            Some(found) => self.node(found, depth + 1),
            None => json!({"type": "OBJECT"}),
        };
        if let (Some(text), Value::Object(out)) = (beside.get("description"), &mut out) {
            out.insert("description".to_owned(), text.clone());
        }
        out
    }

    /// `allOf` has no counterpart: its parts are laid over one another.
    fn merge_all_of(&self, map: &Map<String, Value>) -> Option<Map<String, Value>> {
        let parts = map.get("allOf")?.as_array()?;
        let mut out = map.clone();
        out.remove("allOf");
        for part in parts {
            let target = part.get("$ref").and_then(Value::as_str);
            let found = target
                .and_then(|target| target.strip_prefix('#'))
                .and_then(|pointer| self.root.pointer(pointer));
            let Some(part) = found.unwrap_or(part).as_object() else {
                continue;
            };
            for (name, value) in part {
                match (out.get_mut(name), value) {
                    (Some(Value::Object(have)), Value::Object(more)) if name == "properties" => {
                        have.extend(more.clone());
                    }
                    (Some(Value::Array(have)), Value::Array(more)) if name == "required" => {
                        have.extend(more.clone());
                    }
                    (Some(_), _) => {}
                    (None, _) => {
                        out.insert(name.clone(), value.clone());
                    }
                }
            }
        }
        Some(out)
    }

    /// One type by its name in capitals. `["string", "null"]` is a nullable
    /// string; several types are alternatives.
    fn set_type(&mut self, map: &Map<String, Value>, out: &mut Map<String, Value>, depth: usize) {
        match map.get("type") {
            Some(Value::String(name)) => {
                out.insert("type".to_owned(), json!(name.to_ascii_uppercase()));
            }
            Some(Value::Array(names)) => {
                let real: Vec<&str> = names
                    .iter()
                    .filter_map(Value::as_str)
                    .filter(|name| *name != "null")
                    .collect();
                if real.len() < names.len() {
                    out.insert("nullable".to_owned(), json!(true));
                }
                if let [one] = real.as_slice() {
                    out.insert("type".to_owned(), json!(one.to_ascii_uppercase()));
                } else if !map.contains_key("anyOf") {
                    let mut each = Vec::new();
                    for name in real {
                        let mut one = Map::new();
                        one.insert("type".to_owned(), json!(name.to_ascii_uppercase()));
                        match name {
                            "object" => self.set_properties(map, &mut one, depth),
                            "array" => self.set_items(map, &mut one, depth),
                            _ => {}
                        }
                        each.push(Value::Object(one));
                    }
                    out.insert("anyOf".to_owned(), json!(each));
                }
            }
            _ => {
                let implied = if map.contains_key("properties") {
                    "OBJECT"
                } else if map.contains_key("items") {
                    "ARRAY"
                } else {
                    return;
                };
                out.insert("type".to_owned(), json!(implied));
            }
        }
    }

    fn set_properties(
        &mut self,
        map: &Map<String, Value>,
        out: &mut Map<String, Value>,
        depth: usize,
    ) {
        let Some(Value::Object(properties)) = map.get("properties") else {
            return;
        };
        let cleaned: Map<String, Value> = properties
            .iter()
            .map(|(name, schema)| (name.clone(), self.node(schema, depth + 1)))
            .collect();
        // What is required must be described; an empty list is refused.
        let required: Vec<&Value> = map
            .get("required")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter(|name| name.as_str().is_some_and(|name| cleaned.contains_key(name)))
            .collect();
        if !required.is_empty() {
            out.insert("required".to_owned(), json!(required));
        }
        // So are objects whose list of properties is there and empty.
        if !cleaned.is_empty() {
            out.insert("properties".to_owned(), Value::Object(cleaned));
        }
    }

    fn set_items(&mut self, map: &Map<String, Value>, out: &mut Map<String, Value>, depth: usize) {
        let items = match map.get("items").or_else(|| map.get("prefixItems")) {
            Some(Value::Array(each)) => each.first(),
            other => other,
        };
        if let Some(items) = items {
            let items = self.node(items, depth + 1);
            out.insert("items".to_owned(), items);
        } else if out.get("type") == Some(&json!("ARRAY")) {
            // An array must say of what.
            out.insert("items".to_owned(), json!({"type": "STRING"}));
        }
    }

    fn set_alternatives(
        &mut self,
        map: &Map<String, Value>,
        out: &mut Map<String, Value>,
        depth: usize,
    ) {
        let Some(Value::Array(all)) = map.get("anyOf").or_else(|| map.get("oneOf")) else {
            return;
        };
        let is_null = |schema: &&Value| schema.get("type") == Some(&json!("null"));
        if all.iter().any(|schema| is_null(&schema)) {
            out.insert("nullable".to_owned(), json!(true));
        }
        let mut real: Vec<Value> = all
            .iter()
            .filter(|schema| !is_null(schema))
            .map(|schema| self.node(schema, depth + 1))
            .collect();
        if real.len() == 1
            && let Value::Object(one) = real.remove(0)
        {
            for (name, value) in one {
                out.entry(name).or_insert(value);
            }
        } else if !real.is_empty() {
            out.insert("anyOf".to_owned(), json!(real));
        }
    }
}

/// `enum` and `const`. Gemini knows enumerations of strings alone.
fn set_values(map: &Map<String, Value>, out: &mut Map<String, Value>) {
    let one = map.get("const").map(std::slice::from_ref);
    let Some(values) = map
        .get("enum")
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .or(one)
    else {
        return;
    };
    if values.iter().any(Value::is_null) {
        out.insert("nullable".to_owned(), json!(true));
    }
    let real: Vec<&Value> = values.iter().filter(|value| !value.is_null()).collect();
    if !real.is_empty() && real.iter().all(|value| value.is_string()) {
        out.insert("type".to_owned(), json!("STRING"));
        out.insert("enum".to_owned(), json!(real));
    } else if !out.contains_key("type") {
        let all = |is: fn(&Value) -> bool| real.iter().all(|value| is(value));
        let name = match () {
            () if all(|v| v.is_i64() || v.is_u64()) => "INTEGER",
            () if all(Value::is_number) => "NUMBER",
            () if all(Value::is_boolean) => "BOOLEAN",
            () => return,
        };
        out.insert("type".to_owned(), json!(name));
    }
}

/// Formats that Gemini knows for the type.
fn set_format(map: &Map<String, Value>, out: &mut Map<String, Value>) {
    let Some(format) = map.get("format").and_then(Value::as_str) else {
        return;
    };
    let known: &[&str] = match out.get("type").and_then(Value::as_str) {
        Some("STRING") => &["date-time", "enum"],
        Some("NUMBER") => &["float", "double"],
        Some("INTEGER") => &["int32", "int64"],
        _ => &[],
    };
    if known.contains(&format) {
        out.insert("format".to_owned(), json!(format));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_inlined() {
        let schema = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "additionalProperties": false,
            "properties": {"at": {"$ref": "#/$defs/Place", "description": "where"}},
            "required": ["at", "gone"],
            "$defs": {"Place": {
                "type": "object",
                "properties": {"city": {"type": "string", "format": "uri", "examples": ["x"]}},
                "required": ["city"]
            }}
        });
        assert_eq!(
            clean(&schema),
            json!({"type": "OBJECT", "required": ["at"], "properties": {"at": {
                "type": "OBJECT", "description": "where", "required": ["city"],
                "properties": {"city": {"type": "STRING"}}
            }}})
        );
    }

    #[test]
    fn a_schema_that_refers_to_itself_ends() {
        let list = json!({"type": "object", "properties": {
            "next": {"$ref": "#"}, "other": {"$ref": "#"}
        }});
        let text = clean(&list).to_string();
        assert!(text.len() < 1 << 20 && !text.contains("$ref"));
        let circle = json!({"$ref": "#/a", "a": {"$ref": "#/b"}, "b": {"$ref": "#/a"}});
        assert_eq!(clean(&circle), json!({"type": "OBJECT"}));
        let nowhere = json!({"$ref": "https://elsewhere/x"});
        assert_eq!(clean(&nowhere), json!({"type": "OBJECT"}));
    }

    #[test]
    fn types_and_alternatives() {
        for (schema, expected) in [
            (
                json!({"type": ["string", "null"]}),
                json!({"type": "STRING", "nullable": true}),
            ),
            (
                json!({"type": ["string", "integer"]}),
                json!({"anyOf": [{"type": "STRING"}, {"type": "INTEGER"}]}),
            ),
            (
                json!({"anyOf": [{"type": "number", "format": "float"}, {"type": "null"}], "title": "t"}),
                json!({"title": "t", "type": "NUMBER", "format": "float", "nullable": true}),
            ),
            (
                json!({"oneOf": [{"const": "a"}, {"enum": ["b", "c"]}]}),
                json!({"anyOf": [
                    {"type": "STRING", "enum": ["a"]}, {"type": "STRING", "enum": ["b", "c"]}
                ]}),
            ),
            (json!({"enum": [1, 2]}), json!({"type": "INTEGER"})),
            (
                json!({"enum": ["a", null]}),
                json!({"type": "STRING", "enum": ["a"], "nullable": true}),
            ),
            (
                json!({"type": "array"}),
                json!({"type": "ARRAY", "items": {"type": "STRING"}}),
            ),
            (
                json!({"type": "array", "items": [{"type": "boolean"}], "uniqueItems": true}),
                json!({"type": "ARRAY", "items": {"type": "BOOLEAN"}}),
            ),
            (
                json!({"type": "object", "properties": {}, "required": []}),
                json!({"type": "OBJECT"}),
            ),
            (
                json!({"allOf": [{"properties": {"a": {"type": "string"}}, "required": ["a"]},
                                 {"properties": {"b": {"type": "string"}}, "required": ["b"]}]}),
                json!({"type": "OBJECT", "required": ["a", "b"],
                       "properties": {"a": {"type": "STRING"}, "b": {"type": "STRING"}}}),
            ),
            (json!(true), json!({"type": "OBJECT"})),
        ] {
            assert_eq!(clean(&schema), expected, "{schema}");
        }
    }
}
