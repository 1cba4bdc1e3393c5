"""The real Ollama SDK against a running nearfar; see harness.py."""

import asyncio
import base64
import json
import time
from typing import Annotated, Literal

import ollama
from pydantic import BaseModel, Field

import harness
from harness import BASE_URL, BOTH, FACTS, LOCAL, MODEL, PIXEL, QUESTION, SIDE, SWITCH, check, main

client = ollama.Client(host=BASE_URL, timeout=60)

CHAT = [{"role": "system", "content": FACTS}, {"role": "user", "content": QUESTION}]
GREEDY = {"temperature": 0, "num_predict": 40}
LIGHTS = {"type": "function", "function": {"name": "set_lights", "description": "Switch the lights on or off", "parameters": harness.LIGHTS}}
DESK = {"type": "function", "function": {"name": "call_desk", "parameters": harness.DESK}}
LONG = [{"role": "system", "content": FACTS}, {"role": "user", "content": QUESTION if LOCAL else "count slowly"}]
PICTURE = base64.b64decode(PIXEL)


def refused(status, words, call):
    try:
        call()
    except ollama.ResponseError as error:
        assert error.status_code == status and words in error.error, (error.status_code, error.error)
        return error
    raise AssertionError(f"not refused: {words}")


@check("chat")
def whole_chat():
    answer = client.chat(MODEL, CHAT, options=GREEDY)
    assert answer.model == MODEL and answer.done and answer.done_reason in ("stop", "length"), answer
    assert answer.message.role == "assistant" and answer.message.content
    assert answer.prompt_eval_count > 0 and answer.eval_count > 0 and answer.total_duration > 0
    if LOCAL:
        assert "7:00 - 10:30" in answer.message.content, answer


@check("stream")
def streamed_chat_equals_whole():
    lines = list(client.chat(MODEL, CHAT, options=GREEDY, stream=True))
    assert [line.done for line in lines] == [False] * (len(lines) - 1) + [True]
    assert all(line.done_reason is None for line in lines[:-1])
    whole = client.chat(MODEL, CHAT, options=GREEDY)
    assert "".join(line.message.content for line in lines) == whole.message.content
    assert lines[-1].eval_count == whole.eval_count and lines[-1].done_reason == whole.done_reason


@check("chat")
def generate_whole_and_streamed():
    ask = dict(prompt="when is breakfast", system=FACTS, options=GREEDY)
    whole = client.generate(MODEL, **ask)
    assert whole.response and whole.done
    lines = list(client.generate(MODEL, **ask, stream=True))
    assert "".join(line.response for line in lines) == whole.response
    if LOCAL:
        raw = client.generate(MODEL, prompt="Hello", raw=True, options={"num_predict": 4, "temperature": 0})
        assert raw.done_reason in ("stop", "length") and raw.eval_count <= 4


@check("options")
def options_are_followed():
    if not LOCAL:
        return "n/a"
    short = client.chat(MODEL, CHAT, options={"num_predict": 3, "temperature": 0, "num_ctx": 2048, "num_thread": 2})
    assert short.eval_count == 3 and short.done_reason == "length", short
    seeded = [client.chat(MODEL, CHAT, options={"num_predict": 12, "temperature": 1.5, "seed": 7}).message.content for _ in range(2)]
    assert seeded[0] == seeded[1]
    stopped = client.chat(MODEL, CHAT, options={**GREEDY, "stop": ["10:30"]})
    assert "10:30" not in stopped.message.content and stopped.done_reason == "stop", stopped


@check("tools")
def a_tool_is_called_and_answered():
    messages = [{"role": "system", "content": FACTS}, {"role": "user", "content": SWITCH}]
    answer = client.chat(MODEL, messages, tools=[LIGHTS], options={"temperature": 0})
    (call,) = answer.message.tool_calls
    assert call.function.name == "set_lights" and answer.done_reason == "stop"
    if LOCAL:
        assert call.function.arguments == {"room": "kitchen", "state": "on"}, call
    messages += [answer.message, {"role": "tool", "tool_name": "set_lights", "content": '{"ok": true}'}]
    assert client.chat(MODEL, messages, options=GREEDY).message.content


