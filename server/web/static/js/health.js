// Whether the model answers: asked when something failed because of it, then until it is well again.
import { signal } from "@preact/signals";
import { call } from "./api.js";

/** True while the server says that its model has failed. It restarts by itself. */
export const modelDown = signal(false);

const PAUSE = 2000;
let timer = 0;
let onBack = () => {};

/** `callback()` when a model that was down answers again. */
export function whenModelIsBack(callback) {
  onBack = callback;
}

/** Asks now, and again while the model is down. */
export async function checkModel() {
  clearTimeout(timer);
  const before = modelDown.value;
  modelDown.value = await isDown(before);
  clearTimeout(timer); // of another call that was on its way
  if (modelDown.value) timer = setTimeout(checkModel, PAUSE);
  else if (before) onBack();
}

async function isDown(before) {
  try {
    await call("GET", "/health");
    return false;
  } catch (error) {
    return error.status === 503 || (error.status === 0 && before); // not reached: nothing new is known
  }
}
