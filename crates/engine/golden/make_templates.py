"""Renders real chat templates with Hugging Face's transformers.

    python -m venv v && v/bin/pip install transformers jinja2
    v/bin/python make_templates.py FOLDER_OF_TEMPLATES > templates.json

The output holds our own conversations and what each template makes of them; it
does not hold the templates.
"""

import datetime
import json
import pathlib
import sys

from transformers.utils import chat_template_utils

TOOLS = [{"type": "function", "function": {"name": "set_lights", "description": "Switch lights <on> & off", "parameters": {
    "type": "object", "properties": {"room": {"type": "string"}, "on": {"type": "boolean"}}, "required": ["room"]}}}]
SYSTEM = {"role": "system", "content": "You are the concierge of Hôtel Alba."}
USER = {"role": "user", "content": "When is breakfast?"}
REPLY = {"role": "assistant", "content": "From 7 to 10."}
CALL = {"role": "assistant", "content": "", "tool_calls": [{"id": "call00001", "type": "function", "function": {"name": "set_lights", "arguments": {"room": "lobby", "on": True}}}]}
TWO_CALLS = {"role": "assistant", "content": "One moment.", "tool_calls": CALL["tool_calls"] + [
    {"id": "call00002", "type": "function", "function": {"name": "set_lights", "arguments": {"room": "bar", "on": False}}}]}
RESULT = {"role": "tool", "tool_call_id": "call00001", "name": "set_lights", "content": "{\"ok\": true}"}
THOUGHT = {"role": "assistant", "content": "<think>\nhm\n</think>\n\nFrom 7 to 10."}

CASES = {
    "user": dict(messages=[USER]),
    "user, no prompt": dict(messages=[USER], add_generation_prompt=False),
    "system": dict(messages=[SYSTEM, USER]),
    "many turns": dict(messages=[SYSTEM, USER, REPLY, {"role": "user", "content": "And lunch?"}]),
    "ends with assistant": dict(messages=[USER, REPLY], add_generation_prompt=False),
    "tools": dict(messages=[SYSTEM, USER], tools=TOOLS),
    "tools without system": dict(messages=[USER], tools=TOOLS),
    "call and result": dict(messages=[SYSTEM, {"role": "user", "content": "Lights on."}, CALL, RESULT], tools=TOOLS),
    "two calls": dict(messages=[{"role": "user", "content": "Lights."}, TWO_CALLS, RESULT, {**RESULT, "tool_call_id": "call00002"}], tools=TOOLS),
    "after a result": dict(messages=[USER, CALL, RESULT, {"role": "assistant", "content": "Done."}, USER], tools=TOOLS),
    "thinking on": dict(messages=[SYSTEM, USER], extra={"enable_thinking": True}),
    "thinking off": dict(messages=[SYSTEM, USER], extra={"enable_thinking": False}),
    "thoughts in history": dict(messages=[USER, THOUGHT, USER]),
    "empty content": dict(messages=[{"role": "user", "content": ""}]),
    "white space and unicode": dict(messages=[{"role": "user", "content": "  \n日本語 😀 <b>&amp;</b> {{ x }}  "}]),
    "two users": dict(messages=[USER, USER]),
    "assistant first": dict(messages=[REPLY, USER]),
}


class Day(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2026, 11, 24)


def main():
    chat_template_utils.datetime = Day
    cases, templates = {}, {}
    for name, case in CASES.items():
        cases[name] = {"add_generation_prompt": True, **case}
    for path in sorted(pathlib.Path(sys.argv[1]).glob("*.jinja")):
        outputs = {}
        for name, case in cases.items():
            try:
                compiled = chat_template_utils._compile_jinja_template(path.read_text())
                text = compiled.render(messages=case["messages"], tools=case.get("tools"), documents=None, bos_token="<s>", eos_token="</s>",
                                       add_generation_prompt=case["add_generation_prompt"], **case.get("extra", {}))
                outputs[name] = {"text": text}
            except Exception as error:
                outputs[name] = {"error": type(error).__name__}
        templates[path.name] = outputs
    json.dump({"cases": cases, "templates": templates}, sys.stdout, ensure_ascii=False, indent=1)


main()
