// Small parts that all pages share. Text is always a child of an element, so it is never read as markup.

import {html, useEffect, useRef, useState} from "./vendor/htm-preact.js";
import {ApiError} from "./api.js";

/** A button. `kind` is `primary`, `quiet` or `danger`. */
export function Button({kind = "", children, ...rest}) {
  return html`<button type="button" class=${`button ${kind}`} ...${rest}>${children}</button>`;
}

/** A button that copies a text, and says so. */
export function CopyButton({text, label = "Copy", kind = "quiet small"}) {
  const [state, setState] = useState("");
  const copy = async ({currentTarget: button}) => {
    setState((await copyText(typeof text === "function" ? text() : text, button)) ? "Copied" : "Select and copy it by hand");
    setTimeout(() => setState(""), 2000);
  };
  return html`<button type="button" class=${`button ${kind}`} onClick=${copy}>
    ${state || label}<span class="hidden" role="status">${state}</span>
  </button>`;
}

/** Copies a text, at the click on a button. Returns whether that worked. */
async function copyText(text, button) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyFromField(text, button);
  }
}

/** Copies a text out of a field that is there for that moment: browsers have a clipboard on https and on this machine only. */
function copyFromField(text, button) {
  const area = Object.assign(document.createElement("textarea"), {value: text, className: "hidden", readOnly: true});
  // A dialog makes everything outside it inert, and the browser then says that it has copied, and has not.
  (button.closest("dialog") ?? document.body).append(area);
  area.focus({preventScroll: true});
  area.select();
  const isCopied = document.activeElement === area && document.execCommand("copy");
  area.remove();
  button.focus({preventScroll: true});
  return isCopied;
}

/** A field with its label; `children` is a function that gets the id of the input. */
export function Field({label, hint, children, wide}) {
  const id = useRef(`f${(Field.next = (Field.next ?? 0) + 1)}`).current;
  return html`<div class=${`field ${wide ? "wide" : ""}`}>
    <label for=${id}>${label}</label>
    ${children(id)}
    ${hint && html`<p class="hint">${hint}</p>`}
  </div>`;
}

/** What went wrong, as the API says it, with what to do and what to quote. */
export function ErrorBox({error, onClose}) {
  if (!error) return null;
  const told = error instanceof ApiError ? error : new ApiError(0, {message: String(error.message ?? error)});
  return html`<div class="error" role="alert">
    <p><strong>${told.message}</strong></p>
    ${told.hint && html`<p>${told.hint}</p>`}
    <p class="meta">
      ${told.code && html`<span>${told.code}${told.status ? `, status ${told.status}` : ""}</span>`}
      ${told.requestId && html`<span>request id <code>${told.requestId}</code></span>`}
      <${CopyButton} text=${() => told.asText()} label="Copy" />
      ${onClose && html`<${Button} kind="quiet small" onClick=${onClose}>Dismiss<//>`}
    </p>
  </div>`;
}

/** A bar that shows a part of a whole. */
export function Bar({value, max, label}) {
  const share = max > 0 ? Math.min(1, value / max) : 0;
  return html`<div class="bar" role="progressbar" aria-label=${label} aria-valuemin="0" aria-valuemax="100"
    aria-valuenow=${Math.round(share * 100)}><span style=${{width: `${share * 100}%`}}></span></div>`;
}

/** A word with a dot of the colour of its meaning: `good`, `busy`, `bad` or `idle`. */
export function State({tone, children}) {
  return html`<span class=${`state ${tone}`}><i aria-hidden="true"></i>${children}</span>`;
}

/** A part of a page under a heading. */
export function Panel({title, note, actions, children, class: extra = ""}) {
  return html`<section class=${`panel ${extra}`}>
    ${(title || actions) && html`<header><h2>${title}</h2>${note && html`<span class="note">${note}</span>`}
      <div class="actions">${actions}</div></header>`}
    ${children}
  </section>`;
}

/** What is shown where there is nothing yet. */
export function Empty({children}) {
  return html`<p class="empty">${children}</p>`;
}

/** A dialog in front of the page; the browser keeps the focus in it and closes it with Escape. */
export function Dialog({title, onClose, children}) {
  const dialog = useRef(null);
  useEffect(() => {
    const before = document.activeElement;
    dialog.current.showModal();
    return () => before?.focus();
  }, []);
  return html`<dialog ref=${dialog} onClose=${onClose} aria-label=${title}>
    <header><h2>${title}</h2><${Button} kind="quiet small" aria-label="Close" onClick=${() => dialog.current.close()}>✕<//></header>
    ${children}
  </dialog>`;
}

/** A question before something that cannot be undone. */
export function Confirm({title, text, action, error, isAsking, onYes, onClose}) {
  return html`<${Dialog} title=${title} onClose=${onClose}>
    <p>${text}</p>
    <${ErrorBox} error=${error} />
    <footer><${Button} onClick=${onClose}>Keep it<//><${Button} kind="danger" disabled=${isAsking} onClick=${onYes}>${action}<//></footer>
  <//>`;
}

/** Runs a function now and then while the part is shown; not while the tab is hidden. */
export function useEvery(seconds, run, inputs = []) {
  useEffect(() => {
    run();
    const timer = setInterval(() => document.hidden || run(), seconds * 1000);
    return () => clearInterval(timer);
  }, inputs);
}
