// The page "Logs": the last lines of each log, and what comes.

import {html, useEffect, useRef, useState} from "./vendor/htm-preact.js";
import {SILENCE, get, parseJson, readEvents, send} from "./api.js";
import {Button, Empty, ErrorBox, Field, Panel} from "./ui.js";
import * as format from "./format.js";

/** Most lines that are kept here; older ones leave. */
const MAX_LINES = 2000;

/** Lines that are asked for first. */
const FIRST_LINES = 300;

/** Shortest and longest pause before a log is followed again whose stream has ended, in seconds. */
const MIN_PAUSE = 2;
const MAX_PAUSE = 15;

export function LogsPage() {
  const [logs, setLogs] = useState(null);
  const [name, setName] = useState(null);
  const [filter, setFilter] = useState("");
  const [isFollowing, setFollowing] = useState(true);
  const [error, setError] = useState(null);
  const {lines, missing} = useLog(name, isFollowing, setError, () => setFollowing(false));
  const isAtEnd = useRef(true);
  const view = useRef(null);
  useEffect(() => {
    get("logs").then(({data}) => {
      setLogs(data);
      setName(data[0]?.name ?? null);
    }, setError);
  }, []);
  useEffect(() => {
    const box = view.current;
    if (box && isAtEnd.current) box.scrollTop = box.scrollHeight;
  }, [lines.length && lines.at(-1)?.id, filter]);
  const wanted = filter.toLowerCase();
  const shown = wanted ? lines.filter((line) => line.text.toLowerCase().includes(wanted)) : lines;
  return html`
    <${ErrorBox} error=${error} onClose=${() => setError(null)} />
    <${Panel} title="Logs" note=${logs && shown.length !== lines.length && `${shown.length} of ${lines.length} lines`} class="logs">
      ${logs?.length === 0 ? html`<${Empty}>No log is written: LOG_TO_FILE is off.<//>` : html`
      <div class="form filters">
        <${Field} label="Log">${(id) => html`<select id=${id} value=${name ?? ""} onChange=${(event) => setName(event.target.value)}>
          ${(logs ?? []).map((log) => html`<option value=${log.name}>${log.kind === "access" ? "requests" : log.name.replace(/^workers\//, "")}${log.bytes == null ? " (nothing yet)" : ` (${format.bytes(log.bytes)})`}</option>`)}</select>`}<//>
        <${Field} label="Only lines with">${(id) => html`<input id=${id} type="search" value=${filter} spellcheck="false" onInput=${(event) => setFilter(event.target.value)} />`}<//>
        <${Button} aria-pressed=${isFollowing} onClick=${() => setFollowing(!isFollowing)}>${isFollowing ? "Pause" : "Follow"}<//>
      </div>
      <pre class="log" ref=${view} onScroll=${({target}) => (isAtEnd.current = target.scrollHeight - target.scrollTop - target.clientHeight < 80)} tabindex="0" role="log" aria-live="off" aria-label="Lines of the log">${missing > 0 && html`<i>${format.bytes(missing)} are left out: more came than is shown.${"\n"}</i>`}
${shown.map((line) => html`<span key=${line.id} class=${toneOf(line.text)}>${line.text}${"\n"}</span>`)}${shown.length === 0 && html`<i>No lines.</i>`}</pre>`}
    <//>`;
}

/** Follows a log, or keeps what there is while paused. `onError` gets what is wrong, and null when it is well again. */
function useLog(name, isFollowing, onError, onRefused) {
  const [state, setState] = useState({lines: [], missing: 0});
  const next = useRef(0);
  useEffect(() => setState({lines: [], missing: 0}), [name]);
  useEffect(() => {
    if (!name || !isFollowing) return undefined;
    const control = new AbortController();
    let pause = MIN_PAUSE;
    const follow = async () => {
      const path = `logs/${name.split("/").map(encodeURIComponent).join("/")}?follow=true&lines=${FIRST_LINES}`;
      const response = await send(path, {headers: {Accept: "text/event-stream"}, signal: control.signal});
      onError(null);
      pause = MIN_PAUSE;
      let isFirst = true;
      await readEvents(response, ({event, data}) => {
        const told = parseJson(data);
        if (event === "dropped") setState((old) => ({...old, missing: old.missing + told.bytes}));
        if (event !== "lines") return;
        const added = told.lines.map((text) => ({id: (next.current += 1), text}));
        // The first event has the last lines once more after a pause.
        const isAgain = isFirst;
        isFirst = false;
        setState((old) => ({...old, lines: [...(isAgain ? [] : old.lines), ...added].slice(-MAX_LINES)}));
      }, SILENCE);
    };
    const run = async () => {
      // A stream ends when the service does, and a connection breaks: the log goes on after that.
      while (!control.signal.aborted) {
        try {
          await follow();
        } catch (error) {
          if (control.signal.aborted) return;
          onError(error);
          if ([400, 401, 403, 404].includes(error.status)) {
            onRefused();
            return;
          }
        }
        await sleep(pause);
        pause = Math.min(MAX_PAUSE, pause * 2);
      }
    };
    run();
    return () => control.abort();
  }, [name, isFollowing]);
  return state;
}

const sleep = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));

function toneOf(text) {
  if (/\b(error|failed|fatal|panic)\b|\bstatus=5\d\d\b|^\S+ E /i.test(text)) return "bad";
  if (/\bwarn(ing)?\b|\bstatus=4\d\d\b|^\S+ W /i.test(text)) return "warn";
  return "";
}
