#![allow(clippy::unwrap_used)]
use nearfar_domain::explain::{Candidate, Exclusion, Outcome};
use nearfar_domain::privacy::{Ceiling, Source, Zone};

use super::*;

fn refused(refusal: Refusal) -> Problem {
    Problem::refused(Explanation {
        id: DecisionId(7),
        ceiling: Ceiling {
            zone: Zone::Device,
            source: Source::Tag,
        },
        verdict: Verdict::Refuse(refusal),
        candidates: vec![Candidate {
            target: TargetId::remote("openai", "mini").unwrap(),
            zone: Zone::Cloud,
            cost: None,
            outcome: Outcome::Excluded(Exclusion::BeyondCeiling),
            behind: None,
        }],
    })
}

#[test]
fn a_refusal_carries_its_explanation_and_whether_to_try_again() {
    let body = refused(Refusal::Privacy).openai_body();
    assert_eq!(body["error"]["code"], "privacy_ceiling");
    assert_eq!(body["error"]["type"], "server_error");
    let message = body["error"]["message"].as_str().unwrap();
    assert!(message.contains("openai/mini: beyond"), "{message}");
    assert_eq!(body["nearfar"]["verdict"], "refuse");
    assert_eq!(body["nearfar"]["ceiling"]["source"], "tag");
    assert_eq!(
        body["nearfar"]["candidates"][0]["exclusion"],
        "beyond_ceiling"
    );

    let response = refused(Refusal::Privacy).into_response();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    let headers = response.headers();
    assert_eq!(headers["x-nearfar-reason"], "privacy_ceiling");
    assert_eq!(
        headers["x-nearfar-decision"],
        "dec_00000000000000000000000000000007"
    );
    assert_eq!(headers["x-should-retry"], "false");
    assert!(!headers.contains_key("retry-after"));

    let response = refused(Refusal::Health).into_response();
    assert_eq!(response.headers()["retry-after"], "1");
    assert!(!response.headers().contains_key("x-should-retry"));
}

#[test]
fn failures_keep_what_the_provider_said() {
    let mut failure = Failure::new(FailureKind::RateLimited, "Slow down.");
    failure.retry_after_ms = Some(2_500);
    failure.upstream_status = Some(429);
    failure.upstream_code = Some("tokens_per_minute".into());
    failure.field = Some("model".into());
    let problem = Problem::failed(&failure)
        .of_leg(DecisionId(1), TargetId::remote("openai", "mini").unwrap());
    let body = problem.openai_body();
    assert_eq!(body["error"]["code"], "tokens_per_minute");
    assert_eq!(body["error"]["param"], "model");
    assert_eq!(body["error"]["upstream_status"], 429);
    let response = problem.into_response();
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(response.headers()["retry-after"], "3", "rounded up");
    assert_eq!(response.headers()["x-nearfar-target"], "openai/mini");
}

#[test]
fn a_missing_key_of_ours_is_never_the_clients_401() {
    let failure = Failure::new(FailureKind::Unauthorized, "No key.");
    assert_eq!(Problem::failed(&failure).status(), StatusCode::BAD_GATEWAY);
}

#[test]
fn every_road_error_has_its_status() {
    for (error, status, code) in [
        (
            RoadError::Field("model", "Mend it.".into()),
            400,
            "invalid_value",
        ),
        (
            RoadError::NoSuchModel("None.".into()),
            404,
            "model_not_found",
        ),
        (RoadError::Busy { limit: 3 }, 429, "too_many_requests"),
        (RoadError::Draining, 503, "draining"),
        (
            RoadError::Failed {
                decision: DecisionId(1),
                target: TargetId::local("x"),
                failure: Box::new(Failure::new(FailureKind::ContextLength, "Too long.")),
            },
            400,
            "context_length_exceeded",
        ),
    ] {
        let problem = Problem::from(error);
        assert_eq!(problem.status().as_u16(), status);
        assert_eq!(problem.openai_body()["error"]["code"], code);
    }
}

#[test]
fn each_dialect_has_its_shape_of_the_same_error() {
    let problem = Problem::field("temperature", "It must be a number from 0 to 1.");
    let body = problem.body(Dialect::Anthropic, Some("req_1"));
    assert_eq!(body["type"], "error");
    assert_eq!(body["error"]["type"], "invalid_request_error");
    assert_eq!(
        body["error"]["message"],
        "temperature: It must be a number from 0 to 1."
    );
    assert_eq!(body["request_id"], "req_1");
    assert_eq!(body["nearfar"]["param"], "temperature");
    let body = problem.body(Dialect::Ollama, None);
    assert_eq!(
        body,
        json!({"error": "temperature: It must be a number from 0 to 1.",
               "code": "invalid_value", "param": "temperature"})
    );

    for (problem, kind) in [
        (Problem::no_such_model("None."), "not_found_error"),
        (Problem::too_large(1 << 20), "request_too_large"),
        (Problem::busy(3), "rate_limit_error"),
        (Problem::draining(), "overloaded_error"),
        (Problem::internal(), "api_error"),
        (refused(Refusal::Privacy), "api_error"),
        (
            Problem::failed(&Failure::new(FailureKind::TimedOut, "Late.")),
            "timeout_error",
        ),
        (
            Problem::failed(&Failure::new(FailureKind::Overloaded, "Full.")),
            "overloaded_error",
        ),
        (
            Problem::failed(&Failure::new(FailureKind::Forbidden, "No.")),
            "permission_error",
        ),
    ] {
        let body = problem.body(Dialect::Anthropic, None);
        assert_eq!(body["error"]["type"], kind, "{body}");
    }
}

#[test]
fn a_field_has_the_name_that_its_dialect_gives_it() {
    let failure = Failure {
        field: Some("response_format.json_schema.schema".into()),
        ..Failure::new(
            FailureKind::BadRequest,
            "response_format.json_schema.schema at #/properties/a: no.",
        )
    };
    let told = |from, to| Problem::failed(&failure).renamed(from, to).openai_body();
    let body = told("response_format.json_schema", "text.format");
    assert_eq!(body["error"]["param"], "text.format.schema");
    assert_eq!(
        body["error"]["message"],
        "text.format.schema at #/properties/a: no."
    );
    let body = told("messages", "input");
    assert_eq!(body["error"]["param"], "response_format.json_schema.schema");
}
