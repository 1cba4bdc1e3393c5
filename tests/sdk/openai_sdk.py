"""The real OpenAI SDK against a running nearfar; see harness.py."""

import asyncio
import json

import openai
from typing import Annotated, Literal, Optional

from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel, Field

import harness
from harness import BASE_URL, BOTH, FACTS, LOCAL, MODEL, PIXEL, QUESTION, SIDE, SWITCH, check, main

client = OpenAI(base_url=BASE_URL, api_key="unused", max_retries=0, timeout=60)

LIGHTS = {"type": "function", "function": {"name": "set_lights", "description": "Switch the lights on or off", "parameters": harness.LIGHTS}}
DESK = {"type": "function", "function": {"name": "call_desk", "parameters": harness.DESK}}
# Longer than anybody waits: the double takes its time.
LONG = [{"role": "system", "content": FACTS}, {"role": "user", "content": QUESTION if LOCAL else "count slowly"}]
CHAT = [{"role": "system", "content": FACTS}, {"role": "user", "content": QUESTION}]


@check("chat")
def whole_answer():
    raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=CHAT, temperature=0, max_tokens=40)
    answer = raw.parse()
    assert raw.headers["x-nearfar-zone"] == ("device" if LOCAL else "cloud"), raw.headers
    assert raw.headers["x-nearfar-decision"].startswith("dec_")
    assert raw.headers["x-nearfar-target"] == answer.model == MODEL, (raw.headers, answer.model)
    choice = answer.choices[0]
    assert choice.message.role == "assistant" and choice.message.content
    assert choice.finish_reason in ("stop", "length")
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens > 0
    if LOCAL:
        assert "7:00 - 10:30" in choice.message.content, choice.message.content


@check("stream")
def streamed_answer_equals_whole():
    def ask(stream):
        return client.chat.completions.create(model=MODEL, messages=CHAT, temperature=0, max_tokens=40, stream=stream,
                                              **({"stream_options": {"include_usage": True}} if stream else {}))

    chunks = list(ask(True))
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    reasons = [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason]
    assert len(reasons) == 1, reasons
    usage = [c.usage for c in chunks if c.usage]
    assert len(usage) == 1 and not chunks[-1].choices, "usage comes once, in the last chunk"
    assert len({c.id for c in chunks}) == 1
    whole = ask(False)
    assert text == whole.choices[0].message.content
    assert usage[0].completion_tokens == whole.usage.completion_tokens


@check("stream")
def no_usage_unless_asked():
    chunks = list(client.chat.completions.create(model=MODEL, messages=CHAT, max_tokens=8, stream=True))
    assert all(c.usage is None for c in chunks)


@check("tools")
def tool_call_and_its_result():
    messages = [{"role": "system", "content": FACTS}, {"role": "user", "content": SWITCH}]
    answer = client.chat.completions.create(model=MODEL, messages=messages, tools=[LIGHTS], temperature=0)
    choice = answer.choices[0]
    assert choice.finish_reason == "tool_calls", choice
    call = choice.message.tool_calls[0]
    assert call.type == "function" and call.id and call.function.name == "set_lights"
    arguments = json.loads(call.function.arguments)
    if LOCAL:
        assert arguments == {"room": "kitchen", "state": "on"}, arguments
    messages += [choice.message, {"role": "tool", "tool_call_id": call.id, "content": '{"ok": true}'}]
    after = client.chat.completions.create(model=MODEL, messages=messages, temperature=0, max_tokens=40)
    assert after.choices[0].message.content


@check("tools")
def streamed_tool_call():
    stream = client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": SWITCH}],
                                            tools=[LIGHTS], temperature=0, stream=True)
    name, arguments, reasons, ids = "", "", [], []
    for chunk in stream:
        if not chunk.choices:
            continue
        choice = chunk.choices[0]
        for call in choice.delta.tool_calls or []:
            assert call.index == 0
            ids += [call.id] if call.id else []
            name += call.function.name or ""
            arguments += call.function.arguments or ""
        reasons += [choice.finish_reason] if choice.finish_reason else []
    assert name == "set_lights" and len(ids) == 1 and reasons == ["tool_calls"], (name, ids, reasons)
    json.loads(arguments)


