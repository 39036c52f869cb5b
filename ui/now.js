// The page "Now": models, queue, throughput, memory, and what went wrong last.

import {html, useState} from "./vendor/htm-preact.js";
import {HISTORY_SECONDS, setLoaded, setPinned, useLive} from "./live.js";
import {Bar, Button, Empty, ErrorBox, Panel, State} from "./ui.js";
import {Line, steps} from "./charts.js";
import * as format from "./format.js";

/** Points of a chart over its time. */
const STEPS = 90;

const TONES = {ready: "good", starting: "busy", loading: "busy", backoff: "busy", draining: "busy", unhealthy: "bad", failed: "bad", stopped: "idle"};
const WORDS = {backoff: "restarting", failed: "given up", stopped: "not loaded", unhealthy: "not answering", draining: "finishing"};
const PINS = {ordered: "pinned", configured: "pinned by its configuration"};
const PHASES = {start: "starting", weights: "reading weights", warm_up: "warming up"};

export function NowPage({access}) {
  const live = useLive();
  const [error, setError] = useState(null);
  const models = [...live.models.values()];
  const act = async (order, id, isOn) => {
    try {
      setError(null);
      await order(id, isOn);
    } catch (problem) {
      setError(problem);
    }
  };
  return html`
    <${ErrorBox} error=${error} onClose=${() => setError(null)} />
    <div class="grid">
      <div class="column">
      <${Panel} title="Models" note=${live.memory && memoryNote(live.memory)}>
        ${live.memory?.budget_bytes && html`<${Bar} value=${live.memory.used_bytes} max=${live.memory.budget_bytes} label="Memory against the budget" />`}
        ${models.length === 0 ? html`<${Empty}>No model is served yet. Put a GGUF file into the models folder, or fetch one under Models.<//>`
          : html`<ul class="rows models">${models.map((model) => html`<${ModelRow} key=${model.id} model=${model} queue=${live.queues.get(model.id)}
            canOrder=${access.admin} act=${act} hasChat=${access.inference} />`)}</ul>`}
      <//>
      ${access.admin && html`<${Failures} failures=${failuresOf(live)} />`}
      </div>
      <div class="column">
      ${live.hasFeed && html`<${Throughput} live=${live} />`}
      <${Queue} live=${live} isAdmin=${access.admin} />
      ${live.downloads.size > 0 && html`<${Downloads} downloads=${[...live.downloads.values()]} />`}
      </div>
    </div>`;
}

function memoryNote({used_bytes: used, budget_bytes: budget}) {
  return budget ? `${format.bytes(used)} of ${format.bytes(budget)} in use` : `${format.bytes(used)} in use`;
}

function ModelRow({model, queue, canOrder, hasChat, act}) {
  const isLocal = model.workers.some((worker) => worker.kind !== "remote");
  const load = model.workers.map((worker) => worker.load).find(Boolean);
  const isUp = !["stopped", "failed"].includes(model.state);
  const isPinned = PINS[model.pin] != null;
  const facts = [
    PINS[model.pin], model.kind, model.context_length && `${format.count(model.context_length)} tokens of context`,
    model.memory_bytes ? `${isUp ? "" : "needs "}${format.bytes(model.memory_bytes)}${isUp ? " in memory" : ""}` : model.size_bytes && format.bytes(model.size_bytes),
    model.workers.length > 1 && `${model.workers.length} workers`,
    isUp && queue?.slots > 0 && `${queue.active} of ${queue.slots} slots busy`,
    queue?.waiting > 0 && `${queue.waiting} waiting`,
  ].filter(Boolean);
  const word = model.state === "stopped" && model.workers.some((worker) => worker.asleep) ? "asleep" : (WORDS[model.state] ?? model.state);
  return html`<li>
    <div class="what"><strong class="id">${model.id}</strong><span class="note">${facts.join(" · ")}</span></div>
    <${State} tone=${TONES[model.state] ?? "idle"}>${word}<//>
    <div class="actions">
      ${hasChat && model.kind === "chat" && html`<a class="button quiet small" href=${`#/chat/${encodeURIComponent(model.id)}`} aria-label=${`Chat with ${model.id}`}>Chat</a>`}
      ${canOrder && isLocal && html`
      <${Button} kind="small" aria-label=${`${isUp ? "Unload" : "Load"} ${model.id}`}
        onClick=${() => act(setLoaded, model.id, !isUp)}>${isUp ? "Unload" : "Load"}<//>
      <${Button} kind="quiet small" aria-label=${`${isPinned ? "Unpin" : "Pin"} ${model.id}`} title="A pinned model is not unloaded to make room, nor when no request comes."
        onClick=${() => act(setPinned, model.id, !isPinned)}>${isPinned ? "Unpin" : "Pin"}<//>`}
    </div>
    ${load && isUp && model.state !== "ready" && html`<${LoadProgress} model=${model.id} load=${load} />`}
    ${["failed", "backoff", "unhealthy"].includes(model.state) && html`<${Why} model=${model} />`}
  </li>`;
}

function LoadProgress({model, load}) {
  const parts = [
    PHASES[load.phase] ?? load.phase, load.total && `${format.bytes(load.bytes ?? 0)} of ${format.bytes(load.total)}`,
    load.seconds_left != null && `${format.span(load.seconds_left)} left`, `${format.span(load.seconds)} so far`,
  ];
  return html`<div class="below"><${Bar} value=${load.bytes ?? 0} max=${load.total ?? 1} label=${`Load of ${model}`} />
    <span class="note">${parts.filter(Boolean).join(" · ")}</span></div>`;
}

function Why({model}) {
  const worker = model.workers.find((one) => one.last_exit?.hint || one.last_error) ?? {};
  const text = [worker.last_error, worker.last_exit?.hint].filter(Boolean).join(" ");
  return text ? html`<p class="below why">${text}</p>` : null;
}

function Throughput({live}) {
  const span = format.span(HISTORY_SECONDS);
  const values = (read) => steps(live.history, read, HISTORY_SECONDS, STEPS);
  const now = live.throughput;
  return html`<${Panel} title="Throughput" note=${now && `${now.running} running · ${now.waiting} waiting`}>
    <${Line} title="Tokens a second" values=${values((point) => point.tokens)} show=${format.rate} span=${span} />
    <${Line} title="Time to first byte" values=${values((point) => point.firstByte)} show=${format.millis} span=${span} />
  <//>`;
}

