/**
 * A talk with the device. In: the user's sound and text, and the server's events. Out: events to the server, sound to
 * the loudspeaker, and everything to show, to `view` (see main.js).
 */

import { askDevice, checkRoom, openSocket } from "./connection.js";
import { RATE, Sound, decibels, fromBase64, toBase64 } from "./sound.js";

/** Seconds between attempts to connect again: the first pause, and the longest. */
const SOON = 1;
const LATE = 16;

const SILENCED = "The browser silences the microphone. Come back to this page, or end the call that uses it.";
const STOPPED = "The browser stopped the sound while this page was in the background. Start again.";

/** The ids of our events whose errors are handled separately. */
const WRITTEN = "written";
const CUT = "cut";

export class Talk {
  constructor(view) {
    this.view = view;
    this.key = "";
    this.listening = this.muted = this.byHand = this.held = false;
    this.volume = 1;
    this.voice = ""; // the server chooses
  }

  // The user's side

  /** Begin to listen. Throws an Error that says what prevents it. */
  async speak() {
    if (!Sound.possible) {
      throw new Error("Browsers give sound only to pages from this machine or over HTTPS. You can write instead.");
    }
    if (this.opened && !this.sound) this.stop(); // perhaps there is a loudspeaker now
    const { signal } = await this.open();
    if (!this.sound) throw this.noSound;
    await this.sound.listen(
      (samples, time) => this.heard(samples, time),
      (silent) => this.view.trouble(silent ? SILENCED : ""),
      () => this.deaf("The microphone is gone. Connect it and start again."),
    );
    signal.throwIfAborted();
    this.listening = true;
    this.mute(this.muted);
  }

  /** Ask in writing. Returns when the server has accepted the text. */
  async write(text) {
    const signal = this.wish?.signal;
    await this.cut();
    await this.answer?.over;
    signal?.throwIfAborted();
    await this.open();
    this.asked = this.now;
    const content = [{ type: "input_text", text }];
    this.send("conversation.item.create", { event_id: WRITTEN, item: { type: "message", role: "user", content } });
    return new Promise((resolve, reject) => (this.writing = { resolve, reject }));
  }

  mute(muted) {
    this.muted = muted;
    this.sound?.mute(muted);
    this.rest();
  }

  /** Choose whether the user marks the begin and end of a turn by hand, with `press` and `release`. */
  pushToTalk(byHand) {
    this.byHand = byHand;
    this.held = false;
    this.send("session.update", { session: { type: "realtime", audio: { input: this.detection } } });
    this.rest();
  }

  /** Make answers louder or quieter, from 0 to 1. */
  turnTo(volume) {
    this.volume = volume;
    if (this.sound) this.sound.volume = volume;
  }

  /** Choose the voice of the next answers. */
  speakAs(voice) {
    this.voice = voice;
    this.send("session.update", { session: { type: "realtime", audio: { output: { voice } } } });
  }

  press() {
    this.cut();
    this.send("input_audio_buffer.clear");
    this.held = true;
    this.view.state("Hearing you");
  }

  release() {
    if (!this.held) return;
    this.held = false;
    this.asked = this.now;
    this.send("input_audio_buffer.commit");
  }

  /** End the talk. */
  stop() {
    this.wish?.abort();
    this.answer?.end();
    this.writing?.reject(new DOMException("The talk was ended.", "AbortError"));
    this.socket?.close();
    this.sound?.close();
    this.wish = this.opened = this.socket = this.sound = this.answer = undefined;
    this.listening = this.held = false;
    this.view.state("Not connected");
  }

  // The connection

  /** Open a session if there is none; returns its wish, which is aborted when the session should end. */
  async open() {
    this.wish ??= new AbortController();
    const { wish } = this;
    this.opened ??= this.begin(wish.signal);
    try {
      await this.opened;
    } catch (error) {
      if (wish === this.wish) this.stop();
      throw error;
    }
    return wish;
  }

