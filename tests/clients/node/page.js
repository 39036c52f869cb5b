// Uses the page of a gateway as a person does, in Chromium: page.js ROLE URL API_KEY
//
// ROLE is `admin`, `inference`, `keyless`, `loading` or `fetch`. CHROMIUM is the browser, PYTHON a Python; with
// LLAMAGATE_TEST_PICTURES, pictures of the pages are kept in that folder. A failed check ends the program with an AssertionError or the browser's exception.

"use strict";

const assert = require("node:assert/strict");
const { execFileSync } = require("node:child_process");
const fs = require("node:fs");
const path = require("node:path");
const { checkAccess, openTab, useBrowser } = require("./browser.js");

const [role, url, key] = process.argv.slice(2);
const pictures = process.env.LLAMAGATE_TEST_PICTURES;

const show = async (page, name) => {
  await page.goto(`${url}/ui/#/${name}`);
  await page.locator(`main.page-${name}`).waitFor();
};

/** Returns whether the key may use a route, so that the page that needs it is shown. */
async function isOpen(route) {
  const answer = await fetch(`${url}/${route}`, { method: "HEAD", headers: key ? { Authorization: `Bearer ${key}` } : {} });
  return answer.status === 200;
}

const titles = (page) => page.locator("nav a").allTextContents();

async function ask(page, text) {
  await page.getByLabel("Your question").fill(text);
  await page.keyboard.press("Enter");
}

/** Signs in by the form, once with a wrong key. */
async function signIn(page) {
  await page.goto(`${url}/ui/`);
  const field = page.getByLabel("API key");
  await field.fill("wrong-secret-0123456789");
  await page.keyboard.press("Enter");
  const error = page.getByRole("alert");
  await error.getByText("invalid_api_key").waitFor();
  assert.match(await error.textContent(), /request id [A-Za-z0-9-]{8,}/);
  await checkAccess(page, "signing in");
  await field.fill(key);
  await page.keyboard.press("Enter");
  await page.locator("nav").waitFor();
}

/** Chats: an answer, its facts, a stream that is stopped, another answer, an edited question. */
async function chat(page, model) {
  await show(page, "chat");
  await page.getByLabel("Model 1").selectOption(model);
  await page.getByText("System prompt and parameters").click();
  await page.getByLabel("Most tokens").fill("24");
  await page.getByLabel("Temperature").fill("0");
  await ask(page, "Say hello in one sentence.");
  const answer = page.locator(".answer").last();
  await answer.locator(".facts").waitFor();
  assert.match(await answer.locator(".facts").textContent(), /tokens\/s.*24 tokens|tokens\/s/);
  assert.ok((await answer.locator(".prose").textContent()).length > 3);
  await page.getByRole("status").getByText(`${model} has answered.`).waitFor();

  await page.getByLabel("Most tokens").fill("1500");
  await ask(page, "Write a very long story.");
  await page.locator(".turn").nth(1).locator(".prose").waitFor();
  await page.getByRole("button", { name: "Stop" }).click();
  await page.getByText("stopped").waitFor();
  await page.getByLabel("Most tokens").fill("8");
  await page.getByRole("button", { name: "Regenerate" }).click();
  await page.locator(".turn").nth(1).locator(".facts").filter({ hasNotText: "stopped" }).waitFor();
  await page.getByRole("button", { name: "Edit this question" }).first().click();
  await page.getByLabel("Edit the question").fill("Say goodbye.");
  await page.getByRole("button", { name: "Ask again" }).click();
  await page.locator(".facts").first().waitFor();
  assert.equal(await page.locator(".turn").count(), 1, "what came after the edited question is gone");
  await checkAccess(page, "chat");
}

/** Compares two models, and then has one again. */
async function compare(page, other) {
  await page.getByRole("button", { name: "Compare two" }).click();
  await page.getByLabel("Model 2").selectOption(other);
  await ask(page, "Say hello.");
  await page.locator(".turn").nth(1).locator(".answer .facts").nth(1).waitFor();
  await page.getByRole("button", { name: "One model" }).click();
  await page.getByRole("button", { name: "New chat" }).click();
}

/** Lets the next answer of a chat be this text. */
function answerWith(page, text) {
  return page.route("**/v1/chat/completions", (route) => route.fulfill({ contentType: "text/event-stream", body: text }), { times: 1 });
}

