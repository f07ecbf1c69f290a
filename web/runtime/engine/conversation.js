/** Turns, each of which knows those before it, as far as the model was taught that. */

import { joined } from "../audio/resampler.js";
import { Generation } from "./generate.js";

/**
 * @typedef {{ text: string } | { samples: Float32Array }} Said a piece of an answer
 */

export class Conversation {
  /**
   * @param {import("./model.js").Model} model
   * @param {import("../bundle/manifest.js").Task} task
   * @param {string} [system] the system prompt, if it is not the task's
   */
  constructor(model, task, system = task.system) {
    this.model = model;
    this.task = task;
    this.system = system;
    this.backbone = model.backbone();
    /** @type {ReturnType<import("./backbone.js").Backbone["mark"]> | undefined} after the system prompt */
    this.begun = undefined;
  }

  /** Take in all that is known before the next question. */
  async prepare() {
    if (this.begun) return this.makeRoom(this.begun);
    const { ids } = this.model.tokenizer;
    await this.takeIn([ids.start], ...this.turn("system"), this.text(this.system), ...this.end());
    this.begun = this.backbone.mark();
    return undefined;
  }

  /** Forget the turns that the model cannot use, or that have no room. @param {ReturnType<import("./backbone.js").Backbone["mark"]>} begun */
  makeRoom(begun) {
    const { backbone: spec } = this.model.manifest.model;
    const most = Math.min(spec.max_positions / 2, 1024);
    if (this.model.manifest.taught?.turns === 0 || this.backbone.length > most) this.backbone.rewind(begun);
  }

  /**
   * Ask, and iterate the answer. `question` is sound (samples,) at 16 kHz, or text. A caller who leaves the iteration
   * ends the answer there; what was said so far is remembered, unless it is retracted.
   *
   * @param {Float32Array | string} question
   * @param {{ textOnly?: boolean, seed?: number }} [options]
   * @returns {AsyncGenerator<Said>}
   */
  async *ask(question, options = {}) {
    await this.prepare();
    this.question = this.backbone.mark();
    const asked = typeof question === "string" ? this.text(question) : await this.model.encode(question);
    const hidden = await this.takeIn(...this.turn("user"), asked, ...this.end(), ...this.turn("assistant"));
    const generation = new Generation(this.model, this.backbone, hidden, { task: this.task, ...options });
    try {
      yield* this.said(generation);
    } finally {
      await generation.finish();
      await this.takeIn(...this.end());
    }
  }

  /** Forget the last question and its answer. */
  retract() {
    if (this.question) this.backbone.rewind(this.question);
  }

  /** @param {Generation} generation @returns {AsyncGenerator<Said>} */
  async *said(generation) {
    /** @type {number[]} */
    const tokens = [];
    const codec = this.model.codec();
    let told = "";
    for await (const step of generation.steps()) {
      if ("token" in step) {
        tokens.push(step.token);
        const text = this.model.tokenizer.decode(tokens);
        if (text.length > told.length && !text.endsWith("\ufffd")) {
          yield { text: text.slice(told.length) };
          told = text;
        }
      } else if (!step.ends && this.model.decodes(step.codes)) {
        yield { samples: await codec.push(step.codes) };
      }
    }
    const rest = codec.flush();
    if (rest.length) yield { samples: rest };
  }

  /** @param {(number[] | Float32Array)[]} pieces ids, or rows */
  takeIn(...pieces) {
    return this.backbone.forward(
      joined(pieces.map((piece) => (piece instanceof Float32Array ? piece : this.model.embed(piece)))),
    );
  }

  /** @param {string} role */
  turn(role) {
    return [[this.model.tokenizer.ids.open], this.text(`${role}\n`)];
  }

  end() {
    return [[this.model.tokenizer.ids.close], this.text("\n")];
  }

  /** @param {string} text */
  text(text) {
    return this.model.tokenizer.encode(text);
  }
}
