// The model's health: checked after an error that it caused, then polled until it has recovered.
import { signal } from "@preact/signals";
import { call } from "./api.js";

/** True while the server says that its model has failed. It restarts by itself. */
export const modelDown = signal(false);

const POLL_INTERVAL_MS = 2000;
let pollTimer = 0;
let recoveryHandler = () => {};

/** `callback()` when a model that was down answers again. */
export function setModelRecoveredHandler(callback) {
  recoveryHandler = callback;
}

/** Asks now, and again while the model is down. */
export async function checkModel() {
  clearTimeout(pollTimer);
  const wasDown = modelDown.value;
  modelDown.value = await isDown(wasDown);
  clearTimeout(pollTimer); // of a concurrent call
  if (modelDown.value) pollTimer = setTimeout(checkModel, POLL_INTERVAL_MS);
  else if (wasDown) recoveryHandler();
}

async function isDown(wasDown) {
  try {
    await call("GET", "/health");
    return false;
  } catch (error) {
    return error.status === 503 || (error.status === 0 && wasDown); // not reached: nothing new is known
  }
}
