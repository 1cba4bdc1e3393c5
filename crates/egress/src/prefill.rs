//! Asks a provider to go on with an answer that broke off elsewhere: the part
//! that was shown becomes the last turn, the assistant's own.

use nearfar_domain::chat::{Chat, Message, Prompt, Role};
use nearfar_domain::target::Dialect;
use nearfar_domain::thought::Origin;
use serde_json::{Map, Value, json};

use crate::provider::Provider;

/// Makes `chat` one that `partial` (about `tokens` tokens) is the beginning of
/// the answer to. Does nothing where there is no part.
pub(crate) fn go_on(chat: &mut Chat, partial: &str, tokens: u32, provider: &Provider) {
    if partial.is_empty() {
        return;
    }
    if let Some(limit) = &mut chat.params.max_tokens {
        *limit = limit.saturating_sub(tokens).max(1);
    }
    match &mut chat.prompt {
        Prompt::Turns(turns) => turns.push(Message::text(Role::Assistant, partial)),
        Prompt::Text(text) => {
            text.push_str(partial);
            return;
        }
        Prompt::Inputs(_) => return,
    }
    // The reasoning is over where the answer has begun; Anthropic refuses a
    // partial turn beside it.
    chat.params.reasoning_effort = None;
    chat.params.enable_thinking = None;
    chat.params.thinking_tokens = None;
    if provider.dialect == Dialect::Openai && provider.habits.template_kwargs {
        // vLLM's names; llama.cpp and Ollama do it unasked.
        let mut fields: Map<String, Value> =
            serde_json::from_str(chat.passthrough_for(Origin::Openai)).unwrap_or_default();
        fields.insert("continue_final_message".to_owned(), json!(true));
        fields.insert("add_generation_prompt".to_owned(), json!(false));
        chat.passthrough = Value::Object(fields).to_string();
        chat.passthrough_of = Origin::Openai;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{codec, presets};

    fn body(dialect: Dialect, base_url: &str, chat: &mut Chat) -> Value {
        chat.params.max_tokens = Some(100);
        chat.params.enable_thinking = Some(true);
        let provider = Provider {
            dialect,
            habits: presets::habits_at(base_url),
            base_url: base_url.to_owned(),
            ..presets::preset("openai").unwrap()
        };
        go_on(chat, "The capi", 30, &provider);
        let encoded = codec::encode(&provider, chat, "m", true).unwrap();
        serde_json::from_slice(&encoded.body).unwrap()
    }

    fn question() -> Chat {
        Chat::turns(vec![Message::text(Role::User, "hello")])
    }

    #[test]
    fn the_part_is_the_last_turn_and_counts_against_the_limit() {
        let sent = body(Dialect::Openai, "http://127.0.0.1:8000/v1", &mut question());
        let last = sent["messages"].as_array().unwrap().last().unwrap();
        assert_eq!(
            (&last["role"], &last["content"]),
            (&json!("assistant"), &json!("The capi"))
        );
        assert_eq!(sent["max_tokens"], 70);
        assert_eq!(sent["continue_final_message"], true);
        assert_eq!(sent["add_generation_prompt"], false);

        let sent = body(
            Dialect::Anthropic,
            "https://api.anthropic.com",
            &mut question(),
        );
        let last = sent["messages"].as_array().unwrap().last().unwrap();
        assert_eq!(last["content"][0]["text"], "The capi");
        assert!(
            sent.get("thinking")
                .is_none_or(|thinking| thinking["type"] != "enabled")
        );
    }

    #[test]
    fn who_knows_other_fields_gets_those() {
        let sent = body(
            Dialect::Openai,
            "https://api.mistral.ai/v1",
            &mut question(),
        );
        let last = sent["messages"].as_array().unwrap().last().unwrap();
        assert_eq!(last["prefix"], true);
        assert!(sent.get("continue_final_message").is_none());
        let sent = body(
            Dialect::Openai,
            "https://api.groq.com/openai/v1",
            &mut question(),
        );
        assert!(sent.get("continue_final_message").is_none());
    }

    #[test]
    fn raw_text_is_simply_longer() {
        let sent = body(
            Dialect::Openai,
            "http://127.0.0.1:8000/v1",
            &mut Chat::text("Q: hello\nA:"),
        );
        assert_eq!(sent["prompt"], "Q: hello\nA:The capi");
    }
}
