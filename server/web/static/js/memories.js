// The user's memories: the list that the panel shows, what this page knows of each, and changing them.
import { signal } from "@preact/signals";
import { call } from "./api.js";
import { t } from "./i18n.js";
import { newest } from "./newest.js";
import { dialog, toast } from "./state.js";

export const KINDS = ["identity", "preference", "instruction", "project", "relation", "event", "fact"];

/** What the panel asks for. */
export const wanted = signal({ query: "", kind: "", past: false });
/** The answer to it; `total` and `paused` are the same whatever is asked for. */
export const memories = signal({ state: "loading", items: [], total: 0, paused: false, off: [], error: "" });
/** id → the memory as this page last heard of it, or null: it is forgotten. */
export const known = signal(new Map());

const path = (id) => `/api/memories/${id}`;

function address({ query, kind, past }) {
  const asked = new URLSearchParams();
  if (query.trim()) asked.set("query", query.trim());
  if (kind) asked.set("kind", kind);
  if (past) asked.set("past", "true");
  return asked.size ? `/api/memories?${asked}` : "/api/memories";
}

export const loadMemories = newest(() => call("GET", address(wanted.value)), (found, error) => {
  const held = memories.value;
  if (error) {
    memories.value = { ...held, state: held.state === "ready" ? "ready" : "error", error: error.message };
    return;
  }
  const { memories: items, total = items.length, paused = false, domains_off: off = [] } = found;
  memories.value = { state: "ready", items, total, paused, off, error: "" };
});

/** Changes what the panel asks for. */
export function want(changes) {
  wanted.value = { ...wanted.value, ...changes };
  return loadMemories();
}

/** Takes over what the server said of some memories. */
export function note(found) {
  known.value = new Map([...known.value, ...found.map((memory) => [memory.id, memory])]);
}

function noteGone(ids) {
  known.value = new Map([...known.value, ...ids.map((id) => [id, null])]);
}

/** What became of the memories that a chat's receipts name; those that are gone are known as such then. */
export async function checkReceipts(conversationId, named) {
  try {
    const { memories: found } = await call("GET", `/api/conversations/${encodeURIComponent(conversationId)}/memories`);
    const there = new Set(found.map((memory) => memory.id));
    noteGone(named.filter((id) => !there.has(id)));
    note(found);
  } catch {
    // the receipts then say what was true when they were written
  }
}

// ── changing them ────────────────────────────────────────────────────────────────────────────────

const say = (message) => toast(message, { kind: "error" });

/** Gives what the server answered, or null after telling `fail` why not. */
async function change(work, fail = say) {
  try {
    return (await work()) ?? true;
  } catch (error) {
    fail(error.message, error);
    return null;
  } finally {
    await loadMemories();
  }
}

/** `confirmed`: it was held back as a secret, and the user wants it all the same. */
export async function addMemory(text, kind = "fact", fail = say, confirmed = false) {
  const added = await change(() => call("POST", "/api/memories", { text, kind, ...(confirmed && { confirmed }) }), fail);
  if (added) note([added]);
  return added;
}

/** `memory` as the editor saw it. When it was changed elsewhere meanwhile, the user chooses between the two. */
export async function editMemory(memory, text, fail = say) {
  const send = (expected) => call("PATCH", path(memory.id), { text, expected });
  const work = async () => {
    try {
      return await send(memory.updated_at);
    } catch (error) {
      if (error.status !== 409) throw error;
      const now = await standing(memory.id);
      if (!now) throw error;
      if (now.id === memory.id && now.text === memory.text) return send(now.updated_at); // only its date has changed
      dialog.value = { kind: "conflict", memory: now, text };
      return now;
    }
  };
  const edited = await change(work, fail);
  if (edited) note([edited]);
  return edited;
}

/** What stands now in the place of a memory: itself, or what has replaced it. */
async function standing(id) {
  const { memories: all } = await call("GET", `${path(id)}/history`);
  let found = all.find((memory) => memory.id === id);
  for (let left = all.length; found?.replaced_by && left > 0; left -= 1) {
    found = all.find((memory) => memory.id === found.replaced_by) ?? { ...found, replaced_by: null };
  }
  return found;
}

export async function deleteMemory(memory, fail = say) {
  let gone = false;
  const done = await change(() => call("DELETE", path(memory.id)), (message, error) => {
    gone = error.status === 404; // by another page
    if (!gone) fail(message, error);
  });
  if (done || gone) noteGone([memory.id]);
  return Boolean(done || gone);
}

/** Forgets, and offers to take it back: the same words are then added anew. */
export async function forgetMemory(memory) {
  if (!(await deleteMemory(memory))) return;
  const action = { label: t("memory.undo"), run: () => addMemory(memory.text, memory.kind) };
  toast(t("memory.forgotten", { text: memory.text }), { action });
}

export async function pauseMemory(paused) {
  await change(() => call("PUT", "/api/memories/paused", { paused }));
}

/** Whether the user's chats of that domain read and add to the memory. */
export async function useMemoryIn(domain, used) {
  await change(() => call("PUT", `/api/memories/domains/${encodeURIComponent(domain)}`, { used }));
}

export async function eraseMemories() {
  const done = await change(() => call("DELETE", "/api/memories?confirm=true"));
  if (!done) return;
  noteGone([...known.value.keys()]);
  toast(t("memory.erased", { n: done.deleted }));
}
