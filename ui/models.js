// The page "Models": what is here, what comes, and what is removed. For administrators.

import {html, useEffect, useState} from "./vendor/htm-preact.js";
import {get, order} from "./api.js";
import {setLoaded, useLive} from "./live.js";
import {HubSearch} from "./hub.js";
import {Downloads, isOver} from "./now.js";
import {Button, Confirm, Empty, ErrorBox, Field, Panel, State, useEvery} from "./ui.js";
import * as format from "./format.js";

/** Pause between two looks at the downloads without the feed, in seconds. */
const LOOK_PAUSE = 4;

export function ModelsPage({access}) {
  const live = useLive();
  const [models, setModels] = useState(null);
  const [downloads, setDownloads] = useState([]);
  const [error, setError] = useState(null);
  const [lookErrors, setLookErrors] = useState({});
  const [leaving, setLeaving] = useState(null);
  /** Carries out an order. Returns whether it was not refused. */
  const attempt = async (work) => {
    try {
      setError(null);
      await work();
      return true;
    } catch (problem) {
      setError(problem);
      return false;
    }
  };
  /** Asks for a list. Its error is kept apart, because the next look would take that of an order away. */
  const look = async (path, take) => {
    const show = (problem) => setLookErrors((old) => ({...old, [path]: problem}));
    try {
      take((await get(path)).data);
      show(null);
    } catch (problem) {
      show(problem);
    }
  };
  const list = () => look("v1/models", setModels);
  const listDownloads = () => look("v1/models/downloads", setDownloads);
  const shownDownloads = live.hasFeed ? [...live.downloads.values()] : downloads;
  const done = shownDownloads.filter((one) => one.state === "done").length;
  // A download that has ended, and a model that the service has found or lost, change the list.
  useEffect(() => {
    if (access.inference) list();
  }, [done, live.models.size]);
  useEvery(LOOK_PAUSE, () => live.hasFeed || listDownloads(), [live.hasFeed]);
  const remove = () => attempt(async () => {
    setLeaving(null);
    await order("DELETE", `v1/models/${encodeURIComponent(leaving)}`);
    await list();
  });
  const fetchModel = (name) => attempt(async () => {
    await order("POST", "v1/models/download", {model: name});
    if (!live.hasFeed) await listDownloads();
  });
  const forget = (one) => attempt(async () => {
    await order("DELETE", `v1/models/downloads/${one.id}`);
    if (!live.hasFeed) await listDownloads();
  });
  const rows = (models ?? []).filter((model) => !model.parent);
  return html`
    <${ErrorBox} error=${error} onClose=${() => setError(null)} />
    <${ErrorBox} error=${Object.values(lookErrors).find(Boolean)} onClose=${() => setLookErrors({})} />
    <${HubSearch} onOrder=${fetchModel} downloads=${shownDownloads} />
    <${Fetch} onOrder=${fetchModel} />
    ${shownDownloads.length > 0 && html`<${Downloads} downloads=${shownDownloads} actions=${(one) => html`<${Button} kind="quiet small"
      aria-label=${`${isOver(one) ? "Forget" : "Cancel"} the download of ${one.model}`} onClick=${() => forget(one)}>${isOver(one) ? "Forget" : "Cancel"}<//>`} />`}
    <${Panel} title="On this machine" note=${models && `${rows.length} models`}>
      ${!access.inference ? html`<${Empty}>The list of models needs a key with the scope inference.<//>`
        : rows.length === 0 ? html`<${Empty}>${models ? "No model is here yet." : "Looking…"}<//>`
        : html`<${ModelTable} rows=${rows} live=${live} onLoad=${(id, isLoaded) => attempt(() => setLoaded(id, isLoaded))} onRemove=${setLeaving} />`}
    <//>
    ${leaving && html`<${Confirm} title=${`Delete ${leaving}?`} action="Delete" onYes=${remove} onClose=${() => setLeaving(null)}
      text="Its files are removed from the disk. A model that is in use is not deleted, and files that other models share stay." />`}`;
}

function Fetch({onOrder}) {
  const [name, setName] = useState("");
  const submit = async (event) => {
    event.preventDefault();
    if (await onOrder(name.trim())) setName("");
  };
  return html`<${Panel} title="Fetch a model by its name">
    <form class="inline" onSubmit=${submit}>
      <${Field} label="Name on the hub" hint="ORG/NAME, ORG/NAME:Q4_K_M for one quantization, or the address of a GGUF file. What has arrived is kept if you cancel.">
        ${(id) => html`<input id=${id} value=${name} placeholder="Qwen/Qwen3-0.6B-GGUF:Q8_0" spellcheck="false" autocomplete="off" onInput=${(event) => setName(event.target.value)} />`}<//>
      <button class="button primary" disabled=${!name.trim()}>Download</button>
    </form>
  <//>`;
}

function ModelTable({rows, live, onLoad, onRemove}) {
  return html`<div class="scroll" tabindex="0" role="region" aria-label="Models"><table>
    <thead><tr><th>Model</th><th>Kind</th><th>Quantization</th><th class="n">Size</th><th class="n">Parameters</th><th class="n">Context</th><th>State</th><th><span class="hidden">Actions</span></th></tr></thead>
    <tbody>${rows.map((model) => {
      const {meta} = model;
      const state = live.models.get(model.id)?.state ?? meta.state;
      const isUp = !["stopped", "failed"].includes(state);
      const isLocal = live.models.get(model.id)?.workers.every((worker) => worker.kind !== "remote") ?? true;
      return html`<tr key=${model.id}>
        <td><strong class="id">${model.id}</strong>${meta.aliases?.length > 0 && html`<span class="note"> also ${meta.aliases.join(", ")}</span>`}</td>
        <td>${meta.kind}${model.architecture?.input_modalities?.length > 1 ? ` (sees ${model.architecture.input_modalities.slice(1).join(", ")})` : ""}</td>
        <td>${meta.quantization ?? "–"}</td><td class="n">${format.bytes(meta.size_bytes)}</td>
        <td class="n">${format.compact(meta.n_params)}</td><td class="n">${format.count(meta.context_length)}</td>
        <td><${State} tone=${state === "ready" ? "good" : state === "failed" ? "bad" : isUp ? "busy" : "idle"}>${state === "stopped" ? "not loaded" : state}<//></td>
        <td class="actions">${isLocal && html`
          <${Button} kind="small" aria-label=${`${isUp ? "Unload" : "Load"} ${model.id}`} onClick=${() => onLoad(model.id, !isUp)}>${isUp ? "Unload" : "Load"}<//>
          <${Button} kind="quiet small" aria-label=${`Delete ${model.id}`} onClick=${() => onRemove(model.id)}>Delete<//>`}</td>
      </tr>`;
    })}</tbody></table></div>`;
}
