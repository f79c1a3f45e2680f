// Keys of the receipts and held-back offers that the user has dealt with, kept in this browser.
import { signal } from "@preact/signals";
import { load, save } from "./storage.js";

const STORAGE_KEY = "answered";
const MAX_KEYS = 500; // the oldest leave

function readStored() {
  try {
    const stored = JSON.parse(load(STORAGE_KEY, "[]"));
    return new Set(Array.isArray(stored) ? stored : []);
  } catch {
    return new Set();
  }
}

export const acknowledged = signal(readStored());

export function acknowledge(key) {
  acknowledged.value = new Set([...acknowledged.value, key].slice(-MAX_KEYS));
  save(STORAGE_KEY, JSON.stringify([...acknowledged.value]));
}

export const receiptKey = (memory) => `kept ${memory.id} ${memory.created_at}`;
