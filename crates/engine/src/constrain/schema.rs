//! JSON Schema from outside, made ready to be followed.
//!
//! What has no bearing on validity is left out (annotations, keywords that no
//! draft knows, formats that no one checks); what cannot be followed is
//! refused with its place. The result may be narrower than the schema and
//! never wider: an answer that fits it fits the schema. `benches/schema_suite.py`
//! holds that against the standard's own test suite.

use serde_json::{Map, Value, json};

use super::pattern::{is_numbered, translated};

/// How deep schemas may be nested.
const MAX_DEPTH: usize = 48;
/// The most subschemas.
const MAX_SCHEMAS: usize = 5_000;
/// The most alternatives of one `enum`.
const MAX_ENUM: usize = 5_000;
/// The largest lower bound on a length or a number of items.
const MAX_LEAST: u64 = 1_000;
/// The largest upper bound: a larger one is taken as this, or left out.
const MAX_MOST: u64 = 10_000;
/// The longest `pattern`, in bytes.
const MAX_PATTERN: usize = 4_096;

/// Formats that answers are held to; others are annotations.
const FORMATS: [&str; 10] = [
    "date-time",
    "time",
    "date",
    "duration",
    "email",
    "hostname",
    "ipv4",
    "ipv6",
    "uuid",
    "uri",
];

/// Keywords that demand something which cannot be followed token by token.
const UNSUPPORTED: [&str; 16] = [
    "not",
    "then",
    "else",
    "dependentRequired",
    "dependentSchemas",
    "dependencies",
    "contains",
    "minContains",
    "maxContains",
    "uniqueItems",
    "propertyNames",
    "unevaluatedProperties",
    "unevaluatedItems",
    "$dynamicRef",
    "$recursiveRef",
    "extends",
];

/// Why a schema cannot be followed, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    /// A JSON pointer into the schema, as a URI fragment: `#/properties/a`.
    pub(super) path: String,
    /// What is wrong there and how to mend it.
    pub(super) problem: String,
}

/// Reads and checks a schema.
pub(super) fn checked(text: &str) -> Result<Value, Refused> {
    if text.len() > super::MAX_SOURCE {
        return Err(refused(
            "#",
            format!("is longer than {} KiB", super::MAX_SOURCE >> 10),
        ));
    }
    let schema: Value = serde_json::from_str(text)
        .map_err(|_| refused("#", "is not valid JSON, or nested too deeply"))?;
    let mut walk = Walk {
        root: &schema,
        count: 0,
        close: !intersects(&schema),
        references: Vec::new(),
    };
    let out = walk.schema(&schema, "#", 0, true)?;
    for (at, pointer) in walk.references {
        if !is_found(&out, &pointer) {
            return Err(refused(
                &at,
                "points to a place that cannot be referred to; move it into $defs, under a name of letters and digits",
            ));
        }
    }
    Ok(out)
}

/// Whether the grammar's compiler finds what a reference points to: it looks
/// for the words as they stand, in what is left of the schema.
fn is_found(schema: &Value, pointer: &str) -> bool {
    let mut at = schema;
    for word in pointer.split('/').skip(1) {
        let next = match at {
            Value::Array(items) => word.parse().ok().and_then(|index: usize| items.get(index)),
            other => other.get(word),
        };
        match next {
            Some(next) => at = next,
            None => return false,
        }
    }
    true
}

/// Whether anything in it combines object schemas; then leaving out unnamed
/// properties in one part could forbid what another one asks for.
fn intersects(value: &Value) -> bool {
    match value {
        Value::Object(map) => {
            let siblings = map.contains_key("$ref")
                && map.keys().any(|key| {
                    ["properties", "required", "anyOf", "oneOf"].contains(&key.as_str())
                });
            siblings || map.contains_key("allOf") || map.values().any(intersects)
        }
        Value::Array(items) => items.iter().any(intersects),
        _ => false,
    }
}

struct Walk<'a> {
    root: &'a Value,
    count: usize,
    close: bool,
    /// Where references stand, and the pointers in them.
    references: Vec<(String, String)>,
}

