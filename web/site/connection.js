/**
 * The page's connection to a model in this browser: it takes the place of the connection to a server, and has the same
 * parts. The model runs in a worker of its own, so that the page never waits for it.
 */

/** The device refuses the page. kind: always "refused": what is missing does not come by trying again. */
export class Refused extends Error {
  constructor(kind, message) {
    super(message);
    this.kind = kind;
  }
}

/** Seconds in which the worker must give a sign of life. */
const PATIENCE = 60;

let worker;
let loaded;
let onEvent = () => {};

/** The facts of the model, once it is loaded. `progress` is told what is being done. */
export function askDevice(_key, progress = () => {}) {
  loaded ??= load(progress).catch((error) => {
    worker?.terminate();
    loaded = worker = undefined; // another attempt goes on with what was downloaded
    throw error;
  });
  return loaded;
}

/** There is always room. */
export function checkRoom() {}

/** Begin a talk; returns what the page uses as its socket. */
export async function openSocket(_key, take) {
  await askDevice();
  onEvent = take;
  worker.postMessage({ type: "open" });
  const socket = {
    readyState: WebSocket.OPEN,
    onclose: () => {},
    send: (text) => worker?.postMessage({ type: "event", event: JSON.parse(text) }),
    close: () => {
      socket.readyState = WebSocket.CLOSED;
      worker?.postMessage({ type: "close" });
    },
  };
  lostWith = (reason) => {
    socket.readyState = WebSocket.CLOSED;
    socket.onclose({ reason });
  };
  return socket;
}

let lostWith = () => {};

function load(progress) {
  navigator.storage?.persist?.(); // ask the browser not to throw the model away when room is short
  worker = new Worker(new URL("../runtime/talk/worker.js", import.meta.url), { type: "module" });
  return new Promise((resolve, reject) => {
    let watch;
    const alive = () => {
      clearTimeout(watch);
      watch = setTimeout(() => reject(new Refused("refused", SILENT)), 1000 * PATIENCE);
    };
    alive();
    worker.onerror = (event) => {
      reject(new Refused("refused", `The model's program failed (${event.message ?? "it was stopped"}). ${SMALLER}`));
      loaded = undefined;
      lostWith("");
    };
    worker.onmessage = ({ data }) => {
      if (data.type === "progress") {
        alive();
        progress(data.text);
        return;
      }
      clearTimeout(watch);
      if (data.type === "event") onEvent(data.event);
      else if (data.type === "ready") resolve(data.device);
      else reject(new Refused("refused", data.message));
    };
    worker.postMessage({ type: "load", base: new URL("../", import.meta.url).href });
  });
}

const SMALLER = "Close other tabs and load this page again. If it happens again, this device has too little memory.";
const SILENT = `The model gives no sign of life. ${SMALLER}`;
