/** Pebble in Node, and the golden vectors. */

import { readFile, readdir } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { Tokenizer } from "@huggingface/tokenizers";
import * as ort from "onnxruntime-web";
import { Model } from "../runtime/engine/model.js";

export const ROOT = fileURLToPath(new URL("../..", import.meta.url));

ort.env.wasm.numThreads = 1;

/** Open the bundle in a folder. */
export async function open(folder = `${ROOT}/src/voxrill/pebble/bundle`) {
  const files = new Map();
  for (const name of await readdir(folder)) files.set(name, new Uint8Array(await readFile(`${folder}/${name}`)));
  return Model.open(ort, Tokenizer, files);
}
