/**
 * Microphone and loudspeaker. In: the sound of the server and of the user. Out: pieces of 16-bit samples at the server's
 * rate, and reports of what was played. All times are seconds of one clock, that of the audio context.
 */

/** Sample rate of the server's sound in both directions, Hz. */
export const RATE = 24000;

const MICROPHONE = { channelCount: 1, echoCancellation: true, noiseSuppression: true, autoGainControl: true };

const REFUSED = {
  NotAllowedError: "The browser refuses the microphone. Allow it for this page in the settings, or write instead.",
  NotFoundError: "There is no microphone. Connect one, or write instead.",
  NotReadableError: "The microphone cannot be read: another program may use it. Close that program, or write instead.",
};

const NO_OUTPUT = "Connect a loudspeaker or headphones and try again, or write instead.";

/** Seconds in which the browser must begin to play. */
const PATIENCE = 5;

export class Sound {
  /** Whether the browser gives this page sound: it must come from this machine or over HTTPS. */
  static get possible() {
    return window.isSecureContext && "AudioWorkletNode" in window;
  }

  /**
   * `onPlayed` takes the reports of the playback worklet. Browsers require an action of the user just before. Throws an
   * Error that says what to do if nothing can be played.
   */
  static async open(onPlayed) {
    try {
      const context = new AudioContext({ latencyHint: "interactive" });
      const modules = ["./capture.js", "./playback.js"].map((name) => new URL(name, import.meta.url).href);
      await Promise.all([begun(context), ...modules.map((url) => context.audioWorklet.addModule(url))]);
      return new Sound(context, onPlayed);
    } catch (error) {
      throw new Error(`The browser plays no sound (${error.message}). ${NO_OUTPUT}`);
    }
  }

  constructor(context, onPlayed) {
    this.context = context;
    this.player = this.node("playback", { numberOfInputs: 0, outputChannelCount: [1] });
    this.gain = context.createGain();
    this.player.connect(this.gain).connect(context.destination);
    this.player.port.onmessage = ({ data }) => this.played(data, onPlayed);
  }

  node(name, options) {
    return new AudioWorkletNode(this.context, name, { ...options, processorOptions: { rate: RATE } });
  }

  /** Whether sound is played, after the browser may have stopped it. */
  wake() {
    return begun(this.context).then(
      () => true,
      () => false,
    );
  }

  /** The time now, on the clock. */
  get now() {
    return this.context.currentTime;
  }

  /** Seconds from the worklet to the loudspeaker, as the browser states them. */
  get outputDelay() {
    return this.context.outputLatency ?? this.context.baseLatency ?? 0;
  }

  /**
   * Listen. `onPiece` takes samples and the time of the last one; `onSilence` is told when the browser gives silence
   * instead of the microphone, and when it does so no longer; `onGone` is called if the microphone is removed.
   */
  async listen(onPiece, onSilence, onGone) {
    try {
      this.stream = await navigator.mediaDevices.getUserMedia({ audio: MICROPHONE });
    } catch (error) {
      throw new Error(REFUSED[error.name] ?? `The microphone cannot be used (${error.message}).`);
    }
    if (this.context.state === "closed") return this.release(); // it was closed while the browser asked the user
    const capture = this.node("capture", { numberOfOutputs: 0, channelCount: 1, channelCountMode: "explicit" });
    capture.port.onmessage = ({ data }) => onPiece(data.samples, data.time);
    const [track] = this.stream.getAudioTracks();
    track.onmute = () => onSilence(true);
    track.onunmute = () => onSilence(false);
    track.onended = onGone;
    this.context.createMediaStreamSource(this.stream).connect(capture);
  }

  /** Mute the microphone. It sends silence, so that the server's clock goes on. */
  mute(muted) {
    for (const track of this.stream?.getAudioTracks() ?? []) track.enabled = !muted;
  }

  /** How loud answers are, from 0 to 1. */
  set volume(part) {
    this.gain.gain.value = part;
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

  /** Stop the sound at once. Returns the milliseconds of the answer that were heard, and the samples that were not. */
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

  /** Release the microphone. */
  release() {
    for (const track of this.stream?.getTracks() ?? []) track.stop();
  }
}

/** Wait until a context plays. Without a loudspeaker some browsers never begin, and say nothing. */
async function begun(context) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`it does not begin within ${PATIENCE} s`)), 1000 * PATIENCE);
  });
  await Promise.race([context.resume(), late]).finally(() => clearTimeout(timer));
}

/** 16-bit samples as base64, for events. */
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