impl Walk<'_> {
    /// `alone`: whether this schema alone says what an object may hold here.
    fn schema(
        &mut self,
        schema: &Value,
        path: &str,
        depth: usize,
        alone: bool,
    ) -> Result<Value, Refused> {
        self.count += 1;
        if self.count > MAX_SCHEMAS {
            return Err(refused(
                path,
                format!("is one of more than {MAX_SCHEMAS} subschemas; simplify the schema"),
            ));
        }
        if depth > MAX_DEPTH {
            return Err(refused(
                path,
                format!("is nested more than {MAX_DEPTH} deep; use $ref"),
            ));
        }
        let map = match schema {
            Value::Bool(_) => return Ok(schema.clone()),
            Value::Object(map) => map,
            _ => return Err(refused(path, "must be an object or a boolean")),
        };
        let known = self.references.len();
        let mut out = Map::new();
        for (key, value) in map {
            let at = join(path, key);
            if let Some(value) = self.keyword(map, key, value, &at, depth, alone)? {
                out.insert(key.clone(), value);
            }
        }
        // An $id changes what the references below it are relative to.
        if depth > 0
            && let Some((at, _)) = self.references.get(known)
            && names_itself(map)
        {
            return Err(refused(
                at,
                "lies below an $id of its own; refer to the whole schema's parts only and leave that $id out",
            ));
        }
        old_tuples(&mut out);
        exact_dates(&mut out);
        if self.close && alone {
            close(&mut out);
        }
        Ok(Value::Object(out))
    }

    /// A keyword's value, checked; `None` leaves it out.
    fn keyword(
        &mut self,
        map: &Map<String, Value>,
        key: &str,
        value: &Value,
        at: &str,
        depth: usize,
        alone: bool,
    ) -> Result<Option<Value>, Refused> {
        let kept = |ok: bool, wanted: &str| {
            if ok {
                Ok(Some(value.clone()))
            } else {
                Err(refused(at, format!("must be {wanted}")))
            }
        };
        match key {
            "type" => kept(is_type(value), "a type's name or an array of them"),
            "const" | "enum" if holds_numbered(value) => Err(refused(
                at,
                "holds a control character that is never written; leave it out",
            )),
            "const" => Ok(Some(value.clone())),
            "enum" => {
                let items = value.as_array().map_or(0, Vec::len);
                kept(
                    (1..=MAX_ENUM).contains(&items),
                    &format!("an array of 1 to {MAX_ENUM} values"),
                )
            }
            "required" => {
                let names = value.as_array();
                kept(
                    names.is_some_and(|names| names.iter().all(Value::is_string)),
                    "an array of strings",
                )
            }
            "properties" | "$defs" | "definitions" => self.named(value, at, depth).map(Some),
            "patternProperties" => {
                let patterns = self.named(value, at, depth)?;
                let patterns = patterns.as_object().into_iter().flatten();
                let patterns =
                    patterns.map(|(name, schema)| Some((translated(name)?, schema.clone())));
                let patterns: Option<Map<String, Value>> = patterns.collect();
                let patterns = patterns.ok_or_else(|| refused(at, NUMBERED))?;
                Ok(Some(Value::Object(patterns)))
            }
            "anyOf" | "oneOf" | "allOf" => {
                let alone = alone && !says_of_objects(map);
                self.listed(value, at, depth, alone).map(Some)
            }
            "prefixItems" => self.listed(value, at, depth, true).map(Some),
            "items" | "additionalItems" if value.is_array() => {
                self.listed(value, at, depth, true).map(Some)
            }
            "items" | "additionalItems" | "additionalProperties" => {
                self.schema(value, at, depth + 1, true).map(Some)
            }
            "minLength" | "minItems" | "minProperties" => {
                let least = whole(value).filter(|least| *least <= MAX_LEAST);
                let least = least.ok_or_else(|| {
                    refused(at, format!("must be a whole number from 0 to {MAX_LEAST}"))
                })?;
                if key == "minProperties" && least > required_names(map) + 1 {
                    return Err(refused(
                        at,
                        "is more than one above the number of required names, and a name that is written twice counts once; name what must be there in required",
                    ));
                }
                Ok(Some(json!(least)))
            }
            "maxLength" | "maxItems" | "maxProperties" => {
                let most = whole(value)
                    .ok_or_else(|| refused(at, "must be a whole number that is not negative"))?;
                Ok(Some(json!(most.min(MAX_MOST))))
            }
            "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" => kept(
                value.as_f64().is_some_and(f64::is_finite),
                "a number (true and false are of draft 4)",
            ),
            "multipleOf" => kept(
                value.as_f64().is_some_and(|of| of > 0.0),
                "a number above 0",
            ),
            "pattern" => {
                let pattern = value.as_str().filter(|text| text.len() <= MAX_PATTERN);
                let pattern = pattern.ok_or_else(|| {
                    let most = format!("a regular expression of at most {MAX_PATTERN} bytes");
                    refused(at, format!("must be {most}"))
                })?;
                let pattern = translated(pattern).ok_or_else(|| refused(at, NUMBERED))?;
                Ok(Some(Value::from(pattern)))
            }
            "format" => Ok(value
                .as_str()
                .filter(|name| FORMATS.contains(name))
                .map(|_| value.clone())),
            "$ref" => self.reference(value, at).map(Some),
            _ if has_no_effect(map, key, value) => Ok(None),
            _ if UNSUPPORTED.contains(&key) => Err(refused(
                at,
                format!(
                    "cannot be followed while an answer is written; leave '{key}' out and check it afterwards"
                ),
            )),
            // Annotations, extensions, keywords that no draft knows.
            _ => Ok(None),
        }
    }

    fn named(&mut self, value: &Value, at: &str, depth: usize) -> Result<Value, Refused> {
        let Value::Object(map) = value else {
            return Err(refused(at, "must be an object of schemas"));
        };
        let mut out = Map::new();
        for (name, schema) in map {
            let schema = self.schema(schema, &join(at, name), depth + 1, true)?;
            out.insert(name.clone(), schema);
        }
        Ok(Value::Object(out))
    }

    fn listed(
        &mut self,
        value: &Value,
        at: &str,
        depth: usize,
        alone: bool,
    ) -> Result<Value, Refused> {
        match value {
            Value::Array(items) if !items.is_empty() => items
                .iter()
                .enumerate()
                .map(|(index, schema)| {
                    self.schema(schema, &join(at, &index.to_string()), depth + 1, alone)
                })
                .collect(),
            _ => Err(refused(at, "must be an array of at least one schema")),
        }
    }

    /// References lead to a place in the same schema.
    fn reference(&mut self, value: &Value, at: &str) -> Result<Value, Refused> {
        let pointer = value
            .as_str()
            .and_then(|reference| reference.strip_prefix('#'))
            .filter(|pointer| pointer.is_empty() || pointer.starts_with('/'));
        let Some(pointer) = pointer else {
            return Err(refused(
                at,
                "must point into this schema, such as #/$defs/name; nothing is fetched",
            ));
        };
        if self.root.pointer(&percent_decoded(pointer)).is_none() {
            return Err(refused(at, "points to nothing in this schema"));
        }
        self.references.push((at.to_owned(), pointer.to_owned()));
        Ok(value.clone())
    }
}

