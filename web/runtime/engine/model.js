/** A loaded bundle: its graphs, tables and tokenizer, and the conversations that use them. */

import { LogMel } from "../audio/log_mel.js";
import { readManifest } from "../bundle/manifest.js";
import { openTable } from "../bundle/table.js";
import { Backbone } from "./backbone.js";
import { CodecStream } from "./codec.js";
import { Graph, int64 } from "./graph.js";
import { isGreedy } from "./sampling.js";
import { Tokenizer } from "./tokenizer.js";

const decoder = new TextDecoder();

export class Model {
  /**
   * @param {import("../bundle/manifest.js").Manifest} manifest
   * @param {Record<string, Graph>} graphs
   * @param {import("./graph.js").Files} files
   * @param {Tokenizer} tokenizer
   */
  constructor(manifest, graphs, files, tokenizer) {
    this.manifest = manifest;
    this.graphs = graphs;
    this.tokenizer = tokenizer;
    this.logMel = new LogMel(manifest.model.log_mel);
    const table = (/** @type {import("../bundle/manifest.js").TableSpec} */ spec) =>
      openTable(spec, /** @type {Uint8Array} */ (files.get(spec.file)));
    this.textRows = table(manifest.text_embeddings);
    this.audioRows = table(manifest.audio_embeddings);
  }

  /**
   * Open a bundle.
   *
   * @param {import("./graph.js").Runtime} ort the module onnxruntime-web
   * @param {any} Library the class Tokenizer of @huggingface/tokenizers
   * @param {import("./graph.js").Files} files of the bundle, by name; those of the graphs are taken out of it
   * @param {(graph: string) => void} [progress] is told which graph is opened
   */
  static async open(ort, Library, files, progress = () => {}) {
    const text = (/** @type {string} */ name) => decoder.decode(files.get(name));
    const manifest = readManifest(text("manifest.json"));
    const model = new Model(manifest, {}, files, new Tokenizer(Library, text("tokenizer.json")));
    for (const [name, { file }] of Object.entries(manifest.graphs)) {
      progress(name);
      model.graphs[name] = await Graph.open(ort, files, file);
      for (const opened of [file, `${file}.data`]) files.delete(opened); // WebAssembly has a copy, and memory is short
    }
    return model;
  }

  get hiddenSize() {
    return this.manifest.model.backbone.hidden_size;
  }

  /** A backbone without any positions yet. */
  backbone() {
    return new Backbone(this.graphs.decoder, this.manifest.model.backbone);
  }

  /** A new sound. */
  codec() {
    const { codec, codes } = this.manifest.model;
    return new CodecStream(this.graphs[codec.graph], codec, codes.codebooks);
  }

  /**
   * Rows (n, hidden) of a sound for the backbone.
   *
   * @param {Float32Array} sound (samples,) at 16 kHz
   */
  async encode(sound) {
    const { data, frames } = this.logMel.features(sound);
    return this.encodeFeatures(data, frames);
  }

  /** @param {Float32Array} data (frames, features) @param {number} frames */
  async encodeFeatures(data, frames) {
    const { audio_embeddings: rows, audio_lengths: lengths } = await this.graphs.audio_encoder.run({
      mel_spectrogram: [data, [1, frames, this.manifest.model.log_mel.features]],
      mel_lengths: [int64(frames), [1]],
    });
    return /** @type {Float32Array} */ (rows.data).slice(0, Number(lengths.data[0]) * this.hiddenSize);
  }

  /** Rows (n, hidden) of text tokens. @param {number[]} ids */
  embed(ids) {
    const rows = new Float32Array(ids.length * this.hiddenSize);
    ids.forEach((id, i) => this.textRows.addTo(id, rows.subarray(i * this.hiddenSize, (i + 1) * this.hiddenSize)));
    return rows;
  }

  /** The row (1, hidden) of a frame. @param {BigInt64Array} codes (codebooks,) */
  embedFrame(codes) {
    const row = new Float32Array(this.hiddenSize);
    codes.forEach((code, book) => this.audioRows.addTo(book * this.manifest.model.codes.vocab_size + Number(code), row));
    return row;
  }

  /**
   * The logits (vocab,) of the next text token.
   *
   * @param {Float32Array} hidden (hidden,)
   */
  async logits(hidden) {
    const { logits } = await this.graphs.text_head.run({ hidden_state: [hidden, [1, this.hiddenSize]] });
    return /** @type {Float32Array} */ (logits.data);
  }

  /**
   * The codes (codebooks,) of the next frame.
   *
   * @param {Float32Array} hidden (hidden,)
   * @param {import("../bundle/manifest.js").Sampling} sampling
   * @param {import("./noise.js").Noise} noise
   */
  async frame(hidden, sampling, noise) {
    const { codebooks, vocab_size: vocab } = this.manifest.model.codes;
    const gumbel = new Float32Array(codebooks * vocab);
    const greedy = isGreedy(sampling);
    if (!greedy) noise.gumbelInto(gumbel);
    return this.drawFrame(hidden, greedy ? 1 : sampling.temperature, greedy ? 1 : sampling.top_k || vocab, gumbel);
  }

  /**
   * @param {Float32Array} hidden @param {number} temperature @param {number} topK @param {Float32Array} gumbel
   * @returns {Promise<BigInt64Array>}
   */
  async drawFrame(hidden, temperature, topK, gumbel) {
    const { codebooks, vocab_size: vocab } = this.manifest.model.codes;
    const { codes } = await this.graphs.depthformer.run({
      hidden_state: [hidden, [1, this.hiddenSize]],
      temperature: [Float32Array.of(temperature), [1]],
      top_k: [int64(Math.min(topK, vocab)), [1]],
      gumbel: [gumbel, [codebooks, vocab]],
    });
    return /** @type {BigInt64Array} */ (codes.data);
  }

  /** Whether a frame is sound: every code is below the end-of-audio code. @param {BigInt64Array} codes */
  decodes(codes) {
    return codes.every((code) => code < BigInt(this.manifest.model.codes.end_of_audio));
  }
}
