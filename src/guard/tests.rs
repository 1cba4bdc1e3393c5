#![allow(clippy::unwrap_used)]

use nearfar_domain::chat::{Message, Role};
use nearfar_domain::events::{Event, ToolCallDelta};
use nearfar_domain::privacy::read_tag;

use super::*;
use crate::config::{Config, Overrides};

fn guard(text: &str) -> Guard {
    Guard::new(
        Config::parse(text, None, &Overrides::default())
            .unwrap()
            .guard,
    )
}

fn chat(text: &str) -> Chat {
    Chat::turns(vec![Message::text(Role::User, text)])
}

#[test]
fn without_settings_nothing_is_found_or_forbidden() {
    let guard = guard("");
    let seen = guard
        .examine(&chat("card 4111 1111 1111 1111"), &[])
        .unwrap();
    assert_eq!(seen, Seen::default());
    assert!(guard.watch().is_none() && guard.in_prompt.is_none());
    assert!(guard.allows(&TargetId::local("x")));
    assert_eq!(guard.answer_tokens(None), None);
}

#[test]
fn each_kind_has_its_action() {
    let guard = guard(
        "[guard.kinds]\ncard = \"device\"\nphone = \"site\"\nemail = \"redact\"\n\
         secret = \"block\"\nip = \"log\"",
    );
    let examine = |text: &str| guard.examine(&chat(text), &[]);
    let zones = |seen: &Seen| seen.says.iter().map(|say| say.zone).collect::<Vec<_>>();
    let seen = examine("4111 1111 1111 1111, +44 7700 900123").unwrap();
    assert_eq!(zones(&seen), [Zone::Site, Zone::Device]);
    assert!(seen.says.iter().all(|say| say.source == Source::Detector));
    let seen = examine("a@b.io from 86.121.97.248").unwrap();
    assert_eq!(seen.redact, Kinds::NONE.with(Kind::Email));
    assert_eq!(seen.says[0].source, Source::Redact);
    assert_eq!(seen.counts.of(Kind::Ip), 1);
    let refused = examine("AKIAIOSFODNN7EXAMPLE").unwrap_err();
    assert_eq!(refused, Blocked::Identifier(Kind::Secret));
    assert!(!refused.message().contains("AKIA"));
    assert_eq!(examine("hello").unwrap(), Seen::default());
}

#[test]
fn a_tag_asks_for_more_than_the_settings() {
    let guard = guard("[guard.kinds]\nurl = \"redact\"");
    let says = [read_tag("redact")];
    let seen = guard.examine(&chat("hello"), &says).unwrap();
    assert_eq!(seen.redact, Kinds::ALL);
}

#[test]
fn patterns_are_named_and_never_quoted() {
    let guard = guard(
        "[[guard.patterns]]\nname = \"project\"\ntext = \"Blue Heron\"\nin = \"both\"\n\
         [[guard.patterns]]\nname = \"ticket\"\nregex = 'TCK-\\d{6}'\nin = \"answer\"",
    );
    let refused = guard
        .examine(&chat("the blue heron files"), &[])
        .unwrap_err();
    assert_eq!(refused, Blocked::Pattern("project".to_owned()));
    assert!(!refused.message().to_lowercase().contains("heron"));
    guard.examine(&chat("TCK-123456"), &[]).unwrap();
    let mut watch = guard.watch().unwrap();
    for piece in ["see TC", "K-12", "345"] {
        assert_eq!(watch.see(&Event::Content(piece.into())), None);
    }
    assert_eq!(
        watch.see(&Event::Content("6".into())).as_deref(),
        Some("ticket")
    );
    let call = |index, arguments: &str| {
        Event::ToolCall(ToolCallDelta {
            index,
            id: None,
            name: None,
            arguments: arguments.into(),
        })
    };
    let mut watch = guard.watch().unwrap();
    assert_eq!(watch.see(&call(0, "blue ")), None);
    assert_eq!(
        watch.see(&call(1, "heron")),
        None,
        "two calls are two texts"
    );
    assert_eq!(
        watch
            .see(&Event::Reasoning("x".repeat(5000) + "blue heron"))
            .as_deref(),
        Some("project")
    );
}

#[test]
fn models_and_sizes_have_their_limits() {
    let guard = guard(
        "[guard]\nmodels = [\"local/*\", \"o*/gpt-4o*\"]\nmax_prompt = 20\nmax_answer_tokens = 5",
    );
    let allows = |name| guard.allows(&TargetId::parse(name).unwrap());
    assert!(allows("local/concierge") && allows("openai/gpt-4o-mini"));
    assert!(!allows("openai/o3") && !allows("claude/gpt-4o"));
    let refused = guard
        .examine(&chat("more than twenty bytes"), &[])
        .unwrap_err();
    assert_eq!(refused, Blocked::TooLong(20));
    assert_eq!(guard.answer_tokens(Some(3)), Some(3));
    assert_eq!(guard.answer_tokens(Some(9)), Some(5));
    assert_eq!(guard.answer_tokens(None), Some(5));
}
