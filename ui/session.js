// Which key this tab uses, and what that key may do. The key is kept for the life of the tab only, and never in an address.

import {get, probe, setKey} from "./api.js";

const STORED = "llamagate.key";

/** Where the key is kept if the browser keeps nothing: until the page is loaded again. */
let unstored = "";

function keep(secret) {
  try {
    if (secret) sessionStorage.setItem(STORED, secret);
    else sessionStorage.removeItem(STORED);
  } catch {
    unstored = secret;
  }
}

/** Takes a key from the fragment of the address, once, and removes it from there before anything else happens. Returns whether there was one. */
export function takeKeyFromAddress() {
  const found = /^#key=(.+)$/.exec(location.hash);
  if (!found) return false;
  history.replaceState(null, "", location.pathname + location.search);
  try {
    keep(decodeURIComponent(found[1]));
  } catch {
    // Not an encoded text: the person is asked for the key.
  }
  return true;
}

/** Returns the key of this tab, or an empty text. */
export function storedKey() {
  try {
    return sessionStorage.getItem(STORED) ?? unstored;
  } catch {
    return unstored;
  }
}

/** Forgets the key. */
export function signOut() {
  keep("");
  setKey("");
}

/**
 * Finds out what a key may do, by asking the routes that the pages use. Returns the access, or throws the error of the API
 * if the key is not accepted.
 */
export async function signIn(key) {
  setKey(key);
  const health = await get("health", {accepts: [200, 503]});
  const needsKey = health.authentication?.enabled !== false;
  if (needsKey && !key) return null;
  // The first request alone, so that a wrong key counts once.
  const models = await probe("v1/models", "GET");
  if (models.status === 401) {
    signOut();
    throw models.error;
  }
  const names = {admin: "lb/stats", usage: "usage", keys: "keys", logs: "logs", docs: "docs"};
  const found = await Promise.all(Object.values(names).map((path) => probe(path, "HEAD")));
  const access = Object.fromEntries(Object.keys(names).map((name, at) => [name, found[at].isOpen]));
  keep(key);
  return {...access, inference: models.isOpen, needsKey};
}