@check("models")
def models_are_listed():
    names = [m.id for m in client.models.list()]
    assert "auto" in names and MODEL in names, names
    assert client.models.retrieve(MODEL).id == MODEL


@check("errors")
def errors_name_the_field():
    try:
        client.chat.completions.create(model=MODEL, messages=CHAT, temperature=9)
        raise AssertionError("a temperature of 9 was taken")
    except openai.BadRequestError as error:
        assert error.param == "temperature" and "0 to 2" in error.message, error
    try:
        client.chat.completions.create(model="local/no-such-model", messages=CHAT)
        raise AssertionError("an unknown model answered")
    except openai.NotFoundError as error:
        assert error.code == "model_not_found", error
    try:
        client.chat.completions.create(model=MODEL, messages=[])
        raise AssertionError("no messages were taken")
    except openai.BadRequestError as error:
        assert error.param == "messages", error


@check("privacy")
def a_confined_request_is_refused_rather_than_sent():
    if LOCAL:
        return "n/a"
    try:
        client.chat.completions.create(model=MODEL, messages=CHAT, extra_headers={"x-nearfar-privacy": "device"})
        raise AssertionError("a confined request was answered by a provider")
    except openai.InternalServerError as error:
        assert error.status_code == 503 and error.code == "privacy_ceiling", error


@check("logprobs")
def log_probabilities():
    if not LOCAL:
        return "n/a"
    answer = client.chat.completions.create(model=MODEL, messages=CHAT, temperature=0, max_tokens=5, logprobs=True, top_logprobs=3)
    tokens = answer.choices[0].logprobs.content
    assert len(tokens) == answer.usage.completion_tokens
    assert all(len(t.top_logprobs) == 3 and t.logprob == t.top_logprobs[0].logprob <= 0 for t in tokens)


@check("cancel")
def a_cancelled_stream_frees_the_target():
    async def run():
        client = AsyncOpenAI(base_url=BASE_URL, api_key="unused", max_retries=0, timeout=60)
        stream = await client.chat.completions.create(model=MODEL, messages=LONG, max_tokens=600, stream=True)
        async for _ in stream:
            break
        await stream.close()
        task = asyncio.create_task(client.chat.completions.create(model=MODEL, messages=LONG, max_tokens=400))
        await asyncio.sleep(0.02)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            pass
        answer = await client.chat.completions.create(model=MODEL, messages=CHAT, temperature=0, max_tokens=8)
        assert answer.choices[0].message.content

    asyncio.run(run())


@check("raw")
def raw_completion():
    if not LOCAL:
        return "n/a"  # OpenAI's chat models take no raw text; nearfar says so.
    answer = client.completions.create(model=MODEL, prompt="Hello", max_tokens=4, temperature=0)
    assert isinstance(answer.choices[0].text, str) and answer.choices[0].finish_reason in ("stop", "length")


# Bounded: a model of this size may write on without end where it may.
Words = Annotated[str, Field(max_length=24)]


class Wish(BaseModel):
    what: Words
    urgent: bool


class Booking(BaseModel):
    room: Literal["single", "double", "suite"]
    guests: Annotated[int, Field(ge=1, le=12)]
    wishes: Annotated[list[Wish], Field(max_length=2)]
    note: Optional[Words]


@check("schema")
def an_answer_parses_into_a_class():
    seen = 0
    for seed in range(4):
        try:
            answer = client.chat.completions.parse(model=MODEL, messages=CHAT, response_format=Booking, seed=seed, temperature=1, max_tokens=400)
        except openai.LengthFinishReasonError:
            continue  # Cut off, and said so.
        booking = answer.choices[0].message.parsed
        assert isinstance(booking, Booking) and booking.room in ("single", "double", "suite")
        seen += 1
    assert seen, "no answer of 400 tokens was whole"


@check("grammar")
def json_mode_and_grammars():
    if not LOCAL:
        return "n/a"
    answer = client.chat.completions.create(model=MODEL, messages=CHAT, response_format={"type": "json_object"}, temperature=0, max_tokens=300)
    choice = answer.choices[0]
    assert choice.finish_reason == "length" or isinstance(json.loads(choice.message.content), dict), choice

    def said(**form):
        return client.chat.completions.create(model=MODEL, messages=CHAT, max_tokens=60, extra_body=form).choices[0].message.content

    assert said(guided_choice=["breakfast", "pool"]) in ("breakfast", "pool")
    assert said(structured_outputs={"regex": "[0-9]{2}:[0-9]{2}"})[2] == ":"
    assert said(grammar='root ::= "yes" | "no"') in ("yes", "no")