/** Goes on after an answer that is hard to show, one that breaks off, and a list of models that is refused once. */
async function goOn(page) {
  const event = (text) => `data: ${JSON.stringify({ choices: [{ index: 0, delta: { content: text }, finish_reason: null }] })}\n\n`;
  await answerWith(page, `${event(">".repeat(5000))}data: [DONE]\n\n`);
  await ask(page, "Quote.");
  await page.locator(".answer").first().locator(".facts").waitFor();
  await answerWith(page, event("Half of"));
  await ask(page, "Break off.");
  await page.getByRole("alert").getByText("The answer broke off").waitFor();

  const refusal = { status: 429, json: { error: { message: "Ask again later.", code: "rate_limit_exceeded" } } };
  await page.route("**/v1/models", (route) => route.fulfill(refusal), { times: 1 });
  await show(page, "now");
  await show(page, "chat");
  await page.getByRole("alert").getByText("Ask again later.").waitFor();
  assert.equal(await page.locator(".turn").count(), 2, "the chat stays");
  await show(page, "now");
  await show(page, "chat");
  await page.getByText("Ask again later.").waitFor({ state: "detached" });
  await page.getByRole("button", { name: "New chat" }).click();
}

/** Chats while the key ends, and goes on with the same chat after signing in again. */
async function outliveKey(page) {
  await page.getByRole("button", { name: "Chat", exact: true }).click();
  await ask(page, "Hello");
  await page.locator(".answer .facts").waitFor();
  await page.route("**/health", (route) => route.fulfill({ status: 401, json: { error: { message: "It has ended.", code: "invalid_api_key" } } }));
  await page.getByRole("alert").getByText("It has ended.").waitFor();
  assert.equal(await page.locator("nav").isVisible(), false);
  await checkAccess(page, "a key that has ended");
  await page.unroute("**/health");
  await page.getByLabel("API key").fill(key);
  await page.keyboard.press("Enter");
  await page.locator("nav").waitFor();
  assert.equal(await page.locator(".turn").count(), 1);
}

/** Runs the copied program of each language as it stands. */
async function runSamples(page, folder) {
  await page.getByLabel("Your question").fill("It's \"quoted\" \\ and ünusual: $HOME");
  await page.getByRole("button", { name: "Copy as code" }).click();
  if (key) await page.getByLabel("with my key in it").check();
  const runs = { curl: ["bash", "ask.sh"], Python: [process.env.PYTHON ?? "python3", "ask.py"], JavaScript: ["node", "ask.mjs"] };
  for (const [language, [program, name]] of Object.entries(runs)) {
    await page.getByRole("button", { name: language, exact: true }).click();
    const text = await page.locator("dialog pre").textContent();
    const file = path.join(folder, name);
    fs.writeFileSync(file, text);
    const answer = JSON.parse(execFileSync(program, [file], { encoding: "utf8", env: { PATH: process.env.PATH } }));
    assert.ok(answer.choices[0].message.content.length > 0, `${language}: ${JSON.stringify(answer)}`);
  }
  await checkAccess(page, "a request as a program");
  await page.keyboard.press("Escape");
}

async function embedAndRank(page) {
  await page.getByRole("button", { name: "Embed", exact: true }).first().click();
  await page.locator(".tool:not([hidden]) .button.primary").click();
  const cells = page.locator(".matrix tbody td");
  await cells.first().waitFor();
  assert.equal(await cells.first().textContent(), "1.00");
  assert.equal(await cells.count(), 9);
  await checkAccess(page, "embed");
  await page.getByRole("button", { name: "Rerank", exact: true }).click();
  await page.locator(".tool:not([hidden]) .button.primary").click();
  const values = page.locator(".tool:not([hidden]) .bars .value");
  await values.first().waitFor();
  const scores = (await values.allTextContents()).map(Number);
  assert.deepEqual(scores, [...scores].sort((a, b) => b - a));
  await checkAccess(page, "rerank");
}

/** Unloads a model and loads it again. */
async function load(page, model) {
  await show(page, "now");
  const row = page.locator(".models > li").filter({ has: page.getByText(model, { exact: true }) });
  await row.getByRole("button", { name: `Unload ${model}` }).click();
  await row.getByText(/not loaded|asleep/).waitFor();
  await row.getByRole("button", { name: `Load ${model}` }).click();
  await row.getByText("ready", { exact: true }).waitFor();
}

