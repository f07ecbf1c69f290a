/**
 * The microphone's worklet. In: its sound at the browser's rate. Out: messages of 16-bit samples at the server's rate,
 * with the time on the audio clock at which the last of them was heard.
 */

import { Resampler } from "./resampler.js";

/** Seconds of one message. Shorter than the pause that ends a turn, and long enough to keep messages few. */
const PIECE = 0.04;

class Capture extends AudioWorkletProcessor {
  constructor({ processorOptions: { rate } }) {
    super();
    this.resampler = new Resampler(sampleRate, rate);
    this.piece = new Int16Array(Math.round(PIECE * rate));
    this.filled = 0;
  }

  process([[channel]]) {
    for (let i = 0; i < (channel?.length ?? 0); i++) {
      this.resampler.push(channel[i]);
      while (this.resampler.ready) this.keep(this.resampler.take(), currentTime + i / sampleRate);
    }
    return true;
  }

  keep(sample, time) {
    this.piece[this.filled++] = Math.round(32767 * Math.max(-1, Math.min(1, sample)));
    if (this.filled < this.piece.length) return;
    this.port.postMessage({ samples: this.piece.slice(), time });
    this.filled = 0;
  }
}

registerProcessor("capture", Capture);
