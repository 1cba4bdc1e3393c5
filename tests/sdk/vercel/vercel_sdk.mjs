// The Vercel AI SDK against a running nearfar: node vercel_sdk.mjs BASE_URL MODEL SIDE.
// Prints what ../harness.py describes.
import assert from "node:assert/strict";
import { createOpenAI } from "@ai-sdk/openai";
import { APICallError, generateObject, generateText, jsonSchema, streamObject, streamText, tool } from "ai";
import { z } from "zod";

const [BASE_URL, MODEL, SIDE] = process.argv.slice(2);
const LOCAL = SIDE === "local";
const model = createOpenAI({ baseURL: BASE_URL, apiKey: "unused" }).chat(MODEL);
const FACTS = "You are the assistant at the front desk of the Star Hotel.\nDetails:\n- Breakfast: 7:00 - 10:30\n- Wifi password: river42\n- Pool hours: 9 am - 8 pm";
const PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg==";
const ask = { model, system: FACTS, prompt: "when is breakfast", maxOutputTokens: 40, temperature: 0, maxRetries: 0 };
const switching = "turn on the lights in the kitchen" + (LOCAL ? "" : " with set_lights");
const set_lights = tool({
  description: "Switch the lights on or off",
  inputSchema: jsonSchema({ type: "object", properties: { room: { type: "string", description: "which room" }, state: { type: "string", enum: ["on", "off"] } }, required: ["room", "state"] }),
});
const call_desk = tool({ description: "Call the desk", inputSchema: jsonSchema({ type: "object", properties: { urgent: { type: "boolean" } }, required: ["urgent"], additionalProperties: false }) });

const checks = {
  async whole_answer_chat() {
    const answer = await generateText(ask);
    assert(answer.text && ["stop", "length"].includes(answer.finishReason), answer.finishReason);
    assert(answer.usage.inputTokens > 0 && answer.usage.outputTokens > 0);
    if (LOCAL) assert.match(answer.text, /7:00 - 10:30/);
  },
  async streamed_answer_stream() {
    const stream = streamText(ask);
    let text = "";
    for await (const piece of stream.textStream) text += piece;
    assert.equal(text, (await generateText(ask)).text);
    assert((await stream.usage).outputTokens > 0);
  },
  async tool_call_and_its_result_tools() {
    const messages = [{ role: "user", content: switching }];
    const request = { model, system: FACTS, messages, tools: { set_lights }, temperature: 0, maxRetries: 0 };
    const answer = await generateText(request);
    assert.equal(answer.finishReason, "tool-calls");
    const [call] = answer.toolCalls;
    assert.equal(call.toolName, "set_lights");
    if (LOCAL) assert.deepEqual(call.input, { room: "kitchen", state: "on" });
    const stream = streamText(request);
    assert.deepEqual((await stream.toolCalls).map((c) => [c.toolName, c.input]), [[call.toolName, call.input]]);
    const result = { type: "tool-result", toolCallId: call.toolCallId, toolName: call.toolName, output: { type: "json", value: { ok: true } } };
    const after = await generateText({ ...request, tools: undefined, messages: [...messages, ...answer.response.messages, { role: "tool", content: [result] }], maxOutputTokens: 40 });
    assert(after.text);
  },
  async two_calls_in_one_turn_parallel() {
    if (LOCAL) return "n/a";
    const request = { model, prompt: "use set_lights for the kitchen and call_desk", tools: { set_lights, call_desk }, maxRetries: 0 };
    const names = (calls) => calls.map((call) => call.toolName);
    assert.deepEqual(names((await generateText(request)).toolCalls), ["set_lights", "call_desk"]);
    assert.deepEqual(names(await streamText(request).toolCalls), ["set_lights", "call_desk"]);
  },
  async an_object_schema() {
    const schema = z.object({ urgent: z.boolean(), count: z.number().int().min(1).max(9) });
    const { object } = await generateObject({ ...ask, maxOutputTokens: 200, schema });
    assert.equal(typeof object.urgent, "boolean");
    const stream = streamObject({ ...ask, maxOutputTokens: 200, schema });
    let last;
    for await (const part of stream.partialObjectStream) last = part;
    assert.deepEqual(await stream.object, last);
    assert.equal(typeof last.count, "number");
  },
  async a_picture_images() {
    const content = [{ type: "text", text: "what is this" }, { type: "image", image: PIXEL, mediaType: "image/png" }];
    try {
      const answer = await generateText({ model, messages: [{ role: "user", content }], maxRetries: 0 });
      assert(!LOCAL && answer.text.includes("[1 pictures]"), answer.text);
    } catch (error) {
      if (!APICallError.isInstance(error)) throw error;
      assert(LOCAL && error.data.error.code === "no_capable_target", error.message);
      return "refused";
    }
  },
  async a_cancelled_stream_cancel() {
    const abort = new AbortController();
    const stream = streamText({ ...ask, prompt: LOCAL ? ask.prompt : "count slowly", maxOutputTokens: 600, abortSignal: abort.signal });
    for await (const _ of stream.textStream) {
      abort.abort();
      break;
    }
    assert((await generateText(ask)).text);
  },
  async errors_are_openais_errors() {
    const failing = (request) => assert.rejects(generateText({ ...ask, ...request }), (error) => {
      assert(APICallError.isInstance(error), error);
      checks.last = error;
      return true;
    });
    await failing({ temperature: 9 });
    assert.equal(checks.last.statusCode, 400);
    assert.equal(checks.last.data.error.param, "temperature");
    if (!LOCAL) {
      await failing({ prompt: "fail with 429" });
      assert.equal(checks.last.statusCode, 429);
    }
    delete checks.last;
  },
};

let failed = 0;
const names = Object.keys(checks);
for (const name of names) {
  const began = Date.now();
  let outcome;
  try {
    outcome = (await checks[name]()) ?? "ok";
  } catch (error) {
    failed += 1;
    outcome = "FAILED";
    console.error(error);
  }
  const cut = name.lastIndexOf("_");
  console.log(`${outcome} ${name.slice(cut + 1)} ${name.slice(0, cut)} (${((Date.now() - began) / 1000).toFixed(2)} s)`);
}
console.log(failed ? `${failed} of ${names.length} failed` : `${names.length} passed`);
process.exit(failed ? 1 : 0);
