// Uses a gateway through the AI SDK and its providers: ai_sdk.js BASE_URL API_KEY openai|chat|anthropic|cohere MODELS...
//
// BASE_URL ends in /v1. `openai` is that provider's default, the Responses API, and `chat` its chats. MODELS is a chat
// model and, for `chat`, an embedding model; for `cohere` an embedding model and a reranker. A failed check ends the program
// with an AssertionError or the SDK's exception.

"use strict";

const assert = require("node:assert/strict");
const { createAnthropic } = require("@ai-sdk/anthropic");
const { createCohere } = require("@ai-sdk/cohere");
const { createOpenAI } = require("@ai-sdk/openai");
const { APICallError, Output, embed, embedMany, generateText, rerank, stepCountIs, streamText, tool } = require("ai");
const { z } = require("zod");

// A retry would hide a failure.
const OPTIONS = { maxRetries: 0 };
const TEXTS = ["rain falls on the road", "the sparrow sings", "birds are small"];
// A random model would not end a number, so the schema names all values.
const Digit = z.object({ digit: z.union([1, 2, 3].map((digit) => z.literal(digit))) });
const inputSchema = z.object({ a: z.union([z.literal(1), z.literal(2)]), b: z.union([z.literal(3), z.literal(4)]) });

async function partsOf(result) {
  const parts = [];
  for await (const part of result.fullStream) {
    if (part.type === "error") throw part.error;
    parts.push(part);
  }
  return parts;
}

async function checkText(model) {
  const request = { model, prompt: "Tell me something.", maxOutputTokens: 8, temperature: 0, ...OPTIONS };
  const whole = await generateText(request);
  assert.ok(whole.text && ["stop", "length"].includes(whole.finishReason), JSON.stringify(whole.finishReason));
  assert.ok(whole.usage.inputTokens > 0 && whole.usage.outputTokens > 0, JSON.stringify(whole.usage));
  const result = streamText(request);
  const parts = await partsOf(result);
  const deltas = parts.filter((part) => part.type === "text-delta").map((part) => part.text);
  assert.ok(deltas.length > 1 && deltas.join("") === whole.text, JSON.stringify(parts));
  assert.equal(await result.finishReason, whole.finishReason);
  assert.equal((await result.usage).outputTokens, whole.usage.outputTokens);
}

async function checkTools(model) {
  const called = [];
  const execute = async (input) => {
    called.push(input);
    return 3;
  };
  const request = {
    model,
    prompt: "Add two digits.",
    tools: { add: tool({ description: "Adds two digits.", inputSchema, execute }) },
    maxOutputTokens: 200,
    temperature: 0,
    ...OPTIONS,
  };
  const required = { ...request, toolChoice: "required" };
  assert.equal((await generateText(required)).finishReason, "tool-calls");
  const parts = await partsOf(streamText(required));
  assert.ok(parts.some((part) => part.type === "tool-result"), JSON.stringify(parts));
  // The result of the tool goes back, and the model answers with a text.
  const steps = (await generateText({ ...request, stopWhen: stepCountIs(2), maxOutputTokens: 100 })).steps;
  assert.equal(steps.length, 2);
  assert.ok(called.length === 3 && called.every((input) => input.a >= 1 && input.b >= 3), JSON.stringify(called));
}

async function checkObject(model) {
  const request = { model, prompt: "A digit.", output: Output.object({ schema: Digit }), temperature: 0, ...OPTIONS };
  assert.ok((await generateText(request)).output.digit >= 1);
  const result = streamText(request);
  await partsOf(result);
  assert.ok((await result.output).digit >= 1);
}

async function checkEmbeddings(model, providerOptions, length) {
  const { embeddings, usage } = await embedMany({ model, values: TEXTS, ...OPTIONS });
  assert.ok(embeddings.length === 3 && embeddings[0].length === 64 && usage.tokens > 0, JSON.stringify(usage));
  const single = await embed({ model, value: TEXTS[0], providerOptions, ...OPTIONS });
  assert.equal(single.embedding.length, length);
}

async function checkRerank(model) {
  const { ranking, rerankedDocuments } = await rerank({ model, documents: TEXTS, query: "a small bird", topN: 2, ...OPTIONS });
  const [first, second] = ranking;
  assert.ok(1 >= first.score && first.score >= second.score && second.score >= 0, JSON.stringify(ranking));
  assert.deepEqual(rerankedDocuments, ranking.map((entry) => TEXTS[entry.originalIndex]));
  const objects = TEXTS.map((text) => ({ text }));
  assert.equal((await rerank({ model, documents: objects, query: "a small bird", ...OPTIONS })).ranking.length, 3);
}

async function checkWrongKey(model) {
  await assert.rejects(generateText({ model, prompt: "x", ...OPTIONS }), (error) => {
    assert.ok(error instanceof APICallError && error.statusCode === 401, String(error));
    assert.match(error.message, /Invalid API key/);
    return true;
  });
}

const KINDS = {
  async openai(settings, chat) {
    const model = (apiKey) => createOpenAI({ ...settings, apiKey })(chat);
    await checkText(model(settings.apiKey));
    await checkTools(model(settings.apiKey));
    await checkObject(model(settings.apiKey));
    await checkWrongKey(model("wrong-secret"));
  },
  async chat(settings, chat, embedding) {
    const provider = createOpenAI(settings);
    await checkText(provider.chat(chat));
    await checkTools(provider.chat(chat));
    await checkObject(provider.chat(chat));
    await checkEmbeddings(provider.embedding(embedding), { openai: { dimensions: 32 } }, 32);
  },
  async anthropic(settings, chat) {
    const model = (apiKey) => createAnthropic({ ...settings, apiKey })(chat);
    await checkText(model(settings.apiKey));
    await checkTools(model(settings.apiKey));
    await checkWrongKey(model("wrong-secret"));
  },
  async cohere(settings, embedding, reranker) {
    for (const version of ["v1", "v2"]) {
      const provider = createCohere({ ...settings, baseURL: settings.baseURL.replace(/v1$/, version) });
      const cohere = { inputType: "classification", truncate: "START" };
      await checkEmbeddings(provider.embedding(embedding), { cohere }, 64);
      await checkRerank(provider.reranking(reranker));
    }
  },
};

async function main() {
  const [baseURL, apiKey, kind, ...models] = process.argv.slice(2);
  await KINDS[kind]({ baseURL, apiKey }, ...models);
}

main();