@check("tools")
def tools_are_called_on_demand():
    hello = [{"role": "user", "content": "hello"}]
    for choice in ("required", {"type": "function", "function": {"name": "call_desk"}}):
        answer = client.chat.completions.create(model=MODEL, messages=hello, tools=[LIGHTS, DESK], tool_choice=choice,
                                                parallel_tool_calls=False, temperature=0, max_tokens=200)
        assert answer.choices[0].finish_reason == "tool_calls" and not answer.choices[0].message.content, answer
        (call,) = answer.choices[0].message.tool_calls
        arguments = json.loads(call.function.arguments)
        assert call.function.name in ("set_lights", "call_desk")
        if choice != "required":
            assert call.function.name == "call_desk" and isinstance(arguments["urgent"], bool), call
    none = client.chat.completions.create(model=MODEL, messages=hello, tools=[LIGHTS], tool_choice="none", temperature=0, max_tokens=20)
    assert not none.choices[0].message.tool_calls


@check("schema")
def a_schema_that_cannot_be_followed_is_refused():
    if not LOCAL:
        return "n/a"
    schema = {"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}}
    try:
        client.chat.completions.create(model=MODEL, messages=CHAT, response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}})
        raise AssertionError("uniqueItems was taken")
    except openai.BadRequestError as error:
        assert error.param == "response_format.json_schema.schema" and "#/properties/a/uniqueItems" in error.message, error


@check("parallel")
def two_calls_in_one_turn():
    messages = [{"role": "user", "content": BOTH}]
    if LOCAL:
        # concierge calls one tool at a time; that it may make more is the engine's tests' affair.
        return "n/a"
    answer = client.chat.completions.create(model=MODEL, messages=messages, tools=[LIGHTS, DESK])
    calls = answer.choices[0].message.tool_calls
    assert [c.function.name for c in calls] == ["set_lights", "call_desk"] and len({c.id for c in calls}) == 2, calls
    assert all(isinstance(json.loads(c.function.arguments), dict) for c in calls)
    found = {}
    for chunk in client.chat.completions.create(model=MODEL, messages=messages, tools=[LIGHTS, DESK], stream=True):
        for call in chunk.choices[0].delta.tool_calls or []:
            name, arguments = found.setdefault(call.index, ["", ""])
            found[call.index] = [name + (call.function.name or ""), arguments + (call.function.arguments or "")]
    assert sorted(found) == [0, 1] and [found[i][0] for i in (0, 1)] == ["set_lights", "call_desk"], found
    assert [json.loads(found[i][1]) for i in (0, 1)] == [json.loads(c.function.arguments) for c in calls]
    # Both results go back in any order.
    messages += [answer.choices[0].message] + [{"role": "tool", "tool_call_id": c.id, "content": c.function.name} for c in reversed(calls)]
    after = client.chat.completions.create(model=MODEL, messages=messages)
    assert after.choices[0].message.content
    if SIDE == "gemini":
        return  # Gemini has no way to ask for one call alone.
    one = client.chat.completions.create(model=MODEL, messages=messages[:1], tools=[LIGHTS, DESK], parallel_tool_calls=False)
    assert len(one.choices[0].message.tool_calls) == 1


@check("images")
def a_picture():
    content = [{"type": "text", "text": "what is this"}, {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}]
    try:
        answer = client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": content}])
    except openai.InternalServerError as error:
        assert LOCAL and error.code == "no_capable_target", error
        return "refused"
    assert not LOCAL and "[1 pictures]" in answer.choices[0].message.content, answer


@check("errors")
def a_providers_error_keeps_its_kind():
    if LOCAL:
        return "n/a"
    try:
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "fail with 429"}])
        raise AssertionError("no error")
    except openai.RateLimitError as error:
        assert error.message and error.type == "rate_limit_error", error


main()