  async begin(signal) {
    this.view.state("Connecting");
    const sound = Sound.possible ? await this.openSound() : undefined;
    if (signal.aborted) sound?.close();
    signal.throwIfAborted();
    this.sound = sound;
    this.turnTo(this.volume);
    await this.connect(signal);
  }

  /** Without sound, the device answers in writing, and the page says why. */
  async openSound() {
    this.noSound = undefined;
    try {
      return await Sound.open((told) => this.played(told));
    } catch (error) {
      this.noSound = error;
      return undefined;
    }
  }

  /** Connect, and try again until it works. */
  async connect(signal) {
    for (let seconds = SOON; ; seconds = Math.min(2 * seconds, LATE)) {
      try {
        return await this.join(signal);
      } catch (error) {
        if (!["lost", "busy"].includes(error.kind)) throw error;
        this.view.trouble(`${error.message} Trying again in ${seconds} s.`);
        await pause(seconds, signal);
      }
    }
  }

  /** Connect once. */
  async join(signal) {
    signal.throwIfAborted();
    this.view.state("Connecting");
    const device = await askDevice(this.key, (text) => this.view.state(text));
    checkRoom(device);
    const socket = await openSocket(this.key, (event) => signal.aborted || this.take(event));
    if (signal.aborted) socket.close();
    signal.throwIfAborted();
    socket.onclose = ({ reason, fault }) => this.lost(reason, fault, signal);
    this.socket = socket;
    this.sent = 0;
    const output_modalities = [this.sound ? "audio" : "text"];
    const transcription = { model: device.bundle };
    const input = { format: { type: "audio/pcm", rate: RATE }, transcription, ...this.detection };
    const audio = this.voice ? { input, output: { voice: this.voice } } : { input };
    this.send("session.update", { session: { type: "realtime", output_modalities, audio } });
    this.view.joined(device);
    if (this.noSound) this.view.trouble(this.noSound.message);
    this.rest();
  }

  /** The connection broke. fault: an error that trying again does not mend. */
  lost(reason, fault, signal) {
    if (signal.aborted) return;
    this.socket = undefined;
    this.answer?.end();
    this.answer = undefined;
    this.writing?.reject(fault ?? new Error("The connection broke before the server had the text. Send it again."));
    this.opened = fault ? Promise.reject(fault) : this.rejoin(reason, signal);
    this.opened.catch((error) => {
      if (signal.aborted) return;
      this.stop();
      this.view.failed(error);
    });
  }

  async rejoin(reason, signal) {
    if (reason === "idle") throw new Error("The server ended the talk, because nothing was said for too long. Start again.");
    this.view.state("Connecting");
    this.view.trouble(`The connection broke. Trying again in ${SOON} s.`);
    await pause(SOON, signal);
    await this.connect(signal);
  }

  /** How the end of a turn is detected, as the server expects it. */
  get detection() {
    return { turn_detection: this.byHand ? null : { type: "semantic_vad" } };
  }

