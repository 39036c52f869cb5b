// What embedding models and rerankers do, with texts that are pasted.

import {html, useState} from "./vendor/htm-preact.js";
import {order} from "./api.js";
import {Bars, Matrix} from "./charts.js";
import {Button, ErrorBox, Field, Panel} from "./ui.js";
import {SampleDialog} from "./samples.js";
import * as format from "./format.js";

/** Most lines that are embedded at once here: a larger matrix cannot be read. */
const MAX_LINES = 30;

const linesOf = (text) => text.split("\n").map((line) => line.trim()).filter(Boolean);

/** Asks once, and keeps the answer, the error and the time. */
function useAsk(path) {
  const [result, setResult] = useState({});
  const [isAsking, setAsking] = useState(false);
  const run = async (body) => {
    setAsking(true);
    const started = performance.now();
    try {
      const answer = await order("POST", path, body);
      setResult({body, answer, took: performance.now() - started});
    } catch (error) {
      setResult({error});
    }
    setAsking(false);
  };
  return {...result, isAsking, run};
}

function ModelField({models, value, onChange}) {
  return html`<${Field} label="Model">${(id) => html`<select id=${id} value=${value} onChange=${(event) => onChange(event.target.value)}>
    ${models.map((model) => html`<option value=${model.id}>${model.id}</option>`)}</select>`}<//>`;
}

/** The buttons of a tool, and the dialog with its request. */
function Actions({asked, path, body, canAsk, needsKey, title}) {
  const [sample, setSample] = useState(null);
  return html`<div class="actions">
    <${Button} kind="primary" disabled=${!canAsk || asked.isAsking} onClick=${() => asked.run(body())}>${asked.isAsking ? "Asking…" : title}<//>
    <${Button} kind="quiet small" onClick=${() => setSample(body())}>Copy as code<//>
    ${asked.took != null && html`<span class="note">${format.millis(asked.took)}</span>`}
    ${sample && html`<${SampleDialog} path=${path} body=${sample} needsKey=${needsKey} onClose=${() => setSample(null)} />`}
  </div>`;
}

export function EmbedTool({models, needsKey}) {
  const [model, setModel] = useState(models[0].id);
  const [text, setText] = useState("A cat sits on the mat.\nA kitten rests on a rug.\nThe train to Bonn is late.");
  const asked = useAsk("v1/embeddings");
  const lines = linesOf(text).slice(0, MAX_LINES);
  const body = () => ({model, input: lines});
  return html`<${Panel} title="How alike are these lines?">
    <div class="form">
      <${ModelField} models=${models} value=${model} onChange=${setModel} />
      <${Field} label="Lines to compare" wide hint=${linesOf(text).length > MAX_LINES ? `Only the first ${MAX_LINES} lines are compared.` : null}>${(id) => html`<textarea id=${id} rows="6" value=${text} onInput=${(event) => setText(event.target.value)}></textarea>`}<//>
    </div>
    <${Actions} asked=${asked} path="v1/embeddings" body=${body} canAsk=${lines.length > 0} needsKey=${needsKey} title="Embed" />
    <${ErrorBox} error=${asked.error} />
    ${asked.answer && html`<${Matrix} names=${asked.body.input} values=${similarities(asked.answer.data)} />
      <p class="note">Cosine similarity · ${asked.answer.data[0].embedding.length} dimensions${asked.answer.usage ? ` · ${format.count(asked.answer.usage.prompt_tokens)} tokens` : ""}</p>`}
  <//>`;
}

function similarities(data) {
  const vectors = data.map((one) => one.embedding);
  const dot = (a, b) => a.reduce((sum, value, at) => sum + value * b[at], 0);
  const lengths = vectors.map((vector) => Math.sqrt(dot(vector, vector)) || 1);
  return vectors.map((a, row) => vectors.map((b, column) => dot(a, b) / (lengths[row] * lengths[column])));
}

export function RerankTool({models, needsKey}) {
  const [model, setModel] = useState(models[0].id);
  const [query, setQuery] = useState("Where do cats sleep?");
  const [text, setText] = useState("Cats like warm and quiet places.\nThe train to Bonn is late.\nMost cats sleep on a sofa.");
  const asked = useAsk("v1/rerank");
  const documents = linesOf(text);
  const body = () => ({model, query, documents});
  return html`<${Panel} title="Which lines answer the question?">
    <div class="form">
      <${ModelField} models=${models} value=${model} onChange=${setModel} />
      <${Field} label="Question" wide>${(id) => html`<input id=${id} value=${query} onInput=${(event) => setQuery(event.target.value)} />`}<//>
      <${Field} label="Documents, one a line" wide>${(id) => html`<textarea id=${id} rows="6" value=${text} onInput=${(event) => setText(event.target.value)}></textarea>`}<//>
    </div>
    <${Actions} asked=${asked} path="v1/rerank" body=${body} canAsk=${query.trim() && documents.length > 0} needsKey=${needsKey} title="Rank" />
    <${ErrorBox} error=${asked.error} />
    ${asked.answer && html`<${Ranking} asked=${asked} />`}
  <//>`;
}

function Ranking({asked}) {
  const found = [...asked.answer.results].sort((a, b) => b.relevance_score - a.relevance_score);
  const lowest = Math.min(0, ...found.map((one) => one.relevance_score));
  const rows = found.map((one) => ({name: asked.body.documents[one.index], value: one.relevance_score - lowest}));
  const show = (value) => (value + lowest).toFixed(3);
  return html`<${Bars} title="Documents by relevance" rows=${rows} show=${show} />
    <p class="note">${found.length} documents, the most relevant first.</p>`;
}
