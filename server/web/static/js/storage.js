// Small values kept in this browser. Works, without keeping, where storage is closed.

const PREFIX = "tailor.";

export function load(key, fallback = null) {
  try {
    return localStorage.getItem(PREFIX + key) ?? fallback;
  } catch {
    return fallback;
  }
}

/** An empty value or null removes the key. */
export function save(key, value) {
  try {
    if (value) localStorage.setItem(PREFIX + key, value);
    else localStorage.removeItem(PREFIX + key);
  } catch {
    // full or closed storage: the value lives until the page is left
  }
}
