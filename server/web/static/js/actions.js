// User actions on chats: send, edit, regenerate, stop, rename, delete, choose a domain.
import { call } from "./api.js";
import { draftOf, setDraft } from "./drafts.js";
import { t } from "./i18n.js";
import { latestOnly } from "./latestOnly.js";
import { navigate, openChatId } from "./router.js";
import { send as sendFrame } from "./socket.js";
import { domains, drawerOpen, newChatDomain, newChatTemporary, toast } from "./state.js";
import { outgoing } from "./thread.js";
import { beginTurn, chatList, currentThread, loadChatList, loadThread, removeThread } from "./threads.js";

const newId = () => crypto.randomUUID?.() ?? `r${Date.now()}-${Math.random().toString(36).slice(2)}`;

function sendTracked(frame, thread, text) {
  const request_id = newId();
  const request = { ...frame, request_id };
  const sent = sendFrame(request);
  const error = sent ? null : { code: "disconnected", message: t("error.disconnected") };
  const knownIds = new Set(thread ? thread.messageSignals.keys() : chatList.value.items.map((item) => item.id));
  outgoing.value = [...outgoing.value, { request_id, frame, thread, text, error, knownIds }];
}

/** Sends a message in the open chat, or begins one. */
export function sendMessage(text) {
  const thread = currentThread.value;
  if (!thread) {
    const domain = newChatDomain.value;
    const temporary = newChatTemporary.value;
    sendTracked({ type: "send", text, ...(domain ? { domain } : {}), ...(temporary ? { temporary } : {}) }, null, text);
    return;
  }
  const parent_id = thread.shownIds.value.at(-1) ?? null;
  sendTracked({ type: "send", text, conversation_id: thread.id, parent_id }, thread, text);
}

/** A new version of a question: a sibling of the old one. */
export function editQuestion(thread, message, text) {
  sendTracked({ type: "send", text, conversation_id: thread.id, parent_id: message.parent_id }, thread, text);
}

/** Another answer, a sibling of `message`, by the chat's domain. */
export function regenerateAnswer(thread, message) {
  sendTracked({ type: "regenerate", message_id: message.id }, thread, "");
}

export function stopAnswer(messageId) {
  if (!sendFrame({ type: "stop", message_id: messageId })) toast(t("error.disconnected"), { kind: "error" });
}

export function retryOutgoing(item) {
  discardOutgoing(item);
  sendTracked(item.frame, item.thread, item.text);
}

/** Puts the text of a refused message back into the composer. */
export function returnToComposer(item) {
  discardOutgoing(item);
  if (item.text) setDraft(item.thread?.id ?? "", item.text);
}

const discardOutgoing = (item) => {
  outgoing.value = outgoing.value.filter((other) => other !== item);
};

/** Handles `started`. A new chat gets its address, unless the user has gone elsewhere meanwhile. */
export function handleStarted(event) {
  const { thread, isNew, sent } = beginTurn(event);
  if (isNew && sent && openChatId.value === null) {
    newChatDomain.value = null;
    newChatTemporary.value = false;
    setDraft(thread.id, draftOf("")); // what was typed meanwhile moves with it
    setDraft("", "");
    currentThread.value = thread;
    navigate(thread.id, { replace: true });
  }
}

/** Handles an `error` frame for a pending message. False when no pending message has its request id. */
export function handleRefusal(event) {
  const item = outgoing.value.find((other) => other.request_id === event.request_id);
  if (!item) return false;
  const error = { code: event.code, message: event.message, retry_after: event.retry_after };
  outgoing.value = outgoing.value.map((other) => (other === item ? { ...other, error } : other));
  return true;
}

/** The connection was lost with messages not confirmed: they may or may not have arrived. */
export async function reconcileOutgoing() {
  const unconfirmed = outgoing.value.filter((item) => !item.error);
  if (!unconfirmed.length) return;
  outgoing.value = outgoing.value.filter((item) => !unconfirmed.includes(item));
  for (const item of unconfirmed) {
    if (item.thread) await loadThread(item.thread);
    else await loadChatList();
    if (wasStored(item) || item.frame.type === "regenerate") continue;
    outgoing.value = [...outgoing.value, { ...item, error: { code: "unconfirmed", message: t("error.unconfirmed") } }];
  }
}

/** Whether the server has stored this text since it was sent. */
function wasStored({ thread, text, knownIds }) {
  if (thread) {
    return [...thread.messageSignals].some(([id, { value }]) => (
      !knownIds.has(id) && value.role === "user" && value.text === text));
  }
  const opening = text.split(/\s+/).filter(Boolean).join(" ").slice(0, 60);
  return chatList.value.items.some((item) => !knownIds.has(item.id) && item.title.startsWith(opening));
}

/** An empty chat, with the cursor in it. */
export function newChat(event) {
  event?.preventDefault();
  drawerOpen.value = false;
  newChatTemporary.value = false;
  navigate(null);
  requestAnimationFrame(() => document.querySelector(".composer textarea")?.focus());
}

// ── conversations ────────────────────────────────────────────────────────────────────────────────

const chatPath = (id) => `/api/conversations/${encodeURIComponent(id)}`;

export async function renameChat(id, title) {
  try {
    await call("PATCH", chatPath(id), { title });
    await loadChatList();
  } catch (error) {
    toast(error.message, { kind: "error" });
  }
}

/** With `memories` what was remembered from the chat is forgotten with it. */
export async function deleteChat(id, { memories = false } = {}) {
  try {
    await call("DELETE", memories ? `${chatPath(id)}?memories=forget` : chatPath(id));
    setDraft(id, "");
    removeThread(id);
    if (openChatId.value === id) navigate(null, { replace: true });
    return true;
  } catch (error) {
    toast(error.message, { kind: "error" });
    return false;
  }
}

/** null is "auto". */
export async function chooseDomain(name) {
  const thread = currentThread.value;
  if (!thread) {
    newChatDomain.value = name;
    return;
  }
  const previous = thread.domain.value;
  thread.domain.value = name;
  try {
    await call("PATCH", chatPath(thread.id), { domain: name });
  } catch (error) {
    thread.domain.value = previous;
    toast(error.message, { kind: "error" });
  }
}

export const loadDomains = latestOnly(() => call("GET", "/api/domains"), (result, error) => {
  if (error) {
    const state = domains.value.items.length ? "ready" : "error";
    domains.value = { ...domains.value, state, error: error.message };
    return;
  }
  const { domains: items, problems, default: defaultDomain } = result;
  domains.value = { state: "ready", items, problems, default: defaultDomain, error: "" };
  if (newChatDomain.value && !items.some((item) => item.name === newChatDomain.value)) newChatDomain.value = null;
});
