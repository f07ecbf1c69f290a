/** Hidden states to text tokens and frames, in the two orders the model knows. See docs/models/bundle.md, "The loop". */

import { Noise } from "./noise.js";
import { drawToken } from "./sampling.js";

/**
 * @typedef {{ token: number } | { codes: BigInt64Array, ends: boolean }} Step
 * @typedef {{ task: import("../bundle/manifest.js").Task, textOnly?: boolean, seed?: number }} Options
 */

export class Generation {
  /**
   * @param {import("./model.js").Model} model
   * @param {import("./backbone.js").Backbone} backbone it holds the prompt
   * @param {Float32Array} hidden after the prompt
   * @param {Options} options
   */
  constructor(model, backbone, hidden, { task, textOnly = false, seed = 0 }) {
    this.model = model;
    this.backbone = backbone;
    this.hidden = hidden;
    this.task = task;
    this.textOnly = textOnly;
    this.noise = new Noise(seed);
  }

  /** The steps; each was taken in before it is handed out. @returns {AsyncGenerator<Step>} */
  steps() {
    return this.task.mode === "interleaved" && !this.textOnly ? this.interleaved() : this.sequential();
  }

  /** @returns {AsyncGenerator<Step>} */
  async *sequential() {
    const { ids } = this.model.tokenizer;
    let speaking = false;
    for (let made = 0; made < this.task.max_new_tokens; made++) {
      if (speaking) {
        const step = await this.nextFrame();
        speaking = !step.ends;
        yield step;
        continue;
      }
      const token = await this.nextToken();
      if (token === ids.close) return;
      speaking = token === ids.audio;
      yield this.take(token);
    }
  }

  /** @returns {AsyncGenerator<Step>} */
  async *interleaved() {
    const { ids } = this.model.tokenizer;
    const pattern = this.model.manifest.model.interleave;
    let [speaking, textDone, left] = [false, false, pattern.text];
    for (let made = 0; made < this.task.max_new_tokens; made++) {
      left -= 1;
      if (speaking) {
        const step = await this.nextFrame();
        if (left === 0 && !textDone) [speaking, left] = [false, pattern.text];
        speaking = speaking && !step.ends;
        yield step;
        continue;
      }
      const token = await this.nextToken();
      if (token === ids.close || textDone) return;
      textDone = token === ids.textEnd;
      if (left === 0 || textDone) [speaking, left] = [true, pattern.audio];
      yield this.take(token);
    }
  }

  /** The hidden state after all that was taken in. */
  async advance() {
    if (this.waiting) this.hidden = await this.backbone.forward(this.waiting);
    this.waiting = undefined;
    return this.hidden;
  }

  async nextToken() {
    const banned = this.textOnly ? this.model.tokenizer.ids.audio : undefined;
    return drawToken(await this.model.logits(await this.advance()), this.task.text, this.noise, banned);
  }

  async nextFrame() {
    const end = BigInt(this.model.manifest.model.codes.end_of_audio);
    const codes = await this.model.frame(await this.advance(), this.task.audio, this.noise);
    const ends = codes[0] === end;
    if (ends) codes.fill(end);
    this.waiting = this.model.embedFrame(codes);
    return { codes, ends };
  }

  /** @param {number} token */
  take(token) {
    this.waiting = this.model.embed([token]);
    return { token };
  }

  /** Take in the last step too, so that the backbone holds the whole answer. */
  async finish() {
    await this.advance();
  }
}
