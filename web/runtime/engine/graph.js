/** A graph of a bundle in onnxruntime-web. */

/**
 * @typedef {[Numbers, readonly number[]]} Input data and shape
 * @typedef {Float32Array | Int8Array | BigInt64Array} Numbers
 * @typedef {{ data: Numbers, dims: readonly number[] }} Output
 * @typedef {any} Runtime the module onnxruntime-web
 * @typedef {Map<string, Uint8Array>} Files a bundle's files by their name
 */

/** Runs take turns: an asynchronous provider cannot be entered twice. */
let last = Promise.resolve();

export class Graph {
  /** @param {Runtime} ort @param {any} session */
  constructor(ort, session) {
    this.ort = ort;
    this.session = session;
  }

  /**
   * @param {Runtime} ort
   * @param {Files} files
   * @param {string} name of the graph's file; weights lie in `NAME.data`, if there is such a file
   */
  static async open(ort, files, name) {
    const data = files.get(`${name}.data`);
    const session = await ort.InferenceSession.create(files.get(name), {
      executionProviders: ["wasm"],
      logSeverityLevel: 3, // a cache of integers would warn at every prefill that it is copied: here all state is
      externalData: data ? [{ path: `${name}.data`, data }] : [],
    });
    return new Graph(ort, session);
  }

  /** @type {string[]} */
  get inputs() {
    return this.session.inputNames;
  }

  /**
   * Run it.
   *
   * @param {Record<string, Input>} inputs
   * @returns {Promise<Record<string, Output>>}
   */
  run(inputs) {
    const feeds = Object.fromEntries(
      Object.entries(inputs).map(([name, [data, dims]]) => {
        return [name, new this.ort.Tensor(typeOf(data), data, dims)];
      }),
    );
    const turn = last.then(() => this.session.run(feeds));
    last = turn.catch(() => {});
    return turn;
  }
}

/** @param {Numbers} data */
function typeOf(data) {
  if (data instanceof BigInt64Array) return "int64";
  return data instanceof Int8Array ? "int8" : "float32";
}

/** @param {number} number as the data of an int64 input of one number */
export function int64(number) {
  return BigInt64Array.of(BigInt(number));
}

/** The output in which a graph returns a state input. @param {string} name */
export function presentName(name) {
  return name.replace("past_key_values.", "present.").replace("past_conv.", "present_conv.");
}
