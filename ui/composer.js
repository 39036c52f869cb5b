// Where a question is written: text, images for models that see, send and stop.

import {html, useRef, useState} from "./vendor/htm-preact.js";
import {Button} from "./ui.js";

/** Longest side of an image that is sent, in pixels; larger ones are made smaller. */
const MAX_SIDE = 1536;

/** Most images of one question. */
const MAX_IMAGES = 4;

/** `blind` has the chosen models that cannot see. */
export function Composer({isBusy, blind, onSend, onStop, onSample}) {
  const [text, setText] = useState("");
  const [images, setImages] = useState([]);
  const [problem, setProblem] = useState("");
  const area = useRef(null);
  const sees = blind.length === 0;
  const isUnseen = images.length > 0 && !sees;
  const canSend = !isBusy && !isUnseen && (text.trim() || images.length > 0);
  const submit = (event) => {
    event.preventDefault();
    if (!canSend) return;
    onSend({text: text.trim(), images});
    setText("");
    setImages([]);
    area.current.focus();
  };
  const onKey = (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) submit(event);
    if (event.key === "Escape" && isBusy) onStop();
  };
  const add = async (files) => {
    const chosen = [...files].filter((file) => file.type.startsWith("image/")).slice(0, MAX_IMAGES - images.length);
    const read = await Promise.allSettled(chosen.map(readImage));
    setProblem(read.some((one) => one.status === "rejected") ? "An image could not be read." : "");
    const added = read.filter((one) => one.status === "fulfilled").map((one) => one.value);
    // Others may have been added or removed while these were read.
    setImages((old) => [...old, ...added].slice(0, MAX_IMAGES));
  };
  const onPaste = (event) => {
    if (sees && event.clipboardData.files.length) {
      event.preventDefault();
      add(event.clipboardData.files);
    }
  };
  return html`<form class="composer" onSubmit=${submit}>
    ${images.length > 0 && html`<ul class="images">${images.map((url, at) => html`<li><img src=${url} alt=${`Image ${at + 1}`} />
      <${Button} kind="small" aria-label=${`Remove image ${at + 1}`} onClick=${() => setImages(images.filter((_, one) => one !== at))}>✕<//></li>`)}</ul>`}
    <textarea ref=${area} rows="2" aria-label="Your question" placeholder="Ask something. Enter sends, Shift+Enter breaks the line."
      value=${text} onInput=${(event) => setText(event.target.value)} onKeyDown=${onKey} onPaste=${onPaste}></textarea>
    <div class="actions">
      ${sees && html`<label class="button quiet small">Add image<input class="hidden" type="file" accept="image/*" multiple
        onChange=${(event) => (add(event.target.files), (event.target.value = ""))} /></label>`}
      ${isUnseen && html`<span class="note" role="alert">${blind.join(" and ")} cannot see: remove the images, or choose another model.</span>`}
      ${problem && html`<span class="note" role="alert">${problem}</span>`}
      <${Button} kind="quiet small" onClick=${() => onSample({text: text.trim(), images})}>Copy as code<//>
      <span class="spring"></span>
      ${isBusy ? html`<${Button} kind="danger" onClick=${onStop}>Stop<//>` : html`<button class="button primary" disabled=${!canSend}>Send</button>`}
    </div>
  </form>`;
}

/** Reads an image as a `data:` address, made smaller if it is large. */
async function readImage(file) {
  const url = await new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
  const image = new Image();
  image.src = url;
  await image.decode();
  const share = MAX_SIDE / Math.max(image.naturalWidth, image.naturalHeight);
  if (share >= 1 && ["image/png", "image/jpeg"].includes(file.type)) return url;
  const canvas = document.createElement("canvas");
  const scale = Math.min(1, share);
  [canvas.width, canvas.height] = [Math.round(image.naturalWidth * scale), Math.round(image.naturalHeight * scale)];
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  return canvas.toDataURL("image/jpeg", 0.9);
}
