// Requests to the API: the key, errors as the API tells them, and server-sent events.

const base = new URL("..", document.baseURI);
let key = "";

/** Longest silence of a stream that has a heartbeat, in seconds: three beats of the service. */
export const SILENCE = 45;

/** Sets the key that requests carry; an empty text for none. */
export function setKey(secret) {
  key = secret;
}

/** Returns the address of a path of the API. */
export function address(path) {
  return new URL(path, base).href;
}

/** An error as the API tells it: what happened, what to do, and the request id to quote. */
export class ApiError extends Error {
  constructor(status, {message, hint, code} = {}, requestId = null) {
    super(message || `The service answered with status ${status}.`);
    Object.assign(this, {status, hint: hint ?? null, code: code ?? null, requestId});
  }

  /** Returns the whole error as text, to be passed on. */
  asText() {
    const lines = [this.message, this.hint && `Hint: ${this.hint}`, this.code && `Code: ${this.code} (status ${this.status})`];
    return [...lines, this.requestId && `Request id: ${this.requestId}`].filter(Boolean).join("\n");
  }
}

/** Returns the error of a response. */
export async function errorOf(response) {
  const requestId = response.headers.get("x-request-id");
  let told = {};
  try {
    const body = await response.json();
    told = typeof body.error === "string" ? {message: body.error} : (body.error ?? {message: body.detail});
  } catch {
    // Not JSON: the status says all there is.
  }
  return new ApiError(response.status, told, requestId);
}

/** Sends a request, and returns the response if its status is among those expected. */
export async function send(path, {method = "GET", body, headers = {}, signal, accepts = null} = {}) {
  const all = {...headers};
  if (key) all.Authorization = `Bearer ${key}`;
  if (body !== undefined) all["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(address(path), {
      method, headers: all, signal, cache: "no-store", credentials: "omit", referrerPolicy: "no-referrer",
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, {message: "The service cannot be reached.", hint: "Look whether it runs; the page tries again by itself where it can.", code: "unreachable"});
  }
  if (accepts ? accepts.includes(response.status) : response.ok) return response;
  throw await errorOf(response);
}

/** Reads JSON of the service. What is none is told as an error of the connection, not in the words of the browser. */
export function parseJson(text, requestId = null) {
  try {
    return JSON.parse(text);
  } catch {
    const told = {message: "The service's answer is damaged: it is not JSON.", hint: "Try again. A proxy between this page and the service may change answers.", code: "damaged_answer"};
    throw new ApiError(0, told, requestId);
  }
}

/** Returns the whole body of a response. */
async function textOf(response) {
  try {
    return await response.text();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, {message: "The service's answer broke off before its end.", hint: "Try again.", code: "broken_off"});
  }
}

/** Asks for JSON. */
export async function get(path, options = {}) {
  const response = await send(path, options);
  return parseJson(await textOf(response), response.headers.get("x-request-id"));
}

/** Sends JSON and returns the JSON of the answer, if it has any. */
export async function order(method, path, body, options = {}) {
  const response = await send(path, {...options, method, body});
  const text = await textOf(response);
  return text ? parseJson(text, response.headers.get("x-request-id")) : {};
}

/** Asks whether a route is there for this key. Throws if the service cannot be reached, which says nothing of the key. */
export async function probe(path, method) {
  try {
    await send(path, {method});
    return {isOpen: true, status: 200};
  } catch (error) {
    if (error.status === 0) throw error;
    // 429: the key may, only not now. 5xx: the route is there.
    return {isOpen: error.status === 429 || error.status >= 500, status: error.status, error};
  }
}

/**
 * Reads server-sent events from a response, and calls `onEvent({event, data, id})` for each until the stream ends.
 * Returns nothing; throws if the connection breaks, if nothing comes for `patience` seconds, or what `onEvent` throws.
 */
export async function readEvents(response, onEvent, patience = null) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const {value, done} = await readWithin(reader, patience);
      rest = (rest + (value ?? "")).replaceAll("\r\n", "\n");
      let end;
      while ((end = rest.indexOf("\n\n")) >= 0) {
        const event = parseEvent(rest.slice(0, end));
        rest = rest.slice(end + 2);
        if (event) onEvent(event);
      }
      if (done) return;
    }
  } finally {
    // Ends the request too, where the stream is not at its end.
    reader.cancel().catch(() => {});
  }
}

/** Reads a part of a stream, and throws if none comes in time. */
async function readWithin(reader, patience) {
  if (patience == null) return reader.read();
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new ApiError(0, {message: "The service has fallen silent.", code: "silent"})), patience * 1000);
  });
  try {
    return await Promise.race([reader.read(), late]);
  } finally {
    clearTimeout(timer);
  }
}

function parseEvent(text) {
  const found = {event: "message", data: [], id: null};
  for (const line of text.split("\n")) {
    const at = line.indexOf(":");
    if (at <= 0) continue;
    const value = line.slice(at + 1).replace(/^ /, "");
    const name = line.slice(0, at);
    if (name === "data") found.data.push(value);
    else if (name === "event" || name === "id") found[name] = value;
  }
  return found.data.length ? {...found, data: found.data.join("\n")} : null;
}
