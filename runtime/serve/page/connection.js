/**
 * The connection to the server: its facts, and the WebSocket of a session. A browser does not learn why a WebSocket is
 * refused. So the page asks for the server's facts first: if that is refused, the answer gives the reason.
 */

/** The subprotocol that carries the key: a browser cannot send a header with a WebSocket. */
const KEY_PROTOCOL = "openai-insecure-api-key.";

/** The characters of a subprotocol's name, and so of a key (RFC 9110, token). */
const SENDABLE = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/;

/** The server refuses the page, or does not answer. kind: "key", "busy", "lost" or "refused". */
export class Refused extends Error {
  constructor(kind, message) {
    super(message);
    this.kind = kind;
  }
}

/** The server's facts: model, device, sessions. */
export async function askDevice(key) {
  if (key && !SENDABLE.test(key)) {
    throw new Refused("key", "A browser cannot send this key. Use letters, digits and any of !#$%&'*+.^_`|~-");
  }
  let response;
  try {
    const headers = key ? { Authorization: `Bearer ${key}` } : {};
    response = await fetch(new URL("v1/device", document.baseURI), { headers });
  } catch {
    throw new Refused("lost", "The server does not answer.");
  }
  if (!response.ok) throw await refusal(response, key);
  return response.json();
}

/** Throws Refused if all sessions of the server are in use. */
export function checkRoom({ sessions }) {
  if (sessions.open < sessions.most) return;
  throw new Refused("busy", `All ${sessions.most} sessions of the server are in use.`);
}

async function refusal(response, key) {
  if (response.status === 401) return new Refused("key", key ? "The server does not know this key." : "");
  const told = await response.json().catch(() => null);
  return new Refused(response.status === 429 ? "busy" : "refused", told?.error?.message ?? response.statusText);
}

/** Open a session; returns its socket. `onEvent` takes the server's events. */
export async function openSocket(key, onEvent) {
  const url = new URL("v1/realtime", document.baseURI);
  url.protocol = url.protocol.replace("http", "ws");
  const socket = new WebSocket(url, ["realtime", ...(key ? [KEY_PROTOCOL + key] : [])]);
  socket.onmessage = ({ data }) => onEvent(JSON.parse(data));
  return new Promise((resolve, reject) => {
    socket.onopen = () => resolve(socket);
    socket.onclose = () => reject(new Refused("lost", "The server opened no session."));
  });
}
