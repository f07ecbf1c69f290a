/** 16-bit samples as base64, as events carry them. */

/** @param {Int16Array} samples */
export function toBase64(samples) {
  let text = "";
  for (const byte of new Uint8Array(samples.buffer, samples.byteOffset, samples.byteLength)) text += String.fromCharCode(byte);
  return btoa(text);
}

/** @param {string} text */
export function fromBase64(text) {
  return new Int16Array(Uint8Array.from(atob(text), (character) => character.charCodeAt(0)).buffer);
}
