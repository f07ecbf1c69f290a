/**
 * A talk, in the events of OpenAI's realtime interface as far as the page uses them. So the page is the same, whether a
 * server answers it or this.
 */

import { Conversation } from "../engine/conversation.js";
import { VoxrillError } from "../errors.js";
import { Answer } from "./answer.js";
import { fromBase64, toBase64 } from "./base64.js";
import { Listener } from "./listener.js";

/** @typedef {{ id: string, question: Float32Array | string }} Item */

export class Session {
  /**
   * @param {import("../engine/model.js").Model} model
   * @param {import("../engine/graph.js").Graph} network silero's
   * @param {(event: Record<string, any>) => void} emit
   */
  constructor(model, network, emit) {
    this.model = model;
    this.emit = emit;
    this.listener = new Listener(network, (decision) => DECIDED[decision](this));
    const { chat, transcribe, write } = model.manifest.tasks;
    this.chat = new Conversation(model, chat);
    this.write = new Conversation(model, write);
    this.transcriber = new Conversation(model, { ...transcribe }, transcribe.system);
    this.textOnly = false;
    this.count = 0;
    /** @type {Answer | undefined} */
    this.answer = undefined;
    /** @type {Item | undefined} */
    this.last = undefined;
    this.work = Promise.resolve();
    this.then(() => this.chat.prepare());
  }

  /** Do it after all that is in progress. What is no VoxrillError ends the worker. @param {() => Promise<unknown>} work */
  then(work) {
    this.work = this.work.then(work).then(
      () => {},
      (error) => {
        if (!(error instanceof VoxrillError)) throw error;
        this.fail(error.message);
      },
    );
  }

  /** Take an event of the page. @param {Record<string, any>} event */
  take(event) {
    TAKEN[event.type]?.(this, event);
  }

  /** @param {string} message @param {string} [eventId] */
  fail(message, eventId) {
    this.emit({ type: "error", error: { message, event_id: eventId } });
  }

  close() {
    this.answer?.leave();
  }

  // The user's side

  /** @param {Record<string, any>} event */
  update({ session }) {
    if (session.output_modalities) this.textOnly = !session.output_modalities.includes("audio");
    const input = session.audio?.input ?? {};
    if ("turn_detection" in input) this.listener.pushToTalk(input.turn_detection === null);
  }

  /** @param {Record<string, any>} event */
  written({ item, event_id: eventId }) {
    const [{ text }] = item.content;
    try {
      this.model.tokenizer.encode(text);
    } catch (error) {
      return this.fail(/** @type {Error} */ (error).message, eventId);
    }
    return this.add(text);
  }

  /** @param {Float32Array | string} question */
  add(question) {
    const written = typeof question === "string";
    const id = this.newId("item");
    this.last = { id, question };
    const content = [written ? { type: "input_text", text: question } : { type: "input_audio" }];
    this.emit({ type: "conversation.item.added", item: { id, role: "user", content } });
    return this.last;
  }

  commit() {
    this.listener.work.then(() => {
      const sound = this.listener.takeByHand();
      if (!sound.length) return this.fail("There is no sound yet. Hold the button while you speak.");
      const item = this.add(sound);
      this.emit({ type: "input_audio_buffer.committed", item_id: item.id });
      return undefined;
    });
  }

  // Turns by the sound

  began() {
    this.answer?.leave();
    this.emit({ type: "input_audio_buffer.speech_started" });
  }

  /** The turn may be over: begin to answer, without a sound. */
  paused() {
    this.early = this.begin(this.listener.turn);
  }

  resumed() {
    this.early?.retract();
    this.early = undefined;
  }

  ended() {
    const sound = this.listener.turn;
    const answer = this.early ?? this.begin(sound);
    this.early = undefined;
    this.emit({ type: "input_audio_buffer.speech_stopped", audio_end_ms: this.listener.voiceEnd });
    const item = this.add(sound);
    this.emit({ type: "input_audio_buffer.committed", item_id: item.id });
    this.release(answer, item);
  }

  // Answers

  /** Answer the last item. */
  respond() {
    if (this.last) this.release(this.begin(this.last.question), this.last);
  }

  /** @param {Float32Array | string} question */
  begin(question) {
    const id = this.newId("answer");
    const conversation = this.textOnly ? this.write : this.chat;
    const answer = new Answer(id, conversation, question, this.textOnly, (said) => this.say(id, said));
    this.then(() => answer.make());
    return answer;
  }

  /** @param {Answer} answer @param {Item} item */
  release(answer, item) {
    this.answer = answer;
    this.emit({ type: "response.output_item.added", item: { id: answer.id } });
    answer.release();
    this.then(async () => {
      this.emit({ type: "response.done" });
      this.then(() => this.chat.prepare());
    });
    if (typeof item.question !== "string") this.then(() => this.transcribe(item));
  }

  /** @param {string} id @param {import("../engine/conversation.js").Said} said */
  say(id, said) {
    if ("text" in said) {
      const kind = this.textOnly ? "output_text" : "output_audio_transcript";
      this.emit({ type: `response.${kind}.delta`, item_id: id, delta: said.text });
    } else {
      const samples = Int16Array.from(said.samples, (sample) => Math.max(-1, Math.min(1, sample)) * 32767);
      this.emit({ type: "response.output_audio.delta", item_id: id, delta: toBase64(samples) });
    }
  }

  /** @param {Item} item */
  async transcribe({ id, question }) {
    let transcript = "";
    for await (const said of this.transcriber.ask(question, { textOnly: true })) {
      if ("text" in said) transcript += said.text;
    }
    this.transcriber.retract();
    const type = "conversation.item.input_audio_transcription.completed";
    this.emit({ type, item_id: id, transcript: transcript.trim() });
  }

  /** @param {string} kind */
  newId(kind) {
    this.count += 1;
    return `${kind}_${this.count}`;
  }
}

/** @type {Record<import("../audio/endpointing.js").Decision, (session: Session) => void>} */
const DECIDED = {
  began: (session) => session.began(),
  paused: (session) => session.paused(),
  resumed: (session) => session.resumed(),
  ended: (session) => session.ended(),
  "too long": (session) => {
    session.resumed();
    session.fail("That was too long. Ask in shorter sentences.");
  },
};

/** @type {Record<string, (session: Session, event: Record<string, any>) => void>} */
const TAKEN = {
  "session.update": (session, event) => session.update(event),
  "input_audio_buffer.append": (session, event) => session.listener.hear(fromBase64(event.audio)),
  "input_audio_buffer.clear": (session) => session.listener.clear(),
  "input_audio_buffer.commit": (session) => session.commit(),
  "conversation.item.create": (session, event) => session.written(event),
  "conversation.item.truncate": (session) => session.answer?.leave(),
  "response.create": (session) => session.respond(),
};
