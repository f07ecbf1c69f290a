/** The backbone with its state: positions in, the hidden state after the last of them out. Going back is cheap. */

import { ContextFull } from "../errors.js";
import { presentName } from "./graph.js";

/** Positions of one call at most. */
const CHUNK = 512;

/** Positions that the KV buffers have room for at first. Every call copies them, so they grow with the conversation. */
const FIRST_CAPACITY = 256;

export class Backbone {
  /**
   * @param {import("./graph.js").Graph} graph
   * @param {import("../bundle/manifest.js").Manifest["model"]["backbone"]} spec
   */
  constructor(graph, spec) {
    this.graph = graph;
    this.spec = spec;
    this.length = 0;
    this.capacity = FIRST_CAPACITY;
    /** @type {Map<string, Float32Array | Int8Array>} */
    this.state = new Map();
    for (const name of graph.inputs.slice(2)) this.state.set(name, this.empty(name));
  }

  /** @param {string} name of a state input */
  shape(name) {
    const { hidden_size: hidden, conv_cache: columns, kv_heads: heads, head_dim: width } = this.spec;
    return isCache(name) ? [1, heads, this.capacity, width] : [1, hidden, columns];
  }

  /** @param {string} name */
  empty(name) {
    const size = this.shape(name).reduce((product, one) => product * one, 1);
    return isCache(name) && this.spec.kv_cache === "int8" ? new Int8Array(size) : new Float32Array(size);
  }

  /**
   * Take in positions.
   *
   * @param {Float32Array} rows (positions, hidden)
   * @returns {Promise<Float32Array>} (hidden,) after the last one
   */
  async forward(rows) {
    const width = this.spec.hidden_size;
    let hidden = new Float32Array(width);
    for (let at = 0; at < rows.length; at += CHUNK * width) hidden = await this.call(rows.subarray(at, at + CHUNK * width));
    return hidden;
  }

  /** @param {Float32Array} rows */
  async call(rows) {
    const width = this.spec.hidden_size;
    const count = rows.length / width;
    const total = this.length + count;
    if (total > this.spec.max_positions) throw new ContextFull("The conversation is too long. Begin a new one.");
    this.makeRoom(total);
    /** @type {Record<string, import("./graph.js").Input>} */
    const inputs = {
      inputs_embeds: [rows, [1, count, width]],
      attention_mask: [new BigInt64Array(total).fill(1n), [1, total]],
    };
    for (const [name, data] of this.state) inputs[name] = [data, this.shape(name)];
    const outputs = await this.graph.run(inputs);
    for (const name of this.state.keys()) {
      this.state.set(name, /** @type {Float32Array | Int8Array} */ (outputs[presentName(name)].data));
    }
    this.length = total;
    return /** @type {Float32Array} */ (outputs.hidden_states.data).slice(-width);
  }

  /** Make the KV buffers larger until `positions` fit. @param {number} positions */
  makeRoom(positions) {
    const old = this.capacity;
    while (this.capacity < positions) this.capacity *= 2;
    if (this.capacity === old) return;
    const { kv_heads: heads, head_dim: width } = this.spec;
    for (const [name, data] of this.state) {
      if (!isCache(name)) continue;
      const larger = this.empty(name);
      for (let head = 0; head < heads; head++) {
        const rows = data.subarray(head * old * width, (head + 1) * old * width);
        larger.set(rows, head * this.capacity * width);
      }
      this.state.set(name, larger);
    }
  }

  /** This place, to go back to. KV rows after it are ignored and overwritten; only the conv states must be kept. */
  mark() {
    const conv = [...this.state].filter(([name]) => !isCache(name)).map(([name, data]) => [name, data.slice()]);
    return { length: this.length, conv: /** @type {[string, Float32Array | Int8Array][]} */ (conv) };
  }

  /** Forget what came after a mark. @param {ReturnType<Backbone["mark"]>} mark */
  rewind({ length, conv }) {
    this.length = length;
    for (const [name, data] of conv) this.state.set(name, data.slice());
  }
}

/** @param {string} name */
function isCache(name) {
  return name.startsWith("past_key_values.");
}

