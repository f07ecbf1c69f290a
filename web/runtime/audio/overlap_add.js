/** Inverse STFT by overlap-add, as a stream: columns in, finished samples out. See docs/models/bundle.md, "Codec". */

import { Fourier } from "./fourier.js";

const TINY = 1e-300;

export class OverlapAdd {
  /** @param {number} length samples of a column's window @param {number} hop samples between columns */
  constructor(length, hop) {
    this.length = length;
    this.hop = hop;
    this.fourier = new Fourier(length);
    this.window = Float64Array.from({ length }, (_, i) => 0.5 - 0.5 * Math.cos((2 * Math.PI * i) / length));
    this.sum = new Float64Array(length);
    this.weight = new Float64Array(length);
    this.cut = Math.floor((length - hop) / 2);
  }

  /**
   * The samples that are final with these columns.
   *
   * @param {Float32Array} features (columns, length + 2): log-magnitudes, then phases
   */
  push(features) {
    const width = this.length + 2;
    const columns = features.length / width;
    const done = new Float64Array(columns * this.hop);
    for (let column = 0; column < columns; column++) {
      this.add(features.subarray(column * width, (column + 1) * width));
      this.finish(done.subarray(column * this.hop, (column + 1) * this.hop));
    }
    return this.trimmed(done);
  }

  /** The last samples, which waited for more columns. */
  flush() {
    const held = this.length - this.hop - Math.floor((this.length - this.hop) / 2);
    if (!this.weight[0]) return new Float32Array(0);
    return this.trimmed(this.sum.slice(0, held).map((value, i) => value / Math.max(this.weight[i], TINY)));
  }

  /** @param {Float32Array} column */
  add(column) {
    const { length, fourier } = this;
    const bins = length / 2 + 1;
    const re = new Float64Array(length);
    const im = new Float64Array(length);
    for (let bin = 0; bin < bins; bin++) {
      const size = Math.exp(column[bin]);
      re[bin] = size * Math.cos(column[bins + bin]);
      // The inverse is the transform of the conjugate. A real signal has no imaginary part in the first and last bin.
      im[bin] = bin === 0 || bin === bins - 1 ? 0 : -size * Math.sin(column[bins + bin]);
    }
    for (let bin = 1; bin < bins - 1; bin++) {
      re[length - bin] = re[bin];
      im[length - bin] = -im[bin];
    }
    fourier.transform(re, im);
    for (let i = 0; i < length; i++) {
      this.sum[i] += (fourier.re[i] / length) * this.window[i];
      this.weight[i] += this.window[i] ** 2;
    }
  }

  /**
   * No later column reaches the first hop of samples: they are final, and both buffers move on by a hop.
   *
   * @param {Float64Array} done
   */
  finish(done) {
    for (let i = 0; i < this.hop; i++) done[i] = this.sum[i] / Math.max(this.weight[i], TINY);
    for (const buffer of [this.sum, this.weight]) {
      buffer.copyWithin(0, this.hop);
      buffer.fill(0, this.length - this.hop);
    }
  }

  /** @param {Float64Array} samples */
  trimmed(samples) {
    const cut = Math.min(this.cut, samples.length);
    this.cut -= cut;
    return Float32Array.from(samples.subarray(cut));
  }
}
