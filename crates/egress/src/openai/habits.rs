//! How OpenAI and its followers deviate from one another.
//!
//! A field that a server refuses is an error where it could have been an
//! answer; a field that it ignores costs nothing. So what only some accept is
//! sent to those, and to servers that we do not know (vLLM, llama.cpp, Ollama
//! and their like ignore what they do not know).

/// What one server accepts, told from its base URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Habits {
    /// `top_k`, `min_p`, `repetition_penalty`.
    pub sampling_extras: bool,
    /// `chat_template_kwargs`, for `enable_thinking`.
    pub template_kwargs: bool,
    /// `stream_options`. The others report usage unasked.
    pub stream_options: bool,
    /// The role `developer`. For the others it is `system`.
    pub developer_role: bool,
    /// `parallel_tool_calls`, `logit_bias` and `reasoning_effort`.
    pub full_options: bool,
    /// `prefix` on a last turn of the assistant, which is refused without it.
    pub prefix: bool,
    /// The name of `seed`.
    pub seed: &'static str,
    /// The field that takes an assistant turn's reasoning back.
    pub reasoning: Option<&'static str>,
}

const UNKNOWN: Habits = Habits {
    sampling_extras: true,
    template_kwargs: true,
    stream_options: true,
    developer_role: true,
    full_options: true,
    prefix: false,
    seed: "seed",
    reasoning: Some("reasoning_content"),
};

const STRICT: Habits = Habits {
    sampling_extras: false,
    template_kwargs: false,
    developer_role: false,
    reasoning: None,
    ..UNKNOWN
};

impl Habits {
    /// What is known of the server at this base URL.
    pub fn of(base_url: &str) -> Habits {
        match host(base_url) {
            "api.openai.com" => Habits {
                developer_role: true,
                ..STRICT
            },
            "api.groq.com" | "api.x.ai" | "api.cerebras.ai" => STRICT,
            "api.mistral.ai" => Habits {
                stream_options: false,
                full_options: false,
                prefix: true,
                seed: "random_seed",
                ..STRICT
            },
            "api.deepseek.com" => Habits {
                full_options: false,
                reasoning: Some("reasoning_content"),
                ..STRICT
            },
            "openrouter.ai" => Habits {
                template_kwargs: false,
                reasoning: Some("reasoning"),
                ..UNKNOWN
            },
            "api.together.xyz" | "api.fireworks.ai" => Habits {
                sampling_extras: true,
                ..STRICT
            },
            _ => UNKNOWN,
        }
    }
}

/// The host of a URL, without user, port and path.
fn host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    let host = authority.rsplit('@').next().unwrap_or(authority);
    host.split(':').next().unwrap_or(host)
}

/// Whether this is one of OpenAI's models that reason: they take
/// `max_completion_tokens`, and no sampling parameters.
pub(super) fn reasons(model: &str) -> bool {
    let name = model.rsplit('/').next().unwrap_or(model);
    let o_series = name
        .strip_prefix('o')
        .and_then(|rest| rest.chars().next())
        .is_some_and(|c| c.is_ascii_digit());
    o_series || (name.starts_with("gpt-5") && !name.contains("chat"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_servers_are_told_by_their_host() {
        assert!(!Habits::of("https://api.openai.com/v1").sampling_extras);
        assert!(Habits::of("https://api.openai.com:443/v1").developer_role);
        assert_eq!(Habits::of("https://api.mistral.ai/v1").seed, "random_seed");
        assert_eq!(Habits::of("http://127.0.0.1:8000/v1"), UNKNOWN);
        assert_eq!(Habits::of("http://api.openai.com.evil.example/v1"), UNKNOWN);
    }

    #[test]
    fn models_that_reason() {
        for model in [
            "o1",
            "o3-mini",
            "o4-mini",
            "gpt-5",
            "gpt-5-mini",
            "openai/o3",
        ] {
            assert!(reasons(model), "{model}");
        }
        for model in ["gpt-4o", "gpt-5-chat-latest", "omni", "gpt-4.1", "olmo-2"] {
            assert!(!reasons(model), "{model}");
        }
    }
}
