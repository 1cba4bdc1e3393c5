#![allow(clippy::unwrap_used)]
use super::*;

fn failure(status: u16, body: &str) -> Failure {
    Said::read(body.as_bytes()).failure("openai", Some(status), Some("sk-key-123"))
}

#[test]
fn openai_errors_are_understood() {
    let f = failure(
        400,
        r#"{"error":{"message":"This model's maximum context length is 8192 tokens.","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}}"#,
    );
    assert_eq!(f.kind, FailureKind::ContextLength);
    assert_eq!(f.field.as_deref(), Some("messages"));
    assert_eq!(f.upstream_code.as_deref(), Some("context_length_exceeded"));
    assert_eq!(f.upstream_status, Some(400));

    let f = failure(
        404,
        r#"{"error":{"message":"The model `gpt-9` does not exist","type":"invalid_request_error","param":null,"code":"model_not_found"}}"#,
    );
    assert_eq!(f.kind, FailureKind::ModelMissing);

    let f = failure(
        429,
        r#"{"error":{"message":"You exceeded your current quota","type":"insufficient_quota","param":null,"code":"insufficient_quota"}}"#,
    );
    assert_eq!(f.kind, FailureKind::RateLimited);
    assert_eq!(f.message, "openai says: You exceeded your current quota");

    let f = failure(
        400,
        r#"{"error":{"message":"Invalid value: 3","type":"invalid_request_error","param":"top_p","code":null}}"#,
    );
    assert_eq!(
        (f.kind, f.field.as_deref()),
        (FailureKind::BadRequest, Some("top_p"))
    );
    assert_eq!(f.upstream_code.as_deref(), Some("invalid_request_error"));
}

#[test]
fn anthropic_errors_are_understood() {
    for (status, class, message, kind) in [
        (
            529,
            "overloaded_error",
            "Overloaded",
            FailureKind::Overloaded,
        ),
        (
            429,
            "rate_limit_error",
            "slow down",
            FailureKind::RateLimited,
        ),
        (
            400,
            "invalid_request_error",
            "prompt is too long: 210000 tokens > 200000 maximum",
            FailureKind::ContextLength,
        ),
        (
            400,
            "invalid_request_error",
            "max_tokens: required",
            FailureKind::BadRequest,
        ),
        (
            404,
            "not_found_error",
            "model: claude-9",
            FailureKind::ModelMissing,
        ),
        (
            413,
            "request_too_large",
            "too large",
            FailureKind::ContextLength,
        ),
        (403, "permission_error", "no", FailureKind::Forbidden),
        (
            500,
            "api_error",
            "Internal server error",
            FailureKind::TargetError,
        ),
    ] {
        let body = format!(
            r#"{{"type":"error","error":{{"type":"{class}","message":"{message}"}},"request_id":"req_1"}}"#
        );
        let f = failure(status, &body);
        assert_eq!(f.kind, kind, "{body}");
        assert_eq!(f.upstream_code.as_deref(), Some(class));
    }
}

#[test]
fn other_shapes_and_no_shape() {
    for (status, body, kind, part) in [
        (
            422,
            r#"{"detail":[{"loc":["body"],"msg":"field required"}]}"#,
            FailureKind::BadRequest,
            "field required",
        ),
        (
            400,
            r#"{"object":"error","message":"bad thing","type":"x","code":40}"#,
            FailureKind::BadRequest,
            "bad thing",
        ),
        (
            500,
            r#"{"error":"it broke"}"#,
            FailureKind::TargetError,
            "it broke",
        ),
        (
            404,
            "<html>not found</html>",
            FailureKind::TargetError,
            "HTTP 404",
        ),
        (502, "", FailureKind::TargetError, "HTTP 502"),
        (503, "<html>", FailureKind::Overloaded, "HTTP 503"),
        (504, "null", FailureKind::TimedOut, "HTTP 504"),
        (
            402,
            r#"{"error":{"message":"Insufficient Balance"}}"#,
            FailureKind::RateLimited,
            "Insufficient",
        ),
        (401, "{}", FailureKind::Unauthorized, "refused the key"),
        (
            400,
            r#"[{"error":{"code":400,"message":"API key expired","status":"INVALID_ARGUMENT"}}]"#,
            FailureKind::BadRequest,
            "expired",
        ),
    ] {
        let f = failure(status, body);
        assert_eq!(f.kind, kind, "{status} {body}");
        assert!(f.message.contains(part), "{}", f.message);
        assert!(!f.message.contains('<'), "{}", f.message);
    }
}

#[test]
fn in_a_stream_the_code_may_be_a_status() {
    let said = Said::of(&serde_json::json!({"error": {"code": 502, "message": "bad gateway"}}));
    assert_eq!(said.kind(None), FailureKind::TargetError);
    let said = Said::of(&serde_json::json!({"error": {"code": 429, "message": "slow"}}));
    assert_eq!(said.kind(None), FailureKind::RateLimited);
}

