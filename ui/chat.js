// The page "Chat": a chat with one model or two side by side, and what embedding models and rerankers do.

import {html, useEffect, useState} from "./vendor/htm-preact.js";
import {get} from "./api.js";
import {Button, Empty, ErrorBox} from "./ui.js";
import {ChatThread} from "./thread.js";
import {EmbedTool, RerankTool} from "./retrieval.js";

const TOOLS = [
  {kind: "chat", title: "Chat", view: ChatThread},
  {kind: "embedding", title: "Embed", view: EmbedTool},
  {kind: "rerank", title: "Rerank", view: RerankTool},
];

export function ChatPage({access, isShown}) {
  const [models, setModels] = useState(null);
  const [error, setError] = useState(null);
  const [kind, setKind] = useState(null);
  const list = async () => {
    try {
      setModels((await get("v1/models")).data);
      setError(null);
    } catch (problem) {
      setError(problem);
    }
  };
  // Asked again whenever the page is shown: models come and go.
  useEffect(() => {
    if (isShown) list();
  }, [isShown]);
  if (error && !models) return html`<${ErrorBox} error=${error} /><p><${Button} onClick=${list}>Try again<//></p>`;
  if (!models) return html`<${Empty}>Looking which models there are…<//>`;
  const ofKind = (one) => models.filter((model) => model.meta?.kind === one);
  const tools = TOOLS.filter((tool) => ofKind(tool.kind).length > 0);
  if (tools.length === 0) return html`<${Empty}>There is no model that this key may use.<//>`;
  const shown = tools.find((tool) => tool.kind === kind) ?? tools[0];
  return html`
    <${ErrorBox} error=${error} onClose=${() => setError(null)} />
    ${tools.length > 1 && html`<div class="tabs" role="group" aria-label="What to try">${tools.map((tool) => html`<button type="button"
      aria-pressed=${tool === shown} onClick=${() => setKind(tool.kind)}>${tool.title}</button>`)}</div>`}
    ${tools.map((tool) => html`<div key=${tool.kind} class="tool" hidden=${tool !== shown}>
      <${tool.view} models=${ofKind(tool.kind)} needsKey=${access.needsKey} isShown=${isShown && tool === shown} /></div>`)}`;
}
