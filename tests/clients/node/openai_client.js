// Uses a gateway through OpenAI's SDK: openai_client.js BASE_URL API_KEY chat|embedding|emoji MODEL
//
// BASE_URL ends in /v1. `emoji` asks for many streams of a model whose answers begin with an emoji. A failed check ends the
// program with an AssertionError or the SDK's exception.

"use strict";

const assert = require("node:assert/strict");
const OpenAI = require("openai");
const { zodResponseFormat, zodTextFormat } = require("openai/helpers/zod");
const { z } = require("zod");

const QUESTION = [{ role: "user", content: "Tell me something." }];
const ENDS = ["stop", "length"];
const STREAMS = 30;

// A random model would not end a number, so the schema names all values.
const Digit = z.object({ digit: z.union([1, 2, 3].map((digit) => z.literal(digit))) });
const TOOL = {
  name: "add",
  description: "Adds two digits.",
  parameters: {
    type: "object",
    properties: { a: { enum: [1, 2] }, b: { enum: [3, 4] } },
    required: ["a", "b"],
    additionalProperties: false,
  },
};

function clientOf(baseURL, apiKey) {
  // A retry would hide a failure.
  return new OpenAI({ baseURL, apiKey, maxRetries: 0, timeout: 60_000 });
}

async function collect(stream) {
  const items = [];
  for await (const item of stream) items.push(item);
  return items;
}

async function checkChat(client, model) {
  const request = { model, messages: QUESTION, max_tokens: 8, temperature: 0 };
  const answer = await client.chat.completions.create(request);
  const text = answer.choices[0].message.content;
  assert.equal(answer.model, model);
  assert.ok(text && ENDS.includes(answer.choices[0].finish_reason), JSON.stringify(answer));
  assert.ok(answer.usage.completion_tokens > 0 && answer.usage.completion_tokens <= 8, JSON.stringify(answer));

  const chunks = await collect(
    await client.chat.completions.create({ ...request, stream: true, stream_options: { include_usage: true } }),
  );
  const pieces = chunks.flatMap((chunk) => chunk.choices).map((choice) => choice.delta.content ?? "");
  assert.ok(chunks.length > 2 && pieces.join("") === text, JSON.stringify(chunks));
  assert.equal(chunks.at(-1).usage.completion_tokens, answer.usage.completion_tokens);

  const final = await client.chat.completions.stream(request).finalChatCompletion();
  assert.equal(final.choices[0].message.content, text);
  const completion = await client.completions.create({ model, prompt: "Tell me", max_tokens: 4, temperature: 0 });
  assert.ok(completion.choices[0].text, JSON.stringify(completion));
}

async function checkTools(client, model) {
  const request = {
    model,
    messages: QUESTION,
    tools: [{ type: "function", function: TOOL }],
    tool_choice: "required",
    max_tokens: 200,
    temperature: 0,
  };
  const answer = await client.chat.completions.create(request);
  const call = answer.choices[0].message.tool_calls[0];
  assert.equal(call.function.name, "add");
  assert.equal(typeof JSON.parse(call.function.arguments).a, "number");
  const streamed = await client.chat.completions.stream(request).finalMessage();
  assert.deepEqual(streamed.tool_calls[0].function, call.function);

  // The SDK runs the tool; its result goes back with the next request.
  const seen = [];
  const run = (given) => {
    seen.push(JSON.parse(given));
    return "3";
  };
  const runner = client.chat.completions.runTools(
    { ...request, tool_choice: "auto", tools: [{ type: "function", function: { ...TOOL, function: run } }] },
    { maxChatCompletions: 1 },
  );
  await runner.done();
  assert.ok(seen.length === 1 && seen[0].b > 2, JSON.stringify(runner.messages));
  const next = await client.chat.completions.create({
    ...request,
    messages: runner.messages,
    tool_choice: "auto",
    max_tokens: 8,
  });
  assert.ok(next.choices[0].message.content, JSON.stringify(next));
  const parsed = await client.chat.completions.parse({
    model,
    messages: QUESTION,
    response_format: zodResponseFormat(Digit, "digit"),
    temperature: 0,
  });
  assert.ok(parsed.choices[0].message.parsed.digit >= 1, JSON.stringify(parsed));
}

