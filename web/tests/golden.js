/**
 * Every stage is held to the golden vectors of the Python runtime; each is fed the golden input. The same checks run in
 * Node (golden.test.js) and in a browser (tests/web/test_web_browser.py).
 */

import { joined } from "../runtime/audio/resampler.js";
import { Conversation } from "../runtime/engine/conversation.js";
import { Generation } from "../runtime/engine/generate.js";

/** Frames of sound that are compared. */
const FRAMES = 12;

/** @returns {Record<string, () => unknown>} the checks by name; each throws an Error that says what differs */
export function goldenChecks(model, golden, { tolerances, ...facts }) {
  const close = (found, name, tolerance = tolerances[name]) => {
    const relative = !["log_mel", "sound"].includes(name);
    within(difference(found, golden[name].data, relative), tolerance, name);
  };
  const frames = framesOf(golden.codes);
  const afterPrompt = async () => {
    const backbone = model.backbone();
    return { backbone, hidden: await backbone.forward(golden.inputs_embeds.data) };
  };
  const streamed = async () => {
    const codec = model.codec();
    const pieces = [];
    for (const codes of frames.slice(0, FRAMES)) pieces.push(await codec.push(codes));
    return joined([...pieces, codec.flush()]);
  };
  return {
    "log-mel": () => {
      const sound = Float32Array.from(golden.waveform.data, (sample) => sample / 32768);
      close(model.logMel.features(sound).data, "log_mel", 1e-4);
    },
    encoder: async () => {
      const { data, shape } = golden.log_mel;
      close(await model.encodeFeatures(data, shape[0]), "audio_embeddings");
    },
    "the prompt's rows": () => {
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
    },
    "backbone and text head": async () => {
      const { hidden } = await afterPrompt();
      close(hidden, "hidden_state");
      close(await model.logits(golden.hidden_state.data), "logits");
    },
    "a greedy frame and a drawn one": async () => {
      const hidden = golden.hidden_state.data;
      const greedy = await model.drawFrame(hidden, 1, 1, new Float32Array(golden.gumbel.data.length));
      same([...greedy], Array.from(golden.frame_codes.data, BigInt), "the greedy frame");
      const drawn = await model.drawFrame(hidden, facts.temperature, facts.top_k, golden.gumbel.data);
      same([...drawn], Array.from(golden.drawn_codes.data, BigInt), "the drawn frame");
    },
    "the whole answer": async () => {
      const { backbone, hidden } = await afterPrompt();
      const [tokens, made] = [[], []];
      let order = "";
      for await (const step of new Generation(model, backbone, hidden, { task: model.manifest.tasks.chat }).steps()) {
        if ("token" in step) tokens.push(step.token);
        else if (!step.ends) made.push([...step.codes]);
        order += "token" in step ? "T" : "A";
      }
      same(tokens, Array.from(golden.tokens.data, Number), "tokens");
      same(made, frames.map((codes) => [...codes]), "codes");
      same(order.slice(0, facts.order.length), facts.order, "the order");
    },
    "sound, frame by frame": async () => close(await streamed(), "sound"),
    "streamed sound is offline sound": async () => {
      const whole = await offline(model, frames.slice(0, FRAMES));
      within(difference(await streamed(), whole, false), 1e-6, "streamed sound");
    },
  };
}

/**
 * The sound of frames, with one inverse transform over all columns. The graph runs frame by frame here too: it scales its
 * 8-bit products by the largest number of a run, so that more frames in a run give other numbers, in Python as well.
 */
async function offline(model, frames) {
  const codec = model.codec();
  const { overlap } = codec;
  codec.overlap = null;
  const features = [];
  for (const codes of frames) features.push(await codec.push(codes));
  return joined([overlap.push(joined(features)), overlap.flush()]);
}

/** Columns of (books, frames), each a frame. */
function framesOf({ data, shape: [books, frames] }) {
  return Array.from({ length: frames }, (_, frame) =>
    BigInt64Array.from({ length: books }, (_, book) => BigInt(data[book * frames + frame])),
  );
}

/** The largest difference, as a share of the largest expected number if `relative`. */
function difference(found, expected, relative) {
  same(found.length, expected.length, "the length");
  let [most, scale] = [0, 0];
  for (let i = 0; i < expected.length; i++) {
    most = Math.max(most, Math.abs(found[i] - expected[i]));
    scale = Math.max(scale, Math.abs(expected[i]));
  }
  return relative ? most / scale : most;
}

function within(most, tolerance, name) {
  if (!(most <= tolerance)) throw new Error(`${name}: ${most} is more than ${tolerance}`);
}

function same(found, expected, name) {
  if (String(found) !== String(expected)) throw new Error(`${name}: ${found} and not ${expected}`);
}
