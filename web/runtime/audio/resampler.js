/**
 * Resampling of sound on its way to the model, with torchaudio's filter: a sinc under a Hann window of 6 zero crossings
 * on each side, with its pass band to 0.99 of half the lower rate. The model was taught with such sound.
 */

const CROSSINGS = 6;
const ROLLOFF = 0.99;

export class SincResampler {
  /** @param {number} from Hz @param {number} to Hz */
  constructor(from, to) {
    const common = divisor(from, to);
    this.down = from / common;
    this.up = to / common;
    this.half = Math.ceil((CROSSINGS * this.down) / (ROLLOFF * Math.min(this.down, this.up)));
    this.kernels = Array.from({ length: this.up }, (_, phase) => this.kernel(phase));
    this.heard = new Float32Array(this.half); // the sound begins after silence
    this.first = -this.half; // the index, in the whole sound, of the first of those
    this.made = 0;
  }

  /**
   * The samples that later ones cannot change any more.
   *
   * @param {Float32Array} samples the next ones of the sound
   */
  push(samples) {
    if (this.down === this.up) return samples;
    this.heard = joined([this.heard, samples]);
    const complete = this.first + this.heard.length - this.half - 1;
    const until = complete > 0 ? Math.ceil((complete * this.up) / this.down) : 0;
    return this.make(until);
  }

  /** At the end of the sound: what was held back. */
  rest() {
    if (this.down === this.up) return new Float32Array(0);
    const total = Math.ceil(((this.first + this.heard.length) * this.up) / this.down);
    this.heard = joined([this.heard, new Float32Array(this.half + 2)]);
    return this.make(total);
  }

  /** @param {number} until number of the first sample that is not made */
  make(until) {
    const made = new Float32Array(Math.max(until - this.made, 0));
    for (let i = 0; i < made.length; i++) {
      const number = this.made + i;
      const start = Math.floor((number * this.down) / this.up) - this.half - this.first;
      const kernel = this.kernels[number % this.up];
      let sum = 0;
      for (let k = 0; k < kernel.length; k++) sum += kernel[k] * this.heard[start + k];
      made[i] = sum;
    }
    this.made += made.length;
    const needed = Math.floor((this.made * this.down) / this.up) - this.half;
    this.heard = this.heard.slice(needed - this.first);
    this.first = needed;
    return made;
  }

  /** @param {number} phase the place of an output between two inputs, in parts of `up` */
  kernel(phase) {
    const cutoff = ROLLOFF * Math.min(this.down, this.up);
    return Float64Array.from({ length: 2 * this.half + 2 }, (_, i) => {
      const input = Math.floor((phase * this.down) / this.up) - this.half + i;
      const ahead = Math.fround(input / this.down) - Math.fround(phase / this.up);
      const place = Math.min(Math.max(Math.fround(ahead) * cutoff, -CROSSINGS), CROSSINGS);
      return (sinc(place) * Math.cos((place * Math.PI) / CROSSINGS / 2) ** 2 * cutoff) / this.down;
    });
  }
}

/** @param {Float32Array[]} pieces */
export function joined(pieces) {
  const whole = new Float32Array(pieces.reduce((length, piece) => length + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    whole.set(piece, at);
    at += piece.length;
  }
  return whole;
}

/** @param {number} x */
function sinc(x) {
  return x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x);
}

/** @param {number} a @param {number} b @returns {number} */
function divisor(a, b) {
  return b === 0 ? a : divisor(b, a % b);
}
