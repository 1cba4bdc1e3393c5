"""The real Anthropic SDK against a running nearfar; see harness.py."""

import asyncio
import json

import anthropic
from anthropic import Anthropic, AsyncAnthropic
from pydantic import BaseModel

import harness
from harness import BASE_URL, BOTH, FACTS, LOCAL, MODEL, PIXEL, QUESTION, SIDE, SWITCH, check, main

client = Anthropic(base_url=BASE_URL, api_key="unused", max_retries=0, timeout=60)

LIGHTS = {"name": "set_lights", "description": "Switch the lights on or off", "input_schema": harness.LIGHTS}
DESK = {"name": "call_desk", "input_schema": harness.DESK}
# This SDK has no argument for it.
COLD = {"extra_body": {"temperature": 0}}
ASK = dict(model=MODEL, max_tokens=40, system=FACTS, messages=[{"role": "user", "content": QUESTION}])
LONG = {**ASK, "max_tokens": 600, "messages": [{"role": "user", "content": QUESTION if LOCAL else "count slowly"}]}


def say(text, **more):
    return {"model": MODEL, "max_tokens": 200, "messages": [{"role": "user", "content": text}], **more}


def texts(message):
    return "".join(block.text for block in message.content if block.type == "text")


def fails(kind, **request):
    try:
        client.messages.create(**request)
    except kind as error:
        assert error.body["type"] == "error" and error.body["error"]["message"], error.body
        assert error.request_id and error.request_id == error.body["request_id"], error
        return error
    raise AssertionError("no error")


@check("chat")
def whole_answer():
    raw = client.messages.with_raw_response.create(**ASK, **COLD)
    answer = raw.parse()
    assert raw.headers["x-nearfar-zone"] == ("device" if LOCAL else "cloud"), raw.headers
    assert raw.headers["x-nearfar-target"] == answer.model == MODEL
    assert raw.headers["request-id"].startswith("req_") and answer.id.startswith("msg_")
    assert answer.type == "message" and answer.role == "assistant" and texts(answer)
    assert answer.stop_reason in ("end_turn", "max_tokens") and answer.stop_sequence is None
    assert answer.usage.input_tokens > 0 and answer.usage.output_tokens > 0, answer.usage
    if LOCAL:
        assert "7:00 - 10:30" in texts(answer), answer
    else:
        # The double's prompt has 21 tokens, 8 of them cached.
        assert (answer.usage.input_tokens, answer.usage.cache_read_input_tokens, answer.usage.output_tokens) == (13, 8, 5), answer.usage


@check("chat")
def system_as_blocks_and_marks_for_the_cache():
    mark = {"cache_control": {"type": "ephemeral"}}
    answer = client.messages.create(**{**ASK, "system": [{"type": "text", "text": FACTS, **mark}], "messages": [
        {"role": "user", "content": [{"type": "text", "text": "hello", **mark}]},
        {"role": "assistant", "content": [{"type": "text", "text": "hello, how can I help?"}]},
        {"role": "user", "content": [{"type": "text", "text": QUESTION, **mark}]},
    ]}, metadata={"user_id": "u-1"})
    assert texts(answer)


@check("stream")
def events_come_in_their_order():
    names, text, stops = [], "", []
    for event in client.messages.create(**ASK, **COLD, stream=True):
        names.append(event.type)
        if event.type == "content_block_delta":
            text += event.delta.text
        if event.type == "message_delta":
            stops.append(event.delta.stop_reason)
    short = [name for name, before in zip(names, [None] + names) if name != before]
    assert short == ["message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta", "message_stop"], names
    assert len(stops) == 1 and stops[0] in ("end_turn", "max_tokens")
    whole = client.messages.create(**ASK, **COLD)
    assert text == texts(whole)


@check("stream")
def the_helper_puts_the_same_message_together():
    with client.messages.stream(**ASK, **COLD) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    whole = client.messages.create(**ASK, **COLD)
    assert texts(final) == text == texts(whole)
    assert final.stop_reason == whole.stop_reason
    assert final.usage.output_tokens == whole.usage.output_tokens
    total = lambda usage: usage.input_tokens + (usage.cache_read_input_tokens or 0) + (usage.cache_creation_input_tokens or 0)
    assert total(final.usage) == total(whole.usage) > 0, (final.usage, whole.usage)


@check("stream")
def stop_sequences():
    if LOCAL:
        request = {**ASK, "stop_sequences": [":"]}
    else:
        request = say("one two STOP three", stop_sequences=["STOP"])
    answer = client.messages.create(**request, **COLD)
    assert answer.stop_reason in ("stop_sequence", "end_turn"), answer
    assert answer.stop_reason == "end_turn" or answer.stop_sequence == request["stop_sequences"][0]
    assert request["stop_sequences"][0] not in texts(answer)
    if LOCAL or SIDE == "anthropic":
        assert answer.stop_reason == "stop_sequence", answer


