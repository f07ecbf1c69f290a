/** The worker: it loads the model and holds the talk. Messages in: load, open, event, close. See site/connection.js. */

import { Tokenizer } from "../../vendor/tokenizers.min.mjs";
import * as ort from "../../vendor/ort.wasm.min.mjs";
import { download } from "../bundle/download.js";
import { Graph } from "../engine/graph.js";
import { Model } from "../engine/model.js";
import { Session } from "./session.js";

/** The network that knows speech. */
const VOICE = "silero.onnx";

/** Threads at most: the graphs of a voice model gain little from more, and a phone's small cores slow them down. */
const THREADS = 4;

/** @type {Model | undefined} */
let model;
/** @type {Graph | undefined} */
let voice;
/** @type {Session | undefined} */
let session;

onmessage = async ({ data }) => {
  try {
    await MESSAGES[data.type](data);
  } catch (error) {
    postMessage({ type: "failed", message: told(/** @type {Error} */ (error)) });
  }
};

/** @type {Record<string, (data: any) => unknown>} */
const MESSAGES = { load: ({ base }) => load(new URL(base)), open, event: ({ event }) => session?.take(event), close };

/** @param {URL} base */
async function load(base) {
  const began = performance.now();
  /** @type {import("../bundle/download.js").Site} */
  const site = await (await fetch(new URL("site.json", base))).json();
  const of = (site.size / 1e6).toFixed(0);
  const files = await download(base, site, (done) => {
    postMessage({ type: "progress", text: `Loading ${(done / 1e6).toFixed(0)} of ${of} MB` });
  });
  ort.env.wasm.wasmPaths = new URL("vendor/", base).href;
  ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(THREADS, navigator.hardwareConcurrency) : 1;
  postMessage({ type: "progress", text: "Opening the model" });
  model = await Model.open(ort, Tokenizer, files);
  voice = await Graph.open(ort, files, VOICE, ["wasm"]);
  postMessage({ type: "ready", device: facts(site, (performance.now() - began) / 1000) });
}

function open() {
  close();
  if (model && voice) session = new Session(model, voice, (event) => postMessage({ type: "event", event }));
}

function close() {
  session?.close();
  session = undefined;
}

/** What the page shows of model and device. @param {import("../bundle/download.js").Site} site @param {number} seconds */
function facts(site, seconds) {
  const { manifest } = /** @type {Model} */ (model);
  const names = Object.keys(manifest.graphs);
  const each = (/** @type {(name: string) => string} */ of) => Object.fromEntries(names.map((name) => [name, of(name)]));
  return {
    bundle: manifest.name,
    family: manifest.family,
    source: manifest.source.name,
    precision: each((name) => manifest.graphs[name].precision),
    bytes: site.size,
    processor: `this browser (loaded in ${seconds.toFixed(1)} s)`,
    threads: ort.env.wasm.numThreads,
    cores: navigator.hardwareConcurrency,
    provider: each(() => "WebAssembly"),
    onnxruntime: `${ort.env.versions.web} (web)`,
    sessions: { open: 0, most: 1 },
    examples: manifest.taught?.examples ?? [],
  };
}

/** @param {Error} error */
function told(error) {
  const short = error instanceof RangeError || /memory|allocat/i.test(error.message);
  if (!short) return error.message;
  return `The browser has too little memory for this model (${error.message}). Close other tabs, or use a smaller bundle.`;
}
