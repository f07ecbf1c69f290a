/** Greedy answers to sounds: `node streams.js FILE...`, 16 kHz float32 samples; a line of JSON for each. */

import { readFileSync } from "node:fs";
import { Conversation } from "../runtime/engine/conversation.js";
import { open } from "./bundle.js";

const model = await open();

class Recorded extends Conversation {
  /** Keeps the steps of the answer. */
  async *said(generation) {
    this.tokens = [];
    this.codes = [];
    for await (const step of generation.steps()) {
      if ("token" in step) this.tokens.push(step.token);
      else this.codes.push(Array.from(step.codes, Number));
    }
  }
}

for (const file of process.argv.slice(2)) {
  const bytes = readFileSync(file);
  const sound = new Float32Array(new Uint8Array(bytes).buffer);
  const found = {};
  for (const name of ["transcribe", "chat"]) {
    const conversation = new Recorded(model, model.manifest.tasks[name]);
    for await (const _ of conversation.ask(sound, { textOnly: name === "transcribe" }));
    found[name] = { tokens: conversation.tokens, codes: conversation.codes };
  }
  console.log(JSON.stringify(found));
}
