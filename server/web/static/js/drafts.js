// Unsent text, one draft a chat ("" is the new chat), kept over reloads.
import { signal } from "@preact/signals";
import { load, save } from "./storage.js";

const KEY = "drafts";
const MOST = 50; // drafts kept; the oldest leave

function read() {
  try {
    return JSON.parse(load(KEY, "{}")) ?? {};
  } catch {
    return {};
  }
}

const drafts = signal(read());
let timer = 0;

export const draftOf = (id) => drafts.value[id] ?? "";

export function setDraft(id, text) {
  const { [id]: _, ...rest } = drafts.value;
  drafts.value = text ? Object.fromEntries([...Object.entries(rest), [id, text]].slice(-MOST)) : rest;
  clearTimeout(timer);
  timer = setTimeout(() => save(KEY, JSON.stringify(drafts.value)), 200);
}

addEventListener("pagehide", () => save(KEY, JSON.stringify(drafts.value)));
