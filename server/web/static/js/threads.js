// The chats held in this page: their message trees, and the events of running answers put into them.
import { batch, signal } from "@preact/signals";
import { call } from "./api.js";
import { newest } from "./newest.js";
import { send } from "./socket.js";
import { homes, outgoing, Thread } from "./thread.js";
import { answerOf, applyEvent, fromStored, questionOf, rewound } from "./turn.js";

/** The list of conversations. state: loading, ready, error. */
export const list = signal({ state: "loading", items: [], error: "" });
/** The open chat; null for a new one. */
export const current = signal(null);

const threads = new Map(); // conversation id → Thread
const resuming = new Set();

// ── loading ──────────────────────────────────────────────────────────────────────────────────────

export const loadList = newest(() => call("GET", "/api/conversations"), (found, error) => {
  if (error) {
    list.value = { ...list.value, state: list.value.items.length ? "ready" : "error", error: error.message };
    return;
  }
  list.value = { state: "ready", items: found.conversations, error: "" };
  followList(found.conversations);
});

/** Takes over what another tab or program changed in the open chat. */
function followList(conversations) {
  for (const item of conversations) {
    const thread = threads.get(item.id);
    if (!thread) continue;
    thread.title.value = item.title;
    thread.domain.value = item.domain;
    thread.temporary.value = Boolean(item.temporary);
    const newer = item.updated_at > thread.updatedAt && !thread.own;
    thread.own = false;
    thread.updatedAt = item.updated_at;
    if (newer && thread.state.value === "ready" && !thread.live()) {
      if (thread === current.value) loadThread(thread);
      else threads.delete(item.id);
    }
  }
}

/** Shows a chat, from memory when it is there. */
export function openThread(id) {
  if (id === null) {
    current.value = null;
    return;
  }
  let thread = threads.get(id);
  if (!thread) {
    const known = list.value.items.find((item) => item.id === id);
    thread = new Thread(id, known?.title, known?.domain, known?.temporary);
    threads.set(id, thread);
  }
  current.value = thread;
  if (thread.state.value !== "ready") loadThread(thread);
}

export async function loadThread(thread) {
  if (thread.state.value === "error") thread.state.value = "loading";
  try {
    const stored = await call("GET", `/api/conversations/${encodeURIComponent(thread.id)}`);
    batch(() => {
      thread.title.value = stored.title;
      thread.domain.value = stored.domain;
      thread.temporary.value = Boolean(stored.temporary);
      thread.updatedAt = stored.updated_at;
      for (const message of stored.messages) if (!homes.has(message.id)) thread.putStored(message);
      thread.state.value = "ready";
    });
    for (const message of stored.messages) {
      if (message.status === "streaming" && !homes.has(message.id)) follow(thread, rewound(fromStored(message)));
    }
  } catch (error) {
    if (thread.state.value === "ready") return; // what is shown is still true, only older
    thread.error.value = error.message;
    thread.state.value = "error";
  }
}

export function forget(id) {
  threads.delete(id);
  list.value = { ...list.value, items: list.value.items.filter((item) => item.id !== id) };
}

// ── running answers ──────────────────────────────────────────────────────────────────────────────

function follow(thread, message) {
  thread.put(message);
  homes.set(message.id, thread);
  resume(message.id);
}

function resume(id) {
  const after = homes.get(id).cells.get(id).value.seq;
  if (send({ type: "resume", message_id: id, after_seq: after })) resuming.add(id);
}

/** After a new connection: asks for the rest of every answer that was not closed. */
export function resumeAll() {
  flush();
  for (const id of homes.keys()) resume(id);
}

/** A resume was refused: the server no longer holds those events, so the stored answers are fetched. */
export function resumeRefused() {
  const lost = [...resuming];
  resuming.clear();
  for (const id of lost) {
    const thread = homes.get(id);
    homes.delete(id);
    const cell = thread.cells.get(id);
    cell.value = { ...cell.value, status: "interrupted", phase: "" };
    refetch(thread);
  }
  return lost.length > 0;
}

async function refetch(thread) {
  try {
    const stored = await call("GET", `/api/conversations/${encodeURIComponent(thread.id)}`);
    for (const message of stored.messages) {
      if (homes.has(message.id)) continue;
      thread.putStored(message.status === "streaming" ? { ...message, status: "interrupted" } : message);
    }
  } catch {
    // shown as interrupted, which is what is known
  }
}

let queue = [];
let frame = 0;

/** Takes an event of a turn. Events are put in once a frame, so that fast tokens do not redraw each time. */
export function receive(event) {
  queue.push(event);
  if (frame) return;
  const hidden = document.visibilityState === "hidden"; // no frames are drawn there
  frame = hidden ? setTimeout(flush, 100) : requestAnimationFrame(flush);
}

const OF_MEMORY = ["memory_saved", "memory_forgotten"];

let onAnswer = () => {};
/** `callback(message)` when an answer ends, `callback(message, true)` when memories were saved or forgotten. */
export function whenAnswered(callback) {
  onAnswer = callback;
}

function flush() {
  const events = queue;
  queue = [];
  frame = 0;
  batch(() => {
    for (const event of events) put(event);
  });
}

function put(event) {
  const thread = homes.get(event.message_id);
  if (!thread) return;
  resuming.delete(event.message_id);
  const cell = thread.cells.get(event.message_id);
  if (event.seq <= cell.value.seq) return; // sent twice around a resume
  if (event.seq > cell.value.seq + 1) {
    resume(event.message_id); // a gap: ask again from where we are
    return;
  }
  const before = cell.value.status;
  cell.value = applyEvent(cell.value, event);
  if (event.type === "closed") homes.delete(event.message_id);
  if (before === "streaming" && cell.value.status !== "streaming") onAnswer(cell.value, false);
  if (OF_MEMORY.includes(event.type)) onAnswer(cell.value, true);
}

/** `started`: the question is stored and its answer begins. Gives the thread and whether it is new. */
export function begin(event) {
  const item = outgoing.value.find((held) => held.request_id === event.request_id);
  outgoing.value = outgoing.value.filter((held) => held !== item);
  let thread = threads.get(event.conversation_id);
  const fresh = !thread;
  if (fresh) {
    thread = new Thread(event.conversation_id, event.title, item?.frame.domain ?? null, item?.frame.temporary);
    thread.state.value = "ready";
    threads.set(thread.id, thread);
  }
  thread.own = true;
  const now = Date.now() / 1000;
  batch(() => {
    if (!thread.cells.has(event.user_message_id)) thread.put(questionOf(event, item?.text ?? "", now));
    homes.set(event.message_id, thread);
    thread.put(answerOf(event, now));
    thread.show(event.message_id);
  });
  return { thread, fresh, item };
}
