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
  loaded ??= load(progress);
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
  lostWith = (fault) => {
    socket.readyState = WebSocket.CLOSED;
    socket.onclose({ fault });
  };
  return socket;
}

let lostWith = () => {};

async function load(progress) {
  if (typeof WebAssembly === "undefined") throw new Refused("refused", NO_WEBASSEMBLY);
  navigator.storage?.persist?.(); // ask the browser not to throw the model away when room is short
  const own = new Worker(new URL("../runtime/talk/worker.js", import.meta.url), { type: "module" });
  worker = own;
  return new Promise((resolve, reject) => {
    let watch;
    const alive = () => {
      clearTimeout(watch);
      watch = setTimeout(() => fail(SILENT), 1000 * PATIENCE);
    };
    const fail = (message) => {
      clearTimeout(watch);
      own.onmessage = own.onerror = null;
      own.terminate(); // it gives its memory back; another attempt goes on with what was downloaded
      loaded = worker = undefined;
      const fault = new Refused("refused", message);
      reject(fault); // if it was loading
      lostWith(fault); // if it was talking
      lostWith = () => {};
    };
    alive();
    own.onerror = ({ message }) => fail(`The model's program failed (${message ?? "it cannot be read"}). ${AGAIN}`);
    own.onmessage = ({ data }) => {
      if (data.type === "progress") {
        alive();
        progress(data.text);
        return;
      }
      clearTimeout(watch);
      if (data.type === "event") onEvent(data.event);
      else if (data.type === "ready") resolve(data.device);
      else fail(data.message);
    };
    own.postMessage({ type: "load", base: new URL("../", import.meta.url).href });
  });
}

const AGAIN = "Load this page again. If it happens again, use a newer browser.";
const NO_WEBASSEMBLY = "This browser runs no WebAssembly. Leave its lockdown mode for this page, or use another browser.";
const SILENT = "The model gives no sign of life. Close other tabs and load this page again.";
