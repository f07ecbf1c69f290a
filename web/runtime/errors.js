/**
 * The errors that this runtime raises on purpose: what is wrong, and what to do. Every other error is a fault of the
 * program or of the device: it ends the worker, because nothing is known of its state after it.
 */

export class VoxrillError extends Error {}

/** A bundle that this runtime cannot run. */
export class BundleError extends VoxrillError {}

/** What was downloaded is not what the site promises, or cannot be had. */
export class DownloadError extends VoxrillError {}

/** What was taken in no longer fits. */
export class ContextFull extends VoxrillError {}

/** Words that a model with a closed vocabulary does not know. */
export class UnknownWords extends VoxrillError {}

const AGAIN = "Close other tabs and start again. If it happens again, use a smaller bundle.";

/** What the user reads of any error. @param {unknown} error @returns {string} */
export function told(error) {
  if (error instanceof VoxrillError) return error.message;
  const message = error instanceof Error ? error.message : String(error);
  const short = error instanceof RangeError || /memory|alloc/i.test(message); // WebAssembly has no class for it
  return short
    ? `The browser has too little memory for this model (${message}). ${AGAIN}`
    : `The model's program failed (${message}). ${AGAIN}`;
}
