/** The page: what its controls do, and how the talk is shown. */

import { askDevice } from "./connection.js";
import { showFacts } from "./facts.js";
import { Talk } from "./talk.js";
import { Transcript } from "./transcript.js";

const part = Object.fromEntries([...document.querySelectorAll("[id]")].map((found) => [found.id, found]));
const transcript = new Transcript(part.transcript);

const view = {
  state: (text) => (part.status.textContent = text),
  trouble: (text) => (part.trouble.textContent = text),
  level: (dbfs) => (part.level.value = dbfs),
  asked: (id, text) => transcript.asked(id, text),
  written: (id, text) => transcript.written(id, text),
  answering: (id) => transcript.answering(id),
  piece: (id, text) => transcript.piece(id, text),
  latency: (id, seconds, what) => transcript.latency(id, seconds, what),
  note: (id, text) => transcript.note(id, text),
  joined(device) {
    view.trouble("");
    transcript.begin();
    showFacts(part.facts, device);
  },
  failed(error) {
    if (error.name === "AbortError") return; // the user ended it
    view.trouble(error.message);
    showTalking(talk.listening);
    if (error.kind === "key") askForKey();
  },
};

const talk = new Talk(view);

function showTalking(on) {
  part.talk.textContent = on ? "Stop" : "Start talking";
  part.talk.classList.toggle("on", on);
  part.mute.disabled = part.hold.disabled = !on;
  if (!on) part.level.value = part.level.min;
}

function askForKey() {
  part["key-form"].hidden = false;
  view.state("Waiting for the API key");
  part.key.focus();
}

async function look() {
  try {
    showFacts(part.facts, await askDevice(talk.key));
    part["key-form"].hidden = true;
    view.trouble("");
    view.state("Not connected");
  } catch (error) {
    view.state("Not connected");
    view.failed(error);
  }
}

async function startTalking() {
  view.trouble("");
  showTalking(true);
  try {
    await talk.speak();
  } catch (error) {
    view.failed(error);
  }
}

part.talk.addEventListener("click", () => {
  if (!part.talk.classList.contains("on")) return startTalking();
  talk.stop();
  view.trouble("");
  showTalking(false);
});

part.mute.addEventListener("click", () => {
  talk.mute(!talk.muted);
  part.mute.setAttribute("aria-pressed", talk.muted);
});

part["by-hand"].addEventListener("change", () => {
  part.hold.hidden = !part["by-hand"].checked;
  talk.pushToTalk(part["by-hand"].checked);
});

part.hold.addEventListener("pointerdown", () => talk.press());
part.hold.addEventListener("keydown", (event) => {
  if ([" ", "Enter"].includes(event.key) && !event.repeat) talk.press();
});
for (const end of ["pointerup", "pointercancel", "pointerleave", "keyup", "blur"]) {
  part.hold.addEventListener(end, () => talk.release());
}

part["write-form"].addEventListener("submit", async (event) => {
  event.preventDefault();
  if (part.text.readOnly) return;
  part.text.readOnly = true;
  view.trouble("");
  try {
    await talk.write(part.text.value);
    part.text.value = "";
  } catch (error) {
    view.failed(error);
  }
  part.text.readOnly = false;
});

part["key-form"].addEventListener("submit", (event) => {
  event.preventDefault();
  talk.key = part.key.value.trim();
  look();
});

look();
