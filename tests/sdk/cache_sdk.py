"""Kept answers as the real openai and anthropic SDKs see them.

    python cache_sdk.py http://127.0.0.1:PORT MODEL
"""

import sys

import anthropic
import openai

URL, MODEL = sys.argv[1:3]
TEXT = "When does the pool open?"
openai_client = openai.OpenAI(base_url=URL + "/v1", api_key="none", max_retries=0)
anthropic_client = anthropic.Anthropic(base_url=URL, api_key="none", max_retries=0)
# Anthropic's SDK has no argument for the temperature.
ask = {
    "model": MODEL,
    "max_tokens": 64,
    "extra_body": {"temperature": 0},
    "messages": [{"role": "user", "content": TEXT}],
}


def check(condition, what):
    if not condition:
        sys.exit(f"FAILED {what}")


def streamed():
    """Text, roles, finishes, usage and the header of one stream."""
    raw = openai_client.chat.completions.with_raw_response.create(
        **ask, stream=True, stream_options={"include_usage": True}
    )
    text, roles, finishes, usage = "", [], [], None
    for chunk in raw.parse():
        for choice in chunk.choices:
            text += choice.delta.content or ""
            roles += [choice.delta.role] if choice.delta.role else []
            finishes += [choice.finish_reason] if choice.finish_reason else []
        usage = chunk.usage or usage
    return (text, roles, finishes, usage), raw.headers["x-nearfar-cache"]


missed, how = streamed()
check(how == "miss", "the first time it is made")
check(missed[1:3] == (["assistant"], ["stop"]), "role and finish once")
hit, how = streamed()
check(how == "hit" and hit == missed, "a stream again")

raw = openai_client.chat.completions.with_raw_response.create(**ask)
check(raw.headers["x-nearfar-cache"] == "hit", "whole")
check(raw.parse().choices[0].message.content == missed[0], "the same text")

raw = anthropic_client.messages.with_raw_response.create(**ask)
check(raw.headers["x-nearfar-cache"] == "hit", "another dialect")
check(raw.parse().content[0].text == missed[0], "the same text there")
with anthropic_client.messages.stream(**ask) as stream:
    check("".join(stream.text_stream) == missed[0], "streamed there")
    message = stream.get_final_message()
check(message.stop_reason == "end_turn", "ended")
check(message.usage.output_tokens == missed[3].completion_tokens, "usage")

only = {"Cache-Control": "only-if-cached"}
other = [{"role": "user", "content": "Something else?"}]
for create, error in [
    (openai_client.chat.completions.create, openai.APIStatusError),
    (anthropic_client.messages.create, anthropic.APIStatusError),
]:
    try:
        create(**{**ask, "messages": other}, extra_headers=only)
        check(False, "nothing is kept for it")
    except error as told:
        check(told.status_code == 504, "504")
        check("only-if-cached" in str(told), "says why")
    create(**ask, extra_headers=only)
fresh = openai_client.chat.completions.with_raw_response.create(
    **ask, extra_headers={"Cache-Control": "no-store"}
)
check(fresh.headers["x-nearfar-cache"] == "bypass", "no-store")
print("all passed")
