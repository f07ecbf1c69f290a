/**
 * Changes the sample rate, sample by sample. The server's sound has 24 kHz, the browser's the rate of the sound card.
 * An AudioContext of 24 kHz would do this too, but Firefox connects no microphone to one (its bug 1674892).
 *
 * It is a windowed sinc. Its weights are tabulated for each position that a new sample can have between two old ones.
 */

/** Zero crossings of the sinc on either side. */
const CROSSINGS = 24;

/** The end of the pass band, as a part of half the lower rate. The slope of the window lies between the two. */
const PASS = 0.92;

export class Resampler {
  /** From one rate to the other, in Hz. */
  constructor(from, to) {
    const common = divisor(from, to);
    this.up = to / common;
    this.down = from / common;
    const cutoff = PASS * Math.min(1, to / from);
    const half = Math.ceil(CROSSINGS / cutoff);
    this.taps = Array.from({ length: this.up }, (_, phase) => kernel(half, cutoff, phase / this.up));
    this.length = 2 * half;
    this.seen = new Float32Array(2 * this.length); // every sample is kept twice, so that the last ones always lie in one row
    this.at = 0;
    this.phase = this.up;
  }

  /** Whether there is a sample to `take`. If not, push one first. */
  get ready() {
    return this.phase < this.up;
  }

  /** The next sample at the old rate. */
  push(sample) {
    this.seen[this.at] = this.seen[this.at + this.length] = sample;
    this.at = (this.at + 1) % this.length;
    this.phase -= this.up;
  }

  /** The next sample at the new rate. */
  take() {
    const taps = this.taps[this.phase];
    let sum = 0;
    for (let i = 0; i < this.length; i++) sum += taps[i] * this.seen[this.at + i];
    this.phase += this.down;
    return sum;
  }
}

/** Weights of the last samples, oldest first, for a new one that lies `shift` of a sample after the middle. */
function kernel(half, cutoff, shift) {
  const taps = Float32Array.from({ length: 2 * half }, (_, i) => {
    const distance = i - (half - 1) - shift;
    return cutoff * sinc(cutoff * distance) * blackman(distance / half);
  });
  const sum = taps.reduce((total, tap) => total + tap, 0);
  return taps.map((tap) => tap / sum);
}

function sinc(x) {
  return x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x);
}

/** Blackman's window over -1 to 1. */
function blackman(x) {
  return 0.42 + 0.5 * Math.cos(Math.PI * x) + 0.08 * Math.cos(2 * Math.PI * x);
}

function divisor(a, b) {
  return b === 0 ? a : divisor(b, a % b);
}
