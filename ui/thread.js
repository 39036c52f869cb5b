// A chat: turns of a person, each with the answers of one model or two.

import {html, useEffect, useRef, useState} from "./vendor/htm-preact.js";
import {ask, chatBody, messagesOf} from "./answer.js";
import {Button} from "./ui.js";
import {Composer} from "./composer.js";
import {AnswerCard, UserCard} from "./turn.js";
import {Parameters, readParameters} from "./parameters.js";
import {SampleDialog} from "./samples.js";

/** Distance from the end of the page within which new text is followed, in pixels. */
const NEAR_END = 160;

/** Suggestions for a first question. */
const STARTERS = ["Say hello in one sentence.", "Explain what a KV cache is to a new colleague.", "Write a haiku about waiting in a queue."];

export function ChatThread({models, needsKey, isShown}) {
  const [columns, setColumns] = useState(() => [modelInAddress(models) ?? models[0].id]);
  const [settings, setSettings] = useState({system: "", values: {}});
  const [turns, setTurns] = useState([]);
  const [sample, setSample] = useState(null);
  const [, render] = useState(null);
  const end = useRef(null);
  const latest = useRef({});
  latest.current = {turns, columns, settings};

  useEffect(() => {
    const wanted = isShown && modelInAddress(models);
    if (wanted) setColumns(([, ...others]) => [wanted, ...others]);
  }, [isShown, location.hash]);

  // Without its chat an answer would go on unseen.
  useEffect(() => () => stopAll(latest.current.turns), []);

  const changed = () => {
    const isNear = document.documentElement.scrollHeight - innerHeight - scrollY < NEAR_END;
    render({});
    if (isNear) requestAnimationFrame(() => end.current?.scrollIntoView({block: "end"}));
  };
  const soon = useSoon(changed);

  /** Asks one column for its answer to a turn. */
  const answerTurn = (list, at, column) => {
    const {columns: names, settings: {system, values}} = latest.current;
    const messages = messagesOf(list, at, column, system, canSee(models, names[column]));
    const body = chatBody(names[column], messages, readParameters(values));
    list[at].answers[column] = ask(body, soon);
  };
  const say = (list, user) => {
    const next = [...list, {user, answers: []}];
    latest.current.columns.forEach((_, column) => answerTurn(next, next.length - 1, column));
    setTurns(next);
    requestAnimationFrame(() => end.current?.scrollIntoView({block: "end"}));
  };
  const edit = (at, text) => {
    stopAll(turns);
    say(turns.slice(0, at), {...turns[at].user, text});
  };
  const regenerate = (at, column) => {
    answerTurn(turns, at, column);
    setTurns([...turns]);
  };
  const isBusy = turns.some((turn) => turn.answers.some(isRunning));
  const blind = columns.filter((name) => !canSee(models, name));
  const showSample = (draft) => {
    const list = draft.text || draft.images.length || !turns.length ? [...turns, {user: draft.text ? draft : {...draft, text: STARTERS[0]}, answers: []}] : turns;
    const messages = messagesOf(list, list.length - 1, 0, settings.system, canSee(models, columns[0]));
    setSample(chatBody(columns[0], messages, readParameters(settings.values)));
  };

  return html`
    <div class="chatbar">
      ${columns.map((name, column) => html`<label key=${column}><span class="hidden">Model ${column + 1}</span>
        <select value=${name} onChange=${(event) => setColumns(columns.map((one, at) => (at === column ? event.target.value : one)))}>
          ${models.map((model) => html`<option value=${model.id}>${model.id}</option>`)}</select></label>`)}
      <${Button} kind="quiet small" disabled=${isBusy} onClick=${() => setColumns(columns.length > 1 ? columns.slice(0, 1) : [...columns, (models[1] ?? models[0]).id])}>
        ${columns.length > 1 ? "One model" : "Compare two"}<//>
      <span class="spring"></span>
      ${turns.length > 0 && html`<${Button} kind="quiet small" onClick=${() => (stopAll(turns), setTurns([]))}>New chat<//>`}
    </div>
    <${Parameters} value=${settings} onChange=${setSettings} />
    <div class="thread" aria-live="off">
      ${turns.length === 0 && html`<div class="welcome"><p>Ask ${columns.join(" and ")} something.</p>
        <div class="starters">${STARTERS.map((text) => html`<${Button} kind="quiet" onClick=${() => say([], {text, images: []})}>${text}<//>`)}</div></div>`}
      ${turns.map((turn, at) => html`<section class="turn" key=${at} aria-label=${`Turn ${at + 1}`}>
        <${UserCard} user=${turn.user} onEdit=${(text) => edit(at, text)} />
        <div class=${`answers count${columns.length}`}>${columns.map((_, column) => turn.answers[column] && html`<${AnswerCard} key=${column} answer=${turn.answers[column]}
          isLast=${at === turns.length - 1} showsModel=${columns.length > 1} onRegenerate=${() => regenerate(at, column)} />`)}</div>
      </section>`)}
      ${blind.length > 0 && turns.some((turn) => turn.user.images.length > 0) && html`<p class="note">${blind.join(" and ")} cannot see: the images of this chat are left out.</p>`}
      <div ref=${end}></div>
    </div>
    <p class="hidden" role="status">${(turns.at(-1)?.answers ?? []).map(progressOf).join(" ")}</p>
    <${Composer} isBusy=${isBusy} blind=${blind} onSend=${(user) => say(turns, user)} onStop=${() => stopAll(turns)} onSample=${showSample} />
    ${sample && html`<${SampleDialog} path="v1/chat/completions" body=${sample} needsKey=${needsKey} onClose=${() => setSample(null)} />`}`;
}

const isRunning = (answer) => answer.state === "waiting" || answer.state === "streaming";

/** Returns whether a model takes images. */
const canSee = (models, name) => models.some((model) => model.id === name && model.architecture?.input_modalities?.includes("image"));

/** Returns how far an answer is, for those who do not see it come. Its error tells of itself. */
function progressOf({model, state}) {
  const told = {waiting: `Waiting for ${model}.`, streaming: `${model} answers.`, done: `${model} has answered.`, stopped: `The answer of ${model} ends here.`};
  return told[state] ?? "";
}

function stopAll(turns) {
  turns.flatMap((turn) => turn.answers).filter(isRunning).forEach((answer) => answer.stop());
}

/** Returns the model that a link from another page names: `#/chat/MODEL`. */
function modelInAddress(models) {
  try {
    const name = decodeURIComponent(location.hash.split("/")[2] ?? "");
    return models.some((model) => model.id === name) ? name : null;
  } catch {
    // Not an encoded text, so not a name either.
    return null;
  }
}

/** Returns a function that runs `run` at most once a frame. */
function useSoon(run) {
  const waiting = useRef(false);
  return () => {
    if (waiting.current) return;
    waiting.current = true;
    setTimeout(() => {
      waiting.current = false;
      run();
    }, 30);
  };
}