/** Pins a model and lets it go. */
async function pin(page, model) {
  const row = page.locator(".models > li").filter({ has: page.getByText(model, { exact: true }) });
  await row.getByRole("button", { name: `Pin ${model}`, exact: true }).click();
  await row.getByText(/^pinned · /).waitFor();
  await checkAccess(page, "a pinned model");
  await row.getByRole("button", { name: `Unpin ${model}`, exact: true }).click();
  await row.getByRole("button", { name: `Pin ${model}`, exact: true }).waitFor();
}

/** Looks whether the charts of a page that has just been opened know what was done before. */
async function seePast(page) {
  await page.reload();
  await show(page, "now");
  await page.getByRole("img", { name: /^Tokens a second: last / }).waitFor();
  await page.getByRole("img", { name: /^Time to first byte: last / }).waitFor();
}

/** Gets an answer that is no JSON, in a stream and whole. */
async function meetDamage(page) {
  await show(page, "chat");
  await answerWith(page, "data: {half\n\n");
  await ask(page, "Say something.");
  await page.getByRole("alert").getByText("The service's answer is damaged").waitFor();
  await page.getByRole("button", { name: "New chat" }).click();
  await page.route("**/v1/models", (route) => route.fulfill({ contentType: "application/json", body: "<html>" }), { times: 1 });
  await show(page, "models");
  await page.getByRole("alert").getByText("The service's answer is damaged").waitFor();
}

/** Makes a key, asks with it, changes it, gives it a new secret, and removes it. */
async function useKeys(page) {
  await show(page, "keys");
  const order = (name) => page.getByRole("button", { name, exact: true }).click();
  const statusOf = async (secret) => (await fetch(`${url}/v1/models`, { headers: { Authorization: `Bearer ${secret}` } })).status;
  const secret = async () => {
    const text = await page.locator(".secret code").textContent();
    assert.match(text, /^sk-/);
    await page.evaluate(() => {
      // As over plain http on another machine.
      Object.defineProperty(navigator, "clipboard", { value: undefined, configurable: true });
      addEventListener("copy", () => (window.copied = document.activeElement.value), { once: true });
    });
    await page.getByRole("dialog").getByRole("button", { name: "Copy" }).click();
    await page.getByRole("button", { name: "Copied" }).waitFor();
    assert.equal(await page.evaluate(() => window.copied), text);
    await checkAccess(page, "the secret of a key");
    await order("I have it");
    return text;
  };
  await order("New key");
  await page.getByLabel("Name", { exact: true }).fill("team");
  await page.getByLabel("Requests a minute", { exact: true }).fill("120");
  await checkAccess(page, "the form of a key");
  await order("Make the key");
  const first = await secret();
  assert.equal(await statusOf(first), 200);
  await order("Change team");
  await page.getByLabel("Requests at once").fill("3");
  await order("Save");
  await page.getByText("120 requests a minute · 3 at once").waitFor();
  await order("Rotate team");
  await page.getByLabel("Overlap").selectOption("0");
  await order("Make a new secret");
  const second = await secret();
  assert.deepEqual([await statusOf(first), await statusOf(second)], [401, 200]);
  await order("Remove team");
  await page.getByRole("dialog").getByRole("button", { name: "Remove" }).click();
  await page.getByRole("button", { name: "Change team" }).waitFor({ state: "detached" });
  assert.equal(await statusOf(second), 401);
  // Names what is wrong, and keeps nothing back.
  await order("New key");
  await page.getByLabel("Name", { exact: true }).fill("admin");
  await order("Make the key");
  await page.getByRole("alert").getByText("key_exists").waitFor();
  await page.getByRole("button", { name: "Close" }).click();
}

/** Reads the access log, and only some lines of it. */
async function readLogs(page) {
  await show(page, "logs");
  const lines = page.locator(".log span");
  await lines.first().waitFor();
  await page.getByLabel("Only lines with").fill("/v1/chat/completions");
  await lines.first().waitFor();
  for (const line of await lines.allTextContents()) assert.match(line, /chat\/completions/);
}