async function checkResponses(client, model) {
  const request = { model, input: "Tell me something.", max_output_tokens: 8, temperature: 0 };
  const answer = await client.responses.create(request);
  assert.ok(answer.output_text, JSON.stringify(answer));
  const plain = await collect(await client.responses.create({ ...request, stream: true }));
  const stream = client.responses.stream(request);
  const events = await collect(stream);
  const final = await stream.finalResponse();
  for (const list of [plain, events]) {
    assert.deepEqual(list.map((event) => event.sequence_number), [...list.keys()]);
    const deltas = list.filter((event) => event.type === "response.output_text.delta").map((event) => event.delta);
    assert.equal(deltas.join(""), answer.output_text);
  }
  assert.equal(final.output_text, answer.output_text);
  assert.equal(final.status, answer.status);

  const text = { format: zodTextFormat(Digit, "digit") };
  const parsed = await client.responses.parse({ model, input: "A digit.", text, temperature: 0 });
  assert.ok(parsed.output_parsed.digit >= 1, JSON.stringify(parsed));
  const tools = [{ type: "function", ...TOOL, strict: true }];
  const called = client.responses.stream({ model, input: "Add.", tools, tool_choice: "required", temperature: 0 });
  const call = (await called.finalResponse()).output.find((item) => item.type === "function_call");
  assert.ok(call.name === "add" && JSON.parse(call.arguments).a >= 1, JSON.stringify(call));
  const counted = await client.responses.inputTokens.count({ model, input: "one two three" });
  assert.ok(counted.input_tokens > 0, JSON.stringify(counted));
}

async function checkEmbeddings(client, model) {
  const input = ["hello there", "something else"];
  // Without encoding_format the SDK asks for base64, and decodes it.
  for (const dimensions of [undefined, 8]) {
    const packed = await client.embeddings.create({ model, input, dimensions });
    const plain = await client.embeddings.create({ model, input, dimensions, encoding_format: "float" });
    assert.equal(packed.model, model);
    for (const [at, { index, embedding }] of packed.data.entries()) {
      assert.equal(index, at);
      assert.equal(embedding.length, dimensions ?? plain.data[at].embedding.length);
      assert.ok(embedding.every((number, n) => Math.abs(number - plain.data[at].embedding[n]) < 1e-4));
    }
    assert.notDeepEqual(packed.data[0].embedding, packed.data[1].embedding);
  }
  await assert.rejects(client.embeddings.create({ model, input, dimensions: 100_000 }), OpenAI.BadRequestError);
}

async function checkEmoji(client, model) {
  for (let n = 0; n < STREAMS; n += 1) {
    const chunks = await collect(
      await client.chat.completions.create({ model, messages: QUESTION, max_tokens: 30, stream: true }),
    );
    assert.equal(chunks[0].choices[0].delta.role, "assistant");
    const text = chunks.flatMap((chunk) => chunk.choices).map((choice) => choice.delta.content ?? "").join("");
    assert.ok(text.startsWith("🌌"), text);
    const response = await client.responses.stream({ model, input: "Tell me something." }).finalResponse();
    assert.ok(response.status === "completed" && response.output_text.startsWith("🌌"), JSON.stringify(response));
  }
}

async function checkModelsAndErrors(client, baseURL, model) {
  const models = await collect(client.models.list());
  assert.ok(models.some((found) => found.id === model), JSON.stringify(models));
  assert.equal((await client.models.retrieve(model)).id, model);
  await assert.rejects(clientOf(baseURL, "wrong-secret").models.list(), (error) => {
    assert.ok(error instanceof OpenAI.AuthenticationError, String(error));
    assert.equal(error.code, "invalid_api_key");
    return true;
  });
  await assert.rejects(
    client.chat.completions.create({ model, messages: QUESTION, temperature: "warm" }),
    OpenAI.BadRequestError,
  );
}

async function main() {
  const [baseURL, key, kind, model] = process.argv.slice(2);
  const client = clientOf(baseURL, key);
  const kinds = {
    chat: [checkChat, checkTools, checkResponses],
    embedding: [checkEmbeddings],
    emoji: [checkEmoji],
  };
  for (const check of kinds[kind]) await check(client, model);
  if (kind === "chat") await checkModelsAndErrors(client, baseURL, model);
}

main();
