// The page "Usage": who used what, and what it cost.

import {html, useEffect, useState} from "./vendor/htm-preact.js";
import {ApiError, get, send} from "./api.js";
import {Bars} from "./charts.js";
import {Button, Empty, ErrorBox, Field, Panel} from "./ui.js";
import * as format from "./format.js";

const GROUPS = {day: "Day", key: "Key", person: "Person", model: "Model"};

const COLUMNS = [
  {name: "requests", title: "Requests", show: format.count},
  {name: "refused", title: "Refused", show: format.count},
  {name: "prompt_tokens", title: "Prompt tokens", show: format.count},
  {name: "cached_tokens", title: "of it cached", show: format.count},
  {name: "completion_tokens", title: "Answer tokens", show: format.count},
  {name: "slot_seconds", title: "Slot time", show: format.span},
  {name: "cost", title: "Cost", show: format.cost},
];

/** Most rows that are asked for; the page is for looking, the CSV for counting. */
const MAX_ROWS = 1000;

/** Rows of a page of the CSV, the most that the API gives at once. */
const CSV_ROWS = 10_000;

/** Most pages of one CSV. */
const MAX_CSV_PAGES = 100;

/** Most bars of the chart. */
const MAX_BARS = 31;

const dayText = (back) => new Date(Date.now() - back * 86400_000).toISOString().slice(0, 10);

export function UsagePage({access}) {
  const [from, setFrom] = useState(dayText(6));
  const [to, setTo] = useState("");
  const [by, setBy] = useState(["day"]);
  const [measure, setMeasure] = useState("completion_tokens");
  const [page, setPage] = useState(null);
  const [error, setError] = useState(null);
  const groups = Object.keys(GROUPS).filter((name) => access.admin || name !== "key");
  const query = (limit) => {
    const asked = new URLSearchParams({by: by.join(","), limit});
    if (from) asked.set("from", from);
    // What the person means by "to" is the whole of that day.
    if (to) asked.set("to", new Date(new Date(to).getTime() + 86400_000).toISOString().slice(0, 10));
    return `usage?${asked}`;
  };
  useEffect(() => {
    let isOver = false;
    get(query(MAX_ROWS)).then((found) => isOver || (setPage({...found, by}), setError(null)), (problem) => isOver || setError(problem));
    return () => (isOver = true);
  }, [from, to, by.join()]);
  const toggle = (name) => setBy(by.includes(name) ? (by.length > 1 ? by.filter((one) => one !== name) : by) : groups.filter((one) => one === name || by.includes(one)));
  const rows = page?.data ?? [];
  return html`
    <${Panel} title="Usage" note=${access.admin ? "of all keys, UTC" : "of your key, UTC"} actions=${html`<${Button} kind="small" onClick=${() => saveCsv(query(CSV_ROWS), setError)}>Save as CSV<//>`}>
      <div class="form filters">
        <${Field} label="From">${(id) => html`<input id=${id} type="date" value=${from} max=${to || undefined} onInput=${(event) => setFrom(event.target.value)} />`}<//>
        <${Field} label="To">${(id) => html`<input id=${id} type="date" value=${to} min=${from || undefined} onInput=${(event) => setTo(event.target.value)} />`}<//>
        <${Field} label="Chart">${(id) => html`<select id=${id} value=${measure} onChange=${(event) => setMeasure(event.target.value)}>
          ${COLUMNS.map((column) => html`<option value=${column.name}>${column.title}</option>`)}</select>`}<//>
        <div class="field"><span class="label" id="by">By</span><div class="tabs" role="group" aria-labelledby="by">${groups.map((name) => html`<button type="button"
          aria-pressed=${by.includes(name)} onClick=${() => toggle(name)}>${GROUPS[name]}</button>`)}</div></div>
      </div>
      <${ErrorBox} error=${error} />
      ${page && (rows.length === 0 ? html`<${Empty}>Nothing was used in this time.<//>` : html`
        <${Chart} rows=${rows} by=${page.by} measure=${measure} />
        <${UsageTable} rows=${rows} by=${page.by} hasMore=${page.has_more} />`)}
    <//>`;
}

const nameOf = (row, by) => by.map((name) => (name === "day" ? row.start?.slice(0, 10) : (row[name] ?? "–"))).join(" · ");

function Chart({rows, by, measure}) {
  const {title, show} = COLUMNS.find((column) => column.name === measure);
  const all = rows.map((row) => ({name: nameOf(row, by), value: Number(row[measure] ?? 0)}));
  // The last days, or those that used the most.
  const shown = by.includes("day") ? all.slice(-MAX_BARS) : all.sort((a, b) => b.value - a.value).slice(0, MAX_BARS);
  if (shown.every((row) => row.value === 0)) return null;
  return html`<${Bars} title=${title} rows=${shown} show=${show} />`;
}

function UsageTable({rows, by, hasMore}) {
  const sum = (name) => rows.reduce((total, row) => total + Number(row[name] ?? 0), 0);
  return html`<div class="scroll" tabindex="0" role="region" aria-label="Usage"><table>
    <thead><tr>${by.map((name) => html`<th>${GROUPS[name]}</th>`)}${COLUMNS.map((column) => html`<th class="n">${column.title}</th>`)}</tr></thead>
    <tbody>${rows.map((row) => html`<tr>${by.map((name) => html`<td>${nameOf(row, [name])}</td>`)}
      ${COLUMNS.map((column) => html`<td class="n">${column.show(row[column.name])}</td>`)}</tr>`)}</tbody>
    ${!hasMore && rows.length > 1 && html`<tfoot><tr><th scope="row" colspan=${by.length}>Total</th>${COLUMNS.map((column) => html`<td class="n">${column.show(sum(column.name))}</td>`)}</tr></tfoot>`}
  </table></div>${hasMore && html`<p class="note">Only the first ${MAX_ROWS} rows are shown: choose a shorter time.</p>`}`;
}

/** Saves the same rows as CSV. The key goes with the request, not into a link. */
async function saveCsv(path, onError) {
  try {
    onError(null);
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob(await csvPages(path), {type: "text/csv"}));
    link.download = "usage.csv";
    link.click();
    URL.revokeObjectURL(link.href);
  } catch (error) {
    onError(error);
  }
}

/** Returns all pages of a CSV, the line of names only once. */
async function csvPages(path) {
  const pages = [];
  let next = null;
  do {
    if (pages.length === MAX_CSV_PAGES) throw new ApiError(0, {message: "There are too many rows for one file.", hint: "Choose a shorter time."});
    const response = await send(next ? `${path}&after=${encodeURIComponent(next)}` : path, {headers: {Accept: "text/csv"}});
    const text = await response.text();
    pages.push(pages.length ? text.slice(text.indexOf("\n") + 1) : text);
    next = response.headers.get("x-llamagate-next");
  } while (next);
  return pages;
}
