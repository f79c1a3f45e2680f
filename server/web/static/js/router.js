// The address: "#/c/<id>" is a chat, "#/c/<id>/<message>" one of its messages, anything else a new chat.
import { signal } from "@preact/signals";

const read = () => {
  const match = /^#\/c\/([\w-]+)(?:\/([\w-]+))?$/.exec(location.hash);
  return { id: match ? match[1] : null, message: match?.[2] ?? null };
};

const first = read();

/** The id of the open chat, or null. */
export const route = signal(first.id);
/** null or {id, message}: the message to be brought into view, once for each object. */
export const target = signal(first.message ? first : null);

export const addressOf = (id, message = null) => (id === null ? "#/" : `#/c/${id}${message ? `/${message}` : ""}`);

export function go(id, { replace = false, message = null } = {}) {
  const address = addressOf(id, message);
  if (replace) history.replaceState(null, "", address);
  else if (location.hash !== address && !(id === null && route.value === null)) history.pushState(null, "", address);
  target.value = message ? { id, message } : null;
  route.value = id;
}

function follow() {
  const { id, message } = read();
  if (message !== target.value?.message || id !== target.value?.id) target.value = message ? { id, message } : null;
  route.value = id;
}

addEventListener("hashchange", follow);
addEventListener("popstate", follow);
