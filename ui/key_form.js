// The form of a key: a new one, or what changes of one.

import {html, useEffect, useState} from "./vendor/htm-preact.js";
import {get} from "./api.js";
import {Button, Dialog, ErrorBox, Field} from "./ui.js";

const SCOPES = {inference: "ask models", admin: "operate the service", metrics: "read metrics"};

const LIMITS = [
  {name: "rate_limit", label: "Requests a minute"},
  {name: "max_concurrent", label: "Requests at once"},
  {name: "tokens_per_minute", label: "Tokens a minute"},
  {name: "requests_per_day", label: "Requests a day"},
  {name: "tokens_per_day", label: "Tokens a day"},
  {name: "tokens_per_month", label: "Tokens a month"},
  {name: "cost_per_month", label: "Cost a month", step: "0.01"},
  {name: "person_tokens_per_day", label: "Tokens a day for each person"},
];

const PRIORITIES = ["high", "normal", "low"];

/** Returns the members that differ from how the key was; for a new key those that are set. */
function changesOf(draft, before) {
  const changed = {};
  for (const [name, value] of Object.entries(draft)) {
    if (JSON.stringify(value) !== JSON.stringify(before[name])) changed[name] = value === "" ? null : value;
  }
  return changed;
}

function draftOf(key) {
  const limits = LIMITS.map(({name}) => [name, key?.[name] ?? ""]);
  return {
    ...Object.fromEntries(limits), scope: key?.scope ?? ["inference"], models: key?.models ?? [], expires: key?.expires ?? "",
    priority: key?.priority ?? "normal", trust_user_headers: key?.trust_user_headers ?? false,
  };
}

export function KeyForm({title, action, of: key, models: canList, error, isAsking, onSave, onClose}) {
  const before = draftOf(key);
  const [draft, setDraft] = useState(before);
  const [name, setName] = useState("");
  const [models, setModels] = useState([]);
  useEffect(() => {
    if (canList) get("v1/models").then((list) => setModels(list.data.filter((model) => !model.parent).map((model) => model.id)), () => {});
  }, []);
  const set = (member, value) => setDraft({...draft, [member]: value});
  const toggle = (member, value) => set(member, draft[member].includes(value) ? draft[member].filter((one) => one !== value) : [...draft[member], value]);
  const submit = (event) => {
    event.preventDefault();
    const changed = changesOf(draft, before);
    if (changed.models?.length === 0) changed.models = null;
    // A new key gets its scope by name, whatever the default is.
    onSave(key ? changed : {name: name.trim(), ...changed, scope: draft.scope});
  };
  const listed = [...new Set([...models, ...draft.models])];
  const check = (member, value, text) => html`<label class="check"><input type="checkbox" checked=${draft[member].includes(value)} onChange=${() => toggle(member, value)} />${text}</label>`;
  return html`<${Dialog} title=${title} onClose=${onClose}>
    <form onSubmit=${submit}>
      ${!key && html`<${Field} label="Name" hint="1 to 64 letters, digits, _ and -.">${(id) => html`<input id=${id} value=${name} required pattern="[A-Za-z0-9_\\-]{1,64}" autofocus
        spellcheck="false" autocomplete="off" onInput=${(event) => setName(event.target.value)} />`}<//>`}
      <fieldset><legend>May</legend>${Object.entries(SCOPES).map(([scope, text]) => check("scope", scope, `${text} (${scope})`))}</fieldset>
      ${listed.length > 0 && html`<fieldset class="boxed"><legend>Models <span class="note">none chosen: all</span></legend>${listed.map((id) => check("models", id, id))}</fieldset>`}
      <div class="form">
        <${Field} label="Expires" hint="A date, 30d, 12h; empty: never.">${(id) => html`<input id=${id} value=${draft.expires} placeholder="never" onInput=${(event) => set("expires", event.target.value.trim())} />`}<//>
        <${Field} label="Priority in the queue">${(id) => html`<select id=${id} value=${draft.priority} onChange=${(event) => set("priority", event.target.value)}>
          ${PRIORITIES.map((one) => html`<option value=${one}>${one}</option>`)}</select>`}<//>
        ${LIMITS.map(({name: member, label, step}) => html`<${Field} label=${label}>${(id) => html`<input id=${id} type="number" min="0" step=${step ?? 1} placeholder=${member === "rate_limit" ? "default" : "no limit"} value=${draft[member]}
          onInput=${(event) => set(member, event.target.value === "" ? "" : step ? event.target.value : Number(event.target.value))} />`}<//>`)}
      </div>
      <label class="check"><input type="checkbox" checked=${draft.trust_user_headers} onChange=${(event) => set("trust_user_headers", event.target.checked)} />
        its requests may name the person who asks</label>
      <${ErrorBox} error=${error} />
      <footer><${Button} onClick=${onClose}>Cancel<//><button class="button primary" disabled=${isAsking || draft.scope.length === 0 || (!key && !name.trim())}>${action}</button></footer>
    </form>
  <//>`;
}
