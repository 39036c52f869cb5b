// Uses the pages of the API's description as a person does, in Chromium: api_pages.js URL API_KEY
//
// A call is tried out at `/docs`, without a key, with one that is typed, and with the one that the page at `/ui/` has; `/redoc` is
// read. With LLAMAGATE_TEST_PICTURES, pictures are kept in that folder.

"use strict";

const assert = require("node:assert/strict");
const path = require("node:path");
const { openTab, useBrowser } = require("./browser.js");

const [url, key] = process.argv.slice(2);
const pictures = process.env.LLAMAGATE_TEST_PICTURES;

/** Opens the page, and the families whose operations are tried. */
async function openDocs(page) {
  await page.goto(`${url}/docs`);
  await page.locator(".opblock-tag").first().waitFor();
  for (const family of ["Models", "Chat"]) {
    await page.locator(`.opblock-tag[data-tag=${family}] .expand-operation`).click();
  }
  await page.locator(".opblock").first().waitFor();
}

/** Opens an operation, sends its example as it stands, and returns the status and the body of the answer. */
async function tryOut(page, id) {
  const operation = page.locator(`[id$="-${id}"].opblock`);
  if (!(await operation.locator(".opblock-body").isVisible())) await operation.locator(".opblock-summary-control").click();
  await operation.locator(".btn.execute").click();
  const answer = operation.locator(".live-responses-table .response").first();
  await answer.locator(".response-col_status").waitFor();
  const status = await answer.locator(".response-col_status").innerText();
  return { status: Number.parseInt(status, 10), text: await answer.locator(".highlight-code").first().innerText(), operation };
}

async function authorize(page, secret) {
  await page.locator(".auth-wrapper .btn.authorize").click();
  const dialog = page.locator(".dialog-ux");
  await dialog.locator("input").fill(secret);
  await dialog.locator(".btn.authorize").click();
  await dialog.locator(".btn-done").click();
}

async function docs(browser) {
  const { page, wrong, context } = await openTab(browser, url, key);
  await openDocs(page);
  assert.equal((await tryOut(page, "get_v1_models")).status, 401);
  await authorize(page, key);
  const models = await tryOut(page, "get_v1_models");
  assert.equal(models.status, 200, models.text);
  assert.match(models.text, /chat-model/);
  const chat = await tryOut(page, "post_v1_chat_completions");
  assert.equal(chat.status, 200, chat.text);
  assert.match(chat.text, /"finish_reason"/);
  if (pictures) await chat.operation.screenshot({ path: path.join(pictures, "docs.png") });
  assert.deepEqual(wrong, []);
  await context.close();
}

/** The key that the page at `/ui/` has in this tab is used without being typed again. */
async function docsWithKeyOfTab(browser) {
  const { page, wrong, context } = await openTab(browser, url, key);
  await page.goto(`${url}/ui/#key=${key}`);
  await page.locator("nav").waitFor();
  await openDocs(page);
  await page.locator(".auth-wrapper .btn.authorize.locked").waitFor();
  assert.equal((await tryOut(page, "get_v1_models")).status, 200);
  assert.deepEqual(wrong, []);
  await context.close();
}

async function redoc(browser) {
  const { page, wrong, context } = await openTab(browser, url, key);
  await page.goto(`${url}/redoc`);
  await page.getByRole("heading", { name: /^llamagate/ }).first().waitFor();
  const chat = page.locator("[data-section-id='tag/Chat/operation/post_v1_chat_completions']");
  await chat.waitFor();
  assert.match(await chat.innerText(), /\/v1\/chat\/completions[^]*messages/);
  const sections = await page.locator("[data-section-id]").count();
  assert.ok(sections > 60, `${sections} sections`);
  if (pictures) await page.screenshot({ path: path.join(pictures, "redoc.png") });
  // It warns that it makes no good sample of an answer that may be an array, as those of reranking may.
  assert.deepEqual(wrong.filter((text) => !text.startsWith("OpenAPI Sampler:")), []);
  await context.close();
}

useBrowser(async (browser) => {
  await docs(browser);
  await docsWithKeyOfTab(browser);
  await redoc(browser);
});
