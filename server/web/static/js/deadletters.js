// Dead letters: messages whose memory extraction failed, listed until they are retried or dismissed.
import { signal } from "@preact/signals";
import { call } from "./api.js";
import { latestOnly } from "./latestOnly.js";
import { toast } from "./state.js";

export const deadLetters = signal({ state: "loading", items: [], error: "" });

export const loadDeadLetters = latestOnly(() => call("GET", "/api/memories/dead"), (result, error) => {
  deadLetters.value = error
    ? { ...deadLetters.value, state: "error", error: error.message }
    : { state: "ready", items: result.dead, error: "" };
});

async function mutate(method, path, successMessage) {
  try {
    await call(method, `/api/memories/dead/${path}`);
    toast(successMessage);
  } catch (error) {
    if (error.status !== 404) toast(error.message, { kind: "error" });
  }
  await loadDeadLetters();
}

export const retryDeadLetter = (letter, successMessage) => mutate("POST", `${letter.id}/retry`, successMessage);
export const dismissDeadLetter = (letter, successMessage) => mutate("DELETE", `${letter.id}`, successMessage);