/** Searches the hub, sees what fits, and downloads it by a click. */
async function findOnHub(page) {
  const search = async (words) => {
    await page.getByLabel("Words of its name").fill(words);
    await page.getByRole("button", { name: "Search" }).click();
  };
  await search("no such model");
  await page.getByText("No repository with GGUF files has these words in its name.").waitFor();
  await search("tiny");
  const files = page.getByRole("button", { name: "Show files of Org/Tiny-GGUF" });
  await files.focus();
  await page.keyboard.press("Enter");
  const row = page.locator(".quants > li").filter({ has: page.getByText("Q8_0", { exact: true }) });
  await row.getByText("fits", { exact: true }).waitFor();
  await row.getByText(/needs .* of .*memory budget/).waitFor();
  await checkAccess(page, "what fits");
  await picturesOf(page, "models-search");
  await row.getByRole("button", { name: "Download Org/Tiny-GGUF:Q8_0" }).click();
  await row.getByText("here", { exact: true }).waitFor();
  await page.route("**/hub/models?*", (route) => route.fulfill({ status: 503, json: { error: { message: "The hub is away.", code: "hub_unavailable" } } }), { times: 1 });
  await search("tiny");
  await page.getByRole("alert").getByText("The hub is away.").waitFor();
  await checkAccess(page, "a hub that is away");
  await page.getByRole("alert").getByRole("button", { name: "Dismiss" }).click();
}

/** Keeps pictures of what is shown, wide and narrow, in light and dark. */
async function picturesOf(page, name) {
  for (const colorScheme of ["light", "dark"]) {
    for (const width of [1280, 390, 360]) {
      await page.emulateMedia({ colorScheme });
      await page.setViewportSize({ width, height: 800 });
      const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      assert.ok(overflow <= 0, `${name} is ${overflow} px wider than a screen of ${width} px`);
      await checkAccess(page, `${name}, ${colorScheme}, ${width}`);
      if (pictures) await page.screenshot({ path: path.join(pictures, `${role}-${name}-${colorScheme}-${width}.png`), fullPage: true });
    }
  }
  await page.emulateMedia({ colorScheme: null });
  await page.setViewportSize({ width: 1280, height: 800 });
}