  send(type, fields = {}) {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify({ type, ...fields }));
  }

  // Sound

  /** Take a piece of the microphone's sound. `time` is that of its last sample. */
  heard(samples, time) {
    this.view.level(decibels(samples));
    if (!this.socket || (this.byHand && !this.held)) return;
    this.sent += samples.length;
    this.origin = time - this.sent / RATE; // when the server began to count our samples
    this.send("input_audio_buffer.append", { audio: toBase64(samples) });
  }

  /** The sound is gone, and with it the talk. */
  deaf(message) {
    this.stop();
    this.view.failed(new Error(message));
  }

  /** The page is seen again. Browsers may stop the sound of a page in the background. */
  async wake() {
    const { sound } = this;
    if (sound && !(await sound.wake()) && sound === this.sound) this.deaf(STOPPED);
  }

  /** The loudspeaker reports how far the answer was played. */
  played({ type, time, gaps }) {
    if (!this.answer || this.answer.cut) return;
    if (type === "first") {
      this.view.state("Answering");
      this.view.latency(this.answer.id, time + this.sound.outputDelay - this.asked, "sound");
    } else {
      this.answer.heard = true;
      if (gaps > 0) this.view.note(this.answer.id, `${gaps} ${gaps === 1 ? "gap" : "gaps"} in its sound`);
      this.rest();
    }
  }

  /** Stop the answer's sound, and tell the server how much of it was heard. */
  async cut() {
    const { answer } = this;
    if (!answer || answer.cut || answer.heard) return;
    answer.cut = true;
    const { milliseconds, left } = (await this.sound?.clear()) ?? { milliseconds: 0, left: 0 };
    if (answer.done && left === 0) return;
    const fields = { item_id: answer.id, content_index: 0, audio_end_ms: milliseconds };
    this.send("conversation.item.truncate", { event_id: CUT, ...fields });
    this.view.note(answer.id, "interrupted");
  }

  /** The time in seconds, on the clock of all measurements. */
  get now() {
    return this.sound?.now ?? performance.now() / 1000;
  }

  /** Show that the talk waits for the user. */
  rest() {
    const ready = this.byHand ? "Ready" : "Listening";
    if (this.socket) this.view.state(this.listening ? (this.muted ? "Muted" : ready) : "Connected");
  }

  // The server's events

  take(event) {
    EVENTS[event.type]?.(this, event);
  }

  added({ id, role, content }) {
    if (role !== "user") return;
    const [{ type, text }] = content;
    this.view.asked(id, type === "input_text" ? text : null);
    if (type !== "input_text") return;
    this.writing?.resolve();
    this.view.state("Thinking");
    this.send("response.create");
  }

  /** Ask for the answer to a turn that was marked by hand, once the answer before it has ended. */
  async committed() {
    if (!this.byHand) return;
    await this.answer?.over;
    this.view.state("Thinking");
    this.send("response.create");
  }

  answering(id) {
    this.answer = { id };
    this.answer.over = new Promise((resolve) => (this.answer.end = resolve));
    this.sound?.begin();
    this.view.answering(id);
  }

  said(id, piece) {
    if (!this.sound && !this.answer.begun) this.view.latency(id, this.now - this.asked, "word");
    this.answer.begun = true;
    this.view.piece(id, piece);
  }

  sounded(id, delta) {
    if (id === this.answer?.id && !this.answer.cut) this.sound.play(fromBase64(delta));
  }

  done() {
    const { answer } = this;
    if (!answer) return;
    answer.done = true;
    answer.end();
    if (!answer.cut) this.sound ? this.sound.finish() : this.rest();
  }

  failed({ code, message, event_id }) {
    if (event_id === CUT && code === "item_not_found") return; // by the server's clock, all of it was heard already
    if (event_id === WRITTEN) return this.writing.reject(new Error(message));
    this.view.trouble(message);
    this.rest();
  }
}

const TRANSCRIPTION = "conversation.item.input_audio_transcription";

const EVENTS = {
  "input_audio_buffer.speech_started": (talk) => {
    talk.cut();
    talk.view.state("Hearing you");
  },
  "input_audio_buffer.speech_stopped": (talk, event) => {
    talk.asked = talk.origin + event.audio_end_ms / 1000;
    talk.view.state("Thinking");
  },
  "input_audio_buffer.committed": (talk) => talk.committed(),
  "conversation.item.added": (talk, event) => talk.added(event.item),
  [`${TRANSCRIPTION}.completed`]: (talk, event) => talk.view.written(event.item_id, event.transcript),
  [`${TRANSCRIPTION}.failed`]: (talk, event) => talk.view.written(event.item_id, null),
  "response.output_item.added": (talk, event) => talk.answering(event.item.id),
  "response.output_audio_transcript.delta": (talk, event) => talk.said(event.item_id, event.delta),
  "response.output_text.delta": (talk, event) => talk.said(event.item_id, event.delta),
  "response.output_audio.delta": (talk, event) => talk.sounded(event.item_id, event.delta),
  "response.done": (talk) => talk.done(),
  error: (talk, event) => talk.failed(event.error),
};

/** Wait, unless the signal is aborted. */
function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    signal.addEventListener("abort", () => reject(signal.reason), { once: true });
    setTimeout(resolve, 1000 * seconds);
  });
}
