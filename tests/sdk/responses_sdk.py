"""The real OpenAI SDK's Responses API against a running nearfar; see harness.py."""

import asyncio
import json
from typing import Annotated, Literal

import openai
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel, Field

import harness
from harness import BASE_URL, BOTH, FACTS, LOCAL, MODEL, PIXEL, QUESTION, SIDE, SWITCH, check, main

client = OpenAI(base_url=BASE_URL, api_key="unused", max_retries=0, timeout=60)

ASK = dict(model=MODEL, instructions=FACTS, input=QUESTION, temperature=0, max_output_tokens=40)
LONG = dict(model=MODEL, instructions=FACTS, input=QUESTION if LOCAL else "count slowly", max_output_tokens=600)
LIGHTS = {"type": "function", "name": "set_lights", "description": "Switch the lights on or off", "strict": False, "parameters": harness.LIGHTS}
DESK = {"type": "function", "name": "call_desk", "strict": False, "parameters": harness.DESK}


def refused(kind, param, call):
    try:
        call()
    except kind as error:
        assert error.param == param, (error.param, error)
        return error
    raise AssertionError(f"not refused: {param}")


@check("chat")
def whole_answer():
    raw = client.responses.with_raw_response.create(**ASK, metadata={"a": "b"})
    answer = raw.parse()
    assert raw.headers["x-nearfar-zone"] == ("device" if LOCAL else "cloud"), raw.headers
    assert answer.id.startswith("resp_") and answer.model == MODEL and answer.object == "response"
    assert answer.status in ("completed", "incomplete") and answer.output_text
    assert answer.output[-1].role == "assistant" and answer.output[-1].id.startswith("msg_")
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens > 0
    assert answer.instructions == FACTS and answer.metadata == {"a": "b"} and answer.max_output_tokens == 40
    if LOCAL:
        assert "7:00 - 10:30" in answer.output_text, answer.output_text


@check("stream")
def streamed_answer_equals_whole():
    events = list(client.responses.create(**ASK, stream=True))
    assert [e.sequence_number for e in events] == list(range(len(events)))
    kinds = [e.type.removeprefix("response.") for e in events]
    assert kinds[:4] == ["created", "in_progress", "output_item.added", "content_part.added"], kinds
    assert kinds[-4:-1] == ["output_text.done", "content_part.done", "output_item.done"], kinds
    whole = client.responses.create(**ASK)
    assert kinds[-1] == whole.status
    text = "".join(e.delta for e in events if e.type == "response.output_text.delta")
    assert text == whole.output_text == events[-1].response.output_text
    assert events[-1].response.usage.output_tokens == whole.usage.output_tokens


@check("stream")
def the_stream_helper_follows():
    with client.responses.stream(**ASK) as stream:
        for event in stream:
            pass
        if event.type == "response.completed":
            assert stream.get_final_response().output_text == client.responses.create(**ASK).output_text


@check("tools")
def a_tool_is_called_and_answered():
    items = [{"role": "user", "content": SWITCH}]
    answer = client.responses.create(model=MODEL, instructions=FACTS, input=items, tools=[LIGHTS], temperature=0)
    (call,) = [item for item in answer.output if item.type == "function_call"]
    assert call.name == "set_lights" and call.call_id and call.status == "completed" and answer.status == "completed"
    arguments = json.loads(call.arguments)
    if LOCAL:
        assert arguments == {"room": "kitchen", "state": "on"}, arguments
    result = {"type": "function_call_output", "call_id": call.call_id, "output": '{"ok": true}'}
    after = client.responses.create(model=MODEL, input=[*items, *answer.output, result], temperature=0, max_output_tokens=40)
    assert after.output_text
    later = client.responses.create(model=MODEL, input=[result], previous_response_id=answer.id, temperature=0, max_output_tokens=40)
    assert later.output_text and later.previous_response_id == answer.id


@check("tools")
def a_streamed_call():
    events = list(client.responses.create(model=MODEL, input=SWITCH, tools=[LIGHTS], temperature=0, stream=True))
    deltas = "".join(e.delta for e in events if e.type == "response.function_call_arguments.delta")
    (done,) = [e for e in events if e.type == "response.function_call_arguments.done"]
    (call,) = [i for i in events[-1].response.output if i.type == "function_call"]
    assert done.arguments == call.arguments and deltas in ("", done.arguments) and call.name == "set_lights"
    json.loads(done.arguments)


