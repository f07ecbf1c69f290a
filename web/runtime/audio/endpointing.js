/**
 * When does the user begin, pause, go on and end? A probability of speech for each block of 32 ms comes in, decisions go
 * out. The values are those of the Python runtime (runtime/audio/endpointing.py), where they were measured.
 */

export const BLOCK = 512;
export const RATE = 16000;
const BLOCK_SECONDS = BLOCK / RATE;

const THRESHOLD = 0.5;
const RELEASE = 0.15;
const BEGIN = blocks(0.064);
const HOLD = 0.06;
const LONGEST = blocks(30);

/** Blocks that are kept before the first voiced one. */
export const BEFORE = blocks(0.32);
/** Unvoiced blocks after which a turn may be over. */
export const PAUSE = Math.max(1, Math.round((0.128 - HOLD) / BLOCK_SECONDS));
/** Unvoiced blocks after which it is over. */
const ENDPOINT = Math.max(1, Math.round((0.5 - HOLD) / BLOCK_SECONDS));

/** @typedef {"began" | "paused" | "resumed" | "ended" | "too long"} Decision */

export class Endpointer {
  constructor() {
    this.number = this.run = this.first = this.last = 0;
    this.reset();
  }

  /** Forget the turn, and wait for one to begin. */
  reset() {
    this.state = "quiet";
    this.first = this.last = this.number;
    this.run = 0; // blocks in a row: voiced ones while quiet, unvoiced ones otherwise
  }

  /**
   * Take the next block's probability.
   *
   * @param {number} probability
   * @returns {Decision | undefined}
   */
  hear(probability) {
    const number = this.number++;
    const speaking = this.state === "speaking" || this.state === "paused";
    const voiced = probability >= THRESHOLD - (speaking ? RELEASE : 0);
    if (this.state === "quiet") return this.quiet(number, voiced);
    this.run = voiced ? 0 : this.run + 1;
    if (this.state === "noisy") {
      if (this.run >= ENDPOINT) this.reset();
      return undefined;
    }
    return this.turn(number, voiced);
  }

  /** @param {number} number @param {boolean} voiced @returns {Decision | undefined} */
  quiet(number, voiced) {
    this.run = voiced ? this.run + 1 : 0;
    if (this.run < BEGIN) return undefined;
    this.state = "speaking";
    this.first = number - BEGIN + 1;
    this.last = number;
    this.run = 0;
    return "began";
  }

  /** @param {number} number @param {boolean} voiced @returns {Decision | undefined} */
  turn(number, voiced) {
    if (voiced) this.last = number;
    if (number - this.first >= LONGEST && this.state === "speaking") {
      this.state = "noisy";
      return "too long";
    }
    if (voiced && this.state === "paused") {
      this.state = "speaking";
      return "resumed";
    }
    if (this.run >= ENDPOINT) {
      this.state = "quiet";
      this.run = 0;
      return "ended";
    }
    if (this.state === "speaking" && this.run >= PAUSE) {
      this.state = "paused";
      return "paused";
    }
    return undefined;
  }
}

/** @param {number} seconds */
function blocks(seconds) {
  return Math.max(1, Math.ceil(seconds / BLOCK_SECONDS - 1e-6));
}
