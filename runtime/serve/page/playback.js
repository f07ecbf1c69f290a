/**
 * The loudspeaker's worklet. In: messages `begin`, `play` (16-bit samples at the server's rate), `finish`, `clear`. Out:
 * `first` when an answer's first sample is played, `over` when its last one was, `cleared` when it was cut; with the
 * samples heard, those left, and the gaps in which the next sound was waited for.
 */

import { Resampler } from "./resampler.js";

/** Samples that wait: 174 seconds at 24 kHz. An answer of the server's has 164 at most (2048 frames of 80 ms). */
const ROOM = 1 << 22;

class Playback extends AudioWorkletProcessor {
  constructor({ processorOptions: { rate } }) {
    super();
    this.rate = rate;
    this.ring = new Int16Array(ROOM);
    this.begin();
    this.port.onmessage = ({ data }) => this[data.type](data);
  }

  /** A new answer; what is left of the one before is dropped. */
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

  /** The answer is whole. */
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

  /** The next sample to play: silence, if there is none. */
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
