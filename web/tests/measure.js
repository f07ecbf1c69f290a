/** A worker that measures the runtime in a browser: a talk with the site's bundle, or one graph of a large one. */

import { Tokenizer } from "../vendor/tokenizers.min.mjs";
import * as ort from "../vendor/ort.wasm.min.mjs";
import { download, promised } from "../runtime/bundle/download.js";
import { readManifest } from "../runtime/bundle/manifest.js";
import { Conversation } from "../runtime/engine/conversation.js";
import { Graph } from "../runtime/engine/graph.js";
import { Model } from "../runtime/engine/model.js";

onmessage = async ({ data }) => {
  try {
    ort.env.wasm.wasmPaths = new URL("vendor/", data.base).href;
    ort.env.wasm.numThreads = data.threads;
    postMessage(data.graph ? await graph(data) : await talk(data));
  } catch (error) {
    postMessage({ error: String(error?.message ?? error) });
  }
};

/** Seconds of loading; for each answer the seconds to its first sound and for each second of sound. */
async function talk({ base, sound, repeats }) {
  const began = performance.now();
  const { files } = await download(base, await promised(base), () => {});
  const model = await Model.open(ort, Tokenizer, files);
  const load = since(began);
  const answers = [];
  for (let i = 0; i < repeats + 1; i++) {
    const conversation = new Conversation(model, model.manifest.tasks.chat);
    await conversation.prepare();
    answers.push(await answer(conversation, sound));
  }
  return { load, answers: answers.slice(1) }; // the first one warms up
}

async function answer(conversation, sound) {
  const rate = conversation.model.manifest.model.codec.sample_rate;
  const began = performance.now();
  let [first, samples] = [0, 0];
  for await (const said of conversation.ask(sound)) {
    if (!("samples" in said) || !said.samples.length) continue;
    first ||= since(began);
    samples += said.samples.length;
  }
  return { first, perSecond: since(began) / (samples / rate) };
}

/** Seconds to open a graph and to run it, with inputs as large as one second of a talk has. */
async function graph({ base, graph: name, repeats }) {
  const folder = new URL("model/", base);
  const manifest = readManifest(await (await fetch(new URL("manifest.json", folder))).text());
  const { file } = manifest.graphs[name];
  const files = new Map();
  for (const one of [file, `${file}.data`]) {
    const response = await fetch(new URL(one, folder));
    if (response.ok) files.set(one, new Uint8Array(await response.arrayBuffer()));
  }
  const began = performance.now();
  const opened = await Graph.open(ort, files, file);
  const open = since(began);
  const model = Object.assign(Object.create(Model.prototype), { manifest, graphs: { [name]: opened } });
  const run = RUNS[name] ?? ((one) => one.codec().push(new BigInt64Array(manifest.model.codes.codebooks)));
  await run(model);
  const runs = [];
  for (let i = 0; i < repeats; i++) {
    const start = performance.now();
    await run(model);
    runs.push(since(start));
  }
  return { open, runs };
}

const RUNS = {
  audio_encoder: (model) => model.encodeFeatures(new Float32Array(100 * model.manifest.model.log_mel.features), 100),
  decoder: (model) => model.backbone().forward(new Float32Array(model.hiddenSize)),
  text_head: (model) => model.logits(new Float32Array(model.hiddenSize)),
  depthformer: (model) => {
    const { codebooks, vocab_size: vocab } = model.manifest.model.codes;
    return model.drawFrame(new Float32Array(model.hiddenSize), 1, 1, new Float32Array(codebooks * vocab));
  },
};

function since(began) {
  return (performance.now() - began) / 1000;
}
