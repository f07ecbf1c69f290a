/** One answer in the making. What it says is held until it is certain that the question is over. */

export class Answer {
  /**
   * @param {string} id
   * @param {import("../engine/conversation.js").Conversation} conversation
   * @param {Float32Array | string} question
   * @param {boolean} textOnly
   * @param {(said: import("../engine/conversation.js").Said) => void} tell takes what is said
   */
  constructor(id, conversation, question, textOnly, tell) {
    this.id = id;
    this.conversation = conversation;
    this.question = question;
    this.textOnly = textOnly;
    this.tell = tell;
    /** @type {import("../engine/conversation.js").Said[]} */
    this.held = [];
    this.released = this.left = this.retracted = false;
  }

  /** Make it, a step at a time, so that the worker hears what comes meanwhile. */
  async make() {
    if (!this.left) {
      for await (const said of this.conversation.ask(this.question, { textOnly: this.textOnly })) {
        if (this.left) break;
        this.held.push(said);
        this.pass();
        await otherWork();
        if (this.left) break;
      }
    }
    if (this.retracted) this.conversation.retract();
  }

  /** The question is over: what was held, and all that follows, may be heard. */
  release() {
    this.released = true;
    this.pass();
  }

  /** Nobody listens any more. */
  leave() {
    this.left = true;
  }

  /** The question went on, so that it was none: forget it with what was said. */
  retract() {
    this.left = this.retracted = true;
  }

  pass() {
    if (!this.released) return;
    for (const said of this.held.splice(0)) if (!this.left) this.tell(said);
  }
}

/** Let messages in that came meanwhile. */
function otherWork() {
  return new Promise((resolve) => setTimeout(resolve, 0));
}