@check("tools")
def tools_on_demand():
    for choice in ("required", {"type": "function", "name": "set_lights"}):
        answer = client.responses.create(model=MODEL, input="hello", tools=[LIGHTS], tool_choice=choice, temperature=0, max_output_tokens=200)
        assert any(i.type == "function_call" and i.name == "set_lights" for i in answer.output), answer.output
    none = client.responses.create(model=MODEL, input="hello", tools=[LIGHTS], tool_choice="none", temperature=0, max_output_tokens=20)
    assert all(i.type != "function_call" for i in none.output)


@check("parallel")
def several_calls_and_their_results():
    if LOCAL:
        return "n/a"  # The model that ships makes one call at a time.
    ask = dict(model=MODEL, input=BOTH, tools=[LIGHTS, DESK])
    streamed = list(client.responses.create(**ask, stream=True))[-1].response
    answer = client.responses.create(**ask)
    for found in (answer, streamed):
        # What Gemini signs of a call is an item behind it.
        assert all(item.type == "function_call" for item in found.output) or SIDE == "gemini", found.output
        calls = [item for item in found.output if item.type == "function_call"]
        assert [item.name for item in calls] == ["set_lights", "call_desk"], found.output
        assert all(json.loads(item.arguments) for item in calls)
    results = [{"type": "function_call_output", "call_id": item.call_id, "output": "done"} for item in calls]
    assert client.responses.create(model=MODEL, input=results, previous_response_id=answer.id, tools=[LIGHTS, DESK]).output_text


@check("thinking")
def thoughts_are_items_that_go_back():
    if LOCAL:
        return "n/a"  # concierge does not think.
    ask = dict(model=MODEL, input=[{"role": "user", "content": SWITCH}], tools=[LIGHTS], reasoning={"effort": "high"})
    events = list(client.responses.create(**ask, stream=True))
    assert "".join(e.delta for e in events if e.type == "response.reasoning_text.delta") == "Let me think."
    for answer in (events[-1].response, client.responses.create(**ask)):
        kinds = [item.type for item in answer.output]
        signed = ["reasoning"] if SIDE == "gemini" else []
        assert kinds == ["reasoning", "function_call"] + signed, kinds
        thought = answer.output[0]
        assert thought.content[0].text == "Let me think."
        # Anthropic signs what it thinks, and wants it back; others do not.
        assert SIDE == "anthropic" or not thought.encrypted_content, thought
        result = {"type": "function_call_output", "call_id": answer.output[1].call_id, "output": "done"}
        again = client.responses.create(**{**ask, "input": [*ask["input"], *answer.output, result], "tools": [LIGHTS]})
        assert again.output_text


class Booking(BaseModel):
    room: Literal["single", "double", "suite"]
    guests: Annotated[int, Field(ge=1, le=12)]


@check("schema")
def parsed_answers():
    answer = client.responses.parse(model=MODEL, input="a double room for two", text_format=Booking, temperature=0, max_output_tokens=200)
    assert isinstance(answer.output_parsed, Booking), answer
    with client.responses.stream(model=MODEL, input="a double room for two", text_format=Booking, temperature=0, max_output_tokens=200) as stream:
        final = [e for e in stream if e.type == "response.completed"][0].response
    assert isinstance(final.output_parsed, Booking)


@check("conversations")
def conversations_go_on():
    first = client.responses.create(model=MODEL, input="my name is Ann", temperature=0, max_output_tokens=16)
    second = client.responses.create(model=MODEL, input="what is my name", previous_response_id=first.id, temperature=0, max_output_tokens=16)
    found = client.responses.retrieve(second.id)
    assert found.id == second.id and found.output_text == second.output_text and found.previous_response_id == first.id
    texts = [i.content[0].text for i in client.responses.input_items.list(second.id, order="asc")]
    assert texts == ["my name is Ann", first.output_text, "what is my name"], texts
    assert len(client.responses.input_items.list(second.id, limit=1).data) == 1
    client.responses.delete(first.id)
    refused(openai.BadRequestError, "previous_response_id", lambda: client.responses.create(model=MODEL, input="x", previous_response_id=second.id))
    try:
        client.responses.retrieve(first.id)
        raise AssertionError("a deleted response was found")
    except openai.NotFoundError:
        pass
    unkept = client.responses.create(model=MODEL, input="hello", store=False, max_output_tokens=4)
    assert unkept.store is False
    error = refused(openai.BadRequestError, "previous_response_id", lambda: client.responses.create(model=MODEL, input="x", previous_response_id=unkept.id))
    assert error.code == "previous_response_not_found"


