// The user's memories, and changing them.
import { signal } from "@preact/signals";
import { call } from "./api.js";
import { t } from "./i18n.js";
import { newest } from "./newest.js";
import { toast } from "./state.js";

export const memories = signal({ state: "loading", items: [], error: "" });

export const loadMemories = newest(() => call("GET", "/api/memories"), (found, error) => {
  const held = memories.value;
  memories.value = error
    ? { ...held, state: held.items.length ? "ready" : "error", error: error.message }
    : { state: "ready", items: found.memories, error: "" };
});

/** Each gives true when the server has done it, and says why not otherwise. */
async function change(work) {
  try {
    await work();
    return true;
  } catch (error) {
    toast(error.message, { kind: "error" });
    return false;
  } finally {
    await loadMemories();
  }
}

/** What an answer has just saved, without waiting for the list. */
export function includeMemories(saved) {
  const held = memories.value;
  const ids = new Set(saved.map((memory) => memory.id));
  memories.value = { ...held, items: [...saved, ...held.items.filter((memory) => !ids.has(memory.id))] };
  loadMemories(); // a list that is on its way may be older than these
}

export const addMemory = (text, kind) => change(() => call("POST", "/api/memories", { text, kind }));
export const editMemory = (memory, text) => change(() => call("PATCH", `/api/memories/${memory.id}`, { text }));
export const deleteMemory = (memory) => change(() => call("DELETE", `/api/memories/${memory.id}`));

/** Forgets, and offers to take it back: the same words are then added anew. */
export async function forgetMemory(memory) {
  if (!(await deleteMemory(memory))) return;
  const action = { label: t("memory.undo"), run: () => addMemory(memory.text, memory.kind) };
  toast(t("memory.forgotten", { text: memory.text }), { action });
}
