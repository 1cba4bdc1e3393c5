//! The request's tags: `x-nearfar-*` headers, or the same names in a body
//! object `nearfar`. Headers win; for privacy the strictest wins.

use axum::http::{HeaderMap, header};
use nearfar_domain::frames::Priority;
use nearfar_domain::ids::TargetId;
use nearfar_domain::privacy::{Say, Source, Zone, read_tag};
use nearfar_domain::route::Side;
use serde_json::{Map, Value};

use super::problem::Problem;
use crate::cache::Wish;

/// What a request says about itself beside its content.
#[derive(Clone, Debug)]
pub struct Tags {
    /// Everything that the tags say about privacy.
    pub says: Vec<Say>,
    /// Which side was asked for.
    pub side: Side,
    /// A target that the route tag names.
    pub target: Option<TargetId>,
    /// Whole answer within, in milliseconds.
    pub deadline_ms: Option<f64>,
    /// First token within, in milliseconds.
    pub ttft_ms: Option<f64>,
    /// At most this dear, in micro-units.
    pub max_cost_micro: Option<u64>,
    /// Whether somebody waits for the answer.
    pub priority: Priority,
    /// What the request is accounted to.
    pub feature: Option<String>,
    /// What it says about kept answers.
    pub cache: Wish,
    /// Which conversation it belongs to.
    pub conversation: Option<String>,
    /// `name@version` of the prompt.
    pub prompt: Option<String>,
}

/// The longest tag value, in bytes: they are words and numbers, and they go
/// into the ledger.
const MAX_TAG_BYTES: usize = 128;

const KNOWN: [&str; 11] = [
    "privacy",
    "route",
    "deadline-ms",
    "ttft-ms",
    "max-cost",
    "priority",
    "feature",
    "cache",
    "conversation",
    "prompt",
    "region",
];

/// Reads all tags.
///
/// # Errors
/// Names the header or field at fault. A privacy tag is never an error: what is
/// not known is read as `device`.
pub fn read(headers: &HeaderMap, body: Option<&Map<String, Value>>) -> Result<Tags, Problem> {
    if let Some(unknown) = body.and_then(|b| b.keys().find(|key| !known(key))) {
        return Err(Problem::field(
            format!("nearfar.{unknown}"),
            format!(
                "There is no tag '{unknown}'. The tags are {}.",
                KNOWN.join(", ")
            ),
        ));
    }
    let mut says = Vec::new();
    for value in headers.get_all("x-nearfar-privacy") {
        // Bytes that are not text are a tag that we do not know.
        says.push(read_tag(value.to_str().unwrap_or("?")));
    }
    if let Some(value) = body.and_then(|b| b.get("privacy")) {
        says.push(read_tag(value.as_str().unwrap_or("?")));
    }
    let mut tags = Tags {
        says,
        side: Side::Auto,
        target: None,
        deadline_ms: number(headers, body, "deadline-ms")?,
        ttft_ms: number(headers, body, "ttft-ms")?,
        max_cost_micro: number(headers, body, "max-cost")?.map(|units| (units * 1e6) as u64),
        priority: priority(headers, body)?,
        feature: text(headers, body, "feature")?,
        cache: cache(headers, body)?,
        conversation: text(headers, body, "conversation")?,
        prompt: text(headers, body, "prompt")?,
    };
    // Asking for local is asking not to leave, wherever it is asked: say so, so
    // that no later step may widen it.
    let is_local = |text: &str| text.trim() == "local";
    let local = headers
        .get_all("x-nearfar-route")
        .iter()
        .any(|value| value.to_str().is_ok_and(is_local))
        || body_value(body, "route")
            .and_then(Value::as_str)
            .is_some_and(is_local);
    if local {
        tags.says.push(Say {
            source: Source::Route,
            zone: Zone::Device,
        });
    }
    if let Some(route) = text(headers, body, "route")? {
        match route.as_str() {
            "auto" => {}
            "local" => tags.side = Side::Local,
            "remote" => tags.side = Side::Remote,
            named => {
                tags.target = Some(TargetId::parse(named).ok_or_else(|| {
                    Problem::field(
                        "x-nearfar-route",
                        "The route must be auto, local, remote or a target such as \
                         local/concierge.",
                    )
                })?);
            }
        }
    }
    Ok(tags)
}

fn priority(headers: &HeaderMap, body: Option<&Map<String, Value>>) -> Result<Priority, Problem> {
    match text(headers, body, "priority")? {
        None => Ok(Priority::default()),
        Some(word) => Priority::parse(&word).ok_or_else(|| {
            Problem::field(
                "x-nearfar-priority",
                "The priority must be interactive or batch.",
            )
        }),
    }
}

/// `Cache-Control` and the tag `cache` add up. Of the header, what is not ours
/// is ignored; the tag is.
fn cache(headers: &HeaderMap, body: Option<&Map<String, Value>>) -> Result<Wish, Problem> {
    let mut wish = Wish::default();
    for value in headers.get_all(header::CACHE_CONTROL) {
        // What cannot be read asks for nothing that is known.
        wish.add(value.to_str().unwrap_or_default());
    }
    if let Some(said) = text(headers, body, "cache")?
        && let Some(_unknown) = wish.add(&said)
    {
        return Err(Problem::field(
            "x-nearfar-cache",
            "The tag takes no-store, no-cache, only-if-cached and max-age=SECONDS, separated by \
             commas.",
        ));
    }
    Ok(wish)
}

fn known(key: &str) -> bool {
    KNOWN.contains(&key.replace('_', "-").as_str())
}

