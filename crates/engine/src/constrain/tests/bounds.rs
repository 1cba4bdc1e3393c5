//! What the masks let through, text by text: never what a schema forbids.

use super::*;

/// Whether the masks let `text` through as a whole answer.
fn passes(schema: &Value, text: &str) -> Result<bool, String> {
    static GRAMMARS: OnceLock<Grammars> = OnceLock::new();
    let ready = concierge();
    let tokenizer = ready.tokenizer();
    let grammars = GRAMMARS.get_or_init(|| Grammars::new(tokenizer).unwrap());
    let mut constraint = grammars
        .constraint(
            &by_schema(schema),
            ToolFormat::Hermes,
            tokenizer,
            Reasoning::None,
            "",
        )
        .map_err(|failure| failure.message)?
        .unwrap();
    for id in tokenizer.plain().encode(text).unwrap() {
        if constraint
            .mask()
            .unwrap()
            .is_some_and(|mask| !mask.allows(id))
        {
            return Ok(false);
        }
        constraint.advance(id).unwrap();
    }
    Ok(constraint.may_end())
}

#[track_caller]
fn check(schema: Value, fit: &[&str], unfit: &[&str]) {
    for (texts, expected) in [(fit, true), (unfit, false)] {
        for text in texts {
            assert_eq!(passes(&schema, text), Ok(expected), "{text} by {schema}");
        }
    }
}

#[test]
fn a_name_has_one_spelling() {
    check(
        json!({"type": "object", "properties": {"age": {"type": "integer"}}, "additionalProperties": true}),
        &[r#"{"age": 3, "else": "x"}"#, r#"{"a\"b": 1}"#],
        &[r#"{"\u0061ge": "x"}"#, r#"{"ag\u0065": "x"}"#],
    );
    check(
        json!({"type": "object", "patternProperties": {"^🐦": {"type": "integer"}}}),
        &[r#"{"🐦": 1}"#, r#"{"b": "x"}"#],
        &[r#"{"🐦": "x"}"#, r#"{"\ud83d\udc26": "x"}"#],
    );
}

#[test]
fn dates_are_of_the_calendar_and_minutes_have_sixty_seconds() {
    check(
        json!({"type": "string", "format": "date"}),
        &[
            r#""2024-02-29""#,
            r#""2000-02-29""#,
            r#""2023-12-31""#,
            r#""2023-04-30""#,
        ],
        &[
            r#""2023-02-29""#,
            r#""1900-02-29""#,
            r#""2023-04-31""#,
            r#""0000-01-01""#,
        ],
    );
    check(
        json!({"format": "time"}),
        &[r#""23:59:59Z""#, r#""08:30:06.28+01:00""#, "5"],
        &[r#""22:59:60Z""#, r#""24:00:00Z""#],
    );
    check(
        json!({"type": ["string", "null"], "format": "date-time", "pattern": "Z$"}),
        &[r#""2024-02-29T08:00:00Z""#, "null"],
        &[
            r#""2023-02-29T08:00:00Z""#,
            r#""2024-02-29T08:00:60Z""#,
            r#""2024-02-29T08:00:00+01:00""#,
        ],
    );
}

#[test]
fn patterns_mean_what_they_mean_in_ecma_262() {
    check(
        json!({"type": "string", "pattern": r"^\S.\d$"}),
        &[r#""ab1""#],
        &["\"\u{FEFF}b1\"", "\"a\u{2028}1\"", r#""a\r1""#, "\"ab١\""],
    );
    check(
        json!({"type": "string", "pattern": "^[a[b]]$"}),
        &[r#""a]""#, r#""[]""#],
        &[r#""a""#],
    );
    check(
        json!({"type": "object", "patternProperties": {r"^[a&&b]": false}}),
        &[r#"{"c": 1}"#],
        &[r#"{"a": 1}"#, r#"{"&": 1}"#],
    );
}

#[test]
fn what_only_looks_as_if_it_could_be_followed_is_refused() {
    for (schema, at, words) in [
        (
            // A name that is written twice would count twice.
            json!({"type": "object", "minProperties": 2}),
            "#/minProperties",
            "required",
        ),
        (
            // The reference is relative to the inner $id.
            json!({
                "$defs": {"x": {"type": "integer"}},
                "properties": {"a": {"$id": "inner", "$defs": {"x": {"type": "string"}}, "$ref": "#/$defs/x"}},
            }),
            "#/properties/a/$ref",
            "$id",
        ),
        (
            json!({"properties": {"a": {"$ref": "#/own"}}, "own": {"type": "integer"}}),
            "#/properties/a/$ref",
            "$defs",
        ),
        (
            json!({"const": ["a\u{1}b"]}),
            "#/const",
            "control character",
        ),
        (
            json!({"type": "string", "pattern": "a\\x01b"}),
            "#/pattern",
            "control character",
        ),
        (
            json!({"patternProperties": {"a*": {"type": "integer"}, "aaa*": {"maximum": 20}}}),
            "#",
            "patternProperties",
        ),
        (
            json!({"type": "object", "properties": {"a": true, "b": true, "c": true}, "maxProperties": 2}),
            "#",
            "maxProperties",
        ),
    ] {
        let message = passes(&schema, "{}").unwrap_err();
        assert!(
            message.contains(&format!("{at}: ")) && message.contains(words),
            "{schema}: {message}"
        );
    }
    check(
        json!({"type": "object", "required": ["a"], "minProperties": 2}),
        &[r#"{"a": 1, "b": 2}"#],
        &[r#"{"a": 1}"#],
    );
    check(
        json!({"$id": "whole", "$ref": "#/$defs/x", "$defs": {"x": {"type": "integer"}}}),
        &["1"],
        &["true"],
    );
}
