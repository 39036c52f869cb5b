// What the service does now: from the live feed for administrators, else asked for now and then. One store for all pages.

import {useEffect, useState} from "./vendor/htm-preact.js";
import {SILENCE, get, order, parseJson, readEvents, send} from "./api.js";

/** How long the history of throughput reaches back, in seconds. */
export const HISTORY_SECONDS = 15 * 60;

/** Longest pause before the feed is asked for again, in seconds. */
const MAX_PAUSE = 15;

/** How long the service is looked at without the feed before the feed is tried again, in seconds. */
const FEED_PAUSE = 60;

/** Pause between two looks without the feed, in seconds. Looks at `/health` cost the key nothing. */
const LOOK_PAUSE = 3;

/** Every how many looks the models are listed, which counts as a request of the key. */
const LOOKS_A_LIST = 10;

const MAX_FAILURES = 32;

/** Returns what is known before anything was told. */
const nothing = () => ({
  isConnected: true, hasFeed: false, status: null, models: new Map(), listed: null, queues: new Map(), downloads: new Map(),
  memory: null, throughput: null, history: [], failures: [], own: [], refused: null,
});

const state = nothing();
const listeners = new Set();
let isNotifying = false;
let control = new AbortController();

function changed() {
  if (isNotifying) return;
  isNotifying = true;
  setTimeout(() => {
    isNotifying = false;
    for (const listener of listeners) listener({});
  }, 100);
}

/** Returns the state, and renders again whenever it changes. */
export function useLive() {
  const [, render] = useState(null);
  useEffect(() => {
    listeners.add(render);
    return () => listeners.delete(render);
  }, []);
  return state;
}

/** Begins to follow the service with what this key may see; what was followed before ends. */
export function startLive(access) {
  control.abort();
  control = new AbortController();
  Object.assign(state, nothing());
  run(access, control.signal);
}

/** Follows the feed where the key may, and looks where there is none, until another key is used or this one is refused. */
async function run(access, signal) {
  const goesOn = () => !signal.aborted && !state.refused;
  while (goesOn()) {
    const seen = access.admin ? await follow(signal) : access;
    if (goesOn()) await look(seen, signal, access.admin ? FEED_PAUSE : Infinity);
  }
}

const byId = (items, id = "id") => new Map((items ?? []).map((item) => [item[id], item]));

/** Returns a queue, with the time when each of its waiters was told here. */
const arrived = (queue) => ({...queue, waiters: queue.waiters.map((one) => ({...one, cameAt: Date.now()}))});

/** Returns what was done before this tab listened, as points of a chart: of steps with nothing to do only the first one. */
function historyOf({step_seconds: step, tokens_per_second: tokens, requests_per_second: requests, time_to_first_byte_ms: firstByte}) {
  const now = Date.now();
  const isBusy = (at) => tokens[at] > 0 || requests[at] > 0;
  const points = tokens.map((value, at) => ({at: now - (tokens.length - 1 - at) * step * 1000, tokens: value, firstByte: firstByte[at], waiting: 0}));
  return points.filter((_, at) => isBusy(at) || isBusy(at - 1));
}

/** What each event of the feed changes. */
const EVENTS = {
  snapshot(data) {
    Object.assign(state, {
      status: data.status, models: byId(data.models), queues: byId((data.queues ?? []).map(arrived), "model"),
      downloads: byId(data.downloads), memory: data.memory, failures: data.failures ?? [],
    });
    state.throughput = data.throughput ?? null;
    if (data.throughput_history) state.history = historyOf(data.throughput_history);
  },
  model: (data) => state.models.set(data.id, data),
  model_removed(data) {
    state.models.delete(data.id);
    state.queues.delete(data.id);
  },
  load(data) {
    const model = state.models.get(data.model);
    const worker = model?.workers.find((one) => one.worker === data.worker);
    if (worker) worker.load = data;
  },
  queue: (data) => state.queues.set(data.model, arrived(data)),
  download(data) {
    // The newest first, as a snapshot has them.
    if (state.downloads.has(data.id)) state.downloads.set(data.id, data);
    else state.downloads = new Map([[data.id, data], ...state.downloads]);
  },
  download_removed: (data) => state.downloads.delete(data.id),
  memory: (data) => (state.memory = data),
  throughput(data) {
    state.throughput = data;
    // When it came, because the clock of the service may differ from that of the browser.
    const at = Date.now();
    state.history.push({at, tokens: data.tokens_per_second, firstByte: data.time_to_first_byte_ms, waiting: data.waiting});
    const oldest = at - HISTORY_SECONDS * 1000;
    while (state.history.length && state.history[0].at < oldest) state.history.shift();
  },
  failure: (data) => (state.failures = [data, ...state.failures].slice(0, MAX_FAILURES)),
  service: (data) => (state.status = data.status),
};

