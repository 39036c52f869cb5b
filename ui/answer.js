// One answer of a model while it streams: what has come, how fast, and how it ended.

import {ApiError, errorOf, parseJson, readEvents, send} from "./api.js";

/** Returns the messages of a chat up to a turn, as the API reads them, for the answers of one column; without images for a model that cannot see. */
export function messagesOf(turns, upTo, column, system, sees) {
  const messages = system.trim() ? [{role: "system", content: system}] : [];
  turns.slice(0, upTo + 1).forEach((turn, at) => {
    messages.push({role: "user", content: contentOf(turn.user, sees)});
    const text = turn.answers[column]?.text;
    if (at < upTo && text) messages.push({role: "assistant", content: text});
  });
  return messages;
}

function contentOf({text, images}, sees) {
  if (!sees || !images.length) return text;
  return [{type: "text", text}, ...images.map((url) => ({type: "image_url", image_url: {url}}))];
}

/** Returns the body of a request for a chat. */
export function chatBody(model, messages, parameters) {
  return {model, messages, ...parameters};
}

/** Asks for an answer, and calls `onChange` with it whenever it has grown. `answer.stop()` ends it. */
export function ask(body, onChange) {
  const control = new AbortController();
  const answer = {
    model: body.model, state: "waiting", text: "", reasoning: "", tools: [], facts: null, error: null, isWhole: false,
    startedAt: performance.now(), firstAt: null, stop: () => control.abort(),
  };
  run(answer, body, control.signal, onChange);
  return answer;
}

async function run(answer, body, signal, onChange) {
  try {
    const asked = {...body, stream: true, stream_options: {include_usage: true}};
    const response = await send("v1/chat/completions", {method: "POST", body: asked, signal});
    answer.state = "streaming";
    await readEvents(response, ({data}) => {
      if (data === "[DONE]") answer.isWhole = true;
      else take(answer, parseJson(data, response.headers.get("x-request-id")), response);
      onChange();
    });
    if (answer.state === "streaming" && !answer.isWhole) throw brokenOff();
    if (answer.state === "streaming") answer.state = "done";
  } catch (error) {
    answer.state = error.name === "AbortError" ? "stopped" : "failed";
    // What the browser throws when a connection breaks.
    if (answer.state === "failed") answer.error = error instanceof TypeError ? brokenOff() : error;
  }
  finish(answer);
  onChange();
}

/** Takes one event of the stream. */
function take(answer, event, response) {
  if (event.error) {
    answer.state = "failed";
    // Made as that of a response, because it carries the same members.
    errorOf(new Response(JSON.stringify(event), {status: 500, headers: {"x-request-id": response.headers.get("x-request-id") ?? ""}}))
      .then((error) => (answer.error = error));
    return;
  }
  if (event.usage) answer.usage = event.usage;
  if (event.timings) answer.timings = event.timings;
  const choice = event.choices?.[0];
  if (!choice) return;
  const {content, reasoning_content: reasoning, tool_calls: calls} = choice.delta ?? {};
  if (content || reasoning || calls) answer.firstAt ??= performance.now();
  answer.text += content ?? "";
  answer.reasoning += reasoning ?? "";
  for (const call of calls ?? []) {
    const tool = (answer.tools[call.index ?? 0] ??= {name: "", text: ""});
    tool.name += call.function?.name ?? "";
    tool.text += call.function?.arguments ?? "";
  }
  if (choice.finish_reason) Object.assign(answer, {finish: choice.finish_reason, isWhole: true});
}

function brokenOff() {
  return new ApiError(0, {message: "The answer broke off before its end.", hint: "Ask again; the log of the model may say why."});
}

/** Counts what the answer took. llama-server's own times are exact; other servers have only ours. */
function finish(answer) {
  const {usage, timings, firstAt} = answer;
  const seconds = firstAt == null ? null : (performance.now() - firstAt) / 1000;
  const tokens = usage?.completion_tokens ?? timings?.predicted_n ?? null;
  answer.facts = {
    tokens, seconds,
    tokensPerSecond: timings?.predicted_per_second ?? (tokens && seconds > 0.05 ? tokens / seconds : null),
    prompt: usage?.prompt_tokens ?? null,
    cached: usage?.prompt_tokens_details?.cached_tokens ?? timings?.cache_n ?? null,
    firstByte: firstAt == null ? null : firstAt - answer.startedAt,
  };
}