@check("images")
def pictures():
    ask = lambda: client.responses.create(model=MODEL, input=[{"role": "user", "content": [
        {"type": "input_text", "text": "what is it"}, {"type": "input_image", "image_url": "data:image/png;base64," + PIXEL, "detail": "low"}]}])
    if LOCAL:
        try:
            ask()
            raise AssertionError("concierge saw something")
        except openai.InternalServerError as error:
            assert error.code == "no_capable_target", error
            return "refused"
    assert "1 pictures" in ask().output_text


@check("errors")
def what_openai_runs_is_refused_by_name():
    error = refused(openai.BadRequestError, "tools[0].type", lambda: client.responses.create(model=MODEL, input="x", tools=[{"type": "web_search"}]))
    assert "web_search" in error.message
    refused(openai.BadRequestError, "background", lambda: client.responses.create(model=MODEL, input="x", background=True))
    refused(openai.BadRequestError, "conversation", lambda: client.responses.create(model=MODEL, input="x", conversation="conv_1"))
    refused(openai.BadRequestError, "temperature", lambda: client.responses.create(model=MODEL, input="x", temperature=9))
    refused(openai.NotFoundError, "model", lambda: client.responses.create(model="local/no-such-model", input="x"))
    if not LOCAL:
        try:
            client.responses.create(model=MODEL, input="fail with 400")
            raise AssertionError("an error was lost")
        except openai.BadRequestError as error:
            assert error.body["upstream_status"] == 400, error
    refused(openai.BadRequestError, "input[0].type", lambda: client.responses.create(model=MODEL, input=[{"type": "item_reference", "id": "msg_1"}]))


@check("privacy")
def a_confined_request_is_refused_rather_than_sent():
    if LOCAL:
        return "n/a"
    device = {"x-nearfar-privacy": "device"}
    try:
        client.responses.create(**ASK, extra_headers=device)
        raise AssertionError("a confined request was answered by a provider")
    except openai.InternalServerError as error:
        assert error.code == "privacy_ceiling", error
    # A conversation that was confined once stays on the device.
    near = client.responses.create(model="local/concierge", input="my name is Ann", max_output_tokens=4, extra_headers=device)
    try:
        client.responses.create(model=MODEL, input="what is my name", previous_response_id=near.id)
        raise AssertionError("a confined conversation went to a provider")
    except openai.InternalServerError as error:
        assert error.code == "privacy_ceiling", error
    assert client.responses.create(model="local/concierge", input="and now", previous_response_id=near.id, max_output_tokens=4).id


@check("cancel")
def an_answer_is_cancelled():
    last = None
    for event in client.responses.create(**LONG, stream=True):
        if event.type == "response.created":
            try:
                assert client.responses.cancel(event.response.id).status == "cancelled"
            except openai.BadRequestError as error:
                assert LOCAL and error.code == "response_ended", error  # It was faster than we.
        last = event
    if last.type == "response.failed":
        assert last.response.status == "cancelled", last
    else:
        assert LOCAL and last.type in ("response.completed", "response.incomplete"), last
    ended = client.responses.create(**ASK)
    try:
        client.responses.cancel(ended.id)
        raise AssertionError("an answer that had ended was cancelled")
    except openai.BadRequestError as error:
        assert error.code == "response_ended", error


@check("cancel")
def a_dropped_stream_frees_the_target():
    async def run():
        client = AsyncOpenAI(base_url=BASE_URL, api_key="unused", max_retries=0, timeout=60)
        stream = await client.responses.create(**LONG, stream=True)
        async for _ in stream:
            break
        await stream.close()
        answer = await client.responses.create(model=MODEL, input="hello", temperature=0, max_output_tokens=8)
        assert answer.output_text

    asyncio.run(run())


main()
