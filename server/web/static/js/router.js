// The address: "#/c/<id>" is a chat, anything else a new one.
import { signal } from "@preact/signals";

const read = () => {
  const match = /^#\/c\/([\w-]+)$/.exec(location.hash);
  return match ? match[1] : null;
};

/** The id of the open chat, or null. */
export const route = signal(read());

export const addressOf = (id) => (id === null ? "#/" : `#/c/${id}`);

export function go(id, { replace = false } = {}) {
  if (replace) history.replaceState(null, "", addressOf(id));
  else if (route.value !== id) history.pushState(null, "", addressOf(id));
  route.value = id;
}

addEventListener("hashchange", () => (route.value = read()));
addEventListener("popstate", () => (route.value = read()));
