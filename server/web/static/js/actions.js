// What a user does with chats: send, edit, regenerate, stop, rename, delete, choose a domain.
import { call } from "./api.js";
import { draftOf, setDraft } from "./drafts.js";
import { t } from "./i18n.js";
import { newest } from "./newest.js";
import { go, route } from "./router.js";
import { send as sendFrame } from "./socket.js";
import { domains, drawer, newDomain, newTemporary, toast } from "./state.js";
import { outgoing } from "./thread.js";
import { begin, current, forget, list, loadList, loadThread } from "./threads.js";

const newId = () => crypto.randomUUID?.() ?? `r${Date.now()}-${Math.random().toString(36).slice(2)}`;

function post(frame, thread, text) {
  const request_id = newId();
  const whole = { ...frame, request_id };
  const sent = sendFrame(whole);
  const error = sent ? null : { code: "disconnected", message: t("error.disconnected") };
  const known = new Set(thread ? thread.cells.keys() : list.value.items.map((item) => item.id));
  outgoing.value = [...outgoing.value, { request_id, frame, thread, text, error, known }];
}

/** Asks in the open chat, or begins one. */
export function ask(text) {
  const thread = current.value;
  if (!thread) {
    const domain = newDomain.value;
    const temporary = newTemporary.value;
    post({ type: "send", text, ...(domain ? { domain } : {}), ...(temporary ? { temporary } : {}) }, null, text);
    return;
  }
  post({ type: "send", text, conversation_id: thread.id, parent_id: thread.shown.value.at(-1) ?? null }, thread, text);
}

/** A new version of a question, beside the old one. */
export function edit(thread, message, text) {
  post({ type: "send", text, conversation_id: thread.id, parent_id: message.parent_id }, thread, text);
}

/** Another answer beside `message`, by the chat's domain. */
export function regenerate(thread, message) {
  post({ type: "regenerate", message_id: message.id }, thread, "");
}

export function stop(messageId) {
  if (!sendFrame({ type: "stop", message_id: messageId })) toast(t("error.disconnected"), { kind: "error" });
}

export function retry(item) {
  discard(item);
  post(item.frame, item.thread, item.text);
}

/** Takes a refused message back into the composer. */
export function takeBack(item) {
  discard(item);
  if (item.text) setDraft(item.thread?.id ?? "", item.text);
}

const discard = (item) => {
  outgoing.value = outgoing.value.filter((held) => held !== item);
};

/** `started` came. A new chat gets its address, unless the user has gone elsewhere meanwhile. */
export function started(event) {
  const { thread, fresh, item } = begin(event);
  if (fresh && item && route.value === null) {
    newDomain.value = null;
    newTemporary.value = false;
    setDraft(thread.id, draftOf("")); // what was typed meanwhile goes along
    setDraft("", "");
    current.value = thread;
    go(thread.id, { replace: true });
  }
}

/** A frame was refused. True when it was one of ours. */
export function refused(event) {
  const item = outgoing.value.find((held) => held.request_id === event.request_id);
  if (!item) return false;
  const error = { code: event.code, message: event.message };
  outgoing.value = outgoing.value.map((held) => (held === item ? { ...held, error } : held));
  return true;
}

/** The connection was lost with messages not confirmed: they may or may not have arrived. */
export async function settleOutgoing() {
  const open = outgoing.value.filter((item) => !item.error);
  if (!open.length) return;
  outgoing.value = outgoing.value.filter((item) => !open.includes(item));
  for (const item of open) {
    if (item.thread) await loadThread(item.thread);
    else await loadList();
    if (arrived(item) || item.frame.type === "regenerate") continue;
    outgoing.value = [...outgoing.value, { ...item, error: { code: "unconfirmed", message: t("error.unconfirmed") } }];
  }
}

/** Whether something new with this text is there since it was sent. */
function arrived({ thread, text, known }) {
  if (thread) {
    return [...thread.cells].some(([id, { value }]) => !known.has(id) && value.role === "user" && value.text === text);
  }
  const opening = text.split(/\s+/).filter(Boolean).join(" ").slice(0, 60);
  return list.value.items.some((item) => !known.has(item.id) && item.title.startsWith(opening));
}

/** An empty chat, with the cursor in it. */
export function newChat(event) {
  event?.preventDefault();
  drawer.value = false;
  newTemporary.value = false;
  go(null);
  requestAnimationFrame(() => document.querySelector(".composer textarea")?.focus());
}

// ── conversations ────────────────────────────────────────────────────────────────────────────────

const path = (id) => `/api/conversations/${encodeURIComponent(id)}`;

export async function rename(id, title) {
  try {
    await call("PATCH", path(id), { title });
    await loadList();
  } catch (error) {
    toast(error.message, { kind: "error" });
  }
}

/** With `memories` what was remembered from the chat is forgotten with it. */
export async function remove(id, { memories = false } = {}) {
  try {
    await call("DELETE", memories ? `${path(id)}?memories=forget` : path(id));
    setDraft(id, "");
    forget(id);
    if (route.value === id) go(null, { replace: true });
    return true;
  } catch (error) {
    toast(error.message, { kind: "error" });
    return false;
  }
}

/** null is "auto". */
export async function chooseDomain(name) {
  const thread = current.value;
  if (!thread) {
    newDomain.value = name;
    return;
  }
  const before = thread.domain.value;
  thread.domain.value = name;
  try {
    await call("PATCH", path(thread.id), { domain: name });
  } catch (error) {
    thread.domain.value = before;
    toast(error.message, { kind: "error" });
  }
}

export const loadDomains = newest(() => call("GET", "/api/domains"), (found, error) => {
  if (error) {
    const state = domains.value.items.length ? "ready" : "error";
    domains.value = { ...domains.value, state, error: error.message };
    return;
  }
  const { domains: items, problems, default: standard } = found;
  domains.value = { state: "ready", items, problems, default: standard, error: "" };
  if (newDomain.value && !items.some((item) => item.name === newDomain.value)) newDomain.value = null;
});
