// Unsent text, one draft a chat ("" is the new chat), kept over reloads.
import { signal } from "@preact/signals";
import { load, save } from "./storage.js";

const STORAGE_KEY = "drafts";
const MAX_DRAFTS = 50; // drafts kept; the oldest leave

function readStored() {
  try {
    return JSON.parse(load(STORAGE_KEY, "{}")) ?? {};
  } catch {
    return {};
  }
}

const drafts = signal(readStored());
let saveTimer = 0;

export const draftOf = (id) => drafts.value[id] ?? "";

export function setDraft(id, text) {
  const { [id]: _, ...rest } = drafts.value;
  drafts.value = text ? Object.fromEntries([...Object.entries(rest), [id, text]].slice(-MAX_DRAFTS)) : rest;
  clearTimeout(saveTimer);
  saveTimer = setTimeout(() => save(STORAGE_KEY, JSON.stringify(drafts.value)), 200);
}

addEventListener("pagehide", () => save(STORAGE_KEY, JSON.stringify(drafts.value)));