/** Looks at each page in light and dark, on a wide screen and a narrow one. */
async function lookAround(browser, state) {
  for (const colorScheme of ["light", "dark"]) {
    for (const width of [1280, 390]) {
      const { page, wrong, context } = await openTab(browser, url, key, { colorScheme, viewport: { width, height: 800 } });
      await page.goto(`${url}/ui/${key ? `#key=${key}` : ""}`);
      await page.locator("nav").waitFor();
      for (const title of await titles(page)) {
        const name = title.toLowerCase();
        await show(page, name);
        await page.locator(`main.page-${name} .page:not([hidden]) :is(.panel, .composer)`).first().waitFor();
        if (name === "chat") await state.prepareChat?.(page);
        await checkAccess(page, `${title}, ${colorScheme}, ${width}`);
        const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
        assert.ok(overflow <= 0, `${title} is ${overflow} px wider than a screen of ${width} px`);
        if (pictures) await page.screenshot({ path: path.join(pictures, `${role}-${name}-${colorScheme}-${width}.png`) });
      }
      assert.deepEqual(wrong, [], `${colorScheme}, ${width}`);
      await context.close();
    }
  }
}

const ROLES = {
  async admin(page, browser, folder) {
    await signIn(page);
    assert.deepEqual((await titles(page)).slice(0, 3), ["Now", "Chat", "Models"]);
    assert.equal(await page.evaluate((secret) => location.href.includes(secret), key), false);
    await chat(page, "smol");
    await compare(page, "tiny");
    await goOn(page);
    await runSamples(page, folder);
    await load(page, "smol");
    await pin(page, "smol");
    await seePast(page);
    await meetDamage(page);
    await show(page, "usage");
    await page.locator(".page-usage tbody tr").first().waitFor();
    const saved = page.waitForEvent("download");
    await page.getByRole("button", { name: "Save as CSV" }).click();
    assert.match(fs.readFileSync(await (await saved).path(), "utf8"), /^start,.*\r\n\d{4}-/);
    await show(page, "models");
    await page.getByText("gpt-4o-mini").waitFor();
    const shown = await titles(page);
    for (const [title, route, use] of [["Keys", "keys", useKeys], ["Logs", "logs", readLogs]]) {
      assert.equal(shown.includes(title), await isOpen(route), title);
      if (shown.includes(title)) await use(page);
    }
    await lookAround(browser, {
      async prepareChat(tab) {
        await tab.getByLabel("Model 1").selectOption("smol");
        await tab.getByText("System prompt and parameters").click();
        await tab.getByLabel("Most tokens").fill("32");
        await tab.getByLabel("Temperature").fill("0");
        await tab.getByText("System prompt and parameters").click();
        await ask(tab, "What is a queue, and why is a fair one better?");
        await tab.locator(".facts").first().waitFor();
      },
    });
  },
  async inference(page, browser) {
    // A link with the key, which leaves the address at once.
    await page.goto(`${url}/ui/#key=${key}`);
    await page.locator("nav").waitFor();
    assert.equal(await page.evaluate(() => location.hash), "");
    assert.deepEqual(await titles(page), ["Now", "Chat", "Usage", "API"]);
    await page.reload();
    await page.locator("nav").waitFor();
    await page.locator(".models > li").first().waitFor();
    assert.equal(await page.getByRole("button", { name: /^(Load|Unload|Pin|Unpin) / }).count(), 0);
    await show(page, "chat");
    await embedAndRank(page);
    await outliveKey(page);
    await lookAround(browser, {});
    const leave = async () => {
      await page.getByRole("button", { name: "Sign out" }).click();
      await page.getByLabel("API key").waitFor();
    };
    await leave();
    // The same link in a tab that asks for a key.
    await page.goto(`${url}/ui/#key=${key}`);
    await page.locator("nav").waitFor();
    assert.equal(await page.evaluate(() => location.hash), "");
    await leave();
    assert.equal(await page.evaluate(() => sessionStorage.length), 0);
  },
  async keyless(page) {
    await page.goto(url);
    await page.locator("nav").waitFor();
    assert.equal(new URL(page.url()).pathname, "/ui/");
    assert.equal(await page.getByRole("button", { name: "Sign out" }).count(), 0);
    assert.ok(!(await titles(page)).includes("Keys"));
    await show(page, "chat");
    await ask(page, "Hello");
    await page.locator(".answer .prose").first().waitFor();
    await load(page, "tiny");
  },
  async loading(page) {
    await page.goto(`${url}/ui/#key=${key}`);
    const row = page.locator(".models > li").filter({ has: page.getByText("large", { exact: true }) });
    const note = row.getByText(/^reading weights · .* of 64\.0 MiB · .* left · .* so far$/);
    await note.waitFor();
    const first = await note.textContent();
    // It goes on.
    await page.waitForFunction(([element, text]) => element.textContent !== text, [await note.elementHandle(), first]);
    await row.getByLabel("Load of large").waitFor();
    await checkAccess(page, "a load");
    if (pictures) await page.screenshot({ path: path.join(pictures, "loading.png") });
  },
  async fetch(page) {
    await page.goto(`${url}/ui/#key=${key}`);
    await show(page, "models");
    const order = async (name) => {
      await page.getByLabel("Name on the hub").fill(name);
      await page.getByRole("button", { name: "Download", exact: true }).click();
    };
    await order("Org/Smol-GGUF:Q4_1");
    await page.getByRole("button", { name: "Cancel the download of Org/Smol-GGUF:Q4_1" }).click();
    await page.getByText("cancelled").waitFor();
    await page.getByRole("button", { name: "Forget the download of Org/Smol-GGUF:Q4_1" }).click();
    await page.getByText("cancelled").waitFor({ state: "detached" });

    await order("Org/Tiny-GGUF:Q8_0");
    await page.getByText("done").waitFor();
    await checkAccess(page, "downloads");
    const fetched = page.getByRole("button", { name: /^Delete .*Tiny/ });
    await fetched.click();
    await page.getByRole("dialog").getByRole("button", { name: "Delete" }).click();
    await fetched.waitFor({ state: "detached" });

    await findOnHub(page);

    await order("Org/None-GGUF");
    await page.getByText(/None-GGUF/).first().waitFor();
    await page.locator(".why, .error").first().waitFor();
  },
};

useBrowser(async (browser) => {
  const folder = fs.mkdtempSync(path.join(require("node:os").tmpdir(), "page-"));
  try {
    const { page, wrong } = await openTab(browser, url, key);
    await ROLES[role](page, browser, folder);
    assert.deepEqual(wrong, []);
  } finally {
    fs.rmSync(folder, { recursive: true });
  }
});