@check("tools")
def tool_call_and_its_result():
    request = say(SWITCH, system=FACTS, tools=[LIGHTS], **COLD)
    answer = client.messages.create(**request)
    assert answer.stop_reason == "tool_use", answer
    (call,) = [block for block in answer.content if block.type == "tool_use"]
    assert call.id and call.name == "set_lights" and isinstance(call.input, dict)
    if LOCAL:
        assert call.input == {"room": "kitchen", "state": "on"}, call
    for result in ('{"ok": true}', [{"type": "text", "text": '{"ok": true}'}]):
        for failed in (False, True):
            messages = request["messages"] + [{"role": "assistant", "content": answer.content}, {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": call.id, "content": result, "is_error": failed}]}]
            after = client.messages.create(model=MODEL, max_tokens=40, system=FACTS, messages=messages, tools=[LIGHTS], tool_choice={"type": "none"}, **COLD)
            assert texts(after), after


@check("tools")
def streamed_tool_call():
    with client.messages.stream(**say(SWITCH, tools=[LIGHTS], **COLD)) as stream:
        pieces = [event.partial_json for event in stream if event.type == "input_json"]
        final = stream.get_final_message()
    (call,) = [block for block in final.content if block.type == "tool_use"]
    assert final.stop_reason == "tool_use" and call.name == "set_lights", final
    assert call.input == json.loads("".join(pieces)), (call, pieces)


@check("tools")
def tools_are_called_on_demand():
    for choice in ({"type": "any", "disable_parallel_tool_use": True}, {"type": "tool", "name": "call_desk"}):
        answer = client.messages.create(**say("hello", tools=[LIGHTS, DESK], tool_choice=choice, **COLD))
        calls = [block for block in answer.content if block.type == "tool_use"]
        assert answer.stop_reason == "tool_use" and calls, answer
        assert choice["type"] == "any" or calls[0].name == "call_desk"
    none = client.messages.create(**say("hello", tools=[LIGHTS], tool_choice={"type": "none"}, **COLD))
    assert all(block.type == "text" for block in none.content)


@check("parallel")
def two_calls_in_one_turn():
    if LOCAL:
        # concierge calls one tool at a time; that it may make more is the engine's tests' affair.
        return "n/a"
    request = say(BOTH, tools=[LIGHTS, DESK])
    answer = client.messages.create(**request)
    calls = [block for block in answer.content if block.type == "tool_use"]
    assert [c.name for c in calls] == ["set_lights", "call_desk"] and len({c.id for c in calls}) == 2, calls
    with client.messages.stream(**request) as stream:
        final = stream.get_final_message()
    assert [(b.name, b.input) for b in final.content if b.type == "tool_use"] == [(c.name, c.input) for c in calls]
    results = [{"type": "tool_result", "tool_use_id": c.id, "content": c.name} for c in reversed(calls)]
    after = client.messages.create(model=MODEL, max_tokens=40, messages=request["messages"] + [
        {"role": "assistant", "content": final.content}, {"role": "user", "content": results + [{"type": "text", "text": "thanks"}]}])
    assert texts(after)
    if SIDE == "gemini":
        return  # Gemini has no way to ask for one call alone.
    one = client.messages.create(**request, tool_choice={"type": "auto", "disable_parallel_tool_use": True})
    assert len([block for block in one.content if block.type == "tool_use"]) == 1


class Order(BaseModel):
    urgent: bool
    late: bool


@check("schema")
def an_answer_parses_into_a_class():
    schema = {"type": "object", "properties": {"urgent": {"type": "boolean"}, "count": {"type": "integer", "minimum": 1, "maximum": 9}},
              "required": ["urgent", "count"], "additionalProperties": False}
    config = {"format": {"type": "json_schema", "schema": schema}}
    answer = client.messages.create(**{**ASK, "max_tokens": 200}, output_config=config)
    assert set(json.loads(texts(answer))) == {"urgent", "count"}, answer
    parsed = client.messages.parse(**{**ASK, "max_tokens": 200}, output_format=Order)
    assert isinstance(parsed.parsed_output, Order), parsed


@check("images")
def pictures():
    data = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
    # Nobody fetches this, least of all nearfar.
    link = {"type": "image", "source": {"type": "url", "url": "https://pictures.example/a.png"}}
    # Gemini takes no links.
    shown = [data] if SIDE == "gemini" else [data, link]
    request = say([{"type": "text", "text": "what is this"}, *shown])
    try:
        answer = client.messages.create(**request)
    except anthropic.InternalServerError as error:
        assert LOCAL and error.body["nearfar"]["code"] == "no_capable_target", error
        return "refused"
    assert not LOCAL and f"[{len(shown)} pictures]" in texts(answer), answer
    # A confined request takes its pictures nowhere.
    try:
        client.messages.create(**request, extra_headers={"x-nearfar-privacy": "device"})
        raise AssertionError("a confined request was answered")
    except anthropic.InternalServerError as error:
        assert error.body["nearfar"]["code"] == "privacy_ceiling", error.body


@check("thinking")
def thoughts_and_their_signatures():
    if LOCAL:
        # concierge does not think; that it is asked to must not hurt.
        assert texts(client.messages.create(**ASK, thinking={"type": "enabled", "budget_tokens": 1024}))
        return "n/a"
    request = say("hello", thinking={"type": "enabled", "budget_tokens": 1024}) | {"max_tokens": 4000}
    if SIDE != "anthropic":
        request["output_config"] = {"effort": "low"}
    answer = client.messages.create(**request)
    assert [block.type for block in answer.content][:2] == ["thinking", "text"], answer
    assert answer.content[0].thinking == "Let me think."
    if SIDE == "anthropic":
        assert answer.content[0].signature
    with client.messages.stream(**request) as stream:
        final = stream.get_final_message()
    assert [block.to_dict() for block in final.content] == [block.to_dict() for block in answer.content]
    after = client.messages.create(**{**request, "messages": request["messages"] + [
        {"role": "assistant", "content": final.content}, {"role": "user", "content": "and now"}]})
    assert texts(after).startswith("You said: and now"), after


@check("count")
def tokens_are_counted():
    counted = client.messages.count_tokens(model=MODEL, system=FACTS, messages=ASK["messages"])
    more = client.messages.count_tokens(model=MODEL, system=FACTS, messages=ASK["messages"], tools=[LIGHTS])
    assert 0 < counted.input_tokens < more.input_tokens
    if LOCAL:
        usage = client.messages.create(**ASK).usage
        whole = usage.input_tokens + usage.cache_read_input_tokens
        assert counted.input_tokens == whole, (counted, usage)
    assert counted.to_dict()["nearfar"] == {"target": MODEL, "exact": LOCAL}, counted


@check("models")
def models_are_listed():
    names = [model.id for model in client.models.list()]
    assert "auto" in names and MODEL in names, names
    model = client.models.retrieve(MODEL)
    assert model.id == MODEL and model.type == "model" and model.created_at.year == 1970
    try:
        client.models.retrieve("local/none")
        raise AssertionError("an unknown model was found")
    except anthropic.NotFoundError as error:
        assert error.body["error"]["type"] == "not_found_error"


@check("errors")
def errors_have_anthropics_shape():
    error = fails(anthropic.BadRequestError, **ASK, extra_body={"temperature": 9})
    assert "temperature" in error.body["error"]["message"] and error.body["error"]["type"] == "invalid_request_error"
    error = fails(anthropic.BadRequestError, **{**ASK, "messages": []})
    assert "messages" in error.message
    error = fails(anthropic.NotFoundError, **{**ASK, "model": "local/no-such-model"})
    assert error.body["error"]["type"] == "not_found_error"
    error = fails(anthropic.APIStatusError, **say("x" * (40 << 20)))
    assert error.status_code == 413 and error.body["error"]["type"] == "request_too_large", error
    for path in ("/v1/messages/none", "/v1/none"):
        try:
            client.post(path, body={}, cast_to=object)
            raise AssertionError("no error")
        except anthropic.NotFoundError as error:
            assert error.body["error"]["type"] == "not_found_error", error.body
    try:
        client.get("/v1/messages", cast_to=object)
        raise AssertionError("no error")
    except anthropic.APIStatusError as error:
        assert error.status_code == 405 and error.body["type"] == "error", error.body


@check("cancel")
def a_cancelled_stream_frees_the_target():
    async def run():
        client = AsyncAnthropic(base_url=BASE_URL, api_key="unused", max_retries=0, timeout=60)
        async with client.messages.stream(**LONG) as stream:
            async for _ in stream:
                break
        task = asyncio.create_task(client.messages.create(**LONG))
        await asyncio.sleep(0.02)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            pass
        answer = await client.messages.create(**ASK)
        assert texts(answer)

    asyncio.run(run())


@check("errors")
def a_providers_error_keeps_its_kind():
    if LOCAL:
        return "n/a"
    error = fails(anthropic.RateLimitError, **say("fail with 429"))
    assert error.body["error"]["type"] == "rate_limit_error"
    if SIDE == "anthropic":
        error = fails(anthropic.PermissionDeniedError, **say("fail with 403"))
        assert error.body["error"]["type"] == "permission_error"


main()
