/**
 * A bundle's files from the site, part by part. Each part is checked by its hash and kept in the browser, so that a
 * download goes on where it stopped, and the next visit needs no network.
 */

import { DownloadError } from "../errors.js";

/**
 * @typedef {{ path: string, size: number, sha256: string }} Part
 * @typedef {{ name: string, parts: Part[] }} SiteFile
 * @typedef {{ version: string, bundle: string, size: number, files: SiteFile[] }} Site
 */

/** Begins the name of every cache of parts. */
const CACHE = "voxrill-bundle-";

const RETRIES = 3;

/** What the site promises. @param {URL} base of the site @returns {Promise<Site>} */
export async function promised(base) {
  try {
    const response = await fetch(new URL("site.json", base));
    if (!response.ok) throw new Error(`the site answers ${response.status}`);
    return await response.json();
  } catch (error) {
    const { message } = /** @type {Error} */ (error);
    throw new DownloadError(`The site's list of files cannot be read (${message}). Load the page again, with a network.`);
  }
}

/**
 * @param {URL} base of the site
 * @param {Site} site
 * @param {(done: number) => void} progress bytes that are there
 * @returns {Promise<{ files: Map<string, Uint8Array>, kept: boolean }>} each file's bytes by its name, and whether the
 *   browser keeps them for the next visit
 */
export async function download(base, site, progress) {
  const cache = await openCache(site);
  await checkRoom(cache, site);
  let done = 0;
  let kept = cache !== undefined;
  /** @type {Map<string, Uint8Array>} */
  const files = new Map();
  for (const { name, parts } of site.files) {
    const whole = new Uint8Array(parts.reduce((size, part) => size + part.size, 0));
    let at = 0;
    for (const part of parts) {
      const url = new URL(part.path, base);
      const found = await keptPart(url, part, cache);
      const bytes = found ?? (await fetched(url, part));
      if (!found) kept = (await keep(url, bytes, cache)) && kept;
      whole.set(bytes, at);
      at += part.size;
      done += part.size;
      progress(done);
    }
    files.set(name, whole);
  }
  return { files, kept };
}

/** The cache of this bundle's parts; those of other bundles are deleted. A browser may refuse to keep anything. */
/** @param {Site} site @returns {Promise<Cache | undefined>} */
async function openCache({ version }) {
  try {
    const name = CACHE + version;
    for (const old of await caches.keys()) if (old.startsWith(CACHE) && old !== name) await caches.delete(old);
    return await caches.open(name);
  } catch {
    return undefined;
  }
}

/** Refuse before the download what does not fit. @param {Cache | undefined} cache @param {Site} site */
async function checkRoom(cache, { size }) {
  if (!cache || !navigator.storage?.estimate) return;
  if ((await cache.keys()).length) return; // some of it is there, and counts as used
  const { quota, usage } = await navigator.storage.estimate();
  if (quota === undefined || usage === undefined || quota - usage >= size) return;
  const megabytes = (/** @type {number} */ bytes) => Math.ceil(bytes / 1e6);
  throw new DownloadError(
    `The model needs ${megabytes(size)} MB, and this browser has ${megabytes(quota - usage)} MB left for this page. ` +
      "Make room on the device, or leave the private window.",
  );
}

/** @param {URL} url @param {Part} part @param {Cache | undefined} cache @returns {Promise<Uint8Array | undefined>} */
async function keptPart(url, part, cache) {
  const found = await cache?.match(url);
  const bytes = found && new Uint8Array(await found.arrayBuffer());
  return bytes && (await isRight(bytes, part)) ? bytes : undefined;
}

/** Whether it could be kept. @param {URL} url @param {Uint8Array} bytes @param {Cache | undefined} cache */
async function keep(url, bytes, cache) {
  try {
    await cache?.put(url, new Response(/** @type {any} */ (bytes)));
    return true;
  } catch {
    return false; // the browser has no more room
  }
}

/** @param {URL} url @param {Part} part */
async function fetched(url, part) {
  let problem = "";
  for (let attempt = 0; attempt < RETRIES; attempt++) {
    try {
      const response = await fetch(url, { cache: attempt ? "reload" : "default" });
      const bytes = new Uint8Array(await response.arrayBuffer());
      if (response.ok && (await isRight(bytes, part))) return bytes;
      problem = response.ok ? "what came is not what the site promises" : `the site answers ${response.status}`;
    } catch (error) {
      problem = `the connection broke: ${/** @type {Error} */ (error).message}`;
    }
  }
  throw new DownloadError(`${part.path} cannot be downloaded (${problem}). Load the page again: it goes on from there.`);
}

/** @param {Uint8Array} bytes @param {Part} part */
async function isRight(bytes, { size, sha256 }) {
  if (bytes.length !== size) return false;
  if (!crypto.subtle) return true; // a page without HTTPS cannot compute it
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", /** @type {any} */ (bytes)));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("") === sha256;
}
