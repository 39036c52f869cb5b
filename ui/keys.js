// The page "Keys": who may do what. A secret is shown once, when it is made.

import {html, useEffect, useRef, useState} from "./vendor/htm-preact.js";
import {get, order} from "./api.js";
import {Button, Confirm, CopyButton, Dialog, Empty, ErrorBox, Field, Panel, State} from "./ui.js";
import {KeyForm} from "./key_form.js";
import * as format from "./format.js";

const TONES = {valid: "good", expired: "idle", suspended: "bad"};

export function KeysPage({access}) {
  const [keys, setKeys] = useState(null);
  const [error, setError] = useState(null);
  const [open, setOpen] = useState(null);
  const [isAsking, setAsking] = useState(false);
  const asking = useRef(false);
  const list = () => get("keys").then((found) => setKeys(found.data), setError);
  useEffect(() => void list(), []);
  const close = () => {
    setOpen(null);
    setError(null);
  };
  /** Carries out an order. If it is refused, its form stays open and says why. */
  const attempt = async (method, path, body) => {
    // A second click comes before the button is disabled.
    if (asking.current) return;
    asking.current = true;
    setAsking(true);
    try {
      setError(null);
      const answer = await order(method, path, body);
      setOpen(answer.secret ? {name: "secret", made: answer} : null);
      await list();
    } catch (problem) {
      setError(problem);
    }
    asking.current = false;
    setAsking(false);
  };
  const path = open?.of && `keys/${encodeURIComponent(open.of.id)}`;
  return html`
    ${!open && html`<${ErrorBox} error=${error} onClose=${() => setError(null)} />`}
    <${Panel} title="Keys" note=${keys && `${keys.length} keys`} actions=${html`<${Button} kind="primary small" onClick=${() => setOpen({name: "make"})}>New key<//>`}>
      ${!keys ? html`<${Empty}>Looking…<//>` : html`<ul class="rows">${keys.map((key) => html`<${KeyRow} key=${key.id} of=${key} onOpen=${(name) => setOpen({name, of: key})}
        onResume=${() => attempt("POST", `keys/${encodeURIComponent(key.id)}/resume`)} />`)}</ul>`}
    <//>
    ${open?.name === "make" && html`<${KeyForm} title="New key" action="Make the key" models=${access.inference} error=${error} isAsking=${isAsking} onClose=${close} onSave=${(body) => attempt("POST", "keys", body)} />`}
    ${open?.name === "change" && html`<${KeyForm} title=${`Change ${open.of.id}`} action="Save" of=${open.of} models=${access.inference} error=${error} isAsking=${isAsking} onClose=${close} onSave=${(body) => attempt("PATCH", path, body)} />`}
    ${open?.name === "rotate" && html`<${Rotate} of=${open.of} error=${error} isAsking=${isAsking} onClose=${close} onSave=${(body) => attempt("POST", `${path}/rotate`, body)} />`}
    ${open?.name === "remove" && html`<${Confirm} title=${`Remove ${open.of.id}?`} error=${error} isAsking=${isAsking} text="Requests with its secrets are refused from then on. Its usage stays." action="Remove" onClose=${close} onYes=${() => attempt("DELETE", path)} />`}
    ${open?.name === "secret" && html`<${Secret} made=${open.made} onClose=${close} />`}`;
}

/** Returns the limits of a key in words. */
function limitsOf(key) {
  const limit = (value, text) => value != null && `${format.count(value)} ${text}`;
  return [
    key.rate_limit == null ? "default requests a minute" : limit(key.rate_limit, "requests a minute"), limit(key.tokens_per_minute, "tokens a minute"), limit(key.max_concurrent, "at once"),
    limit(key.requests_per_day, "requests a day"), limit(key.tokens_per_day, "tokens a day"), limit(key.tokens_per_month, "tokens a month"),
    key.cost_per_month != null && `cost ${key.cost_per_month} a month`, limit(key.person_tokens_per_day, "tokens a day for each person"),
  ].filter(Boolean);
}

function KeyRow({of: key, onOpen, onResume}) {
  const facts = [
    key.scope.join(", "), key.models ? `models ${key.models.join(", ")}` : "all models", key.expires ? `until ${format.date(key.expires)}` : "never ends",
    key.priority !== "normal" && `priority ${key.priority}`, key.secrets.length > 1 && `${key.secrets.length} secrets`, key.trust_user_headers && "names people",
  ];
  const {day, month} = key.used ?? {};
  const isFixed = key.source === "environment";
  const action = (name, text, kind = "quiet") => html`<${Button} kind=${`${kind} small`} aria-label=${`${text} ${key.id}`} onClick=${() => onOpen(name)}>${text}<//>`;
  return html`<li>
    <div class="what"><strong class="id">${key.id}</strong><span class="note">${facts.filter(Boolean).join(" · ")}</span>
      <span class="note">${limitsOf(key).join(" · ")}</span>
      ${day && html`<span class="note">today ${format.count(day.requests)} requests, ${format.compact(day.tokens)} tokens · this month ${format.compact(month.tokens)} tokens, cost ${format.cost(month.cost)}</span>`}</div>
    <${State} tone=${TONES[key.standing] ?? "idle"}>${key.standing}${key.suspended_seconds ? `, ${format.span(key.suspended_seconds)} left` : ""}<//>
    <div class="actions">${key.standing === "suspended" && html`<${Button} kind="small" onClick=${onResume}>Resume<//>`}
      ${isFixed ? html`<span class="note">from the environment</span>` : [action("change", "Change"), action("rotate", "Rotate"), action("remove", "Remove")]}</div>
  </li>`;
}

function Rotate({of: key, error, isAsking, onClose, onSave}) {
  const [overlap, setOverlap] = useState("24h");
  return html`<${Dialog} title=${`New secret for ${key.id}`} onClose=${onClose}>
    <p>The old secret goes on for the overlap, so that clients can change to the new one.</p>
    <${Field} label="Overlap">${(id) => html`<select id=${id} value=${overlap} onChange=${(event) => setOverlap(event.target.value)}>
      <option value="0">none: the old secret ends now</option><option value="1h">1 hour</option><option value="24h">24 hours</option><option value="7d">7 days</option></select>`}<//>
    <${ErrorBox} error=${error} />
    <footer><${Button} onClick=${onClose}>Cancel<//><${Button} kind="primary" disabled=${isAsking} onClick=${() => onSave({overlap})}>Make a new secret<//></footer>
  <//>`;
}

function Secret({made, onClose}) {
  return html`<${Dialog} title=${`The secret of ${made.id}`} onClose=${onClose}>
    <p>It is shown only now: only its hash is kept.</p>
    <div class="secret"><code tabindex="0">${made.secret}</code><${CopyButton} text=${made.secret} kind="primary small" /></div>
    ${made.old_secret_expires && html`<p class="note">The old one ends at ${format.date(made.old_secret_expires)} UTC.</p>`}
    <footer><${Button} onClick=${onClose}>I have it<//></footer>
  <//>`;
}
