/** The questions and answers, as a list in the page. Text from the server and the user is never read as markup. */

export class Transcript {
  constructor(list) {
    this.list = list;
    this.lines = new Map();
  }

  /** A turn of the user. text null: it is not transcribed yet. */
  asked(id, text) {
    this.write(this.line(id, "you", "You"), text ?? "…", text === null);
  }

  /** The transcript of a turn has arrived. text null: there is none. */
  written(id, text) {
    if (this.lines.has(id)) this.write(this.lines.get(id), text || (text === null ? "not understood" : "no words"), !text);
  }

  answering(id) {
    this.line(id, "device", "Device");
  }

  /** More of an answer. */
  piece(id, text) {
    this.follow(() => this.lines.get(id).text.append(text));
  }

  /** How fast an answer was. */
  latency(id, seconds, what) {
    this.note(id, `${seconds.toFixed(2)} s to the first ${what}`);
  }

  /** A remark on an answer. */
  note(id, text) {
    this.follow(() => this.lines.get(id)?.notes.append(element("span", "note", text)));
  }

  /** Forget every line. */
  clear() {
    this.lines.clear();
    this.list.replaceChildren();
  }

  /** A session begins. It knows nothing of the one before. */
  begin() {
    if (!this.lines.size) return;
    const remark = element("div", "remark", "A new session: the device has forgotten what was said before.");
    this.follow(() => this.list.append(remark));
  }

  line(id, kind, who) {
    const turn = element("div", kind);
    const line = { text: element("p", "said"), notes: element("p", "notes") };
    turn.append(element("span", "who", who), line.text, line.notes);
    this.follow(() => this.list.append(turn));
    this.lines.set(id, line);
    return line;
  }

  write(line, text, unsaid) {
    this.follow(() => (line.text.textContent = text));
    line.text.classList.toggle("unsaid", unsaid);
  }

  /** Change the list. If its end was visible, keep it visible. */
  follow(change) {
    const { list } = this;
    const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
    change();
    if (atEnd) list.scrollTop = list.scrollHeight;
  }
}

/** An element with text in it. */
export function element(tag, kind, text = "") {
  const made = document.createElement(tag);
  made.className = kind;
  made.textContent = text;
  return made;
}
