/**
 * Keeps the site's own files, so that the page opens without a network, and adds the headers that let a page use several
 * threads. The model's files are kept by the page's worker (runtime/bundle/download.js).
 */

/** Filled in when the site is made: they change when any file does. */
const VERSION = "@version@";
const FILES = ["@files@"];

const CACHE = `voxrill-site-${VERSION}`;

addEventListener("install", (event) => {
  event.waitUntil(caches.open(CACHE).then((cache) => cache.addAll(FILES)).then(() => skipWaiting()));
});

addEventListener("activate", (event) => {
  event.waitUntil(forgetOthers().then(() => clients.claim()));
});

addEventListener("fetch", (event) => {
  if (event.request.method === "GET" && new URL(event.request.url).origin === location.origin) {
    event.respondWith(answer(event.request));
  }
});

async function answer(request) {
  const cache = await caches.open(CACHE);
  const kept = await cache.match(request, { ignoreSearch: request.mode === "navigate" });
  return isolated(kept ?? (await fetch(request)));
}

/** A page may share memory between threads only if it and all it loads say that nothing of other sites comes in. */
function isolated(response) {
  if (response.status === 0 || response.type === "error") return response;
  const headers = new Headers(response.headers);
  headers.set("Cross-Origin-Opener-Policy", "same-origin");
  headers.set("Cross-Origin-Embedder-Policy", "require-corp");
  headers.set("Cross-Origin-Resource-Policy", "same-origin");
  return new Response(response.body, { status: response.status, statusText: response.statusText, headers });
}

async function forgetOthers() {
  for (const name of await caches.keys()) if (name.startsWith("voxrill-site-") && name !== CACHE) await caches.delete(name);
}
