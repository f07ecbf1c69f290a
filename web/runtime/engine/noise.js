/**
 * Seeded noise, the same as the Python runtime's: numpy's PCG64, seeded by its SeedSequence, as float32 numbers in
 * [0, 1), and Gumbel noise of them. docs/models/bundle.md describes the generator.
 */

const MASK = (1n << 128n) - 1n;
const MASK64 = (1n << 64n) - 1n;
const MULTIPLIER = 0x2360ed051fc65da44385df649fccf645n;
const TINY = 1.1754943508222875e-38;

export class Noise {
  /** @param {number} seed a whole number from 0 to 2^53 */
  constructor(seed) {
    const [stateHigh, stateLow, streamHigh, streamLow] = seedWords(seed);
    const state = (stateHigh << 64n) | stateLow;
    this.increment = ((((streamHigh << 64n) | streamLow) << 1n) | 1n) & MASK;
    this.state = (this.increment + state) & MASK;
    this.step();
    /** @type {number | null} the upper half of the last 64 bits, which is used after the lower one */
    this.kept = null;
  }

  step() {
    this.state = (this.state * MULTIPLIER + this.increment) & MASK;
  }

  /** The next 64 bits: the two halves of the state, folded and turned (XSL RR). */
  bits64() {
    this.step();
    const folded = (this.state >> 64n) ^ (this.state & MASK64);
    const turn = this.state >> 122n;
    return ((folded >> turn) | (folded << (64n - turn))) & MASK64;
  }

  bits32() {
    if (this.kept !== null) {
      const kept = this.kept;
      this.kept = null;
      return kept;
    }
    const bits = this.bits64();
    this.kept = Number(bits >> 32n);
    return Number(bits & 0xffffffffn);
  }

  /** A number in [0, 1) with 24 bits. */
  uniform() {
    return (this.bits32() >>> 8) / 2 ** 24;
  }

  /**
   * Fill `noise` with standard Gumbel noise: -log(-log(u)), in float32 as numpy computes it.
   *
   * @param {Float32Array} noise
   */
  gumbelInto(noise) {
    for (let i = 0; i < noise.length; i++) {
      const once = -Math.fround(Math.log(Math.max(Math.fround(this.uniform()), TINY)));
      noise[i] = -Math.fround(Math.log(Math.max(once, TINY)));
    }
  }
}

/**
 * numpy's SeedSequence(seed).generate_state(4, uint64).
 *
 * @param {number} seed
 * @returns {bigint[]}
 */
function seedWords(seed) {
  const entropy = seed > 0xffffffff ? [seed % 2 ** 32, Math.floor(seed / 2 ** 32)] : [seed];
  const pool = mixed(entropy);
  let hash = 0x8b51f9dd;
  const words = Array.from({ length: 8 }, (_, i) => {
    let word = (pool[i % 4] ^ hash) >>> 0;
    hash = Math.imul(hash, 0x58f38ded) >>> 0;
    word = Math.imul(word, hash) >>> 0;
    return (word ^ (word >>> 16)) >>> 0;
  });
  return [0, 2, 4, 6].map((i) => (BigInt(words[i + 1]) << 32n) | BigInt(words[i]));
}

/** @param {number[]} entropy two words of 32 bits at most */
function mixed(entropy) {
  let hash = 0x43b0d7e5;
  const hashed = (/** @type {number} */ value) => {
    let word = (value ^ hash) >>> 0;
    hash = Math.imul(hash, 0x931e8875) >>> 0;
    word = Math.imul(word, hash) >>> 0;
    return (word ^ (word >>> 16)) >>> 0;
  };
  const pool = Array.from({ length: 4 }, (_, i) => hashed(entropy[i] ?? 0));
  for (let from = 0; from < 4; from++) {
    for (let to = 0; to < 4; to++) {
      if (from === to) continue;
      const word = (Math.imul(pool[to], 0xca01f9dd) - Math.imul(hashed(pool[from]), 0x4973f715)) >>> 0;
      pool[to] = (word ^ (word >>> 16)) >>> 0;
    }
  }
  return pool;
}
