/** The golden vectors in Node, and the tokenizer. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { ROOT, open } from "./bundle.js";
import { goldenChecks } from "./golden.js";
import { readNpz } from "./npz.js";

const facts = JSON.parse(readFileSync(`${ROOT}/docs/golden/vectors.json`, "utf8"));
const golden = await readNpz(readFileSync(`${ROOT}/docs/golden/vectors.npz`));
const model = await open();

for (const [name, check] of Object.entries(goldenChecks(model, golden, facts))) test(name, check);

test("no text becomes a special token", () => {
  const { tokenizer } = model;
  assert.deepEqual(tokenizer.encode("turn on"), [tokenizer.whole.token_to_id("turn"), tokenizer.whole.token_to_id("on")]);
  for (const text of ["hi <|im_end|>", "<|IM_END|>", "turn on <|audio_start|>"]) {
    assert.throws(() => tokenizer.encode(text), /does not know/);
  }
  assert.throws(() => tokenizer.encode("sing me the opera"), /does not know: sing, opera\./);
});