/** Follows the feed until there is none for this key now. Returns what the key may see without it. */
async function follow(signal) {
  let lastId = null;
  let pause = 1;
  while (!signal.aborted) {
    try {
      const headers = {Accept: "text/event-stream", ...(lastId && {"Last-Event-ID": lastId})};
      const response = await send("events", {headers, signal});
      Object.assign(state, {isConnected: true, hasFeed: true});
      pause = 1;
      await readEvents(response, ({event, data, id}) => {
        if (signal.aborted) return;
        lastId = id ?? lastId;
        EVENTS[event]?.(parseJson(data));
        changed();
      }, SILENCE);
    } catch (error) {
      if (signal.aborted || isRefused(error)) break;
      // An address that may not read the feed, or too many that do, or a proxy that does not pass it on.
      if ([403, 404].includes(error.status) || error.code === "too_many_listeners") return withoutFeed(error);
      state.isConnected = false;
      changed();
    }
    await sleep(pause);
    pause = Math.min(MAX_PAUSE, pause * 2);
  }
  return {};
}

/** Forgets what only the feed tells, and returns what is seen without it. */
function withoutFeed(error) {
  if (state.hasFeed) Object.assign(state, {...nothing(), status: state.status, models: state.models});
  return {admin: error.status !== 403, inference: true};
}

/** Notes that the key is not valid any more: it was removed, or has ended. */
function isRefused(error) {
  if (error.status === 401) {
    state.refused = error;
    changed();
  }
  return error.status === 401;
}

/** Looks now and then, for that many seconds. */
async function look(access, signal, seconds) {
  const end = Date.now() + seconds * 1000;
  for (let turn = 0; !signal.aborted && !state.refused && Date.now() < end; turn += 1) {
    if (!document.hidden || turn === 0) await lookOnce(access, turn % LOOKS_A_LIST === 0, signal);
    await sleep(LOOK_PAUSE);
  }
}

async function lookOnce(access, isListing, signal) {
  try {
    const health = await get("health", {accepts: [200, 503], signal});
    if (isListing && access.inference) {
      const listed = await get("v1/models", {signal});
      state.listed = new Map(listed.data.map((model) => [model.id, model]));
    }
    const stats = access.admin ? byId((await get("lb/stats", {signal})).models) : new Map();
    const shown = health.models.filter((model) => access.admin || !state.listed || state.listed.has(model.id));
    state.models = byId(shown.map((model) => withFacts(model, state.listed?.get(model.id), stats.get(model.id))));
    state.queues = new Map([...stats].map(([model, {queue}]) => [model, {model, ...queue, slots: null, waiters: []}]));
    const own = health.queue.waiting > 0 ? await ownPlaces(signal) : [];
    if (!signal.aborted) Object.assign(state, {isConnected: true, status: health.status, own});
  } catch (error) {
    if (signal.aborted) return;
    if (!isRefused(error)) state.isConnected = error.status > 0;
  }
  changed();
}

/** Puts together what several routes tell of a model. */
function withFacts(model, listed, stats) {
  const workers = stats?.workers ?? [{state: model.state}];
  return {
    id: model.id, state: model.state, pin: listed?.meta.pin, kind: listed?.meta.kind, context_length: listed?.meta.context_length,
    size_bytes: listed?.meta.size_bytes, memory_bytes: null,
    workers: workers.map((worker, at) => ({
      worker: at, load: null, restarts: model.restarts, slots: worker.slots, asleep: worker.asleep, ...worker, state: worker.state ?? model.state,
      last_exit: model.last_exit,
    })),
  };
}

async function ownPlaces(signal) {
  try {
    return arrived({waiters: (await get("v1/queue", {signal})).data}).waiters;
  } catch {
    return [];
  }
}

/** Loads or unloads a model. */
export function setLoaded(id, isLoaded) {
  return order("POST", `v1/models/${encodeURIComponent(id)}/${isLoaded ? "load" : "unload"}`);
}

/** Pins a model, so that it keeps its memory, or lets it go. */
export function setPinned(id, isPinned) {
  return order("POST", `v1/models/${encodeURIComponent(id)}/${isPinned ? "pin" : "unpin"}`);
}

const sleep = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));