function Queue({live, isAdmin}) {
  const waiters = isAdmin
    ? [...live.queues.values()].flatMap((queue) => queue.waiters.map((one) => ({...one, model: queue.model})))
    : live.own;
  const hidden = [...live.queues.values()].reduce((sum, queue) => sum + queue.waiting - queue.waiters.length, 0);
  return html`<${Panel} title=${isAdmin ? "Queue" : "Your place in line"}>
    ${waiters.length === 0 ? html`<${Empty}>${hidden > 0 ? `${hidden} requests wait.` : isAdmin ? "No request waits." : "None of your requests waits."}<//>`
      : html`<div class="scroll" tabindex="0" role="region" aria-label="Waiting requests"><table><thead><tr><th>Model</th><th class="n">Place</th>${isAdmin && html`<th>Key</th>`}<th>Person</th><th class="n">Waits</th></tr></thead>
        <tbody>${waiters.map((one) => html`<tr><td>${one.model}</td><td class="n">${one.position}</td>
          ${isAdmin && html`<td>${one.key ?? "–"}</td>`}<td>${one.person ?? "–"}</td>
          <td class="n">${format.span(one.waiting_seconds + (Date.now() - one.cameAt) / 1000)}</td></tr>`)}</tbody></table></div>`}
  <//>`;
}

/** Returns whether a download has ended. */
export const isOver = (one) => ["done", "cancelled", "failed"].includes(one.state);

/** A list of downloads, with what a click may do to each. */
export function Downloads({downloads, actions = () => null}) {
  return html`<${Panel} title="Downloads"><ul class="rows">${downloads.map((one) => html`<li key=${one.id}>
    <div class="what"><strong class="id">${one.model}</strong><span class="note">${downloadNote(one)}</span></div>
    <${State} tone=${{done: "good", failed: "bad", cancelled: "idle"}[one.state] ?? "busy"}>${one.state}<//>
    <div class="actions">${actions(one)}</div>
    ${!isOver(one) && html`<div class="below"><${Bar} value=${one.bytes} max=${one.total} label=${`Download of ${one.model}`} /></div>`}
    ${one.error && html`<p class="below why">${one.error.message} ${one.error.hint}</p>`}
  </li>`)}</ul><//>`;
}

function downloadNote(one) {
  const parts = [
    one.total > 0 ? `${format.bytes(one.bytes)} of ${format.bytes(one.total)}` : null,
    one.bytes_per_second > 0 && one.state === "downloading" ? `${format.bytes(one.bytes_per_second)}/s` : null,
    one.seconds_left != null && one.state === "downloading" ? `${format.span(one.seconds_left)} left` : null,
  ];
  return parts.filter(Boolean).join(" · ");
}

/** Without the feed, how the last process of each model ended. */
function failuresOf(live) {
  if (live.hasFeed) return live.failures;
  const ended = [...live.models.values()].filter((model) => model.workers[0]?.last_exit?.hint);
  return ended.map((model) => ({what: "worker", model: model.id, message: null, hint: model.workers[0].last_exit.hint, at: null}));
}

function Failures({failures}) {
  return html`<${Panel} title="Last failures">
    ${failures.length === 0 ? html`<${Empty}>None since the service started.<//>` : html`<ul class="failures">${failures.slice(0, 8).map((one) => html`<li>
      <p><strong>${one.model}</strong> ${one.message ?? (one.state ? `is ${WORDS[one.state] ?? one.state}` : "ended")}${" "}
        ${one.at && html`<time class="note" datetime=${one.at}>${format.clock(one.at)}</time>`}</p>
      ${one.hint && html`<p class="note">${one.hint}</p>`}</li>`)}</ul>`}
  <//>`;
}