fn body_value<'a>(body: Option<&'a Map<String, Value>>, name: &str) -> Option<&'a Value> {
    let body = body?;
    body.get(name).or_else(|| body.get(&name.replace('-', "_")))
}

fn text(
    headers: &HeaderMap,
    body: Option<&Map<String, Value>>,
    name: &'static str,
) -> Result<Option<String>, Problem> {
    let wrong = || {
        Problem::field(
            format!("x-nearfar-{name}"),
            format!("The tag must be text of 1 to {MAX_TAG_BYTES} printable characters."),
        )
    };
    let value = match headers.get(format!("x-nearfar-{name}")) {
        Some(header) => Some(header.to_str().map_err(|_| wrong())?.trim().to_owned()),
        None => match body_value(body, name) {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) => Some(text.trim().to_owned()),
            Some(_) => return Err(wrong()),
        },
    };
    match value {
        Some(text)
            if text.is_empty()
                || text.len() > MAX_TAG_BYTES
                || text.chars().any(char::is_control) =>
        {
            Err(wrong())
        }
        other => Ok(other),
    }
}

fn number(
    headers: &HeaderMap,
    body: Option<&Map<String, Value>>,
    name: &'static str,
) -> Result<Option<f64>, Problem> {
    let value = match headers.get(format!("x-nearfar-{name}")) {
        Some(header) => header
            .to_str()
            .ok()
            .and_then(|text| text.trim().parse().ok()),
        None => match body_value(body, name) {
            None | Some(Value::Null) => return Ok(None),
            Some(value) => value.as_f64(),
        },
    };
    match value {
        Some(number) if f64::is_finite(number) && number >= 0.0 => Ok(Some(number)),
        _ => Err(Problem::field(
            format!("x-nearfar-{name}"),
            "The tag must be a number that is not negative.",
        )),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use nearfar_domain::privacy::Ceiling;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn the_strictest_privacy_tag_wins() {
        let body: Value = serde_json::json!({"privacy": "site"});
        let tags = read(
            &headers(&[("x-nearfar-privacy", "cloud")]),
            body.as_object(),
        )
        .unwrap();
        assert_eq!(Ceiling::of(&tags.says).zone, Zone::Site);
        let tags = read(
            &headers(&[
                ("x-nearfar-privacy", "cloud"),
                ("x-nearfar-privacy", "devise"),
            ]),
            None,
        )
        .unwrap();
        assert_eq!(Ceiling::of(&tags.says).zone, Zone::Device);
    }

    #[test]
    fn a_privacy_tag_of_the_wrong_type_is_device() {
        let body: Value = serde_json::json!({"privacy": 3});
        let tags = read(&HeaderMap::new(), body.as_object()).unwrap();
        assert_eq!(Ceiling::of(&tags.says).zone, Zone::Device);
    }

    #[test]
    fn asking_for_local_confines() {
        let tags = read(&headers(&[("x-nearfar-route", "local")]), None).unwrap();
        assert_eq!(Ceiling::of(&tags.says).zone, Zone::Device);
        let body: Value = serde_json::json!({"route": "local"});
        let tags = read(&headers(&[("x-nearfar-route", "auto")]), body.as_object()).unwrap();
        assert_eq!(Ceiling::of(&tags.says).zone, Zone::Device, "the strictest");
    }

    #[test]
    fn wrong_numbers_and_unknown_tags_name_the_field() {
        for bad in ["soon", "-1", "inf", "NaN", ""] {
            let error = read(&headers(&[("x-nearfar-deadline-ms", bad)]), None).unwrap_err();
            assert_eq!(
                error.openai_body()["error"]["param"],
                "x-nearfar-deadline-ms"
            );
        }
        let body: Value = serde_json::json!({"privcy": "device"});
        let error = read(&HeaderMap::new(), body.as_object()).unwrap_err();
        assert_eq!(error.openai_body()["error"]["param"], "nearfar.privcy");
    }

    #[test]
    fn somebody_waits_unless_the_tag_says_otherwise() {
        let read = |headers: &HeaderMap| read(headers, None);
        assert_eq!(
            read(&HeaderMap::new()).unwrap().priority,
            Priority::Interactive
        );
        let batch = headers(&[("x-nearfar-priority", "batch")]);
        assert_eq!(read(&batch).unwrap().priority, Priority::Batch);
        let error = read(&headers(&[("x-nearfar-priority", "high")])).unwrap_err();
        assert_eq!(error.openai_body()["error"]["param"], "x-nearfar-priority");
    }

    #[test]
    fn wishes_about_kept_answers_add_up() {
        let body: Value = serde_json::json!({"cache": "max-age=5"});
        let said = headers(&[
            ("cache-control", "max-age=60, max-stale"),
            ("cache-control", "no-store"),
        ]);
        let wish = read(&said, body.as_object()).unwrap().cache;
        assert!(wish.no_store && !wish.no_cache);
        assert_eq!(wish.max_age_s, Some(5));
        let error = read(&headers(&[("x-nearfar-cache", "nostore")]), None).unwrap_err();
        assert_eq!(error.openai_body()["error"]["param"], "x-nearfar-cache");
        assert!(!read(&HeaderMap::new(), None).unwrap().cache.is_said());
    }

    #[test]
    fn underscores_do_in_the_body() {
        let body: Value = serde_json::json!({"deadline_ms": 250, "max-cost": 0.5});
        let tags = read(&HeaderMap::new(), body.as_object()).unwrap();
        assert_eq!(tags.deadline_ms, Some(250.0));
        assert_eq!(tags.max_cost_micro, Some(500_000));
    }
}