@check("tools")
def a_streamed_call_is_whole():
    lines = list(client.chat(MODEL, [{"role": "user", "content": SWITCH}], tools=[LIGHTS], options={"temperature": 0}, stream=True))
    calls = [call for line in lines for call in line.message.tool_calls or []]
    assert len(calls) == 1 and calls[0].function.name == "set_lights" and isinstance(calls[0].function.arguments, dict), calls
    assert lines[-1].done and not lines[-1].message.tool_calls


@check("parallel")
def several_calls_and_their_results():
    if LOCAL:
        return "n/a"  # The model that ships makes one call at a time.
    messages = [{"role": "user", "content": BOTH}]
    for stream in (False, True):
        answer = client.chat(MODEL, messages, tools=[LIGHTS, DESK], stream=stream)
        calls = [call for line in answer for call in line.message.tool_calls or []] if stream else answer.message.tool_calls
        assert [call.function.name for call in calls] == ["set_lights", "call_desk"], calls
    # The SDK drops the calls' ids: results find their calls by the tools' names.
    messages += [answer.message if not stream else {"role": "assistant", "content": "", "tool_calls": calls},
                 {"role": "tool", "tool_name": "call_desk", "content": "it rings"}, {"role": "tool", "tool_name": "set_lights", "content": "they are on"}]
    assert client.chat(MODEL, messages, tools=[LIGHTS, DESK]).message.content


class Booking(BaseModel):
    room: Literal["single", "double", "suite"]
    guests: Annotated[int, Field(ge=1, le=12)]


@check("schema")
def answers_fit_a_schema():
    ask = [{"role": "user", "content": "a double room for two"}]
    for stream in (False, True):
        answer = client.chat(MODEL, ask, format=Booking.model_json_schema(), options={"temperature": 0, "num_predict": 200}, stream=stream)
        text = "".join(line.message.content for line in answer) if stream else answer.message.content
        Booking.model_validate_json(text)


@check("schema")
def json_without_a_schema():
    ask = lambda: client.chat(MODEL, [{"role": "user", "content": "breakfast as JSON"}], format="json", options={"temperature": 0, "num_predict": 300})
    if SIDE == "anthropic":
        refused(503, "", ask)  # Its models have no such mode.
        return "refused"
    else:
        answer = ask()
        assert answer.done_reason == "length" or isinstance(json.loads(answer.message.content), dict), answer


@check("thinking")
def thoughts_are_apart():
    if LOCAL:
        return "n/a"  # concierge does not think.
    for stream in (False, True):
        answer = client.chat(MODEL, CHAT, think="high", stream=stream)
        lines = list(answer) if stream else [answer]
        assert "".join(line.message.thinking or "" for line in lines) == "Let me think.", lines
        assert "think" not in "".join(line.message.content for line in lines)


@check("images")
def pictures():
    message = {"role": "user", "content": "what is it", "images": [PICTURE]}
    refused(400, "images[0]", lambda: client._request(ollama.ChatResponse, "POST", "/api/chat", json={
        "model": MODEL, "messages": [{"role": "user", "content": "x", "images": ["https://example.com/a.png"]}]}))
    if LOCAL:
        refused(503, "", lambda: client.chat(MODEL, [message]))  # concierge is blind.
        return "refused"
    else:
        assert "1 pictures" in client.chat(MODEL, [message]).message.content


@check("models")
def models_are_listed_and_shown():
    models = client.list().models
    names = [m.model for m in models]
    assert "auto" in names and "concierge:latest" in names, names
    assert LOCAL or MODEL in names, names
    mine = next(m for m in models if m.model == "concierge:latest")
    assert mine.size > 1_000_000 and len(mine.digest) == 64 and mine.details.format == "gguf" and mine.details.parameter_size
    for name in ("concierge", "concierge:latest", "local/concierge", MODEL, "auto"):
        assert "completion" in client.show(name).capabilities, name
    assert client.show("concierge").modelinfo["general.parameter_count"] > 1_000_000
    refused(404, "not found", lambda: client.show("no-such-model"))


