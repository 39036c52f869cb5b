// The system prompt and the parameters of a chat. What is empty is left to the model's defaults.

import {html} from "./vendor/htm-preact.js";
import {Field} from "./ui.js";

const NUMBERS = [
  {name: "temperature", label: "Temperature", min: 0, max: 2, step: 0.1},
  {name: "top_p", label: "Top p", min: 0, max: 1, step: 0.05},
  {name: "top_k", label: "Top k", min: 0, step: 1},
  {name: "min_p", label: "Min p", min: 0, max: 1, step: 0.01},
  {name: "max_tokens", label: "Most tokens", min: 1, step: 1},
  {name: "presence_penalty", label: "Presence penalty", min: -2, max: 2, step: 0.1},
  {name: "seed", label: "Seed", step: 1},
];

/** Returns the parameters that are set, as the API reads them. */
export function readParameters(values) {
  const read = {};
  for (const {name} of NUMBERS) {
    const number = Number.parseFloat(values[name]);
    if (Number.isFinite(number)) read[name] = number;
  }
  const stops = (values.stop ?? "").split("\n").filter(Boolean);
  if (stops.length) read.stop = stops;
  const tools = toolsIn(values.tools ?? "");
  if (tools?.length) read.tools = tools;
  return read;
}

/** Returns the tools of a text, an empty list for none, or null if it is not a list of them. */
function toolsIn(text) {
  if (!text.trim()) return [];
  try {
    const tools = JSON.parse(text);
    return Array.isArray(tools) ? tools : [tools];
  } catch {
    return null;
  }
}

export function Parameters({value, onChange}) {
  const {system, values} = value;
  const set = (name, text) => onChange({system, values: {...values, [name]: text}});
  const changed = Object.values(values).filter((text) => text !== "").length + (system.trim() ? 1 : 0);
  return html`<details class="parameters">
    <summary>System prompt and parameters${changed > 0 && html`<span class="badge">${changed} set</span>`}</summary>
    <div class="form">
      <${Field} label="System prompt" wide>${(id) => html`<textarea id=${id} rows="2" value=${system}
        onInput=${(event) => onChange({system: event.target.value, values})}></textarea>`}<//>
      ${NUMBERS.map(({name, label, ...limits}) => html`<${Field} key=${name} label=${label}>${(id) => html`<input id=${id} type="number" placeholder="default"
        value=${values[name] ?? ""} ...${limits} onInput=${(event) => set(name, event.target.value)} />`}<//>`)}
      <${Field} label="Stop texts, one a line">${(id) => html`<textarea id=${id} rows="1" value=${values.stop ?? ""} onInput=${(event) => set("stop", event.target.value)}></textarea>`}<//>
      <${Field} label="Tools (JSON list)" wide hint=${toolsIn(values.tools ?? "") === null ? "This is not JSON yet, and is not sent." : "As in OpenAI's API. Calls are shown, not run."}>${(id) => html`<textarea id=${id} rows="2"
        class="code" spellcheck="false" value=${values.tools ?? ""} onInput=${(event) => set("tools", event.target.value)}></textarea>`}<//>
    </div>
  </details>`;
}
