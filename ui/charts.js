// Charts as plain SVG, with a sentence for those who do not see them.

import {html, useState} from "./vendor/htm-preact.js";

const WIDTH = 600;
const HEIGHT = 96;

/** Most steps without a value over which a line goes on. */
const MAX_GAP = 6;

/** Puts points in time into as many equal steps, from the oldest to now; the mean of each, or null. */
export function steps(history, read, seconds, many) {
  const now = Date.now();
  const sums = Array.from({length: many}, () => ({sum: 0, count: 0}));
  for (const point of history) {
    const at = many - 1 - Math.floor(((now - point.at) / 1000 / seconds) * many);
    const value = read(point);
    if (at >= 0 && at < many && value != null) {
      sums[at].sum += value;
      sums[at].count += 1;
    }
  }
  return sums.map(({sum, count}) => (count ? sum / count : null));
}

/** A line over time. `values` are oldest first; null where there is none. */
export function Line({title, values, show, span}) {
  const [at, setAt] = useState(null);
  const known = values.filter((value) => value != null);
  const last = known.at(-1) ?? null;
  const top = Math.max(...known, 0) || 1;
  const x = (index) => (index / (values.length - 1)) * WIDTH;
  const y = (value) => HEIGHT - 4 - (value / top) * (HEIGHT - 12);
  const parts = [];
  let before = -Infinity;
  values.forEach((value, index) => {
    if (value == null) return;
    const isNext = index - before <= MAX_GAP;
    parts.push(`${isNext ? "L" : "M"}${x(index).toFixed(1)} ${y(value).toFixed(1)}${isNext ? "" : "h1"}`);
    before = index;
  });
  const point = (event) => {
    const box = event.currentTarget.getBoundingClientRect();
    setAt(Math.round(((event.clientX - box.left) / box.width) * (values.length - 1)));
  };
  const told = at == null ? last : values[at];
  const text = known.length ? `${title}: last ${show(last)}, highest ${show(Math.max(...known))}, over ${span}.` : `${title}: nothing yet.`;
  return html`<figure class="chart">
    <figcaption><span>${title}</span><strong>${told == null ? "–" : show(told)}</strong></figcaption>
    <svg viewBox=${`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" role="img" aria-label=${text}
      onMouseMove=${point} onMouseLeave=${() => setAt(null)}>
      <line class="grid" x1="0" x2=${WIDTH} y1=${HEIGHT - 4} y2=${HEIGHT - 4} />
      <line class="grid" x1="0" x2=${WIDTH} y1=${y(top)} y2=${y(top)} />
      <path d=${parts.join("")} vector-effect="non-scaling-stroke" />
      ${at != null && html`<line class="cursor" x1=${x(at)} x2=${x(at)} y1="0" y2=${HEIGHT} vector-effect="non-scaling-stroke" />`}
    </svg>
    <p class="axis"><span>${span} ago</span><span>${known.length ? `up to ${show(top)}` : "nothing yet"}</span><span>now</span></p>
  </figure>`;
}

/** Bars for days or names, each with its value. */
export function Bars({title, rows, show}) {
  const top = Math.max(...rows.map((row) => row.value), 0) || 1;
  return html`<ul class="bars" aria-label=${title}>${rows.map((row) => html`<li key=${row.name}>
    <span class="name" title=${row.name}>${row.name}</span>
    <span class="track" aria-hidden="true"><i style=${{width: `${(row.value / top) * 100}%`}}></i></span>
    <span class="value">${show(row.value)}</span>
  </li>`)}</ul>`;
}

/** A matrix of similarities between texts, from 0 to 1. */
export function Matrix({names, values}) {
  return html`<div class="scroll" tabindex="0" role="region" aria-label="Similarity matrix"><table class="matrix">
    <caption class="hidden">Similarity of each text to each other</caption>
    <thead><tr><td></td>${names.map((name, at) => html`<th scope="col" title=${name}>${at + 1}</th>`)}</tr></thead>
    <tbody>${names.map((name, row) => html`<tr><th scope="row" title=${name}><b>${row + 1}</b> ${name}</th>
      ${values[row].map((value) => html`<td class=${`heat${Math.max(0, Math.min(9, Math.floor(value * 10)))}`}>${value.toFixed(2)}</td>`)}
    </tr>`)}</tbody>
  </table></div>`;
}