#[test]
fn the_key_is_taken_out_and_messages_are_bounded() {
    let f = failure(
        400,
        r#"{"error":{"message":"key sk-key-123 is\nodd","code":"sk-key-123","param":"sk-key-123"}}"#,
    );
    assert_eq!(f.message, "openai says: key [key] is odd");
    assert!(!format!("{f:?}").contains("sk-key-123"));
    let f = failure(
        401,
        r#"{"error":{"message":"Incorrect API key provided: sk-ke***23.","code":"invalid_api_key"}}"#,
    );
    assert!(!f.message.contains("sk-"), "{}", f.message);
    let long = format!(r#"{{"error":{{"message":"{}"}}}}"#, "é".repeat(5000));
    assert!(failure(500, &long).message.chars().count() < 600);
}

#[test]
fn waits_in_every_form() {
    let now = httpdate::parse_http_date("Fri, 31 Dec 1999 23:59:00 GMT").unwrap();
    let date = Some("Fri, 31 Dec 1999 23:59:59 GMT");
    for (ms, after, expected) in [
        (Some("250"), Some("9"), Some(250)),
        (None, Some("2"), Some(2_000)),
        (None, Some("0.5"), Some(500)),
        (None, date, Some(59_000)),
        (None, Some("Fri, 31 Dec 1999 00:00:00 GMT"), Some(0)),
        (None, Some("-1"), None),
        (None, Some("soon"), None),
        (None, Some("1e300"), Some(86_400_000)),
        (None, Some("NaN"), None),
        (None, None, None),
    ] {
        assert_eq!(retry_after_ms(ms, after, now), expected, "{ms:?} {after:?}");
    }
}

#[test]
fn googles_errors_are_understood() {
    let said = |status: u16, code: &str, message: &str| {
        let body = format!(
            r#"{{"error":{{"code":{status},"message":"{message}","status":"{code}","details":[
                {{"@type":"type.googleapis.com/google.rpc.Help"}},
                {{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"17.5s"}}]}}}}"#
        );
        failure(status, &body)
    };
    for (status, code, message, kind) in [
        (429, "RESOURCE_EXHAUSTED", "quota", FailureKind::RateLimited),
        (503, "UNAVAILABLE", "overloaded", FailureKind::Overloaded),
        (504, "DEADLINE_EXCEEDED", "late", FailureKind::TimedOut),
        (500, "INTERNAL", "oh", FailureKind::TargetError),
        (
            404,
            "NOT_FOUND",
            "models/x is not found",
            FailureKind::ModelMissing,
        ),
        (403, "PERMISSION_DENIED", "no", FailureKind::Forbidden),
        (
            400,
            "FAILED_PRECONDITION",
            "User location is not supported for the API use.",
            FailureKind::Forbidden,
        ),
        (400, "INVALID_ARGUMENT", "wrong", FailureKind::BadRequest),
        (
            400,
            "INVALID_ARGUMENT",
            "The input token count (9) exceeds the maximum number of tokens allowed (8).",
            FailureKind::ContextLength,
        ),
    ] {
        let f = said(status, code, message);
        assert_eq!(f.kind, kind, "{code} {message}");
        assert_eq!(f.upstream_code.as_deref(), Some(code));
        assert_eq!(f.retry_after_ms, Some(17_500));
    }
    let f = failure(
        400,
        r#"{"error":{"code":400,"message":"API key not valid.","status":"INVALID_ARGUMENT","details":[{"reason":"API_KEY_INVALID"}]}}"#,
    );
    assert_eq!(f.kind, FailureKind::Unauthorized);
}

#[test]
fn aws_and_azure_are_understood() {
    for (status, code, message, kind) in [
        (429, "ThrottlingException", "slow", FailureKind::RateLimited),
        (400, "ValidationException", "wrong", FailureKind::BadRequest),
        (
            400,
            "ValidationException",
            "Input is too long for requested model.",
            FailureKind::ContextLength,
        ),
        (403, "AccessDeniedException", "no", FailureKind::Forbidden),
        (
            403,
            "UnrecognizedClientException",
            "The security token included in the request is invalid.",
            FailureKind::Unauthorized,
        ),
        (404, "DeploymentNotFound", "no", FailureKind::ModelMissing),
        (400, "content_filter", "filtered", FailureKind::Refused),
    ] {
        let said = Said {
            message: Some(message.to_owned()),
            code: Some(code.to_owned()),
            ..Said::default()
        };
        assert_eq!(said.kind(Some(status)), kind, "{code} {message}");
    }
}
