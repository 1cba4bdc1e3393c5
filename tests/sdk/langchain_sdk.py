"""langchain-openai against a running nearfar; see harness.py."""

import asyncio

import openai
from langchain_core.messages import HumanMessage, SystemMessage, ToolMessage
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, Field

import harness
from harness import BASE_URL, BOTH, FACTS, LOCAL, MODEL, PIXEL, QUESTION, SWITCH, check, main

llm = ChatOpenAI(base_url=BASE_URL, model=MODEL, api_key="unused", max_retries=0, timeout=60, temperature=0, max_tokens=60, stream_usage=True)
ASK = [SystemMessage(FACTS), HumanMessage(QUESTION)]
LIGHTS = {"type": "function", "function": {"name": "set_lights", "description": "Switch the lights on or off", "parameters": harness.LIGHTS}}
DESK = {"type": "function", "function": {"name": "call_desk", "description": "Call the desk", "parameters": harness.DESK}}


@check("chat")
def invoke():
    answer = llm.invoke(ASK)
    assert answer.content and answer.usage_metadata["total_tokens"] > 0, answer
    assert answer.response_metadata["finish_reason"] in ("stop", "length")


@check("stream")
def stream_adds_up():
    whole = None
    for chunk in llm.stream(ASK):
        whole = chunk if whole is None else whole + chunk
    assert whole.content == llm.invoke(ASK).content
    assert whole.usage_metadata["output_tokens"] > 0, whole


@check("tools")
def a_tool_and_its_result():
    messages = [SystemMessage(FACTS), HumanMessage(SWITCH)]
    bound = llm.bind_tools([LIGHTS])
    answer = bound.invoke(messages)
    (call,) = answer.tool_calls
    assert call["name"] == "set_lights" and isinstance(call["args"], dict), answer
    streamed = None
    for chunk in bound.stream(messages):
        streamed = chunk if streamed is None else streamed + chunk
    assert [(c["name"], c["args"]) for c in streamed.tool_calls] == [(call["name"], call["args"])], streamed
    after = llm.invoke(messages + [answer, ToolMessage('{"ok": true}', tool_call_id=call["id"])])
    assert after.content


@check("parallel")
def two_calls_in_one_turn():
    if LOCAL:
        return "n/a"
    messages = [HumanMessage(BOTH)]
    answer = llm.bind_tools([LIGHTS, DESK]).invoke(messages)
    assert [c["name"] for c in answer.tool_calls] == ["set_lights", "call_desk"], answer
    results = [ToolMessage(c["name"], tool_call_id=c["id"]) for c in answer.tool_calls]
    assert llm.invoke(messages + [answer] + results).content


class Order(BaseModel):
    """An order at the desk."""

    urgent: bool
    count: int = Field(ge=1, le=9)


@check("schema")
def structured_output():
    for method in ("json_schema", "function_calling"):
        order = llm.with_structured_output(Order, method=method).invoke(ASK)
        assert isinstance(order, Order), (method, order)


@check("images")
def a_picture():
    picture = HumanMessage([{"type": "text", "text": "what is this"}, {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}])
    try:
        answer = llm.invoke([picture])
    except openai.InternalServerError as error:
        assert LOCAL and error.code == "no_capable_target", error
        return "refused"
    assert not LOCAL and "[1 pictures]" in answer.content, answer


@check("cancel")
def a_cancelled_stream_frees_the_target():
    async def run():
        async for _ in llm.astream([HumanMessage(QUESTION if LOCAL else "count slowly")]):
            break
        assert (await llm.ainvoke(ASK)).content

    asyncio.run(run())


@check("errors")
def errors_are_openais():
    try:
        llm.bind(temperature=9).invoke(ASK)
        raise AssertionError("a temperature of 9 was taken")
    except openai.BadRequestError as error:
        assert error.param == "temperature", error
    if not LOCAL:
        try:
            llm.invoke([HumanMessage("fail with 429")])
            raise AssertionError("no error")
        except openai.RateLimitError:
            pass


main()
