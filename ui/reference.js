// The page "API": where programs ask, and how.

import {html, useState} from "./vendor/htm-preact.js";
import {address} from "./api.js";
import {Button, CopyButton, Panel} from "./ui.js";
import {SampleDialog} from "./samples.js";

/** What clients of each API are told as their base address. */
const BASES = [
  {name: "OpenAI", path: "v1", note: "chat, completions, embeddings, responses"},
  {name: "Anthropic", path: "", note: "messages"},
  {name: "Ollama", path: "", note: "chat, generate, embed, tags"},
  {name: "Cohere, Jina, Voyage", path: "v1", note: "embed and rerank"},
];

const DOCUMENTS = [
  {path: "docs", title: "Try the API", note: "every route, with a key, in the browser"},
  {path: "redoc", title: "Read the API", note: "the same as one long page"},
  {path: "openapi.json", title: "openapi.json", note: "for generators of clients"},
];

const EXAMPLE = {messages: [{role: "user", content: "Say hello in one sentence."}]};

export function ApiPage({access}) {
  const [isOpen, setOpen] = useState(false);
  return html`
    <${Panel} title="Base addresses" actions=${access.inference && html`<${Button} kind="small" onClick=${() => setOpen(true)}>A first request<//>`}>
      <ul class="rows">${BASES.map((base) => {
        const url = address(base.path).replace(/\/$/, "");
        return html`<li key=${base.name}><div class="what"><strong>${base.name}</strong><span class="note">${base.note}</span></div>
          <code class="id">${url}</code><div class="actions"><${CopyButton} text=${url} label="Copy" /></div></li>`;
      })}</ul>
      <p class="note">The key goes into <code>Authorization: Bearer KEY</code> or <code>X-API-Key</code>. If something fails,
        quote the <code>x-request-id</code> of the answer: it is in the access log too.</p>
    <//>
    ${access.docs && html`<${Panel} title="Documents"><ul class="rows">${DOCUMENTS.map((one) => html`<li key=${one.path}>
      <div class="what"><a href=${address(one.path)}>${one.title}</a><span class="note">${one.note}</span></div></li>`)}</ul><//>`}
    ${isOpen && html`<${SampleDialog} path="v1/chat/completions" body=${EXAMPLE} needsKey=${access.needsKey} onClose=${() => setOpen(false)} />`}`;
}
