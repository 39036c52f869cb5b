// Markdown of answers as elements: paragraphs, headings, lists, quotes, tables, code. Only elements and text are made, and
// links only to the web, so an answer cannot bring markup of its own.

import {html} from "./vendor/htm-preact.js";
import {CopyButton} from "./ui.js";

/** Deepest quote or list in another that is read; what is deeper stays text. */
const MAX_DEPTH = 20;

/** Shows a text with the marks of Markdown that models use. */
export function Markdown({text}) {
  return html`<div class="prose">${blocks(text, 0)}</div>`;
}

function blocks(text, depth) {
  if (depth > MAX_DEPTH) return [html`<p>${text}</p>`];
  const lines = text.split("\n");
  const found = [];
  let at = 0;
  while (at < lines.length) {
    const [block, next] = blockAt(lines, at, depth);
    if (block) found.push(block);
    at = next;
  }
  return found;
}

/** Reads the block that begins at a line; returns it, and the line after it. */
function blockAt(lines, at, depth) {
  const line = lines[at];
  const fence = /^\s*(```+|~~~+)\s*([\w+#.-]*)/.exec(line);
  if (fence) return code(lines, at, fence);
  const heading = /^(#{1,6})\s+(.*)$/.exec(line);
  if (heading) return [html`<p class=${`heading level${heading[1].length}`}>${inline(heading[2])}</p>`, at + 1];
  if (/^\s*([-*_])\s*(\1\s*){2,}$/.test(line)) return [html`<hr />`, at + 1];
  if (/^\s*>/.test(line)) {
    const end = endOf(lines, at, (one) => /^\s*>/.test(one));
    return [html`<blockquote>${blocks(lines.slice(at, end).map((one) => one.replace(/^\s*> ?/, "")).join("\n"), depth + 1)}</blockquote>`, end];
  }
  if (isTable(lines, at)) return table(lines, at);
  if (ITEM.test(line)) return list(lines, at, depth);
  if (!line.trim()) return [null, at + 1];
  const end = endOf(lines, at, (one, index) => index === at || (one.trim() && !/^\s*(```|~~~|#{1,6}\s|>)/.test(one) && !ITEM.test(one)));
  const parts = lines.slice(at, end).flatMap((one, index) => (index ? [html`<br />`, ...inline(one)] : inline(one)));
  return [html`<p>${parts}</p>`, end];
}

function endOf(lines, at, belongs) {
  let end = at;
  while (end < lines.length && belongs(lines[end], end)) end += 1;
  return end;
}

function code(lines, at, [, mark, language]) {
  const end = endOf(lines, at + 1, (one) => !one.trim().startsWith(mark));
  const text = lines.slice(at + 1, end).join("\n");
  return [html`<figure class="code"><figcaption><span>${language || "text"}</span><${CopyButton} text=${text} /></figcaption>
    <pre tabindex="0"><code>${text}</code></pre></figure>`, end + 1];
}

const ITEM = /^(\s*)([-*+]|\d{1,9}[.)])\s+(.*)$/;

function list(lines, at, depth) {
  const [, indent, mark] = ITEM.exec(lines[at]);
  const items = [];
  let next = at;
  while (next < lines.length) {
    const item = ITEM.exec(lines[next]);
    if (!item || item[1].length > indent.length + 1) {
      // Indented lines go on with the item before.
      if (lines[next].trim() && /^\s{2,}/.test(lines[next]) && items.length) {
        items.at(-1).push(lines[next].slice(Math.min(indent.length + 2, lines[next].search(/\S/))));
        next += 1;
        continue;
      }
      break;
    }
    if (item[1].length < indent.length || /\d/.test(item[2]) !== /\d/.test(mark)) break;
    items.push([item[3]]);
    next += 1;
  }
  const shown = items.map((item) => html`<li>${inline(item[0])}${item.length > 1 && blocks(item.slice(1).join("\n"), depth + 1)}</li>`);
  return [/\d/.test(mark) ? html`<ol start=${parseInt(mark, 10)}>${shown}</ol>` : html`<ul>${shown}</ul>`, Math.max(next, at + 1)];
}

function isTable(lines, at) {
  return lines[at].includes("|") && /^\s*\|?\s*:?-{2,}:?\s*(\|\s*:?-{2,}:?\s*)*\|?\s*$/.test(lines[at + 1] ?? "");
}

function table(lines, at) {
  const cells = (line) => line.trim().replace(/^\||\|$/g, "").split("|").map((cell) => inline(cell.trim()));
  const end = endOf(lines, at + 2, (one) => one.includes("|"));
  return [html`<div class="scroll"><table><thead><tr>${cells(lines[at]).map((cell) => html`<th>${cell}</th>`)}</tr></thead>
    <tbody>${lines.slice(at + 2, end).map((line) => html`<tr>${cells(line).map((cell) => html`<td>${cell}</td>`)}</tr>`)}</tbody></table></div>`, end];
}

const MARKS = /(`+)(.+?)\1|\*\*(.+?)\*\*|__(.+?)__|\*([^*\s](?:[^*]*[^*\s])?)\*|~~(.+?)~~|\[([^\]]+)\]\((https?:\/\/[^\s)]+)\)/;

/** Returns the text of a line with code, strong and emphasised words, and links. */
function inline(text) {
  const parts = [];
  let rest = text;
  for (let found = MARKS.exec(rest); found; found = MARKS.exec(rest)) {
    if (found.index > 0) parts.push(rest.slice(0, found.index));
    const [whole, , literal, strong, strong2, emphasised, struck, label, link] = found;
    if (literal != null) parts.push(html`<code>${literal}</code>`);
    else if (strong ?? strong2) parts.push(html`<strong>${inline(strong ?? strong2)}</strong>`);
    else if (emphasised) parts.push(html`<em>${inline(emphasised)}</em>`);
    else if (struck) parts.push(html`<s>${inline(struck)}</s>`);
    else parts.push(html`<a href=${link} target="_blank" rel="noopener noreferrer">${label}</a>`);
    rest = rest.slice(found.index + whole.length);
  }
  if (rest) parts.push(rest);
  return parts;
}
