/** Every stage is held to the golden vectors of the Python runtime; each is fed the golden input. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { joined } from "../runtime/audio/resampler.js";
import { Conversation } from "../runtime/engine/conversation.js";
import { Generation } from "../runtime/engine/generate.js";
import { ROOT, open } from "./bundle.js";
import { readNpz } from "./npz.js";

const { tolerances, ...facts } = JSON.parse(readFileSync(`${ROOT}/docs/golden/vectors.json`, "utf8"));
const golden = readNpz(`${ROOT}/docs/golden/vectors.npz`);
const model = await open();

/** The largest difference, as a share of the largest golden number if `relative`. */
function difference(found, { data }, relative) {
  assert.equal(found.length, data.length);
  let [most, scale] = [0, 0];
  for (let i = 0; i < data.length; i++) {
    most = Math.max(most, Math.abs(found[i] - data[i]));
    scale = Math.max(scale, Math.abs(data[i]));
  }
  return relative ? most / scale : most;
}

function close(found, name, tolerance = tolerances[name]) {
  const relative = !["log_mel", "sound"].includes(name);
  const most = difference(found, golden[name], relative);
  assert.ok(most <= tolerance, `${name}: ${most} is more than ${tolerance}`);
}

async function afterPrompt() {
  const backbone = model.backbone();
  return { backbone, hidden: await backbone.forward(golden.inputs_embeds.data) };
}

/** Columns of (books, frames), each a frame. */
function framesOf({ data, shape: [books, frames] }) {
  return Array.from({ length: frames }, (_, frame) =>
    BigInt64Array.from({ length: books }, (_, book) => BigInt(data[book * frames + frame])),
  );
}

test("log-mel", () => {
  const sound = Float32Array.from(golden.waveform.data, (sample) => sample / 32768);
  close(model.logMel.features(sound).data, "log_mel", 1e-4);
});

test("encoder", async () => {
  const { data, shape } = golden.log_mel;
  close(await model.encodeFeatures(data, shape[0]), "audio_embeddings");
});

test("the prompt's rows", async () => {
  const conversation = new Conversation(model, model.manifest.tasks.chat, facts.system);
  const rows = joined(
    [
      [model.tokenizer.ids.start],
      ...conversation.turn("system"),
      conversation.text(facts.system),
      ...conversation.end(),
      ...conversation.turn("user"),
      golden.audio_embeddings.data,
      ...conversation.end(),
      ...conversation.turn("assistant"),
    ].map((piece) => (piece instanceof Float32Array ? piece : model.embed(piece))),
  );
  close(rows, "inputs_embeds");
});

test("backbone and text head", async () => {
  const { hidden } = await afterPrompt();
  close(hidden, "hidden_state");
  close(await model.logits(golden.hidden_state.data), "logits");
});

test("a greedy frame and a drawn one", async () => {
  const codebooks = golden.gumbel.data.length;
  const greedy = await model.drawFrame(golden.hidden_state.data, 1, 1, new Float32Array(codebooks));
  assert.deepEqual([...greedy], Array.from(golden.frame_codes.data, BigInt));
  const drawn = await model.drawFrame(golden.hidden_state.data, facts.temperature, facts.top_k, golden.gumbel.data);
  assert.deepEqual([...drawn], Array.from(golden.drawn_codes.data, BigInt));
});

test("the whole answer", async () => {
  const { backbone, hidden } = await afterPrompt();
  const tokens = [];
  const frames = [];
  let order = "";
  for await (const step of new Generation(model, backbone, hidden, { task: model.manifest.tasks.chat }).steps()) {
    if ("token" in step) tokens.push(step.token);
    else if (!step.ends) frames.push(step.codes);
    order += "token" in step ? "T" : "A";
  }
  assert.deepEqual(tokens, Array.from(golden.tokens.data, Number));
  assert.deepEqual(frames, framesOf(golden.codes));
  assert.equal(order.slice(0, facts.order.length), facts.order);
});

test("sound, frame by frame", async () => {
  const codec = model.codec();
  const pieces = [];
  for (const codes of framesOf(golden.codes).slice(0, 12)) pieces.push(await codec.push(codes));
  close(joined([...pieces, codec.flush()]), "sound");
});

test("no text becomes a special token", () => {
  const { tokenizer } = model;
  assert.deepEqual(tokenizer.encode("turn on"), [tokenizer.whole.token_to_id("turn"), tokenizer.whole.token_to_id("on")]);
  for (const text of ["hi <|im_end|>", "<|IM_END|>", "turn on <|audio_start|>"]) {
    assert.throws(() => tokenizer.encode(text), /does not know/);
  }
  assert.throws(() => tokenizer.encode("sing me the opera"), /does not know: sing, opera\./);
});
