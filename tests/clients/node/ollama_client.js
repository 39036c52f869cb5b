// Uses a gateway through Ollama's own client: ollama_client.js URL API_KEY CHAT EMBEDDING
//
// The last two arguments are names of models. A failed check ends the program with an AssertionError or the client's
// exception.

"use strict";

const assert = require("node:assert/strict");
const { Ollama } = require("ollama");

const QUESTION = [{ role: "user", content: "Tell me something." }];
const OPTIONS = { num_predict: 6, temperature: 0, num_ctx: 2048 };
const ADD = {
  type: "function",
  function: {
    name: "add",
    description: "Adds two digits.",
    parameters: { type: "object", properties: { a: { enum: [1, 2] }, b: { enum: [3, 4] } }, required: ["a", "b"] },
  },
};

async function collect(stream) {
  const parts = [];
  for await (const part of await stream) parts.push(part);
  return parts;
}

function checkCounts(part) {
  assert.ok(part.done && ["stop", "length"].includes(part.done_reason), JSON.stringify(part));
  for (const name of ["total_duration", "eval_duration", "prompt_eval_count", "eval_count"]) {
    assert.ok(part[name] > 0, `${name}: ${JSON.stringify(part)}`);
  }
}

async function checkChat(client, model) {
  const request = { model, messages: QUESTION, options: OPTIONS };
  const whole = await client.chat(request);
  assert.ok(whole.message.role === "assistant" && whole.message.content, JSON.stringify(whole));
  checkCounts(whole);
  const parts = await collect(client.chat({ ...request, stream: true, keep_alive: "5m" }));
  assert.ok(parts.length > 2, JSON.stringify(parts));
  assert.equal(parts.map((part) => part.message.content).join(""), whole.message.content);
  checkCounts(parts.at(-1));

  const called = await client.chat({ ...request, tools: [ADD], options: { ...OPTIONS, num_predict: 100 } });
  const call = called.message.tool_calls[0];
  assert.ok(call.function.name === "add" && call.function.arguments.a >= 1, JSON.stringify(called));
  const messages = [...QUESTION, called.message, { role: "tool", tool_name: "add", content: "3" }];
  const answer = await client.chat({ ...request, messages, tools: [ADD] });
  assert.ok(answer.message.content, JSON.stringify(answer));

  const format = { type: "object", properties: { digit: { enum: [1, 2, 3] } }, required: ["digit"] };
  const formed = await client.chat({ ...request, format, options: { temperature: 0, num_predict: 60 } });
  assert.ok(JSON.parse(formed.message.content).digit >= 1, JSON.stringify(formed));
}

async function checkGenerate(client, model) {
  const request = { model, prompt: "Once upon a time", raw: true, options: OPTIONS };
  const whole = await client.generate(request);
  assert.ok(whole.response, JSON.stringify(whole));
  checkCounts(whole);
  const parts = await collect(client.generate({ ...request, stream: true }));
  assert.equal(parts.map((part) => part.response).join(""), whole.response);
  checkCounts(parts.at(-1));
  const loaded = await client.generate({ model, prompt: "" });
  assert.deepEqual([loaded.response, loaded.done_reason], ["", "load"]);
  const stopped = client.generate({ ...request, stream: true, options: { ...OPTIONS, num_predict: 1000 } });
  const stream = await stopped;
  stream.abort();
  await assert.rejects(collect(stream), { name: "AbortError" });
}

async function checkEmbed(client, model) {
  const { embeddings } = await client.embed({ model, input: ["a bird", "rain"] });
  assert.equal(embeddings.length, 2);
  assert.notDeepEqual(embeddings[0], embeddings[1]);
  assert.equal((await client.embed({ model, input: "a bird", dimensions: 8 })).embeddings[0].length, 8);
  assert.deepEqual((await client.embeddings({ model, prompt: "a bird" })).embedding, embeddings[0]);
}

async function checkModels(client, chat, embedding) {
  const names = (list) => list.models.map((model) => model.name);
  const listed = names(await client.list());
  assert.ok(listed.includes(`${chat}:latest`) && listed.includes(`${embedding}:latest`), String(listed));
  const shown = await client.show({ model: chat });
  assert.ok(shown.capabilities.includes("completion") && shown.details.format === "gguf", JSON.stringify(shown));
  assert.ok((await client.show({ model: embedding })).capabilities.includes("embedding"));
  assert.ok(names(await client.ps()).includes(`${chat}:latest`));
  assert.ok((await client.version()).version);
}

async function checkErrors(client, model) {
  const wrong = [
    [() => client.chat({ model: "no-such-model", messages: QUESTION }), 404, /no-such-model/],
    [() => client.chat({ model: "no-such-model", messages: QUESTION, stream: true }), 404, /no-such-model/],
    [() => client.chat({ model, messages: QUESTION, options: { top_p: 2 } }), 400, /top_p/],
    [() => client.pull({ model: "llama3" }), 403, /key/],
  ];
  for (const [request, status, words] of wrong) {
    await assert.rejects(request(), (error) => {
      assert.equal(error.status_code, status);
      assert.match(error.message, words);
      return true;
    });
  }
}

async function main() {
  const [host, key, chat, embedding] = process.argv.slice(2);
  const client = new Ollama({ host, headers: { Authorization: `Bearer ${key}` } });
  await checkChat(client, chat);
  await checkGenerate(client, chat);
  await checkEmbed(client, embedding);
  await checkModels(client, chat, embedding);
  await checkErrors(client, chat);
}

main();