/// Drafts before 2020-12 write a tuple as `items: […]`.
fn old_tuples(schema: &mut Map<String, Value>) {
    if schema.get("items").is_some_and(Value::is_array) {
        if let Some(items) = schema.shift_remove("items") {
            schema.insert("prefixItems".to_owned(), items);
        }
        if let Some(rest) = schema.shift_remove("additionalItems") {
            schema.insert("items".to_owned(), rest);
        }
    } else {
        schema.shift_remove("additionalItems");
    }
}

/// The compiler's dates allow 29 February in every year, and its times a leap
/// second in every minute. Here February is counted out and seconds end at 59.
/// There is no year 0, for most calendars know none.
fn exact_dates(schema: &mut Map<String, Value>) {
    const YEAR: &str = "(?:[0-9]{3}[1-9]|[0-9]{2}[1-9]0|[0-9][1-9]00|[1-9]000)";
    const LEAP_YEAR: &str =
        "(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)";
    let date = || {
        let days = "(?:(?:0[13-9]|1[0-2])-[0-3][0-9]|02-(?:[01][0-9]|2[0-8]))";
        format!("(?:{YEAR}-{days}|{LEAP_YEAR}-02-29)")
    };
    let pattern = match schema.get("format").and_then(Value::as_str) {
        Some("date") => format!("^{}$", date()),
        Some("time") => "^.{6}[0-5]".to_owned(),
        Some("date-time") => format!("^{}.{{7}}[0-5]", date()),
        _ => return,
    };
    if !schema.contains_key("pattern") {
        schema.insert("pattern".to_owned(), Value::from(pattern));
        return;
    }
    let all = schema.entry("allOf").or_insert_with(|| json!([]));
    if let Value::Array(all) = all {
        all.push(json!({"pattern": pattern}));
    }
}

