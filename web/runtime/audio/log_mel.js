/** Sound to log-mel features, as docs/models/bundle.md describes them. */

import { Fourier } from "./fourier.js";

/** Below 1000 Hz, or 15 mel, the Slaney scale is linear, above it is logarithmic. */
const LINEAR = 15;

export class LogMel {
  /** @param {import("../bundle/manifest.js").LogMelSpec} spec */
  constructor(spec) {
    this.spec = spec;
    this.window = Math.trunc(spec.window_size * spec.sample_rate);
    this.hop = Math.trunc(spec.window_stride * spec.sample_rate);
    this.hann = Float64Array.from(
      { length: this.window },
      (_, i) => 0.5 - 0.5 * Math.cos((2 * Math.PI * i) / (this.window - 1)),
    );
    this.fourier = new Fourier(spec.n_fft);
    this.bands = filterbank(spec);
  }

  /**
   * Features of a sound; its last frame is zero.
   *
   * @param {Float32Array} sound (samples,) at the spec's rate
   * @returns {{ data: Float32Array, frames: number }} data: (frames, features)
   */
  features(sound) {
    const { features } = this.spec;
    const frames = Math.floor(sound.length / this.hop);
    const bands = new Float64Array(frames * features);
    for (let t = 0; t < frames; t++) this.frame(sound, t, bands.subarray(t * features, (t + 1) * features));
    const data = new Float32Array((frames + 1) * features);
    if (frames > 1) this.normalise(bands, frames, data);
    return { data, frames: frames + 1 };
  }

  /**
   * The logarithms of one frame's bands.
   *
   * @param {Float32Array} sound @param {number} t @param {Float64Array} out
   */
  frame(sound, t, out) {
    const re = new Float64Array(this.spec.n_fft);
    const im = new Float64Array(this.spec.n_fft);
    const first = t * this.hop - Math.floor(this.window / 2); // the window is centred on sample hop * t
    for (let i = 0; i < this.window; i++) {
      const at = first + i;
      if (at < 0 || at >= sound.length) continue;
      const before = at > 0 ? this.spec.preemphasis * sound[at - 1] : 0;
      re[i] = (sound[at] - before) * this.hann[i];
    }
    this.fourier.transform(re, im);
    const { re: real, im: imaginary } = this.fourier;
    this.bands.forEach(({ from, weights }, band) => {
      let sum = 0;
      weights.forEach((weight, i) => (sum += weight * (real[from + i] ** 2 + imaginary[from + i] ** 2)));
      out[band] = Math.log(sum + this.spec.log_guard);
    });
  }

  /**
   * Bring each band to mean 0 and deviation 1 over the frames.
   *
   * @param {Float64Array} bands @param {number} frames @param {Float32Array} data
   */
  normalise(bands, frames, data) {
    const { features, std_floor: floor } = this.spec;
    for (let band = 0; band < features; band++) {
      let sum = 0;
      for (let t = 0; t < frames; t++) sum += bands[t * features + band];
      const mean = sum / frames;
      let squares = 0;
      for (let t = 0; t < frames; t++) squares += (bands[t * features + band] - mean) ** 2;
      const deviation = Math.sqrt(squares / (frames - 1)) + floor;
      for (let t = 0; t < frames; t++) data[t * features + band] = (bands[t * features + band] - mean) / deviation;
    }
  }
}

/** @param {number} mels */
function hertz(mels) {
  return mels < LINEAR ? (200 / 3) * mels : 1000 * 6.4 ** ((mels - LINEAR) / 27);
}

/**
 * Triangles of unit area: for each band its first bin and the weights from there on.
 *
 * @param {import("../bundle/manifest.js").LogMelSpec} spec
 * @returns {{ from: number, weights: number[] }[]}
 */
function filterbank({ sample_rate: rate, n_fft: length, features }) {
  const highest = LINEAR + (27 * Math.log(rate / 2 / 1000)) / Math.log(6.4);
  const edges = Array.from({ length: features + 2 }, (_, i) => hertz((highest * i) / (features + 1)));
  return Array.from({ length: features }, (_, band) => {
    const [low, centre, high] = edges.slice(band, band + 3);
    const all = Array.from({ length: length / 2 + 1 }, (_, bin) => {
      const f = (bin * rate) / length;
      return (Math.max(0, Math.min((f - low) / (centre - low), (high - f) / (high - centre))) * 2) / (high - low);
    });
    const from = all.findIndex((weight) => weight > 0);
    const to = all.findLastIndex((weight) => weight > 0);
    return from < 0 ? { from: 0, weights: [] } : { from, weights: all.slice(from, to + 1) };
  });
}
