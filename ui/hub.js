// A part of the page "Models": the search on the hub, and the quantizations of a repository with what of them fits.

import {html, useEffect, useRef, useState} from "./vendor/htm-preact.js";
import {get} from "./api.js";
import {isOver} from "./now.js";
import {Button, Empty, ErrorBox, Field, Panel, State} from "./ui.js";
import * as format from "./format.js";

/** The colour and the words of each verdict. */
const VERDICTS = {fits: ["good", "fits"], partly: ["busy", "fits partly"], no: ["bad", "does not fit"]};

/** Searches the hub. `onOrder` downloads a model by its name; `downloads` are those that the service knows. */
export function HubSearch({onOrder, downloads}) {
  const [words, setWords] = useState("");
  const [found, setFound] = useState(null);
  const [opened, setOpened] = useState(null);
  const [isAsking, setAsking] = useState(false);
  const [error, setError] = useState(null);
  const asking = useRef(null);
  useEffect(() => () => asking.current?.abort(), []);
  const search = async (event) => {
    event.preventDefault();
    const {signal} = (asking.current = new AbortController());
    setAsking(true);
    setError(null);
    setOpened(null);
    try {
      setFound(await get(`hub/models?q=${encodeURIComponent(words.trim())}`, {signal}));
    } catch (problem) {
      if (signal.aborted) return;
      setFound(null);
      setError(problem);
    }
    setAsking(false);
  };
  return html`<${Panel} title="Find a model on the hub">
    <form class="inline" role="search" onSubmit=${search}>
      <${Field} label="Words of its name" hint="Only repositories with GGUF files are shown, those that are downloaded most first.">
        ${(id) => html`<input id=${id} type="search" value=${words} placeholder="qwen3 4b instruct" spellcheck="false" autocomplete="off"
          maxlength="100" onInput=${(event) => setWords(event.target.value)} />`}<//>
      <button class="button primary" disabled=${isAsking}>${isAsking ? "Searching…" : "Search"}</button>
    </form>
    <${ErrorBox} error=${error} onClose=${() => setError(null)} />
    <p class="hidden" role="status">${found ? `${found.data.length} repositories found.` : ""}</p>
    ${found?.data.length === 0 && html`<${Empty}>No repository with GGUF files has these words in its name.<//>`}
    ${found?.data.length > 0 && html`<ul class="rows found">${found.data.map((one) => html`<li key=${one.id}>
      <div class="what"><strong class="id">${one.id}</strong><span class="note">${repositoryNote(one)}</span></div>
      ${one.gated ? html`<${State} tone="busy">needs access<//>` : html`<span></span>`}
      <div class="actions"><${Button} kind="small" aria-expanded=${opened === one.id} aria-label=${`${opened === one.id ? "Hide" : "Show"} files of ${one.id}`}
        onClick=${() => setOpened(opened === one.id ? null : one.id)}>${opened === one.id ? "Hide files" : "Show files"}<//></div>
      ${opened === one.id && html`<div class="below"><${Repository} id=${one.id} onOrder=${onOrder} downloads=${downloads} /></div>`}
    </li>`)}</ul>`}
    ${found?.has_more && html`<p class="note">There are more: search with more words.</p>`}
  <//>`;
}

function repositoryNote(one) {
  const parts = [
    one.parameters && `${format.compact(one.parameters)} parameters`, one.context_length && `${format.count(one.context_length)} tokens of context`,
    one.downloads != null && `${format.compact(one.downloads)} downloads`, one.likes != null && `${format.compact(one.likes)} likes`,
    one.updated_at && `changed ${one.updated_at.slice(0, 10)}`,
  ];
  return parts.filter(Boolean).join(" · ");
}

/** The quantizations of a repository: first with their sizes, then with what of them fits, which takes a while. */
function Repository({id, onOrder, downloads}) {
  const [details, setDetails] = useState(null);
  const [isCompared, setCompared] = useState(false);
  const [error, setError] = useState(null);
  const [tries, setTries] = useState(0);
  const done = downloads.filter((one) => one.state === "done").length;
  useEffect(() => {
    const control = new AbortController();
    const ask = async (query) => setDetails(await get(`hub/models/${encodeURIComponent(id)}${query}`, {signal: control.signal}));
    const askAll = async () => {
      setError(null);
      setCompared(false);
      try {
        await ask("");
        await ask("?fit=true");
      } catch (problem) {
        if (control.signal.aborted) return;
        setError(problem);
      }
      setCompared(true);
    };
    askAll();
    return () => control.abort();
  }, [id, done, tries]);
  const failure = error && html`<${ErrorBox} error=${error} onClose=${details && (() => setError(null))} />
    <${Button} kind="small" onClick=${() => setTries(tries + 1)}>Try again<//>`;
  if (!details) return failure || html`<${Empty}>Asking the hub…<//>`;
  if (!details.models.length) return failure || html`<${Empty}>It has no model as a GGUF file.<//>`;
  return html`
    ${failure}
    <ul class="rows quants">${details.models.map((model) => html`<${Quantization} key=${model.model} model=${model} isCompared=${isCompared}
      download=${downloads.find((one) => one.model === model.model && !isOver(one))} onOrder=${onOrder} />`)}</ul>
    ${details.has_more && html`<p class="note">There are more files than are shown here.</p>`}`;
}

/** A quantization. Once `isCompared`, one without an answer has none: of a repository with many models only the first are compared. */
function Quantization({model, download, isCompared, onOrder}) {
  const {fit} = model;
  const [tone, words] = VERDICTS[fit?.verdict] ?? ["idle", isCompared || model.size_bytes == null ? "not known" : "comparing…"];
  const facts = [
    model.size_bytes == null ? "size not known" : format.bytes(model.size_bytes + model.projector_bytes),
    model.files.length > 1 && `${model.files.length} files`, model.projector_bytes > 0 && "with its projector",
    fit && `needs ${fit.reason}`,
  ];
  const percent = download?.total > 0 ? ` ${Math.floor((download.bytes / download.total) * 100)} %` : "";
  return html`<li>
    <div class="what"><strong class="id" title=${model.model}>${model.quantization ?? model.files[0]}</strong>
      <span class="note">${facts.filter(Boolean).join(" · ")}</span></div>
    <${State} tone=${tone}>${words}<//>
    <div class="actions">${model.here ? html`<${State} tone="good">here<//>`
      : download ? html`<${State} tone="busy">${download.state}${percent}<//>`
      : html`<${Button} kind="small" aria-label=${`Download ${model.model}`} onClick=${() => onOrder(model.model)}>Download<//>`}</div>
    ${fit?.ways.length > 0 && html`<p class="below note">Runs with one of these: ${fit.ways.join("; ")}.</p>`}
  </li>`;
}