/// Whether a schema has an address of its own; a mere anchor is none.
fn names_itself(map: &Map<String, Value>) -> bool {
    let id = map.get("$id").and_then(Value::as_str);
    id.is_some_and(|id| !id.is_empty() && !id.starts_with('#'))
}

/// How many different names `required` lists.
fn required_names(map: &Map<String, Value>) -> u64 {
    let names = map.get("required").and_then(Value::as_array);
    let names: std::collections::HashSet<&str> = names
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    names.len() as u64
}

/// A schema that names its properties and says nothing of others gets none:
/// a small model would go on inventing them.
fn close(schema: &mut Map<String, Value>) {
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
        return;
    };
    let required = schema.get("required").and_then(Value::as_array);
    let all_named = required.is_none_or(|names| {
        names
            .iter()
            .filter_map(Value::as_str)
            .all(|name| properties.contains_key(name))
    });
    let open = [
        "additionalProperties",
        "patternProperties",
        "minProperties",
        "anyOf",
        "oneOf",
        "$ref",
        "enum",
        "const",
    ]
    .iter()
    .any(|key| schema.contains_key(*key));
    if all_named && !open && !properties.is_empty() {
        schema.insert("additionalProperties".to_owned(), json!(false));
    }
}

/// Why a pattern is refused that asks for such a character.
const NUMBERED: &str = "asks for a control character that is never written; leave it out";

/// Whether some text in it has a character that JSON writes by its number.
fn holds_numbered(value: &Value) -> bool {
    match value {
        Value::String(text) => text.chars().any(|c| is_numbered(u32::from(c))),
        Value::Array(items) => items.iter().any(holds_numbered),
        Value::Object(map) => map.values().any(holds_numbered),
        _ => false,
    }
}

fn says_of_objects(map: &Map<String, Value>) -> bool {
    [
        "properties",
        "required",
        "patternProperties",
        "additionalProperties",
        "$ref",
    ]
    .iter()
    .any(|key| map.contains_key(*key))
}

/// Whether an unsupported keyword demands nothing as it stands.
fn has_no_effect(map: &Map<String, Value>, key: &str, value: &Value) -> bool {
    let trivial = *value == json!(true) || *value == json!({});
    match key {
        "uniqueItems" => *value == json!(false),
        "then" | "else" => !map.contains_key("if"),
        "minContains" | "maxContains" => !map.contains_key("contains"),
        "propertyNames" | "unevaluatedProperties" | "unevaluatedItems" => trivial,
        "not" => *value == json!(false),
        _ => false,
    }
}

fn is_type(value: &Value) -> bool {
    let known = |value: &Value| {
        value.as_str().is_some_and(|name| {
            [
                "null", "boolean", "integer", "number", "string", "array", "object",
            ]
            .contains(&name)
        })
    };
    match value {
        Value::Array(names) => !names.is_empty() && names.iter().all(known),
        other => known(other),
    }
}

/// A whole number; `3.0` is one.
fn whole(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| {
        value
            .as_f64()
            .filter(|number| *number >= 0.0 && number.fract() == 0.0)
            .map(|number| number as u64)
    })
}

fn refused(path: &str, problem: impl Into<String>) -> Refused {
    Refused {
        path: path.to_owned(),
        problem: problem.into(),
    }
}

/// One step further down, escaped as RFC 6901 wants it. A long name is cut:
/// the path is for a message.
pub(super) fn join(path: &str, name: &str) -> String {
    let name: String = name.chars().take(64).collect();
    format!("{path}/{}", name.replace('~', "~0").replace('/', "~1"))
}

fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = (bytes[at] == b'%')
            .then(|| text.get(at + 1..at + 3))
            .flatten()
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match hex {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}
