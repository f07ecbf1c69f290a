/** The page: what its controls do, and how the talk is shown. */

import { chosen, keep } from "./choices.js";
import { askDevice } from "./connection.js";
import { showFacts } from "./facts.js";
import { Latencies } from "./latency.js";
import { Talk } from "./talk.js";
import { Transcript, element } from "./transcript.js";

/** The states in which the device does not listen or answer. */
const OFF = ["Loading", "Not connected", "Connecting", "Waiting for the API key"];

const part = Object.fromEntries([...document.querySelectorAll("[id]")].map((found) => [found.id, found]));
const transcript = new Transcript(part.transcript);
const latencies = new Latencies();

const view = {
  state(text) {
    part.status.textContent = text;
    part.status.classList.toggle("off", OFF.some((state) => text.startsWith(state)));
  },
  trouble(text) {
    part.notice.hidden = !text;
    part.trouble.textContent = text;
  },
  level: (dbfs) => (part.level.value = dbfs),
  asked: (id, text) => transcript.asked(id, text),
  written: (id, text) => transcript.written(id, text),
  answering: (id) => transcript.answering(id),
  piece: (id, text) => transcript.piece(id, text),
  latency(id, seconds, what) {
    transcript.latency(id, seconds, what);
    latencies.add(seconds);
    part.latency.textContent = latencies.text;
  },
  note: (id, text) => transcript.note(id, text),
  joined(device) {
    view.trouble("");
    transcript.begin();
    showDevice(device);
    part.new.disabled = false;
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

function showDevice(device) {
  showFacts(part.facts, device);
  part.examples.hidden = !device.examples?.length;
  part.examples.replaceChildren(...(device.examples ?? []).map(example));
  showVoices(device.voices ?? [], device.voice);
}

function showVoices(voices, own) {
  part["voice-choice"].hidden = voices.length < 2;
  part.voice.replaceChildren(...voices.map((name) => new Option(name, name)));
  const wanted = chosen("voice", own);
  part.voice.value = talk.voice = voices.includes(wanted) ? wanted : (own ?? "");
}

/** A button that asks one of the questions that the model knows. */
function example(text) {
  const button = element("button", "", text);
  button.type = "button";
  button.addEventListener("click", () => ask(text).catch(view.failed));
  return button;
}

function askForKey() {
  part["key-form"].hidden = false;
  view.state("Waiting for the API key");
  part.key.focus();
}

async function look() {
  try {
    const device = await askDevice(talk.key, view.state);
    showDevice(device);
    part["key-form"].hidden = true;
    view.trouble(device.warning ?? "");
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
  try {
    if (await ask(part.text.value)) part.text.value = "";
  } catch (error) {
    view.failed(error);
  }
});

/** Send a question; false if another one is being sent. */
async function ask(text) {
  if (part.text.readOnly) return false;
  part.text.readOnly = true;
  view.trouble("");
  try {
    await talk.write(text);
    return true;
  } finally {
    part.text.readOnly = false;
  }
}

part.new.addEventListener("click", () => {
  const again = talk.listening;
  talk.stop();
  showTalking(false);
  view.trouble("");
  transcript.clear();
  latencies.clear();
  part.latency.textContent = latencies.text;
  part.new.disabled = true;
  if (again) startTalking();
});

part.volume.addEventListener("input", () => {
  talk.turnTo(Number(part.volume.value));
  keep("volume", part.volume.value);
});

part.voice.addEventListener("change", () => {
  talk.speakAs(part.voice.value);
  keep("voice", part.voice.value);
});

document.addEventListener("visibilitychange", () => document.hidden || talk.wake());

part.theme.addEventListener("change", () => {
  document.documentElement.dataset.theme = part.theme.value;
  keep("theme", part.theme.value);
});

part.dismiss.addEventListener("click", () => {
  view.trouble("");
  part.text.focus();
});

part["key-form"].addEventListener("submit", (event) => {
  event.preventDefault();
  talk.key = part.key.value.trim();
  look();
});

part.volume.value = chosen("volume", 1);
talk.turnTo(Number(part.volume.value));
part.theme.value = document.documentElement.dataset.theme = chosen("theme", "auto");
look();
