// The chats loaded in this page, and the events of running answers applied to their messages.
import { batch, signal } from "@preact/signals";
import { call } from "./api.js";
import { latestOnly } from "./latestOnly.js";
import { send } from "./socket.js";
import { outgoing, Thread, threadOfAnswer } from "./thread.js";
import { applyEvent, createAnswer, createQuestion, fromStored, resetForReplay } from "./turn.js";

/** The list of conversations. state: loading, ready, error. */
export const chatList = signal({ state: "loading", items: [], error: "" });
/** The open chat; null for a new one. */
export const currentThread = signal(null);

const threads = new Map(); // conversation id → Thread
const resuming = new Set();

// ── loading ──────────────────────────────────────────────────────────────────────────────────────

export const loadChatList = latestOnly(() => call("GET", "/api/conversations"), (result, error) => {
  if (error) {
    const state = chatList.value.items.length ? "ready" : "error";
    chatList.value = { ...chatList.value, state, error: error.message };
    return;
  }
  chatList.value = { state: "ready", items: result.conversations, error: "" };
  applyChatList(result.conversations);
});

/** Applies what another tab or program changed, according to the chat list. */
function applyChatList(conversations) {
  for (const item of conversations) {
    const thread = threads.get(item.id);
    if (!thread) continue;
    thread.title.value = item.title;
    thread.domain.value = item.domain;
    thread.temporary.value = Boolean(item.temporary);
    const changedElsewhere = item.revision !== thread.revision && !thread.ownChange;
    thread.ownChange = false;
    if (changedElsewhere && thread.hasLiveAnswers()) continue; // looked at again when they end
    thread.revision = item.revision;
    if (changedElsewhere && thread.state.value === "ready") {
      if (thread === currentThread.value) loadThread(thread);
      else threads.delete(item.id);
    }
  }
}

/** Shows a chat, from memory when it is there. */
export function openThread(id) {
  if (id === null) {
    currentThread.value = null;
    return;
  }
  let thread = threads.get(id);
  if (!thread) {
    const listed = chatList.value.items.find((item) => item.id === id);
    thread = new Thread(id, listed?.title, listed?.domain, listed?.temporary);
    threads.set(id, thread);
  }
  currentThread.value = thread;
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
      thread.revision = stored.revision;
      for (const message of stored.messages) if (!threadOfAnswer.has(message.id)) thread.mergeStored(message);
      thread.state.value = "ready";
    });
    for (const message of stored.messages) {
      if (message.status === "streaming" && !threadOfAnswer.has(message.id)) {
        followAnswer(thread, resetForReplay(fromStored(message)));
      }
    }
  } catch (error) {
    if (thread.state.value === "ready") return; // what is shown is still true, only older
    thread.error.value = error.message;
    thread.state.value = "error";
  }
}

export function removeThread(id) {
  threads.delete(id);
  chatList.value = { ...chatList.value, items: chatList.value.items.filter((item) => item.id !== id) };
}

// ── running answers ──────────────────────────────────────────────────────────────────────────────

function followAnswer(thread, message) {
  thread.upsert(message);
  threadOfAnswer.set(message.id, thread);
  resume(message.id);
}

function resume(id) {
  const after = threadOfAnswer.get(id).messageSignals.get(id).value.seq;
  if (send({ type: "resume", message_id: id, after_seq: after })) resuming.add(id);
}

/** After a new connection: asks for the rest of every answer that was not closed. */
export function resumeAll() {
  flushEvents();
  for (const id of threadOfAnswer.keys()) resume(id);
}

/** A resume was refused: the server no longer holds those events, so the stored answers are fetched. */
export function handleResumeRefused() {
  const ids = [...resuming];
  resuming.clear();
  for (const id of ids) {
    const thread = threadOfAnswer.get(id);
    threadOfAnswer.delete(id);
    const messageSignal = thread.messageSignals.get(id);
    messageSignal.value = { ...messageSignal.value, status: "interrupted", phase: "" };
    refetch(thread);
  }
  return ids.length > 0;
}

async function refetch(thread) {
  try {
    const stored = await call("GET", `/api/conversations/${encodeURIComponent(thread.id)}`);
    for (const message of stored.messages) {
      if (threadOfAnswer.has(message.id)) continue;
      thread.mergeStored(message.status === "streaming" ? { ...message, status: "interrupted" } : message);
    }
  } catch {
    // shown as interrupted, which is what is known
  }
}

let eventQueue = [];
let flushHandle = 0;

/** Queues an event of a turn. The queue is applied once per frame, so that fast tokens do not redraw each time. */
export function queueEvent(event) {
  eventQueue.push(event);
  if (flushHandle) return;
  const pageHidden = document.visibilityState === "hidden"; // no frames are drawn there
  flushHandle = pageHidden ? setTimeout(flushEvents, 100) : requestAnimationFrame(flushEvents);
}

const MEMORY_EVENTS = ["memory_saved", "memory_forgotten"];

let answerHandler = () => {};
/** `callback(message)` when an answer ends, `callback(message, true)` when memories were saved or forgotten. */
export function setAnswerHandler(callback) {
  answerHandler = callback;
}

function flushEvents() {
  const events = eventQueue;
  eventQueue = [];
  flushHandle = 0;
  batch(() => {
    for (const event of events) applyQueuedEvent(event);
  });
}

function applyQueuedEvent(event) {
  const thread = threadOfAnswer.get(event.message_id);
  if (!thread) return;
  resuming.delete(event.message_id);
  const messageSignal = thread.messageSignals.get(event.message_id);
  if (event.seq <= messageSignal.value.seq) return; // sent twice around a resume
  if (event.seq > messageSignal.value.seq + 1) {
    resume(event.message_id); // a gap: ask again from where we are
    return;
  }
  const previousStatus = messageSignal.value.status;
  messageSignal.value = applyEvent(messageSignal.value, event);
  if (event.type === "closed") {
    threadOfAnswer.delete(event.message_id);
    if (messageSignal.value.memories_forgotten) loadThread(thread); // messages lost the words that said it
  }
  if (previousStatus === "streaming" && messageSignal.value.status !== "streaming") {
    answerHandler(messageSignal.value, false);
  }
  if (MEMORY_EVENTS.includes(event.type)) answerHandler(messageSignal.value, true);
}

/** `started`: the question is stored and its answer begins. Gives the thread and whether it is new. */
export function beginTurn(event) {
  const sent = outgoing.value.find((other) => other.request_id === event.request_id);
  outgoing.value = outgoing.value.filter((other) => other !== sent);
  let thread = threads.get(event.conversation_id);
  const isNew = !thread;
  if (isNew) {
    thread = new Thread(event.conversation_id, event.title, sent?.frame.domain ?? null, sent?.frame.temporary);
    thread.state.value = "ready";
    threads.set(thread.id, thread);
  }
  thread.ownChange = true;
  const now = Date.now() / 1000;
  batch(() => {
    if (!thread.messageSignals.has(event.user_message_id)) thread.upsert(createQuestion(event, sent?.text ?? "", now));
    threadOfAnswer.set(event.message_id, thread);
    thread.upsert(createAnswer(event, now));
    thread.showBranchOf(event.message_id);
  });
  return { thread, isNew, sent };
}
