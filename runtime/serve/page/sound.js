/**
 * Microphone and loudspeaker. In: what the server says, and the user's sound. Out: pieces of 16-bit samples at the
 * server's rate, and when the answer is heard. All times are seconds of one clock, the audio context's.
 */

/** Hz of the server's sound, both ways. */
export const RATE = 24000;

const MICROPHONE = { channelCount: 1, echoCancellation: true, noiseSuppression: true, autoGainControl: true };

const REFUSED = {
  NotAllowedError: "The microphone is refused. Allow it for this page in the browser's settings; writing works without.",
  NotFoundError: "There is no microphone. Writing works without.",
  NotReadableError: "The microphone cannot be read: another program may have it. Writing works without.",
};

export class Sound {
  /** Browsers give sound only to pages that come from this machine or over HTTPS. */
  static get possible() {
    return window.isSecureContext && "AudioWorkletNode" in window;
  }

  /** `onPlayed` takes what the playback worklet tells. To be called when the user has just done something. */
  static async open(onPlayed) {
    const context = new AudioContext({ latencyHint: "interactive" });
    const modules = ["./capture.js", "./playback.js"].map((name) => new URL(name, import.meta.url).href);
    await Promise.all([context.resume(), ...modules.map((url) => context.audioWorklet.addModule(url))]);
    return new Sound(context, onPlayed);
  }

  constructor(context, onPlayed) {
    this.context = context;
    this.player = this.node("playback", { numberOfInputs: 0, outputChannelCount: [1] });
    this.player.connect(context.destination);
    this.player.port.onmessage = ({ data }) => this.played(data, onPlayed);
  }

  node(name, options) {
    return new AudioWorkletNode(this.context, name, { ...options, processorOptions: { rate: RATE } });
  }

  /** Now, on the clock. */
  get now() {
    return this.context.currentTime;
  }

  /** Seconds from the worklet to the loudspeaker, as far as the browser says. */
  get outputDelay() {
    return this.context.outputLatency ?? this.context.baseLatency ?? 0;
  }

  /** Hear the microphone: `onPiece` takes samples and the time of the last one, `onGone` is called if it goes away. */
  async listen(onPiece, onGone) {
    try {
      this.stream = await navigator.mediaDevices.getUserMedia({ audio: MICROPHONE });
    } catch (error) {
      throw new Error(REFUSED[error.name] ?? `The microphone cannot be used (${error.message}).`);
    }
    if (this.context.state === "closed") return this.release(); // while the user was asked
    const capture = this.node("capture", { numberOfOutputs: 0, channelCount: 1, channelCountMode: "explicit" });
    capture.port.onmessage = ({ data }) => onPiece(data.samples, data.time);
    this.stream.getAudioTracks()[0].onended = onGone;
    this.context.createMediaStreamSource(this.stream).connect(capture);
  }

  /** A muted microphone sends silence, so that the server's clock goes on. */
  mute(muted) {
    for (const track of this.stream?.getAudioTracks() ?? []) track.enabled = !muted;
  }

  begin() {
    this.player.port.postMessage({ type: "begin" });
  }

  play(samples) {
    this.player.port.postMessage({ type: "play", samples }, [samples.buffer]);
  }

  finish() {
    this.player.port.postMessage({ type: "finish" });
  }

  /** Be silent at once: milliseconds heard of the answer, and samples not heard. */
  clear() {
    this.player.port.postMessage({ type: "clear" });
    return new Promise((resolve) => (this.cleared = resolve));
  }

  played(told, onPlayed) {
    if (told.type !== "cleared") return onPlayed(told);
    const underWay = Math.min(told.heard, Math.round(this.outputDelay * RATE));
    this.cleared({ milliseconds: Math.floor(((told.heard - underWay) * 1000) / RATE), left: told.left + underWay });
  }

  close() {
    this.release();
    this.cleared?.({ milliseconds: 0, left: 0 });
    this.context.close();
  }

  /** Let go of the microphone. */
  release() {
    for (const track of this.stream?.getTracks() ?? []) track.stop();
  }
}

/** 16-bit samples as events carry them. */
export function toBase64(samples) {
  return btoa(String.fromCharCode(...new Uint8Array(samples.buffer)));
}

export function fromBase64(text) {
  return new Int16Array(Uint8Array.from(atob(text), (character) => character.charCodeAt(0)).buffer);
}

/** Root mean square of samples, in dB below full scale. */
export function decibels(samples) {
  const sum = samples.reduce((total, sample) => total + sample * sample, 0);
  return 10 * Math.log10(sum / samples.length / 32768 ** 2 + 1e-9);
}
