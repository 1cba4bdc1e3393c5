//! Many schemas that nobody thought of, with every way of sampling.

use super::*;

/// A schema whose answers are short.
fn random_schema(random: &mut impl FnMut(u32) -> u32, depth: u32) -> Value {
    match random(if depth == 0 { 8 } else { 13 }) {
        0 => json!({"type": "boolean"}),
        1 => json!({"type": "integer", "minimum": -5, "maximum": random(100)}),
        2 => json!({"type": "number", "minimum": 0, "exclusiveMaximum": 10}),
        3 => json!({"type": "string", "minLength": random(3), "maxLength": 3 + random(9)}),
        4 => json!({"enum": ["a", 1, null, "é\"x", {"k": [true]}]}),
        5 => json!({"const": [1, "two"]}),
        6 => json!({"type": "string", "pattern": "^[A-Z]{2}[0-9]{1,3}$"}),
        7 => json!({"type": ["null", "integer"], "multipleOf": 5, "minimum": 0, "maximum": 50}),
        8 => {
            let items = random_schema(random, depth - 1);
            json!({"type": "array", "items": items, "minItems": random(2), "maxItems": 2 + random(2)})
        }
        9 => {
            let (a, b) = (
                random_schema(random, depth - 1),
                random_schema(random, depth - 1),
            );
            json!({"anyOf": [a, b]})
        }
        10 => {
            let first = random_schema(random, depth - 1);
            json!({"type": "array", "prefixItems": [first, {"type": "boolean"}], "items": false, "minItems": 1, "maxItems": 2})
        }
        11 => {
            let inner = random_schema(random, depth - 1);
            json!({"type": "object", "additionalProperties": inner, "maxProperties": 1 + random(2)})
        }
        _ => {
            let count = 1 + random(4);
            let mut properties = serde_json::Map::new();
            for index in 0..count {
                properties.insert(format!("p {index}"), random_schema(random, depth - 1));
            }
            let required: Vec<String> = (0..count)
                .filter(|_| random(2) == 0)
                .map(|index| format!("p {index}"))
                .collect();
            let mut schema =
                json!({"type": "object", "properties": properties, "required": required});
            if random(2) == 0 {
                schema["additionalProperties"] = json!(false);
            }
            schema
        }
    }
}

/// 60 schemas; `NEARFAR_SCHEMAS=1000` tries as many.
#[test]
fn answers_to_random_schemas_are_valid_with_any_sampling() {
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::{RngCore, SeedableRng};
    let count = std::env::var("NEARFAR_SCHEMAS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(60);
    let mut source = ChaCha8Rng::seed_from_u64(7);
    let mut random = move |below: u32| source.next_u32() % below.max(1);
    let (mut whole, mut cut) = (0, 0);
    for number in 0..count {
        let schema = random_schema(&mut random, 2);
        let params = Params {
            temperature: Some([0.0, 0.7, 1.5, 5.0][random(4) as usize]),
            top_k: Some([0, 1, 40][random(3) as usize]),
            top_p: Some([1.0, 0.9, 0.1][random(3) as usize]),
            min_p: Some([0.0, 0.05, 1.0][random(3) as usize]),
            repetition_penalty: Some([1.0, 1.3, 0.7][random(3) as usize]),
            frequency_penalty: Some([0.0, 2.0, -2.0][random(3) as usize]),
            presence_penalty: Some([0.0, 1.0][random(2) as usize]),
            logit_bias: vec![(random(500), 100.0), (random(500), -100.0)],
            logprobs: (random(4) == 0).then_some(2),
            seed: Some(i64::from(number)),
            max_tokens: Some(if random(5) == 0 { random(12) + 1 } else { 200 }),
            ..Params::default()
        };
        let limit = params.max_tokens;
        let told = answer(&Chat {
            params,
            ..by_schema(&schema)
        })
        .unwrap_or_else(|failure| panic!("{number}: {schema}: {}", failure.message));
        match told.reason {
            Some(FinishReason::Stop) => {
                let value: Value = serde_json::from_str(&told.content).unwrap_or_else(|error| {
                    panic!("{number}: {schema}: {error} in {}", told.content)
                });
                assert!(
                    fits(&schema, &schema, &value),
                    "{number}: {schema}: {value}"
                );
                whole += 1;
            }
            reason => {
                assert_eq!(reason, Some(FinishReason::Length), "{number}: {schema}");
                cut += u32::from(limit == Some(200));
            }
        }
    }
    println!("{whole} of {count} answers are whole and valid; {cut} reached a limit of 200 tokens");
    assert!(
        whole * 3 > count,
        "too few answers were whole to say anything"
    );
}
