// One turn of a chat: what the person wrote, and what a model answered.

import {html, useState} from "./vendor/htm-preact.js";
import {Button, CopyButton, ErrorBox} from "./ui.js";
import {Markdown} from "./markdown.js";
import * as format from "./format.js";

export function UserCard({user, onEdit}) {
  const [draft, setDraft] = useState(null);
  const save = () => {
    onEdit(draft);
    setDraft(null);
  };
  if (draft != null) {
    return html`<div class="user editing">
      <textarea aria-label="Edit the question" rows="3" value=${draft} onInput=${(event) => setDraft(event.target.value)}></textarea>
      <div class="actions"><${Button} kind="small" onClick=${() => setDraft(null)}>Cancel<//>
        <${Button} kind="small primary" disabled=${!draft.trim()} onClick=${save}>Ask again<//></div>
    </div>`;
  }
  return html`<div class="user">
    ${user.images.map((url) => html`<img src=${url} alt="Image of this question" />`)}
    <p>${user.text}</p>
    <${Button} kind="quiet small" aria-label="Edit this question" onClick=${() => setDraft(user.text)}>Edit<//>
  </div>`;
}

const ENDS = {stopped: "stopped", failed: "failed"};

export function AnswerCard({answer, isLast, showsModel, onRegenerate}) {
  const isRunning = answer.state === "waiting" || answer.state === "streaming";
  return html`<article class="answer" aria-busy=${isRunning} aria-label=${`Answer of ${answer.model}`}>
    ${showsModel && html`<p class="model">${answer.model}</p>`}
    ${answer.reasoning && html`<details class="reasoning" open=${isRunning && !answer.text}>
      <summary>${isRunning && !answer.text ? "Thinking…" : "Reasoning"}</summary><div class="prose"><p>${answer.reasoning}</p></div></details>`}
    ${answer.state === "waiting" && html`<p class="note pulse">Waiting for ${answer.model}…</p>`}
    ${answer.text && html`<${Markdown} text=${answer.text} />`}
    ${answer.tools.map((tool) => html`<${ToolCall} tool=${tool} />`)}
    <${ErrorBox} error=${answer.error} />
    ${!isRunning && html`<footer>
      <${Facts} answer=${answer} />
      <span class="spring"></span>
      ${answer.text && html`<${CopyButton} text=${answer.text} />`}
      ${isLast && html`<${Button} kind="quiet small" onClick=${onRegenerate}>${answer.state === "failed" ? "Try again" : "Regenerate"}<//>`}
    </footer>`}
  </article>`;
}

function ToolCall({tool}) {
  let text = tool.text;
  try {
    text = JSON.stringify(JSON.parse(tool.text), null, 2);
  } catch {
    // Not whole yet, or not JSON: shown as it came.
  }
  return html`<figure class="code tool-call"><figcaption><span>calls <strong>${tool.name}</strong></span></figcaption>
    <pre tabindex="0"><code>${text}</code></pre></figure>`;
}

/** How fast the answer was, and what it used. */
function Facts({answer}) {
  const {facts, state, finish} = answer;
  if (!facts) return null;
  const parts = [
    ENDS[state], finish === "length" && "cut at the limit of tokens",
    facts.tokensPerSecond && `${format.rate(facts.tokensPerSecond)} tokens/s`,
    facts.tokens != null && `${format.count(facts.tokens)} tokens`,
    facts.prompt != null && `prompt ${format.count(facts.prompt)}${facts.cached ? `, ${format.count(facts.cached)} of it cached` : ""}`,
    facts.firstByte != null && `first after ${format.millis(facts.firstByte)}`,
  ];
  return html`<span class="facts">${parts.filter(Boolean).join(" · ")}</span>`;
}
