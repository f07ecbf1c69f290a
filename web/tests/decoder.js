/** A bundle's decoder alone: `node decoder.js FOLDER ROWS COUNT...`, rows of float32 in a file, in calls of COUNT positions.
 *  Says the hidden state after each call, and what lies in the caches. */

import { readFileSync } from "node:fs";
import * as ort from "onnxruntime-web";
import { readManifest } from "../runtime/bundle/manifest.js";
import { Backbone } from "../runtime/engine/backbone.js";
import { Graph } from "../runtime/engine/graph.js";

ort.env.wasm.numThreads = 1;
const [folder, file, ...counts] = process.argv.slice(2);
const read = (name) => new Uint8Array(readFileSync(name));
const manifest = readManifest(readFileSync(`${folder}/manifest.json`, "utf8"));
const { file: graph } = manifest.graphs.decoder;
const opened = await Graph.open(ort, new Map([[graph, read(`${folder}/${graph}`)]]), graph);
const backbone = new Backbone(opened, manifest.model.backbone);
const rows = new Float32Array(read(file).buffer);
const hidden = [];
let at = 0;
for (const count of counts.map(Number)) {
  const width = backbone.spec.hidden_size;
  hidden.push(Array.from(await backbone.forward(rows.slice(at * width, (at += count) * width))));
}
const caches = [...backbone.state].filter(([name]) => name.startsWith("past_key_values."));
console.log(JSON.stringify({ hidden, caches: Object.fromEntries(caches.map(([name, data]) => [name, Array.from(data)])) }));
