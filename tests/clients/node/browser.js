// Chromium as the tests of pages use it. CHROMIUM is the browser.

"use strict";

const assert = require("node:assert/strict");
const fs = require("node:fs");
const { chromium } = require("playwright-core");

const AXE = fs.readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

/** Longest wait for something on a page, in milliseconds. A model may have to be loaded. */
const PATIENCE = 120_000;

/** Opens a tab for a gateway that notes what must not happen there: errors, other hosts, the key in an address. */
async function openTab(browser, url, key, options = {}) {
  const host = new URL(url).host;
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE);
  const wrong = [];
  page.on("console", (message) => {
    // A refusal that the page asks for on purpose is no mistake of it: routes that a key may not use answer so.
    const isRefusal = /status of [45]\d\d/.test(message.text());
    if (["error", "warning"].includes(message.type()) && !isRefusal) wrong.push(message.text());
  });
  page.on("pageerror", (error) => wrong.push(error.stack));
  page.on("request", (request) => {
    if (!request.url().startsWith("data:") && new URL(request.url()).host !== host) wrong.push(`asks ${request.url()}`);
    if (key && request.url().includes(key)) wrong.push(`has the key in ${request.url()}`);
  });
  await page.addInitScript(() => {
    addEventListener("securitypolicyviolation", (event) => console.error(`policy: ${event.violatedDirective} ${event.blockedURI}`));
  });
  return { page, wrong, context };
}

/** Checks what a screen reader and the keyboard need, by axe. */
async function checkAccess(page, what) {
  const found = await page.evaluate(`(() => { ${AXE}; return axe.run(document); })()`);
  const serious = found.violations.filter((one) => ["serious", "critical"].includes(one.impact));
  const told = serious.map((one) => `${one.id}: ${one.nodes.map((node) => node.target.join(" ")).join(", ")}`);
  assert.deepEqual(told, [], what);
  assert.ok(found.passes.length > 5, `${what}: axe has looked`);
}

/** Starts a browser, lets it be used, and ends it. A failed check ends the program. */
async function useBrowser(use) {
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: ["--no-sandbox", "--disable-dev-shm-usage"] });
  try {
    await use(browser);
  } catch (error) {
    console.error(error);
    process.exitCode = 1;
  } finally {
    await browser.close();
  }
}

module.exports = { checkAccess, openTab, useBrowser };
