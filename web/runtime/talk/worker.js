/**
 * The worker: it loads the model and holds the talk. Messages in: load, open, event, close. Out: progress, ready, event,
 * and failed, after which the page ends it. See site/connection.js.
 */

import { Tokenizer } from "../../vendor/tokenizers.min.mjs";
import * as ort from "../../vendor/ort.wasm.min.mjs";
import { download, promised } from "../bundle/download.js";
import { Graph } from "../engine/graph.js";
import { Model } from "../engine/model.js";
import { told } from "../errors.js";
import { Session } from "./session.js";

/** The network that knows speech. */
const VOICE = "silero.onnx";

const NOT_KEPT =
  "This browser has no room to keep the model: it is downloaded at each visit, and needs a network. " +
  "Make room on the device, or leave the private window.";

/** Threads at most: the graphs of a voice model gain little from more, and a phone's small cores slow them down. */
const THREADS = 4;

/** @type {Model | undefined} */
let model;
/** @type {Graph | undefined} */
let voice;
/** @type {Session | undefined} */
let session;

onmessage = async ({ data }) => MESSAGES[data.type](data);

// What nobody caught: of loading, of an answer, of listening.
onunhandledrejection = ({ reason }) => postMessage({ type: "failed", message: told(reason) });

/** @type {Record<string, (data: any) => unknown>} */
const MESSAGES = { load: ({ base }) => load(new URL(base)), open, event: ({ event }) => session?.take(event), close };

/** @param {URL} base */
async function load(base) {
  const began = performance.now();
  const site = await promised(base);
  const of = (site.size / 1e6).toFixed(0);
  const { files, kept } = await download(base, site, (done) => say(`Loading ${(done / 1e6).toFixed(0)} of ${of} MB`));
  ort.env.wasm.wasmPaths = new URL("vendor/", base).href;
  ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(THREADS, navigator.hardwareConcurrency) : 1;
  model = await Model.open(ort, Tokenizer, files, (graph) => say(`Opening the model: ${graph.replaceAll("_", " ")}`));
  voice = await Graph.open(ort, files, VOICE);
  const seconds = (performance.now() - began) / 1000;
  postMessage({ type: "ready", device: { ...facts(site, seconds), warning: kept ? "" : NOT_KEPT } });
}

/** A sign of life. @param {string} text */
function say(text) {
  postMessage({ type: "progress", text });
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
