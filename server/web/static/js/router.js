// The address: "#/c/<id>" is a chat, "#/c/<id>/<message>" one of its messages, anything else a new chat.
import { signal } from "@preact/signals";

const parseHash = () => {
  const match = /^#\/c\/([\w-]+)(?:\/([\w-]+))?$/.exec(location.hash);
  return { id: match ? match[1] : null, message: match?.[2] ?? null };
};

const initial = parseHash();

/** The id of the open chat, or null. */
export const openChatId = signal(initial.id);
/** null or {id, message}: the message to be brought into view, once for each object. */
export const targetMessage = signal(initial.message ? initial : null);

export const chatUrl = (id, message = null) => (id === null ? "#/" : `#/c/${id}${message ? `/${message}` : ""}`);

export function navigate(id, { replace = false, message = null } = {}) {
  const url = chatUrl(id, message);
  if (replace) history.replaceState(null, "", url);
  else if (location.hash !== url && !(id === null && openChatId.value === null)) history.pushState(null, "", url);
  targetMessage.value = message ? { id, message } : null;
  openChatId.value = id;
}

function syncFromHash() {
  const { id, message } = parseHash();
  if (message !== targetMessage.value?.message || id !== targetMessage.value?.id) {
    targetMessage.value = message ? { id, message } : null;
  }
  openChatId.value = id;
}

addEventListener("hashchange", syncFromHash);
addEventListener("popstate", syncFromHash);
