// The user's memories: the panel's filter and list, a cache of the last known version of each, and mutations.
import { signal } from "@preact/signals";
import { call } from "./api.js";
import { t } from "./i18n.js";
import { latestOnly } from "./latestOnly.js";
import { dialog, toast } from "./state.js";

export const KINDS = ["identity", "preference", "instruction", "project", "relation", "event", "fact"];

/** The panel's filter. */
export const memoryFilter = signal({ query: "", kind: "", past: false });
/** The list for that filter; `total` and `paused` do not depend on it. */
export const memories = signal({ state: "loading", items: [], total: 0, paused: false, domainsOff: [], error: "" });
/** id → the last known version of the memory; null when it has been forgotten. */
export const memoryCache = signal(new Map());

const memoryUrl = (id) => `/api/memories/${id}`;

function listUrl({ query, kind, past }) {
  const params = new URLSearchParams();
  if (query.trim()) params.set("query", query.trim());
  if (kind) params.set("kind", kind);
  if (past) params.set("past", "true");
  return params.size ? `/api/memories?${params}` : "/api/memories";
}

export const loadMemories = latestOnly(() => call("GET", listUrl(memoryFilter.value)), (result, error) => {
  const previous = memories.value;
  if (error) {
    memories.value = { ...previous, state: previous.state === "ready" ? "ready" : "error", error: error.message };
    return;
  }
  const { memories: items, total = items.length, paused = false, domains_off: domainsOff = [] } = result;
  memories.value = { state: "ready", items, total, paused, domainsOff, error: "" };
});

/** Changes the filter and reloads the list. */
export function setMemoryFilter(changes) {
  memoryFilter.value = { ...memoryFilter.value, ...changes };
  return loadMemories();
}

/** Caches the versions that the server sent. */
export function cacheMemories(items) {
  memoryCache.value = new Map([...memoryCache.value, ...items.map((memory) => [memory.id, memory])]);
}

function cacheForgotten(ids) {
  memoryCache.value = new Map([...memoryCache.value, ...ids.map((id) => [id, null])]);
}

/** Refreshes the cache for the memories in a chat's receipts; those that no longer exist become null. */
export async function refreshReceiptMemories(conversationId, ids) {
  try {
    const { memories: found } = await call("GET", `/api/conversations/${encodeURIComponent(conversationId)}/memories`);
    const existing = new Set(found.map((memory) => memory.id));
    cacheForgotten(ids.filter((id) => !existing.has(id)));
    cacheMemories(found);
  } catch {
    // the receipts then say what was true when they were written
  }
}

// ── changing them ────────────────────────────────────────────────────────────────────────────────

const showError = (message) => toast(message, { kind: "error" });

/** Returns the server's response, or null after calling `onError(message, error)`. */
async function mutate(request, onError = showError) {
  try {
    return (await request()) ?? true;
  } catch (error) {
    onError(error.message, error);
    return null;
  } finally {
    await loadMemories();
  }
}

/** `confirmed`: it was held back as a secret, and the user wants it all the same. */
export async function addMemory(text, kind = "fact", onError = showError, confirmed = false) {
  const body = { text, kind, ...(confirmed && { confirmed }) };
  const added = await mutate(() => call("POST", "/api/memories", body), onError);
  if (added) cacheMemories([added]);
  return added;
}

/** `memory` as the editor saw it. When it was changed elsewhere meanwhile, the user chooses between the two. */
export async function editMemory(memory, text, onError = showError) {
  const patch = (expected) => call("PATCH", memoryUrl(memory.id), { text, expected });
  const request = async () => {
    try {
      return await patch(memory.updated_at);
    } catch (error) {
      if (error.status !== 409) throw error;
      const latest = await currentVersion(memory.id);
      if (!latest) throw error;
      // only its date has changed
      if (latest.id === memory.id && latest.text === memory.text) return patch(latest.updated_at);
      dialog.value = { kind: "conflict", memory: latest, text };
      return latest;
    }
  };
  const edited = await mutate(request, onError);
  if (edited) cacheMemories([edited]);
  return edited;
}

/** The current version of a memory: itself, or the one that has replaced it. */
async function currentVersion(id) {
  const { memories: versions } = await call("GET", `${memoryUrl(id)}/history`);
  let version = versions.find((memory) => memory.id === id);
  for (let stepsLeft = versions.length; version?.replaced_by && stepsLeft > 0; stepsLeft -= 1) {
    version = versions.find((memory) => memory.id === version.replaced_by) ?? { ...version, replaced_by: null };
  }
  return version;
}

/** Gives the receipt; null after an error. With the query `?words=keep` messages that said it stay as they are. */
export async function deleteMemory(memory, onError = showError, query = "") {
  let alreadyGone = false;
  const done = await mutate(() => call("DELETE", memoryUrl(memory.id) + query), (message, error) => {
    alreadyGone = error.status === 404; // by another page
    if (!alreadyGone) onError(message, error);
  });
  if (done || alreadyGone) cacheForgotten([memory.id]);
  return done ?? (alreadyGone ? {} : null);
}

/** Forgets, with an undo that adds the same text anew; says how many messages still mention it. */
export async function forgetMemory(memory) {
  const receipt = await deleteMemory(memory);
  if (!receipt) return;
  const action = { label: t("memory.undo"), onClick: () => addMemory(memory.text, memory.kind) };
  const left = (receipt.mentions ?? []).reduce((sum, chat) => sum + chat.messages, 0);
  const titles = (receipt.mentions ?? []).map((chat) => chat.title || t("thread.new")).join(", ");
  const text = t("memory.forgotten", { text: memory.text });
  toast(left ? `${text} ${t("memory.mentions", { n: left, titles })}` : text, { action });
}

export async function setMemoryPaused(paused) {
  await mutate(() => call("PUT", "/api/memories/paused", { paused }));
}

/** Whether the user's chats of that domain read and add to the memory. */
export async function setMemoryInDomain(domain, used) {
  await mutate(() => call("PUT", `/api/memories/domains/${encodeURIComponent(domain)}`, { used }));
}

export async function eraseMemories() {
  const done = await mutate(() => call("DELETE", "/api/memories?confirm=true"));
  if (!done) return;
  cacheForgotten([...memoryCache.value.keys()]);
  toast(t("memory.erased", { n: done.deleted }));
}
