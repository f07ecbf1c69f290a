/** Frames of codes to sound, as a stream. */

import { OverlapAdd } from "../audio/overlap_add.js";
import { int64, presentName } from "./graph.js";

export class CodecStream {
  /**
   * @param {import("./graph.js").Graph} graph
   * @param {import("../bundle/manifest.js").Manifest["model"]["codec"]} spec
   * @param {number} codebooks
   */
  constructor(graph, spec, codebooks) {
    this.graph = graph;
    this.codebooks = codebooks;
    this.offset = 0;
    /** @type {{ name: string, shape: number[], data: Float32Array }[]} */
    this.state = spec.state.map(({ name, shape }) => ({ name, shape, data: new Float32Array(product(shape)) }));
    this.overlap = spec.hop ? new OverlapAdd(spec.n_fft, spec.hop) : null;
  }

  /**
   * The samples that are final with a frame.
   *
   * @param {BigInt64Array} codes (codebooks,)
   * @returns {Promise<Float32Array>}
   */
  async push(codes) {
    /** @type {Record<string, import("./graph.js").Input>} */
    const inputs = { audio_codes: [codes, [1, this.codebooks, 1]], offset: [int64(this.offset), [1]] };
    for (const { name, shape, data } of this.state) inputs[name] = [data, shape];
    const outputs = await this.graph.run(inputs);
    this.offset += 1;
    for (const one of this.state) one.data = /** @type {Float32Array} */ (outputs[presentName(one.name)].data);
    const made = /** @type {Float32Array} */ ((outputs.stft_features ?? outputs.audio).data);
    return this.overlap ? this.overlap.push(made) : made;
  }

  /** The last samples, which waited for more frames. */
  flush() {
    return this.overlap ? this.overlap.flush() : new Float32Array(0);
  }
}

/** @param {number[]} shape */
function product(shape) {
  return shape.reduce((result, size) => result * size, 1);
}
