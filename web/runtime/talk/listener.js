/** The user's sound: 24 kHz pieces in, decisions about turns out, and the sound of the turn that is open. */

import { BEFORE, BLOCK, Endpointer, PAUSE, RATE } from "../audio/endpointing.js";
import { SincResampler, joined } from "../audio/resampler.js";
import { VoiceActivity } from "../audio/voice_activity.js";

/** Hz of the sound that comes in. */
export const PAGE_RATE = 24000;

const VOICED = 0.5;

export class Listener {
  /**
   * @param {import("../engine/graph.js").Graph} network silero's
   * @param {(decision: import("../audio/endpointing.js").Decision) => void} decided is called in order
   */
  constructor(network, decided) {
    this.decided = decided;
    this.voice = new VoiceActivity(network);
    this.resampler = new SincResampler(PAGE_RATE, RATE);
    this.endpointer = new Endpointer();
    this.rest = new Float32Array(0);
    /** @type {{ samples: Float32Array, probability: number }[]} the newest blocks */
    this.blocks = [];
    this.before = 0; // blocks that were forgotten
    this.byHand = false;
    this.work = Promise.resolve();
  }

  /** @param {Int16Array} samples at 24 kHz */
  hear(samples) {
    const sound = Float32Array.from(samples, (sample) => sample / 32768);
    this.rest = joined([this.rest, this.resampler.push(sound)]);
    while (this.rest.length >= BLOCK) {
      const block = this.rest.slice(0, BLOCK);
      this.rest = this.rest.slice(BLOCK);
      this.work = this.work.then(() => this.block(block));
    }
    return this.work;
  }

  /** @param {Float32Array} samples (512,) */
  async block(samples) {
    const probability = await this.voice.hear(samples);
    this.blocks.push({ samples, probability });
    if (this.byHand) return;
    const decision = this.endpointer.hear(probability);
    if (this.endpointer.state === "quiet" && decision !== "ended") this.forget(this.endpointer.number - BEFORE - PAUSE);
    if (decision) this.decided(decision);
  }

  /** The sound of the turn, with a little around it. */
  get turn() {
    const { first, last } = this.endpointer;
    return this.cut(first - BEFORE, last + PAUSE);
  }

  /** Milliseconds of sound until the last voiced block ended. */
  get voiceEnd() {
    return ((this.endpointer.last + 1) * BLOCK * 1000) / RATE;
  }

  /** Choose whether the user marks turns by hand. @param {boolean} byHand */
  pushToTalk(byHand) {
    this.byHand = byHand;
    this.clear();
  }

  /** Forget all sound so far. */
  clear() {
    this.before += this.blocks.length;
    this.blocks = [];
    this.endpointer.number = this.before;
    this.endpointer.reset();
  }

  /** The speech in what was heard since `clear`, and forget it. */
  takeByHand() {
    const voiced = this.blocks.map(({ probability }, i) => (probability >= VOICED ? i : -1)).filter((i) => i >= 0);
    const [first, last] = voiced.length ? [voiced[0], voiced[voiced.length - 1]] : [0, this.blocks.length - 1];
    const sound = this.cut(this.before + first - BEFORE, this.before + last + PAUSE);
    this.clear();
    return sound;
  }

  /** @param {number} first @param {number} last numbers of blocks, both included */
  cut(first, last) {
    const from = Math.max(first - this.before, 0);
    return joined(this.blocks.slice(from, last - this.before + 1).map(({ samples }) => samples));
  }

  /** @param {number} until number of the first block that is kept */
  forget(until) {
    const count = Math.max(until - this.before, 0);
    this.blocks.splice(0, count);
    this.before += count;
  }
}
