/**
 * The loudspeaker's worklet. In: messages `begin`, `play` (16-bit samples at the server's rate), `finish`, `clear`. Out:
 * `first` when the first sample of an answer is played, `over` after its last one, `cleared` when it was cut. They tell
 * how many samples were heard, how many are left, and how many gaps there were because sound came too late.
 */

import { Resampler } from "./resampler.js";

/** Samples that can wait: 174 s at 24 kHz. An answer has at most 164 s (2048 frames of 80 ms). */
const ROOM = 1 << 22;

class Playback extends AudioWorkletProcessor {
  constructor({ processorOptions: { rate } }) {
    super();
    this.rate = rate;
    this.ring = new Int16Array(ROOM);
    this.begin();
    this.port.onmessage = ({ data }) => this[data.type](data);
  }

  /** A new answer begins. What is left of the one before is dropped. */
  begin() {
    this.resampler = new Resampler(this.rate, sampleRate);
    this.written = this.read = this.gaps = 0;
    this.open = true;
    this.whole = this.waiting = false;
  }

  play({ samples }) {
    for (const sample of samples) this.ring[this.written++ % ROOM] = sample;
    if (this.waiting) this.gaps += 1;
    this.waiting = false;
  }

  /** The answer is complete. */
  finish() {
    this.whole = true;
  }

  clear() {
    this.tell("cleared");
    this.begin();
    this.open = false;
  }

  process(_inputs, [[output]]) {
    for (let i = 0; i < output.length; i++) {
      while (!this.resampler.ready) this.resampler.push(this.next(i));
      output[i] = this.resampler.take();
    }
    return true;
  }

  /** The next sample to play; silence if there is none. */
  next(i) {
    if (this.read < this.written) {
      if (this.read === 0) this.tell("first", currentTime + i / sampleRate);
      return this.ring[this.read++ % ROOM] / 32768;
    }
    if (this.open && this.whole) this.end();
    else this.waiting = this.read > 0;
    return 0;
  }

  end() {
    this.open = false;
    this.tell("over");
  }

  tell(type, time) {
    this.port.postMessage({ type, time, heard: this.read, left: this.written - this.read, gaps: this.gaps });
  }
}

registerProcessor("playback", Playback);
