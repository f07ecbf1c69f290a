/**
 * The manifest of a bundle, as far as this runtime reads it. docs/models/bundle.md describes it.
 *
 * @typedef {{ sample_rate: number, n_fft: number, window_size: number, window_stride: number, features: number,
 *   preemphasis: number, log_guard: number, std_floor: number, normalize: string }} LogMelSpec
 * @typedef {{ temperature: number, top_k: number }} Sampling
 * @typedef {{ system: string, mode: "interleaved" | "sequential", text: Sampling, audio: Sampling,
 *   max_new_tokens: number, voice: string, voices: string[] }} Task
 * @typedef {{ file: string, offset: number, shape: [number, number], dtype: "float32" | "int8" | "uint8",
 *   scales: number | null, transposed: boolean, blocks?: { bits: number, size: number, factors: "float16" | "float32",
 *   zero_points: number } }} TableSpec
 * @typedef {{ name: string, dtype: string, shape: number[] }} StateSpec
 * @typedef {{ format: number, name: string, family: string, flavour: string, source: { name: string },
 *   model: {
 *     backbone: { hidden_size: number, vocab_size: number, layer_types: string[], kv_heads: number, head_dim: number,
 *       conv_cache: number, max_positions: number, kv_cache?: "float32" | "int8" },
 *     codes: { codebooks: number, vocab_size: number, end_of_audio: number },
 *     codec: { graph: string, sample_rate: number, frame_samples: number, state: StateSpec[], n_fft: number, hop: number },
 *     interleave: { text: number, audio: number }, log_mel: LogMelSpec },
 *   tasks: { transcribe: Task, speak: Task, chat: Task, write: Task },
 *   graphs: Record<string, { file: string, precision: string }>,
 *   text_embeddings: TableSpec, audio_embeddings: TableSpec,
 *   files: Record<string, { size: number, sha256: string }>,
 *   taught?: { refusal?: string, turns?: number | null, examples?: string[], trim_silence?: boolean } }} Manifest
 */

import { BundleError } from "../errors.js";

const FORMAT = 2;

/**
 * The manifest in a file's text.
 *
 * @param {string} text
 * @returns {Manifest}
 */
export function readManifest(text) {
  /** @type {Manifest} */
  let manifest;
  try {
    manifest = JSON.parse(text);
  } catch {
    throw new BundleError("The manifest is not JSON. Copy the bundle again.");
  }
  if (manifest.format !== FORMAT) {
    throw new BundleError(`The bundle has format ${manifest.format}, and this runtime reads ${FORMAT}. Export it again.`);
  }
  if (manifest.flavour !== "cpu") {
    throw new BundleError(`The bundle is of the flavour ${manifest.flavour}. Export one of the flavour cpu.`);
  }
  if (manifest.model.log_mel.normalize !== "per_feature") {
    throw new BundleError(`This runtime does not know the family ${manifest.family}. Use the Python runtime for it.`);
  }
  return manifest;
}
