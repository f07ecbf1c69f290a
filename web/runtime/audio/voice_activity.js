/** Is somebody speaking? Silero's network (MIT), a block of 512 samples at 16 kHz at a time. */

import { BLOCK, RATE } from "./endpointing.js";

/** Samples of the block before, which the network is given again. */
const CONTEXT = 64;

export class VoiceActivity {
  /** @param {import("../engine/graph.js").Graph} network */
  constructor(network) {
    this.network = network;
    /** @type {Float32Array} */
    this.state = new Float32Array(2 * 128);
    this.input = new Float32Array(CONTEXT + BLOCK);
  }

  /**
   * The probability that the stream's next block holds speech.
   *
   * @param {Float32Array} samples (512,)
   * @returns {Promise<number>}
   */
  async hear(samples) {
    this.input.copyWithin(0, BLOCK);
    this.input.set(samples, CONTEXT);
    const { output, stateN } = await this.network.run({
      input: [this.input, [1, CONTEXT + BLOCK]],
      state: [this.state, [2, 1, 128]],
      sr: [BigInt64Array.of(BigInt(RATE)), []],
    });
    this.state = /** @type {Float32Array} */ (stateN.data);
    return Number(output.data[0]);
  }
}