@check("models")
def names_have_tags_or_not():
    if not LOCAL:
        return "n/a"
    for name in ("concierge", "concierge:latest", "local/concierge:latest", "auto"):
        assert client.chat(name, CHAT, options={"num_predict": 2}).model == MODEL


@check("memory")
def models_are_loaded_and_dropped():
    if not LOCAL:
        nothing = client.generate(MODEL)
        assert nothing.done and nothing.done_reason == "load" and not nothing.response
        return
    there = lambda: [m.model for m in client.ps().models]
    def wait(wanted):
        for _ in range(600):
            if ("concierge:latest" in there()) == wanted:
                return
            time.sleep(0.05)
        raise AssertionError(there())
    assert client.chat(MODEL, []).done_reason == "load"
    wait(True)
    loaded = next(m for m in client.ps().models if m.model == "concierge:latest")
    assert loaded.size > 0 and loaded.context_length > 0
    assert client.generate(MODEL, keep_alive=0).done_reason == "unload"
    wait(False)
    assert client.chat(MODEL, CHAT, options={"num_predict": 2}, keep_alive="0s").done
    wait(False)
    assert client.chat(MODEL, CHAT, options={"num_predict": 2}, keep_alive="5m").done
    wait(True)


@check("errors")
def errors_say_what_is_wrong():
    refused(400, "0 to 2", lambda: client.chat(MODEL, CHAT, options={"temperature": 9}))
    refused(404, "not found", lambda: client.chat("no-such-model", CHAT))
    refused(404, "not found", lambda: list(client.chat("local/no-such-model", CHAT, stream=True)))
    refused(400, "suffix", lambda: client.generate(MODEL, prompt="a", suffix="b"))
    refused(400, "keep_alive", lambda: client.chat(MODEL, CHAT, keep_alive="soon"))
    if not LOCAL:
        refused(400, "", lambda: client.chat(MODEL, [{"role": "user", "content": "fail with 400"}]))


@check("errors")
def models_are_managed_elsewhere():
    refused(501, "nearfar model add", lambda: client.pull("llama3.2"))
    refused(501, "nearfar model add", lambda: client.create("x", from_="y"))
    refused(501, "nearfar model add", lambda: client.copy("x", "y"))
    refused(501, "nearfar model rm", lambda: client.delete("x"))
    refused(501, "publishes no models", lambda: client.push("x"))


@check("privacy")
def a_confined_request_is_refused_rather_than_sent():
    if LOCAL:
        return "n/a"
    confined = ollama.Client(host=BASE_URL, headers={"x-nearfar-privacy": "device"})
    refused(503, "must stay on this device", lambda: confined.chat(MODEL, CHAT))


@check("embeddings")
def vectors():
    if SIDE != "openai":
        refused(503, "", lambda: client.embed(MODEL, "a"))  # Neither makes any.
        return "refused"
    name = "openai/text-embedding-3-small"
    answer = client.embed(name, ["a", "bb"])
    assert [len(v) for v in answer.embeddings] == [2, 2] and answer.embeddings[1][0] == 2.0, answer
    assert client.embeddings(name, "ccc").embedding[0] == 3.0


@check("cancel")
def a_cancelled_stream_frees_the_target():
    async def run():
        client = ollama.AsyncClient(host=BASE_URL, timeout=60)
        stream = await client.chat(MODEL, LONG, options={"num_predict": 600}, stream=True)
        async for _ in stream:
            break
        await stream.aclose()
        answer = await client.chat(MODEL, CHAT, options={"num_predict": 8, "temperature": 0})
        assert answer.message.content

    asyncio.run(run())


main()
