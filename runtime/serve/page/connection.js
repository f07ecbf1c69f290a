/**
 * The way to the server: what it says of itself, and the WebSocket of a session. A browser is not told why a WebSocket
 * is refused; so the server is asked for itself before, and what it answers says in words why it would not.
 */

/** How the server takes a key from a browser, which can send no header with a WebSocket. */
const KEY_PROTOCOL = "openai-insecure-api-key.";

/** What a name of a subprotocol, and so a key, may be made of (RFC 9110, token). */
const SENDABLE = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/;

/** The server does not let us in. kind: "key", "busy", "lost" or "refused". */
export class Refused extends Error {
  constructor(kind, message) {
    super(message);
    this.kind = kind;
  }
}

/** The server's facts of itself. */
export async function askDevice(key) {
  if (key && !SENDABLE.test(key)) {
    throw new Refused("key", "A browser cannot send this key: it takes letters, digits and any of !#$%&'*+.^_`|~-");
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

/** Refused if all of the server's sessions are taken. */
export function checkRoom({ sessions }) {
  if (sessions.open < sessions.most) return;
  throw new Refused("busy", `The server holds ${sessions.most} talks at once, and all are taken.`);
}

async function refusal(response, key) {
  if (response.status === 401) return new Refused("key", key ? "The server does not know this key." : "");
  const told = await response.json().catch(() => null);
  return new Refused(response.status === 429 ? "busy" : "refused", told?.error?.message ?? response.statusText);
}

/** Open a session: its socket. `onEvent` takes the server's events. */
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
