// Uses a gateway through Anthropic's SDK: anthropic_client.js BASE_URL API_KEY chat|emoji MODEL
//
// BASE_URL has no /v1, which this SDK adds itself. `emoji` asks for many streams of a model whose answers begin with an
// emoji. A failed check ends the program with an AssertionError or the SDK's exception.

"use strict";

const assert = require("node:assert/strict");
const Anthropic = require("@anthropic-ai/sdk");

const QUESTION = [{ role: "user", content: "Tell me something." }];
const STREAMS = 60;
const TOOL = {
  name: "add",
  description: "Adds two digits.",
  // A random model would not end a number, so the schema names all values.
  input_schema: { type: "object", properties: { a: { enum: [1, 2] }, b: { enum: [3, 4] } }, required: ["a", "b"] },
};

function clientOf(baseURL, apiKey) {
  // A retry would hide a failure.
  return new Anthropic({ baseURL, apiKey, maxRetries: 0, timeout: 60_000 });
}

async function checkMessage(client, model) {
  const request = { model, max_tokens: 8, messages: QUESTION };
  const message = await client.messages.create(request);
  assert.ok(message.role === "assistant" && message.content[0].text, JSON.stringify(message));
  assert.ok(["end_turn", "max_tokens"].includes(message.stop_reason), JSON.stringify(message));
  assert.ok(message.usage.output_tokens > 0 && message.usage.output_tokens <= 8, JSON.stringify(message));
  assert.ok(message._request_id, "the answer has an id");

  const stream = client.messages.stream(request);
  const events = [];
  for await (const event of stream) events.push(event.type);
  const final = await stream.finalMessage();
  assert.deepEqual([events[0], events.at(-1)], ["message_start", "message_stop"]);
  assert.ok(events.filter((type) => type === "content_block_delta").length > 1, JSON.stringify(events));
  assert.ok(final.content[0].text && final.usage.output_tokens > 0, JSON.stringify(final));
  const plain = [];
  for await (const event of await client.messages.create({ ...request, stream: true })) plain.push(event.type);
  assert.equal(plain[0], "message_start");
  const counted = await client.messages.countTokens({ model, messages: QUESTION });
  assert.ok(counted.input_tokens > 0, JSON.stringify(counted));
}

async function checkTools(client, model) {
  const request = { model, max_tokens: 200, messages: QUESTION, tools: [TOOL], tool_choice: { type: "any" } };
  const called = (message) => message.content.find((block) => block.type === "tool_use");
  for (const message of [await client.messages.create(request), await client.messages.stream(request).finalMessage()]) {
    assert.equal(message.stop_reason, "tool_use");
    assert.ok(called(message).name === "add" && called(message).input.a >= 1, JSON.stringify(message));
  }
  const call = called(await client.messages.create(request));
  const messages = [
    ...QUESTION,
    { role: "assistant", content: [call] },
    { role: "user", content: [{ type: "tool_result", tool_use_id: call.id, content: "3" }] },
  ];
  const answer = await client.messages.create({ ...request, messages, max_tokens: 8, tool_choice: { type: "auto" } });
  assert.ok(answer.content.length > 0, JSON.stringify(answer));
}

async function checkEmoji(client, model) {
  const request = { model, max_tokens: 30, messages: QUESTION };
  for (let n = 0; n < STREAMS; n += 1) {
    const message = await client.messages.stream(request).finalMessage();
    assert.ok(message.role === "assistant" && message.content[0].text.startsWith("🌌"), JSON.stringify(message));
  }
  const message = await client.messages.stream({ ...request, stop_sequences: ["ell"] }).finalMessage();
  assert.deepEqual([message.stop_reason, message.stop_sequence], ["stop_sequence", "ell"]);
}

async function checkModelsAndErrors(client, baseURL, model) {
  const page = await client.models.list({ limit: 20 });
  const listed = page.data.find((found) => found.id === model);
  assert.ok(page.has_more === false && listed.type === "model", JSON.stringify(page.data));
  assert.ok(listed.display_name && listed.created_at, JSON.stringify(listed));
  assert.equal((await client.models.retrieve(model)).id, model);
  const wrong = [
    [clientOf(baseURL, "wrong-secret"), QUESTION, Anthropic.AuthenticationError, "authentication_error"],
    [client, [{ role: "user", content: 7 }], Anthropic.BadRequestError, "invalid_request_error"],
  ];
  for (const [asked, messages, kind, type] of wrong) {
    await assert.rejects(asked.messages.create({ model, max_tokens: 8, messages }), (error) => {
      assert.ok(error instanceof kind && error.requestID, String(error));
      assert.equal(error.error.error.type, type);
      return true;
    });
  }
}

async function main() {
  const [baseURL, key, kind, model] = process.argv.slice(2);
  const client = clientOf(baseURL, key);
  if (kind === "emoji") return checkEmoji(client, model);
  await checkMessage(client, model);
  await checkTools(client, model);
  await checkModelsAndErrors(client, baseURL, model);
}

main();
