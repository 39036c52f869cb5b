// The shell: who is signed in, which page is shown, and what is in the navigation.

import {html, render, useEffect, useRef, useState} from "./vendor/htm-preact.js";
import {setKey} from "./api.js";
import {signIn, signOut, storedKey, takeKeyFromAddress} from "./session.js";
import {startLive, useLive} from "./live.js";
import {Button, ErrorBox, Field, State} from "./ui.js";
import {NowPage} from "./now.js";
import {ChatPage} from "./chat.js";
import {ModelsPage} from "./models.js";
import {KeysPage} from "./keys.js";
import {UsagePage} from "./usage.js";
import {LogsPage} from "./logs.js";
import {ApiPage} from "./reference.js";

/** Every page, and what a key needs to see it. */
const PAGES = [
  {name: "now", title: "Now", view: NowPage, isOpen: () => true},
  {name: "chat", title: "Chat", view: ChatPage, isOpen: (access) => access.inference},
  {name: "models", title: "Models", view: ModelsPage, isOpen: (access) => access.admin},
  {name: "keys", title: "Keys", view: KeysPage, isOpen: (access) => access.keys && access.needsKey},
  {name: "usage", title: "Usage", view: UsagePage, isOpen: (access) => access.usage},
  {name: "logs", title: "Logs", view: LogsPage, isOpen: (access) => access.logs},
  {name: "api", title: "API", view: ApiPage, isOpen: () => true},
];

const TONES = {ok: "good", loading: "busy", degraded: "bad", failed: "bad"};

function App() {
  const [access, setAccess] = useState(undefined);
  const [error, setError] = useState(null);
  const typed = useRef("");
  const enter = async (key) => {
    typed.current = key;
    try {
      const found = await signIn(key);
      setError(null);
      setAccess(found);
      if (found) startLive(found);
    } catch (problem) {
      setError(problem);
      setAccess((before) => before ?? null);
    }
  };
  useEffect(() => {
    const follow = () => {
      // A link with a key in a tab that is open already.
      if (!takeKeyFromAddress()) return;
      setAccess(undefined);
      enter(storedKey());
    };
    addEventListener("hashchange", follow);
    enter(storedKey());
    return () => removeEventListener("hashchange", follow);
  }, []);
  const leave = () => {
    signOut();
    location.hash = "";
    location.reload();
  };
  const {refused} = useLive();
  if (access === undefined) return html`<p class="starting" role="status">Connecting…</p>`;
  if (access === null && error && error.status !== 401) return html`<${Unreachable} error=${error} onRetry=${() => enter(typed.current)} />`;
  if (access === null) return html`<${SignIn} onKey=${enter} error=${error} />`;
  // A key that ends takes nothing away: the chat is there again after signing in.
  return html`
    <div class="shell" hidden=${refused != null}><${Shell} access=${access} isShut=${refused != null} onLeave=${leave} /></div>
    ${refused && html`<${SignIn} onKey=${(key) => (signOut(), enter(key))} error=${error ?? refused} />`}`;
}

function SignIn({onKey, error}) {
  const [key, setKeyText] = useState("");
  const [isAsking, setAsking] = useState(false);
  const field = useRef(null);
  // By hand: `autofocus` works only where nothing had the focus before.
  useEffect(() => field.current.focus(), []);
  const submit = async (event) => {
    event.preventDefault();
    setAsking(true);
    await onKey(key.trim());
    setAsking(false);
  };
  return html`<main class="signin">
    <form class="panel" onSubmit=${submit}>
      <${Brand} />
      <h1>Sign in with a key</h1>
      <p class="note">Make one with <code>keyctl generate --name me --scope inference,admin</code>. It stays in this tab until
        you close it.</p>
      <${Field} label="API key">${(id) => html`<input id=${id} ref=${field} type="password" autocomplete="off" spellcheck="false"
        value=${key} onInput=${(event) => setKeyText(event.target.value)} required />`}<//>
      <${ErrorBox} error=${error} />
      <button class="button primary" disabled=${isAsking || !key.trim()}>${isAsking ? "Looking…" : "Sign in"}</button>
    </form>
  </main>`;
}

/** The service does not answer, or refuses for another reason than the key. */
function Unreachable({error, onRetry}) {
  return html`<main class="signin"><div class="panel">
    <${Brand} /><h1 class="hidden">llamagate</h1><${ErrorBox} error=${error} /><${Button} kind="primary" onClick=${onRetry}>Try again<//>
  </div></main>`;
}

function Brand() {
  return html`<span class="brand"><img src="icon.svg" alt="" width="24" height="24" />llamagate</span>`;
}

function Shell({access, isShut, onLeave}) {
  const pages = PAGES.filter((page) => page.isOpen(access));
  const [name, setName] = useState(pageInAddress());
  useEffect(() => {
    const follow = () => setName(pageInAddress());
    addEventListener("hashchange", follow);
    return () => removeEventListener("hashchange", follow);
  }, []);
  const shown = pages.find((page) => page.name === name) ?? pages[0];
  useEffect(() => {
    document.title = `${shown.title} · llamagate`;
  }, [shown]);
  return html`
    <a class="skip" href="#main" onClick=${toMain}>Skip to content</a>
    <header class="top">
      <${Brand} />
      <nav aria-label="Pages">${pages.map((page) => html`<a key=${page.name} href=${`#/${page.name}`}
        aria-current=${page === shown ? "page" : undefined}>${page.title}</a>`)}</nav>
      <div class="who"><${Status} />${access.needsKey && html`<${Button} kind="quiet small" onClick=${onLeave}>Sign out<//>`}</div>
    </header>
    <main id="main" tabindex="-1" class=${`page-${shown.name}`}>
      ${pages.map((page) => (page.name === "chat" || (page === shown && !isShut)) && html`<div key=${page.name} hidden=${page !== shown}
        class="page"><h1 class="hidden">${page.title}</h1><${page.view} access=${access} isShown=${page === shown && !isShut} /></div>`)}
    </main>`;
}

function toMain(event) {
  event.preventDefault();
  document.getElementById("main").focus();
}

function Status() {
  const live = useLive();
  if (!live.isConnected) return html`<${State} tone="bad">not connected<//>`;
  return html`<${State} tone=${TONES[live.status] ?? "idle"}>${live.status ?? "…"}<//>`;
}

function pageInAddress() {
  return location.hash.replace(/^#\//, "").split("/")[0];
}

takeKeyFromAddress();
setKey(storedKey());
render(html`<${App} />`, document.getElementById("app"));
