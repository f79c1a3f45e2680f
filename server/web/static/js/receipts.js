// Which receipts and offers the user has answered, kept in this browser.
import { signal } from "@preact/signals";
import { load, save } from "./storage.js";

const KEY = "answered";
const MOST = 500; // the oldest leave

function read() {
  try {
    const held = JSON.parse(load(KEY, "[]"));
    return new Set(Array.isArray(held) ? held : []);
  } catch {
    return new Set();
  }
}

export const answered = signal(read());

export function answer(key) {
  answered.value = new Set([...answered.value, key].slice(-MOST));
  save(KEY, JSON.stringify([...answered.value]));
}

export const keyOf = (memory) => `kept ${memory.id} ${memory.created_at}`;
