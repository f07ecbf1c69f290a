/** What the user chose on this page, kept in the browser for the next visit. A browser may refuse to keep it. */

const PREFIX = "voxrill.";

/** The choice of that name, or `otherwise`. */
export function chosen(name, otherwise) {
  try {
    return localStorage.getItem(PREFIX + name) ?? otherwise;
  } catch {
    return otherwise;
  }
}

export function keep(name, value) {
  try {
    localStorage.setItem(PREFIX + name, value);
  } catch {
    // It holds for this visit only.
  }
}
