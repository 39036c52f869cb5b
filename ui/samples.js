// A request as a program: curl, Python, JavaScript. Each runs as it stands.

import {html, useState} from "./vendor/htm-preact.js";
import {address} from "./api.js";
import {storedKey} from "./session.js";
import {CopyButton, Dialog} from "./ui.js";

const VARIABLE = "LLAMAGATE_KEY";

/** How each language writes the request. */
const LANGUAGES = {curl, Python: python, JavaScript: javascript};

function curl(path, body, key) {
  const quote = (text) => `'${text.replaceAll("'", "'\\''")}'`;
  const header = key ? `  -H ${quote(`Authorization: Bearer ${key}`)} \\\n` : key === null ? `  -H "Authorization: Bearer $${VARIABLE}" \\\n` : "";
  // The body as input: an image is longer than an argument may be.
  return `curl ${quote(address(path))} \\\n${header}  -H 'Content-Type: application/json' \\\n  -d @- <<'BODY'\n${JSON.stringify(body, null, 2)}\nBODY\n`;
}

function python(path, body, key) {
  const header = key === "" ? "" : `        "Authorization": "Bearer " + ${key === null ? `os.environ["${VARIABLE}"]` : JSON.stringify(key)},\n`;
  return `import json
import os
import urllib.request

body = ${literal(body, "")}
request = urllib.request.Request(
    ${JSON.stringify(address(path))},
    data=json.dumps(body).encode(),
    headers={
${header}        "Content-Type": "application/json",
    },
)
with urllib.request.urlopen(request) as response:
    print(json.dumps(json.load(response), indent=2, ensure_ascii=False))
`;
}

function javascript(path, body, key) {
  const header = key === "" ? "" : `    Authorization: "Bearer " + ${key === null ? `process.env.${VARIABLE}` : JSON.stringify(key)},\n`;
  return `// Node.js 18 or newer: save it as ask.mjs
const response = await fetch(${JSON.stringify(address(path))}, {
  method: "POST",
  headers: {
${header}    "Content-Type": "application/json",
  },
  body: JSON.stringify(${JSON.stringify(body, null, 2).replaceAll("\n", "\n  ")}),
});
console.log(JSON.stringify(await response.json(), null, 2));
`;
}

/** Writes JSON as Python does. */
function literal(value, indent) {
  const inner = `${indent}    `;
  if (value === true) return "True";
  if (value === false) return "False";
  if (value === null) return "None";
  if (Array.isArray(value)) return value.length ? `[\n${value.map((item) => inner + literal(item, inner)).join(",\n")},\n${indent}]` : "[]";
  if (typeof value === "object") {
    const members = Object.entries(value).map(([name, member]) => `${inner}${JSON.stringify(name)}: ${literal(member, inner)}`);
    return members.length ? `{\n${members.join(",\n")},\n${indent}}` : "{}";
  }
  return JSON.stringify(value);
}

/** Shows a request as a program to copy. */
export function SampleDialog({path, body, needsKey, onClose}) {
  const [language, setLanguage] = useState("curl");
  const [withKey, setWithKey] = useState(false);
  const text = LANGUAGES[language](path, body, !needsKey ? "" : withKey ? storedKey() : null);
  return html`<${Dialog} title="The same request as a program" onClose=${onClose}>
    <div class="tabs" role="group" aria-label="Language">${Object.keys(LANGUAGES).map((name) => html`<button type="button"
      aria-pressed=${name === language} onClick=${() => setLanguage(name)}>${name}</button>`)}
      <span class="spring"></span><${CopyButton} text=${text} kind="primary small" /></div>
    <pre class="sample" tabindex="0"><code>${text}</code></pre>
    ${needsKey && html`<label class="check"><input type="checkbox" checked=${withKey} onChange=${(event) => setWithKey(event.target.checked)} />
      with my key in it${!withKey && html`<span class="note">without it, set <code>${VARIABLE}</code> first</span>`}</label>`}
  <//>`;
}
